"""A proxy between a client and its server that cuts, stalls and slows connections as a test says."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from enum import Enum, auto
from threading import Thread
from typing import Final, NamedTuple, cast

HOST: Final = "127.0.0.1"
START_SECONDS: Final = 20


class Cut(Enum):
    """Where a connection is cut."""

    BEFORE_REQUEST = auto()
    """The server hears nothing of it."""
    BEFORE_ANSWER = auto()
    """The server has answered, and the client hears nothing of it."""
    WITHIN_ANSWER = auto()
    """The client hears half of the answer."""


class _Order(NamedTuple):
    where: Cut
    containing: bytes


class CuttingProxy:
    """
    Passes bytes between ``port`` and a server; a request is what a client sends at once.

    ``connections`` counts those that were ever made, ``requests`` what clients have sent since the last order to cut.
    """

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self.connections = 0
        self.requests = 0
        self.cuts = 0
        self.delay = 0.0
        """Seconds that everything takes in either direction."""
        self.refuses = False
        """Whether new connections are cut at once."""
        self._server_port = server_port
        self._links: set[_Link] = set()
        self._order: _Order | None = None
        self._passes_before = 0
        self._cut = asyncio.Event()
        self._flows = asyncio.Event()
        self._flows.set()

    def through(self, url: str) -> str:
        """The URL of the server with the place of the proxy."""
        return url.replace(f":{self._server_port}", f":{self.port}")

    @property
    def open_connections(self) -> int:
        """How many clients are connected just now."""
        return len(self._links)

    def cut(self, where: Cut, *, request: int = 1, containing: bytes = b"") -> None:
        """Cut the connection of request number ``request`` from now on, counting those that contain the bytes."""
        self._order = _Order(where, containing)
        self._passes_before = request - 1
        self.requests = 0
        self._cut.clear()

    def cut_nothing(self) -> None:
        """Forget the order."""
        self._order = None

    async def wait_cut(self) -> None:
        """Return when the order was carried out."""
        await self._cut.wait()

    def cut_all(self) -> None:
        """Cut every connection now."""
        for link in list(self._links):
            link.abort()

    def stall(self) -> None:
        """Pass nothing on, and keep it."""
        self._flows.clear()

    def resume(self) -> None:
        """Pass on what was kept, and everything else."""
        self._flows.set()
        for link in list(self._links):
            link.flush()

    def stop_reading(self) -> None:
        """Take nothing from the server any more, so that it has to keep what it says."""
        for link in list(self._links):
            link.read(on=False)

    def read_again(self) -> None:
        """Take it."""
        for link in list(self._links):
            link.read(on=True)

    # What links ask.

    @property
    def is_stalled(self) -> bool:
        return not self._flows.is_set()

    def joined(self, link: "_Link") -> bool:
        """Whether the new connection may go on."""
        self.connections += 1
        if self.refuses:
            return False
        self._links.add(link)
        return True

    def left(self, link: "_Link") -> None:
        self._links.discard(link)

    def fate_of(self, request: bytes) -> Cut | None:
        """Where the connection of this request is to be cut."""
        self.requests += 1
        order = self._order
        if order is None or order.containing not in request:
            return None
        if self._passes_before:
            self._passes_before -= 1
            return None
        self._order = None
        return order.where

    def note_cut(self) -> None:
        self.cuts += 1
        self._cut.set()

    async def connect(self, protocol: Callable[[], asyncio.BaseProtocol]) -> asyncio.Transport:
        """A connection to the server."""
        transport, _ = await asyncio.get_running_loop().create_connection(protocol, HOST, self._server_port)
        return transport


@asynccontextmanager
async def cutting_proxy(server_port: int) -> AsyncGenerator[CuttingProxy]:
    """A proxy before the server on this port."""
    proxy = CuttingProxy(server_port)
    listener = await asyncio.get_running_loop().create_server(lambda: _Link(proxy), HOST, 0)
    proxy.port = listener.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listener.close()
        proxy.cut_all()
        await listener.wait_closed()


class _Link(asyncio.Protocol):
    """The connection of a client, and the one to the server behind it."""

    def __init__(self, proxy: CuttingProxy) -> None:
        self._proxy = proxy
        self._client: asyncio.Transport | None = None
        self._server: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._requests: list[bytes] = []
        self._answers: list[bytes] = []
        self._fate: Cut | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._client = cast("asyncio.Transport", transport)
        if self._proxy.joined(self):
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        fate = self._proxy.fate_of(data)
        if fate is Cut.BEFORE_REQUEST:
            self._proxy.note_cut()
            self.abort()
            return
        self._fate = self._fate or fate
        self._requests.append(data)
        self._soon()

    def answered(self, data: bytes) -> None:
        """The server has sent something."""
        if self._fate is None:
            self._answers.append(data)
            self._soon()
            return
        if self._fate is Cut.WITHIN_ANSWER and self._client is not None:
            self._client.write(data[: len(data) // 2])
            self._client.close()
        self._proxy.note_cut()
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.abort()

    def abort(self) -> None:
        """End both connections; what was not sent is lost."""
        self._proxy.left(self)
        if self._connecting is not None:
            self._connecting.cancel()
        for transport in (self._client, self._server):
            if transport is not None and not transport.is_closing():
                transport.abort()

    def read(self, *, on: bool) -> None:
        """Read what the server says, or do not."""
        if self._server is not None and not self._server.is_closing():
            (self._server.resume_reading if on else self._server.pause_reading)()

    def flush(self) -> None:
        """Pass on what has come so far."""
        if self._proxy.is_stalled:
            return
        for transport, waiting in ((self._server, self._requests), (self._client, self._answers)):
            if transport is not None and not transport.is_closing():
                transport.writelines(waiting)
                waiting.clear()

    def _soon(self) -> None:
        if self._proxy.delay:
            asyncio.get_running_loop().call_later(self._proxy.delay, self.flush)
        else:
            self.flush()

    async def _connect(self) -> None:
        try:
            self._server = await self._proxy.connect(lambda: _Back(self))
        except OSError:
            self.abort()
        else:
            self.flush()


class _Back(asyncio.Protocol):
    """The connection to the server."""

    def __init__(self, link: _Link) -> None:
        self._link = link

    def data_received(self, data: bytes) -> None:
        self._link.answered(data)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._link.abort()


class LastingProxy:
    """A proxy for tests that each have a loop of their own; it runs in a thread, and is told from any other."""

    def __init__(self, proxy: CuttingProxy, loop: asyncio.AbstractEventLoop, over: asyncio.Event) -> None:
        self._proxy = proxy
        self._loop = loop
        self._over = over

    @property
    def port(self) -> int:
        return self._proxy.port

    def cut(self) -> None:
        """Cut every connection, and let none be made."""
        self._proxy.refuses = True
        self._loop.call_soon_threadsafe(self._proxy.cut_all)

    def slow(self, seconds: float) -> None:
        """Let everything take so long, in either direction."""
        self._proxy.delay = seconds

    def mend(self) -> None:
        """Pass everything on at once again."""
        self._proxy.delay = 0.0
        self._proxy.refuses = False

    def end(self) -> None:
        """Be gone."""
        self._loop.call_soon_threadsafe(self._over.set)


@contextmanager
def lasting_proxy(server_port: int) -> Generator[LastingProxy]:
    """A proxy before the server on this port for all tests of a module."""
    begun: Future[LastingProxy] = Future()
    over = asyncio.Event()

    async def serve() -> None:
        async with cutting_proxy(server_port) as proxy:
            begun.set_result(LastingProxy(proxy, asyncio.get_running_loop(), over))
            await over.wait()

    thread = Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    lasting = begun.result(timeout=START_SECONDS)
    try:
        yield lasting
    finally:
        lasting.end()
        thread.join()
