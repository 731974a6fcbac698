"""
Somebody who may write wants to be somebody else inside a document: after a restart, on another node, as the server.

The victim is an editor that keeps its Yjs client id, as a page does that reconnects.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import pytest

from roomkey.documents.content import roots
from roomkey.documents.crdt.updates import clients_of
from roomkey.documents.maintenance import Maintenance
from roomkey.documents.service import DocumentService
from roomkey.ports import Author
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.wire import lib0
from tests.support.document_nodes import Nodes
from tests.support.forgeries import gc, put_together, section, to_the_end, words
from tests.support.loops import in_no_time
from tests.support.open_documents import ALICE, Editor, FaultyStore, House, text, text_of


def show(editor: Editor, client: int, clock: int = 1) -> None:
    """Say in awareness: I am this client."""
    editor.outgoing.append(yjs.awareness([lib0.AwarenessEntry(client, clock, b'{"user":{}}')]))


# --- what the victim has done ---------------------------------------------------------------------------------


async def typed_once(house: House, victim: Editor) -> None:
    victim.text += "hello"
    await house.converse(victim)


async def shown_and_typed_once(house: House, victim: Editor) -> None:
    show(victim, victim.doc.client_id)
    await typed_once(house, victim)


async def shown_and_typed_between(house: House, victim: Editor) -> None:
    """Every update is the pressing of a key, which nobody looks at."""
    show(victim, victim.doc.client_id)
    await house.converse(victim)
    for at, letter in enumerate("hello"):
        victim.text.insert(at + 1, letter)
        await house.converse(victim)


async def shown_and_brought_with_another(house: House, victim: Editor) -> None:
    """What somebody wrote before, in an earlier page, comes along with what is new."""
    show(victim, victim.doc.client_id)
    await house.converse(victim)
    earlier = Editor()
    earlier.text += "before"
    victim.cut()
    victim.doc.apply_update(earlier.doc.get_update())
    victim.text += "hello"
    _, token = house.sessions.issue("alice")
    assert await house.connect(victim, token)
    show(victim, victim.doc.client_id, 2)
    await house.converse(victim)


PASTS: Final[Mapping[str, Callable[[House, Editor], Awaitable[None]]]] = {
    "typed once": typed_once,
    "shown, typed once": shown_and_typed_once,
    "shown, typed between": shown_and_typed_between,
    "shown, brought with another": shown_and_brought_with_another,
}

# --- what happens then ----------------------------------------------------------------------------------------


@asynccontextmanager
async def restarted(past: Callable[[House, Editor], Awaitable[None]]) -> AsyncGenerator[tuple[House, Editor, House]]:
    async with left(past) as (store, victim):
        pass
    async with House(store) as house:
        yield house, victim, house


@asynccontextmanager
async def merged(past: Callable[[House, Editor], Awaitable[None]]) -> AsyncGenerator[tuple[House, Editor, House]]:
    """The log was merged while the document was open, and the process began anew."""
    async with left(past, merge=True) as (store, victim):
        pass
    async with House(store) as house:
        yield house, victim, house


@asynccontextmanager
async def left(
    past: Callable[[House, Editor], Awaitable[None]], *, merge: bool = False
) -> AsyncGenerator[tuple[FaultyStore, Editor]]:
    store = FaultyStore()
    async with House(store) as house:
        carol = await house.editor("carol")
        carol.text += "[]"
        await house.converse(carol)
        victim = await house.editor("alice")
        await past(house, victim)
        if merge:
            record = await store.find("d")
            assert record is not None
            assert await Maintenance(house.open_documents).compact(record)
        victim.cut()
        carol.cut()
        await house.settle()
        yield store, victim


@asynccontextmanager
async def on_another_node(
    past: Callable[[House, Editor], Awaitable[None]],
) -> AsyncGenerator[tuple[House, Editor, House]]:
    async with Nodes("a", "b") as nodes:
        carol = await nodes["a"].editor("carol")
        carol.text += "[]"
        await nodes["a"].converse(carol)
        await nodes.documents()
        victim = await nodes["a"].editor("alice")
        await past(nodes["a"], victim)
        await nodes.settle()
        victim.cut()
        await nodes.settle()
        yield nodes["b"], victim, nodes["a"]


WAYS: Final = {"restarted": restarted, "merged and restarted": merged, "on another node": on_another_node}


@pytest.mark.parametrize("past", PASTS.values(), ids=PASTS.keys())
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@in_no_time
async def test_nobody_becomes_the_client_of_somebody_who_is_away(
    way: Callable[..., AbstractAsyncContextManager[tuple[House, Editor, House]]],
    past: Callable[[House, Editor], Awaitable[None]],
) -> None:
    async with way(past) as (there, victim, here):
        client = victim.doc.client_id
        mallory = await there.editor("mallory")
        known = lib0.read_state(mallory.doc.get_state())[client]
        show(mallory, client, 50)
        mallory.outgoing.append(yjs.update(put_together(section(client, known, gc(1_000)))))
        await there.converse(mallory)
        if here is not there:
            await here.settle()

        victim.text += " world"
        _, token = here.sessions.issue("alice")
        assert await here.connect(victim, token)
        show(victim, client, 99)
        await here.converse(victim)
        victim.text += "!"
        await here.converse(victim)
        read = text(await here.document())

    assert victim.denials == []
    assert victim.socket.closed_with is None
    assert read == text_of(victim.doc)
    assert read.endswith(" world!")
    assert mallory.socket.closed_with == (4400, "forged")


@in_no_time
async def test_a_peer_who_carried_what_somebody_wrote_is_still_not_that_one() -> None:
    store = FaultyStore()
    alice = Editor()
    alice.text += "from offline"
    async with House(store) as house:
        bob = await house.editor("bob")
        bob.doc.apply_update(alice.doc.get_update())
        bob.cut()
        _, token = house.sessions.issue("bob")
        assert await house.connect(bob, token)
        await house.converse(bob)
    async with House(store) as house:
        _, token = house.sessions.issue("alice")
        assert await house.connect(alice, token)
        show(alice, alice.doc.client_id)
        await house.converse(alice)
        alice.text += ", and on"
        await house.converse(alice)
        read = text(await house.document())

    assert read == "from offline, and on"
    assert alice.denials == []


# --- the server -----------------------------------------------------------------------------------------------

MALLORY: Final = Author("user:mallory", None, "mallory")


async def write(nodes: Nodes, node: str, content: str, author: Author) -> None:
    """Over REST, where the node itself makes the change."""
    await nodes.service(node).edit("d", lambda doc: roots.replace(doc, {"content": content}), author)
    await nodes.settle()


FORGED: Final[Mapping[str, Callable[[int], bytes]]] = {
    "to the end": lambda clock: gc(to_the_end(clock)),
    "a little": lambda _: gc(1_000),
    "text": lambda _: words("?"),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
@pytest.mark.parametrize("at", ["a", "b"])
@in_no_time
async def test_nobody_becomes_the_server_that_writes_for_everybody(at: str, forged: Callable[[int], bytes]) -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        for _ in range(3):  # each time the server may write as another client
            before = lib0.read_state(here.replica.state())
            for content in ("1", "12", "123"):
                await write(nodes, "a", content, MALLORY)
            after = lib0.read_state(here.replica.state())
            (client,) = {client for client, clock in after.items() if clock > before.get(client, 0)}
            mallory = await nodes[at].editor("mallory")
            mallory.outgoing.append(yjs.update(put_together(section(client, after[client], forged(after[client])))))
            await nodes[at].converse(mallory)
            await nodes.settle()
            for content in ("alice was here", "and is still"):
                await write(nodes, "a", content, ALICE)
                read = [text(here), text(there), await nodes.store.text("d")]
                assert read == [content] * 3
            mallory.cut()


@in_no_time
async def test_what_the_server_is_about_to_write_nobody_writes_before() -> None:
    store = FaultyStore()
    async with House(store) as house:
        service, mallory = DocumentService(house.open_documents), await house.editor("mallory")
        await service.edit("d", lambda doc: roots.replace(doc, {"content": "1"}), ALICE)
        document = await house.document()
        (client,) = {units.client for units in clients_of(document.replica.snapshot())}
        store.gate.clear()
        writing = asyncio.ensure_future(service.edit("d", lambda doc: roots.replace(doc, {"content": "12"}), ALICE))
        await house.settle()
        mallory.outgoing.append(yjs.update(put_together(section(client, 1, words("?")))))
        mallory.deliver()
        store.gate.set()
        await writing
        await house.converse(mallory)
        read = [text(document), text_of(mallory.doc), await store.text("d")]

    assert read == ["12"] * 3


@in_no_time
async def test_many_changes_of_the_server_are_of_few_clients() -> None:
    async with Nodes("a", "b") as nodes:
        here, _ = await nodes.documents()
        for number in range(20):
            await write(nodes, "ab"[number % 2], "x" * number, ALICE)

    assert len({units.client for units in clients_of(here.replica.snapshot())}) == 2


# --- awareness ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", [5, 2**32 - 2, 2**32, lib0.MAX_NUMBER])
@pytest.mark.parametrize("has_typed", [True, False])
@in_no_time
async def test_nobody_is_shown_as_the_client_of_somebody_who_is_away(clock: int, *, has_typed: bool) -> None:
    async with House() as house:
        reader, alice, mallory = [await house.editor(user) for user in ("carol", "alice", "mallory")]
        client = alice.doc.client_id
        show(alice, client)
        if has_typed:
            alice.text += "hello"
        await house.converse(alice, reader)
        alice.cut()
        show(mallory, client, clock)
        await house.converse(mallory, reader)
        seen = reader.shown[client]
        mallory.cut()
        await house.converse(reader)
        _, token = house.sessions.issue("alice")
        assert await house.connect(alice, token)
        show(alice, client, 3)
        await house.converse(alice, reader)

    assert seen == lib0.GONE
    assert json.loads(reader.shown[client]) == {"user": {"id": "alice"}}


@in_no_time
async def test_a_clock_at_the_end_of_its_range_drives_nobody_out_of_it() -> None:
    async with House() as house:
        reader, mallory = await house.editor("carol"), await house.editor("mallory")
        show(mallory, 7, lib0.MAX_NUMBER)
        await house.converse(mallory, reader)
        mallory.cut()
        alice = await house.editor("alice")
        show(alice, 7)
        await house.converse(alice, reader)

    assert json.loads(reader.shown[7]) == {"user": {"id": "alice"}}


@pytest.mark.parametrize("state", [lib0.GONE, b'{"user":{"id":"alice"}}', b"[]"])
@pytest.mark.parametrize("clock", [2, 2**31, 2**32 - 1, 2**32, lib0.MAX_NUMBER])
@in_no_time
async def test_nobody_hides_or_changes_somebody_who_is_here(clock: int, state: bytes) -> None:
    async with House() as house:
        reader, alice, mallory = [await house.editor(user) for user in ("carol", "alice", "mallory")]
        client = alice.doc.client_id
        show(alice, client)
        await house.converse(alice, reader)
        mallory.outgoing.append(yjs.awareness([lib0.AwarenessEntry(client, clock, state)]))
        await house.converse(mallory, reader, alice)
        mallory.cut()
        await house.converse(reader, alice)
        show(alice, client, 2)
        await house.converse(alice, reader)

    assert json.loads(reader.shown[client]) == {"user": {"id": "alice"}}
    assert alice.socket.closed_with is None


@in_no_time
async def test_nobody_fills_the_room_so_that_others_are_not_seen() -> None:
    async with House() as house:
        reader = await house.editor("carol")
        crowd = [await house.editor("mallory") for _ in range(6)]
        for number, each in enumerate(crowd):
            said = [lib0.AwarenessEntry(100 * number + n, 1, b'"%s"' % (b"x" * 16_000)) for n in range(32)]
            each.outgoing.append(yjs.awareness(said))
        await house.converse(*crowd)
        alice = await house.editor("alice")
        show(alice, alice.doc.client_id)
        await house.converse(alice, reader)
        for each in crowd:
            each.cut()
        await house.converse(reader)
        again = await house.editor("mallory")
        again.outgoing.append(yjs.awareness([lib0.AwarenessEntry(again.doc.client_id, 1, b'"%s"' % (b"y" * 16_000))]))
        await house.converse(again, reader)

    assert json.loads(reader.shown[alice.doc.client_id]) == {"user": {"id": "alice"}}
    assert reader.shown[again.doc.client_id] == b'"%s"' % (b"y" * 16_000)
