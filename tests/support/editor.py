"""A small editor for tests: the JSON protocol over the `websockets` library."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.ws_messages import heard

Message = dict[str, Any]
PATIENCE_SECONDS = 10


class JsonEditor:
    """One connection to ``/ws``. Messages that nobody has asked for yet wait in order."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._waiting: list[Message] = []
        self._ids = 0

    async def send(self, message_type: str, payload: Message | None = None, *, id: str | None = None) -> str:
        """Send a message, and return its id."""
        self._ids += 1
        id = id or f"m{self._ids}"
        await self.socket.send(json.dumps({"id": id, "message_type": message_type, "payload": payload or {}}))
        return id

    async def ask(self, message_type: str, payload: Message | None = None, *, id: str | None = None) -> Message:
        """Send a message, and return the one that answers it."""
        sent = await self.send(message_type, payload, id=id)
        return await self._first(lambda message: message["id"] == sent)

    async def next(self, message_type: str) -> Message:
        """The payload of the next message of a type; others keep waiting."""
        message = await self._first(lambda message: message["message_type"] == message_type)
        return message["payload"]

    async def _first(self, wanted: Callable[[Message], bool]) -> Message:
        for index, message in enumerate(self._waiting):
            if wanted(message):
                return self._waiting.pop(index)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                message: Message = heard(await self.socket.recv())
                if wanted(message):
                    return message
                self._waiting.append(message)

    async def subscribe(self, document: str, since: Message | None = None) -> Message:
        """Follow a document; the payload of ``subscribed``."""
        payload = {"document": document} | ({"since": since} if since else {})
        return (await self.ask("subscribe", payload))["payload"]

    async def edit(self, document: str, **content: Any) -> Message:
        """Edit a document; the payload of the acknowledgement."""
        return (await self.ask("realtime_edit", {"document": document, **content}))["payload"]

    async def end(self) -> tuple[int, str, list[str]]:
        """Wait until the server closes: code, reason, and the types of the messages that came before."""
        types = [message["message_type"] for message in self._waiting]
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                while True:
                    types.append(heard(await self.socket.recv())["message_type"])
            except ConnectionClosed as closed:
                received = closed.rcvd
        return (received.code, received.reason, types) if received else (1006, "", types)


@asynccontextmanager
async def editing(url: str, token: str, *, compressed: bool = True) -> AsyncGenerator[JsonEditor]:
    """An editor that has been greeted."""
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(
        url, additional_headers=headers, compression="deflate" if compressed else None, proxy=None
    ) as socket:
        editor = JsonEditor(socket)
        await editor.next("session_connected")
        yield editor
