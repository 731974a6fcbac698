"""One open document: what goes through it, what is refused, and what it leaves behind when something is wrong."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from pycrdt import Doc, Text, merge_updates

from roomkey.documents.crdt.awareness import Owner
from roomkey.documents.crdt.identity import Source
from roomkey.documents.crdt.replica import PoisonUpdate, Replica, ReplicaLost
from roomkey.documents.document import Document
from roomkey.errors import DocumentTooLarge, InvalidInput, WritesRefused
from roomkey.ports import DocumentUpdate
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.rooms.hub import HIGH_WATER_BYTES
from roomkey.wire import lib0
from tests.support.loops import in_no_time
from tests.support.open_documents import ALICE, BOB, Editor, House, Writer, proposed, text, text_of
from tests.support.sockets import NOON


def updates(messages: Sequence[yjs.Message]) -> list[bytes]:
    return [message.update for message in messages if isinstance(message, yjs.Update)]


def doc_of(*parts: bytes) -> Doc[Any]:
    doc: Doc[Any] = Doc()
    for part in parts:
        doc.apply_update(part)
    return doc


# --- changes --------------------------------------------------------------------------------------------


@in_no_time
async def test_a_change_is_applied_passed_on_as_it_came_and_stored() -> None:
    async with House() as house:
        document = await house.document()
        listener, change = house.attend(document), Writer().type("hello")

        document.take_update(change, ALICE, NOON)
        await house.settle()

        assert text(document) == "hello"
        assert listener.heard == [yjs.Update(change)]
        assert house.store.appended == [[change]]


@in_no_time
async def test_everyone_in_the_document_is_given_the_same_frame() -> None:
    async with House() as house:
        document = await house.document()
        listeners = [house.attend(document) for _ in range(3)]

        document.take_update(Writer().type("hello"), ALICE, NOON)
        await house.settle()

        frames = {id(listener.socket.frames[0]) for listener in listeners}
        assert len(frames) == 1


@in_no_time
async def test_a_change_is_settled_only_when_it_is_durable() -> None:
    async with House() as house:
        document = await house.document()
        house.store.gate.clear()
        settled: list[bool] = []

        document.take_update(Writer().type("hello"), ALICE, NOON, settled=settled.append)
        await house.settle()
        before = list(settled)
        house.store.gate.set()
        await house.settle()

        assert before == []
        assert settled == [True]


@in_no_time
async def test_of_an_answer_to_a_step_1_only_what_is_new_is_passed_on_and_stored() -> None:
    async with House() as house:
        document = await house.document()
        writer = Writer()
        document.take_update(writer.type("a" * 1_000), ALICE, NOON)
        await house.settle()
        writer.type("b")
        listener = house.attend(document)

        taken = document.take_missing(writer.doc.get_update(), ALICE, NOON)
        await house.settle()

        assert taken
        (news,) = updates(listener.heard)
        assert len(news) < 100
        assert house.store.appended[-1] == [news]
        assert await house.store.text("d") == "a" * 1_000 + "b"


@in_no_time
async def test_an_answer_with_nothing_new_is_not_taken() -> None:
    async with House() as house:
        document = await house.document()
        writer = Writer()
        document.take_update(writer.type("hello"), ALICE, NOON)
        document.take_update(writer.erase(2), ALICE, NOON)
        await house.settle()
        stored = len(house.store.appended)
        listener = house.attend(document)

        taken = [document.take_missing(each, BOB, NOON) for each in (lib0.EMPTY_UPDATE, writer.doc.get_update())]
        await house.settle()

        assert taken == [False, False]
        assert listener.heard == []
        assert len(house.store.appended) == stored


@in_no_time
async def test_a_deletion_alone_is_something_new() -> None:
    async with House() as house:
        document = await house.document()
        writer = Writer()
        document.take_update(writer.type("hello"), ALICE, NOON)
        writer.erase(2)

        taken = document.take_missing(writer.doc.get_update(), ALICE, NOON)
        await house.settle()

        assert taken
        assert await house.store.text("d") == "llo"


@in_no_time
async def test_what_builds_on_something_that_is_not_here_yet_is_kept_until_it_is() -> None:
    async with House() as house:
        document = await house.document()
        writer = Writer()
        first, second = writer.type("a"), writer.type("b")

        document.take_update(second, ALICE, NOON)
        document.take_update(first, ALICE, NOON)
        await house.settle()

        assert text(document) == "ab"
        assert await house.store.text("d") == "ab"


@in_no_time
async def test_an_answer_of_which_a_part_has_to_wait_is_stored_whole() -> None:
    async with House() as house:
        document = await house.document()
        alice, bob = Writer(), Writer()
        first, second = alice.type("a"), alice.type("b")
        bob.doc.apply_update(second)  # bob never saw the first
        bob.type("B")
        answer = merged(bob.doc.get_update(), second)

        document.take_missing(answer, BOB, NOON)
        document.take_update(first, ALICE, NOON)
        await house.settle()

        assert sorted(text(document)) == ["B", "a", "b"]
        assert sorted(await house.store.text("d")) == ["B", "a", "b"]


@in_no_time
async def test_a_deletion_of_what_is_not_here_yet_waits_for_it_too() -> None:
    # Two tabs of a browser tell each other first, and the server over sockets of their own.
    async with House() as house:
        alice = await house.editor()
        writer = Writer()
        first, deletion = writer.type("a"), writer.erase(1)
        alice.outgoing.append(yjs.update(deletion))
        await house.converse(alice)

        joined = await house.editor("bob")
        document = await house.document()
        whole = document.replica.since()
        alice.outgoing.append(yjs.update(first))
        await house.converse(alice, joined)

        assert (str(alice.text), str(joined.text), text(document)) == ("", "", "")
        assert text_of(doc_of(whole, first)) == ""


@in_no_time
async def test_who_joins_while_something_has_to_wait_has_it_when_the_others_have() -> None:
    async with House() as house:
        alice = await house.editor()
        writer = Writer()
        first, second = writer.type("a"), writer.type("b")
        alice.outgoing.append(yjs.update(second))
        await house.converse(alice)

        joined = await house.editor("bob")
        alice.outgoing.append(yjs.update(first))
        await house.converse(alice, joined)

        assert (str(alice.text), str(joined.text)) == ("ab", "ab")


def merged(*parts: bytes) -> bytes:
    """One update of several, with gaps where something is missing between them."""
    return merge_updates(*parts)


@in_no_time
async def test_what_has_to_wait_is_in_what_is_compacted() -> None:
    async with House() as house:
        document = await house.document()
        writer = Writer()
        first, second = writer.type("a"), writer.type("b")
        document.take_update(second, ALICE, NOON)

        whole = document.replica.since()

        assert text_of(doc_of(whole, first)) == "ab"


@in_no_time
async def test_changes_on_the_server_are_passed_on_and_stored_like_others() -> None:
    async with House() as house:
        document = await house.document()
        listener = house.attend(document)

        def write(doc: Doc[Any]) -> None:
            doc.get("content", type=Text).insert(0, "from the server")

        changed = proposed(document, write)
        unchanged = proposed(document, lambda doc: None)  # noqa: ARG005  # nothing is done with it
        await house.settle()

        assert [draft.outcome.result().changed for draft in (changed, unchanged)] == [True, False]
        assert text_of(doc_of(*updates(listener.heard))) == "from the server"
        assert await house.store.text("d") == "from the server"


@in_no_time
async def test_what_others_have_stored_is_passed_on_but_not_stored_again() -> None:
    async with House() as house:
        document = await house.document()
        listener, change = house.attend(document), Writer().type("theirs")

        document.learn([DocumentUpdate(change, BOB, NOON)] * 2, NOON)
        await house.settle()

        assert text(document) == "theirs"
        assert len(updates(listener.heard)) == 1
        assert house.store.appended == []


# --- what is wrong --------------------------------------------------------------------------------------

DEEP = b"\x01\x01\x07\x00\x08\x01\x01t\x01" + b"\x75\x01" * 100_000 + b"\x7e" + b"\x00"
POISON = {
    "nothing": b"",
    "no update": b"\x05no",
    "cut off": Writer().type("hello")[:-3],
    "something behind it": Writer().type("hello") + b"\x00",
    "a value that nests too deep": DEEP,
    "a client that is listed twice": b"\x02" + b"\x01\x07\x00\x04\x01\x01t\x01a" * 2 + b"\x00",
    "a block of no length": b"\x01\x01\x07\x00\x00\x00\x00",
    "a text that is not UTF-8": b"\x01\x01\x07\x00\x04\x01\x01t\x02\xff\xfe\x00",
    "a typed key that is not UTF-8": b"\x01\x01\x07\x01\x84\x07\x00\x01\xff\x00",
    "more clocks than there are": b"\x01\x01\x07" + lib0.number(2**32 - 1) + b"\x04\x01\x01t\x02ab\x00",
    "more blocks than there are": b"\x01" + lib0.number(2**50) + b"\x07\x00\x00",
}


@pytest.mark.parametrize("poison", POISON)
@in_no_time
async def test_poison_leaves_the_document_as_it_was(poison: str) -> None:
    async with House() as house:
        document = await house.document()
        writer = Writer()
        document.take_update(writer.type("hello"), ALICE, NOON)
        await house.settle()
        listener, before = house.attend(document), document.replica.since()

        for take in (document.take_update, document.take_missing):
            with pytest.raises(PoisonUpdate):
                take(POISON[poison], BOB, NOON)
        document.take_update(writer.type("!"), ALICE, NOON)
        await house.settle()

        assert text(document) == "hello!"
        assert updates(listener.heard) == writer.updates[1:]
        assert house.store.appended == [[change] for change in writer.updates]
        assert doc_of(before).get_state() != document.replica.state()
        assert document.size == sum(map(len, writer.updates))


class DyingReplica(Replica):
    """One in which the native library gives up, as it does now and then over what nobody has thought of."""

    def apply(
        self, update: bytes, source: Source | None = None, *, is_typed: bool = True, is_lenient: bool = False
    ) -> bytes:
        del source, is_typed, is_lenient
        raise ReplicaLost(f"over {len(update)} bytes")


async def let_die(house: House, document: Document) -> None:
    """Give the document a replica that the next update breaks."""
    record = await house.store.find(document.name)
    assert record is not None
    assert document.writer is not None
    document.adopt(record, document.writer, DyingReplica())


@in_no_time
async def test_a_lost_replica_sends_everybody_away_and_is_never_used_again() -> None:
    async with House() as house:
        document = await house.document()
        writer = Writer()
        document.take_update(writer.type("hello"), ALICE, NOON)
        await house.settle()
        listener = house.attend(document)
        await let_die(house, document)

        with pytest.raises(PoisonUpdate):
            document.take_update(writer.type("!"), ALICE, NOON)
        house.open_documents.tick()

        assert listener.told == ["unavailable"]
        assert house.open_documents.find("d") is None
        async with house.open() as fresh:
            assert fresh is not document
            assert text(fresh) == "hello"


@in_no_time
async def test_whoever_broke_the_replica_may_not_come_back_with_it_and_the_others_may() -> None:
    async with House() as house:
        culprit, other = await house.editor(), await house.editor("bob")
        document = await house.document()
        await let_die(house, document)

        culprit.text += "!"
        await house.converse(culprit, other)

        assert culprit.socket.closed_with == (4400, "malformed")
        assert other.socket.closed_with == (1013, "unavailable")


@in_no_time
async def test_a_change_on_the_server_that_fails_halfway_leaves_nothing_behind_and_harms_no_other() -> None:
    async with House() as house:
        document = await house.document()
        listener = house.attend(document)

        def fail(doc: Doc[Any]) -> None:
            doc.get("content", type=Text).insert(0, "half")
            raise InvalidInput("and no further")

        def write(doc: Doc[Any]) -> None:
            doc.get("content", type=Text).insert(0, "whole")

        drafts = [proposed(document, change) for change in (write, fail, write)]
        await house.settle()

        assert [draft.outcome.exception() is None for draft in drafts] == [True, False, True]
        assert text_of(doc_of(*updates(listener.heard))) == "wholewhole" == text(document)
        assert await house.store.text("d") == "wholewhole"


@in_no_time
async def test_a_change_on_the_server_that_breaks_its_copy_is_noticed_by_nobody_else() -> None:
    async with House() as house:
        document = await house.document()
        listener = house.attend(document)

        def die(doc: Doc[Any]) -> None:
            del doc.get("content", type=Text)[0:9]  # beyond the end, over which the native library panics

        draft = proposed(document, die)
        await house.settle()

        assert isinstance(draft.outcome.exception(), ReplicaLost)
        assert (listener.told, document.is_gone) == ([], False)


@in_no_time
async def test_what_was_not_stored_yet_when_a_replica_was_lost_is_in_the_fresh_one() -> None:
    async with House() as house:
        document = await house.document()
        house.store.away = True
        writer = Writer()
        document.take_update(writer.type("hello"), ALICE, NOON)
        await house.settle()
        await let_die(house, document)
        with pytest.raises(PoisonUpdate):
            document.take_update(writer.type("!"), ALICE, NOON)
        house.store.away = False
        house.open_documents.tick()

        fresh = await house.document()
        await house.pass_time(60)

        assert await house.store.text("d") == "hello"
        assert text(fresh) == "hello"


# --- bounds ---------------------------------------------------------------------------------------------


@in_no_time
async def test_a_document_does_not_grow_beyond_its_bound() -> None:
    async with House(max_document_bytes=1_000) as house:
        document = await house.document()
        writer = Writer()
        document.take_update(writer.type("a" * 900), ALICE, NOON)

        for take in (document.take_update, document.take_missing):
            with pytest.raises(DocumentTooLarge):
                take(writer.type("b" * 200), ALICE, NOON)
        await house.settle()

        assert await house.store.text("d") == text(document) == "a" * 900


@in_no_time
async def test_what_was_merged_counts_as_little_as_it_takes() -> None:
    async with House(max_document_bytes=1_000) as house:
        document = await house.document()
        writer = Writer()

        for _ in range(500):
            document.take_update(writer.type("x"), ALICE, NOON)

        assert text(document) == "x" * 500


@in_no_time
async def test_writes_are_refused_while_storage_is_too_far_behind_and_asked_for_once_when_it_is_not_any_more() -> None:
    async with House(max_unsaved_bytes=100) as house:
        alice = await house.editor()
        house.store.gate.clear()
        alice.text += "a" * 100
        alice.text += "b"
        alice.text += "c"
        await house.converse(alice)
        await house.pass_time(1)
        while_behind = questions(alice)
        refused = list(alice.denials)

        house.store.gate.set()
        await house.settle()
        await house.pass_time(1)
        await house.pass_time(1)

        assert refused == ["storage_behind"] * 2
        assert while_behind == 1  # that of the beginning
        assert questions(alice) == 2


def questions(editor: Editor) -> int:
    return sum(isinstance(yjs.decode(frame), yjs.SyncStep1) for frame in editor.frames if frame[0] in (0, 1))


@in_no_time
async def test_writes_are_refused_when_a_change_has_been_waiting_for_too_long() -> None:
    async with House(max_unsaved_age=timedelta(minutes=5)) as house:
        document = await house.document()
        writer = Writer()
        house.store.gate.clear()
        document.take_update(writer.type("a"), ALICE, NOON)

        document.take_update(writer.type("b"), ALICE, NOON + timedelta(minutes=5))
        with pytest.raises(WritesRefused):
            document.take_update(writer.type("c"), ALICE, NOON + timedelta(minutes=5, seconds=1))

        house.store.gate.set()
        await house.settle()
        assert await house.store.text("d") == text(document) == "ab"


@in_no_time
async def test_a_client_whose_change_was_refused_brings_it_when_storage_is_back_and_it_counts_as_durable_then() -> None:
    async with House(max_unsaved_bytes=100) as house:
        alice, bob = await house.editor(), await house.editor("bob")
        house.store.gate.clear()
        alice.text += "a" * 100
        await house.converse(alice, bob)
        alice.text += "b"
        await house.converse(alice, bob)
        denials = list(alice.denials)

        house.store.gate.set()
        await house.settle()
        await house.pass_time(1)
        await house.converse(alice, bob)

        assert denials == ["storage_behind"]
        assert str(bob.text) == await house.store.text("d") == "a" * 100 + "b"


@in_no_time
async def test_a_client_whose_change_was_refused_while_it_read_slowly_is_asked_for_it_too() -> None:
    async with House(max_unsaved_bytes=100) as house:
        alice, slow = await house.editor(), await house.editor("bob")
        house.store.gate.clear()
        alice.text += "a" * 100
        slow.socket.unread = HIGH_WATER_BYTES + 1
        await house.converse(alice, slow)
        slow.text += "b"
        await house.converse(alice, slow)

        house.store.gate.set()
        await house.settle()
        await house.pass_time(1)
        slow.unstall()
        await house.converse(alice, slow)

        assert slow.denials == ["storage_behind"]
        assert sorted(await house.store.text("d")) == sorted("a" * 100 + "b")


# --- silence --------------------------------------------------------------------------------------------


@in_no_time
async def test_after_20_seconds_of_silence_everybody_hears_what_everybody_shows() -> None:
    async with House() as house:
        document = await house.document()
        shown = yjs.AwarenessUpdate([lib0.AwarenessEntry(7, 1, b'"alice"')])
        document.take_awareness(shown.entries, Owner("laptop", "user:alice"), NOON)
        listener = house.attend(document)

        await house.pass_time(19.9)
        before = list(listener.heard)
        await house.pass_time(0.1)
        await house.pass_time(19.9)

        assert before == []
        assert listener.heard == [shown]


@in_no_time
async def test_where_nobody_shows_anything_the_silence_is_broken_by_a_step_1() -> None:
    async with House() as house:
        document = await house.document()
        listener = house.attend(document)

        await house.pass_time(20)
        await house.pass_time(20)

        assert listener.heard == [yjs.SyncStep1(lib0.EMPTY_STATE)] * 2


@in_no_time
async def test_where_something_is_said_there_is_no_silence() -> None:
    async with House() as house:
        document = await house.document()
        listener, writer = house.attend(document), Writer()

        for _ in range(5):
            now = await house.pass_time(15)
            document.take_update(writer.type("x"), ALICE, now)
        await house.settle()

        assert [type(message) for message in listener.heard] == [yjs.Update] * 5


# --- who is here ----------------------------------------------------------------------------------------


@in_no_time
async def test_who_joins_is_given_what_comes_from_now_on_and_what_everybody_shows() -> None:
    async with House() as house:
        alice = await house.editor()
        alice.outgoing.append(yjs.awareness([lib0.AwarenessEntry(7, 1, b'"alice"')]))
        await house.converse(alice)

        bob = await house.editor("bob")

        assert bob.frames[:2] == [
            yjs.sync_step1(lib0.EMPTY_STATE),
            yjs.awareness([lib0.AwarenessEntry(7, 1, b'"alice"')]),
        ]


@in_no_time
async def test_whoever_is_cut_off_is_not_shown_any_more() -> None:
    async with House() as house:
        alice, bob = await house.editor(), await house.editor("bob")
        alice.outgoing.append(yjs.awareness([lib0.AwarenessEntry(7, 1, b'"alice"')]))
        await house.converse(alice, bob)
        before = dict(bob.shown)

        alice.cut()
        await house.converse(bob)

        assert before == {7: b'"alice"'}
        assert bob.frames[-1] == yjs.awareness([lib0.AwarenessEntry(7, 2, b"null")])
