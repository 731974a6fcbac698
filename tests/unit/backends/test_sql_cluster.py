"""What nodes on PostgreSQL leave behind is bounded, and the schema before knows nothing of it."""

import asyncio
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from roomkey.backends.sql import DatabaseSessionStorage
from roomkey.backends.sql.cluster import PostgreSQLBroker, PostgreSQLNodeRegistry, PostgreSQLPresenceStore, open_cluster
from roomkey.backends.sql.cluster.broker import MAX_MESSAGES
from roomkey.backends.sql.cluster.cluster_queries import ClusterQueries
from roomkey.backends.sql.cluster.outbox import hash_of
from roomkey.backends.sql.cluster.trimming import Histories, Trimming
from roomkey.backends.sql.database import Database, DatabaseSettings
from roomkey.backends.sql.statements import execute
from roomkey.errors import Storage
from roomkey.ports import MessageKey, Position, PresenceChange
from roomkey.testing.broker import Listener
from roomkey.testing.cluster import status
from roomkey.testing.storage.suite import store
from tests.support.sql_nodes import KEPT, NodesOnPostgreSQL
from tests.support.store_servers import PostgreSQLProcess

WIDE = Histories(1000, timedelta(hours=1), 1024 * 1024, timedelta(minutes=5))


@pytest.fixture
def nodes(postgresql_server: PostgreSQLProcess) -> NodesOnPostgreSQL:
    return NodesOnPostgreSQL(f"{postgresql_server.url}?schema=cluster_unit")


async def ask(database: Database, statement: str) -> Any:
    return await database.read(lambda connection: execute(connection, database.dialect, statement, ()))


async def number_of(database: Database, table: str) -> int:
    ((number,),) = await ask(database, f"SELECT count(*) FROM {table}")
    return number


async def publish(broker: PostgreSQLBroker, number: int, *, size: int = 1, room: str = "r", keep: bool = True) -> None:
    await asyncio.gather(
        *(broker.publish(room, b"%d" % n + bytes(size), origin="c1", keep=keep) for n in range(number))
    )


# --- trimming -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        (WIDE, 20),
        (WIDE._replace(publications=5), 5),
        (WIDE._replace(size=10 * 1105), 10),
        (WIDE._replace(age=timedelta(0)), 0),
    ],
)
async def test_of_a_history_only_the_window_is_kept(nodes: NodesOnPostgreSQL, kept: Histories, left: int) -> None:
    await nodes.forget_all()
    async with nodes.open(1) as (broker,), Database(nodes.url) as database:
        await publish(broker, 20, size=1000 - 1, room="small")
        await publish(broker, 20, size=1000, room="r")
        epoch = (await broker.since("r", None)).position.epoch

        await Trimming(database, ClusterQueries.load(), kept, "n").trim()

        found = [(await broker.since("r", Position(epoch, 20 - number))).publications for number in (left, left + 1)]
        assert [None if part is None else len(part) for part in found] == [left, None]
        assert await number_of(database, "roomkey_broker_publications WHERE room = 'r'") == left
        await publish(broker, 1)
        assert (await broker.since("r", None)).position == Position(epoch, 21)


async def test_what_is_not_kept_goes_after_a_while_and_whoever_was_away_for_longer_is_told(
    nodes: NodesOnPostgreSQL,
) -> None:
    await nodes.forget_all()
    async with nodes.open(2) as (one, other), Database(nodes.url) as database:
        listener, idle = Listener(), Listener()
        await other.subscribe("r", listener)
        await other.subscribe("idle", idle)
        trimming = Trimming(database, ClusterQueries.load(), WIDE, "n", passing_seconds=0)
        async with nodes.cut(other):
            await publish(one, 3)
            await publish(one, 3, keep=False)
            trimming.hear_heads(await ask(database, "SELECT id, era, head FROM roomkey_broker_partitions"))
            await trimming.trim()

            assert await number_of(database, "roomkey_broker_publications WHERE place IS NULL") == 0

        await listener.wait(lambda self: len(self.heard) == 3)
        assert listener.offsets == [1, 2, 3]
        assert (listener.gaps, idle.gaps) == (1, 0)


async def test_whoever_was_away_while_a_history_was_trimmed_is_told(nodes: NodesOnPostgreSQL) -> None:
    await nodes.forget_all()
    async with nodes.open(2) as (one, other), Database(nodes.url) as database:
        listener = Listener()
        await other.subscribe("r", listener)
        async with nodes.cut(other):
            await publish(one, 9)
            await Trimming(database, ClusterQueries.load(), WIDE._replace(publications=2), "n").trim()

        await listener.wait(lambda self: len(self.heard) == 2)
        assert (listener.offsets, listener.gaps) == ([8, 9], 1)


async def test_keys_are_forgotten_when_they_may_be_used_again(nodes: NodesOnPostgreSQL) -> None:
    await nodes.forget_all()
    key = MessageKey("alice", "m1", 1)
    async with nodes.open(1, WIDE._replace(repeat_window=timedelta(0))) as (broker,), Database(nodes.url) as database:
        published = [await broker.publish("r", b"x", origin="c1", key=key) for _ in range(2)]
        await Trimming(database, ClusterQueries.load(), WIDE, "n").trim()

        assert [each.repeated for each in published] == [False, False]
        assert await number_of(database, "roomkey_broker_keys") == 0


async def test_what_was_said_by_nodes_that_nobody_remembers_is_forgotten(nodes: NodesOnPostgreSQL) -> None:
    await nodes.forget_all()
    async with Database(nodes.url) as database:
        await PostgreSQLNodeRegistry(database).renew(status("here"), timedelta(seconds=30))
        for node in ("here", "gone"):
            await PostgreSQLPresenceStore(database, node).change([PresenceChange("r", node, b"")])

        await Trimming(database, ClusterQueries.load(), WIDE, "n").trim()

        assert await ask(database, "SELECT node FROM roomkey_presence") == [(b"here",)]


# --- turns --------------------------------------------------------------------------------------------


async def test_more_than_fits_into_a_statement_stays_in_order(nodes: NodesOnPostgreSQL) -> None:
    await nodes.forget_all()
    async with nodes.open(2) as (one, other):
        listener = Listener()
        await other.subscribe("r", listener)

        await publish(one, 2 * MAX_MESSAGES + 50)

        await listener.wait(lambda self: len(self.heard) == 2 * MAX_MESSAGES + 50)
        assert [int(message.rstrip(b"\0")) for message in listener.messages] == list(range(2 * MAX_MESSAGES + 50))


async def test_what_is_begun_later_is_not_seen_by_what_was_begun_before(nodes: NodesOnPostgreSQL) -> None:
    await nodes.forget_all()
    async with nodes.open(1) as (broker,):
        first = asyncio.ensure_future(broker.publish("r", b"1", origin="c1"))
        looking = asyncio.ensure_future(broker.since("r", None))
        second = asyncio.ensure_future(broker.publish("r", b"2", origin="c1"))

        await asyncio.gather(first, looking, second)

        assert looking.result().position == first.result().position
        assert (await broker.since("r", None)).position == second.result().position


async def test_a_statement_that_comes_late_changes_nothing(nodes: NodesOnPostgreSQL) -> None:
    await nodes.forget_all()
    async with Database(nodes.url) as database:
        await PostgreSQLNodeRegistry(database).renew(status("a"), timedelta(seconds=30))
        presence = PostgreSQLPresenceStore(database, "a")
        await presence.change([PresenceChange("r", "alice", b"1")])
        await presence.change([PresenceChange("r", "alice", b"2")])
        presence._turn = 0  # pyright: ignore[reportPrivateUsage]  # what is said now is what was said first, once more

        await presence.change([PresenceChange("r", "alice", b"1"), PresenceChange("r", "bob", b"")])

        assert [(each.member, each.shown) for each in await presence.here("r")] == [("alice", b"2")]


async def test_a_broker_that_was_left_refuses_and_can_be_entered_again(nodes: NodesOnPostgreSQL) -> None:
    await nodes.forget_all()
    broker = PostgreSQLBroker(Database(nodes.url), "n", KEPT)
    async with broker:
        await publish(broker, 1)
    with pytest.raises(Storage, match="not open"):
        await publish(broker, 1)
    async with broker:
        await publish(broker, 1)

        assert (await broker.since("r", None)).position.offset == 2


async def test_without_a_server_it_cannot_be_entered() -> None:
    broker = PostgreSQLBroker(Database("postgresql://nobody@127.0.0.1:1/nowhere"), "n", KEPT)

    with pytest.raises(Storage, match="away"):
        await broker.__aenter__()


def test_keys_of_different_messages_are_different() -> None:
    keys = [MessageKey(sender, id, 1) for sender, id in (("a", "bc"), ("ab", "c"), ("", "abc"), ("abc", ""), ("ä", ""))]

    assert len({hash_of(key) for key in keys}) == len(keys)


# --- who has one --------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["mysql://u@127.0.0.1/r", "mariadb://u@127.0.0.1/r", "sqlite:///r.db"])
def test_other_databases_join_nothing(url: str) -> None:
    assert open_cluster(Database(url), "n", KEPT) is None


async def test_a_deployment_of_the_schema_before_is_brought_up_to_date_and_joins_nodes(
    postgresql_server: PostgreSQLProcess, tmp_path: Path
) -> None:
    url = f"{postgresql_server.url}?schema=cluster_before"
    steps = sorted(files("roomkey.backends.sql").joinpath("schema", "postgresql").iterdir(), key=lambda each: each.name)
    later = [each.name.removesuffix(".sql") for each in steps if each.name >= "0005"]
    for file in steps:
        if file.name < "0005":
            (tmp_path / file.name).write_text(file.read_text())
    async with Database(url).unchecked() as database:
        await database.migrate(tmp_path)
        assert await database.pending_migrations() == later

        assert await database.migrate() == later

    async with DatabaseSessionStorage(Database(url)) as storage:
        session = await store(storage, "alice", active=True)
        assert await storage.get(session.id) == session
    async with PostgreSQLBroker(Database(url, DatabaseSettings(pool_size=1)), "n", KEPT) as broker:
        await publish(broker, 1)
