"""Somebody who types in a document with pycrdt, comes back whenever the connection is lost, and remembers."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from pycrdt import Doc, Text, TransactionEvent
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from roomkey.wire import lib0
from tests.support.documents import AWARENESS, DENIED, LIMIT, SERVICE, STATUS, STEP1, STEP2, UPDATE, content_of

PATIENCE_SECONDS = 30
PAUSE_SECONDS = 0.05
DO_NOT_COME_BACK = range(4400, 4500)


class Typist:
    """
    A y-websocket client with a document of its own.

    ``typed`` are the marks that it has put down, ``saved`` those that the server has called durable
    (``?status=1``), and ``codes`` those with which its connections were closed.
    ``degraded`` counts how often it was told that others see later what it writes.
    """

    def __init__(self, base: Callable[[], str], token: str, document: str) -> None:
        """``base`` says where the server is now, like ``ws://127.0.0.1:3000``."""
        self.doc: Doc[Any] = Doc()
        self.saved: set[str] = set()
        self.codes: list[int] = []
        self.degraded = 0
        self.denied: list[str] = []
        self.connections = 0
        self._base = base
        self._path = f"/yjs/{document}?status=1"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._text = self.doc.get("content", type=Text)
        self.typed: list[str] = []
        self._sent: list[list[str]] = []
        self._outgoing: asyncio.Queue[bytes] | None = None
        self._changed = asyncio.Event()
        self._applying = False
        self.doc.observe(self._on_change)

    @property
    def text(self) -> str:
        return str(self._text)

    def type(self, mark: str) -> None:
        """Put a mark at the end. It counts as saved when the server says so of the message that it was in."""
        self.typed.append(mark)
        self._text += mark

    def replace(self, text: str) -> None:
        """Write something else instead of everything: that is one mark."""
        self.typed.append(text)
        with self.doc.transaction():
            self._text.clear()
            self._text += text

    async def until(self, text: str) -> None:
        """Wait until the document is so."""
        await self.wait(lambda: self.text == text)

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Wait for something that changes with what the server says."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"it did not come: {self.text[-200:]!r} {self.codes} {self.denied}") from None

    # --- the connection -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Be connected, again and again, until told not to come back."""
        while not self.codes or self.codes[-1] not in DO_NOT_COME_BACK:
            try:
                async with connect(
                    self._base() + self._path, additional_headers=self._headers, max_size=LIMIT, proxy=None
                ) as socket:
                    await self._converse(socket)
            except (OSError, InvalidHandshake, EOFError, TimeoutError):
                await asyncio.sleep(PAUSE_SECONDS)
            except ConnectionClosed as closed:
                self.codes.append(closed.rcvd.code if closed.rcvd else 1006)
                await asyncio.sleep(PAUSE_SECONDS)
            self._changed.set()

    async def _converse(self, socket: ClientConnection) -> None:
        self.connections += 1
        self._sent = []
        self._outgoing = asyncio.Queue()
        self._outgoing.put_nowait(STEP1 + lib0.sized(self.doc.get_state()))
        writer = asyncio.ensure_future(self._write(socket, self._outgoing))
        try:
            while True:
                frame = await socket.recv()
                assert isinstance(frame, bytes)
                self._take(frame, self._outgoing)
                self._changed.set()
        finally:
            self._outgoing = None
            writer.cancel()

    async def _write(self, socket: ClientConnection, outgoing: "asyncio.Queue[bytes]") -> None:
        with suppress(ConnectionClosed):
            while True:
                await socket.send(await outgoing.get())

    def _take(self, frame: bytes, outgoing: "asyncio.Queue[bytes]") -> None:
        if frame.startswith(STEP1):
            missing = self.doc.get_update(content_of(frame[2:]))
            outgoing.put_nowait(STEP2 + lib0.sized(missing))
            self._sent.append(list(self.typed))
        elif frame.startswith((STEP2, UPDATE)):
            self._applying = True
            self.doc.apply_update(content_of(frame[2:]))
            self._applying = False
        elif frame.startswith(STATUS):
            count = lib0.read_number(frame, 1)[0]
            for marks in self._sent[:count]:
                self.saved.update(marks)
        elif frame.startswith(DENIED):
            self.denied.append(content_of(frame[2:]).decode())
        elif frame.startswith(SERVICE):
            self.degraded += frame[1]
        else:
            assert frame.startswith(AWARENESS), frame

    def _on_change(self, event: TransactionEvent) -> None:
        if not self._applying and self._outgoing is not None:
            self._outgoing.put_nowait(UPDATE + lib0.sized(event.update))
            self._sent.append(self.typed[-1:])


@asynccontextmanager
async def typing(base: Callable[[], str], token: str, document: str = "plan") -> AsyncGenerator[Typist]:
    """A typist at work until the block is left."""
    typist = Typist(base, token, document)
    running = asyncio.ensure_future(typist.run())
    try:
        yield typist
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
