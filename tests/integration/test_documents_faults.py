"""A bad day for documents: kills, full disks, poison, readers that do not read. Nothing that was saved is lost."""

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pycrdt import Doc, Map, Text
from websockets.exceptions import ConnectionClosed

from roomkey.documents.service import DocumentService
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.wire import lib0
from tests.integration.test_crash_full_disk import small_disk
from tests.integration.test_faults import dialled, resident
from tests.support.calls import Caller, calling
from tests.support.documents import (
    APPLIED,
    ASK,
    DENIED,
    EMPTY_STEP2,
    REFUSED,
    STATUS,
    STEP1,
    STEP2,
    UPDATE,
    FailingStore,
    a_site,
    connected_to,
    content_of,
    document_of,
    edit,
    faulty,
    hocuspocus_client,
    reason_of,
    text_of,
    token_message,
    typed,
    y_client,
)
from tests.support.rawsocket import BINARY, CLOSE, TRANSPORTS, RawClient
from tests.support.server import RunningServer, running_server
from tests.support.typist import Typist, typing

both = pytest.mark.parametrize("transport", TRANSPORTS)

MEBIBYTE = 1024 * 1024
GENEROUS = {
    "ROOMKEY_DOCUMENTS_MESSAGES_PER_SECOND": "100000",
    "ROOMKEY_DOCUMENTS_MESSAGE_BURST": "100000",
    "ROOMKEY_DOCUMENTS_TRAFFIC_PER_SECOND_BYTES": "1GiB",
    "ROOMKEY_DOCUMENTS_TRAFFIC_BURST_BYTES": "1GiB",
    "ROOMKEY_WEBSOCKET_CLOSE_TIMEOUT": "60s",
}
UNSEEN = 5
"""So many marks a typist puts down before the first of them must have been saved."""


# --- people at work -----------------------------------------------------------------------------------------


class Team:
    """Typists in the document ``plan``, who follow the server wherever it is started again."""

    def __init__(self) -> None:
        self.base = ""
        self.typists: list[Typist] = []
        self._pens: list[asyncio.Task[None]] = []

    @property
    def saved(self) -> set[str]:
        """Every mark that somebody was told is durable."""
        return {mark for typist in self.typists for mark in typist.saved}

    def saw(self, mark: str, author: Typist) -> bool:
        """Whether anybody but its author has the mark."""
        return any(mark in typist.text for typist in self.typists if typist is not author)

    def follow(self, server: RunningServer) -> None:
        self.base = base_of(server)

    async def begin(self, operator: Caller, stack: AsyncExitStack, size: int) -> None:
        for number in range(size):
            _, token = await operator.session(f"user-{number}")
            self.typists.append(await stack.enter_async_context(typing(lambda: self.base, token)))

    def write(self) -> None:
        """Start typing."""
        for number, typist in enumerate(self.typists):
            self._pens.append(asyncio.ensure_future(keep_typing(typist, f"{number}-{len(typist.text)}-")))

    async def pause(self) -> None:
        for pen in self._pens:
            pen.cancel()
            with suppress(asyncio.CancelledError):
                await pen
        self._pens.clear()

    async def agree(self) -> str:
        """Wait until everything that anybody has typed is saved and everybody has it; the text."""
        for typist in self.typists:
            await typist.wait(lambda typist=typist: typist.saved >= set(typist.typed))
        everything = sum(len(mark) for typist in self.typists for mark in typist.typed)
        for typist in self.typists:
            await typist.wait(lambda typist=typist: len(typist.text) == everything)
        (text,) = {typist.text for typist in self.typists}
        return text


async def keep_typing(typist: Typist, name: str) -> None:
    for number in count():
        typist.type(f"{name}{number};")
        late = f"{name}{number - UNSEEN};"
        await typist.wait(lambda number=number, late=late: number < UNSEEN or late in typist.saved)


def base_of(server: RunningServer) -> str:
    return server.url.replace("http", "ws", 1)


def lost(text: str, marks: set[str]) -> list[str]:
    """Which marks are not in the text, or more than once."""
    found = text.split(";")
    return [mark for mark in marks if found.count(mark.removesuffix(";")) != 1]


async def stored_text(server: RunningServer, operator: Caller) -> str:
    """What the server has of the document by itself."""
    _, token = await operator.session("onlooker")
    async with connected_to(base_of(server), token) as client:
        return text_of(await client.missing())


async def saved_marks(team: Team, number: int) -> None:
    for typist in team.typists:
        await typist.wait(lambda typist=typist: len(typist.saved) >= number)


async def test_killed_again_and_again_while_twenty_type_it_has_all_that_it_called_saved(tmp_path: Path) -> None:
    storage, team = f"lmdb://{tmp_path}", Team()
    async with AsyncExitStack() as stack:
        for life in range(3):
            async with running_server(storage=storage) as server, calling(server) as operator:
                if life:
                    assert lost(await stored_text(server, operator), team.saved) == []
                team.follow(server)
                if not life:
                    await team.begin(operator, stack, 20)
                await team.pause()
                await saved_marks(team, 1 if life else 0)
                team.write()
                await saved_marks(team, 20 * (life + 1))
                await server.stop(signal.SIGKILL)

        async with running_server(storage=storage) as server, calling(server) as operator:
            team.follow(server)
            await team.pause()
            text = await team.agree()

            assert lost(text, team.saved) == []
            assert await stored_text(server, operator) == text


async def test_stopped_in_mid_sentence_it_has_saved_everything_that_anybody_saw(tmp_path: Path) -> None:
    storage, team = f"lmdb://{tmp_path}", Team()
    async with AsyncExitStack() as stack:
        async with running_server("--set", "server.drain=300ms", storage=storage) as server:
            async with calling(server) as operator:
                team.follow(server)
                await team.begin(operator, stack, 5)
            team.write()
            await saved_marks(team, 10)
            code = await server.stop(signal.SIGTERM)
        codes = {typist.codes[0] for typist in team.typists if typist.codes}
        await team.pause()
        promised = team.saved | {mark for typist in team.typists for mark in typist.typed if team.saw(mark, typist)}

        async with running_server(storage=storage) as server, calling(server) as operator:
            text = await stored_text(server, operator)

    assert code == 0
    assert codes == {1012}
    assert lost(text, promised) == []


# --- storage that fails -------------------------------------------------------------------------------------


@both
async def test_while_storage_is_away_editing_goes_on_and_is_saved_once_afterwards(transport: str) -> None:
    async with a_site(transport, store=FailingStore) as site:
        store = faulty(site)
        async with y_client(site, await site.token(), status="1") as alice, y_client(site, await site.token()) as bob:
            store.appends = False
            words = [typed(f"{number};") for number in range(20)]
            await alice.send(*[UPDATE + lib0.sized(update) for update in words])
            heard = [content_of(await bob.next(UPDATE)) for _ in words]
            early = [message for message in await alice.heard() if message.startswith(STATUS)]
            store.appends = True
            while (await alice.next(STATUS)) != bytes((len(words),)):
                pass

    assert heard == words
    assert early == []
    assert store.appended == words


@both
async def test_a_node_that_stops_waits_until_storage_has_taken_what_was_typed(transport: str) -> None:
    async with a_site(transport, store=FailingStore) as site:
        store = faulty(site)
        async with y_client(site, await site.token()) as alice:
            store.failures = 5  # a second or so
            await alice.send(edit("just in time"))
            update = content_of(await alice.next(UPDATE))
        before = list(store.appended)

    assert before == []
    assert store.appended == [update]


@both
async def test_what_storage_cannot_take_for_too_long_is_refused_and_asked_for_afterwards(transport: str) -> None:
    async with a_site(transport, store=FailingStore, documents={"max_unsaved_bytes": 1_000}) as site:
        store = faulty(site)
        async with y_client(site, await site.token(), status="1") as alice:
            await alice.next(STEP1)
            store.appends = False
            await alice.send(edit("x" * 2_000), edit("refused"))
            reason = reason_of(await alice.next(DENIED))
            store.appends = True
            await alice.next(STEP1)  # what was refused meanwhile?
            await alice.send(STEP2 + lib0.sized(typed("refused")))
            await alice.next(STATUS)
            text = text_of(await alice.missing())

    assert reason == "storage_behind"
    assert sorted(text) == sorted("x" * 2_000 + "refused")


@both
async def test_a_document_that_cannot_be_loaded_is_not_overwritten_by_an_empty_one(transport: str) -> None:
    async with a_site(transport, store=FailingStore) as site:
        store, token = faulty(site), await site.token()
        async with y_client(site, token) as alice:
            await alice.send(edit("precious"))
            await alice.next(UPDATE)
            document = site.node.documents.find("plan")
            assert document is not None
            assert document.writer is not None
            await document.writer.settle()
        document.touch(document.used_at.replace(year=2000))
        site.node.documents.evict(site.node.documents.clock.now())
        assert site.node.documents.find("plan") is None

        store.loads = False
        async with hocuspocus_client(site) as blind:
            await blind.say("plan", token_message(token), ASK, edit("blank"))
            reason = reason_of(await blind.hear("plan", REFUSED))
        store.loads = True
        async with y_client(site, token) as alice:
            text = text_of(await alice.missing())

    assert reason == "unavailable"
    assert text == "precious"


async def test_on_a_full_disk_editing_goes_on_and_is_saved_when_there_is_room(tmp_path: Path) -> None:
    data = tmp_path / "disk"
    data.mkdir()
    team = Team()
    with small_disk(data, "8m"):
        async with AsyncExitStack() as stack:
            async with running_server(storage=f"lmdb://{data / 'store'}") as server, calling(server) as operator:
                team.follow(server)
                await team.begin(operator, stack, 3)
                ballast = data / "ballast"
                with ballast.open("wb", buffering=0) as file, suppress(OSError):
                    while True:
                        file.write(bytes(4096))
                first, *others = team.typists
                for number in count():
                    first.type(f"{number}-{'x' * 4000};")
                    await others[0].wait(lambda: others[0].text == first.text)
                    if "document_not_saved" in server.errors:
                        break
                first.type("unsaved;")
                await others[1].wait(lambda: others[1].text.endswith("unsaved;"))
                told = "unsaved;" in first.saved

                ballast.unlink()
                text = await team.agree()
                await server.stop(signal.SIGKILL)

            async with running_server(storage=f"lmdb://{data / 'store'}") as server, calling(server) as operator:
                kept = await stored_text(server, operator)

    assert not told
    assert kept == text


# --- poison -------------------------------------------------------------------------------------------------


def block(info: int, content: bytes, *, client: int = 5) -> bytes:
    """The blocks of one client: one, in the root ``content``."""
    return b"\x01" + lib0.number(client) + b"\x00" + bytes((info,)) + b"\x01" + lib0.text("content") + content


def poison() -> dict[str, bytes]:
    word = block(4, lib0.text("x"))
    nested = b"\x75\x01" * 100_000 + b"\x7e"
    return {
        "a value of 100,000 lists in one another": b"\x01" + block(8, b"\x01" + nested) + b"\x00",
        "a document within, with such options": b"\x01" + block(9, lib0.text("guid") + nested) + b"\x00",
        "a client that is listed twice": b"\x02" + word + word + b"\x00",
        "a text without a character": b"\x01" + block(4, lib0.text("")) + b"\x00",
        "a gap of no length": b"\x01\x01\x05\x00\x00\x00\x00",
        "nothing deleted": b"\x01" + block(1, b"\x00") + b"\x00",
        "a value of no values": b"\x01" + block(8, b"\x00") + b"\x00",
        "a length beyond all clocks": b"\x01" + block(1, b"\xff\xff\xff\xff\xff\xff\xff\x0f") + b"\x00",
        "more blocks than there are bytes": b"\x01\xff\xff\xff\xff\xff\x0f\x05\x00",
        "more clients than there are bytes": b"\xff\xff\xff\xff\xff\x0f",
        "a deletion beyond all clocks": b"\x00\x01\x05\x01\xff\xff\xff\xff\x0f\xff\xff\xff\xff\x0f",
        "a shared type that there is not": b"\x01" + block(7, b"\x3f") + b"\x00",
        "a text that is no UTF-8": b"\x01" + block(4, b"\x02\xff\xfe") + b"\x00",
        "half of a surrogate pair": b"\x01" + block(4, b"\x03\xed\xa0\x80") + b"\x00",
        "nothing": b"",
        "an update, and more": typed("x") + b"\x00",
    }


async def test_poison_closes_its_sender_and_the_room_and_the_server_live_on() -> None:
    async with running_server() as server, calling(server) as operator:
        _, mallory = await operator.session("mallory")
        _, alice = await operator.session("alice")
        async with connected_to(base_of(server), alice) as room:
            await room.send(edit("alive "))
            await room.next(UPDATE)
            for what, update in poison().items():
                for kind in (STEP2, UPDATE):
                    async with connected_to(base_of(server), mallory) as sender:
                        await sender.send(kind + lib0.sized(update))

                        assert (await sender.end())[0] == 4400, what
            heard = [message for message in await room.heard() if not message.startswith(STEP1)]

            assert heard == []
            assert text_of(await room.missing()) == "alive "
        assert server.process.returncode is None


@both
async def test_poison_in_one_document_closes_the_hocuspocus_socket_that_brought_it(transport: str) -> None:
    async with a_site(transport) as site, hocuspocus_client(site) as alice:
        await alice.show("plan", await site.token())
        for what, update in poison().items():
            async with hocuspocus_client(site) as sender:
                await sender.say("plan", token_message(await site.token("mallory")), UPDATE + lib0.sized(update))

                assert (await sender.end())[0] == 4400, what
        await alice.say("plan", edit("alive"))

        assert await alice.hear("plan", APPLIED) == b""


@both
async def test_an_address_that_is_longer_than_a_name_can_be_is_refused(transport: str) -> None:
    """It stands in front of every message for it, so each change of anybody would cost so much."""
    async with a_site(transport) as site, hocuspocus_client(site) as client:
        token = await site.token()
        await client.say("plan\0" + "s" * 100_000, token_message(token))

        with pytest.raises(ConnectionClosed) as closed:
            await client.receive()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4400


# --- those who do not listen --------------------------------------------------------------------------------


async def test_readers_that_do_not_read_cost_little_and_keep_nobody_waiting() -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running_server(environment=GENEROUS))
        operator = await stack.enter_async_context(calling(server))
        _, token = await operator.session("deaf", grants=[{"documents": "plan", "access": "read"}])
        writer, reader = [
            await stack.enter_async_context(connected_to(base_of(server), (await operator.session(user))[1]))
            for user in ("writer", "reader")
        ]
        await writer.send(edit("begun"))
        for client in (writer, reader):
            await client.next(UPDATE)
        deaf = [await stack.enter_async_context(dialled(server)) for _ in range(10)]
        for client in deaf:
            answer = await client.upgrade("/yjs/plan", {"Authorization": f"Bearer {token}"})
            assert answer.status == 101
            client.read_nothing()
        before = resident(server)

        for update in many_updates("x" * 16_000, times=500):
            await writer.send(UPDATE + lib0.sized(update))
            assert content_of(await reader.next(UPDATE)) == content_of(await writer.next(UPDATE)) == update
        grown = resident(server) - before

        assert grown < 60 * MEBIBYTE  # the document, and its log in memory; ten queues would be 80 more
        for client in deaf:
            client.read_on()
            assert await closing(client) == (1013).to_bytes(2, "big") + b"too_slow"
        async with connected_to(base_of(server), token) as again:
            whole = await again.missing()
            assert len(document_of(whole).get("cells", type=Map)) == 500


async def closing(client: RawClient) -> bytes:
    """What is in the close frame, behind everything else that still comes."""
    while (received := await client.receive()) is not None:
        if received.opcode == CLOSE:
            return received.payload
    return b""


def many_updates(value: str, *, times: int) -> Iterator[bytes]:
    """Each puts the value into another place of the map ``cells``."""
    doc: Doc[Any] = Doc()
    cells = doc.get("cells", type=Map)
    for number in range(times):
        before = doc.get_state()
        cells[str(number)] = value
        yield doc.get_update(before)


async def test_a_reader_that_falls_behind_for_a_while_is_given_what_it_missed_in_one() -> None:
    async with running_server(environment=GENEROUS) as server, calling(server) as operator, dialled(server) as slow:
        tokens = [(await operator.session(user))[1] for user in ("writer", "slow")]
        answer = await slow.upgrade("/yjs/plan", {"Authorization": f"Bearer {tokens[1]}"})
        assert answer.status == 101
        async with AsyncExitStack() as stack:
            typist = await stack.enter_async_context(typing(lambda: base_of(server), tokens[0]))
            slow.read_nothing()
            for number in range(300):
                typist.replace(f"{number};" + "x" * 40_000)  # 12 MB, of which 40 kB are left
                await typist.wait(lambda: len(typist.saved) == len(typist.typed))

            slow.read_on()
            doc: Doc[Any] = Doc()
            updates = 0
            while str(doc.get("content", type=Text)) != typist.text:
                received = await slow.receive()
                assert received is not None
                assert received.opcode == BINARY, received
                if received.payload.startswith(UPDATE):
                    doc.apply_update(content_of(received.payload[2:]))
                    updates += 1

            assert 0 < updates < 300


# --- histories and names ------------------------------------------------------------------------------------


@both
async def test_a_client_with_the_history_of_a_deleted_document_does_not_bring_it_back(transport: str) -> None:
    async with a_site(transport) as site:
        token = await site.token()
        async with y_client(site, token) as alice:
            await alice.send(edit("the old one"))
            old = content_of(await alice.next(UPDATE))
            assert alice.socket.response is not None
            lineage = alice.socket.response.headers["roomkey-lineage"]
            await DocumentService(site.node.documents).delete("plan")
            deleted = await alice.end()
        async with y_client(site, token) as bob:
            await bob.send(edit("the new one"))
            await bob.next(UPDATE)

            async with y_client(site, token, lineage=lineage) as alice:
                with suppress(ConnectionClosed):
                    await alice.send(STEP2 + lib0.sized(old))
                reset = await alice.end()
            async with y_client(site, token) as alice:
                await alice.send(EMPTY_STEP2)
                begun_anew = text_of(await alice.missing())

    assert deleted[0] == 4410
    assert reset == (4205, "lineage_mismatch")
    assert begun_anew == "the new one"


@both
async def test_a_client_that_cannot_say_which_history_it_has_does_not_bring_it_back_either(transport: str) -> None:
    async with a_site(transport) as site:
        token = await site.token()
        async with hocuspocus_client(site) as alice, y_client(site, token) as bob:
            await bob.send(edit("the old one"))
            old = content_of(await bob.next(UPDATE))
            await alice.show("plan", token)
            await DocumentService(site.node.documents).delete("plan")
            await bob.end()
            async with y_client(site, token) as carol:
                await carol.send(edit("the new one"))
                await carol.next(UPDATE)

            async with y_client(site, token) as bob_again:
                await bob_again.send(STEP2 + lib0.sized(old))
                ended = await bob_again.end()
            await alice.heard()
            await alice.show("plan", token)
            await alice.say("plan", STEP2 + lib0.sized(old))
            await alice.hear("plan", yjs.permission_denied("document_deleted"))
            async with y_client(site, token) as dora:
                await dora.send(EMPTY_STEP2)
                begun_anew = text_of(await dora.missing())

    assert ended == (4410, "document_deleted")
    assert begun_anew == "the new one"


NAMES: Sequence[str] = (
    "plan",
    "Plan",
    "plan ",
    "a/b",
    "a%2Fb",
    "a//b",
    "/a",
    "a/",
    "ä",
    "a\u0308",
    "😀/日本語",
    "...",
    "x" * 1024,
    "x" * 1023 + "y",
    "ü" * 512,
    "?a=b#c",
    "plan?status=1",
)


async def test_every_name_is_a_document_of_its_own_also_after_a_restart(tmp_path: Path) -> None:
    storage = f"lmdb://{tmp_path}"
    async with running_server(storage=storage) as server, calling(server) as operator:
        _, token = await operator.session()
        for name in NAMES:
            async with connected_to(base_of(server), token, name, status="1") as client:
                await client.send(edit(name))
                await client.next(STATUS)
        await server.stop(signal.SIGKILL)

    async with running_server(storage=storage) as server:
        texts: dict[str, str] = {}
        for name in NAMES:
            async with connected_to(base_of(server), token, name) as client:
                texts[name] = text_of(await client.missing())

    assert texts == {name: name for name in NAMES}
