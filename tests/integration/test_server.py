"""The server as a process: how it starts, what it says, how it ends."""

import asyncio
import json
import signal
import socket
import ssl
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from roomkey.security import apikeys
from tests.support.certificates import make_certificates
from tests.support.server import Server, lasting_server, outcome, running_server

PATIENCE_SECONDS = 10


@pytest.fixture(scope="module")
def shared() -> Generator[Server]:
    """Of the tests that do not stop it."""
    with lasting_server() as server:
        yield server


async def active_session(server: Server, user: str = "alice") -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=server.url) as client:
        response = await client.post("/sessions", json={"user_id": user, "activate": True})
        response.raise_for_status()
        return response.json()


def socket_of(server: Server, token: str) -> connect:
    return connect(server.websocket_url, additional_headers={"Authorization": f"Bearer {token}"})


async def heard_until_closed(client: ClientConnection) -> tuple[list[str], int | None]:
    """The types of the messages that still came, and the close code."""
    heard: list[str] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            while True:
                heard.append(json.loads(await client.recv())["message_type"])
        except ConnectionClosed:
            return heard, client.close_code


def unusable_directory(folder: Path, kind: str) -> Path:
    data = folder / "data"
    match kind:
        case "file":
            data.write_text("")
        case "damaged":
            data.mkdir()
            (data / "data.mdb").write_text("this is no database")
        case _:
            data = Path("/proc/data")  # even root may not make it
    return data


async def test_it_says_where_it_listens_once_it_does(shared: Server) -> None:
    async with httpx.AsyncClient() as client:
        response = await client.get(f"{shared.url}/health/live")

    assert response.status_code == 200
    assert shared.port > 0


async def test_development_mode_says_what_it_switches_off(shared: Server) -> None:
    await active_session(shared)

    assert "--dev" in shared.errors
    assert "Not for production" in shared.errors


async def test_rest_and_sockets_share_one_port(shared: Server) -> None:
    issued = await active_session(shared)

    async with socket_of(shared, issued["token"]) as client:
        greeting = json.loads(await client.recv())

    assert greeting["message_type"] == "session_connected"
    assert issued["websocket_url"] == shared.websocket_url


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_sockets_and_ends_it_with_exit_code_0(number: signal.Signals) -> None:
    async with running_server() as server:
        issued = await active_session(server)
        async with socket_of(server, issued["token"]) as client:
            listening = asyncio.ensure_future(heard_until_closed(client))

            code = await server.stop(number)

            heard, close_code = await listening
    assert code == 0
    assert "draining" in heard
    assert close_code == 1012


async def test_a_second_signal_ends_it_at_once() -> None:
    async with running_server("--set", "server.drain=10m", "--set", "http.body_timeout=10m") as server:
        # A request that does not come to its end keeps the server from ending well.
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"POST /sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
        await writer.drain()
        await active_session(server)  # by now the other one has arrived
        server.process.send_signal(signal.SIGTERM)
        await server.says("stopping")

        code = await server.stop()

        writer.close()
    assert code == 1


async def test_what_was_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    storage = f"lmdb://{tmp_path}"
    async with running_server(storage=storage) as first:
        issued = await active_session(first)
        await first.stop()

    async with running_server(storage=storage) as second, httpx.AsyncClient(base_url=second.url) as client:
        mine = await client.get("/sessions/me", headers={"Authorization": f"Bearer {issued['token']}"})

    assert mine.status_code == 200
    assert mine.json()["id"] == issued["session"]["id"]


async def test_tokens_can_still_be_rotated_after_a_restart(tmp_path: Path) -> None:
    """A successor repeats within the grace only if the rotation key outlives the process."""
    storage = f"lmdb://{tmp_path}"
    async with running_server(storage=storage) as first, httpx.AsyncClient(base_url=first.url) as client:
        issued = await active_session(first)
        authorization = {"Authorization": f"Bearer {issued['token']}"}
        before = await client.put(f"/sessions/{issued['session']['id']}/rotate", headers=authorization)
        await first.stop()

    async with running_server(storage=storage) as second, httpx.AsyncClient(base_url=second.url) as client:
        after = await client.put(f"/sessions/{issued['session']['id']}/rotate", headers=authorization)

    assert before.status_code == after.status_code == 200
    assert before.json()["token"] == after.json()["token"]


async def test_a_taken_port_is_one_clear_line_and_exit_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        code, output, errors = await outcome("serve", "--dev", "--storage", "memory", "--port", str(port))

    assert code == 2
    assert output == ""
    assert errors.splitlines() == [f"roomkey: cannot listen on 127.0.0.1 port {port}: Address already in use"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--storage", "redis"),
        ("--storage", "cloud://somewhere"),
        ("--host", "0.0.0.0"),
        ("--host", "no.such.host.invalid", "--set", f"security.api_keys=a:admin:{'ab' * 32}"),
        ("--tls-cert", "nowhere.pem", "--tls-key", "nowhere.pem"),
        ("--config", "nowhere.toml"),
    ],
)
async def test_bad_configuration_is_one_clear_line_and_exit_code_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    code, output, errors = await outcome("serve", "--port", "0", *arguments, folder=tmp_path)

    assert code == 2
    assert output == ""
    assert len(errors.splitlines()) == 1
    assert errors.startswith("roomkey: ")


@pytest.mark.parametrize("kind", ["file", "damaged", "forbidden"])
async def test_a_data_directory_that_cannot_be_used_is_one_clear_line_and_exit_code_2(
    kind: str, tmp_path: Path
) -> None:
    data = unusable_directory(tmp_path, kind)

    code, output, errors = await outcome("serve", "--port", "0", "--storage", "file", "--data", str(data))

    assert code == 2
    assert output == ""
    assert len(errors.splitlines()) == 1
    assert errors.startswith("roomkey: ")


async def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    (tmp_path / "roomkey.toml").write_text('[server]\nprot = 1\n[sessions]\nlifetime = "soon"')

    code, _, errors = await outcome("serve", environment={"SESSION_STORAGE": "redis"}, folder=tmp_path)

    assert code == 2
    assert len(errors.splitlines()) == 3


async def test_with_keys_nobody_else_creates_sessions() -> None:
    token, digest = apikeys.mint()
    environment = {"ROOMKEY_API_KEYS": f"backend:service:{digest}"}
    async with (
        running_server(dev=False, environment=environment) as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        body = {"user_id": "alice"}
        stranger = await client.post("/sessions", json=body)
        backend = await client.post("/sessions", json=body, headers={"Authorization": f"Bearer {token}"})

    assert stranger.status_code == 401
    assert backend.status_code == 201


async def test_the_command_line_manages_the_sessions_of_a_running_server() -> None:
    token, digest = apikeys.mint()
    environment = {"ROOMKEY_API_KEYS": f"operator:admin:{digest}"}
    async with running_server(dev=False, environment=environment) as server:
        with_key = {"ROOMKEY_URL": server.url, "ROOMKEY_KEY": token}
        created = await outcome("sessions", "create", "alice", "--activate", "--json", environment=with_key)
        issued = json.loads(created[1])

        async with socket_of(server, issued["token"]) as client:
            revoked = await outcome("sessions", "revoke-user", "alice", environment=with_key)
            _, close_code = await heard_until_closed(client)
        denied = await outcome("sessions", "list", environment={"ROOMKEY_URL": server.url})

    assert created[0] == revoked[0] == 0
    assert close_code == 4401
    assert denied[0] == 4


async def test_a_revocation_in_another_process_closes_sockets_here(tmp_path: Path) -> None:
    storage = f"lmdb://{tmp_path}"
    async with running_server(storage=storage) as server:
        issued = await active_session(server)
        async with socket_of(server, issued["token"]) as client:
            code, _, _ = await outcome("sessions", "invalidate", issued["session"]["id"], "--storage", storage)

            _, close_code = await heard_until_closed(client)

    assert code == 0
    assert close_code == 4401


async def test_tls_serves_rest_and_sockets(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    context = ssl.create_default_context(cafile=made.authority)
    async with running_server("--tls-cert", str(made.certificate), "--tls-key", str(made.key)) as server:
        async with httpx.AsyncClient(base_url=server.url, verify=context) as client:
            created = await client.post("/sessions", json={"user_id": "alice", "activate": True})
        issued = created.json()
        headers = {"Authorization": f"Bearer {issued['token']}"}
        async with connect(server.websocket_url, ssl=context, additional_headers=headers) as client:
            greeting = json.loads(await client.recv())

    assert server.url.startswith("https://")
    assert issued["websocket_url"] == server.websocket_url
    assert greeting["message_type"] == "session_connected"


async def test_without_the_certificate_that_is_demanded_nobody_is_served(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    options = ("--tls-cert", str(made.certificate), "--tls-key", str(made.key), "--tls-client-ca", str(made.authority))
    stranger = ssl.create_default_context(cafile=made.authority)
    known = ssl.create_default_context(cafile=made.authority)
    known.load_cert_chain(made.client_certificate, made.client_key)
    async with running_server(*options) as server:
        async with httpx.AsyncClient(base_url=server.url, verify=known) as client:
            welcome = await client.get("/health/live")
        async with httpx.AsyncClient(base_url=server.url, verify=stranger) as client:
            with pytest.raises(httpx.TransportError):
                await client.get("/health/live")

    assert welcome.status_code == 200


async def test_no_token_and_no_query_string_reaches_the_log() -> None:
    async with running_server("--set", "log.access=true", "--log-level", "debug") as server:
        issued = await active_session(server)
        token = issued["token"]
        async with httpx.AsyncClient(base_url=server.url) as client:
            await client.get(f"/sessions/me?token={token}", headers={"Authorization": f"Bearer {token}"})
            await client.get(f"/sessions/{token}")
            await client.get("/health/live?secret=swordfish")
        await server.stop()

    assert '"path":"/health/live"' in server.errors.replace(" ", "")
    assert "swordfish" not in server.errors
    assert token.partition(".")[2] not in server.errors
