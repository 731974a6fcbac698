"""ASVS 7.2.4, 7.5.1, 3.3.1 to 3.3.5, 3.5.1 to 3.5.3: what a log-in gives a browser, and foreign pages cannot do."""

import asyncio
from datetime import timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkey.api.app import EVERY_ROUTE
from roomkey.api.operations import CONTRACTS
from roomkey.domain.access import Access, Grant
from roomkey.domain.session import SessionState
from roomkey.realtime.transport import Accepted, Refused
from roomkey.security import csrf
from roomkey.security.authorization import Action
from roomkey.security.login import LoginSettings
from tests.support.handshakes import endpoint, handshake
from tests.support.rest import CSRF_KEY, Answer, Rest, documents_at_work
from tests.support.sockets import FakeSocket

OURS: Final = {"sec-fetch-site": "same-origin", "origin": "https://rooms.example.com"}
COOKIE: Final = "__Host-roomkey"


def cookies(answer: Answer) -> dict[str, tuple[str, set[str]]]:
    """The cookies of an answer: each with its value and its attributes."""
    found: dict[str, tuple[str, set[str]]] = {}
    for name, value in answer.headers:
        if name == "set-cookie":
            pair, *attributes = value.split("; ")
            key, _, content = pair.partition("=")
            found[key] = (content, set(attributes))
    return found


class Browser:
    """What a browser keeps between requests to one site."""

    def __init__(self, rest: Rest) -> None:
        self.rest = rest
        self.jar: dict[str, str] = {}
        self.given: dict[str, tuple[str, set[str]]] = {}

    async def call(self, method: str, path: str, headers: dict[str, str] | None = None, json: object = None) -> Answer:
        """A request of a page of ours, unless ``headers`` say otherwise."""
        sent = dict(OURS if headers is None else headers)
        if self.jar:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        answer = await self.rest.call(method, path, headers=sent, json=json)
        self.given = cookies(answer)
        for name, (value, attributes) in self.given.items():
            if "Max-Age=0" in attributes:
                self.jar.pop(name, None)
            else:
                self.jar[name] = value
        return answer

    async def log_in(self, token: str) -> Answer:
        return await self.call("POST", "/login", json={"token": token})


@pytest.fixture
def rest() -> Rest:
    return Rest()


@pytest.fixture
def browser(rest: Rest) -> Browser:
    return Browser(rest)


# --- cookies ------------------------------------------------------------------------------------------


async def test_asvs_3_3_1_and_3_3_3_the_cookie_is_secure_and_bound_to_the_host(rest: Rest, browser: Browser) -> None:
    issued = await rest.session()

    answer = await browser.log_in(issued.token)

    assert answer.status == 200
    assert answer.json["session"]["id"] == issued.id
    value, attributes = browser.given[COOKIE]
    assert attributes == {"HttpOnly", "Path=/", "Secure", "SameSite=Lax", "Max-Age=86400"}
    assert value not in answer.body.decode()


@pytest.mark.parametrize("same_site", ["lax", "strict"])
async def test_asvs_3_3_2_cookies_have_the_same_site_attribute_that_is_set(same_site: str) -> None:
    rest = Rest(login=LoginSettings(same_site=same_site))  # pyright: ignore[reportArgumentType]
    browser = Browser(rest)

    await browser.log_in((await rest.session()).token)

    assert all(f"SameSite={same_site.capitalize()}" in attributes for _, attributes in browser.given.values())
    assert len(browser.given) == 2


async def test_asvs_3_3_4_scripts_see_the_token_neither_at_log_in_nor_when_it_is_rotated(
    rest: Rest, browser: Browser
) -> None:
    issued = await rest.session()
    await browser.log_in(issued.token)

    rotated = await browser.call("PUT", f"/sessions/{issued.id}/rotate")

    assert rotated.status == 200
    assert "token" not in rotated.json
    assert "HttpOnly" in browser.given[COOKIE][1]
    assert (await browser.call("GET", "/sessions/me")).status == 200


async def test_asvs_3_3_5_cookies_have_at_most_4096_bytes(rest: Rest, browser: Browser) -> None:
    answer = await browser.log_in((await rest.session("ä" * 128)).token)

    assert all(len(name) + len(value) <= 4096 for name, (value, _) in cookies(answer).items())


async def test_the_cookie_lives_as_long_as_its_session_may(rest: Rest, browser: Browser) -> None:
    issued = await rest.sessions.create_session("alice", lifetime=timedelta(minutes=10))
    rest.clock.advance(timedelta(minutes=4))

    await browser.log_in(issued.token)

    assert "Max-Age=360" in browser.given[COOKIE][1]


# --- fixation -----------------------------------------------------------------------------------------


async def test_asvs_7_2_4_the_token_that_was_sent_opens_nothing_after_the_log_in(rest: Rest, browser: Browser) -> None:
    issued = await rest.session()

    await browser.log_in(issued.token)

    assert (await rest.call("GET", "/sessions/me", token=issued.token)).code == "token_rotated"
    assert (await rest.call("PUT", f"/sessions/{issued.id}/rotate", token=issued.token)).code == "token_rotated"
    assert (await browser.call("GET", "/sessions/me")).json["id"] == issued.id


async def test_a_token_can_be_exchanged_once(rest: Rest, browser: Browser) -> None:
    issued = await rest.session()
    await browser.log_in(issued.token)
    victim = browser.jar.copy()

    again = await Browser(rest).log_in(issued.token)

    assert again.code == "token_rotated"
    assert not cookies(again)
    assert browser.jar == victim


async def test_a_token_that_its_holder_has_just_rotated_logs_nobody_in(rest: Rest, browser: Browser) -> None:
    issued = await rest.session()
    await rest.call("PUT", f"/sessions/{issued.id}/rotate", token=issued.token)

    answer = await browser.log_in(issued.token)

    assert (await rest.call("GET", "/sessions/me", token=issued.token)).status == 200  # there is a grace
    assert answer.code == "token_rotated"
    assert not browser.jar


async def test_of_those_who_exchange_a_token_at_once_one_is_logged_in(rest: Rest) -> None:
    issued = await rest.session()
    browsers = [Browser(rest) for _ in range(8)]

    answers = await asyncio.gather(*(browser.log_in(issued.token) for browser in browsers))

    assert sorted(answer.status for answer in answers) == [200] + [401] * 7


async def test_a_ticket_logs_in_once(rest: Rest, browser: Browser) -> None:
    issued = await rest.session()
    ticket = (await rest.call("POST", "/sessions/me/tickets", token=issued.token)).json["ticket"]

    first = await browser.call("POST", "/login", json={"ticket": ticket})
    second = await browser.call("POST", "/login", json={"ticket": ticket})

    assert (first.status, second.code) == (200, "invalid_token")
    assert (await rest.call("GET", "/sessions/me", token=issued.token)).status == 401


async def test_asvs_7_2_4_what_was_opened_with_the_token_before_is_void(rest: Rest, browser: Browser) -> None:
    issued = await rest.session()
    door = endpoint(rest)
    rest.sessions.on_events(door.on_events)
    planted = await door.accept(handshake(authorization=f"Bearer {issued.token}"))
    ticket = (await rest.call("POST", "/sessions/me/tickets", token=issued.token)).json["ticket"]
    assert isinstance(planted, Accepted)
    socket = FakeSocket()
    planted.conversation.opened(socket)

    await browser.log_in(issued.token)

    assert socket.closed_with == (4401, "token_rotated")
    assert isinstance(await door.accept(handshake(ticket=ticket)), Refused)
    ours = handshake(cookie=f"{COOKIE}={browser.jar[COOKIE]}", origin=OURS["origin"])
    assert isinstance(await door.accept(ours), Accepted)


async def test_a_cookie_that_nobody_issued_is_never_adopted(rest: Rest, browser: Browser) -> None:
    planted = f"00{'a' * 26}.{'A' * 43}"
    browser.jar[COOKIE] = planted
    issued = await rest.session()

    answer = await browser.log_in(issued.token)

    assert answer.status == 200
    assert browser.jar[COOKIE] not in (planted, issued.token)
    assert (await rest.call("POST", "/login", json={"token": planted})).code == "invalid_token"


async def test_the_session_that_the_browser_had_is_ended_by_the_next_log_in(rest: Rest, browser: Browser) -> None:
    former, next_one = await rest.session("alice"), await rest.session("bob")
    await browser.log_in(former.token)

    await browser.log_in(next_one.token)

    ended = await rest.sessions.get_session(former.id)
    assert ended is not None
    assert (ended.state, ended.reason) == (SessionState.INVALIDATED, "login")
    assert (await browser.call("GET", "/sessions/me")).json["user_id"] == "bob"


async def test_a_pending_session_is_activated_by_the_log_in(rest: Rest, browser: Browser) -> None:
    issued = await rest.session(active=False)

    assert (await browser.log_in(issued.token)).json["session"]["state"] == "active"


@pytest.mark.parametrize(
    "body", [{}, {"token": "a", "ticket": "b"}, {"token": ""}, {"token": "x" * 129}, {"code": "a"}]
)
async def test_what_is_neither_a_token_nor_a_ticket_is_refused(rest: Rest, body: dict[str, str]) -> None:
    assert (await rest.call("POST", "/login", json=body)).code in ("invalid_input", "invalid_token")


# --- proving again who one is ---------------------------------------------------------------------------


async def test_asvs_7_2_4_who_proves_again_who_they_are_gets_a_new_token_and_the_old_one_is_dead(
    rest: Rest, browser: Browser
) -> None:
    issued = await rest.session()
    await browser.log_in(issued.token)
    before = browser.jar[COOKIE]
    rest.clock.advance(timedelta(minutes=5))

    proved = await rest.call("PUT", f"/sessions/{issued.id}/reauthenticate", token=rest.service)

    assert (await rest.call("GET", "/sessions/me", token=before)).code == "token_rotated"
    assert proved.json["session"]["authenticated_at"] == "2026-03-01T12:05:00Z"
    assert (await browser.log_in(proved.json["token"])).status == 200
    assert (await rest.call("GET", "/sessions/me", token=before)).status == 401


async def test_a_session_cannot_say_itself_that_its_user_has_proved_who_they_are(rest: Rest) -> None:
    issued = await rest.session()

    answer = await rest.call("PUT", f"/sessions/{issued.id}/reauthenticate", token=issued.token)

    assert answer.code == "forbidden"


async def test_a_suspended_session_goes_on_when_its_user_has_proved_who_they_are(rest: Rest) -> None:
    issued = await rest.session()
    await rest.sessions.suspend_session(issued.id)

    proved = await rest.call("PUT", f"/sessions/{issued.id}/reauthenticate", token=rest.service)

    assert proved.json["session"]["state"] == "active"
    assert (await rest.call("GET", "/sessions/me", token=proved.json["token"])).status == 200


async def test_asvs_7_5_1_ending_all_sessions_needs_a_user_who_proved_lately_who_they_are() -> None:
    rest = Rest(login=LoginSettings(reauthentication_age=timedelta(minutes=10)))
    issued = await rest.session()
    rest.clock.advance(timedelta(minutes=11))

    refused = await rest.call("DELETE", "/users/alice/sessions", token=issued.token)
    proved = await rest.call("PUT", f"/sessions/{issued.id}/reauthenticate", token=rest.service)
    allowed = await rest.call("DELETE", "/users/alice/sessions", token=proved.json["token"])

    assert refused.code == "reauthentication_needed"
    assert 'error="insufficient_user_authentication"' in refused.header("www-authenticate")
    assert allowed.status == 200


async def test_asvs_7_5_1_deleting_a_document_needs_it_too() -> None:
    async with documents_at_work(login=LoginSettings(reauthentication_age=timedelta(minutes=10))) as rest:
        issued = await rest.session("alice", Grant("notes", Access.ADMIN))
        await rest.call("PUT", "/documents/notes", token=issued.token, json={"content": "dear diary"})
        rest.clock.advance(timedelta(minutes=11))

        refused = await rest.call("DELETE", "/documents/notes", token=issued.token)
        proved = await rest.call("PUT", f"/sessions/{issued.id}/reauthenticate", token=rest.service)
        allowed = await rest.call("DELETE", "/documents/notes", token=proved.json["token"])

    assert (refused.code, allowed.status) == ("reauthentication_needed", 204)


# --- logging out ----------------------------------------------------------------------------------------


async def test_logging_out_ends_the_session_and_drops_every_cookie(rest: Rest, browser: Browser) -> None:
    issued = await rest.session()
    await browser.log_in(issued.token)

    answer = await browser.call("POST", "/logout")

    assert answer.status == 204
    assert not browser.jar
    ended = await rest.sessions.get_session(issued.id)
    assert ended is not None
    assert (ended.state, ended.reason) == (SessionState.INVALIDATED, "logout")


@pytest.mark.parametrize("end", ["suspended", "expired", "deleted"])
async def test_a_cookie_is_dropped_whatever_became_of_its_session(rest: Rest, browser: Browser, end: str) -> None:
    issued = await rest.session()
    await browser.log_in(issued.token)
    match end:
        case "suspended":
            await rest.sessions.suspend_session(issued.id)
        case "expired":
            await rest.sessions.expire_session(issued.id)
        case _:
            await rest.sessions.delete_session(issued.id)

    answer = await browser.call("POST", "/logout")

    assert answer.status == 204
    assert not browser.jar
    left = await rest.sessions.get_session(issued.id)
    assert left is None or not left.state.is_live


async def test_browsers_are_told_to_forget_what_is_set(rest: Rest) -> None:
    rest = Rest(login=LoginSettings(clear_site_data=("cache", "storage")))
    browser = Browser(rest)
    await browser.log_in((await rest.session()).token)

    answer = await browser.call("POST", "/logout")

    assert answer.header("clear-site-data") == '"cache", "storage"'


async def test_programs_log_out_with_their_token_and_strangers_are_told_so(rest: Rest) -> None:
    issued = await rest.session()

    assert (await rest.call("POST", "/logout", token=issued.token)).status == 204
    assert (await rest.call("POST", "/logout", token=issued.token)).code == "session_invalidated"
    assert (await rest.call("POST", "/logout")).code == "credentials_missing"
    assert (await rest.call("POST", "/logout", token=rest.admin)).code == "forbidden"


# --- forged requests ------------------------------------------------------------------------------------

FOREIGN: Final = (
    {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
    {"sec-fetch-site": "same-site", "origin": "https://evil.example.com"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-origin, cross-site"},
    {"sec-fetch-site": "", "origin": "https://evil.example"},
    {"sec-fetch-site": "none", "origin": "null"},
    {"sec-fetch-site": "cross-site", "origin": "https://rooms.example.com"},
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "https://rooms.example.com.evil.example"},
    {"origin": ""},
    {"referer": "https://evil.example/rooms.example.com"},
    {"referer": "https://rooms.example.com@evil.example/"},
    {"referer": "about:blank"},
    {"referer": "https://[/"},
)

UNSAFE: Final = (
    ("POST", "/logout"),
    ("DELETE", "/sessions/me"),
    ("POST", "/sessions/me/tickets"),
    ("DELETE", "/users/alice/sessions"),
)


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
@pytest.mark.parametrize(("method", "path"), UNSAFE)
async def test_asvs_3_5_1_no_foreign_page_changes_anything_with_a_cookie(
    rest: Rest, browser: Browser, headers: dict[str, str], method: str, path: str
) -> None:
    issued = await rest.session()
    await browser.log_in(issued.token)
    jar = browser.jar.copy()

    answer = await browser.call(method, path, headers=headers)

    assert answer.code == "origin_rejected"
    assert browser.jar == jar
    assert await rest.sessions.validate_session(issued.id)
    assert "origin_rejected" in [event.type for event in rest.reported]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_asvs_3_5_1_no_foreign_page_logs_a_browser_in(
    rest: Rest, browser: Browser, headers: dict[str, str]
) -> None:
    issued = await rest.session("attacker")

    answer = await browser.call("POST", "/login", headers=headers, json={"token": issued.token})

    assert answer.code == "origin_rejected"
    assert not browser.jar


async def test_asvs_3_5_2_a_form_cannot_log_in(rest: Rest) -> None:
    issued = await rest.session()

    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a"):
        answer = await rest.call(
            "POST", "/login", headers={"content-type": kind}, body=f'{{"token":"{issued.token}"}}'.encode()
        )
        assert answer.code == "unsupported_media_type"


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "same-origin", "origin": "https://behind.a.proxy.example"},
        {"sec-fetch-site": "none"},
        {"origin": "https://rooms.example.com"},
        {"referer": "https://rooms.example.com/editor?page=1"},
    ],
    ids=str,
)
async def test_pages_of_ours_act_with_a_cookie(rest: Rest, browser: Browser, headers: dict[str, str]) -> None:
    await browser.log_in((await rest.session()).token)

    assert (await browser.call("POST", "/logout", headers=headers)).status == 204


async def test_a_browser_that_says_nothing_sends_the_token_of_its_session(rest: Rest, browser: Browser) -> None:
    answer = await browser.log_in((await rest.session()).token)
    mine = answer.json["csrf_token"]
    assert mine == browser.jar[csrf.COOKIE]

    without = await browser.call("POST", "/sessions/me/tickets", headers={})
    with_it = await browser.call("POST", "/sessions/me/tickets", headers={"x-csrf-token": mine})

    assert (without.code, with_it.status) == ("origin_rejected", 200)


async def test_the_token_of_one_session_is_worth_nothing_to_another(rest: Rest, browser: Browser) -> None:
    attacker = await rest.session("mallory")
    theirs = csrf.mint(attacker.id, CSRF_KEY)
    await browser.log_in((await rest.session()).token)
    browser.jar[csrf.COOKIE] = theirs  # planted by a subdomain, if it could

    assert (await browser.call("POST", "/logout", headers={"x-csrf-token": theirs})).code == "origin_rejected"


async def test_asvs_3_5_3_what_only_reads_has_a_safe_method_and_changes_nothing() -> None:
    readers = {name for methods in EVERY_ROUTE.values() for method, name in methods.items() if method == "GET"}
    changing = {
        Action.CREATE_SESSIONS,
        Action.ROTATE_TOKEN,
        Action.EXCHANGE_TOKEN,
        Action.LOG_IN,
        Action.LEAVE,
        Action.LOG_OUT,
        Action.TAKE_TICKET,
        Action.REVOKE_USER,
        Action.WRITE_DOCUMENT,
        Action.DELETE_DOCUMENT,
        Action.IMPORT_DOCUMENT,
        Action.CHANGE_WEBHOOKS,
    }

    assert not {CONTRACTS[reader].action for reader in readers} & changing


async def test_programs_without_cookies_need_none_of_this(rest: Rest) -> None:
    issued = await rest.session()

    foreign = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}

    assert (await rest.call("POST", "/sessions/me/tickets", token=issued.token, headers=foreign)).status == 200
    assert (await rest.call("POST", "/sessions/me/tickets", token=issued.token)).status == 200


@given(st.text(max_size=120), st.text(max_size=120))
def test_no_text_is_taken_for_a_token_that_was_not_minted(nonce: str, seal: str) -> None:
    assert not csrf.is_genuine(f"{nonce}.{seal}", "00" + "a" * 26, CSRF_KEY)  # pyright: ignore[reportArgumentType]


@given(
    st.dictionaries(
        st.sampled_from(["sec-fetch-site", "origin", "referer"]),
        st.one_of(st.text(max_size=40), st.sampled_from(["https://evil.example", "cross-site", "https://[::1", "//"])),
        min_size=1,
    )
)
def test_only_what_names_us_speaks_for_us(headers: dict[str, str]) -> None:
    seen = csrf.witness({**headers, "host": "rooms.example.com"}, ())

    names_us = headers.get("sec-fetch-site") in ("same-origin", "none", "same-site") or "rooms.example.com" in str(
        headers
    )
    assert seen is not csrf.Witness.OURS or names_us


# --- events ---------------------------------------------------------------------------------------------


async def test_logging_in_and_out_is_reported(rest: Rest, browser: Browser) -> None:
    issued = await rest.session()
    await browser.log_in(issued.token)
    await browser.call("POST", "/logout")
    await Browser(rest).log_in(issued.token)

    assert [(event.type, event.cause) for event in rest.reported] == [
        ("session_auth", "login"),
        ("session_auth", "logout"),
        ("session_auth", "session_invalidated"),
    ]
    assert {event.user for event in rest.reported[:2]} == {"alice"}
    assert issued.token not in repr(rest.reported)
