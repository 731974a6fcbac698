"""Someone who uses the REST API of a running server."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.support.server import Server

Body = dict[str, Any]


class Caller:
    """The calls that many tests make."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def session(self, user_id: str = "alice", **more: Any) -> tuple[str, str]:
        """A new active session: its id and its token."""
        answer = await self.http.post("/sessions", json={"user_id": user_id, "activate": True, **more})
        assert answer.status_code == 201, answer.text
        body = answer.json()
        return body["session"]["id"], body["token"]

    async def put(self, id: str, command: str, reason: str | None = None) -> Body:
        """Change a session; how it is then."""
        answer = await self.http.put(f"/sessions/{id}/{command}", json=None if reason is None else {"reason": reason})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def show(self, id: str) -> Body:
        """How a session is."""
        return (await self.http.get(f"/sessions/{id}")).json()


@asynccontextmanager
async def calling(server: Server) -> AsyncGenerator[Caller]:
    """A caller whom ``--dev`` lets do everything."""
    async with httpx.AsyncClient(base_url=server.url) as http:
        yield Caller(http)
