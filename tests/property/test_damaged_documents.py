"""Whatever is damaged in the file of documents: nothing but that document suffers, and it can be put aside."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from structlog.testing import capture_logs

from roomkey.backends.document_records import NO_CHANGE
from roomkey.backends.lmdb import FileSystemSettings
from roomkey.backends.lmdb.documents import FileSystemDocumentStore
from roomkey.backends.lmdb.documents.layout import DOCUMENT, DocumentTables
from roomkey.errors import RoomkeyError, Serialization
from roomkey.ports import CHECKSUMMED_RECORDS, PLAIN_RECORDS, Append, Page, RecordCodec, StoredDocument
from roomkey.testing.documents.suite import NOON, make, updates, version
from tests.support.damaged_rows import Damage, damages, inflict
from tests.support.effort import examples

SETTINGS = FileSystemSettings(durable=False, map_size=4 * 1024 * 1024)
CODECS = {"checksums": CHECKSUMMED_RECORDS, "plain": PLAIN_RECORDS}
FAILURES = {"storage_change_failed", "storage_writer_failed", "storage_write_failed"}
LONG = "x" * 700
NAMES = ("empty", "log", "compacted", "versions", LONG)
TABLES = [name for name in DocumentTables._fields if name != "aside"]


class House(NamedTuple):
    """A directory with documents of all kinds, and what is in them."""

    path: Path
    codec: RecordCodec
    documents: dict[str, StoredDocument]


@pytest.fixture(scope="module", params=CODECS)
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> House:
    codec = CODECS[request.param]
    path = tmp_path_factory.mktemp("house") / "documents"
    return House(path, codec, asyncio.run(furnish(path, codec)))


async def furnish(path: Path, codec: RecordCodec) -> dict[str, StoredDocument]:
    async with FileSystemDocumentStore(path, SETTINGS, codec=codec) as store:
        for name in NAMES:
            await make(store, name)
        for name in NAMES[1:]:
            for first in (1, 3, 5, 7):
                await store.append(name, "first", updates(2, first))
        await store.compact("compacted", "first", snapshot=b"snapshot", upto=5, authorship=b"authorship")
        for number in range(3):
            await store.keep_version("versions", "first", version(b"content", number))
        await make(store, "gone", updates(1))
        await store.delete("gone", "first", NOON)
        found = {name: await store.load(name) for name in NAMES}
        return {name: document for name, document in found.items() if document is not None}


@contextmanager
def a_copy(house: House, damage: Damage) -> Generator[tuple[Path, set[str]]]:
    """The directory with the damage, and the documents that have nothing to do with it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "documents"
        shutil.copytree(house.path, path)
        numbers = {name: DOCUMENT.pack(number) for number, name in enumerate(NAMES, 1)}
        touched = inflict(path, DocumentTables._fields, damage)
        others = {
            name
            for name, number in numbers.items()
            if not any(number in key or name[:100].encode() in key for key in touched)
        }
        yield path, others


def opened(house: House, path: Path) -> FileSystemDocumentStore:
    return FileSystemDocumentStore(path, SETTINGS, codec=house.codec)


def everything_there_is(store: FileSystemDocumentStore) -> list[Callable[[], Awaitable[object]]]:
    """Every command that there is, on every document."""
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: store.list("", Page()),
        lambda: store.compactable(updates=0, size=0, limit=100),
        store.changes,
        store.ping,
    ]
    for name in NAMES:
        calls += [
            lambda name=name: store.find(name),
            lambda name=name: store.load(name),
            lambda name=name: store.heads([name]),
            lambda name=name: store.updates(name, "first", 0),
            lambda name=name: store.updates(name, "first", 6),
            lambda name=name: store.versions(name, Page()),
            lambda name=name: store.version(name, 2),
            lambda name=name: store.create(name, "first", NOON),
            lambda name=name: store.append(name, "first", updates(2, 9)),
            lambda name=name: store.append_each([Append(name, "first", updates(1, 11))]),
            lambda name=name: store.keep_version(name, "first", version()),
            lambda name=name: store.forget_versions(name, "first", [1]),
            lambda name=name: store.compact(name, "first", snapshot=b"s", upto=6, authorship=b"a", fence=1),
            lambda name=name: store.compact(name, "first", snapshot=b"s", upto=9, authorship=b"a"),
            lambda name=name: store.load(name),
        ]
    calls += [lambda name=name: store.create(f"new {name[:5]}", "first", NOON) for name in NAMES]
    calls += [lambda name=name: store.delete(name, "first", NOON) for name in NAMES]
    return [*calls, store.damaged]


@settings(max_examples=examples(150))
@given(damage=damages(TABLES))
def test_every_command_goes_on(house: House, damage: Damage) -> None:
    async def main() -> None:
        with a_copy(house, damage) as (path, others):
            async with opened(house, path) as store:
                listed = [record.name for record in (await store.list("", Page())).documents]
                assert others <= set(listed)
                assert {name: await store.load(name) for name in others} == {
                    name: house.documents[name] for name in others
                }
                for call in everything_there_is(store):
                    try:
                        await call()
                    except RoomkeyError as error:
                        assert error.__cause__ is None, error  # noqa: PT017

    with capture_logs() as logs:
        asyncio.run(main())

    assert [line for line in logs if line["event"] in FAILURES] == []
    named = [(line["kind"], line["key"]) for line in logs if line["event"] == "storage_record_damaged"]
    assert len(named) == len(set(named))


@settings(max_examples=examples(150))
@given(damage=damages(TABLES))
def test_no_document_gets_content_that_is_not_its_own(house: House, damage: Damage) -> None:
    if house.codec is PLAIN_RECORDS:
        return  # without checksums text is as good as any other text

    async def main() -> None:
        with a_copy(house, damage) as (path, _):
            async with opened(house, path) as store:
                for name, expected in house.documents.items():
                    try:
                        found = await store.load(name)
                    except Serialization:
                        continue
                    if found is None:
                        assert damage.table == "names"
                        continue
                    assert found.snapshot == expected.snapshot
                    assert found.record.sequence == expected.record.sequence
                    got = [each.data for each in found.updates]
                    wanted = [each.data for each in expected.updates]
                    assert all(mine in (NO_CHANGE, own) for mine, own in zip(got, wanted, strict=True))
                    assert got.count(NO_CHANGE) == found.lost

    with capture_logs():
        asyncio.run(main())


@settings(max_examples=examples(100))
@given(damage=damages([name for name in TABLES if name != "pieces"]))
def test_what_is_named_can_be_set_aside(house: House, damage: Damage) -> None:
    async def main() -> None:
        with a_copy(house, damage) as (path, others):
            async with opened(house, path) as store:
                damaged = await store.damaged()
                if any(each.is_newer for each in damaged):
                    return  # without checksums a flipped version is taken for a newer one, which stays
                done = await store.set_aside(damaged)

                assert (done > 0) == bool(damaged)
                left = await store.damaged()
                assert len(left) < max(len(damaged), 1)
                assert await store.set_aside(left) == len(left)
                assert await store.damaged() == []
                assert {name: await store.load(name) for name in others} == {
                    name: house.documents[name] for name in others
                }

    with capture_logs():
        asyncio.run(main())
