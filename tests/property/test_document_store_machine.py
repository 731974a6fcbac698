"""Any sequence of calls leads where a simple model leads, in every store of documents."""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import Struct, field

from roomkey.backends.lmdb import FileSystemSettings
from roomkey.backends.lmdb.documents import FileSystemDocumentStore
from roomkey.backends.memory.documents import MemoryDocumentStore
from roomkey.errors import Conflict, NotFound
from roomkey.ports import DocumentStore, DocumentTail, DocumentUpdate, DocumentVersion
from roomkey.testing.documents.suite import (
    ALICE,
    KEY,
    NOON,
    compactable,
    loaded,
    names_in,
    size_of,
    update,
    version,
    versions_of,
    was_deleted,
)
from tests.support.document_file import document_faults
from tests.support.effort import examples

LONG = "x" * 500
T = TypeVar("T")

names = st.sampled_from(["a", "a/b", "ab", LONG, LONG + "a", LONG + "b", LONG * 2, LONG * 2 + "a", LONG * 2 + "b"])
lineages = st.sampled_from(["first", "second", "third"])
data = st.binary(max_size=8) | st.sampled_from([b"large" * 2000])
changes = st.lists(st.builds(update, data, st.integers(0, 100), st.sampled_from([ALICE, KEY])), max_size=20)


class Model(Struct):
    """What a document must be."""

    lineage: str
    updated_at: Any
    log: list[DocumentUpdate] = field(default_factory=list[DocumentUpdate])
    upto: int = 0
    snapshot: bytes | None = None
    versions: dict[int, tuple[DocumentVersion, bytes]] = field(default_factory=dict[int, tuple[DocumentVersion, bytes]])
    last_version: int = 0


class DocumentStoreMachine(RuleBasedStateMachine):
    """Every call is made to the store and to the model, and both must say the same."""

    def open(self) -> DocumentStore:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.store: DocumentStore
        self.model: dict[str, Model] = {}
        self.graves: set[tuple[str, str]] = set()

    def run(self, call: Awaitable[T]) -> T:
        async def limited() -> T:
            async with asyncio.timeout(10):
                return await call

        return self.runner.run(limited())

    def outcome(self, call: Awaitable[T]) -> T | type[Exception]:
        try:
            return self.run(call)
        except Conflict:
            return Conflict
        except NotFound:
            return NotFound

    def refusal(self, name: str, lineage: str) -> type[NotFound | Conflict] | None:
        """How a write of this lineage has to end, if not well."""
        document = self.model.get(name)
        if document is None:
            return NotFound
        return None if document.lineage == lineage else Conflict

    @initialize()
    def enter(self) -> None:
        self.store = self.open()
        self.run(self.store.__aenter__())

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.check_everything()
            self.run(self.store.__aexit__(None, None, None))
        self.runner.close()

    # --- what can be done -----------------------------------------------------------------------------

    @rule(name=names, lineage=lineages)
    def create(self, name: str, lineage: str) -> None:
        record = self.outcome(self.store.create(name, lineage, NOON))

        if (name, lineage) in self.graves:
            assert record is Conflict
            return
        document = self.model.setdefault(name, Model(lineage, NOON))
        assert not isinstance(record, type)
        assert (record.name, record.lineage) == (name, document.lineage)

    @rule(name=names, lineage=lineages, updates=changes)
    def append(self, name: str, lineage: str, updates: list[DocumentUpdate]) -> None:
        outcome = self.outcome(self.store.append(name, lineage, updates))

        refusal = self.refusal(name, lineage)
        if refusal is not None:
            assert outcome is refusal
            return
        document = self.model[name]
        document.log += updates
        document.updated_at = max([document.updated_at, *(update.at for update in updates)])
        assert outcome == document.upto + len(document.log)

    @rule(name=names, updates=changes)
    def append_to_what_is_there(self, name: str, updates: list[DocumentUpdate]) -> None:
        if name in self.model:
            self.append(name, self.model[name].lineage, updates)

    @rule(name=names, lineage=st.none() | lineages, after=st.integers(0, 60), limit=st.integers(1, 25))
    def catch_up(self, name: str, lineage: str | None, after: int, limit: int) -> None:
        lineage = lineage or (self.model[name].lineage if name in self.model else "first")

        tail = self.outcome(self.store.updates(name, lineage, after, limit))

        refusal = self.refusal(name, lineage)
        if refusal is not None:
            assert tail is refusal
            return
        document = self.model[name]
        behind = document.log[after - document.upto :][:limit] if after >= document.upto else None
        assert isinstance(tail, DocumentTail)
        assert tail == DocumentTail(document.upto + len(document.log), behind)

    @rule(name=names, lineage=st.none() | lineages, upto=st.integers(-1, 40), snapshot=data)
    def compact(self, name: str, lineage: str | None, upto: int, snapshot: bytes) -> None:
        document = self.model.get(name) or Model("none", NOON)
        lineage = lineage or document.lineage

        done = self.run(self.store.compact(name, lineage, snapshot=snapshot, upto=upto, authorship=snapshot[::-1]))

        assert done == (document.lineage == lineage and document.upto < upto <= document.upto + len(document.log))
        if done:
            document.log = document.log[upto - document.upto :]
            document.upto, document.snapshot = upto, snapshot

    @rule(name=names, lineage=st.none() | lineages)
    def delete(self, name: str, lineage: str | None) -> None:
        lineage = lineage or (self.model[name].lineage if name in self.model else "first")

        outcome = self.outcome(self.store.delete(name, lineage, NOON))

        refusal = self.refusal(name, lineage)
        if refusal is None:
            assert outcome is True
            del self.model[name]
            self.graves.add((name, lineage))
        else:
            assert outcome is (False if refusal is NotFound else Conflict)

    @rule(name=names, content=data)
    def keep_version(self, name: str, content: bytes) -> None:
        lineage = self.model[name].lineage if name in self.model else "first"
        new = version(content)

        kept = self.outcome(self.store.keep_version(name, lineage, new))

        document = self.model.get(name)
        if document is None:
            assert kept is NotFound
            return
        document.last_version += 1
        assert isinstance(kept, DocumentVersion)
        assert (kept.number, kept.size, kept.author) == (document.last_version, len(content), new.author)
        document.versions[kept.number] = kept, content

    @rule(name=names, numbers=st.lists(st.integers(0, 6), max_size=4))
    def forget_versions(self, name: str, numbers: list[int]) -> None:
        document = self.model.get(name)

        forgotten = self.run(self.store.forget_versions(name, document.lineage if document else "first", numbers))

        known = set(document.versions) & set(numbers) if document else set[int]()
        assert forgotten == len(known)
        for number in known:
            assert document is not None
            del document.versions[number]

    @rule(prefix=names | st.just("") | st.just("x" * 600), limit=st.integers(1, 4))
    def list_some(self, prefix: str, limit: int) -> None:
        expected = sorted(name for name in self.model if name.startswith(prefix))

        assert self.run(names_in(self.store, prefix, limit=limit)) == expected

    @rule(updates=st.integers(0, 30), size=st.integers(0, 100))
    def look_for_long_logs(self, updates: int, size: int) -> None:
        expected = sorted(
            name for name, document in self.model.items() if len(document.log) > updates or size_of(document.log) > size
        )

        assert self.run(compactable(self.store, updates, size)) == expected

    # --- what must hold -------------------------------------------------------------------------------

    @invariant()
    def every_document_is_as_the_model_says(self) -> None:
        for name, document in self.model.items():
            found = self.run(loaded(self.store, name))
            record = found.record
            assert (record.lineage, record.updated_at) == (document.lineage, document.updated_at)
            assert (found.snapshot, found.upto) == (document.snapshot, document.upto)
            assert found.authorship == (None if document.snapshot is None else document.snapshot[::-1])
            assert [*found.updates] == document.log

    def check_everything(self) -> None:
        assert self.run(names_in(self.store)) == sorted(self.model)
        for name, lineage in self.graves:
            assert self.run(was_deleted(self.store, name, lineage))
        for name, document in self.model.items():
            assert not self.run(was_deleted(self.store, name, document.lineage))
            kept = self.run(versions_of(self.store, name))
            assert kept == [version for version, _ in reversed(document.versions.values())]
            for number, (known, content) in document.versions.items():
                assert self.run(self.store.version(name, number)) == (known, content)


class MemoryMachine(DocumentStoreMachine):
    def open(self) -> DocumentStore:
        return MemoryDocumentStore()


class FileSystemMachine(DocumentStoreMachine):
    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="roomkey-machine-"))

    def open(self) -> DocumentStore:
        return FileSystemDocumentStore(self.path, FileSystemSettings(map_size=64 * 1024, durable=False))

    @rule()
    def open_again(self) -> None:
        self.run(self.store.__aexit__(None, None, None))
        assert document_faults(self.path) == []
        self.enter()

    def teardown(self) -> None:
        super().teardown()
        assert document_faults(self.path) == []
        shutil.rmtree(self.path)


MemoryMachine.TestCase.settings = settings(max_examples=examples(60), stateful_step_count=40)
FileSystemMachine.TestCase.settings = settings(max_examples=examples(40), stateful_step_count=40)

TestMemoryMachine = MemoryMachine.TestCase
TestFileSystemMachine = FileSystemMachine.TestCase
