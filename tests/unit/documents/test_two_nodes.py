"""Two nodes on one storage: what one does with documents the other one sees, and neither acts on what is outdated."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest
from pycrdt import Doc, Map

from roomkey.documents.content import roots
from roomkey.documents.following import Follower
from roomkey.documents.service import Condition, DocumentRevision, DocumentService, Written
from roomkey.errors import Conflict, DocumentNotFound, Storage, VersionMismatch
from roomkey.ports import DocumentHead, DocumentRecord, DocumentTail, Page
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.wire.lib0 import read_state
from tests.support.loops import in_no_time
from tests.support.open_documents import ALICE, FaultyStore, House, Writer, outside, stored, text_of


class DistantStore(FaultyStore):
    """One of several processes, where everything takes a turn or two; ``looks`` are the documents looked at."""

    def __init__(self) -> None:
        super().__init__(shared=True)
        self.looks: list[str] = []
        self.unreadable: set[str] = set()

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        await super()._answer()

    async def heads(self, names: Sequence[str]) -> Sequence[DocumentHead | None]:
        self.looks += names
        await self._answer()
        return await super().heads(names)

    async def updates(self, name: str, lineage: str, after: int, limit: int = 1000) -> DocumentTail:
        await self._answer()
        if name in self.unreadable:
            raise Storage("it cannot be read")
        return await super().updates(name, lineage, after, limit)


class Node:
    """A node, and its commands on the document ``d``."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.service = DocumentService(house.open_documents)

    async def write(self, content: str, *, condition: Condition | None = None) -> Written:
        return await self.service.edit(
            "d", lambda doc: roots.replace(doc, {"content": content}), ALICE, condition=condition
        )

    async def read(self) -> str:
        reading = await self.service.read("d")
        doc: Doc[Any] = Doc()
        doc.apply_update(reading.update)
        return text_of(doc)

    async def version(self) -> int:
        return (await self.service.read("d")).revision.version


@asynccontextmanager
async def two_nodes() -> AsyncGenerator[tuple[Node, Node, DistantStore]]:
    store = DistantStore()
    async with House(store) as one, House(store) as other:
        yield Node(one), Node(other), store


def only(version: int) -> Condition:
    """As ``If-Match`` of a request."""

    def check(current: DocumentRevision | None) -> None:
        if current is None or current.version != version:
            raise VersionMismatch("it has changed")

    return check


def only_new(current: DocumentRevision | None) -> None:
    """As ``If-None-Match: *`` of a request."""
    if current is not None:
        raise VersionMismatch("there is one")


# --- what the other one has done ------------------------------------------------------------------------


@in_no_time
async def test_what_one_writes_the_other_reads_though_it_has_the_document_open() -> None:
    async with two_nodes() as (one, other, _):
        await one.write("first")
        assert await other.read() == "first"

        await one.write("second")

        assert (await other.read(), await other.version()) == ("second", await one.version())


@in_no_time
async def test_a_write_says_what_it_says_though_the_copy_was_outdated() -> None:
    async with two_nodes() as (one, other, _):
        await one.write("one")
        await other.read()
        await one.write("two")

        await other.write("three")

        assert (await one.read(), await other.read()) == ("three", "three")


@in_no_time
async def test_who_reads_with_nothing_open_and_finds_nothing_sees_what_is_made_later() -> None:
    async with two_nodes() as (one, other, _):
        with pytest.raises(DocumentNotFound):
            await other.read()

        await one.write("made")

        assert await other.read() == "made"


@in_no_time
async def test_a_document_that_one_has_deleted_is_gone_for_the_other_and_a_new_one_is_new() -> None:
    async with two_nodes() as (one, other, _):
        await one.write("old")
        lineage = (await other.service.read("d")).revision.lineage

        await one.service.delete("d")
        with pytest.raises(DocumentNotFound):
            await other.read()
        await one.write("new")

        assert await other.read() == "new"
        assert (await other.service.read("d")).revision.lineage != lineage


@in_no_time
async def test_a_document_that_one_has_made_anew_is_the_new_one_for_the_other() -> None:
    async with two_nodes() as (one, other, _):
        await one.write("old")
        await other.read()

        await one.service.delete("d")
        await one.write("new")

        assert await other.read() == "new"


@in_no_time
async def test_versions_are_those_of_all_nodes() -> None:
    async with two_nodes() as (one, other, _):
        await one.write("one")
        await other.read()
        kept = await one.service.keep_version("d", "named", ALICE)
        await one.write("one more")

        seen = await other.service.versions("d", Page())
        await other.service.restore("d", kept.number, ALICE)

        assert [version.label for version in seen.versions] == ["named"]
        assert await one.read() == "one"


# --- both at once ---------------------------------------------------------------------------------------


@in_no_time
async def test_of_two_who_write_at_once_one_is_last_and_nothing_is_mixed() -> None:
    async with two_nodes() as (one, other, _):
        await one.write("something to begin with")

        for number in range(20):
            texts = f"the first {number}", f"and another {number}"
            await asyncio.gather(one.write(texts[0]), other.write(texts[1]))

            assert await one.read() == await other.read()
            assert await one.read() in texts


@in_no_time
async def test_a_write_is_never_seen_by_halves_while_both_write() -> None:
    async with two_nodes() as (one, other, _):
        texts = [f"{word} {number}" for number in range(10) for word in ("one", "another")]
        await one.write(texts[0])
        done = asyncio.Event()
        seen = Counter[str]()

        async def watch(node: Node) -> None:
            while not done.is_set():
                seen[await node.read()] += 1

        async with asyncio.TaskGroup() as group:
            group.create_task(watch(one))
            group.create_task(watch(other))
            for first, second in zip(texts[::2], texts[1::2], strict=True):
                await asyncio.gather(one.write(first), other.write(second))
            done.set()

        assert set(seen) <= set(texts)


@in_no_time
async def test_of_many_who_have_seen_the_same_version_one_may_change_it() -> None:
    async with two_nodes() as (one, other, _):
        await one.write("seen by all")
        for turn in range(10):
            seen = await other.version()

            outcomes = await asyncio.gather(
                *(
                    node.write(f"{turn} by {number}", condition=only(seen))
                    for number, node in enumerate([one, other] * 3)
                ),
                return_exceptions=True,
            )

            assert sum(isinstance(outcome, Written) for outcome in outcomes) == 1
            assert sum(isinstance(outcome, VersionMismatch) for outcome in outcomes) == 5


@in_no_time
async def test_of_many_who_make_the_same_document_one_does() -> None:
    async with two_nodes() as (one, other, _):
        outcomes = await asyncio.gather(
            *(node.write(f"by {number}", condition=only_new) for number, node in enumerate([one, other] * 3)),
            return_exceptions=True,
        )

        assert [outcome.created for outcome in outcomes if isinstance(outcome, Written)] == [True]
        assert sum(isinstance(outcome, VersionMismatch) for outcome in outcomes) == 5


class ForestalledStore(DistantStore):
    """Somebody else makes every document at the same moment, and is faster."""

    async def create(self, name: str, lineage: str, now: datetime) -> DocumentRecord:
        await super().create(name, f"theirs, not {lineage}", now)
        return await super().create(name, lineage, now)


@in_no_time
async def test_a_document_that_another_process_has_made_just_now_is_not_new_though_nothing_is_in_it() -> None:
    async with House(ForestalledStore()) as house:
        with pytest.raises(VersionMismatch):
            await Node(house).write("mine", condition=only_new)


def count_up(doc: Doc[Any]) -> None:
    numbers = doc.get("numbers", type=Map)
    numbers["count"] = numbers.get("count", 0) + 1


@in_no_time
async def test_changes_that_build_on_what_is_there_are_all_made_and_each_has_a_version_of_its_own() -> None:
    async with two_nodes() as (one, other, store):
        await one.write("")

        written = await asyncio.gather(
            *(node.service.edit("d", count_up, ALICE) for _ in range(20) for node in (one, other))
        )

        content = await store.content("d")
        assert content.doc.get("numbers", type=Map)["count"] == 40
        assert len({each.revision.version for each in written}) == 40


@in_no_time
async def test_the_answer_to_a_write_names_the_version_that_it_led_to_though_others_were_read_with_it() -> None:
    async with two_nodes() as (one, other, store):
        await one.write("one")
        store.slow = True
        writing = asyncio.create_task(one.write("two"))
        await one.house.settle()
        await other.house.settle()
        await outside(store, Writer().type("theirs"))
        await one.read()  # learns both

        store.late.set()
        written = await writing

        assert written.revision.version == 2
        with pytest.raises(VersionMismatch):
            await one.write("three", condition=only(written.revision.version))


@in_no_time
async def test_a_write_does_not_grow_the_document_by_a_yjs_client_each_time() -> None:
    async with two_nodes() as (one, other, store):
        for number in range(20):
            await asyncio.gather(one.write(f"one {number}"), other.write(f"another {number}"))

        assert len(read_state((await store.content("d")).state())) == 2


# --- sockets --------------------------------------------------------------------------------------------


@in_no_time
async def test_a_client_hears_what_is_written_on_another_node() -> None:
    async with two_nodes() as (one, other, store):
        await stored(store, "hello")
        document = await other.house.document()
        listener = other.house.attend(document)

        await one.write("good bye")
        await Follower(other.house.open_documents).look()
        await other.house.settle()

        assert [type(message) for message in listener.heard] == [yjs.Update]
        assert await other.read() == "good bye"


@in_no_time
async def test_while_nobody_writes_no_document_is_looked_at() -> None:
    async with two_nodes() as (one, other, store):
        await one.write("hello")
        other.house.attend(await other.house.document())
        follower = Follower(other.house.open_documents)
        await follower.look()
        store.looks.clear()

        for _ in range(10):
            await follower.look()
        idle = [*store.looks]
        await outside(store, Writer().type("theirs"))
        await follower.look()

        assert (idle, store.looks) == ([], ["d"])


@in_no_time
async def test_what_could_not_be_looked_at_is_looked_at_again() -> None:
    async with two_nodes() as (one, other, store):
        await one.write("hello")
        listener = other.house.attend(await other.house.document())
        follower = Follower(other.house.open_documents)
        await follower.look()
        await outside(store, Writer().type("theirs"))

        store.away = True
        await follower.look()
        store.away = False
        await follower.look()
        await other.house.settle()

        assert len(listener.heard) == 1


@in_no_time
async def test_a_document_that_could_not_be_read_does_not_keep_others_from_being_shown_and_is_read_again() -> None:
    async with two_nodes() as (_, other, store):
        for name in ("bad", "good"):
            await stored(store, "hello", name)
        listeners = {name: other.house.attend(await other.house.document(name)) for name in ("bad", "good")}
        for name in ("bad", "good"):
            await outside(store, Writer().type("theirs"), name)
        follower = Follower(other.house.open_documents)

        store.unreadable = {"bad"}
        await follower.look()
        await other.house.settle()
        heard = {name: len(listener.heard) for name, listener in listeners.items()}
        store.unreadable = set()
        await follower.look()
        await other.house.settle()

        assert heard == {"bad": 0, "good": 1}
        assert {name: len(listener.heard) for name, listener in listeners.items()} == {"bad": 1, "good": 1}


@in_no_time
async def test_a_reader_in_what_does_not_exist_yet_gets_what_another_node_makes() -> None:
    async with two_nodes() as (one, other, _):
        async with other.house.open(create=False) as document:
            listener = other.house.attend(document)

        await one.write("made")
        await Follower(other.house.open_documents).look()
        await other.house.settle()

        assert [type(message) for message in listener.heard] == [yjs.Update]
        assert await other.read() == "made"


@in_no_time
async def test_a_client_in_a_document_that_another_node_has_deleted_is_told() -> None:
    async with two_nodes() as (one, other, _):
        await one.write("hello")
        listener = other.house.attend(await other.house.document())

        await one.service.delete("d")
        await Follower(other.house.open_documents).look()

        assert listener.told == ["deleted"]


@in_no_time
async def test_what_storage_cannot_say_is_not_shown_as_current() -> None:
    async with two_nodes() as (one, _, store):
        await one.write("hello")
        store.away = True

        with pytest.raises(Storage):
            await one.read()


@in_no_time
async def test_a_write_that_storage_does_not_answer_is_not_made_behind_the_back_of_whoever_gave_up() -> None:
    async with two_nodes() as (one, _, store):
        await one.write("hello")
        store.fault = None
        house = one.house

        async def away(*_: Any, **__: Any) -> int:
            raise Storage("the store is away")

        append, store.append = store.append, away  # type: ignore[method-assign]
        with pytest.raises(Storage):
            await one.write("too late")
        store.append = append  # type: ignore[method-assign]
        await house.pass_time(60)

        assert await one.read() == "hello"


@in_no_time
async def test_who_is_overtaken_again_and_again_is_told_to_try_again() -> None:
    async with two_nodes() as (one, _, store):
        await one.write("hello")
        append, theirs = store.append, Writer()

        async def crowded(*arguments: Any, **conditions: Any) -> int:
            await outside(store, theirs.type("x"))
            return await append(*arguments, **conditions)

        store.append = crowded  # type: ignore[method-assign]

        with pytest.raises(Conflict):
            await one.write("never")
