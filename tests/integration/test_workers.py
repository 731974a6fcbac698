"""``roomkey serve --workers``: one port, several processes, and what becomes of them when some of them die."""

import asyncio
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from roomkey.security import apikeys
from tests.support.deployments import until
from tests.support.server import RunningServer, outcome, running_server

PATIENCE_SECONDS = 20

TOKEN, DIGEST = apikeys.mint()
KEYS = {"ROOMKEY_API_KEYS": f"backend:admin:{DIGEST}"}


@asynccontextmanager
async def workers(
    folder: Path, *arguments: str, count: int = 2, port: int = 0, storage: str | None = None
) -> AsyncGenerator[RunningServer]:
    """A server of ``count`` workers on one directory."""
    options = ("--workers", str(count), *arguments)
    place = storage or f"lmdb://{folder}"
    async with running_server(*options, storage=place, dev=False, port=port, environment=KEYS) as server:
        yield server


def lines_of(server: RunningServer, event: str) -> list[dict[str, Any]]:
    """What the log says of that kind."""
    lines = [json.loads(line) for line in server.errors.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def pids_of(server: RunningServer) -> Mapping[str, int]:
    """The process of each node that has ever been ready."""
    return {line["node"]: line["pid"] for line in lines_of(server, "worker_ready")}


def alive(pid: int) -> bool:
    """Whether there is such a process, one that has ended and is not buried included."""
    return psutil.pid_exists(pid)


def serves(pid: int) -> bool:
    """Whether there is such a process; whoever adopts an orphan may take its time to bury it."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def active_session(server: RunningServer, user: str = "alice") -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        response = await client.post("/sessions", json={"user_id": user, "activate": True})
        response.raise_for_status()
        return response.json()


def socket_to(server: RunningServer, token: str) -> connect:
    """A socket to the node that takes it first."""
    return connect(server.websocket_url, additional_headers={"Authorization": f"Bearer {token}"})


def node_behind(client: ClientConnection) -> str:
    assert client.response is not None
    return client.response.headers["roomkey-node"]


@asynccontextmanager
async def socket_on_each(
    server: RunningServer, token: str, count: int = 2
) -> AsyncGenerator[Mapping[str, ClientConnection]]:
    """A socket to each node: the system chooses which one a connection gets, so there are tries."""
    found: dict[str, ClientConnection] = {}
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(found) < count:
                client = await socket_to(server, token)
                if (node := node_behind(client)) in found:
                    await client.close()
                else:
                    found[node] = client
        yield found
    finally:
        for client in found.values():
            await client.close()


async def readiness(server: RunningServer) -> int:
    """What one of the nodes says, on a connection of its own."""
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{server.url}/health/ready")).status_code


async def close_code_of(client: ClientConnection) -> int | None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            while True:
                await client.recv()
        except ConnectionClosed:
            return client.close_code


async def test_each_worker_is_a_node_and_a_session_is_known_to_all(tmp_path: Path) -> None:
    async with workers(tmp_path) as server:
        issued = await active_session(server)
        async with socket_on_each(server, issued["token"]) as sockets:
            async with httpx.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
                await client.put(f"/sessions/{issued['session']['id']}/invalidate")
            codes = [await close_code_of(client) for client in sockets.values()]

        assert codes == [4401, 4401]
        assert set(sockets) == set(pids_of(server))
        (warning,) = lines_of(server, "workers_not_joined")
        assert "redis://" in warning["advice"]
        assert all("node" in line for line in lines_of(server, "stopping"))


async def test_a_worker_that_is_killed_takes_its_own_sockets_only_and_is_replaced(tmp_path: Path) -> None:
    async with workers(tmp_path) as server:
        issued = await active_session(server)
        async with socket_on_each(server, issued["token"]) as sockets:
            (killed, lost), (other, kept) = sockets.items()
            before = pids_of(server)
            os.kill(before[killed], signal.SIGKILL)
            await close_code_of(lost)
            await until(lambda: len(pids_of(server)) == 3, "a third worker")

            pong = await kept.ping()
            await asyncio.wait_for(pong, PATIENCE_SECONDS)
        (successor,) = pids_of(server).keys() - before.keys()
        async with socket_on_each(server, issued["token"]) as sockets:
            assert set(sockets) == {other, successor}

        await server.stop()
        (death,) = lines_of(server, "worker_died")
        assert death["node"] == killed
        assert death["how"] == "signal 9"
        assert server.process.stdout is not None
        assert await server.process.stdout.read() == b""  # it has greeted once
        assert not any(map(alive, pids_of(server).values()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_the_sockets_of_all_workers(number: signal.Signals, tmp_path: Path) -> None:
    async with workers(tmp_path) as server:
        issued = await active_session(server)
        async with socket_on_each(server, issued["token"]) as sockets:
            if number is signal.SIGTERM:  # which systemd sends to all of them, and it counts as one
                for pid in pids_of(server).values():
                    os.kill(pid, number)

            code = await server.stop(number)

            codes = [await close_code_of(client) for client in sockets.values()]

    assert code == 0
    assert codes == [1012, 1012]
    assert not any(map(alive, pids_of(server).values()))


async def test_a_second_signal_ends_all_at_once(tmp_path: Path) -> None:
    async with workers(tmp_path, "--set", "server.drain=10m", "--set", "http.body_timeout=10m") as server:
        # A request that does not come to its end keeps its worker from ending well.
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"POST /sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n"
            b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
        await writer.drain()
        issued = await active_session(server)
        async with socket_on_each(server, issued["token"]):
            server.process.send_signal(signal.SIGTERM)
            await server.says("stopping")

            code = await server.stop()

        writer.close()
    assert code == 1
    assert lines_of(server, "worker_killed") == []  # they were told, and ended
    assert not any(map(alive, pids_of(server).values()))


async def test_workers_end_when_their_supervisor_is_killed_and_leave_the_port(tmp_path: Path) -> None:
    async with workers(tmp_path) as server:
        issued = await active_session(server)
        async with socket_on_each(server, issued["token"]) as sockets:
            server.process.kill()
            await server.process.wait()

            codes = [await close_code_of(client) for client in sockets.values()]

        await until(lambda: not any(map(serves, pids_of(server).values())), "the end of the workers")
        async with workers(tmp_path, port=server.port) as successor:
            assert successor.port == server.port
    assert codes == [1012, 1012]


async def test_a_worker_that_gets_the_signal_alone_goes_and_is_replaced_while_others_serve(tmp_path: Path) -> None:
    async with workers(tmp_path) as server, AsyncExitStack() as stack:
        token = (await active_session(server))["token"]
        clients = [await stack.enter_async_context(socket_to(server, token)) for _ in range(12)]
        # It sends them away one after the other, so that takes a while.
        leaving = Counter(map(node_behind, clients)).most_common(1)[0][0]
        os.kill(pids_of(server)[leaving], signal.SIGTERM)
        await server.says("stopping")

        statuses = [await readiness(server) for _ in range(20)]
        codes = [await close_code_of(client) for client in clients if node_behind(client) == leaving]

        await until(lambda: len(pids_of(server)) == 3, "a third worker")
        (end,) = lines_of(server, "worker_died")
    assert set(statuses) == {200}
    assert set(codes) == {1012}
    assert end["how"] == "exit code 0"


async def test_a_taken_port_is_one_clear_line_and_exit_code_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        code, output, errors = await outcome(
            *("serve", "--workers", "2", "--storage", f"lmdb://{tmp_path}", "--port", str(port))
        )

    assert (code, output) == (2, "")
    assert errors.splitlines() == [f"roomkey: cannot listen on 127.0.0.1 port {port}: Address already in use"]


async def test_what_keeps_every_worker_from_starting_is_said_once_with_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_text("this is no database")

    code, output, errors = await outcome("serve", "--workers", "3", "--storage", f"lmdb://{tmp_path}", "--port", "0")

    assert (code, output) == (2, "")
    # A worker that comes a moment later sees the others on the folder, and logs it.
    assert len([line for line in errors.splitlines() if line.startswith("roomkey: ")]) == 1


@pytest.mark.parametrize("arguments", [("--storage", "memory"), ("--dev",), ("--documents", "memory")])
async def test_workers_that_would_not_share_sessions_are_refused_with_the_reason(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    code, output, errors = await outcome("serve", "--workers", "2", "--port", "0", *arguments, folder=tmp_path)

    assert (code, output) == (2, "")
    assert errors.startswith("roomkey: server.workers: ")
    assert len(errors.splitlines()) == 1
