"""The client for programs, against real servers: commands, and a document that stays open through a bad day."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from socket import socket
from typing import Any

import pytest
from pycrdt import Doc, Text
from websockets.asyncio.server import ServerConnection, serve

from roomkey.api.schemas import IssuedBody
from roomkey.client import LiveDocument, Removed, Roomkey, State
from roomkey.domain.access import Access, Grant
from roomkey.domain.session import SessionState
from roomkey.errors import (
    ConfigurationError,
    Forbidden,
    GroupNotFound,
    InvalidState,
    InvalidToken,
    NotFound,
    Storage,
    VersionMismatch,
)
from roomkey.realtime.protocol.yjs_messages import sync_step1, sync_step2
from tests.support.server import Server, lasting_server, running_server

PATIENCE = 60


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with lasting_server() as running:
        yield running


@asynccontextmanager
async def client(server: Server, token: str | None = None) -> AsyncGenerator[Roomkey]:
    async with asyncio.timeout(PATIENCE), Roomkey(server.url, token=token) as roomkey:
        yield roomkey


async def session(server: Server, user: str, *grants: Grant) -> IssuedBody:
    async with client(server) as admin:
        return await admin.sessions.create(user, activate=True, grants=grants or None)


def text_of(live: LiveDocument) -> Text:
    return live.doc.get("content", type=Text)


async def until(live: LiveDocument, is_so: Callable[[], Any]) -> None:
    """Wait for a change of the document after which it is so."""
    changed = asyncio.Event()
    observed = live.doc.observe(lambda _event: changed.set())
    try:
        while not is_so():
            await changed.wait()
            changed.clear()
    finally:
        live.doc.unobserve(observed)


# --- commands -----------------------------------------------------------------------------------------


async def test_the_life_of_a_session(server: Server) -> None:
    async with client(server) as admin:
        issued = await admin.sessions.create(
            "ada", grants=[{"documents": "notes/**", "access": "read"}], metadata={"name": "Ada"}
        )
        id = issued.session.id
        assert issued.session.state is SessionState.PENDING
        assert issued.session.grants == (Grant("notes/**", Access.READ),)
        assert (await admin.sessions.activate(id)).state is SessionState.ACTIVE
        assert (await admin.sessions.suspend(id, reason="lunch")).state is SessionState.SUSPENDED
        assert (await admin.sessions.resume(id)).state is SessionState.ACTIVE
        assert (await admin.sessions.extend(id, timedelta(hours=1))).version > issued.session.version
        assert (await admin.sessions.grant(id, [Grant("**", Access.WRITE)])).grants == (Grant("**", Access.WRITE),)
        assert [each.id async for each in admin.sessions.list(user_id="ada")] == [id]
        async with client(server, issued.token) as ada:
            assert (await ada.sessions.me()).metadata == {"name": "Ada"}
            assert (await ada.sessions.ticket()).expires_in > 0
            newer = await ada.sessions.rotate(id)
        await admin.sessions.create("ada")
        async with client(server, newer) as ada:
            assert (await ada.sessions.me()).id == id
            assert (await ada.sessions.revoke_user("ada", keep_current=True)).revoked == 1
        assert (await admin.sessions.revoke_user("ada", reason="has left")).revoked == 1
        assert (await admin.sessions.get(id)).state is SessionState.INVALIDATED
        await admin.sessions.delete(id)
        with pytest.raises(NotFound):
            await admin.sessions.get(id)


async def test_a_group_is_made_changed_listed_and_forgotten(server: Server) -> None:
    async with client(server) as admin:
        for access in ("read", "write"):
            await admin.groups.put("team-7", [{"documents": "team/**", "access": access}])
        issued = await admin.sessions.create("ada", grants=[Grant(group="team-7")], activate=True)

        async with client(server, issued.token) as ada:
            await ada.documents.write("team/plan", {"content": "ours"})
        assert (await admin.groups.get("team-7")).grants[0].access is Access.WRITE
        assert [group.name async for group in admin.groups.list()] == ["team-7"]

        await admin.groups.delete("team-7")
        with pytest.raises(GroupNotFound):
            await admin.groups.get("team-7")


async def test_documents_are_written_edited_kept_and_brought_back(server: Server) -> None:
    async with client(server) as admin:
        documents = admin.documents
        made = await documents.write("kept/plan", {"content": "Hello", "tasks": ["write"]})
        before = await documents.read("kept/plan")
        assert before.content == {"content": "Hello", "tasks": ["write"]}
        version = await documents.keep_version("kept/plan", "first")
        await documents.edit("kept/plan", "content", 5, insert=", world", etag=before.etag)
        assert await documents.read_text("kept/plan", "content") == "Hello, world"
        with pytest.raises(VersionMismatch):
            await documents.edit("kept/plan", "content", 0, insert="late", etag=before.etag)
        with pytest.raises(VersionMismatch):
            await documents.write("kept/plan", {"tasks": []}, etag=before.etag)

        copy: Doc[Any] = Doc()
        copy.apply_update(await documents.read_update("kept/plan"))
        copy.get("content", type=Text).insert(0, "> ")
        await documents.merge("kept/plan", copy.get_update())
        assert await documents.read_text("kept/plan", "content") == "> Hello, world"
        assert [each.actor for each in await documents.blame("kept/plan", "content")]

        assert [each.number async for each in documents.versions("kept/plan")] == [version.number]
        await documents.restore("kept/plan", version.number)
        assert await documents.read_text("kept/plan", "content") == "Hello"
        assert [(each.name, each.lineage) async for each in documents.list("kept/")] == [("kept/plan", made.lineage)]
        await documents.delete("kept/plan")
        with pytest.raises(NotFound):
            await documents.read("kept/plan")


async def test_errors_are_those_of_the_library(server: Server) -> None:
    issued = await session(server, "eve", Grant("shown/**", Access.READ))
    async with client(server, issued.token) as eve:
        with pytest.raises(NotFound):
            await eve.documents.write("hidden/plan", {"content": "x"})
        with pytest.raises(Forbidden):
            await eve.documents.write("shown/plan", {"content": "x"})
    async with client(server, "no token") as nobody:
        with pytest.raises(InvalidToken):
            await nobody.sessions.me()
    async with client(server) as admin:
        await admin.sessions.invalidate(issued.session.id)
        with pytest.raises(InvalidState):
            await admin.sessions.resume(issued.session.id)


async def test_a_server_that_is_not_there_is_said_to_be_away() -> None:
    with socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and nobody listens
        async with Roomkey(f"http://127.0.0.1:{bound.getsockname()[1]}") as roomkey:
            with pytest.raises(Storage, match="no answer from the server"):
                await roomkey.documents.delete("plan")


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="begins with http"):
        Roomkey("ws://127.0.0.1")


# --- a document that is open --------------------------------------------------------------------------


async def test_two_programs_write_one_document_and_see_each_other(server: Server) -> None:
    ada, ben = await session(server, "ada"), await session(server, "ben")
    async with (
        client(server) as roomkey,
        roomkey.live("both", ada.token) as one,
        roomkey.live("both", ben.token) as other,
    ):
        await asyncio.gather(one.synced(), other.synced())
        one.show({"name": "Ada"})
        text_of(one).insert(0, "Hello")
        await until(other, lambda: str(text_of(other)) == "Hello")
        text_of(other).insert(5, ", world")
        await asyncio.gather(one.saved(), other.saved())
        await until(one, lambda: str(text_of(one)) == "Hello, world")

        assert (one.state, one.unsaved, other.unsaved) == (State.ACTIVE, 0, 0)
        assert await roomkey.documents.read_text("both", "content") == "Hello, world"
        (shown,) = other.present.values()
        assert shown["name"] == "Ada"


async def test_whoever_may_only_read_is_told_so_and_writes_as_soon_as_that_changes(server: Server) -> None:
    issued = await session(server, "reader", Grant("**", Access.READ))
    async with client(server) as admin, admin.live("readable", issued.token) as live:
        await admin.documents.write("readable", {"content": "old"})
        await live.is_in(State.READONLY)
        await until(live, lambda: str(text_of(live)) == "old")
        text_of(live).insert(0, "my ")
        assert live.unsaved == 1

        await admin.sessions.grant(issued.session.id, [Grant("**", Access.WRITE)])
        await live.is_in(State.ACTIVE)
        await live.saved()

        assert await admin.documents.read_text("readable", "content") == "my old"


async def test_a_session_that_is_suspended_goes_on_and_one_that_is_ended_is_told_why(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roomkey.client.live.SUSPENDED_SECONDS", 0.05)
    issued = await session(server, "paused")
    states: list[State] = []
    async with client(server) as admin, admin.live("paused", issued.token) as live:
        live.on_state(states.append)
        await live.synced()
        await admin.sessions.suspend(issued.session.id, reason="lunch")
        await live.is_in(State.SUSPENDED)
        assert live.code == "session_suspended"
        text_of(live).insert(0, "typed meanwhile")
        await admin.sessions.resume(issued.session.id)
        await live.is_in(State.ACTIVE)
        await live.saved()
        assert await admin.documents.read_text("paused", "content") == "typed meanwhile"

        await admin.sessions.invalidate(issued.session.id, reason="spam")
        with pytest.raises(Removed) as removed:
            await live.is_in(State.OFFLINE)

        assert (live.state, live.code, live.reason) == (State.REMOVED, "session_invalidated", "spam")
        assert removed.value.ending.reason == "spam"
        assert states == [State.ACTIVE, State.SUSPENDED, State.ACTIVE, State.REMOVED]


async def test_with_a_function_for_its_token_it_goes_on_with_another_session(server: Server) -> None:
    first, second = await session(server, "renewed"), await session(server, "renewed")
    tokens = [first.token]

    async def newest() -> str:
        return tokens[-1]

    async with client(server) as admin, admin.live("renewed", newest) as live:
        await live.synced()
        tokens.append(second.token)
        await admin.sessions.expire(first.session.id)
        await live.is_in(State.CONNECTING)
        text_of(live).insert(0, "still here")
        await live.is_in(State.ACTIVE)
        await live.saved()
        assert await admin.documents.read_text("renewed", "content") == "still here"


async def test_what_has_no_newer_token_is_over(server: Server) -> None:
    issued = await session(server, "over")
    asked = 0

    def same() -> str:
        nonlocal asked
        asked += 1
        return issued.token

    async with client(server) as admin, admin.live("over", same) as live:
        await live.synced()
        await admin.sessions.expire(issued.session.id)
        with pytest.raises(Removed, match="expired: session_expired"):
            await live.is_in(State.OFFLINE)
        assert asked == 2, "once more, in vain"


async def test_an_application_that_has_no_token_just_now_is_asked_again(server: Server) -> None:
    issued = await session(server, "late")
    answers = [RuntimeError("the identity provider is away"), issued.token]

    def token() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with client(server) as roomkey, roomkey.live("late", token) as live:
        await live.synced()
        assert live.state is State.ACTIVE


async def test_a_document_that_is_deleted_is_over_for_whoever_has_it_open(server: Server) -> None:
    issued = await session(server, "ada")
    async with client(server) as admin, admin.live("short", issued.token) as live:
        text_of(live).insert(0, "gone")
        await live.saved()
        await admin.documents.delete("short")
        with pytest.raises(Removed, match="document_deleted"):
            await live.is_in(State.OFFLINE)


async def test_what_is_typed_while_the_server_is_away_is_there_when_it_is_back(tmp_path: Path) -> None:
    storage = f"lmdb://{tmp_path / 'data'}"
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
        async with running_server(storage=storage) as server:
            issued = await session(server, "ada")
            roomkey = await stack.enter_async_context(Roomkey(server.url))
            live = await stack.enter_async_context(roomkey.live("notes", issued.token))
            text_of(live).insert(0, "before")
            await live.saved()
            await server.stop(signal.SIGKILL)
            await live.is_in(State.OFFLINE)
        text_of(live).insert(6, ", meanwhile")
        assert live.unsaved == 1
        async with running_server(storage=storage, port=server.port):
            await live.saved()
            assert live.state is State.ACTIVE
            assert await roomkey.documents.read_text("notes", "content") == "before, meanwhile"


# --- a server that does what ours does not ------------------------------------------------------------


@asynccontextmanager
async def odd_server(*frames: bytes) -> AsyncGenerator[str]:
    """A server that says these things to the first who comes, and is well-behaved and empty for whoever comes later."""
    said = [*frames]

    async def talk(socket: ServerConnection) -> None:
        mine = [said.pop() for _ in range(len(said))] or [sync_step1(b"\0"), sync_step2(b"\0\0")]
        for frame in mine:
            await socket.send(frame)
        await socket.wait_closed()

    async with serve(talk, "127.0.0.1", 0) as running:
        yield f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    "frame",
    [b"", b"\xff\xff", b"\0", b"\0\2\3\xff\xff\xff", b"\1\x80", b"\2\0", b"\x08", b"\1\7\1\1\1\3{{{"],
    ids=lambda frame: frame.hex() or "nothing",
)
async def test_a_server_that_talks_nonsense_is_left_and_tried_again(frame: bytes) -> None:
    async with (
        asyncio.timeout(PATIENCE),
        odd_server(frame) as url,
        Roomkey(url) as roomkey,
        roomkey.live("plan", "token") as live,
    ):
        if frame not in (b"", b"\xff\xff"):  # messages that nobody knows are passed over
            await live.synced()
            assert live.state is State.ACTIVE


async def test_who_is_logged_out_everywhere_is_told_why(server: Server) -> None:
    issued = await session(server, "leaver")
    async with client(server) as admin, admin.live("left/behind", issued.token) as live:
        await live.synced()

        await admin.sessions.revoke_user("leaver", reason="has left the company")
        await live.is_in(State.REMOVED)

        assert (live.code, live.reason) == ("session_invalidated", "has left the company")


async def test_a_watcher_that_fails_harms_nobody(server: Server) -> None:
    issued = await session(server, "ada")
    states: list[State] = []

    def fail(state: State) -> None:
        raise RuntimeError(state)

    async with client(server) as roomkey, roomkey.live("watched", issued.token) as live:
        live.on_state(fail)
        live.on_state(states.append)
        text_of(live).insert(0, "x")
        await live.saved()
    assert states == [State.ACTIVE]  # nor is it told of what its owner does


async def test_whoever_waits_when_it_is_left_waits_no_more(server: Server) -> None:
    issued = await session(server, "ada")
    async with client(server) as roomkey:
        async with roomkey.live("left", issued.token) as live:
            await live.synced()
            waiting = asyncio.create_task(live.is_in(State.SUSPENDED))
            await asyncio.sleep(0)
        with pytest.raises(Removed, match="left"):
            await waiting


async def test_a_session_whose_record_is_gone_is_followed_by_another_one(server: Server) -> None:
    first, second = await session(server, "purged"), await session(server, "purged")
    tokens = [first.token, second.token]
    async with client(server) as admin:
        await admin.sessions.delete(first.session.id)
        async with admin.live("purged", lambda: tokens.pop(0)) as live:
            await live.synced()
            assert live.state is State.ACTIVE
