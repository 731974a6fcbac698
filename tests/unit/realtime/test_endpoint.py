"""The handler as a whole: draining, statistics, configuration, and running on a real loop."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from roomkey.domain.session import Invalidated
from roomkey.errors import ConfigurationError
from roomkey.realtime.endpoint import SessionWebSocketHandler
from roomkey.realtime.settings import RealtimeSettings
from roomkey.realtime.transport import Accepted
from tests.support.sockets import Caller, Node


async def test_draining_tells_everyone_when_to_come_back_and_lets_nobody_in() -> None:
    node = Node()
    callers = [await node.client() for _ in range(5)]
    _, token = node.sessions.issue()

    await node.handler.drain(timedelta(seconds=0.2))

    waits = [caller.payload_of("draining")["reconnect_after_ms"] for caller in callers]
    assert all(0 < wait <= 5000 for wait in waits)
    assert len(set(waits)) > 1
    assert {caller.closed_with for caller in callers} == {(1012, "draining")}
    refused: Any = await node.knock(token)
    assert refused.status == 503
    assert ("retry-after", "1") in refused.headers


async def test_what_was_published_before_the_drain_still_leaves() -> None:
    node = Node()
    alice, bob = await node.member(), await node.member(user_id="bob")
    alice.whisper("realtime_edit", {"document": "d", "text": "last words"})

    await node.handler.drain(timedelta())

    assert [message["message_type"] for message in bob.news()] == ["realtime_edit", "draining"]
    assert [message["message_type"] for message in alice.news()] == ["ack", "draining"]


async def test_who_was_let_in_while_the_drain_began_goes_too() -> None:
    node = Node()
    _, token = node.sessions.issue()
    admission = node.handler._admission  # pyright: ignore[reportPrivateUsage]  # nothing else can happen in between
    node.sessions.before_returning = lambda: setattr(admission, "is_draining", True)

    answer: Any = await node.knock(token)

    assert answer.status == 503
    assert node.handler.statistics().connections == 0


async def test_an_accepted_handshake_that_opens_after_the_drain_is_closed() -> None:
    node = Node()
    _, token = node.sessions.issue()
    accepted: Any = await node.knock(token)

    await node.handler.drain(timedelta())
    caller = Caller(node, accepted.conversation)
    caller.open()

    assert caller.closed_with == (1012, "draining")


async def test_statistics_count_what_goes_in_and_out() -> None:
    node = Node()
    alice, _ = await node.member(), await node.member(user_id="bob")
    before = node.handler.statistics()

    alice.edit("x")

    after = node.handler.statistics()
    assert (after.connections, after.sessions, after.documents) == (2, 2, 1)
    assert after.messages_in - before.messages_in == 1
    assert after.messages_out - before.messages_out == 2
    assert after.publications - before.publications == 1
    assert after.bytes_in > before.bytes_in
    assert after.bytes_out > before.bytes_out
    assert after.histories_bytes > 0


async def test_nothing_is_left_of_connections_that_are_gone() -> None:
    node = Node()
    for number in range(500):
        caller = await node.member(f"d{number}")
        caller.say("user_presence", {"document": f"d{number}", "status": "here"})
        caller.hang_up()
    node.pass_time(minutes=10)
    node.pass_time(minutes=10)

    assert node.remembered() == {"peers": 0, "ledgers": 0, "rooms": 0, "presence": 0}
    assert node.deadlines() < 200
    assert node.rooms.broker.kept_bytes() == 0


def test_unusable_message_types_are_all_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Node(message_types={"ack": {}, "Upper": {}, "broken": {"type": "nonsense"}, "fine": {}})

    assert len(caught.value.problems) == 3


async def test_it_runs_on_a_loop_until_it_is_cancelled() -> None:
    node = Node(tick=timedelta(milliseconds=1))
    caller = await node.client(lifetime=timedelta(minutes=30), idle=None)
    active = await node.member(user_id="bob")
    node.clock.advance(seconds=10)
    active.edit("x")

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        running = group.create_task(node.handler.run())
        while not node.sessions.touched:  # noqa: ASYNC110  # it is the handler's own turns that are waited for
            await asyncio.sleep(0)
        node.clock.advance(minutes=30)
        while caller.closed_with is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        running.cancel()

    assert caller.closed_with == (4401, "session_expired")
    assert node.sessions.touched == [active.session.id]


async def test_frames_leave_in_the_next_turn_of_the_running_loop() -> None:
    node = Node()
    node.handler = SessionWebSocketHandler(
        node.sessions, clock=node.clock, tickets=node.tickets, counters=node.counters
    )
    node.sessions.listener = node.handler.on_events
    session, token = node.sessions.issue()
    accepted: Any = await node.knock(token)
    assert isinstance(accepted, Accepted)
    caller = Caller(node, accepted.conversation)

    caller.open()
    at_once = list(caller.socket.sends)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    node.sessions.change(session.id, Invalidated)

    assert at_once == []
    assert [message["message_type"] for message in caller.news()] == ["session_connected", "session_invalidated"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("messages_per_second", 0.0),
        ("max_connections", -1),
        ("tick", timedelta()),
        ("path", "ws"),
        ("max_message_bytes", 1_000_000),
    ],
)
def test_settings_that_would_shut_everybody_out_are_refused(setting: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"must"):
        RealtimeSettings(**{setting: value})
