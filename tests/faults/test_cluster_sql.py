"""
Nodes on PostgreSQL go on hearing each other when connections, notifications or the server fail.

What is kept is handed on once and in order; what was not kept is, too, as long as the server has it; whoever may have
missed something is told.
"""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from itertools import count
from typing import Any

import pytest

from roomkey.backends.sql.cluster import PostgreSQLBroker
from roomkey.backends.sql.cluster.deliveries import PARTITIONS, mark_of
from roomkey.errors import Storage
from roomkey.ports import MessageKey
from roomkey.testing.broker import Listener
from tests.support.cutting_proxy import Cut
from tests.support.deployments import until as until_it_is
from tests.support.sql_nodes import NodesOnPostgreSQL
from tests.support.store_servers import PostgreSQLProcess

asyncpg: Any = import_module("asyncpg")

ROOMS = ("a", "b", "c", "d")


@pytest.fixture
def nodes(postgresql_server: PostgreSQLProcess) -> NodesOnPostgreSQL:
    return NodesOnPostgreSQL(f"{postgresql_server.url}?schema=cluster_faults")


@asynccontextmanager
async def opened(
    nodes: NodesOnPostgreSQL, number: int = 2, rooms: Sequence[str] = ROOMS
) -> AsyncGenerator[tuple[Sequence[PostgreSQLBroker], dict[str, list[Listener]]]]:
    """Brokers that all listen to all rooms."""
    await nodes.forget_all()
    async with nodes.open(number) as brokers:
        listeners: dict[str, list[Listener]] = {}
        for room in rooms:
            listeners[room] = [Listener() for _ in brokers]
            for broker, listener in zip(brokers, listeners[room], strict=True):
                await broker.subscribe(room, listener)
        yield brokers, listeners


@asynccontextmanager
async def typing(brokers: Sequence[PostgreSQLBroker]) -> AsyncGenerator[dict[str, list[bytes]]]:
    """While this is entered, every broker publishes in all rooms; what was said, kept and acknowledged in each."""
    said: dict[str, list[bytes]] = {room: [] for room in ROOMS}
    stop = asyncio.Event()

    async def type_into(broker: PostgreSQLBroker, room: str) -> None:
        for number in count():
            if stop.is_set():
                return
            message = f"{room}{id(broker)}:{number}".encode()
            key = MessageKey(str(id(broker)), message.decode(), 1)
            while True:
                try:
                    await broker.publish(room, message, origin=str(id(broker)), key=key)
                except Storage:
                    await asyncio.sleep(0.02)
                else:
                    break
            said[room].append(message)
            if number % 3 == 0:
                with suppress(Storage):
                    await broker.publish(room, b"passing", origin="p", keep=False)
            await asyncio.sleep(0.002)

    async with asyncio.TaskGroup() as group:
        for broker in brokers:
            for room in ROOMS:
                group.create_task(type_into(broker, room))
        try:
            yield said
        finally:
            stop.set()


async def until(condition: Callable[[], bool]) -> None:
    await until_it_is(condition, "what was waited for")


def kept(listener: Listener) -> list[bytes]:
    return [each.message for each in listener.heard if each.position is not None]


async def everybody_heard(said: dict[str, list[bytes]], listeners: dict[str, list[Listener]]) -> None:
    """All listeners were handed all of it, once, in one order without holes."""
    for room, messages in said.items():
        for listener in listeners[room]:
            await until(lambda listener=listener, messages=messages: len(kept(listener)) >= len(messages))
            assert sorted(kept(listener)) == sorted(messages)
            assert kept(listener) == kept(listeners[room][0])
            assert listener.offsets == list(range(1, len(messages) + 1))


async def listening_backends(nodes: NodesOnPostgreSQL) -> list[int]:
    """The processes of the server that serve the connections on which nodes listen."""
    connection = await asyncpg.connect(nodes.url.partition("?")[0])
    try:
        rows = await connection.fetch(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'roomkey' "
            "AND query LIKE 'SELECT id, era, head%' ORDER BY backend_start"
        )
    finally:
        await connection.close()
    return [pid for (pid,) in rows]


# --- connections --------------------------------------------------------------------------------------


async def test_connections_that_are_cut_while_all_publish_lose_nothing(nodes: NodesOnPostgreSQL) -> None:
    async with opened(nodes) as (brokers, listeners):
        async with typing(brokers) as said:
            for round in range(6):
                heard = len(said["a"])
                await until(lambda heard=heard: len(said["a"]) > heard + 5)
                nodes.proxies[brokers[round % 2]].cut_all()

        await everybody_heard(said, listeners)
        assert [listener.gaps for each in listeners.values() for listener in each] == [0] * 8
        await until(lambda: not any(broker.degradations() for broker in brokers))


async def test_a_node_without_connections_hears_later_what_was_said_meanwhile(nodes: NodesOnPostgreSQL) -> None:
    async with opened(nodes) as ((one, other), listeners):
        async with nodes.cut(other):
            await until(lambda: "broker" in other.degradations())
            for number in range(5):
                await one.publish("a", b"kept%d" % number, origin="c1")
                await one.publish("a", b"passing%d" % number, origin="c1", keep=False)

        there = listeners["a"][1]
        await there.wait_heard(b"passing4")
        assert there.messages == listeners["a"][0].messages
        assert there.gaps == 0


async def test_a_connection_that_is_dead_and_does_not_say_so_is_replaced(nodes: NodesOnPostgreSQL) -> None:
    async with opened(nodes, 1) as ((broker,), listeners):
        await until(lambda: broker.degradations() == {})
        (backend,) = await listening_backends(nodes)
        os.kill(backend, signal.SIGSTOP)
        try:
            async with nodes_beside(nodes) as other:
                await other.publish("a", b"unheard", origin="c2")
                await listeners["a"][0].wait_heard(b"unheard")

                await until(lambda: nodes.proxies[broker].connections > 2 and broker.degradations() == {})
                await other.publish("a", b"heard", origin="c2")
                await listeners["a"][0].wait_heard(b"heard")
        finally:
            os.kill(backend, signal.SIGCONT)
        assert listeners["a"][0].gaps == 0


@asynccontextmanager
async def nodes_beside(nodes: NodesOnPostgreSQL) -> AsyncGenerator[PostgreSQLBroker]:
    """One node more."""
    async with nodes.open(1) as (broker,):
        yield broker


async def test_a_publication_whose_answer_is_cut_is_made_once(nodes: NodesOnPostgreSQL) -> None:
    async with opened(nodes) as ((one, _), listeners):
        for number, where in enumerate((Cut.BEFORE_REQUEST, Cut.BEFORE_ANSWER, Cut.WITHIN_ANSWER), 1):
            nodes.proxies[one].cut(where, containing=b"precious")
            published = await one.publish("a", b"precious%d" % number, origin="c1")
            await nodes.proxies[one].wait_cut()

            assert published.position is not None
            assert published.position.offset == number
        for listener in listeners["a"]:
            await listener.wait_heard(b"precious3")
            assert listener.messages == [b"precious1", b"precious2", b"precious3"]
            assert listener.offsets == [1, 2, 3]


async def test_what_is_rolled_back_leaves_no_hole(nodes: NodesOnPostgreSQL) -> None:
    async with opened(nodes) as ((one, other), listeners):
        connection = await asyncpg.connect(nodes.url.partition("?")[0], server_settings={"search_path": nodes.schema})
        await one.publish("a", b"1", origin="c1")
        holding = connection.transaction()
        await holding.start()
        partition = mark_of("a") % PARTITIONS
        await connection.execute(f"SELECT 1 FROM roomkey_broker_partitions WHERE id = {partition} FOR UPDATE")

        publishing = asyncio.create_task(one.publish("a", b"2", origin="c1"))
        waiting: list[int] = []
        while not waiting:
            rows = await connection.fetch("SELECT pid FROM pg_locks WHERE NOT granted")
            waiting = [pid for (pid,) in rows]
        for pid in waiting:
            await connection.execute(f"SELECT pg_terminate_backend({pid})")
        await holding.rollback()
        await connection.close()
        published = await publishing
        await other.publish("a", b"3", origin="c2")

        assert published.position is not None
        for listener in listeners["a"]:
            await listener.wait_heard(b"3")
            assert (listener.messages, listener.offsets) == ([b"1", b"2", b"3"], [1, 2, 3])


# --- the server ---------------------------------------------------------------------------------------


async def test_a_server_that_is_restarted_in_good_order_keeps_histories(
    nodes: NodesOnPostgreSQL, postgresql_server: PostgreSQLProcess
) -> None:
    async with opened(nodes) as (brokers, listeners):
        async with typing(brokers) as said:
            await until(lambda: len(said["a"]) > 5)
            await asyncio.to_thread(postgresql_server.stop)
            await until(lambda: all("broker" in broker.degradations() for broker in brokers))
            await asyncio.to_thread(postgresql_server.start)
            heard = len(said["a"])
            await until(lambda: len(said["a"]) > heard + 5)

        await everybody_heard(said, listeners)
        assert [listener.gaps for each in listeners.values() for listener in each] == [0] * 8


async def test_a_server_that_crashes_begins_new_epochs_and_everybody_is_told(
    nodes: NodesOnPostgreSQL, postgresql_server: PostgreSQLProcess
) -> None:
    async with opened(nodes) as (brokers, listeners):
        for number in range(3):
            await brokers[0].publish("a", b"before%d" % number, origin="c1")
        former = (await brokers[0].since("a", None)).position
        await listeners["a"][1].wait_heard(b"before2")

        await asyncio.to_thread(postgresql_server.kill)
        await asyncio.to_thread(postgresql_server.start)
        async with typing(brokers) as said:
            await until(lambda: all(len(messages) > 5 for messages in said.values()))

        for room, messages in said.items():
            for listener in listeners[room]:
                await until(
                    lambda listener=listener, messages=messages: (
                        messages[-1] in listener.messages and {*messages} <= {*listener.messages}
                    )
                )
                anew = [each for each in listener.heard if each.position is not None and each.message in messages]
                assert [each.position.offset for each in anew if each.position] == list(range(1, len(messages) + 1))
                assert {each.position.epoch for each in anew if each.position}.isdisjoint({former.epoch})
                assert listener.gaps > 0
        assert (await brokers[1].since("a", former)).publications is None
        await until(lambda: not any(broker.degradations() for broker in brokers))


async def test_without_room_for_notifications_others_find_what_is_published_by_looking(
    nodes: NodesOnPostgreSQL,
) -> None:
    async with opened(nodes) as ((one, other), listeners):
        async with no_room_for_notifications(nodes):
            published = await one.publish("a", b"quiet", origin="c1")
            await listeners["a"][1].wait_heard(b"quiet")

            assert published.position is not None
            assert "notifications is full" in one.degradations()["broker"]
            assert other.degradations() == {}
        await until(lambda: "broker" not in one.degradations())
        await one.publish("a", b"loud", origin="c1")
        await listeners["a"][1].wait_heard(b"loud")


@asynccontextmanager
async def no_room_for_notifications(nodes: NodesOnPostgreSQL) -> AsyncGenerator[None]:
    """The queue of a server has 8 GB; so the function fails as COMMIT does when that is full."""
    connection = await asyncpg.connect(nodes.url.partition("?")[0], server_settings={"search_path": nodes.schema})
    ((arguments,),) = await connection.fetch(
        "SELECT pg_get_function_arguments('roomkey_publish_1'::regproc) WHERE true"
    )
    inputs = arguments.partition(", OUT")[0]
    names = [part.split()[0] for part in inputs.split(", ")]
    try:
        await connection.execute("ALTER FUNCTION roomkey_publish_1 RENAME TO roomkey_publish_kept")
        await connection.execute(
            f"CREATE FUNCTION roomkey_publish_1({inputs}) "
            "RETURNS TABLE (outcomes smallint[], eras text[], numbers bigint[], epochs text[], places bigint[]) "
            "LANGUAGE plpgsql AS $$ BEGIN IF channel IS NOT NULL THEN "
            "RAISE 'too many notifications in the NOTIFY queue' USING ERRCODE = '54000'; END IF; "
            f"RETURN QUERY SELECT * FROM roomkey_publish_kept({', '.join(names)}); END $$"
        )
        yield
    finally:
        await connection.execute("DROP FUNCTION roomkey_publish_1")
        await connection.execute("ALTER FUNCTION roomkey_publish_kept RENAME TO roomkey_publish_1")
        await connection.close()
