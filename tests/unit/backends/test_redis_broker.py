"""What a Redis keeps of rooms, and for how long; and what the nodes on it do with what is not as it should be."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from roomkey.backends.recovery import Failure, Kind
from roomkey.backends.redis.cluster import Histories, RedisBroker, RedisNodeRegistry, RedisPresenceStore
from roomkey.backends.redis.cluster.comparison import ON_ITS_WAY_SECONDS
from roomkey.backends.redis.cluster.lanes import MAX_WAITING_BYTES
from roomkey.backends.redis.cluster.layout import EPOCH_BYTES, RUN_BYTES, Layout, Place, decode_said, encode_body
from roomkey.backends.redis.cluster.pubsub import PubSub
from roomkey.backends.redis.server import RedisServer
from roomkey.errors import Conflict, Storage
from roomkey.ports import MessageKey, NodeStatus, Position, PresenceChange, Published
from roomkey.realtime.clients.eager import Waiting, begin
from roomkey.realtime.rooms.deduplication import Deduplication, DeduplicationLimits
from roomkey.realtime.rooms.history import History, Window
from roomkey.testing.broker import Listener
from tests.support.store_servers import RedisProcess
from tests.support.store_servers.fixtures import with_prefix

HISTORIES: Final = Histories(publications=5, age=timedelta(minutes=5), size=1 << 20, repeat_window=timedelta(minutes=2))
NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)

_NUMBERS: Final = count(1)


@asynccontextmanager
async def broker_on(
    url: str, histories: Histories = HISTORIES, *, compare_every: timedelta = timedelta(seconds=40)
) -> AsyncGenerator[RedisBroker]:
    broker = RedisBroker(RedisServer(url), f"n{next(_NUMBERS)}", histories, compare_every=compare_every)
    async with broker:
        yield broker


def prefix_of(url: str) -> str:
    return url.partition("prefix=")[2]


def place_of(url: str, room: str = "d") -> Place:
    return Layout(prefix_of(url).encode(), b"").place(room)


async def published(broker: RedisBroker, number: int, message: bytes = b"x") -> list[Published]:
    return [await broker.publish("d", message, origin="c1") for _ in range(number)]


async def had_since(broker: RedisBroker, position: Position, offset: int) -> list[int] | None:
    """The offsets that can be had behind this one."""
    found = (await broker.since("d", replace(position, offset=offset))).publications
    return None if found is None else [each.position.offset for each in found if each.position is not None]


# --- bounds -----------------------------------------------------------------------------------------------------------


async def test_a_history_has_at_most_so_many_publications(redis_url: str) -> None:
    async with broker_on(redis_url) as broker:
        last = (await published(broker, 8))[-1].position

        assert last is not None
        assert await had_since(broker, last, 2) is None
        assert await had_since(broker, last, 3) == [4, 5, 6, 7, 8]


async def test_a_history_has_at_most_so_many_bytes(redis_url: str) -> None:
    async with broker_on(redis_url, replace(HISTORIES, size=3000)) as broker:
        last = (await published(broker, 5, bytes(1000)))[-1].position
        assert last is not None
        assert await had_since(broker, last, 3) == [4, 5]
        assert await had_since(broker, last, 2) is None

        await published(broker, 1, bytes(5000))

        # One that is too long itself takes its place, and is not kept.
        assert await had_since(broker, last, 5) is None
        assert await had_since(broker, last, 6) == []


async def test_the_bytes_of_a_history_that_went_by_itself_count_no_more(
    redis_server: RedisProcess, redis_url: str
) -> None:
    async with broker_on(redis_url, replace(HISTORIES, size=3000)) as broker:
        await published(broker, 2, bytes(1000))
        redis_server.ask("DEL", place_of(redis_url).history)

        last = (await published(broker, 2, bytes(1000)))[-1].position

        assert last is not None
        assert await had_since(broker, last, 2) == [3, 4]
        assert await had_since(broker, last, 1) is None


async def test_what_is_too_old_cannot_be_had_and_the_position_stays(redis_url: str) -> None:
    async with broker_on(redis_url, replace(HISTORIES, age=timedelta(milliseconds=200))) as broker:
        (first,) = await published(broker, 1)
        await asyncio.sleep(0.15)
        (second,) = await published(broker, 1)
        assert first.position is not None
        assert second.position is not None

        await asyncio.sleep(0.1)
        found = [await had_since(broker, second.position, offset) for offset in (0, 1)]
        await asyncio.sleep(0.2)

        assert found == [None, [2]]
        assert await had_since(broker, first.position, 1) is None
        assert (await broker.since("d", None)).position == second.position


async def test_a_message_key_is_forgotten_after_its_window(redis_url: str) -> None:
    async with broker_on(redis_url, replace(HISTORIES, repeat_window=timedelta(milliseconds=100))) as broker:
        key = MessageKey("s", "1", 1)
        found = [await broker.publish("d", b"x", origin="c1", key=key) for _ in range(2)]
        await asyncio.sleep(0.102)
        found.append(await broker.publish("d", b"x", origin="c1", key=key))

        assert [each.repeated for each in found] == [False, True, False]


async def test_all_that_a_room_leaves_goes_by_itself(redis_server: RedisProcess, redis_url: str) -> None:
    async with broker_on(redis_url) as broker:
        await broker.subscribe("d", Listener())
        await broker.publish("d", b"x", origin="c1", key=MessageKey("s", "1", 1))
        await broker.publish("d", b"x", origin="c1", keep=False)
        await broker.since("e", None)

    keys: list[bytes] = redis_server.ask("KEYS", f"*{prefix_of(redis_url)}[:}}]*")
    lives = {key: redis_server.ask("PTTL", key) for key in keys}

    assert len(lives) == 5  # two heads, a history, a message key, the last call in the one or two partitions
    assert all(0 < left <= 86_400_000 for left in lives.values())


# --- as the embedded one ----------------------------------------------------------------------------------------------

LETTERS: Final = st.sampled_from(["a", "b"])
STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.booleans(), st.none() | st.tuples(LETTERS, LETTERS, st.integers(1, 2))),
        st.tuples(st.just("since"), st.integers(-1, 12), st.booleans()),
        st.tuples(st.just("at once"), st.integers(1, 8), st.none()),
    ),
    max_size=25,
)


class Model:
    """A room as the embedded broker has it."""

    def __init__(self, epoch: str) -> None:
        self.history = History(epoch, Window(publications=5, age=HISTORIES.age, size=1 << 20))
        self.keys = Deduplication(
            DeduplicationLimits(window=HISTORIES.repeat_window, ids_per_sender=100, ids=1000, senders=100)
        )
        self.said: list[bytes] = []

    def publish(self, message: bytes, *, keep: bool, key: MessageKey | None) -> Published | None:
        """What is answered; ``None`` is a conflict."""
        try:
            seen = None if key is None else self.keys.find(key, NOW)
        except Conflict:
            return None
        if seen is not None:
            return Published(seen.position, repeated=True)
        position = self.history.append(message, "c1", NOW).position if keep else None
        if key is not None:
            self.keys.remember(key, position, NOW)
        self.said.append(message)
        return Published(position)


@given(STEPS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_room_is_as_the_embedded_broker_has_it(redis_server: RedisProcess, steps: list[Any]) -> None:
    async def run() -> None:
        async with broker_on(with_prefix(redis_server.url)) as broker:
            listener = Listener()
            await broker.subscribe("d", listener)
            model = Model((await broker.since("d", None)).position.epoch)
            numbers = count()
            for what, one, other in steps:
                if what == "publish":
                    await publish(broker, model, b"%d" % next(numbers), keep=one, key=other and MessageKey(*other))
                elif what == "since":
                    asked = Position(model.history.epoch if other else "otherone", one)
                    found = await broker.since("d", asked)
                    assert found.position == model.history.position
                    assert found.publications == model.history.since(asked)
                else:
                    messages = [b"%d" % next(numbers) for _ in range(one)]
                    answers = await asyncio.gather(*(broker.publish("d", each, origin="c1") for each in messages))
                    assert answers == [model.publish(each, keep=True, key=None) for each in messages]
            if model.said:
                await listener.wait_heard(model.said[-1])
            assert listener.messages == model.said

    async def publish(broker: RedisBroker, model: Model, message: bytes, *, keep: bool, key: MessageKey | None) -> None:
        try:
            found = await broker.publish("d", message, origin="c1", keep=keep, key=key)
        except Conflict:
            found = None
        assert found == model.publish(message, keep=keep, key=key)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


# --- turns ------------------------------------------------------------------------------------------------------------


async def test_what_is_begun_before_a_reading_is_read(redis_url: str) -> None:
    async with broker_on(redis_url) as broker:
        epoch = (await broker.since("d", None)).position.epoch

        *_, found = await asyncio.gather(
            broker.publish("d", b"1", origin="c1"),
            broker.publish("d", b"2", origin="c1"),
            broker.since("d", Position(epoch, 0)),
        )

        assert [each.message for each in found.publications or ()] == [b"1", b"2"]


async def test_who_gives_up_before_its_turn_publishes_nothing_and_holds_up_nobody(redis_url: str) -> None:
    async with broker_on(redis_url) as broker:
        tasks = [asyncio.create_task(broker.publish("d", b"%d" % n, origin="c1")) for n in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        last = await broker.publish("d", b"last", origin="c1")

        found = await broker.since("d", Position(last.position.epoch if last.position else "", 0))

        assert [each.message for each in found.publications or ()] == [b"0", b"2", b"last"]


async def test_a_call_that_comes_after_a_later_one_publishes_nothing(redis_url: str) -> None:
    async with (
        RedisBroker(RedisServer(redis_url), "n", HISTORIES) as broker,
        RedisBroker(RedisServer(redis_url), "n", HISTORIES) as late,
    ):
        last = (await published(broker, 2))[-1].position
        with pytest.raises(Storage, match="LATE"):
            await late.publish("d", b"late", origin="c1")

        assert (await broker.since("d", None)).position == last


async def test_calls_may_be_begun_outside_of_a_task_though_they_have_to_connect(
    redis_server: RedisProcess, redis_url: str
) -> None:
    async with broker_on(redis_url) as broker:
        calls = (
            lambda: broker.since("d", None),
            lambda: broker.publish("d", b"x", origin="c1"),
            lambda: broker.subscribe("d", Listener()),
            lambda: broker.since("d", None),
        )
        for call in calls:
            redis_server.ask("CLIENT", "KILL", "TYPE", "normal")
            await asyncio.sleep(0.02)  # until it is noticed
            begun: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(lambda call=call, begun=begun: begun.set_result(begin(call())))
            waiting = await begun
            assert isinstance(waiting, Waiting)
            await waiting


async def test_what_waits_is_bounded(redis_server: RedisProcess, redis_url: str) -> None:
    async with broker_on(redis_url) as broker:
        redis_server.pause()
        try:
            waiting = [
                asyncio.create_task(broker.publish("d", bytes(MAX_WAITING_BYTES // 4), origin="c1")) for _ in range(3)
            ]
            await asyncio.sleep(0)
            with pytest.raises(Storage, match="too much waits"):
                await broker.publish("d", bytes(MAX_WAITING_BYTES // 4), origin="c1")
        finally:
            redis_server.resume()
        assert all(each.position is not None for each in await asyncio.gather(*waiting))
        assert (await broker.publish("d", bytes(MAX_WAITING_BYTES // 4), origin="c1")).position is not None


async def test_a_broker_that_is_not_open_is_away(redis_url: str) -> None:
    broker = RedisBroker(RedisServer(redis_url), "n", HISTORIES)
    with pytest.raises(Storage):
        await broker.publish("d", b"x", origin="c1")
    async with broker:
        await broker.publish("d", b"x", origin="c1")
    with pytest.raises(Storage):
        await broker.subscribe("d", Listener())


async def test_who_waits_when_it_closes_is_told(redis_server: RedisProcess, redis_url: str) -> None:
    async with broker_on(redis_url) as broker:
        redis_server.pause()
        waiting = asyncio.create_task(broker.publish("d", b"x", origin="c1"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    redis_server.resume()

    with pytest.raises(Storage):
        await waiting


# --- what is not as it should be --------------------------------------------------------------------------------------


async def test_a_message_of_another_version_is_ignored_and_counted(redis_server: RedisProcess, redis_url: str) -> None:
    async with broker_on(redis_url) as broker:
        listener = Listener()
        await broker.subscribe("d", listener)
        for said in (b"", b"\2" + bytes(100), b"\1short"):
            redis_server.ask("PUBLISH", place_of(redis_url).channel, said)
        await broker.publish("d", b"x", origin="c1")

        await listener.wait_heard(b"x")
        assert listener.messages == [b"x"]
        assert broker.unknown_messages == 3


async def test_a_publication_that_is_lost_leaves_a_hole_and_who_listens_is_told(
    redis_server: RedisProcess, redis_url: str
) -> None:
    async with broker_on(redis_url) as broker:
        listener = Listener()
        await broker.subscribe("d", listener)
        await published(broker, 1)
        await listener.wait_heard(b"x")
        move_on(redis_server, place_of(redis_url))
        await broker.publish("d", b"after", origin="c1")

        await listener.wait_heard(b"after")
        assert listener.gaps == 1
        assert listener.offsets == [1, 3]


@pytest.mark.parametrize("before", [0, 1])
async def test_the_last_publication_before_a_silence_is_missed_too(
    redis_server: RedisProcess, redis_url: str, before: int
) -> None:
    async with broker_on(redis_url, compare_every=timedelta(milliseconds=50)) as broker:
        listener, other = Listener(), Listener()
        await broker.subscribe("d", listener)
        await broker.subscribe("e", other)
        await published(broker, before)
        await broker.publish("e", b"x", origin="c1")
        await broker.since("d", None)
        await asyncio.sleep(0.15)  # it has looked once
        move_on(redis_server, place_of(redis_url))

        await listener.wait(lambda self: self.gaps > 0)
        assert (listener.gaps, other.gaps) == (1, 0)


async def test_what_is_only_late_is_no_gap(redis_server: RedisProcess, redis_url: str) -> None:
    place = place_of(redis_url)
    async with broker_on(redis_url, compare_every=timedelta(milliseconds=50)) as broker:
        listener = Listener()
        await broker.subscribe("d", listener)
        (first,) = await published(broker, 1)
        move_on(redis_server, place)
        await asyncio.sleep(0.2)  # it has looked
        assert first.position is not None
        where = first.position.epoch.encode() + (2).to_bytes(7)
        redis_server.ask("PUBLISH", place.channel, b"\1" + where + encode_body("c1", b"late"))
        await asyncio.sleep(ON_ITS_WAY_SECONDS)

        assert (listener.messages, listener.offsets, listener.gaps) == ([b"x", b"late"], [1, 2], 0)


async def test_who_may_not_ask_for_the_process_of_the_server_begins_no_epochs(
    redis_server: RedisProcess, redis_url: str
) -> None:
    redis_server.ask("ACL", "SETUSER", "app", "reset", "on", ">s3cret", "~*", "&*", "+@all", "-info")
    try:
        async with broker_on(redis_url.replace("//", "//app:s3cret@")) as one, broker_on(redis_url) as other:
            found = [(await published(broker, 1))[0].position for broker in (one, one, other, one, other)]
    finally:
        redis_server.ask("ACL", "SETUSER", "app", "reset", "on", ">s3cret", "~*", "&*", "+@all")

    assert [each and each.offset for each in found] == [1, 2, 3, 4, 5]
    assert len({each and each.epoch for each in found}) == 1


def move_on(server: RedisProcess, place: Place) -> None:
    """Let something have been published that nobody was told of."""
    head: bytes = server.ask("GET", place.head)
    start = EPOCH_BYTES + RUN_BYTES
    offset = int.from_bytes(head[start : start + 7]) + 1
    server.ask("SET", place.head, head[:start] + offset.to_bytes(7) + head[start + 7 :], "KEEPTTL")


@given(st.binary(max_size=40))
def test_whatever_is_said_is_understood_or_not(said: bytes) -> None:
    found = decode_said(said)

    assert found is None or (said[0] == 1 and len(found.message) <= len(said) - 18)


class Ear:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self.gone: list[bytes] = []

    def heard(self, channel: bytes, said: bytes) -> None:
        del channel
        self.said.append(said)

    def taken_away(self, channel: bytes) -> None:
        self.gone.append(channel)


def push(*words: bytes) -> bytes:
    return b">%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


async def test_what_a_server_takes_away_is_told_from_what_it_confirms() -> None:
    reading, writing = socket.socketpair()
    ear = Ear()
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: PubSub(ear, timeout=5, max_in_flight=100, max_bytes=1000), sock=reading
    )
    with writing:
        told: list[bytes] = []
        asked = connection.subscribe([b"a", b"b"], told.append, sharded=True)
        dropped = connection.unsubscribe([b"c"], sharded=True)
        writing.sendall(
            push(b"ssubscribe", b"a", b"1")
            + push(b"smessage", b"a", b"early")
            + push(b"sunsubscribe", b"d", b"1")
            + push(b"ssubscribe", b"b", b"2")
            + push(b"sunsubscribe", b"e", b"1")
            + push(b"sunsubscribe", b"c", b"1")
        )
        await asked
        await dropped

        assert (told, ear.said, ear.gone) == ([b"a", b"b"], [b"early"], [b"d", b"e"])
        connection.close(Failure(Kind.AWAY, "closed"))
        await connection.wait_closed()


# --- who is shown -----------------------------------------------------------------------------------------------------


async def test_what_dead_nodes_have_left_goes_when_the_next_one_shows_somebody(
    redis_server: RedisProcess, redis_url: str
) -> None:
    def status(id: str) -> NodeStatus:
        return NodeStatus(id=id, version="1", started_at=NOW)

    async with RedisServer(redis_url) as server:
        registry = RedisNodeRegistry(server)
        await registry.renew(status("living"), timedelta(minutes=1))
        await RedisPresenceStore(server, "living").change([PresenceChange("d", "alice", b"1")])
        await RedisPresenceStore(server, "gone").change([PresenceChange(f"d{n}", "bob", b"1") for n in range(10)])

        await registry.renew(status("new"), timedelta(minutes=1))
        newcomer = RedisPresenceStore(server, "new")
        await newcomer.change([PresenceChange("d", "carol", b"1")])

        assert {each.member for each in await newcomer.here("d")} == {"alice", "carol"}
        keys: list[bytes] = redis_server.ask("KEYS", f"*{prefix_of(redis_url)}:*")
        assert not [key for key in keys if b"gone" in key or b"bob" in key]
