"""
The main job, as its user has it.

A server of its own, sessions over REST, editors in a room over WebSocket, and an end to both.
"""

import asyncio
import json
import shutil
import signal
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.calls import Caller, calling
from tests.support.editor import JsonEditor, Message, editing
from tests.support.server import Server, lasting_server, running_server

CLIENTS = Path(__file__).parents[1] / "clients"
NODE = shutil.which("node")


NUMBERS = count()


def fresh(name: str) -> str:
    """A name like ``name`` that no other test on the same server uses."""
    return f"{name}-{next(NUMBERS)}"


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with lasting_server() as server:
        yield server


class Room(NamedTuple):
    """Two editors in one document, and who lets them in. ``session`` is alice's."""

    caller: Caller
    alice: JsonEditor
    bob: JsonEditor
    session: str
    document: str
    names: tuple[str, str]


@asynccontextmanager
async def a_room(server: Server) -> AsyncGenerator[Room]:
    names, document = (fresh("alice"), fresh("bob")), fresh("plan")
    async with calling(server) as caller:
        id, token = await caller.session(names[0])
        _, bobs = await caller.session(names[1])
        async with (
            editing(server.websocket_url, token) as alice,
            editing(server.websocket_url, bobs, compressed=False) as bob,
        ):
            await alice.subscribe(document)
            await bob.subscribe(document)
            yield Room(caller, alice, bob, id, document, names)


async def test_edits_reach_the_others_with_who_wrote_them(server: Server) -> None:
    async with a_room(server) as room:
        done = await room.alice.edit(room.document, text="hello", long="x" * 5000)
        heard = await room.bob.next("realtime_edit")

        assert heard["text"] == "hello"
        assert heard["long"] == "x" * 5000
        assert heard["session_info"] == {"session_id": room.session, "user_id": room.names[0]}
        assert heard["position"] == done["position"]
        assert done["position"]["offset"] == 1


@pytest.mark.parametrize(
    ("command", "message", "code", "reason"),
    [
        ("invalidate", "session_invalidated", 4401, "session_invalidated"),
        ("suspend", "session_suspended", 4423, "session_suspended"),
        ("expire", "session_disconnected", 4401, "session_expired"),
    ],
)
async def test_ending_a_session_ends_its_sockets_before_the_answer(
    command: str, message: str, code: int, reason: str, server: Server
) -> None:
    async with a_room(server) as room:
        await room.caller.put(room.session, command)

        ended = await room.alice.end()

        assert ended[:2] == (code, reason)
        assert message in ended[2]
        assert (await room.bob.ask("heartbeat"))["message_type"] == "heartbeat_ack"


async def test_deleting_a_session_and_revoking_a_user_end_sockets_too(server: Server) -> None:
    async with a_room(server) as room:
        assert (await room.caller.http.delete(f"/sessions/{room.session}")).status_code == 204
        revoked = await room.caller.http.delete(f"/users/{room.names[1]}/sessions")

        assert revoked.json() == {"epoch": 1, "revoked": 1}
        assert (await room.alice.end())[0] == (await room.bob.end())[0] == 4401


async def test_a_user_who_ends_all_other_sessions_keeps_this_one(server: Server) -> None:
    async with calling(server) as caller:
        name = fresh("alice")
        _, mine = await caller.session(name)
        _, other = await caller.session(name)
        async with editing(server.websocket_url, mine) as here, editing(server.websocket_url, other) as there:
            answer = await caller.http.delete(
                f"/users/{name}/sessions?except=current", headers={"Authorization": f"Bearer {mine}"}
            )

            assert answer.json()["revoked"] == 1
            assert (await there.end())[0] == 4401
            assert (await here.ask("heartbeat"))["message_type"] == "heartbeat_ack"


@pytest.mark.parametrize(
    ("command", "status", "code"),
    [
        ("invalidate", 410, "session_invalidated"),
        ("suspend", 401, "session_suspended"),
        ("expire", 410, "session_expired"),
        (None, 401, "invalid_token"),
    ],
)
async def test_a_token_that_opens_nothing_is_refused_before_the_upgrade(
    command: str | None, status: int, code: str, server: Server
) -> None:
    async with calling(server) as caller:
        id, token = await caller.session(fresh("alice"))
        if command:
            await caller.put(id, command)
        else:
            token = token[:-3] + ("AAA" if token[-3:] != "AAA" else "BBB")

        with pytest.raises(InvalidStatus) as refusal:
            await connect(server.websocket_url, additional_headers={"Authorization": f"Bearer {token}"}, proxy=None)

        response = refusal.value.response
        assert response.status_code == status
        assert response.body is not None
        assert json.loads(response.body)["code"] == code
        assert token.encode() not in response.body
        assert token not in server.errors


async def test_a_pending_session_may_not_use_rooms(server: Server) -> None:
    async with calling(server) as caller:
        token = (await caller.http.post("/sessions", json={"user_id": fresh("alice")})).json()["token"]

        with pytest.raises(InvalidStatus) as refusal:
            await connect(server.websocket_url, additional_headers={"X-Session-ID": token}, proxy=None)

        assert refusal.value.response.status_code == 403


async def test_a_ticket_opens_one_socket_once(server: Server) -> None:
    async with calling(server) as caller:
        _, token = await caller.session(fresh("alice"))
        bearer = {"Authorization": f"Bearer {token}"}
        ticket = (await caller.http.post("/sessions/me/tickets", headers=bearer)).json()["ticket"]
        url = f"{server.websocket_url}?ticket={ticket}"

        async with connect(url, proxy=None) as socket:
            greeting = json.loads(await socket.recv())
        with pytest.raises(InvalidStatus) as refusal:
            await connect(url, proxy=None)

        assert greeting["message_type"] == "session_connected"
        assert refusal.value.response.status_code == 401
        assert ticket not in server.errors


async def test_a_subscriber_that_returns_gets_what_it_missed_and_no_more(server: Server) -> None:
    async with a_room(server) as room:
        position = (await room.alice.edit(room.document, n=0))["position"]
        await room.bob.socket.close()
        for number in range(1, 51):
            await room.alice.edit(room.document, n=number)
        _, token = await room.caller.session(room.names[1])

        async with editing(server.websocket_url, token) as again:
            subscribed = await again.subscribe(room.document, since=position)
            await room.alice.edit(room.document, n=51)
            live = await again.next("realtime_edit")

        assert subscribed["recovered"] is True
        missed = [message["payload"]["n"] for message in subscribed["publications"]]
        assert [*missed, live["n"]] == list(range(1, 52))


async def test_a_restart_loses_no_session(tmp_path: Path) -> None:
    folder = str(tmp_path / "data")
    async with running_server("--data", folder, storage="file") as server, calling(server) as caller:
        id, token = await caller.session(metadata={"tab": 1}, grants=[{"documents": "plan", "access": "write"}])
        before = await caller.show(id)
        async with editing(server.websocket_url, token) as alice:
            await alice.subscribe("plan")
            position = (await alice.edit("plan", n=1))["position"]
        await server.stop(signal.SIGKILL)

    async with running_server("--data", folder, storage="file") as server, calling(server) as caller:
        after = await caller.show(id)
        async with editing(server.websocket_url, token) as alice:
            subscribed = await alice.subscribe("plan", since=position)

    assert after | {"last_seen_at": 0, "idle_expires_at": 0} == before | {"last_seen_at": 0, "idle_expires_at": 0}
    # The history of a room lives in memory: the client is told to reload rather than given a part.
    assert subscribed["recovered"] is False
    assert subscribed["position"]["epoch"] != position["epoch"]


async def test_a_signal_sends_everyone_away_in_good_order() -> None:
    async with running_server() as server, a_room(server) as room:
        code = await server.stop()

        ends = [await room.alice.end(), await room.bob.end()]

        assert code == 0
        assert [(end[0], end[2][-1]) for end in ends] == [(1012, "draining")] * 2


async def test_two_servers_on_one_directory_obey_each_other(tmp_path: Path) -> None:
    folder = ("--data", str(tmp_path / "data"))
    async with (
        running_server(*folder, storage="file") as one,
        running_server(*folder, storage="file") as other,
        calling(one) as caller,
        calling(other) as caller_there,
    ):
        id, token = await caller.session()
        async with editing(other.websocket_url, token) as alice:
            await caller.put(id, "invalidate")

            assert (await alice.end())[:2] == (4401, "session_invalidated")
        assert (await caller_there.show(id))["state"] == "invalidated"


@pytest.mark.skipif(NODE is None or not (CLIENTS / "node_modules").exists(), reason="Node.js and its packages")
async def test_a_client_on_node_edits_with_everyone_else(server: Server) -> None:
    async with a_room(server) as room:
        id, token = await room.caller.session(nora := fresh("nora"))
        assert NODE is not None
        node = await asyncio.create_subprocess_exec(
            NODE, "editor.mjs", server.websocket_url, token, room.document, "hi", cwd=CLIENTS, stdin=PIPE, stdout=PIPE
        )

        async def says() -> Message:
            assert node.stdout is not None
            async with asyncio.timeout(10):
                return json.loads(await node.stdout.readline())

        opened = await says()
        while (await says()).get("message", {}).get("message_type") != "subscribed":
            pass
        await room.alice.edit(room.document, text="hello")
        heard = await says()
        assert node.stdin is not None
        node.stdin.write(b"\n")
        seen = await room.alice.next("realtime_edit")
        acknowledged = await says()
        await room.caller.put(id, "suspend")
        farewell, closed = await says(), await says()
        await node.wait()

        assert opened == {"opened": "roomkey.v1"}
        assert heard["message"]["payload"]["text"] == "hello"
        assert (seen["text"], seen["session_info"]["user_id"]) == ("hi", nora)
        assert acknowledged["message"]["message_type"] == "ack"
        assert farewell["message"]["message_type"] == "session_suspended"
        assert closed == {"closed": 4423, "reason": "session_suspended"}
