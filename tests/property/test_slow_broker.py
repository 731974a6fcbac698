"""A broker that is elsewhere: it takes its time, and fails; members still hear everything once and in order."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from hypothesis import given, settings
from hypothesis import strategies as st

from roomkey.errors import Storage
from roomkey.ports import MessageKey, Position, Published, Receiver, Recovered
from roomkey.realtime.rooms.broker import LocalBroker
from roomkey.realtime.settings import RealtimeSettings
from roomkey.testing.clock import ManualClock
from tests.support.loops import in_no_time
from tests.support.sockets import NOON, Caller, Node

EDIT = (
    b'"message_type":"realtime_edit","timestamp":"2026-01-02T12:00:00Z","payload":{"document":"d","text":"%d",'
    b'"session_info":{"session_id":"3a00000000000000000000000009","user_id":"eve"}'
)
"""What a node publishes, up to where each one that passes it on adds the position."""


class SlowBroker:
    """A ``LocalBroker`` on the other side of a network: each call takes ``delays`` turns on its way and back."""

    shared = False

    def __init__(self, delays: list[int]) -> None:
        self.inner = LocalBroker(RealtimeSettings(), ManualClock(NOON))
        self.away = False
        self.fails_to_read = False
        self.listening: set[str] = set()
        self._delays = delays
        self._calls = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """It holds nothing."""

    async def _travel(self) -> None:
        self._calls += 1
        for _ in range(self._delays[self._calls % len(self._delays)]):
            await asyncio.sleep(0)
        if self.away:
            raise Storage("the broker is away")

    async def publish(
        self, room: str, message: bytes, *, origin: str, keep: bool = True, key: MessageKey | None = None
    ) -> Published:
        await self._travel()
        published = await self.inner.publish(room, message, origin=origin, keep=keep, key=key)
        await self._travel()
        return published

    async def subscribe(self, room: str, receiver: Receiver) -> None:
        await self._travel()
        self.listening.add(room)
        await self.inner.subscribe(room, receiver)
        await self._travel()

    async def unsubscribe(self, room: str) -> None:
        self.listening.discard(room)
        await self.inner.unsubscribe(room)

    async def since(self, room: str, position: Position | None) -> Recovered:
        await self._travel()
        if self.fails_to_read:
            raise Storage("the history cannot be read")
        recovered = await self.inner.since(room, position)
        await self._travel()
        return recovered

    def tick(self, now: datetime) -> None:
        self.inner.tick(now)

    def kept_bytes(self) -> int:
        return self.inner.kept_bytes()

    def degradations(self) -> Mapping[str, str]:
        return {}


async def settle(node: Node) -> None:
    for _ in range(200):
        await asyncio.sleep(0)
        node.turns.settle()


def texts(caller: Caller) -> list[str]:
    """What the caller heard of others, recovered or live, in order."""
    heard: list[str] = []
    for message in caller.news():
        payload: Any = message["payload"]
        if message["message_type"] == "subscribed":
            heard.extend(publication["payload"]["text"] for publication in payload["publications"])
        elif message["message_type"] == "realtime_edit":
            heard.append(payload["text"])
    return heard


@settings(deadline=None)
@given(delays=st.lists(st.integers(0, 3), min_size=1, max_size=7), before=st.integers(0, 3), gap=st.integers(0, 6))
def test_whoever_joins_while_others_write_misses_nothing_and_hears_nothing_twice(
    delays: list[int], before: int, gap: int
) -> None:
    @in_no_time
    async def scenario() -> None:
        broker = SlowBroker(delays)
        node = Node(broker=broker)
        async with node.at_work():
            writer, reader = await node.client(), await node.client("bob")
            writer.say("subscribe", {"document": "d"})
            await settle(node)
            for number in range(before):
                writer.whisper("realtime_edit", {"document": "d", "text": str(number)})
            await settle(node)
            position = (await broker.inner.since("d", None)).position

            reader.whisper("subscribe", {"document": "d", "since": {"epoch": position.epoch, "offset": 0}})
            for number in range(before, before + 8):
                writer.whisper("realtime_edit", {"document": "d", "text": str(number)})
                for _ in range(gap):
                    await asyncio.sleep(0)
            await settle(node)

            assert texts(reader) == [str(number) for number in range(before + 8)]

    scenario()


@in_no_time
async def test_messages_wait_for_the_one_before_them_and_are_acknowledged_in_order() -> None:
    node = Node(broker=SlowBroker([3, 0, 2]))
    async with node.at_work():
        writer = await node.client()
        ids = [writer.whisper("subscribe", {"document": "d"})]

        ids += [writer.whisper("realtime_edit", {"document": "d", "text": str(number)}) for number in range(10)]
        ids.append(writer.whisper("heartbeat"))
        await settle(node)

        assert [message["id"] for message in writer.news()] == ids


@in_no_time
async def test_what_the_broker_cannot_take_is_refused_and_may_be_sent_again() -> None:
    broker = SlowBroker([1])
    node = Node(broker=broker)
    async with node.at_work():
        writer = await node.client()
        writer.whisper("subscribe", {"document": "d"})
        await settle(node)
        writer.news()
        broker.away = True

        writer.whisper("realtime_edit", {"document": "d", "text": "x"}, id="m")
        await settle(node)
        (refused,) = writer.news()
        broker.away = False
        writer.whisper("realtime_edit", {"document": "d", "text": "x"}, id="m")
        await settle(node)
        (taken,) = writer.news()

        assert (refused["message_type"], refused["payload"]["code"], refused["payload"]["retry"]) == (
            "error",
            "SERVER_ERROR",
            True,
        )
        assert taken["message_type"] == "ack"


@in_no_time
async def test_whoever_could_not_join_is_not_in_the_room() -> None:
    broker = SlowBroker([1])
    broker.away = True
    node = Node(broker=broker)
    async with node.at_work():
        caller = await node.client()
        caller.whisper("subscribe", {"document": "d"})
        await settle(node)
        (refused,) = caller.news()

        caller.whisper("realtime_edit", {"document": "d", "text": "x"})
        await settle(node)

        assert refused["payload"]["code"] == "SERVER_ERROR"
        assert caller.payload_of("error")["code"] == "NOT_SUBSCRIBED"
        assert node.remembered()["rooms"] == 0


@in_no_time
async def test_who_hangs_up_while_it_joins_leaves_nothing_behind() -> None:
    node = Node(broker=SlowBroker([2]))
    async with node.at_work():
        caller = await node.client()
        caller.whisper("subscribe", {"document": "d"})
        await asyncio.sleep(0)

        caller.hang_up()
        await settle(node)

        assert node.remembered() == {"peers": 0, "ledgers": 1, "rooms": 0, "presence": 0}


@in_no_time
async def test_whoever_joins_again_while_others_write_hears_everything_once() -> None:
    node = Node(broker=SlowBroker([3]))
    async with node.at_work():
        writer, reader = await node.client(), await node.client("bob")
        for caller in (writer, reader):
            caller.whisper("subscribe", {"document": "d"})
        await settle(node)

        reader.whisper("subscribe", {"document": "d"})
        for number in range(8):
            writer.whisper("realtime_edit", {"document": "d", "text": str(number)})
            for _ in range(3):
                await asyncio.sleep(0)
        await settle(node)

        assert texts(reader) == [str(number) for number in range(8)]


def told_positions(node: Node, caller: Caller) -> list[tuple[str, int]]:
    """What the next position check tells the caller."""
    caller.news()
    node.pass_time(seconds=node.settings.position_interval.total_seconds())
    positions = [each["payload"]["position"] for each in caller.news() if each["message_type"] == "position"]
    return [(position["epoch"], position["offset"]) for position in positions]


@in_no_time
async def test_members_are_told_where_the_room_stands_after_the_broker_has_begun_anew() -> None:
    broker = SlowBroker([0])
    node = Node(broker=broker)
    async with node.at_work():
        member, joiner = await node.member(), await node.client("bob")
        node.pass_time(seconds=0)
        member.edit("x")
        former = told_positions(node, member)
        broker.inner = LocalBroker(RealtimeSettings(), node.clock)

        joiner.say("subscribe", {"document": "d"})
        at_the_beginning = told_positions(node, member)
        joiner.edit("y")
        after_one = told_positions(node, member)

        epoch = (await broker.inner.since("d", None)).position.epoch
        assert [offset for _, offset in former] == [1]
        assert at_the_beginning == []
        assert after_one == [(epoch, 1)]


@in_no_time
async def test_who_joins_changes_nothing_about_what_members_are_told_of_the_position() -> None:
    node = Node(broker=SlowBroker([0]))
    async with node.at_work():
        member, joiner = await node.member(), await node.client("bob")
        node.pass_time(seconds=0)
        member.edit("x")
        before = told_positions(node, member)

        joiner.say("subscribe", {"document": "d"})

        assert len(before) == 1
        assert told_positions(node, member) == []


@in_no_time
async def test_an_answer_that_was_overtaken_by_what_was_published_does_not_set_the_position_back() -> None:
    broker = SlowBroker([3])
    node = Node(broker=broker)
    async with node.at_work():
        writer, joiner = await node.client(), await node.client("bob")
        writer.whisper("subscribe", {"document": "d"})
        await settle(node)
        node.pass_time(seconds=0)

        writer.whisper("realtime_edit", {"document": "d", "text": "x"})
        joiner.whisper("subscribe", {"document": "d"})
        for _ in range(11):
            await asyncio.sleep(0)
        for number in range(2):
            await broker.inner.publish("d", EDIT % number, origin="elsewhere")
        await settle(node)

        assert [offset for _, offset in told_positions(node, writer)] == [3]


@in_no_time
async def test_a_room_that_could_not_be_joined_is_not_listened_to() -> None:
    broker = SlowBroker([1])
    node = Node(broker=broker)
    async with node.at_work():
        caller = await node.client()
        broker.fails_to_read = True
        caller.whisper("subscribe", {"document": "d"})
        await settle(node)

        assert caller.payload_of("error")["code"] == "SERVER_ERROR"
        assert broker.listening == set()


@in_no_time
async def test_the_last_one_who_leaves_a_room_ends_its_subscription() -> None:
    broker = SlowBroker([1])
    node = Node(broker=broker)
    async with node.at_work():
        first, second = await node.client(), await node.client("bob")
        for caller in (first, second):
            caller.whisper("subscribe", {"document": "d"})
        await settle(node)

        first.whisper("unsubscribe", {"document": "d"})
        await settle(node)
        still = set(broker.listening)
        second.hang_up()
        await settle(node)

        assert still == {"d"}
        assert broker.listening == set()
