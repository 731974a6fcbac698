"""What is damaged in Redis is named, can be put aside, and leaves the rest sound."""

# They damage what is stored, and for that speak to parts of the store.
# pyright: reportPrivateUsage=false

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from roomkey.backends.document_records import NO_CHANGE
from roomkey.backends.redis import RedisSessionStorage
from roomkey.backends.redis.documents import RedisDocumentStore
from roomkey.backends.redis.documents.layout import Place
from roomkey.backends.redis.layout import Partition, id_key
from roomkey.domain.session import Activated, Invalidated, Session, SessionFilter, partition_of
from roomkey.ports import RecordKind
from roomkey.testing.documents.suite import NOON as MIDDAY
from roomkey.testing.documents.suite import loaded, make, updates, version, versions_of
from roomkey.testing.storage.suite import NOON, SECOND, change, disagreements, everything, store, whole_log

# --- sessions -----------------------------------------------------------------------------------------


class Patient:
    """A storage with sessions in it, one of which something happens to."""

    def __init__(self, storage: RedisSessionStorage, session: Session) -> None:
        self.storage = storage
        self.session = session
        self.partition: Partition = storage._partitions[partition_of(session.user_id)]
        key = id_key(session.id)
        assert key is not None
        self.key = key
        self.shelf = self.partition.shelves[key[0] >> 4]

    async def ask(self, command: str, key: bytes, *arguments: bytes | int | str) -> object:
        return await self.storage._server.ask(command, key, *arguments)


async def cut_record(patient: Patient) -> None:
    value = await patient.ask("HGET", patient.shelf, patient.key)
    assert isinstance(value, bytes)
    await patient.ask("HSET", patient.shelf, patient.key, value[:-1])


async def cut_header(patient: Patient) -> None:
    await patient.ask("HSET", patient.shelf, patient.key, b"\x00\x01")


async def lose_record(patient: Patient) -> None:
    await patient.ask("HDEL", patient.shelf, patient.key)


async def lose_deadline(patient: Patient) -> None:
    await patient.ask("ZREM", patient.partition.deadlines, patient.key)


async def lose_place_in_list(patient: Patient) -> None:
    await patient.ask("DEL", patient.partition.all[1])


async def list_twice(patient: Patient) -> None:
    await patient.ask("ZADD", patient.partition.ended, 1, patient.key)


async def list_nobody(patient: Patient) -> None:
    await patient.ask("ZADD", patient.partition.all[2], 0, b"\x04nobody")


async def misplace_record(patient: Patient) -> None:
    await patient.ask("HSET", patient.shelf, b"short", b"value")


async def spoil_epoch(patient: Patient) -> None:
    await patient.ask("HSET", patient.partition.epochs, b"\x03zoea", b"many")


async def spoil_figure(patient: Patient) -> None:
    await patient.ask("HSET", patient.partition.figures, "s0", b"x")


async def spoil_head(patient: Patient) -> None:
    await patient.ask("HSET", patient.partition.figures, "head", b"x")


DAMAGES: dict[str, tuple[Callable[[Patient], Awaitable[None]], int, bool]] = {
    "a record": (cut_record, 1, False),
    "a header": (cut_header, 1, False),
    "a record that is gone": (lose_record, 2, False),
    "a deadline that is gone": (lose_deadline, 1, True),
    "a place in a list that is gone": (lose_place_in_list, 1, True),
    "an entry of the wrong index": (list_twice, 1, True),
    "an entry of nobody": (list_nobody, 1, True),
    "a record at a wrong place": (misplace_record, 1, True),
    "an epoch": (spoil_epoch, 1, True),
    "a figure": (spoil_figure, 1, True),
    "the head": (spoil_head, 1, True),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_what_is_named_can_be_set_aside_and_the_rest_is_sound(damage: str, redis_url: str) -> None:
    inflict, number, survives = DAMAGES[damage]
    async with RedisSessionStorage(redis_url) as storage:
        others = [await store(storage, user, active=True) for user in ("alice", "bob", "carol")]
        ended = await change(storage, await store(storage, "zoea", active=True), Invalidated, NOON + SECOND)
        patient = Patient(storage, await store(storage, "zoea", active=True))
        log = await whole_log(storage)
        await inflict(patient)

        named = await storage.damaged()
        done = await storage.set_aside(named)

        assert (len(named), done) == (number, number)
        assert all("zoea" not in record.reason for record in named)
        assert await storage.damaged() == []
        assert storage.degradations() == {}
        assert await patient.ask("HLEN", patient.partition.aside) in range(number + 1)
        assert [await storage.get(each.id) for each in others] == others
        assert (await storage.get(patient.session.id) is not None) is survives
        assert await storage.count(SessionFilter()) == len(await everything(storage)) == 4 + survives
        assert await whole_log(storage) == log
        assert await storage.get(ended.id) is not None
        assert len(await storage.overdue(NOON + timedelta(days=300), 100)) == 3 + (survives and damage != "an epoch")
        # Only the log knows of a session that is lost.
        assert len(await disagreements(storage)) == (not survives)


async def test_what_is_sound_stays_though_somebody_names_it(redis_url: str) -> None:
    async with RedisSessionStorage(redis_url) as storage:
        patient = Patient(storage, await store(storage, "zoea"))
        value = await patient.ask("HGET", patient.shelf, patient.key)
        assert isinstance(value, bytes)
        await cut_record(patient)
        named = await storage.damaged()
        await patient.ask("HSET", patient.shelf, patient.key, value)

        assert await storage.set_aside(named) == 0
        assert await storage.get(patient.session.id) == patient.session


async def test_nobody_who_was_revoked_comes_back_with_an_epoch_that_is_lost(redis_url: str) -> None:
    async with RedisSessionStorage(redis_url) as storage:
        patient = Patient(storage, await store(storage, "zoea", active=True))
        await spoil_epoch(patient)

        await storage.set_aside(await storage.damaged())

        found = await storage.get(patient.session.id)
        assert found is not None
        assert not found.state.is_live


async def test_an_event_is_set_aside_and_what_lies_behind_it_can_be_read(redis_url: str) -> None:
    async with RedisSessionStorage(redis_url) as storage:
        session = await store(storage, "zoea")
        await change(storage, session, Activated, NOON + SECOND)
        patient = Patient(storage, session)
        entries: Any = await patient.ask("XRANGE", patient.partition.log, "-", "+")
        await patient.ask("DEL", patient.partition.log)
        for number, fields in ((b"1-0", [b"t", b"0", b"k", b"key", b"e", b"torn"]), entries[1]):
            await patient.ask("XADD", patient.partition.log, number, *fields)

        (named,) = await storage.damaged()
        done = await storage.set_aside([named])

        assert (named.kind, done) == ("event", 1)
        assert [each.sequence for each in await storage.events(patient.partition.number)] == [2]
        assert await storage.damaged() == []


# --- documents ----------------------------------------------------------------------------------------


class Shelf:
    """Documents, one of which something happens to."""

    def __init__(self, store: RedisDocumentStore) -> None:
        self.store = store
        self.place: Place = store._layout.place(b"plan")

    async def ask(self, command: str, key: bytes, *arguments: bytes | int | str) -> Any:
        return await self.store._server.ask(command, key, *arguments)

    async def furnish(self) -> None:
        for name in ("plan", "notes"):
            await make(self.store, name, updates(2))
            await self.store.append(name, "first", updates(2, 3))
            await self.store.append(name, "first", updates(2, 5))
            for number in range(3):
                await self.store.keep_version(name, "first", version(b"content %d" % number))


async def spoil_document(shelf: Shelf) -> None:
    await shelf.ask("HSET", shelf.place.document, "state", b"x")


async def lose_document(shelf: Shelf) -> None:
    await shelf.ask("DEL", shelf.place.document)


async def spoil_version(shelf: Shelf) -> None:
    entries = await shelf.ask("XRANGE", shelf.place.versions, "-", "+")
    await shelf.ask("HSET", shelf.place.content(entries[1][1][1]), "v0", b"x")


async def spoil_row(shelf: Shelf) -> None:
    entries = await shelf.ask("XRANGE", shelf.place.log, "-", "+")
    await shelf.ask("DEL", shelf.place.log)
    entries[1][1][-1] = entries[1][1][-1][:-3]
    for name, fields in entries:
        await shelf.ask("XADD", shelf.place.log, name, *fields)


async def spoil_snapshot(shelf: Shelf) -> None:
    await shelf.store.compact("plan", "first", snapshot=b"snapshot", upto=2, authorship=b"authors")
    found = await shelf.store._reader.find(shelf.place)
    assert found is not None
    await shelf.ask("HSET", shelf.place.content(found.content), "s0", b"x")


@pytest.mark.parametrize(
    ("inflict", "kinds", "aside"),
    [
        (spoil_document, [RecordKind.DOCUMENT], 1),
        (lose_document, [RecordKind.FIGURES] * 3, 3),
        (spoil_version, [RecordKind.VERSION], 1),
        (spoil_row, [RecordKind.UPDATES], 1),
    ],
)
async def test_of_documents_too(
    inflict: Callable[[Shelf], Awaitable[None]], kinds: list[RecordKind], aside: int, redis_url: str
) -> None:
    async with RedisDocumentStore(redis_url) as store:
        shelf = Shelf(store)
        await shelf.furnish()
        before = await loaded(store, "notes")
        await inflict(shelf)

        named = await store.damaged()
        done = await store.set_aside(named)

        assert [record.kind for record in named] == kinds
        assert done == len(kinds)
        assert await store.damaged() == []
        assert store.degradations() == {}
        assert await shelf.ask("HLEN", shelf.place.partition.aside) == aside
        assert await loaded(store, "notes") == before


async def test_updates_that_are_lost_leave_their_numbers(redis_url: str) -> None:
    async with RedisDocumentStore(redis_url) as store:
        shelf = Shelf(store)
        await shelf.furnish()
        await spoil_row(shelf)

        await store.set_aside(await store.damaged())

        found = await store.load("plan")
        assert found is not None
        whole = [each.data for each in updates(6)]
        assert [each.data for each in found.updates] == [*whole[:2], NO_CHANGE, NO_CHANGE, *whole[4:]]
        assert found.lost == 0
        assert await store.append("plan", "first", updates(1, 7)) == 7
        assert await store.compact("plan", "first", snapshot=b"s", upto=3, authorship=b"a")


async def test_a_version_that_is_lost_leaves_the_others(redis_url: str) -> None:
    async with RedisDocumentStore(redis_url) as store:
        shelf = Shelf(store)
        await shelf.furnish()
        await spoil_version(shelf)

        await store.set_aside(await store.damaged())

        assert [each.number for each in await versions_of(store, "plan")] == [3, 1]
        assert (await store.keep_version("plan", "first", version())).number == 4


async def test_another_document_of_its_name_has_nothing_of_one_that_was_set_aside(redis_url: str) -> None:
    async with RedisDocumentStore(redis_url) as store:
        shelf = Shelf(store)
        await shelf.furnish()
        await spoil_document(shelf)

        await store.set_aside(await store.damaged())
        await store.create("plan", "second", MIDDAY)
        await store.append("plan", "second", updates(1))

        found = await loaded(store, "plan")
        assert (found.record.sequence, list(found.updates)) == (1, updates(1))
        assert await versions_of(store, "plan") == []


async def test_a_snapshot_is_named_and_stays(redis_url: str) -> None:
    async with RedisDocumentStore(redis_url) as store:
        shelf = Shelf(store)
        await shelf.furnish()
        await spoil_snapshot(shelf)

        named = await store.damaged()

        assert [record.kind for record in named] == [RecordKind.CONTENT]
        assert await store.set_aside(named) == 0
        assert await store.damaged() == named
