"""
What is published in rooms when the Redis fails, or the way to it.

Whatever happens: everything is published once and in order, or its publisher is told that it may not have been; who
listens and has missed something is told of a gap, and either reads what is missing or sees that the epoch is another.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from roomkey.backends.redis.cluster import Histories, RedisBroker, RedisNodeRegistry, RedisPresenceStore
from roomkey.backends.redis.cluster.layout import Layout
from roomkey.backends.redis.server import RedisServer
from roomkey.backends.redis.settings import RedisSettings
from roomkey.backends.redis.topology import slot_of
from roomkey.errors import OutcomeUnknown, Serialization, Storage
from roomkey.ports import MessageKey, NodeStatus, Position, PresenceChange, Publication
from roomkey.testing.broker import Listener
from tests.support.certificates import make_certificates
from tests.support.cutting_proxy import Cut, CuttingProxy, cutting_proxy
from tests.support.deployments import QUICK, until
from tests.support.store_servers import ClusterServers, RedisProcess, SentinelServers, redis
from tests.support.store_servers.fixtures import needs, server_folder

HISTORIES: Final = Histories(
    publications=1000, age=timedelta(minutes=5), size=1 << 24, repeat_window=timedelta(minutes=2)
)
SETTINGS: Final = RedisSettings(recovery=QUICK)

ROOT: Final = Path(__file__).parents[2]

_NUMBERS: Final = count(1)


@asynccontextmanager
async def broker_on(
    url: str, histories: Histories = HISTORIES, settings: RedisSettings = SETTINGS
) -> AsyncGenerator[RedisBroker]:
    """The broker of a node."""
    async with RedisBroker(RedisServer(url, settings), f"n{next(_NUMBERS)}", histories) as broker:
        yield broker


@asynccontextmanager
async def proxied(server: RedisProcess, url: str) -> AsyncGenerator[tuple[CuttingProxy, RedisBroker, RedisBroker]]:
    """A proxy, the broker of a node behind it, and that of one that is not."""
    async with (
        cutting_proxy(server.port) as proxy,
        broker_on(proxy.through(url)) as cut,
        broker_on(url) as other,
    ):
        yield proxy, cut, other


async def heard_everywhere(*brokers: RedisBroker, room: str = "d") -> list[Listener]:
    listeners = [Listener() for _ in brokers]
    for broker, listener in zip(brokers, listeners, strict=True):
        await broker.subscribe(room, listener)
    return listeners


async def published_somehow(broker: RedisBroker, message: bytes, room: str = "d") -> Position:
    """Publish it once, however often that fails."""
    key = MessageKey("s", message.decode(), 1)
    async with asyncio.timeout(30):
        while True:
            try:
                published = await broker.publish(room, message, origin="c1", key=key)
            except Storage:
                await asyncio.sleep(0.02)
            else:
                assert published.position is not None
                return published.position


async def everything(broker: RedisBroker, room: str = "d") -> list[Publication]:
    """What the history has."""
    epoch = (await broker.since(room, None)).position.epoch
    found = (await broker.since(room, Position(epoch, 0))).publications
    assert found is not None
    return list(found)


# --- answers that are lost --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [Cut.BEFORE_REQUEST, Cut.BEFORE_ANSWER, Cut.WITHIN_ANSWER])
async def test_what_is_cut_off_is_published_once_and_in_order(
    redis_server: RedisProcess, redis_url: str, where: Cut
) -> None:
    async with proxied(redis_server, redis_url) as (proxy, cut, other):
        (listener,) = await heard_everywhere(other)

        for first in range(0, 200, 20):
            proxy.cut(where, containing=b"m%03d" % (first + first % 7))
            published = await asyncio.gather(
                *(cut.publish("d", b"m%03d" % n, origin="c1", keep=n % 5 > 0) for n in range(first, first + 20))
            )
            assert all(each.position is not None for n, each in enumerate(published) if n % 5)

        await listener.wait(lambda self: len(self.heard) == 200)
        assert listener.messages == [b"m%03d" % n for n in range(200)]
        assert listener.offsets == list(range(1, 161))
        assert proxy.cuts == 10


async def test_a_call_that_comes_late_changes_nothing(redis_server: RedisProcess, redis_url: str) -> None:
    hasty = replace(SETTINGS, recovery=replace(QUICK, timeout=0.2, tries=2, breaks_after=100))
    async with broker_on(redis_url, settings=hasty) as one, broker_on(redis_url) as other:
        await one.publish("d", b"first", origin="c1")
        redis_server.pause()
        try:
            outcomes = await asyncio.gather(
                *(one.publish("d", b"%d" % n, origin="c1") for n in range(3)), return_exceptions=True
            )
        finally:
            redis_server.resume()
        assert {type(each) for each in outcomes} == {OutcomeUnknown}
        await published_somehow(one, b"last")

        # All tries stood in the server's sockets, and none of the later ones counted.
        kept = [each.message for each in await everything(other)]
        assert kept in ([b"first", b"0", b"1", b"2", b"last"], [b"first", b"last"])


async def test_scripts_that_are_forgotten_are_taught_again(redis_server: RedisProcess, redis_url: str) -> None:
    async with broker_on(redis_url) as broker:
        (listener,) = await heard_everywhere(broker)
        for number in range(10):
            redis_server.ask("SCRIPT", "FLUSH")
            await broker.publish("d", b"%d" % number, origin="c1")

        await listener.wait_heard(b"9")
        assert listener.offsets == list(range(1, 11))


async def test_something_else_in_the_place_of_a_room_stops_that_room_alone(
    redis_server: RedisProcess, redis_url: str
) -> None:
    async with broker_on(redis_url) as broker:
        layout = Layout(redis_url.partition("prefix=")[2].encode(), b"")
        place = layout.place("damaged")
        neighbour = next(name for name in map(str, range(10_000)) if layout.place(name).partition is place.partition)
        redis_server.ask("SET", place.history, "no list")

        outcomes = await asyncio.gather(
            *(broker.publish(room, b"x", origin="c1") for room in ("damaged", neighbour)), return_exceptions=True
        )

        assert isinstance(outcomes[0], Serialization)
        assert not isinstance(outcomes[1], BaseException)
        with pytest.raises(Storage, match="WRONGTYPE"):
            await broker.since("damaged", None)


# --- the connection by which a node hears -----------------------------------------------------------------------------


async def test_publishers_and_listeners_whose_connections_break_again_and_again_have_everything(
    redis_server: RedisProcess, redis_url: str
) -> None:
    class Reader(Listener):
        """Reads what it has missed, as a room does."""

        def __init__(self) -> None:
            super().__init__()
            self.was_told = asyncio.Event()

        def on_gap(self) -> None:
            super().on_gap()
            self.was_told.set()

    async with proxied(redis_server, redis_url) as (proxy, cut, other):
        reader = Reader()
        await cut.subscribe("d", reader)

        for number in range(100):
            if number % 10 == 5:
                proxy.cut_all()
            await published_somehow(other, b"%d" % number)
        await reader.was_told.wait()
        await until(lambda: not cut.degradations(), "that all is heard")
        await published_somehow(other, b"last")
        await reader.wait_heard(b"last")

        live = {each.position.offset: each.message for each in reader.heard if each.position is not None}
        kept = {each.position.offset: each.message for each in await everything(cut) if each.position is not None}
        assert live.items() <= kept.items()
        assert [kept[offset] for offset in sorted(kept)] == [b"%d" % n for n in range(100)] + [b"last"]
        # Between two gaps there is no hole.
        holes = sum(here + 1 != there for here, there in zip(reader.offsets, reader.offsets[1:], strict=False))
        assert holes <= reader.gaps


async def test_a_server_that_is_not_heard_of_is_noticed(redis_server: RedisProcess, redis_url: str) -> None:
    async with proxied(redis_server, redis_url) as (proxy, cut, other):
        (listener,) = await heard_everywhere(cut)
        begun = asyncio.get_running_loop().time()
        proxy.stall()

        await until(lambda: "broker" in cut.degradations(), "that nothing is heard")
        noticed = asyncio.get_running_loop().time() - begun
        with pytest.raises(Storage):
            await cut.subscribe("d", listener)
        await other.publish("d", b"meanwhile", origin="c1")
        proxy.cut_all()
        proxy.resume()

        await until(lambda: not cut.degradations(), "that it is heard again")
        await listener.wait(lambda self: self.gaps > 0)
        assert noticed < 10  # a second until it is asked, and as many as it may take to answer
        assert [each.message for each in await everything(cut)] == [b"meanwhile"]


def listeners_of(server: RedisProcess) -> int:
    """How many connections have subscribed to something."""
    found: bytes = server.ask("CLIENT", "LIST", "TYPE", "pubsub")
    return len(found.splitlines())


async def test_who_is_thrown_out_for_being_slow_is_told_of_a_gap(redis_server: RedisProcess, redis_url: str) -> None:
    redis_server.ask("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 0 0")
    try:
        async with proxied(redis_server, redis_url) as (proxy, cut, other):
            (listener,) = await heard_everywhere(cut)
            listening = listeners_of(redis_server)
            proxy.stop_reading()
            for number in range(500):
                await other.publish("d", b"%d " % number + bytes(100_000), origin="c1", keep=False)
                if listeners_of(redis_server) < listening:
                    break
            else:
                pytest.fail("it was not thrown out")
            proxy.read_again()

            await listener.wait(lambda self: self.gaps > 0)
            await published_somehow(other, b"after")
            await listener.wait_heard(b"after")
    finally:
        redis_server.ask("CONFIG", "SET", "client-output-buffer-limit", "pubsub 32mb 8mb 60")


async def test_a_subscription_that_the_server_refuses_is_an_error_and_leaves_the_others(
    redis_server: RedisProcess, redis_url: str
) -> None:
    prefix = redis_url.partition("prefix=")[2]
    channel = Layout(prefix.encode(), b"").place("d").channel.decode()
    redis_server.ask("ACL", "SETUSER", "app", "reset", "on", ">s3cret", "~*", "+@all", f"&{channel}")
    try:
        async with broker_on(redis_url.replace("//", "//app:s3cret@")) as broker:
            (listener,) = await heard_everywhere(broker)
            with pytest.raises(Storage, match="NOPERM"):
                await broker.subscribe("e", Listener())

            await broker.publish("d", b"x", origin="c1")
            await listener.wait_heard(b"x")
            assert (listener.gaps, broker.degradations()) == (0, {})
    finally:
        redis_server.ask("ACL", "SETUSER", "app", "reset", "on", ">s3cret", "~*", "&*", "+@all")


async def test_a_user_with_the_rights_that_the_page_names_can_do_everything(
    redis_server: RedisProcess, redis_url: str
) -> None:
    prefix = redis_url.partition("prefix=")[2]
    page = (ROOT / "docs" / "stores.md").read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if line.startswith("user roomkey on >"))
    rights = [word.replace("roomkey:", f"{prefix}:") for word in line.split()[4:]]
    redis_server.ask("ACL", "SETUSER", "app", "reset", "on", ">s3cret", *rights)
    try:
        url = redis_url.replace("//", "//app:s3cret@")
        status = NodeStatus(id="a", version="1", started_at=datetime.now(UTC))
        async with broker_on(url) as broker, RedisServer(url) as server:
            (listener,) = await heard_everywhere(broker)
            await broker.publish("d", b"x", origin="c1", key=MessageKey("s", "1", 1))
            await broker.since("d", None)
            await listener.wait_heard(b"x")
            await broker.unsubscribe("d")
            nodes, presence = RedisNodeRegistry(server), RedisPresenceStore(server, "a")
            await nodes.renew(status, timedelta(minutes=1))
            await presence.change([PresenceChange("d", "alice", b"")])
            assert len(await presence.here("d")) == 1
            await presence.forget("a")
            await nodes.leave("a")
            await server.ask("GETEX", Layout(prefix.encode(), b"").place("d").head, "PX", 1000)
    finally:
        redis_server.ask("ACL", "SETUSER", "app", "reset", "on", ">s3cret", "~*", "&*", "+@all")


# --- the server -------------------------------------------------------------------------------------------------------


@pytest.fixture
def forgetful() -> Generator[RedisProcess]:
    """A server that is empty after each start."""
    needs("redis")
    with redis(server_folder(), "--appendonly", "no") as server:
        yield server


async def test_a_server_that_was_started_again_begins_new_epochs(forgetful: RedisProcess) -> None:
    async with broker_on(forgetful.url) as one, broker_on(forgetful.url) as other:
        listeners = await heard_everywhere(one, other)
        quiet = await heard_everywhere(one, other, room="quiet")
        for number in range(3):
            await one.publish("d", b"%d" % number, origin="c1")
        former = (await one.since("d", None)).position
        silent = (await one.since("quiet", None)).position

        await asyncio.to_thread(forgetful.kill)
        await until(lambda: "broker" in one.degradations() and "broker" in other.degradations(), "that it is away")
        with pytest.raises(Storage):
            await one.publish("d", b"in vain", origin="c1")
        await asyncio.to_thread(forgetful.start)
        position = await published_somehow(other, b"anew")

        assert position.offset == 1
        assert position.epoch != former.epoch
        for listener in (*listeners, *quiet):
            await listener.wait(lambda self: self.gaps > 0)
        assert (await one.since("d", former)).publications is None
        assert (await one.since("quiet", silent)).position.epoch != silent.epoch
        await until(lambda: not one.degradations() and not other.degradations(), "that it is there again")
        assert await published_somehow(one, b"last") == Position(position.epoch, 2)
        for listener in listeners:
            await listener.wait_heard(b"last")


async def test_a_server_that_stood_still_has_lost_nothing(redis_server: RedisProcess, redis_url: str) -> None:
    async with broker_on(redis_url) as one, broker_on(redis_url) as other:
        (listener,) = await heard_everywhere(other)
        before = await published_somehow(one, b"before")

        redis_server.pause()
        try:
            await until(lambda: "broker" in other.degradations(), "that nothing is heard")
        finally:
            redis_server.resume()
        await until(lambda: not other.degradations(), "that it is heard again")
        after = await published_somehow(one, b"after")

        await listener.wait_heard(b"after")
        assert after == Position(before.epoch, 2)


async def test_a_server_with_tls_and_another_database(tmp_path: Path) -> None:
    needs("redis")
    with redis(server_folder(), tls=make_certificates(tmp_path)) as server:
        zero, one = server.url, server.url.replace("/0?", "/1?")
        async with broker_on(zero) as here, broker_on(one) as there, broker_on(one) as beside:
            listeners = await heard_everywhere(here, there, beside)
            await here.publish("d", b"0", origin="c1")
            await there.publish("d", b"1", origin="c1")

            await listeners[0].wait_heard(b"0")
            await listeners[2].wait_heard(b"1")
            await listeners[1].wait_heard(b"1")
            # Databases have keys of their own, and servers channels for all of them.
            assert [listener.messages for listener in listeners] == [[b"0"], [b"1"], [b"1"]]


# --- groups of servers ------------------------------------------------------------------------------------------------


@pytest.fixture
def sentinel(sentinel_servers: SentinelServers) -> Generator[SentinelServers]:
    """With everything in order afterwards."""
    yield sentinel_servers
    sentinel_servers.heal()


@pytest.fixture
def cluster(cluster_servers: ClusterServers) -> Generator[ClusterServers]:
    yield cluster_servers
    cluster_servers.heal()


async def test_after_a_failover_of_sentinel_nodes_hear_each_other_again(
    sentinel: SentinelServers, sentinel_url: str
) -> None:
    async with broker_on(sentinel_url) as one, broker_on(sentinel_url) as other:
        listeners = await heard_everywhere(one, other)
        former = await published_somehow(one, b"before")

        master = sentinel.master
        await asyncio.to_thread(master.kill)
        await asyncio.to_thread(sentinel.wait_for_another, master)
        position = await published_somehow(other, b"after")

        assert position.epoch != former.epoch
        for listener in listeners:
            await listener.wait(lambda self: self.gaps > 0)
        await until(lambda: not one.degradations() and not other.degradations(), "that all is heard")
        await published_somehow(one, b"last")
        for listener in listeners:
            await listener.wait_heard(b"last")


async def test_after_the_failover_of_a_master_its_rooms_are_heard_and_the_others_have_heard_everything(
    cluster: ClusterServers, cluster_url: str
) -> None:
    layout = Layout(cluster_url.partition("prefix=")[2].encode(), b"")
    rooms = [str(number) for number in range(30)]
    former = cluster.master_of(slot_of(layout.place(rooms[0]).head))
    moved = [room for room in rooms if cluster.master_of(slot_of(layout.place(room).head)) is former]
    async with broker_on(cluster_url) as one, broker_on(cluster_url) as other:
        listeners = {room: (await heard_everywhere(other, room=room))[0] for room in rooms}

        await asyncio.to_thread(former.kill)
        await asyncio.to_thread(cluster.wait_for_another, former)
        for room in rooms:
            await published_somehow(one, b"during", room)
        await until(lambda: not one.degradations() and not other.degradations(), "that all is heard")
        for room in rooms:
            await published_somehow(one, b"after", room)

        for room, listener in listeners.items():
            await listener.wait_heard(b"after")
            assert (listener.gaps > 0) == (room in moved)
            if room not in moved:
                assert listener.messages == [b"during", b"after"]


async def test_a_room_whose_slot_moves_is_heard_where_it_is(cluster: ClusterServers, cluster_url: str) -> None:
    layout = Layout(cluster_url.partition("prefix=")[2].encode(), b"")
    slot = slot_of(layout.place("d").head)
    beside = next(
        name for name in map(str, range(10_000)) if layout.place(name).partition is layout.place("d").partition
    )
    source = cluster.master_of(slot)
    target = next(server for server in cluster.masters if server is not source)
    async with broker_on(cluster_url) as one, broker_on(cluster_url) as other:
        listeners = [(await heard_everywhere(other, room=room))[0] for room in ("d", beside)]
        for room in ("d", beside):
            await published_somehow(one, b"before", room)

        await asyncio.to_thread(cluster.move, slot, target)
        for listener in listeners:
            await listener.wait(lambda self: self.gaps > 0)
        for room in ("d", beside):
            await published_somehow(one, b"after", room)

        for listener in listeners:
            await listener.wait_heard(b"after")
            assert listener.messages == [b"before", b"after"]
        assert other.degradations() == {}
