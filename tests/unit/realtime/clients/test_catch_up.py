"""Editors that read slowly: what they missed comes in one update, and what they asked for when there is room."""

from collections.abc import Sequence
from typing import Any

from pycrdt import Doc

from roomkey.documents.crdt.awareness import Owner
from roomkey.documents.document import Document
from roomkey.realtime.clients.catch_up import MergedBacklog
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.rooms.hub import HIGH_WATER_BYTES
from roomkey.wire import lib0
from roomkey.wire.frame import Frame
from tests.support.loops import in_no_time
from tests.support.open_documents import ALICE, House, Writer, text_of
from tests.support.sockets import NOON


def updates(messages: Sequence[yjs.Message]) -> list[bytes]:
    return [message.update for message in messages if isinstance(message, yjs.Update)]


def doc_of(*parts: bytes) -> Doc[Any]:
    doc: Doc[Any] = Doc()
    for part in parts:
        doc.apply_update(part)
    return doc


class Alone:
    """A place in a document of one who is alone there."""

    address = b""

    def __init__(self, document: Document) -> None:
        self.document = document

    def answer(self, state: bytes) -> Frame:
        return Frame(yjs.sync_step2(self.document.replica.since(state)), binary=True)


@in_no_time
async def test_a_reader_that_was_behind_is_given_one_update_for_all_that_it_missed() -> None:
    async with House() as house:
        alice, slow = await house.editor(), await house.editor("bob")
        slow.socket.unread = HIGH_WATER_BYTES + 1
        alice.text += "noticed "
        await house.converse(alice)
        behind = len(slow.frames)
        for number in range(50):
            alice.text += f"{number} "
            await house.converse(alice, rounds=1)
        alice.map["k"] = "v"
        await house.converse(alice)
        waiting = len(slow.frames) - behind

        slow.unstall()
        slow.read()

        assert waiting == 0
        assert len(updates([yjs.decode(frame) for frame in slow.frames[behind:]])) == 2
        assert str(slow.text) == str(alice.text)
        assert slow.map.to_py() == {"k": "v"}


@in_no_time
async def test_what_is_missed_is_what_came_after_the_socket_was_full() -> None:
    async with House() as house:
        document = await house.document()
        writer = Writer()
        missed = MergedBacklog(lambda: [Alone(document)])
        document.take_update(writer.type("before" * 100), ALICE, NOON)

        missed.begin()
        document.take_update(writer.type("after"), ALICE, NOON)
        missed.missed(10)
        frames = missed.make_up()

        assert [frame.payload for frame in frames] == [yjs.update(writer.updates[1])]
        assert missed.make_up() == ()


@in_no_time
async def test_what_everybody_shows_now_is_part_of_what_was_missed() -> None:
    async with House() as house:
        document = await house.document()
        missed = MergedBacklog(lambda: [Alone(document)])
        missed.begin()
        shown = yjs.AwarenessUpdate([lib0.AwarenessEntry(7, 1, b'"alice"')])
        document.take_awareness(shown.entries, Owner("laptop", "user:alice"), NOON)
        missed.missed(10)

        frames = missed.make_up()

        assert [yjs.decode(frame.payload) for frame in frames] == [shown]


@in_no_time
async def test_whoever_missed_much_is_hopeless_only_if_it_is_much_when_it_is_merged() -> None:
    async with House() as house:
        document = await house.document()
        writer = Writer()
        missed = MergedBacklog(lambda: [Alone(document)])
        missed.begin()
        for _ in range(100):
            missed.missed(len(document.replica.since()) + 30)
            document.take_update(writer.type("x"), ALICE, NOON)

        merged_size = len(document.replica.since())

        assert not missed.is_hopeless(merged_size)
        assert missed.is_hopeless(merged_size - 1)
        document.take_update(writer.type("y" * 1_000), ALICE, NOON)
        missed.missed(1_000)
        assert missed.is_hopeless(1_000)


@in_no_time
async def test_whoever_asks_while_it_is_behind_is_answered_when_it_reads_again_and_only_its_last_question() -> None:
    async with House() as house:
        alice, slow = await house.editor(), await house.editor("bob")
        slow.socket.unread = HIGH_WATER_BYTES + 1
        alice.text += "hello"
        await house.converse(alice)
        behind = len(slow.frames)

        for _ in range(100):
            slow.outgoing.append(yjs.sync_step1(lib0.EMPTY_STATE))
        await house.converse(slow)
        waiting = len(slow.frames) - behind
        slow.unstall()
        answers = [yjs.decode(frame) for frame in slow.frames[behind:]]
        slow.read()

        assert waiting == 0
        assert sum(isinstance(answer, yjs.SyncStep2) for answer in answers) == 1
        assert str(slow.text) == "hello"


@in_no_time
async def test_the_answer_to_a_question_comes_before_what_is_published_after_it() -> None:
    async with House() as house:
        document = await house.document()
        writer = Writer()
        missed = MergedBacklog(lambda: [Alone(document)])
        document.take_update(writer.type("before"), ALICE, NOON)
        missed.begin()

        missed.ask(b"", lib0.EMPTY_STATE)
        document.take_update(writer.type("while"), ALICE, NOON)
        missed.missed(10)
        answer = [yjs.decode(frame.payload) for frame in missed.make_up()]
        document.take_update(writer.type("after"), ALICE, NOON)
        rest = [frame.payload for frame in missed.make_up()]

        (message,) = answer
        assert isinstance(message, yjs.SyncStep2)
        assert text_of(doc_of(message.update)) == "beforewhile"
        assert rest == [yjs.update(writer.updates[-1])]


@in_no_time
async def test_whoever_comes_into_a_large_document_while_it_is_behind_is_not_hopeless_for_asking() -> None:
    async with House() as house:
        document = await house.document()
        document.take_update(Writer().type("x" * 10_000), ALICE, NOON)
        attended: list[Alone] = []
        missed = MergedBacklog(lambda: attended)
        missed.begin()

        attended.append(Alone(document))
        missed.ask(b"", lib0.EMPTY_STATE)
        missed.missed(2_000)

        assert not missed.is_hopeless(1_000)


@in_no_time
async def test_what_was_made_up_for_is_not_missed_again() -> None:
    async with House() as house:
        document = await house.document()
        writer = Writer()
        missed = MergedBacklog(lambda: [Alone(document)])
        missed.begin()
        document.take_update(writer.type("first"), ALICE, NOON)
        missed.missed(10)
        missed.make_up()

        document.take_update(writer.type("second"), ALICE, NOON)
        missed.missed(10)
        frames = missed.make_up()

        assert [frame.payload for frame in frames] == [yjs.update(writer.updates[1])]
