"""A Redis by its URL: what the URL may say, and what becomes of requests on their way."""

# pyright: reportPrivateUsage=false

import asyncio
import ssl
from pathlib import Path
from time import time
from typing import Final

import pytest

from roomkey.backends.recovery import Failure, Kind, RecoverySettings
from roomkey.backends.redis import node
from roomkey.backends.redis.failures import Broken, ReplyError, classify, unreachable
from roomkey.backends.redis.layout import partitions
from roomkey.backends.redis.scripts import FOLDER, Script
from roomkey.backends.redis.server import AGAIN, Call, RedisServer
from roomkey.backends.redis.settings import RedisSettings
from roomkey.backends.redis.topology import slot_of
from roomkey.backends.redis.url import Address, Certificates, Deployment, Login, RedisUrl
from roomkey.errors import ConfigurationError, OutcomeUnknown, Storage
from tests.support.certificates import make_certificates
from tests.support.cutting_proxy import Cut, cutting_proxy
from tests.support.store_servers import ClusterServers, RedisProcess, redis
from tests.support.store_servers.fixtures import server_folder, with_prefix

QUICK: Final = RecoverySettings(timeout=1.0, first_pause=0.001, longest_pause=0.01)
READ: Final = Script("sessions/read")

# --- URLs ---------------------------------------------------------------------------------------------


def test_a_url_says_where_and_who() -> None:
    url = RedisUrl.parse("redis://app:p%40ss%2F@cache.example:7000/3?prefix=eu")

    assert url.deployment is Deployment.STANDALONE
    assert url.addresses == (Address("cache.example", 7000),)
    assert url.login == Login("app", "p@ss/")
    assert (url.database, url.prefix, url.tls) == (3, "eu", None)


def test_of_sentinels_a_url_names_several_and_the_master() -> None:
    url = RedisUrl.parse("redis+sentinel://:pw@a,b:1,[::1]:2/my%20master/1?sentinel_password=other&tls=1&ca=/ca.pem")

    assert url.deployment is Deployment.SENTINEL
    assert url.addresses == (Address("a", 26379), Address("b", 1), Address("::1", 2))
    assert (url.login, url.sentinel_login) == (Login(None, "pw"), Login(None, "other"))
    assert (url.master, url.database, url.tls) == ("my master", 1, Certificates("/ca.pem"))


@pytest.mark.parametrize("text", ["redis+cluster://a,b/", "redis+cluster://a,b", "rediss+cluster://a,b/0"])
def test_of_a_cluster_a_url_names_some_nodes(text: str) -> None:
    url = RedisUrl.parse(text)

    assert url.deployment is Deployment.CLUSTER
    assert url.addresses == (Address("a", 6379), Address("b", 6379))
    assert (url.tls is not None) is text.startswith("rediss")


def test_a_socket_is_a_place_too() -> None:
    assert RedisUrl.parse("redis+unix:///run/redis.sock?db=2").addresses == (Address("/run/redis.sock", 0),)


@pytest.mark.parametrize(
    "text",
    [
        "redis://",
        "redis://:hunter2@",
        "redis://:hunter2@host:port/0",
        "redis://:hunter2@host:0",
        "redis://:hunter2@host:99999",
        "redis://:hunter2@host/zero",
        "redis://:hunter2@a,b/0",
        "redis://:hunter2/@host/0",
        "redis://host/0?hunter2=1",
        "redis://host/0?ca=hunter2",
        "redis://host/0?prefix={hunter2}",
        "redis+sentinel://:hunter2@host",
        "redis+cluster://:hunter2@host/1",
        "redis+hunter2://host",
        "hunter2",
    ],
)
def test_a_url_that_is_wrong_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisUrl.parse(text)

    assert "hunter2" not in str(caught.value)


def test_a_login_does_not_print_itself() -> None:
    assert "hunter2" not in repr(RedisUrl.parse("redis://app:hunter2@host"))


# --- slots --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "slot"), [(b"123456789", 0x31C3), (b"{user1000}.following", 3443), (b"foo{}{bar}", 8363), (b"{bar", 4015)]
)
def test_keys_have_the_slots_of_the_specification(key: bytes, slot: int) -> None:
    assert slot_of(key) == slot


def test_everything_of_a_partition_lies_in_one_slot() -> None:
    for partition in partitions(b"roomkey"):
        assert len({slot_of(key) for key in partition.all}) == 1


# --- failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("LOADING Redis is loading the dataset in memory", Kind.BUSY),
        ("BUSY Redis is busy running a script.", Kind.BUSY),
        ("TRYAGAIN Multiple keys request during rehashing of slot", Kind.BUSY),
        ("CLUSTERDOWN The cluster is down", Kind.BUSY),
        ("ERR max number of clients reached", Kind.BUSY),
        ("READONLY You can't write against a read only replica.", Kind.READ_ONLY),
        ("OOM command not allowed when used memory > 'maxmemory'.", Kind.FULL),
        ("MISCONF Redis is configured to save RDB snapshots", Kind.FULL),
        ("NOAUTH Authentication required.", Kind.REFUSED),
        ("WRONGPASS invalid username-password pair", Kind.REFUSED),
        ("NOPERM this user has no permissions", Kind.REFUSED),
        ("NOREPLICAS Not enough good replicas to write.", Kind.BUSY),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", Kind.WRONG),
        ("ERR unknown command 'X', with args beginning with: 'hunter2'", Kind.WRONG),
    ],
)
def test_what_a_server_says_has_a_kind_and_shows_nothing(message: str, kind: Kind) -> None:
    failure = classify(ReplyError(message))

    assert failure is not None
    assert failure.kind is kind
    assert "hunter2" not in failure.detail


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionRefusedError(111, "Connect call failed"), Kind.AWAY),
        (TimeoutError(), Kind.SLOW),
        (ssl.SSLCertVerificationError(1, "certificate has expired"), Kind.REFUSED),
        (ReplyError("WRONGPASS no"), Kind.REFUSED),
    ],
)
def test_whoever_cannot_be_reached_has_done_nothing(error: Exception, kind: Kind) -> None:
    failure = unreachable(error, 1.0)

    assert failure is not None
    assert (failure.kind, failure.is_undone) == (kind, True)


def test_an_error_of_ours_is_no_failure_of_the_server() -> None:
    assert classify(ValueError()) is None
    assert unreachable(ValueError(), 1.0) is None


# --- the way there ------------------------------------------------------------------------------------


async def test_every_caller_gets_its_own_reply_from_one_write(redis_url: str) -> None:
    async with RedisServer(redis_url) as server:
        keys = [server.key(b"ab", b"%d" % number) for number in range(500)]
        (only,) = server._opened().nodes()
        connection = await only.connected()
        await asyncio.gather(*(server.ask("SET", key, key) for key in keys))
        before = connection._answered

        replies = await asyncio.gather(*(server.ask("GET", key) for key in keys))

        assert replies == keys
        assert connection._answered == before + 500
        assert only.connection is connection


async def test_a_caller_that_gives_up_leaves_the_replies_of_others_in_order(redis_url: str) -> None:
    async with RedisServer(redis_url) as server:
        key = server.key(b"ab", b"x")
        tasks = [asyncio.ensure_future(server.ask("APPEND", key, "x")) for _ in range(100)]
        await asyncio.sleep(0)

        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)

        assert done[1::2] == list(range(2, 101, 2))


async def test_no_more_is_on_its_way_than_may_be(redis_url: str) -> None:
    async with RedisServer(redis_url, RedisSettings(max_in_flight=10)) as server:
        (only,) = server._opened().nodes()
        connection = await only.connected()
        most = 0
        write = connection._write

        def watched() -> None:
            nonlocal most
            most = max(most, len(connection._waiting))
            write()

        connection._write = watched  # pyright: ignore[reportAttributeAccessIssue]
        replies = await asyncio.gather(*(server.ask("ECHO", b"%d" % number) for number in range(200)))

        assert replies == [b"%d" % number for number in range(200)]
        assert most == 10


async def test_a_script_that_the_server_has_forgotten_is_taught_again_once(redis_url: str) -> None:
    async with RedisServer(redis_url) as server:
        keys = partitions(server.prefix)[7].read_keys(bytes(16))
        await server.ask("SCRIPT", b"FLUSH")

        calls = [server.run(READ, keys, (bytes(16),), may_repeat=True) for _ in range(50)]
        replies = await asyncio.gather(*calls)

        assert replies == [None] * 50
        assert await server.run_many([Call(READ, keys, (bytes(16),))] * 3, may_repeat=True) == [None] * 3


async def test_what_may_not_be_repeated_is_unknown_when_the_answer_is_lost(redis_server: RedisProcess) -> None:
    async with cutting_proxy(redis_server.port) as proxy:
        url = with_prefix(proxy.through(redis_server.url))
        async with RedisServer(url, RedisSettings(recovery=QUICK)) as server:
            keys = partitions(server.prefix)[7].read_keys(bytes(16))
            await server.run(READ, keys, (bytes(16),))

            proxy.cut(Cut.BEFORE_ANSWER)
            with pytest.raises(OutcomeUnknown):
                await server.run(READ, keys, (bytes(16),))
            proxy.cut(Cut.BEFORE_ANSWER)
            assert await server.run(READ, keys, (bytes(16),), may_repeat=True) is None


async def test_a_server_that_does_not_answer_in_time_is_slow_and_others_wait_no_longer(
    redis_server: RedisProcess,
) -> None:
    settings = RedisSettings(recovery=RecoverySettings(timeout=0.2, tries=1))
    async with (
        cutting_proxy(redis_server.port) as proxy,
        RedisServer(with_prefix(proxy.through(redis_server.url)), settings) as server,
    ):
        proxy.stall()

        asked = [server.ask("ECHO", b"%d" % number) for number in range(20)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        proxy.resume()

        assert {type(outcome) for outcome in outcomes} == {Storage}
        assert ["slow" in why for why in server.degradations().values()] == [True]


def test_a_call_says_whether_it_may_have_been_done_before() -> None:
    call = Call(READ, [b"k"], [AGAIN, b"x"])

    assert call.is_guarded
    assert call.command(again=False)[-2:] == (b"0", b"x")
    assert call.command(again=True)[-2:] == (b"1", b"x")


def test_the_reply_to_a_closed_connection_was_never_asked_for() -> None:
    failure = classify(Broken(Failure(Kind.AWAY, "gone", is_undone=True)))

    assert failure is not None
    assert failure.is_undone


def test_every_script_is_complete() -> None:
    for file in FOLDER.rglob("*.lua"):
        if file.parent.name != "parts":
            source = Script(str(file.relative_to(FOLDER).with_suffix(""))).source
            assert b"-- with " not in source, file


# --- the beginning ------------------------------------------------------------------------------------


async def test_a_server_is_opened_by_the_first_and_closed_by_the_last(redis_url: str) -> None:
    server = RedisServer(redis_url)
    async with server:
        async with server:
            (only,) = server._opened().nodes()
        assert await server.ask("ECHO", b"still") == b"still"
        connection = only.connection

    assert connection is not None
    assert connection.is_closed
    with pytest.raises(Storage):
        await server.ask("ECHO", b"no more")


async def test_a_server_that_forgets_sessions_is_refused(redis_server: RedisProcess, redis_url: str) -> None:
    redis_server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(ConfigurationError, match="allkeys-lru"):
            await RedisServer(redis_url).__aenter__()
        async with RedisServer(redis_url, RedisSettings(allows_eviction=True)) as server:
            await server.ping()
    finally:
        redis_server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


async def test_a_server_that_is_away_at_the_start_is_named_without_its_password(redis_server: RedisProcess) -> None:
    url = f"redis://nobody:hunter2@127.0.0.1:{redis_server.port}/0"

    with pytest.raises(Storage) as caught:
        await RedisServer(url).__aenter__()

    assert "password" in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_a_clock_that_differs_is_told(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "time", lambda: time() + 5)
    async with RedisServer(redis_url) as server:
        (why,) = server.degradations().values()

    assert "clock differs by 5.0 s" in why


async def test_with_tls_the_certificate_of_the_server_is_checked(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    with redis(server_folder(), tls=certificates) as process:
        async with RedisServer(process.url) as server:
            await server.ping()
        with pytest.raises(Storage, match="TLS"):
            await RedisServer(process.url.partition("?")[0]).__aenter__()


# --- clusters -----------------------------------------------------------------------------------------


async def test_a_slot_may_move_while_it_is_written_to(cluster_servers: ClusterServers, cluster_url: str) -> None:
    async with RedisServer(cluster_url, RedisSettings(recovery=RecoverySettings(tries=10))) as server:
        key = server.key(b"move", b"x")
        slot = slot_of(key)
        source = cluster_servers.master_of(slot)
        target = next(master for master in cluster_servers.masters if master is not source)
        numbers: list[int] = []

        async def write() -> None:
            while len(numbers) < 1000 or not moved.done():
                numbers.append(await server.ask("INCR", key))

        moved = asyncio.ensure_future(asyncio.to_thread(cluster_servers.move, slot, target))
        await asyncio.gather(write(), moved)
        assert server._opened().node_of(key).address.port == target.port
        await asyncio.to_thread(cluster_servers.move, slot, source)

        assert numbers == list(range(1, len(numbers) + 1))
        assert await server.ask("GET", key) == b"%d" % len(numbers)
