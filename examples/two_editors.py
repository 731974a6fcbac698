"""
Two editors in one room: each sees what the other writes and who wrote it, until one session is revoked.

Start a server with ``script/server``, then, with the package websockets installed, run
``python examples/two_editors.py``. ``ROOMKEY_URL`` is the server, if it is not http://127.0.0.1:3000;
one that is not in ``--dev`` needs an API key in ``ROOMKEY_KEY``.
"""

import asyncio
import json
import os
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

DOCUMENT = "notes/welcome"


class Editor:
    """One person's side of a room."""

    def __init__(self, name: str, socket: ClientConnection) -> None:
        self.name = name
        self._socket = socket

    async def send(self, message_type: str, **payload: Any) -> None:
        """Send one message about the document."""
        message = {
            "id": str(uuid.uuid4()),
            "message_type": message_type,
            "payload": {"document": DOCUMENT, **payload},
        }
        await self._socket.send(json.dumps(message))

    async def receive(self, message_type: str) -> dict[str, Any]:
        """The payload of the next message of this type; others are passed over."""
        async with asyncio.timeout(5):
            while True:
                message = json.loads(await self._socket.recv())
                if message["message_type"] == message_type:
                    return message["payload"]

    async def closed(self) -> tuple[int | None, str | None]:
        """Code and reason, once the server has closed the connection."""
        async with asyncio.timeout(5):
            await self._socket.wait_closed()
        return self._socket.close_code, self._socket.close_reason


async def sign_in(api: httpx.AsyncClient, user: str) -> dict[str, Any]:
    """
    A session for ``user``, ready to use: ``{session, token, websocket_url}``.

    An application's backend does this after the user has signed in, and hands the token to the page.
    """
    grants = [{"documents": "notes/**", "access": "write"}]
    created = await api.post("/sessions", json={"user_id": user, "grants": grants})
    created.raise_for_status()
    issued: dict[str, Any] = created.json()
    activated = await api.put(f"/sessions/{issued['session']['id']}/activate")
    activated.raise_for_status()
    return issued


@asynccontextmanager
async def editor(user: str, issued: dict[str, Any]) -> AsyncGenerator[Editor]:
    """Connect with the session's token and enter the document."""
    headers = {"Authorization": f"Bearer {issued['token']}"}
    async with connect(issued["websocket_url"], additional_headers=headers) as socket:
        someone = Editor(user, socket)
        await someone.receive("session_connected")
        await someone.send("subscribe")
        await someone.receive("subscribed")
        yield someone


async def main(url: str) -> None:
    """Let Ada and Grace write to each other, then revoke Grace."""
    key = os.environ.get("ROOMKEY_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(base_url=url, headers=headers) as api:
        for_ada, for_grace = await sign_in(api, "ada"), await sign_in(api, "grace")
        async with editor("ada", for_ada) as ada, editor("grace", for_grace) as grace:
            for writer, reader, text in ((ada, grace, "Hello, Grace."), (grace, ada, "Hello, Ada!")):
                await writer.send("realtime_edit", insert=text)
                await writer.receive("ack")
                edit = await reader.receive("realtime_edit")
                print(f"{reader.name} sees {edit['session_info']['user_id']} write: {edit['insert']}")

            revoked = await api.put(f"/sessions/{for_grace['session']['id']}/invalidate")
            revoked.raise_for_status()
            code, reason = await grace.closed()
            print(f"grace was closed with {code} {reason}")


if __name__ == "__main__":
    asyncio.run(main(os.environ.get("ROOMKEY_URL", "http://127.0.0.1:3000")))
