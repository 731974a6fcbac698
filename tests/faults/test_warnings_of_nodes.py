"""Whoever has sockets on two servers is warned on both of what they do on one."""

import asyncio
import json
from collections.abc import Generator
from typing import Final

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.server import Server, lasting_server
from tests.support.store_servers.fixtures import with_prefix
from tests.support.store_servers.redis import RedisProcess

ENVIRONMENT: Final = {"ROOMKEY_MASTER_KEY": "k" * 43}
PATIENCE_SECONDS: Final = 30


@pytest.fixture(scope="module")
def servers(redis_server: RedisProcess) -> Generator[tuple[Server, Server]]:
    url = with_prefix(redis_server.url)
    with lasting_server(url, ENVIRONMENT) as first, lasting_server(url, ENVIRONMENT) as second:
        yield first, second


async def warning(socket: ClientConnection) -> float:
    """How many violations the socket is warned of."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for message in socket:
            payload = json.loads(message)["payload"]
            if payload.get("code") == "VIOLATION":
                return payload["details"]["violations"]
    raise AssertionError("the socket was closed")


async def recorded(http: httpx.AsyncClient, id: str) -> int:
    """How many violations the history of the session has."""
    return (await http.get(f"/sessions/{id}/risk")).json()["violations_recorded"]


async def test_sockets_on_both_servers_are_warned(servers: tuple[Server, Server]) -> None:
    here, there = servers
    async with httpx.AsyncClient(base_url=here.url, timeout=PATIENCE_SECONDS) as http:
        made = (await http.post("/sessions", json={"user_id": "alice", "activate": True})).json()
        headers = {"authorization": f"Bearer {made['token']}"}
        async with (
            connect(here.websocket_url, additional_headers=headers) as mine,
            connect(there.websocket_url, additional_headers=headers) as other,
            asyncio.timeout(PATIENCE_SECONDS),
        ):
            for number in range(1, 4):
                await mine.send("x" * 11_000)
                while await recorded(http, made["session"]["id"]) < number:  # noqa: ASYNC110  # it tells nobody
                    await asyncio.sleep(0.05)

            assert await warning(mine) == await warning(other) == 3.0
