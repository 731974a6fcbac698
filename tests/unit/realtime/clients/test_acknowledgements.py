"""What editors are told of their changes: durable when they are, refused if they were, and never the wrong one."""

from roomkey.domain.access import EVERYTHING_WRITABLE
from roomkey.domain.session import GrantsChanged
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.wire import lib0
from tests.support.loops import in_no_time
from tests.support.open_documents import Editor, House, Writer
from tests.support.sockets import READ_ONLY


@in_no_time
async def test_a_client_is_told_that_its_changes_are_durable_when_they_are() -> None:
    async with House() as house:
        alice = await house.editor()
        house.store.gate.clear()
        alice.text += "a"
        await house.converse(alice)
        before = len(alice.durable)

        house.store.gate.set()
        await house.converse(alice)

        assert alice.sent[-1] not in alice.durable[:before]
        assert alice.durable[-1] == alice.sent[-1]


@in_no_time
async def test_an_answer_that_brings_nothing_new_does_not_make_the_changes_before_it_durable() -> None:
    async with House() as house:
        alice = await house.editor()
        house.store.gate.clear()
        alice.text += "a"
        await house.converse(alice)

        alice.outgoing.append(yjs.sync_step2(lib0.EMPTY_UPDATE))
        await house.converse(alice)

        assert alice.sent[-2:-1] != [lib0.EMPTY_UPDATE]
        assert alice.sent[-2] not in alice.durable
        house.store.gate.set()


@in_no_time
async def test_what_is_here_but_not_stored_yet_is_not_durable_when_it_is_brought_again() -> None:
    async with House() as house:
        alice = await house.editor()
        house.store.gate.clear()
        alice.text += "a"
        await house.converse(alice)
        alice.cut()
        _, token = house.sessions.issue()
        await house.connect(alice, token)
        await house.converse(alice)

        alice.outgoing.append(yjs.sync_step2(alice.doc.get_update()))
        await house.converse(alice)

        assert alice.sent[-1] == alice.doc.get_update()
        assert alice.sent[-1] not in alice.durable
        house.store.gate.set()


@in_no_time
async def test_a_change_that_was_refused_is_not_counted_as_durable_when_the_next_one_is() -> None:
    async with House(max_document_bytes=1_000) as house:
        alice = await house.editor()
        alice.text += "a" * 2_000
        await house.converse(alice)
        refused = alice.sent[-1]

        other = Writer()
        alice.outgoing.append(yjs.update(other.type("b")))
        await house.converse(alice)

        assert alice.denials == ["document_too_large"]
        assert refused not in alice.durable


@in_no_time
async def test_changes_of_a_reader_reach_nobody_and_what_it_brings_that_is_here_already_is_no_offence() -> None:
    async with House() as house:
        alice, reader = await house.editor(), await house.editor("bob", grants=READ_ONLY)
        alice.text += "a"
        await house.converse(alice, reader)
        told, reader.denials = reader.denials, []

        reader.outgoing += [
            yjs.sync_step2(lib0.EMPTY_UPDATE),
            yjs.sync_step2(reader.doc.get_update()),
        ]
        await house.converse(alice, reader)
        harmless = list(reader.denials)
        reader.text += "x"
        await house.converse(alice, reader)

        assert told == ["read-only"]
        assert harmless == []
        assert reader.denials == ["read-only"]
        assert str(alice.text) == await house.store.text("d") == "a"


@in_no_time
async def test_whoever_reads_a_document_before_there_is_one_can_write_as_soon_as_it_may() -> None:
    async with House() as house:
        reader = Editor()
        session, token = house.sessions.issue("bob", grants=READ_ONLY)
        await house.connect(reader, token)
        reader.text += "written too soon"
        await house.converse(reader)

        house.sessions.change(session.id, GrantsChanged, grants=EVERYTHING_WRITABLE)
        await house.converse(reader)
        await house.pass_time(1)
        await house.converse(reader)

        assert await house.store.text("d") == "written too soon"


# --- relayed as it came ---------------------------------------------------------------------------------


@in_no_time
async def test_a_change_is_relayed_as_the_bytes_that_came() -> None:
    async with House() as house:
        alice, bob = await house.editor(), await house.editor("bob")
        message = yjs.update(Writer().type("x"))
        before = len(bob.socket.frames)
        assert alice.peer is not None

        alice.peer.binary(message)
        await house.settle()

        assert [frame.payload is message for frame in bob.socket.frames[before:]] == [True]


@in_no_time
async def test_a_change_that_is_written_in_an_unusual_way_is_relayed_in_the_usual_one() -> None:
    async with House() as house:
        alice, bob = await house.editor(), await house.editor("bob")
        update = Writer().type("x")
        overlong = b"\x00\x02" + bytes((len(update) | 0x80, 0)) + update
        before = len(bob.socket.frames)
        assert alice.peer is not None

        alice.peer.binary(overlong)
        await house.settle()

        assert [frame.payload for frame in bob.socket.frames[before:]] == [yjs.update(update)]
