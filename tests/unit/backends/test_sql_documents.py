"""What is special about documents in SQL databases: repeats, several stores, and what is left behind."""

# pyright: reportPrivateUsage=false

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from roomkey.backends.sql.database import Database, DatabaseSettings
from roomkey.backends.sql.documents import DatabaseDocumentStore, sweeping
from roomkey.backends.sql.documents.layout import PIECE_BYTES
from roomkey.backends.sql.documents.reading import TAIL_BYTES
from roomkey.backends.sql.statements import Query, run
from roomkey.errors import Overtaken, Serialization
from roomkey.ports import Append
from roomkey.testing.documents.suite import (
    NOON,
    compactable,
    loaded,
    log_of,
    make,
    names_in,
    update,
    updates,
    version,
    versions_of,
    was_deleted,
)
from tests.support.cutting_proxy import Cut, CuttingProxy, cutting_proxy
from tests.support.databases import empty_database

SERVERS = ("postgresql", "mariadb")
DATABASES = ("sqlite", *SERVERS)
SETTINGS = DatabaseSettings(migrate=True)

LEFT = ("updates", "pieces", "versions", "leftovers")
"""The tables in which something is left behind."""


@pytest.fixture
def url(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    return empty_database(request.param, tmp_path, request)


every_database = pytest.mark.parametrize("url", DATABASES, indirect=True)
every_server = pytest.mark.parametrize("url", SERVERS, indirect=True)


async def ask(store: DatabaseDocumentStore, text: str, *parameters: Any) -> list[Any]:
    """The rows of a statement of the test's own."""
    query = Query(text, store._database.dialect)
    return list(await store._database.write(lambda connection: run(connection, query, *parameters), may_repeat=False))


async def rows_left(store: DatabaseDocumentStore) -> dict[str, int]:
    """How many rows each table has."""
    found: dict[str, int] = {}
    for table in LEFT:
        ((number,),) = await ask(store, f"SELECT count(*) FROM roomkey_document_{table}")
        found[table] = number
    return found


# --- answers that get lost ----------------------------------------------------------------------------


class Write(NamedTuple):
    """A write to the document of a name, what it returns, and what must be so afterwards."""

    call: Callable[[DatabaseDocumentStore, str], Awaitable[object]]
    result: object
    check: Callable[[DatabaseDocumentStore, str], Awaitable[bool]]


async def has_five(store: DatabaseDocumentStore, name: str) -> bool:
    return await log_of(store, name) == updates(5)


async def has_two_versions(store: DatabaseDocumentStore, name: str) -> bool:
    return [kept.number for kept in await versions_of(store, name)] == [2, 1]


async def is_compacted(store: DatabaseDocumentStore, name: str) -> bool:
    document = await loaded(store, name)
    return (document.snapshot, document.upto, len(document.updates)) == (b"snapshot", 1, 1)


async def is_gone(store: DatabaseDocumentStore, name: str) -> bool:
    return await store.find(name) is None and await was_deleted(store, name, "first")


async def has_no_version(store: DatabaseDocumentStore, name: str) -> bool:
    return await versions_of(store, name) == []


async def has_a_companion(store: DatabaseDocumentStore, name: str) -> bool:
    return await log_of(store, f"{name} too") == []


async def number_of_new_version(store: DatabaseDocumentStore, name: str) -> int:
    return (await store.keep_version(name, "first", version(b"content"))).number


async def lineage_of_new_document(store: DatabaseDocumentStore, name: str) -> str:
    return (await store.create(f"{name} too", "second", NOON)).lineage


WRITES = {
    "create": Write(lineage_of_new_document, "second", has_a_companion),
    "append": Write(lambda store, name: store.append(name, "first", updates(3, 3)), 5, has_five),
    "append behind": Write(lambda store, name: store.append(name, "first", updates(3, 3), after=2), 5, has_five),
    "append each": Write(
        lambda store, name: store.append_each([Append(name, "first", updates(3, 3))]), [5], has_five
    ),
    "compact": Write(
        lambda store, name: store.compact(name, "first", snapshot=b"snapshot", upto=1, authorship=b"a"),
        True,
        is_compacted,
    ),
    "keep version": Write(number_of_new_version, 2, has_two_versions),
    "forget versions": Write(lambda store, name: store.forget_versions(name, "first", [1]), 1, has_no_version),
    "delete": Write(lambda store, name: store.delete(name, "first", NOON), True, is_gone),
}


async def prepared(store: DatabaseDocumentStore, name: str) -> None:
    await make(store, name, updates(2))
    await store.keep_version(name, "first", version())


async def requests_of(proxy: CuttingProxy, store: DatabaseDocumentStore, write: Write) -> int:
    """How many requests the write is, once everything is prepared on the connection."""
    number = 0
    for name in ("warm", "warmer"):
        await prepared(store, name)
        before = proxy.requests
        await write.call(store, name)
        number = proxy.requests - before
    return number


@every_server
@pytest.mark.parametrize("where", [Cut.BEFORE_REQUEST, Cut.BEFORE_ANSWER])
@pytest.mark.parametrize("kind", WRITES)
async def test_a_write_is_done_once_wherever_its_connection_is_cut(url: str, kind: str, where: Cut) -> None:
    write = WRITES[kind]
    port = Database(url).place.port
    async with cutting_proxy(port) as proxy:
        settings = DatabaseSettings(migrate=True, pool_size=1)
        async with DatabaseDocumentStore(proxy.through(url), settings) as store:
            for request in range(1, 1 + await requests_of(proxy, store, write)):
                name = f"cut at {request}"
                await prepared(store, name)
                proxy.cut(where, request=request)

                result = await write.call(store, name)

                proxy.cut_nothing()
                assert result == write.result, name
                assert await write.check(store, name), name
            assert proxy.cuts >= 5


@every_server
async def test_a_commit_that_is_still_on_its_way_is_waited_for(url: str) -> None:
    async with DatabaseDocumentStore(url, SETTINGS) as store:
        await make(store)
        (slot,) = store._writers._free
        tries = 0
        arrived, went_on = asyncio.Event(), asyncio.Event()

        async def former() -> None:
            """The try whose answer is lost holds its row until it is committed."""

            async def work(connection: Any) -> None:
                assert await store._writers._count(connection, slot)
                arrived.set()
                await went_on.wait()

            await store._database.write(work, may_repeat=False)

        async def later(connection: Any) -> bool:
            nonlocal tries
            tries += 1
            return await store._writers._count(connection, slot)

        async with asyncio.TaskGroup() as group:
            group.create_task(former())
            await arrived.wait()
            repeated = group.create_task(store._database.write(later, may_repeat=False))
            await asyncio.sleep(0.05)  # it has no way to tell that it waits
            assert not repeated.done()
            went_on.set()

        assert repeated.result() is False
        assert tries == 1


# --- several stores -----------------------------------------------------------------------------------


@every_database
async def test_what_one_store_writes_changes_the_number_of_another(url: str) -> None:
    async with DatabaseDocumentStore(url, SETTINGS) as store, DatabaseDocumentStore(url, SETTINGS) as other:
        numbers = [await other.changes()]
        for write in (
            lambda: store.create("notes", "first", NOON),
            lambda: store.append("notes", "first", updates(1)),
            lambda: store.append_each([Append("notes", "first", updates(1, 2))]),
            lambda: store.delete("notes", "first", NOON),
        ):
            await write()
            numbers.append(await other.changes())

    assert len(set(numbers)) == len(numbers)


@every_database
async def test_nodes_that_append_to_the_same_documents_in_different_order_both_get_on(url: str) -> None:
    names = [f"{number:03}" for number in range(60)]

    async with DatabaseDocumentStore(url, SETTINGS) as store, DatabaseDocumentStore(url, SETTINGS) as other:
        for name in names:
            await make(store, name)

        async def write(node: DatabaseDocumentStore, order: list[str]) -> None:
            for turn in range(15):
                outcomes = await node.append_each([Append(name, "first", [update(b"%d" % turn)]) for name in order])
                assert all(isinstance(outcome, int) for outcome in outcomes)

        async with asyncio.TaskGroup() as group:
            for node, order in ((store, names), (other, names[::-1]), (store, names[::-1]), (other, names)):
                group.create_task(write(node, order))

        heads = await store.heads(names)
        assert {head.sequence for head in heads if head is not None} == {60}
        assert len(await log_of(other, names[7])) == 60


@every_database
async def test_of_many_who_append_behind_the_same_number_one_does(url: str) -> None:
    async with DatabaseDocumentStore(url, SETTINGS) as store:
        await make(store)
        await asyncio.gather(*(store.find("notes") for _ in range(8)))  # so that all connections are open

        outcomes = await asyncio.gather(
            *(store.append("notes", "first", updates(1, number), after=0) for number in range(12)),
            return_exceptions=True,
        )

        assert [outcome for outcome in outcomes if isinstance(outcome, int)] == [1]
        assert {type(outcome) for outcome in outcomes} == {int, Overtaken}
        assert len(await log_of(store)) == 1


@every_database
async def test_the_writes_of_those_who_are_gone_still_count(url: str) -> None:
    async with DatabaseDocumentStore(url, SETTINGS) as store:
        for number in range(3):
            await make(store, f"{number}", updates(1))
        before = await store.changes()
        await ask(store, "UPDATE roomkey_document_writers SET day = 3 WHERE writer <> 0")

        await store._writers.forget()

        assert await store.changes() == before
        assert [writer for (writer,) in await ask(store, "SELECT writer FROM roomkey_document_writers")] == [0]
        assert await store.append("1", "first", updates(1, 2)) == 2  # though its own row was forgotten


# --- what is left behind ------------------------------------------------------------------------------


@every_database
async def test_a_compaction_leaves_nothing_of_what_it_has_merged(url: str) -> None:
    async with DatabaseDocumentStore(url, SETTINGS) as store:
        await make(store)
        for number in range(1, 9):
            await store.append("notes", "first", updates(2, 2 * number - 1))
            await store.compact("notes", "first", snapshot=b"s" * 10, upto=2 * number - 1, authorship=b"a")

        assert await rows_left(store) == {"updates": 1, "pieces": 2, "versions": 0, "leftovers": 0}


@every_database
async def test_a_deletion_leaves_nothing_of_the_document_and_everything_of_others(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "SWEPT_ROWS", 3)
    monkeypatch.setattr(sweeping, "SWEPT_PIECES", 2)
    async with DatabaseDocumentStore(url, SETTINGS) as store:
        for name in ("notes", "plans"):
            await make(store, name)
            for number in range(1, 32):
                await store.append(name, "first", updates(1, number))
            await store.compact(name, "first", snapshot=b"s" * (3 * PIECE_BYTES), upto=1, authorship=b"a")
            for _ in range(4):
                await store.keep_version(name, "first", version(b"content"))
        before = await loaded(store, "plans")

        await store.delete("notes", "first", NOON)
        while (await rows_left(store))["leftovers"]:
            await store._sweep()

        assert await rows_left(store) == {"updates": 30, "pieces": 4 + 4, "versions": 4, "leftovers": 0}
        assert await loaded(store, "plans") == before


@every_database
async def test_what_was_not_swept_up_is_when_a_store_is_opened(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "ROUNDS", 0)
        async with DatabaseDocumentStore(url, SETTINGS) as store:
            await make(store, updates=updates(4))
            await store.keep_version("notes", "first", version())
            await store.delete("notes", "first", NOON)
            assert (await rows_left(store))["leftovers"] == 1

    async with DatabaseDocumentStore(url, SETTINGS) as store:
        assert await rows_left(store) == dict.fromkeys(LEFT, 0)


@every_database
async def test_a_write_that_is_refused_leaves_nothing(url: str) -> None:
    async with DatabaseDocumentStore(url, SETTINGS) as store:
        await make(store, updates=updates(3))

        done = await asyncio.gather(
            *(
                store.compact("notes", "first", snapshot=b"s%d" % number, upto=3, authorship=b"")
                for number in range(8)
            )
        )

        assert sorted(done) == [False] * 7 + [True]
        assert await rows_left(store) == {"updates": 0, "pieces": 1, "versions": 0, "leftovers": 0}


# --- pieces -------------------------------------------------------------------------------------------


@every_database
async def test_no_row_is_larger_than_a_piece_and_what_the_codec_adds(url: str) -> None:
    large = [update(b"x" * (3 * PIECE_BYTES)), update(b"y")]

    async with DatabaseDocumentStore(url, SETTINGS) as store:
        await make(store, updates=large)
        await make(store, "plans", updates(1))
        await store.compact("plans", "first", snapshot=b"z" * (2 * PIECE_BYTES + 1), upto=1, authorship=b"")

        assert await log_of(store) == large
        for table, rows in (("updates", 4), ("pieces", 3)):
            found = await ask(store, f"SELECT length(record) FROM roomkey_document_{table}")
            assert len(found) == rows
            assert max(size for (size,) in found) <= PIECE_BYTES + 64


@every_database
async def test_an_answer_with_updates_has_a_bound_in_bytes(url: str) -> None:
    async with DatabaseDocumentStore(url, SETTINGS) as store:
        await make(store)
        for number in range(6):
            await store.append("notes", "first", [update(b"x" * (TAIL_BYTES // 3 + 1), number)])

        tail = await store.updates("notes", "first", 1)

        assert tail.head == 6
        assert tail.updates is not None
        assert len(tail.updates) == 3


@every_database
async def test_logs_at_the_bounds_of_a_class_are_found(url: str) -> None:
    lengths = [62, 63, 64, 65]
    sizes = [32 * 1024 - 2, 32 * 1024 - 1, 32 * 1024, 32 * 1024 + 1]

    async with DatabaseDocumentStore(url, SETTINGS) as store:
        for number in lengths:
            await make(store, f"long {number}", updates(number))
        for size in sizes:
            await make(store, f"large {size}", [update(b"x" * size)])

        for wanted in range(61, 66):
            expected = sorted(f"long {number}" for number in lengths if number > wanted)
            assert await compactable(store, wanted, 10**9) == expected
        for wanted in range(sizes[0] - 1, sizes[-1] + 1):
            expected = sorted(f"large {size}" for size in sizes if size > wanted)
            assert await compactable(store, 10**6, wanted) == expected


@every_database
@pytest.mark.parametrize("break_it", ["DELETE FROM {} WHERE piece = 1", "UPDATE {} SET piece = 7 - piece"])
async def test_a_snapshot_that_is_not_whole_is_reported(url: str, break_it: str) -> None:
    async with DatabaseDocumentStore(url, SETTINGS) as store:
        await make(store, updates=updates(1))
        await store.compact("notes", "first", snapshot=b"z" * (2 * PIECE_BYTES + 1), upto=1, authorship=b"")
        await make(store, "sound", updates(1))

        await ask(store, break_it.format("roomkey_document_pieces"))

        with pytest.raises(Serialization):
            await store.load("notes")
        assert await log_of(store, "sound") == updates(1)
        assert await names_in(store) == ["notes", "sound"]
