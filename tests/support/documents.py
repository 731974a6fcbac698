"""Documents from the outside: a node on either transport, and clients that send frames and look at each answer."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

import httpx
from pycrdt import Doc, Text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from roomkey.config import load
from roomkey.documents.loading import Seed
from roomkey.errors import Storage
from roomkey.node import Node
from roomkey.ports import Append, AppendOutcome, Authorize, DocumentStore, DocumentUpdate, StoredDocument
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.settings import SourcedValue
from roomkey.wire import lib0
from tests.support.calls import Caller
from tests.support.rawsocket import serving

PATIENCE_SECONDS = 10
LIMIT = 64 * 1024 * 1024

STEP1, STEP2, UPDATE = b"\x00\x00", b"\x00\x01", b"\x00\x02"
AWARENESS, AUTH, DENIED, QUERY_AWARENESS, STATUS = b"\x01", b"\x02", b"\x02\x00", b"\x03", b"\x08"
SERVICE = b"\x09"
"""What the server says of itself, to those who ask for ``?status=1``: 1 while nodes are apart, 0 when they are not."""

SCOPE, REFUSED, TOKEN_WANTED, APPLIED, NOT_APPLIED = b"\x02\x02", b"\x02\x01", b"\x02\x00", b"\x08\x01", b"\x08\x00"
"""Of Hocuspocus."""

ASK = STEP1 + lib0.sized(lib0.EMPTY_STATE)
"""The step 1 of a client that has nothing."""

EMPTY_STEP2 = STEP2 + lib0.sized(lib0.EMPTY_UPDATE)

Headers = Mapping[str, str]


class Site:
    """A node that serves, and someone who may do everything over REST."""

    def __init__(self, port: int, node: Node, caller: Caller) -> None:
        self.port = port
        self.node = node
        self.caller = caller

    def address(self, path: str = "/hocuspocus") -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    async def token(self, user_id: str = "alice", *grants: tuple[str, str]) -> str:
        """The token of a new session, which may write everywhere unless it is given grants."""
        return (await self.session(user_id, *grants))[1]

    async def session(self, user_id: str = "alice", *grants: tuple[str, str]) -> tuple[str, str]:
        if not grants:
            return await self.caller.session(user_id)
        return await self.caller.session(user_id, grants=[grant(*each) for each in grants])

    async def change_grants(self, id: str, *grants: tuple[str, str]) -> None:
        answer = await self.caller.http.put(
            f"/sessions/{id}/grants", json={"grants": [grant(*each) for each in grants]}
        )
        assert answer.status_code == 200, answer.text


def grant(documents: str, access: str) -> dict[str, str]:
    return {"documents": documents, "access": access}


@asynccontextmanager
async def a_site(
    transport: str = "picows",
    *,
    storage: str = "memory",
    store: Callable[[DocumentStore], Any] | None = None,
    authorize: Authorize | None = None,
    seed: Seed | None = None,
    **sections: Mapping[str, Any],
) -> AsyncGenerator[Site]:
    """
    A node in this process, in development mode, with further settings by section.

    ``store`` may put something in front of its documents; ``authorize`` and ``seed`` are the application's part.
    """
    given = {"server": {"dev": True}, "storage": {"url": storage}, **sections}
    settings = {
        f"{section}.{name}": SourcedValue(value, "test") for section in given for name, value in given[section].items()
    }
    node = Node(load(None, settings, environment={}), authorize=authorize, seed=seed)
    if store is not None:
        node.documents.store = store(node.documents.store)
    async with (
        node.running(),
        serving(transport, node, node.config.websocket, app=node.app) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        yield Site(port, node, Caller(http))


class FailingStore:
    """
    A store that a test has fail: until it is told otherwise, or the next ``failures`` times.

    ``appended`` is everything that it took.
    """

    def __init__(self, store: DocumentStore) -> None:
        self.loads = True
        self.appends = True
        self.failures = 0
        self.appended: list[bytes] = []
        self.shared = store.shared
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def __aenter__(self) -> Self:
        await self._store.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._store.__aexit__(kind, error, trace)

    async def load(self, name: str) -> StoredDocument | None:
        if not self.loads:
            raise Storage("the storage is away")
        return await self._store.load(name)

    async def append(
        self, name: str, lineage: str, updates: Sequence[DocumentUpdate], *, after: int | None = None
    ) -> int:
        self._fail_if_due()
        self.appended += [update.data for update in updates]
        return await self._store.append(name, lineage, updates, after=after)

    async def append_each(self, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        self._fail_if_due()
        self.appended += [update.data for each in appends for update in each.updates]
        return await self._store.append_each(appends)

    def _fail_if_due(self) -> None:
        if self.failures or not self.appends:
            self.failures = max(0, self.failures - 1)
            raise Storage("the storage is away")


def faulty(site: Site) -> FailingStore:
    """The store of a site that was given a faulty one."""
    store: Any = site.node.documents.store
    assert isinstance(store, FailingStore)
    return store


# --- frames ---------------------------------------------------------------------------------------------


class FrameClient:
    """A socket of binary frames. Those that nobody has asked for yet wait in order."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._waiting: list[bytes] = []

    async def send(self, *frames: bytes) -> None:
        for frame in frames:
            await self.socket.send(frame)

    async def receive(self) -> bytes:
        """The next frame, whatever it is."""
        return self._waiting.pop(0) if self._waiting else await self._read()

    async def next(self, beginning: bytes) -> bytes:
        """What follows ``beginning`` in the next frame that has it; other frames keep waiting."""
        for index, frame in enumerate(self._waiting):
            if frame.startswith(beginning):
                return self._waiting.pop(index)[len(beginning) :]
        while not (frame := await self._read()).startswith(beginning):
            self._waiting.append(frame)
        return frame[len(beginning) :]

    async def before(self, beginning: bytes) -> list[bytes]:
        """Every frame that comes before the first with this beginning, which is dropped."""
        await self.next(beginning)
        frames, self._waiting = self._waiting, []
        return frames

    async def end(self) -> tuple[int, str]:
        """Wait until the server closes: code and reason. Frames that come before keep waiting."""
        try:
            while True:
                self._waiting.append(await self._read())
        except ConnectionClosed as closed:
            return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")

    @property
    def unread(self) -> list[bytes]:
        return self._waiting

    async def _read(self) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            frame = await self.socket.recv()
        assert isinstance(frame, bytes), frame
        return frame


class YClient(FrameClient):
    """A y-websocket client."""

    async def missing(self, *updates: bytes) -> bytes:
        """What the server has beyond these updates; all of it, if there are none."""
        await self.send(STEP1 + lib0.sized(document_of(*updates).get_state()))
        return content_of(await self.next(STEP2))

    async def heard(self) -> list[bytes]:
        """What has come up to now: everything before the answer to a step 1."""
        await self.send(ASK)
        return await self.before(STEP2)


@asynccontextmanager
async def connected_to(base: str, token: str, document: str = "plan", **query: str) -> AsyncGenerator[YClient]:
    """A y-websocket client of a server at ``base``, which is like ``ws://127.0.0.1:3000``; nothing was said yet."""
    url = f"{base}/yjs/{quote(document, safe='/')}" + (f"?{urlencode(query)}" if query else "")
    credentials = {"Authorization": f"Bearer {token}"}
    async with connect(url, additional_headers=credentials, max_size=LIMIT, proxy=None) as socket:
        yield YClient(socket)


@asynccontextmanager
async def y_client(site: Site, token: str, document: str = "plan", **query: str) -> AsyncGenerator[YClient]:
    """A y-websocket client of a site; nothing was said yet."""
    async with connected_to(site.address(""), token, document, **query) as client:
        yield client


class HocuspocusClient(FrameClient):
    """A Hocuspocus client: many documents, each by its address."""

    async def say(self, address: str, *messages: bytes) -> None:
        await self.send(*(yjs.address(address) + message for message in messages))

    async def hear(self, address: str, beginning: bytes) -> bytes:
        """What follows ``beginning`` in the next message of a document."""
        return await self.next(yjs.address(address) + beginning)

    async def show(self, address: str, token: str) -> str:
        """Show a token for a document; the scope that it opens."""
        await self.say(address, token_message(token))
        return reason_of(await self.hear(address, SCOPE))

    async def missing(self, address: str, *updates: bytes) -> bytes:
        """What the server has of a document beyond these updates."""
        await self.say(address, STEP1 + lib0.sized(document_of(*updates).get_state()))
        return content_of(await self.hear(address, STEP2))

    async def heard(self) -> list[bytes]:
        """What has come up to now: everything before the answer to a ping."""
        await self.send(yjs.PING)
        return await self.before(yjs.PONG)


@asynccontextmanager
async def hocuspocus_client(site: Site, *, headers: Headers | None = None) -> AsyncGenerator[HocuspocusClient]:
    """A Hocuspocus client whose handshake was accepted; it has shown no token."""
    async with connect(site.address(), additional_headers=headers, max_size=LIMIT, proxy=None) as socket:
        yield HocuspocusClient(socket)


def token_message(token: str) -> bytes:
    return b"\x02\x00" + lib0.text(token) + lib0.text("4.8.0")


def content_of(field: bytes) -> bytes:
    """The bytes behind their length."""
    content, end = lib0.read_bytes(field, 0)
    assert end == len(field)
    return content


def reason_of(field: bytes) -> str:
    return content_of(field).decode()


def entries_of(field: bytes) -> list[tuple[int, int, bytes]]:
    """Client, clock and state of every entry of an awareness message."""
    return [(entry.client, entry.clock, entry.state) for entry in yjs.read_awareness(content_of(field))]


def shown(*entries: tuple[int, int, bytes]) -> bytes:
    """An awareness message of a client."""
    return yjs.awareness(lib0.AwarenessEntry(*entry) for entry in entries)


# --- Yjs ------------------------------------------------------------------------------------------------


def typed(words: str, root: str = "content") -> bytes:
    """The update of somebody who begins a document with these words."""
    doc: Doc[Any] = Doc()
    doc[root] = Text(words)
    return doc.get_update()


def text_of(*updates: bytes, root: str = "content") -> str:
    """What a document says that consists of these updates."""
    return str(document_of(*updates).get(root, type=Text))


def document_of(*updates: bytes) -> Doc[Any]:
    doc: Doc[Any] = Doc()
    for update in updates:
        doc.apply_update(update)
    return doc


def edit(words: str) -> bytes:
    """The message of somebody who types these words."""
    return UPDATE + lib0.sized(typed(words))
