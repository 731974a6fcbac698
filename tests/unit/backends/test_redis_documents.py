"""Documents in Redis: a write whose answer is lost is not done twice, all of a document is in one slot."""

# They look at what is stored, and speak to parts of the store.
# pyright: reportPrivateUsage=false

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from msgspec.structs import replace

from roomkey.backends.recovery import RecoverySettings
from roomkey.backends.redis.documents import RedisDocumentStore
from roomkey.backends.redis.documents.appending import Appendix
from roomkey.backends.redis.documents.layout import PARTITIONS
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import RedisServer
from roomkey.backends.redis.settings import RedisSettings
from roomkey.backends.redis.topology import slot_of
from roomkey.errors import OutcomeUnknown, Serialization
from roomkey.ports import CHECKSUMMED_RECORDS, Append, DocumentItem, Page, VersionItem
from roomkey.testing.documents.suite import (
    NOON,
    found,
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
from tests.support.store_servers import RedisProcess

MEBIBYTE: Final = 1024 * 1024

PATIENT: Final = RedisSettings(
    recovery=RecoverySettings(tries=200, first_pause=0.005, longest_pause=0.02, breaks_after=10_000)
)
"""Tries again until the test lets it."""


class Behind:
    """A store behind a proxy, and another one that is not."""

    def __init__(self, store: RedisDocumentStore, direct: RedisDocumentStore, proxy: CuttingProxy) -> None:
        self.store = store
        self.direct = direct
        self.proxy = proxy

    def cut(self, script: str, where: Cut) -> None:
        """Cut the connection when this script is called next, which every server knows by now."""
        self.proxy.cut(where, containing=Script(script).digest)


@asynccontextmanager
async def behind_a_proxy(redis_url: str, redis_server: RedisProcess) -> AsyncGenerator[Behind]:
    async with cutting_proxy(redis_server.port) as proxy, RedisServer(redis_url) as known:
        for script in SCRIPTS:
            # A call of a script that the server does not know is answered at once, and nothing is done.
            node = next(iter(known._opened().nodes()))
            await node.load(Script(script))
        async with (
            RedisDocumentStore(proxy.through(redis_url), PATIENT) as store,
            RedisDocumentStore(known) as direct,
        ):
            yield Behind(store, direct, proxy)


SCRIPTS: Final = (
    "content_stage",
    *("document_append", "document_compact", "document_create", "document_delete"),
    *("document_forget_versions", "document_keep_version"),
    *("document_take_in", "document_take_version", "document_take_grave", "log_stage"),
)

cuts = pytest.mark.parametrize("where", Cut)


async def all_keys(store: RedisDocumentStore) -> list[bytes]:
    """Every key of the store, as only tests may ask."""
    return await store._server.ask("KEYS", b"*%s:*" % store._server.prefix)


# --- what is done once ------------------------------------------------------------------------------------


@cuts
async def test_a_document_is_made_once(redis_url: str, redis_server: RedisProcess, where: Cut) -> None:
    async with behind_a_proxy(redis_url, redis_server) as behind:
        behind.cut("document_create", where)

        record = await behind.store.create("notes", "first", NOON)

        assert behind.proxy.cuts == 1
        assert record == await found(behind.direct)
        assert await names_in(behind.direct) == ["notes"]


@cuts
async def test_updates_are_appended_once(redis_url: str, redis_server: RedisProcess, where: Cut) -> None:
    async with behind_a_proxy(redis_url, redis_server) as behind:
        await make(behind.store, updates=updates(2))
        behind.cut("document_append", where)

        number = await behind.store.append("notes", "first", updates(3, 3))

        assert (behind.proxy.cuts, number) == (1, 5)
        assert await log_of(behind.direct) == updates(5)


@cuts
async def test_updates_behind_a_number_are_appended_once(
    redis_url: str, redis_server: RedisProcess, where: Cut
) -> None:
    async with behind_a_proxy(redis_url, redis_server) as behind:
        await make(behind.store, updates=updates(2))
        behind.cut("document_append", where)

        number = await behind.store.append("notes", "first", updates(3, 3), after=2)

        assert (behind.proxy.cuts, number) == (1, 5)
        assert await log_of(behind.direct) == updates(5)


@cuts
@pytest.mark.parametrize("script", ["document_take_in", "log_stage", "content_stage"])
async def test_a_document_is_taken_in_once(redis_url: str, redis_server: RedisProcess, where: Cut, script: str) -> None:
    async with behind_a_proxy(redis_url, redis_server) as behind:
        await make(behind.direct, updates=updates(3))
        await behind.direct.compact("notes", "first", snapshot=b"snapshot", upto=2, authorship=b"authors")
        item = DocumentItem(await loaded(behind.direct), 4)
        await behind.direct.delete("notes", "first", NOON)
        moved = replace(item.stored, record=replace(item.stored.record, name="moved"))
        behind.cut(script, where)

        await behind.store.take_in(DocumentItem(moved, 4))

        assert behind.proxy.cuts == 1
        assert await loaded(behind.direct, "moved") == moved
        assert await behind.direct.last_version("moved", "first") == 4


@cuts
async def test_a_version_is_taken_in_once_between_those_that_are_there(
    redis_url: str, redis_server: RedisProcess, where: Cut
) -> None:
    async with behind_a_proxy(redis_url, redis_server) as behind:
        await make(behind.direct, updates=updates(3))
        kept = [await behind.direct.keep_version("notes", "first", version(b"%d" % number)) for number in range(3)]
        await behind.direct.forget_versions("notes", "first", [2])
        behind.cut("document_take_version", where)

        await behind.store.take_in(VersionItem("notes", "first", kept[1], b"1"))

        assert behind.proxy.cuts == 1
        assert await versions_of(behind.direct) == kept[::-1]
        assert await behind.direct.version("notes", 2) == (kept[1], b"1")
        assert (await behind.direct.keep_version("notes", "first", version())).number == 4


@cuts
async def test_updates_of_many_documents_are_appended_once(
    redis_url: str, redis_server: RedisProcess, where: Cut
) -> None:
    names = [f"document {number}" for number in range(200)]

    async with behind_a_proxy(redis_url, redis_server) as behind:
        for name in names:
            await make(behind.store, name)
        behind.cut("document_append", where)

        outcomes = await behind.store.append_each([Append(name, "first", updates(2)) for name in names])

        assert behind.proxy.cuts == 1
        assert outcomes == [2] * len(names)
        for name in names:
            assert await log_of(behind.direct, name) == updates(2)


@cuts
@pytest.mark.parametrize("upto", [3, 5])
async def test_a_snapshot_takes_the_place_of_the_log_once(
    redis_url: str, redis_server: RedisProcess, where: Cut, upto: int
) -> None:
    async with behind_a_proxy(redis_url, redis_server) as behind:
        await make(behind.store, updates=updates(5))
        behind.cut("document_compact", where)

        done = await behind.store.compact("notes", "first", snapshot=b"s", upto=upto, authorship=b"a")

        assert (behind.proxy.cuts, done) == (1, True)
        document = await loaded(behind.direct)
        assert (document.snapshot, [*document.updates]) == (b"s", updates(5 - upto, upto + 1))


@cuts
async def test_a_piece_of_a_snapshot_is_stored_once(redis_url: str, redis_server: RedisProcess, where: Cut) -> None:
    snapshot = bytes(range(256)) * 4096

    async with behind_a_proxy(redis_url, redis_server) as behind:
        await make(behind.store, updates=updates(5))
        behind.cut("content_stage", where)

        await behind.store.compact("notes", "first", snapshot=snapshot, upto=5, authorship=b"a")

        assert behind.proxy.cuts == 1
        assert (await loaded(behind.direct)).snapshot == snapshot


@cuts
async def test_a_version_is_kept_once(redis_url: str, redis_server: RedisProcess, where: Cut) -> None:
    async with behind_a_proxy(redis_url, redis_server) as behind:
        await make(behind.store, updates=updates(5))
        behind.cut("document_keep_version", where)

        kept = await behind.store.keep_version("notes", "first", version(b"content"))

        assert behind.proxy.cuts == 1
        assert await versions_of(behind.direct) == [kept]
        assert await behind.direct.version("notes", 1) == (kept, b"content")


@cuts
async def test_versions_are_forgotten_once_and_counted(redis_url: str, redis_server: RedisProcess, where: Cut) -> None:
    async with behind_a_proxy(redis_url, redis_server) as behind:
        await make(behind.store)
        for _ in range(3):
            await behind.store.keep_version("notes", "first", version())
        behind.cut("document_forget_versions", where)

        forgotten = await behind.store.forget_versions("notes", "first", [1, 3])

        assert (behind.proxy.cuts, forgotten) == (1, 2)
        assert [kept.number for kept in await versions_of(behind.direct)] == [2]


@cuts
async def test_who_deletes_is_told_that_it_did(redis_url: str, redis_server: RedisProcess, where: Cut) -> None:
    async with behind_a_proxy(redis_url, redis_server) as behind:
        await make(behind.store, updates=updates(5))
        behind.cut("document_delete", where)

        deleted = await behind.store.delete("notes", "first", NOON)

        assert (behind.proxy.cuts, deleted) == (1, True)
        assert not await behind.store.delete("notes", "first", NOON)
        assert await was_deleted(behind.direct, "notes", "first")


# --- what cannot be known ---------------------------------------------------------------------------------


async def append_while(behind: Behind, others: Callable[[], Awaitable[object]]) -> int:
    """Append, lose the answer, and come again only after others have done something."""
    await make(behind.store, updates=updates(1))
    behind.cut("document_append", Cut.BEFORE_ANSWER)
    async with asyncio.TaskGroup() as group:
        appending = group.create_task(behind.store.append("notes", "first", updates(1, 2)))
        await behind.proxy.wait_cut()
        behind.proxy.refuses = True
        await others()
        behind.proxy.refuses = False
    return appending.result()


async def test_a_row_is_known_again_behind_those_of_others(redis_url: str, redis_server: RedisProcess) -> None:
    async with behind_a_proxy(redis_url, redis_server) as behind:

        async def others() -> None:
            for number in range(3, 203):
                await behind.direct.append("notes", "first", updates(1, number))

        number = await append_while(behind, others)

        assert number == 2
        assert await log_of(behind.direct) == updates(202)


async def test_what_was_compacted_since_may_have_been_appended(redis_url: str, redis_server: RedisProcess) -> None:
    async with behind_a_proxy(redis_url, redis_server) as behind:

        def others() -> Awaitable[object]:
            return behind.direct.compact("notes", "first", snapshot=b"s", upto=2, authorship=b"a")

        with pytest.raises(ExceptionGroup) as raised:
            await append_while(behind, others)

        assert raised.group_contains(OutcomeUnknown)
        assert (await found(behind.direct)).sequence == 2


async def test_a_row_that_comes_late_a_second_time_is_not_appended_again(redis_url: str) -> None:
    async with RedisDocumentStore(redis_url) as store:
        await make(store, updates=updates(1))
        place = store._layout.place(b"notes")
        late = Appendix.of(place, "first", updates(1, 2), CHECKSUMMED_RECORDS)
        late.base = 1
        keys = [place.partition.log_updates, place.partition.log_bytes, place.partition.changes]

        async def come() -> Any:
            # The connection that brings it does not know that it is the second.
            keys_of_it = [*keys, place.document, place.log]
            return await store._server.run(Script("document_append"), keys_of_it, [0, *late.arguments()])

        first, second = await come(), await come()
        await store.append("notes", "first", updates(200, 3))
        third = await come()
        await store.compact("notes", "first", snapshot=b"s", upto=202, authorship=b"a")
        fourth = await come()

        assert first == second == third == [[b"ok", 2]]
        assert fourth == [[b"stale", 202]]
        assert (await found(store)).sequence == 202


async def test_a_row_that_comes_again_behind_more_than_is_looked_through_is_not_appended_again(redis_url: str) -> None:
    async with RedisDocumentStore(redis_url) as store:
        await make(store, updates=updates(1))
        late = Appendix.of(store._layout.place(b"notes"), "first", updates(1, 152), CHECKSUMMED_RECORDS)
        for number in range(2, 152):
            await store.append("notes", "first", updates(1, number))
        late.base = 1

        first = await store._appender.append([late])  # it is told how far the document is, and comes with that
        late.base = 1
        with_former_base = await store._server.run(
            Script("document_append"),
            [
                *(late.place.partition.log_updates, late.place.partition.log_bytes, late.place.partition.changes),
                *(late.place.document, late.place.log),
            ],
            [0, *late.arguments()],
        )

        assert (first, with_former_base) == ([152], [[b"stale", 152]])
        assert await log_of(store) == updates(152)


async def test_many_more_at_once_than_a_document_remembers_are_all_appended(redis_url: str) -> None:
    async with RedisDocumentStore(redis_url) as store:
        await make(store)

        numbers = await asyncio.gather(*(store.append("notes", "first", updates(1)) for _ in range(300)))

        assert sorted(numbers) == [*range(1, 301)]


# --- where it lies ----------------------------------------------------------------------------------------


async def everything(store: RedisDocumentStore, name: str = "notes") -> None:
    """A document that has one of everything."""
    await make(store, name, updates(5))
    await store.compact(name, "first", snapshot=b"s", upto=3, authorship=b"a")
    await store.keep_version(name, "first", version(b"v"))
    await store.keep_version(name, "first", version(b"w"))
    await store.forget_versions(name, "first", [2])
    await make(store, name, lineage="never mind")


@pytest.mark.parametrize("name", ["notes", "{a}b{c}", "}{", "x" * 1024, "\0"])
async def test_all_of_a_document_is_in_one_slot(redis_url: str, name: str) -> None:
    async with RedisDocumentStore(redis_url) as store:
        await everything(store, name)
        await store.delete(name, "first", NOON)
        await make(store, name, updates(5), lineage="second")
        await store.compact(name, "second", snapshot=b"s", upto=3, authorship=b"a")
        await store.keep_version(name, "second", version(b"v"))

        keys = await all_keys(store)

        assert len({slot_of(key) for key in keys}) == 1
        assert len(keys) == 10


async def test_documents_are_spread_over_the_partitions(redis_url: str) -> None:
    async with RedisDocumentStore(redis_url) as store:
        places = {store._layout.place(b"document %d" % number).partition for number in range(1000)}

        assert len(places) == PARTITIONS
        assert len({slot_of(partition.names) for partition in places}) > PARTITIONS * 0.95


async def test_of_a_deleted_document_only_its_lineage_is_left(redis_url: str) -> None:
    async with RedisDocumentStore(redis_url) as store:
        await everything(store)

        await store.delete("notes", "first", NOON)

        place = store._layout.place(b"notes")
        assert sorted(await all_keys(store)) == sorted([place.partition.graves, place.partition.changes])


async def test_a_snapshot_leaves_nothing_of_the_one_before(redis_url: str) -> None:
    async with RedisDocumentStore(redis_url) as store:
        await make(store, updates=updates(5))
        await store.compact("notes", "first", snapshot=b"s", upto=3, authorship=b"a")
        before = len(await all_keys(store))

        await store.compact("notes", "first", snapshot=b"t", upto=4, authorship=b"a")

        assert len(await all_keys(store)) == before


async def test_a_compaction_that_is_refused_leaves_nothing_behind(redis_url: str) -> None:
    async with RedisDocumentStore(redis_url) as store:
        await make(store, updates=updates(5))
        before = await all_keys(store)

        assert not await store.compact("notes", "first", snapshot=b"s", upto=6, authorship=b"a")

        assert sorted(await all_keys(store)) == sorted(before)


async def test_what_nothing_leads_to_goes_by_itself_and_everything_else_stays(redis_url: str) -> None:
    async with RedisDocumentStore(redis_url) as store:
        await everything(store)
        place = store._layout.place(b"notes")
        staged = await store._contents.stage(place, b"lineage", {b"s": b"never used"})

        lifetimes = {key: await store._server.ask("TTL", key) for key in await all_keys(store)}

        assert 0 < lifetimes.pop(place.content(staged.id)) <= 600
        assert set(lifetimes.values()) == {-1}


async def test_a_page_may_be_of_one_partition(redis_url: str) -> None:
    async with RedisDocumentStore(redis_url) as store:
        every = sorted(f"a{number:04}" for number in range(3000))
        of_one = [name for name in every if store._layout.place(name.encode()).partition.tag.endswith(b":d07}:")]
        names = sorted([*of_one, *(f"b{number:02}" for number in range(100))])
        for name in names:
            await store.create(name, "first", NOON)

        assert len(of_one) > 30
        assert await names_in(store, limit=500) == names
        assert await names_in(store, limit=20) == names
        assert await names_in(store, "a", limit=len(of_one)) == of_one


# --- large ones -------------------------------------------------------------------------------------------


async def test_a_document_that_is_compacted_while_it_is_read_is_read_whole(redis_url: str) -> None:
    async with RedisDocumentStore(redis_url) as store:
        await make(store)
        for number in range(8):
            await store.append("notes", "first", [update(bytes([number]) * MEBIBYTE, number)])

        async def compact() -> None:
            for upto in range(1, 9):
                await store.compact("notes", "first", snapshot=bytes(range(upto)) * 700_000, upto=upto, authorship=b"")

        *documents, _ = await asyncio.gather(*(store.load("notes") for _ in range(6)), compact())

        for document in documents:
            assert document is not None
            assert document.snapshot in {None, bytes(range(document.upto)) * 700_000}
            assert [each.data[0] for each in document.updates] == [*range(document.upto, 8)]


# --- damage -----------------------------------------------------------------------------------------------


async def damage(store: RedisDocumentStore, key: bytes, field: bytes, place: int) -> None:
    value = await store._server.ask("HGET", key, field)
    flipped = value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :]
    await store._server.ask("HSET", key, field, flipped)


@pytest.mark.parametrize("field", [b"record", b"state"])
async def test_a_flipped_bit_anywhere_in_a_document_is_noticed(redis_url: str, field: bytes) -> None:
    async with RedisDocumentStore(redis_url) as store:
        await make(store, updates=updates(5))
        key = store._layout.place(b"notes").document
        size = len(await store._server.ask("HGET", key, field))
        reads: list[Callable[[], Awaitable[object]]] = [
            lambda: store.find("notes"),
            lambda: store.load("notes"),
            lambda: store.heads(["notes"]),
            lambda: store.append("notes", "first", updates(1)),
            lambda: store.delete("notes", "first", NOON),
        ]

        for place in range(size):
            await damage(store, key, field, place)
            for read in reads:
                with pytest.raises(Serialization):
                    await read()
            await damage(store, key, field, place)

        assert await log_of(store) == updates(5)


async def test_a_key_of_another_type_under_the_name_of_a_document_is_a_damaged_one(redis_url: str) -> None:
    async with RedisDocumentStore(redis_url) as store:
        await make(store, "foreign")
        await make(store, "sound")
        await store._server.ask("SET", store._layout.place(b"foreign").document, b"something")

        with pytest.raises(Serialization):
            await store.find("foreign")
        with pytest.raises(Serialization):
            await store.append("foreign", "first", updates(1))
        assert [record.name for record in (await store.list("", Page())).documents] == ["sound"]


async def test_a_damaged_piece_of_a_snapshot_is_noticed(redis_url: str) -> None:
    async with RedisDocumentStore(redis_url) as store:
        await make(store, updates=updates(2))
        await store.compact("notes", "first", snapshot=b"snapshot", upto=2, authorship=b"a")
        (content,) = [key for key in await all_keys(store) if b"content:" in key]

        await damage(store, content, b"s0", 3)

        with pytest.raises(Serialization):
            await store.load("notes")
        await store._server.ask("HDEL", content, b"s0")
        with pytest.raises(Serialization):
            await store.load("notes")
        assert (await found(store)).sequence == 2


async def test_the_bytes_of_a_row_that_cannot_be_read_are_put_aside_before_a_compaction(redis_url: str) -> None:
    async with RedisDocumentStore(redis_url) as store:
        await make(store, updates=updates(2))
        place = store._layout.place(b"notes")
        id = b"i" * 12
        await store._server.ask("DEL", place.log)
        await store._server.ask("XADD", place.log, "1-0", "i", id, "n", 2, "b", 16, "r", b"no row")
        await store.append("notes", "first", updates(1, 3))

        document = await store.load("notes")
        await store.compact("notes", "first", snapshot=b"s", upto=3, authorship=b"a")

        assert document is not None
        assert document.lost == 2
        aside = await store._server.ask("HGETALL", place.partition.aside)
        assert [*aside.values()] == [b"no row"]
