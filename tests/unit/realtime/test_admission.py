"""Handshakes: which credential opens, what the refusals look like, and how many may come."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from roomkey import errors
from roomkey.domain.session import Client, Expired, Invalidated, SessionState, Suspended
from roomkey.errors import Conflict, Serialization, SessionPending, Storage
from roomkey.ports import Rate
from roomkey.realtime.transport import Accepted, Handshake, Refused
from tests.support.sockets import Node

HOST = {"host": "app.example.com"}


def problem(answer: Any) -> tuple[int, str]:
    assert isinstance(answer, Refused)
    body = msgspec.json.decode(answer.body)
    assert body["status"] == answer.status
    assert body["type"] == f"urn:roomkey:problem:{body['code']}"
    assert body["title"]
    assert body["detail"]
    assert ("content-type", "application/problem+json") in answer.headers
    return answer.status, body["code"]


async def test_a_bearer_token_opens() -> None:
    node = Node()
    _, token = node.sessions.issue()

    assert isinstance(await node.knock(token), Accepted)


async def test_the_session_header_opens() -> None:
    node = Node()
    _, token = node.sessions.issue()

    assert isinstance(await node.knock(headers={"x-session-id": token}), Accepted)


async def test_a_subprotocol_opens_and_the_other_one_is_selected() -> None:
    node = Node()
    _, token = node.sessions.issue()

    answer: Any = await node.knock(subprotocols=(f"roomkey.token.{token}", "roomkey.v1"))

    assert answer.subprotocol == "roomkey.v1"


async def test_a_ticket_opens_once() -> None:
    node = Node()
    session, _ = node.sessions.issue()
    ticket = await node.tickets.issue(session.id)

    first, second = [await node.knock(query={"ticket": ticket}) for _ in range(2)]

    assert isinstance(first, Accepted)
    assert problem(second) == (401, "invalid_token")


async def test_a_ticket_of_an_ended_session_opens_nothing() -> None:
    node = Node()
    session, _ = node.sessions.issue()
    ticket = await node.tickets.issue(session.id)
    node.sessions.change(session.id, Invalidated)

    assert problem(await node.knock(query={"ticket": ticket})) == (410, "session_invalidated")


async def test_a_token_in_the_address_opens_only_where_that_is_switched_on() -> None:
    strict, lenient = Node(), Node(query_tokens=True)

    answers = [await node.knock(query={"token": node.sessions.issue()[1]}) for node in (strict, lenient)]

    assert problem(answers[0]) == (401, "credentials_missing")
    assert isinstance(answers[1], Accepted)


@pytest.mark.parametrize(
    ("origin", "accepted"),
    [("https://app.example.com", True), ("https://evil.example.com", False), (None, False), ("null", False)],
)
async def test_a_cookie_opens_on_our_pages_only(origin: str | None, *, accepted: bool) -> None:
    node = Node()
    _, token = node.sessions.issue()
    headers = HOST | {"cookie": f"__Host-roomkey={token}"} | ({"origin": origin} if origin else {})

    answer = await node.knock(headers=headers)

    assert isinstance(answer, Accepted) is accepted
    assert accepted or problem(answer) == (403, "origin_rejected")


async def test_allowed_origins_count_for_every_credential() -> None:
    node = Node(allowed_origins=("https://friend.example.com",))
    _, token = node.sessions.issue()
    origins = ("https://friend.example.com", "https://app.example.com", "https://evil.example.com")

    answers = [await node.knock(token, headers=HOST | {"origin": origin}) for origin in origins]
    without_browser = await node.knock(token, headers=HOST)

    assert [isinstance(answer, Accepted) for answer in answers] == [True, True, False]
    assert isinstance(without_browser, Accepted)


async def test_another_address_is_not_found() -> None:
    node = Node()
    _, token = node.sessions.issue()

    assert problem(await node.knock(token, path="/nowhere")) == (404, "not_found")


async def test_who_presents_nothing_learns_how_to() -> None:
    node = Node()

    answer: Any = await node.knock()

    assert problem(answer) == (401, "credentials_missing")
    assert ("www-authenticate", 'Bearer realm="roomkey"') in answer.headers


async def test_a_token_that_we_did_not_issue_opens_nothing() -> None:
    node = Node()

    answer: Any = await node.knock("forged")

    assert problem(answer) == (401, "invalid_token")
    assert ("www-authenticate", 'Bearer realm="roomkey", error="invalid_token"') in answer.headers
    assert b"forged" not in answer.body


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Suspended, (401, "session_suspended")),
        (Expired, (410, "session_expired")),
        (Invalidated, (410, "session_invalidated")),
    ],
    ids=["suspended", "expired", "invalidated"],
)
async def test_a_session_that_is_not_active_is_not_let_in(kind: type[Any], expected: tuple[int, str]) -> None:
    node = Node()
    session, token = node.sessions.issue()
    node.sessions.change(session.id, kind)

    assert problem(await node.knock(token)) == expected


async def test_a_pending_session_is_not_let_in_yet() -> None:
    node = Node()
    _, token = node.sessions.issue(state=SessionState.PENDING)

    assert problem(await node.knock(token)) == (403, "session_pending")


@pytest.mark.parametrize(
    "failure", [Storage("/secret/path"), Serialization("x"), Conflict("x"), TimeoutError()], ids=str
)
async def test_when_nobody_can_be_asked_nobody_is_let_in(failure: Exception) -> None:
    node = Node()
    _, token = node.sessions.issue()
    node.sessions.failure = failure

    answer: Any = await node.knock(token)

    assert problem(answer)[0] == 503
    assert ("retry-after", "1") in answer.headers
    assert b"secret" not in answer.body
    assert node.handler.statistics().connections == 0


async def test_a_session_has_a_bounded_number_of_connections() -> None:
    node = Node(max_connections_per_session=2)
    _, token = node.sessions.issue()
    first = await node.enter(token)
    await node.enter(token)

    refused: Any = await node.knock(token)
    first.hang_up()

    assert problem(refused) == (429, "too_many_connections")
    assert ("retry-after", "1") in refused.headers
    assert isinstance(await node.knock(token), Accepted)


async def test_the_node_has_a_bounded_number_of_connections() -> None:
    node = Node(max_connections=2)
    first = await node.client()
    await node.client()
    _, token = node.sessions.issue()

    refused = await node.knock(token)
    first.hang_up()

    assert problem(refused) == (503, "overloaded")
    assert isinstance(await node.knock(token), Accepted)


async def test_handshakes_from_one_address_have_a_rate() -> None:
    node = Node(handshakes_per_second=1, handshake_burst=3)
    answers = [await node.knock("forged") for _ in range(3)]

    refused: Any = await node.knock("forged")
    node.clock.advance(seconds=1)

    assert {problem(answer)[0] for answer in answers} == {401}
    assert problem(refused) == (429, "rate_limited")
    assert ("retry-after", "1") in refused.headers
    assert problem(await node.knock("forged"))[0] == 401


@pytest.mark.parametrize("state", [SessionState.PENDING, SessionState.INVALIDATED])
async def test_before_a_session_is_known_to_be_usable_nothing_is_done_for_it(state: SessionState) -> None:
    node = Node()
    session, token = node.sessions.issue(state=state)
    ticket = await node.tickets.issue(session.id)
    admission = node.handler._admission  # pyright: ignore[reportPrivateUsage]  # who asks it goes on with what it says
    handshake = Handshake(path="/ws", raw_path="/ws", query={"ticket": ticket}, headers={}, client_ip=None)

    for way in (admission.authenticate_handshake(handshake), admission.authenticate_token(token, Client())):
        with pytest.raises((SessionPending, errors.Invalidated)):
            await way


class Elsewhere:
    """Counters that are asked over a wire, and answer when the test says so."""

    def __init__(self) -> None:
        self.answered = asyncio.Event()
        self.asked = 0
        self.failure: Exception | None = None

    async def take(self, key: str, rate: Rate, cost: float = 1.0) -> float:
        del key, rate, cost
        self.asked += 1
        await self.answered.wait()
        if self.failure is not None:
            raise self.failure
        return 0.0


async def test_handshakes_that_wait_for_their_counters_are_not_let_in_beyond_the_bound() -> None:
    counters = Elsewhere()
    node = Node(max_connections=2, counters=counters)
    _, token = node.sessions.issue()

    async with asyncio.TaskGroup() as group:
        knocks = [group.create_task(node.knock(token)) for _ in range(5)]
        await asyncio.sleep(0)  # all of them have asked
        counters.answered.set()

    assert counters.asked == 5
    assert sum(isinstance(knock.result(), Accepted) for knock in knocks) == 2
    assert {problem(knock.result()) for knock in knocks if isinstance(knock.result(), Refused)} == {(503, "overloaded")}


async def test_nobody_is_let_in_while_handshakes_cannot_be_counted() -> None:
    counters = Elsewhere()
    counters.failure = Storage("it is away")
    counters.answered.set()
    node = Node(counters=counters)
    _, token = node.sessions.issue()

    assert problem(await node.knock(token)) == (503, "storage")


async def test_counters_that_do_not_answer_keep_nobody_waiting() -> None:
    node = Node(counters=Elsewhere(), authentication_timeout=timedelta(milliseconds=1))
    _, token = node.sessions.issue()

    assert problem(await node.knock(token)) == (503, "overloaded")


async def test_refusals_are_counted() -> None:
    node = Node()

    await node.knock("forged")

    assert node.handler.statistics().refused == 1


async def test_a_handshake_that_is_given_up_leaves_nothing_behind() -> None:
    node = Node()
    _, token = node.sessions.issue()

    def give_up_during_the_second_look() -> None:
        def give_up() -> None:
            raise asyncio.CancelledError

        node.sessions.before_returning = give_up

    node.sessions.before_returning = give_up_during_the_second_look
    with pytest.raises(asyncio.CancelledError):
        await node.knock(token)

    assert node.handler.statistics().connections == 0
    assert isinstance(await node.knock(token), Accepted)
