"""Where credentials are found, which of several counts, and whose pages may use cookies."""

import pytest
from rich.pretty import pretty_repr

from roomkey.domain.session import Client
from roomkey.security.credentials import (
    MAX_USER_AGENT_CHARS,
    Credential,
    CredentialKind,
    client_of,
    find,
    origin_allowed,
    select_subprotocol,
)

EVERYWHERE = {
    "authorization": "Bearer from-bearer",
    "x-session-id": "from-header",
    "cookie": "theme=dark; __Host-roomkey=from-cookie",
}
PROTOCOLS = ("roomkey.v1", "roomkey.token.from-subprotocol")
QUERY = {"ticket": "from-ticket", "token": "from-query"}


def test_the_first_place_that_has_a_credential_counts() -> None:
    headers, protocols, query = dict(EVERYWHERE), PROTOCOLS, dict(QUERY)
    found: list[str] = []

    for remove in (
        lambda: headers.pop("authorization"),
        lambda: headers.pop("x-session-id"),
        lambda: headers.pop("cookie"),
        lambda: None,
    ):
        credential = find(headers, query=query, subprotocols=protocols, allow_query_token=True)
        assert credential is not None
        found.append(credential.secret)
        remove()
    without_protocols = find({}, query=query, allow_query_token=True)
    query.pop("ticket")
    only_query = find({}, query=query, allow_query_token=True)

    assert found == ["from-bearer", "from-header", "from-cookie", "from-subprotocol"]
    assert without_protocols == Credential(CredentialKind.TICKET, "from-ticket")
    assert only_query == Credential(CredentialKind.QUERY, "from-query")


def test_a_token_in_the_address_counts_only_where_that_is_switched_on() -> None:
    assert find({}, query={"token": "t"}) is None


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_has_no_case(scheme: str) -> None:
    assert find({"authorization": f"{scheme} t"}) == Credential(CredentialKind.BEARER, "t")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Basic dXNlcjpwYXNz"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer"},
        {"x-session-id": " "},
        {"cookie": "roomkey=t; X__Host-roomkey=t"},
        {"cookie": "__Host-roomkey="},
    ],
)
def test_what_is_not_there_is_not_found(headers: dict[str, str]) -> None:
    assert find(headers, subprotocols=("roomkey.token.", "chat")) is None


def test_a_scheme_that_is_not_ours_does_not_hide_the_others() -> None:
    credential = find({"authorization": "Basic eA==", "x-session-id": "t"})

    assert credential == Credential(CredentialKind.HEADER, "t")


def test_a_credential_cannot_be_printed() -> None:
    credential = Credential(CredentialKind.BEARER, "sesame")

    assert "sesame" not in repr(credential) + str(credential) + pretty_repr(credential)


@pytest.mark.parametrize(
    ("offered", "selected"),
    [
        ((), None),
        (("roomkey.token.t", "roomkey.v1"), "roomkey.v1"),
        (("chat", "roomkey.v1"), "roomkey.v1"),
        (("roomkey.token.t", "chat"), "chat"),
        (("roomkey.token.t",), "roomkey.token.t"),
    ],
)
def test_the_token_is_only_echoed_when_a_browser_would_otherwise_hang_up(
    offered: tuple[str, ...], selected: str | None
) -> None:
    assert select_subprotocol(offered) == selected


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://app.example.com", "app.example.com"),
        ("https://APP.example.com", "app.Example.com"),
        ("https://app.example.com", "app.example.com:443"),
        ("http://localhost:3000", "localhost:3000"),
        ("https://other.example.com:8443", "app.example.com"),
        ("https://elsewhere.example.com", "app.example.com"),
    ],
)
def test_our_own_pages_and_those_that_are_named_may_use_cookies(origin: str, host: str) -> None:
    allowed = ("https://other.example.com:8443", "https://elsewhere.example.com")

    assert origin_allowed(origin, host, allowed)


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "",
        "null",
        "https://evil.example.com",
        "https://app.example.com.evil.com",
        "https://app.example.com:444",
        "https://app.example.com@evil.com",
        "https://app.example.com/path",
        "app.example.com",
        "https://[broken",
        "https://app.example.com:port",
        "https://app.example.com, https://evil.example.com",
    ],
)
def test_other_pages_may_not(origin: str | None) -> None:
    assert not origin_allowed(origin, "app.example.com", ("https://friend.example.com",))
    assert not origin_allowed(origin, None, ())


def test_a_client_is_its_address_and_what_it_calls_itself() -> None:
    client = client_of({"user-agent": "Firefox/1"}, "192.0.2.1")

    assert client == Client(ip="192.0.2.1", user_agent="Firefox/1")


def test_what_a_client_calls_itself_is_cut_at_its_bound() -> None:
    client = client_of({"user-agent": "x" * (MAX_USER_AGENT_CHARS + 1)}, None)

    assert client.user_agent == "x" * MAX_USER_AGENT_CHARS


@pytest.mark.parametrize("headers", [{}, {"user-agent": ""}, {"user-agent": "a\x1b"}])
def test_a_name_that_cannot_be_shown_is_none(headers: dict[str, str]) -> None:
    assert client_of(headers, None) == Client()
