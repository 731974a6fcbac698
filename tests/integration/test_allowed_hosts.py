"""A page that has its name resolved to this machine gets nothing out of a server in development."""

import json
from collections.abc import Generator

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.server import Server, lasting_server, running_server


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with lasting_server() as server:
        yield server


async def status_of(server: Server, host: str, method: str = "GET", path: str = "/sessions") -> tuple[int, str | None]:
    async with httpx.AsyncClient(base_url=server.url) as http:
        answer = await http.request(method, path, headers={"host": host})
    return answer.status_code, answer.json().get("code")


@pytest.mark.parametrize("path", ["/sessions", "/demo", "/health/live"])
async def test_a_request_to_a_foreign_host_is_misdirected(path: str, server: Server) -> None:
    assert await status_of(server, f"evil.example:{server.port}", path=path) == (421, "misdirected")


async def test_a_request_to_this_machine_is_answered_whatever_it_is_called(server: Server) -> None:
    hosts = [f"{name}:{server.port}" for name in ("localhost", "demo.localhost", "127.0.0.1", "[::1]")]

    assert [await status_of(server, host) for host in hosts] == [(200, None)] * 4


@pytest.mark.parametrize("path", ["/ws", "/yjs/plan", "/hocuspocus"])
async def test_a_socket_to_a_foreign_host_is_misdirected_too(path: str, server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url) as http:
        issued = (await http.post("/sessions", json={"user_id": "alice", "activate": True})).json()
    url = server.url.replace("http", "ws", 1).replace("127.0.0.1", "evil.example") + path
    protocols = ["roomkey.v1", f"roomkey.token.{issued['token']}"]

    with pytest.raises(InvalidStatus) as refused:
        await connect(url, host="127.0.0.1", port=server.port, subprotocols=protocols, proxy=None)  # pyright: ignore[reportArgumentType]  # plain texts will do

    assert refused.value.response.status_code == 421
    assert json.loads(refused.value.response.body or b"")["code"] == "misdirected"


async def test_hosts_are_a_setting() -> None:
    async with running_server("--set", "server.allowed_hosts=rooms.test,*.rooms.test") as server:
        answers = [await status_of(server, host) for host in ("rooms.test", "a.rooms.test", "localhost")]

    assert answers == [(200, None), (200, None), (421, "misdirected")]


async def test_without_development_every_host_is_answered() -> None:
    async with running_server(dev=False) as server:
        assert (await status_of(server, "rooms.example.com", path="/health/live"))[0] == 200
