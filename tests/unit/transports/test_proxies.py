"""Who asks, behind proxies: what a proxy wrote is believed, and nothing that was written before it."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkey.transports.proxies import TrustedProxies

PROXY = "10.0.0.1"
NETWORKS = ("10.0.0.0/8", "192.0.2.7", "2001:db8::/32")


def seen(*headers: tuple[str, str], peer: str | None = PROXY, forwarded: bool = False) -> tuple[str | None, str]:
    proxies = TrustedProxies(NETWORKS, "forwarded" if forwarded else "x-forwarded-for")
    return proxies.client(peer, "http", [(name.encode(), value.encode("latin-1")) for name, value in headers])


def client(*values: str, peer: str | None = PROXY) -> str | None:
    return seen(*(("x-forwarded-for", value) for value in values), peer=peer)[0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
        (["6.6.6.6", "203.0.113.9"], "203.0.113.9"),
        (["6.6.6.6, 203.0.113.9, 10.1.2.3"], "203.0.113.9"),
        (["203.0.113.9, 10.1.2.3, 192.0.2.7"], "203.0.113.9"),
        (["203.0.113.9:4711"], "203.0.113.9"),
        (["[2001:db9::1]:4711"], "2001:db9::1"),
        (["[2001:db9::1]"], "2001:db9::1"),
        (["2001:db9::1, 2001:db8::2"], "2001:db9::1"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9,"], PROXY),
        (["203.0.113.9, junk"], PROXY),
        (["203.0.113.9, junk, 10.1.2.3"], "10.1.2.3"),
        (["203.0.113.9, , 10.1.2.3"], "10.1.2.3"),
        (["203.0.113.9:99999999"], PROXY),
        (["203.0.113.9 6.6.6.6"], PROXY),
        (["fe80::1%eth0"], PROXY),
        (["0x7f.1"], PROXY),
        (["127.0.0.01"], PROXY),
        (["unknown"], PROXY),
        (["_hidden"], PROXY),
        ([""], PROXY),
        ([], PROXY),
        (["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
    ],
)
def test_the_chain_is_read_from_the_right(values: list[str], expected: str) -> None:
    assert client(*values) == expected


@pytest.mark.parametrize("peer", ["203.0.113.1", "11.0.0.1", "::1", "not an address", None])
def test_who_is_not_trusted_is_taken_for_what_it_is(peer: str | None) -> None:
    headers = (("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https"), ("forwarded", "for=203.0.113.9"))

    assert seen(*headers, peer=peer) == (peer, "http")


def test_a_proxy_may_be_seen_as_one_of_ipv6() -> None:
    assert client("203.0.113.9", peer="::ffff:10.0.0.1") == "203.0.113.9"


@pytest.mark.parametrize("name", ["x_forwarded_for", "x-forwarded-for ", "x-real-ip", "forwarded", "x-client-ip"])
def test_headers_that_look_like_it_are_not_it(name: str) -> None:
    assert seen((name, "for=6.6.6.6" if name == "forwarded" else "6.6.6.6")) == (PROXY, "http")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["https"], "https"),
        (["http, https"], "https"),
        (["https", "http"], "http"),
        (["WSS"], "https"),
        (["gopher"], "http"),
    ],
)
def test_the_scheme_is_the_one_that_the_proxy_next_to_us_says(values: list[str], expected: str) -> None:
    assert seen(*(("x-forwarded-proto", value) for value in values))[1] == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("for=203.0.113.9;proto=https", ("203.0.113.9", "https")),
        ('for="203.0.113.9:4711";proto=https', ("203.0.113.9", "https")),
        ('For="[2001:db9::1]:80"', ("2001:db9::1", "http")),
        ("for=6.6.6.6, for=203.0.113.9;by=10.0.0.1", ("203.0.113.9", "http")),
        ('for=6.6.6.6;host="a, for=7.7.7.7", for=203.0.113.9', ("203.0.113.9", "http")),
        ("for=203.0.113.9, for=10.1.1.1;proto=https", ("203.0.113.9", "https")),
        ("for=203.0.113.9;for=6.6.6.6", (PROXY, "http")),
        ('for="203.0.113.9', (PROXY, "http")),
        ("for=_hidden", (PROXY, "http")),
        ("for=unknown;proto=https", (PROXY, "https")),
        ("", (PROXY, "http")),
        ("203.0.113.9", (PROXY, "http")),
    ],
)
def test_forwarded_is_read_as_rfc_7239_has_it_where_that_is_set(value: str, expected: tuple[str, str]) -> None:
    assert seen(("forwarded", value), ("x-forwarded-for", "6.6.6.6"), forwarded=True) == expected


def test_every_peer_may_be_trusted() -> None:
    proxies = TrustedProxies(["*"])

    assert proxies.client("203.0.113.1", "http", [(b"x-forwarded-for", b"6.6.6.6")])[0] == "6.6.6.6"


def test_a_chain_of_a_thousand_proxies_is_not_walked() -> None:
    assert client(", ".join(["203.0.113.9", *["10.0.0.5"] * 1000])) == "10.0.0.5"


@given(st.lists(st.text(alphabet='0123456789abcdef.:[],;="\\ for', max_size=40), max_size=4), st.booleans())
def test_whatever_is_written_there_the_client_is_an_address(values: list[str], forwarded: bool) -> None:  # noqa: FBT001
    name = "forwarded" if forwarded else "x-forwarded-for"

    found, scheme = seen(*((name, value) for value in values), forwarded=forwarded)

    assert str(ip_address(str(found))) == found
    assert scheme in ("http", "https")


@given(st.lists(st.ip_addresses(v=4).map(str), max_size=5), st.text(alphabet="0123456789.,: x", max_size=30))
def test_what_the_client_writes_itself_never_counts(chain: list[str], spoofed: str) -> None:
    mine = client(*chain, "203.0.113.9")

    assert mine == "203.0.113.9"
    assert client(spoofed, *chain, "203.0.113.9") == mine
