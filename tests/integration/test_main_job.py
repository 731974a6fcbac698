"""
The main job, as its user has it.

A server of its own, sessions over REST, editors in a room over WebSocket, and an end to both.
"""

import asyncio
import json
import shutil
import signal
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.calls import Caller, calling
from tests.support.editor import Editor, Message, editing
from tests.support.server import RunningServer, running_server

CLIENTS = Path(__file__).parents[1] / "clients"
NODE = shutil.which("node")


@asynccontextmanager
async def a_room(
    *arguments: str, storage: str = "memory"
) -> AsyncGenerator[tuple[RunningServer, Caller, Editor, Editor, str]]:
    """A server with two editors in the document ``plan``: alice's, whose session id comes last, and bob's."""
    async with running_server(*arguments, storage=storage) as server, calling(server) as caller:
        id, token = await caller.session("alice")
        _, bobs = await caller.session("bob")
        async with (
            editing(server.websocket_url, token) as alice,
            editing(server.websocket_url, bobs, compressed=False) as bob,
        ):
            await alice.subscribe("plan")
            await bob.subscribe("plan")
            yield server, caller, alice, bob, id


async def test_edits_reach_the_others_with_who_wrote_them() -> None:
    async with a_room() as (_, _, alice, bob, id):
        done = await alice.edit("plan", text="hello", long="x" * 5000)
        heard = await bob.next("realtime_edit")

        assert heard["text"] == "hello"
        assert heard["long"] == "x" * 5000
        assert heard["session_info"] == {"session_id": id, "user_id": "alice"}
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
    command: str, message: str, code: int, reason: str
) -> None:
    async with a_room() as (_, caller, alice, bob, id):
        await caller.put(id, command)

        ended = await alice.end()

        assert ended[:2] == (code, reason)
        assert message in ended[2]
        assert (await bob.ask("heartbeat"))["message_type"] == "heartbeat_ack"


async def test_deleting_a_session_and_revoking_a_user_end_sockets_too() -> None:
    async with a_room() as (_, caller, alice, bob, id):
        assert (await caller.http.delete(f"/sessions/{id}")).status_code == 204
        revoked = await caller.http.delete("/users/bob/sessions")

        assert revoked.json() == {"epoch": 1, "revoked": 1}
        assert (await alice.end())[0] == (await bob.end())[0] == 4401


async def test_a_user_who_ends_all_other_sessions_keeps_this_one() -> None:
    async with running_server() as server, calling(server) as caller:
        _, mine = await caller.session()
        _, other = await caller.session()
        async with editing(server.websocket_url, mine) as here, editing(server.websocket_url, other) as there:
            answer = await caller.http.delete(
                "/users/alice/sessions?except=current", headers={"Authorization": f"Bearer {mine}"}
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
    command: str | None, status: int, code: str
) -> None:
    async with running_server() as server, calling(server) as caller:
        id, token = await caller.session()
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


async def test_a_pending_session_may_not_use_rooms() -> None:
    async with running_server() as server, calling(server) as caller:
        token = (await caller.http.post("/sessions", json={"user_id": "alice"})).json()["token"]

        with pytest.raises(InvalidStatus) as refusal:
            await connect(server.websocket_url, additional_headers={"X-Session-ID": token}, proxy=None)

        assert refusal.value.response.status_code == 403


async def test_a_ticket_opens_one_socket_once() -> None:
    async with running_server() as server, calling(server) as caller:
        _, token = await caller.session()
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


async def test_a_subscriber_that_returns_gets_what_it_missed_and_no_more() -> None:
    async with a_room() as (server, caller, alice, bob, _):
        position = (await alice.edit("plan", n=0))["position"]
        await bob.socket.close()
        for number in range(1, 51):
            await alice.edit("plan", n=number)
        _, token = await caller.session("bob")

        async with editing(server.websocket_url, token) as again:
            subscribed = await again.subscribe("plan", since=position)
            await alice.edit("plan", n=51)
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
    async with a_room() as (server, _, alice, bob, _):
        code = await server.stop()

        ends = [await alice.end(), await bob.end()]

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
async def test_a_client_on_node_edits_with_everyone_else() -> None:
    async with a_room() as (server, caller, alice, _, _):
        id, token = await caller.session("nora")
        assert NODE is not None
        node = await asyncio.create_subprocess_exec(
            NODE, "editor.mjs", server.websocket_url, token, "plan", "hi", cwd=CLIENTS, stdin=PIPE, stdout=PIPE
        )

        async def says() -> Message:
            assert node.stdout is not None
            async with asyncio.timeout(10):
                return json.loads(await node.stdout.readline())

        opened = await says()
        while (await says()).get("message", {}).get("message_type") != "subscribed":
            pass
        await alice.edit("plan", text="hello")
        heard = await says()
        assert node.stdin is not None
        node.stdin.write(b"\n")
        seen = await alice.next("realtime_edit")
        acknowledged = await says()
        await caller.put(id, "suspend")
        farewell, closed = await says(), await says()
        await node.wait()

        assert opened == {"opened": "roomkey.v1"}
        assert heard["message"]["payload"]["text"] == "hello"
        assert (seen["text"], seen["session_info"]["user_id"]) == ("hi", "nora")
        assert acknowledged["message"]["message_type"] == "ack"
        assert farewell["message"]["message_type"] == "session_suspended"
        assert closed == {"closed": 4423, "reason": "session_suspended"}
