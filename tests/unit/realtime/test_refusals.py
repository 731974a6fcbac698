"""Refused handshakes: a page is told why by a socket that is closed at once, everyone else in plain HTTP."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from roomkey.domain.access import Access, Grant
from roomkey.domain.session import Expired, Invalidated, Resumed, SessionEvent, SessionState, Suspended
from roomkey.errors import Storage
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.settings import RefusalMode
from roomkey.realtime.transport import Accepted, Refused
from tests.support.documents import token_message
from tests.support.loops import in_no_time
from tests.support.open_documents import House
from tests.support.sockets import FakeSocket, Node

PAGE = {"host": "app.example.com", "origin": "https://app.example.com"}
PATHS = ("/ws", "/yjs/d", "/hocuspocus")
HOLD = 1.5


class Door:
    """Handshakes of pages at a node with documents, and the sockets that they get."""

    def __init__(self, **settings: Any) -> None:
        self.house = House(realtime=settings)

    async def knock(self, path: str, token: str | None, *, headers: dict[str, str] | None = None) -> Any:
        credential = {} if token is None else {"authorization": f"Bearer {token}"}
        return await self.house.handshake(path, (PAGE if headers is None else headers) | credential)

    async def visit(self, path: str, token: str | None) -> FakeSocket:
        """The socket of a page, which was accepted."""
        answer = await self.knock(path, token)
        assert isinstance(answer, Accepted), answer
        return opened(answer)

    async def after(self, seconds: float) -> None:
        await self.house.pass_time(seconds)


def opened(answer: Accepted) -> FakeSocket:
    socket = FakeSocket()
    answer.conversation.opened(socket)
    return socket


def code_of(answer: Any) -> tuple[int, str]:
    assert isinstance(answer, Refused)
    return answer.status, msgspec.json.decode(answer.body)["code"]


# --- what a page is told --------------------------------------------------------------------------------

ENDED: dict[type[SessionEvent], str] = {
    Invalidated: "session_invalidated: spam",
    Expired: "session_expired",
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ENDED, ids=lambda kind: kind.tag())
@in_no_time
async def test_a_page_whose_session_has_ended_is_told_so_at_once(kind: type[SessionEvent], path: str) -> None:
    door = Door()
    session, token = door.house.sessions.issue()
    door.house.sessions.change(session.id, kind, reason="spam")

    socket = await door.visit(path, token)

    assert socket.closed_with == (4401, ENDED[kind])
    assert socket.frames == []


@pytest.mark.parametrize("path", PATHS)
@in_no_time
async def test_a_page_with_a_token_that_opens_nothing_is_told_so(path: str) -> None:
    assert (await Door().visit(path, "forged")).closed_with == (4401, "invalid_token")


@pytest.mark.parametrize("path", ["/ws", "/yjs/d"])
@in_no_time
async def test_a_page_without_a_credential_is_told_so(path: str) -> None:
    assert (await Door().visit(path, None)).closed_with == (4401, "credentials_missing")


@in_no_time
async def test_a_page_that_may_not_open_the_document_is_told_so() -> None:
    door = Door()
    _, token = door.house.sessions.issue(grants=(Grant("other", Access.WRITE),))

    assert (await door.visit("/yjs/d", token)).closed_with == (4403, "forbidden")


@in_no_time
async def test_a_page_that_asks_for_what_cannot_be_a_document_is_told_so() -> None:
    door = Door()
    _, token = door.house.sessions.issue()

    assert (await door.visit("/yjs/a/../b", token)).closed_with == (4400, "invalid_document_name")


@pytest.mark.parametrize(
    ("state", "reason"), [("suspended", "session_suspended: later"), ("pending", "session_pending")]
)
@in_no_time
async def test_a_page_whose_session_cannot_be_used_now_is_told_so_on_ws(state: str, reason: str) -> None:
    door = Door()

    assert (await door.visit("/ws", unusable(door, state))).closed_with == (4423, reason)


def unusable(door: Door, state: str) -> str:
    """The token of a session that may become usable."""
    session, token = door.house.sessions.issue(
        state=SessionState.PENDING if state == "pending" else SessionState.ACTIVE
    )
    if state == "suspended":
        door.house.sessions.change(session.id, Suspended, reason="later")
    return token


@pytest.mark.parametrize("path", PATHS)
@in_no_time
async def test_nothing_that_a_refused_page_says_is_read(path: str) -> None:
    door = Door()
    answer = await door.knock(path, "forged")
    socket = opened(answer)

    answer.conversation.text(b"anything")
    answer.conversation.binary(b"\xff")
    answer.conversation.writable()
    answer.conversation.closed(1000)

    assert socket.closed_with == (4401, "invalid_token")
    assert socket.frames == []


@in_no_time
async def test_a_subprotocol_is_selected_or_browsers_would_not_open_the_socket() -> None:
    offered = ("roomkey.token.forged", "roomkey.v1")
    answer: Any = await Door().house.handshake("/ws", PAGE, subprotocols=offered)

    assert answer.subprotocol == "roomkey.v1"


# --- who is told in plain HTTP --------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@in_no_time
async def test_who_is_no_page_is_refused_in_plain_http(path: str) -> None:
    assert code_of(await Door().knock(path, "forged", headers={})) == (401, "invalid_token")


@in_no_time
async def test_pages_can_be_refused_in_plain_http_too_and_everybody_by_a_close() -> None:
    http, close = Door(refuse=RefusalMode.HTTP), Door(refuse=RefusalMode.CLOSE)

    refused = await http.knock("/ws", "forged")
    told = await close.knock("/ws", "forged", headers={})

    assert code_of(refused) == (401, "invalid_token")
    assert opened(told).closed_with == (4401, "invalid_token")


@pytest.mark.parametrize("mode", [RefusalMode.AUTO, RefusalMode.CLOSE])
@pytest.mark.parametrize("path", PATHS)
@in_no_time
async def test_a_page_of_a_foreign_origin_learns_nothing_of_sessions(path: str, mode: RefusalMode) -> None:
    door = Door(refuse=mode, allowed_origins=("https://friend.example.com",))
    foreign = PAGE | {"origin": "https://evil.example.com"}

    for token in ("forged", None):
        assert code_of(await door.knock(path, token, headers=foreign))[0] in (401, 403)


@in_no_time
async def test_a_cookie_of_a_foreign_page_is_not_looked_at() -> None:
    foreign = PAGE | {"origin": "https://evil.example.com", "cookie": "__Host-roomkey=forged"}

    assert code_of(await Door().knock("/ws", None, headers=foreign)) == (403, "origin_rejected")


async def test_load_is_told_in_plain_http() -> None:
    node = Node(max_connections_per_session=1, max_connections=2, handshakes_per_second=1, handshake_burst=7)
    session, token = node.sessions.issue()
    await node.enter(token)

    too_many = await node.knock(token, headers=PAGE)
    node.sessions.failure = Storage("away")
    away = await node.knock(token, headers=PAGE)
    node.sessions.failure = None
    await node.client()
    full = await node.knock("forged", headers=PAGE)
    hasty = [await node.knock("forged", headers=PAGE) for _ in range(3)][-1]
    nowhere = await node.knock("forged", headers=PAGE, path="/nowhere")

    assert code_of(too_many) == (429, "too_many_connections")
    assert code_of(away) == (503, "storage")
    assert code_of(full) == (503, "overloaded")
    assert code_of(hasty) == (429, "rate_limited")
    assert code_of(nowhere) == (404, "not_found")
    assert session.user_id == "alice"


# --- bounds ---------------------------------------------------------------------------------------------


async def test_refused_sockets_are_bounded_in_number_and_counted() -> None:
    node = Node(max_refused_sockets=2)
    answers: list[Any] = [await node.knock("forged", headers=PAGE) for _ in range(3)]
    opened(answers[0])

    answers[0].conversation.closed(1000)
    again = await node.knock("forged", headers=PAGE)

    assert [type(answer) for answer in answers] == [Accepted, Accepted, Refused]
    assert isinstance(again, Accepted)
    assert (node.handler.statistics().refused, node.handler.statistics().connections) == (4, 0)
    assert node.remembered() == {"peers": 0, "ledgers": 0, "rooms": 0, "presence": 0}


async def test_a_refused_socket_that_never_opens_gives_its_place_away() -> None:
    node = Node(max_refused_sockets=1)
    await node.knock("forged", headers=PAGE)

    node.pass_time(seconds=9)
    early = await node.knock("forged", headers=PAGE)
    node.pass_time(seconds=1)
    late = await node.knock("forged", headers=PAGE)

    assert (type(early), type(late)) == (Refused, Accepted)


async def test_an_address_that_keeps_knocking_is_held_before_it_is_told_again() -> None:
    """Old y-websocket providers come back after 100 ms, whatever they are told."""
    node = Node()
    sockets: list[FakeSocket] = []
    for _ in range(11):
        answer = await node.knock("forged", headers=PAGE)
        assert isinstance(answer, Accepted)
        sockets.append(opened(answer))
    *first, last = sockets
    before = last.closed_with

    node.pass_time(seconds=HOLD)

    assert {socket.closed_with for socket in first} == {(4401, "invalid_token")}
    assert before is None
    assert last.closed_with == (4401, "invalid_token")
    assert last.frames == []


@in_no_time
async def test_a_drain_closes_the_sockets_that_are_held() -> None:
    door = Door()
    socket = await door.visit("/yjs/d", unusable(door, "suspended"))

    await door.house.handler.drain(timedelta())

    assert socket.closed_with == (4503, "session_suspended: later")


# --- suspended and resumed ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/yjs/d", "/hocuspocus"])
@pytest.mark.parametrize("state", ["suspended", "pending"])
@in_no_time
async def test_a_yjs_provider_is_held_and_then_closed_with_a_code_that_lets_it_come_back(path: str, state: str) -> None:
    door = Door()
    socket = await door.visit(path, unusable(door, state))
    at_once = socket.closed_with

    await door.after(HOLD - 0.1)
    early = socket.closed_with
    await door.after(0.1)

    assert (at_once, early) == (None, None)
    assert socket.closed_with is not None
    assert (socket.closed_with[0], socket.closed_with[1].partition(":")[0]) == (4503, f"session_{state}")
    # A Hocuspocus provider that hears nothing waits longer and longer.
    assert [frame.payload for frame in socket.frames] == ([yjs.PING] if path == "/hocuspocus" else [])


@in_no_time
async def test_a_hocuspocus_token_of_a_suspended_session_is_denied_and_its_socket_closed_soon() -> None:
    door = Door()
    token = unusable(door, "suspended")
    answer = await door.knock("/hocuspocus", None)
    socket = opened(answer)
    documents = [f"d{number}" for number in range(20)]

    async with door.house:
        for document in documents:
            answer.conversation.binary(yjs.address(document) + token_message(token))
        await door.house.settle()
        denied = [frame.payload for frame in socket.frames]
        early = socket.closed_with
        await door.after(HOLD)

    assert denied == [yjs.address(each) + yjs.permission_denied("session_suspended: later") for each in documents]
    assert early is None
    assert socket.closed_with == (4503, "session_suspended: later")


@in_no_time
async def test_a_hocuspocus_client_with_another_token_is_not_closed() -> None:
    door = Door()
    suspended, (_, good) = unusable(door, "suspended"), door.house.sessions.issue()
    answer = await door.knock("/hocuspocus", None)
    socket = opened(answer)
    async with door.house:
        for token in (suspended, good):
            answer.conversation.binary(yjs.address("d") + token_message(token))
            await door.house.settle()

        await door.after(HOLD)

        assert socket.closed_with is None
        assert yjs.address("d") + yjs.authenticated(yjs.READ_WRITE) in [frame.payload for frame in socket.frames]


@pytest.mark.parametrize("path", ["/yjs/d", "/hocuspocus"])
@in_no_time
async def test_open_yjs_sockets_of_a_suspended_session_may_come_back_and_those_of_an_ended_one_not(path: str) -> None:
    door = Door()
    async with door.house:
        closed: list[Any] = []
        for kind in (Suspended, Invalidated):
            session, token = door.house.sessions.issue()
            socket = await door.visit(path, token)
            door.house.sessions.change(session.id, kind, reason="spam")
            closed.append(socket.closed_with)
            if kind is Suspended:
                door.house.sessions.change(session.id, Resumed)
                closed.append((await door.visit(path, token)).closed_with)

    assert closed == [(4503, "session_suspended: spam"), None, (4401, "session_invalidated: spam")]


@in_no_time
async def test_hocuspocus_is_told_of_the_end_in_every_document() -> None:
    door = Door()
    async with door.house:
        session, token = door.house.sessions.issue()
        answer = await door.knock("/hocuspocus", token)
        socket = opened(answer)
        for document in ("d", "e"):
            answer.conversation.binary(yjs.address(document) + token_message(""))
            await door.house.settle()

        door.house.sessions.change(session.id, Invalidated, reason="spam")

        denied = yjs.permission_denied("session_invalidated: spam")
        assert [frame.payload for frame in socket.frames[-2:]] == [yjs.address("d") + denied, yjs.address("e") + denied]
        assert socket.closed_with == (4401, "session_invalidated: spam")
