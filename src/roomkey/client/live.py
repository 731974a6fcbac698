"""A document that is open: changes of others arrive by themselves, and one's own are sent as they are made."""

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

from pycrdt import Doc, TransactionEvent

from roomkey.client.calls import code_of, pause
from roomkey.client.states import Ending, State, ending_of
from roomkey.errors import InvalidToken, RoomkeyError, Storage
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.protocol.yjs_messages import MessageKind
from roomkey.wire import lib0
from roomkey.wire.lib0 import GONE, AwarenessEntry

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

Tokens = str | Callable[[], str | Awaitable[str]]
"""A token, or what returns the newest one: asked for each connection."""

CONNECTING_SECONDS: Final = 10.0
SHOWING_SECONDS: Final = 15.0
"""How often clients say that they are still there (y-protocols)."""

SUSPENDED_SECONDS: Final = 5.0
"""How often a suspended session asks whether it goes on."""

MAX_FRAME_BYTES: Final = 64 * 1024 * 1024

READ_ONLY: Final = "read-only"
"""What the server answers to changes of somebody who may not write."""

_log: Final = logging.getLogger("roomkey.client")

_UNREACHABLE: Final = Ending(State.OFFLINE, "unreachable")
_LEFT: Final = Ending(State.REMOVED, "left")
_BROKEN: Final = Ending(State.REMOVED, "internal_error")

_HEARD: Final = frozenset({MessageKind.SYNC, MessageKind.AWARENESS, MessageKind.QUERY_AWARENESS})


class Removed(InvalidToken):
    """The document is not open any more, and will not be: ``ending`` says why."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(f"{ending.state}: {ending.code}" + (f" ({ending.reason})" if ending.reason else ""))
        self.ending = ending


class LiveDocument:
    """
    A document that is open for a session, as long as the context manager is entered.

    ``doc`` is a ``pycrdt.Doc``: whatever is changed in it is sent, and what others change appears in it. Without a
    connection it can be changed, too: that is sent with the next one. It belongs to one event loop.
    """

    def __init__(self, url: str, name: str, token: Tokens, *, doc: Doc[Any] | None = None) -> None:
        """``url`` is that of the server, ``http://…`` or ``https://…``; ``doc`` is filled by nobody else."""
        self.name = name
        self.doc: Doc[Any] = Doc() if doc is None else doc
        self.present: dict[int, Mapping[str, Any]] = {}
        """What others show of themselves, by their Yjs client ids."""
        self._address = f"ws{url.removeprefix('http').rstrip('/')}/yjs/{quote(name, safe='/')}?status=1"
        self._token = token
        self._ending = Ending(State.CONNECTING)
        self._changed = asyncio.Condition()
        self._watchers: list[Callable[[State], object]] = []
        self._outbox: asyncio.Queue[bytes] | None = None
        self._is_synced = False
        self._is_applying = False
        self._unsaved = 0
        self._covered: deque[int] = deque()
        """How many changes each message of this connection brings that is not known to be durable."""
        self._known = 0
        """How many messages of this connection are."""
        self._has_answered = False
        """Whether the server was told on this connection what it lacks."""
        self._is_read_only = False
        self._shown: bytes = GONE
        self._clock = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._observed = self.doc.observe(self._on_change)
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_reason: object) -> None:
        self.doc.unobserve(self._observed)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if not self._ending.is_final:
            self._ending = _LEFT  # for whoever still waits; watchers need not be told what their owner does
            await self._notify()

    # --- how it stands --------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """What its user should be shown."""
        return self._ending.state

    @property
    def code(self) -> str:
        """The stable word for why it is not open, or empty."""
        return self._ending.code

    @property
    def reason(self) -> str:
        """What an operator wrote about that, or empty."""
        return self._ending.reason

    @property
    def unsaved(self) -> int:
        """How many changes made here would not survive a crash of the server, as far as is known."""
        return self._unsaved

    def on_state(self, watcher: Callable[[State], object]) -> None:
        """Call ``watcher`` with each new state. If it raises, that is logged."""
        self._watchers.append(watcher)

    async def synced(self) -> None:
        """
        Return when ``doc`` has everything that the server has.

        Raises:
            Removed: If it will not be open any more, or was left.
        """
        await self._until(lambda: self._is_synced)

    async def saved(self) -> None:
        """Return when everything that was changed here is durable. Raises as ``synced``."""
        await self._until(lambda: self._unsaved == 0 and self._is_synced)

    async def is_in(self, *states: State) -> None:
        """Return when it is in one of ``states``; raises as ``synced`` if that cannot come."""
        await self._until(lambda: self.state in states)

    def show(self, state: Mapping[str, Any] | None) -> None:
        """Show this of oneself to the others, such as a name and a cursor; ``None``: nothing any more."""
        self._shown = GONE if state is None else json.dumps(state).encode()
        self._say_what_is_shown()

    # --- the connection -------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._stay_connected()
        except Exception:  # noqa: BLE001  # a mistake in here, of which nobody would hear
            _log.exception("%s is not open any more", self.name)
            await self._enter(_BROKEN)

    async def _stay_connected(self) -> None:
        attempt, renewed = 0, False
        while True:
            ending, was_open = await self._connect()
            attempt, renewed = (0, False) if was_open else (attempt, renewed)
            renewable = ending.renews and callable(self._token) and not renewed
            if ending.is_final and not renewable:
                await self._enter(ending)
                return
            if renewable:
                renewed = True  # a token that is refused again is no newer one
                await self._enter(Ending(State.CONNECTING))
                continue
            await self._enter(ending)
            await asyncio.sleep(SUSPENDED_SECONDS if ending.state is State.SUSPENDED else pause(attempt))
            attempt += 1

    async def _connect(self) -> tuple[Ending, bool]:
        """One connection from its beginning to its end, which is returned, and whether it was open."""
        from websockets.asyncio.client import connect  # noqa: PLC0415  # of an extra
        from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException  # noqa: PLC0415

        was_open = False
        try:
            headers = {"authorization": f"Bearer {await self._current_token()}"}
            async with connect(
                self._address,
                additional_headers=headers,
                open_timeout=CONNECTING_SECONDS,
                max_size=MAX_FRAME_BYTES,
            ) as socket:
                try:
                    await self._converse(socket)
                finally:
                    was_open = self._is_synced
                    self._part()
        except ConnectionClosed as closed:
            said = closed.rcvd
            return (_UNREACHABLE if said is None else ending_of(said.code, said.reason)), was_open
        except InvalidStatus as refused:
            return ending_of(0, code_of(bytes(refused.response.body or b""))), was_open
        except (WebSocketException, OSError, TimeoutError, EOFError) as error:
            _log.info("no connection to %s: %s", self.name, type(error).__name__)
        except (lib0.Malformed, ValueError) as error:  # of lib0, JSON or Yjs
            _log.warning("what the server said of %s was not understood: %s", self.name, type(error).__name__)
        except RoomkeyError as error:
            return Ending(State.OFFLINE, error.code), was_open
        return _UNREACHABLE, was_open

    async def _current_token(self) -> str:
        if isinstance(self._token, str):
            return self._token
        try:
            token = self._token()
            return token if isinstance(token, str) else await token
        except Exception as error:  # of the application: there may be a token later
            raise Storage(f"there is no token: {type(error).__name__}") from error

    async def _converse(self, socket: "ClientConnection") -> None:
        outbox = self._outbox = asyncio.Queue()
        outbox.put_nowait(yjs.sync_step1(self.doc.get_state()))
        self._say_what_is_shown()
        helpers = asyncio.gather(self._write(socket, outbox), self._keep_showing())
        try:
            while True:
                frame = await socket.recv()
                if isinstance(frame, bytes):
                    await self._receive(frame)
        finally:
            helpers.cancel()
            await asyncio.gather(helpers, return_exceptions=True)

    async def _write(self, socket: "ClientConnection", outbox: "asyncio.Queue[bytes]") -> None:
        from websockets.exceptions import ConnectionClosed  # noqa: PLC0415

        with contextlib.suppress(ConnectionClosed):  # the reader says why
            while True:
                await socket.send(await outbox.get())

    async def _keep_showing(self) -> None:
        while True:
            await asyncio.sleep(SHOWING_SECONDS)
            if self._shown != GONE:
                self._say_what_is_shown()

    def _part(self) -> None:
        """The connection is over: nobody else is known to be there, and what is not known to be durable is not."""
        self._outbox, self._is_synced, self._is_read_only = None, False, False
        self._has_answered, self._known = False, 0
        self._covered.clear()
        self.present.clear()

    # --- what is said ---------------------------------------------------------------------------------

    async def _receive(self, frame: bytes) -> None:
        kind = frame[0] if frame else None
        if kind == MessageKind.SYNC_STATUS:
            self._note_saved(lib0.read_number(frame, 1)[0])
        elif kind == MessageKind.AUTH:
            await self._note_denial(lib0.read_text(frame, 2)[0])
            return
        elif kind in _HEARD:
            await self._follow(yjs.decode(frame))
        await self._notify()

    async def _follow(self, message: yjs.Message) -> None:
        match message:
            case yjs.SyncStep1(state):
                self._answer(state)
                if self._is_synced:  # it wants what it has refused before: the session may write again
                    self._is_read_only = False
                    await self._enter(Ending(State.ACTIVE))
            case yjs.SyncStep2(update):
                self._apply(update)
                self._is_synced = True
                await self._enter(self._open())
            case yjs.Update(update):
                self._apply(update)
            case yjs.AwarenessUpdate(entries):
                self._see(entries)
            case _:
                self._say_what_is_shown()

    async def _note_denial(self, reason: str) -> None:
        """The one denial that lasts; others are of a single message, and the page of an editor has a use for them."""
        if reason == READ_ONLY:
            self._is_read_only = True
            if self._is_synced:
                await self._enter(self._open())

    def _open(self) -> Ending:
        return Ending(State.READONLY, READ_ONLY) if self._is_read_only else Ending(State.ACTIVE)

    def _answer(self, state: bytes) -> None:
        """Send what the server lacks, in which everything is that was changed here."""
        self._has_answered = True
        self._covered.append(self._unsaved - sum(self._covered))
        self._send(yjs.sync_step2(self.doc.get_update(state)))

    def _apply(self, update: bytes) -> None:
        self._is_applying = True
        try:
            self.doc.apply_update(update)
        finally:
            self._is_applying = False

    def _on_change(self, event: TransactionEvent) -> None:
        if self._is_applying:
            return
        self._unsaved += 1
        if self._outbox is not None and self._has_answered:  # until then everything is in the answer
            self._covered.append(1)
            self._send(yjs.update(event.update))

    def _note_saved(self, count: int) -> None:
        """The first ``count`` messages with changes of this connection are durable."""
        while self._known < count and self._covered:
            self._unsaved -= self._covered.popleft()
            self._known += 1

    def _see(self, entries: Sequence[AwarenessEntry]) -> None:
        for entry in entries:
            if entry.client == self.doc.client_id:
                continue
            if entry.is_gone:
                self.present.pop(entry.client, None)
            else:
                self.present[entry.client] = json.loads(entry.state)

    def _say_what_is_shown(self) -> None:
        # Who has never shown anything has nothing to take back.
        if self._outbox is not None and (self._clock or self._shown != GONE):
            self._clock += 1
            self._send(yjs.awareness([AwarenessEntry(self.doc.client_id, self._clock, self._shown)]))

    def _send(self, frame: bytes) -> None:
        if self._outbox is not None:
            self._outbox.put_nowait(frame)

    # --- waiting --------------------------------------------------------------------------------------

    async def _enter(self, ending: Ending) -> None:
        if ending != self._ending:
            is_news = ending.state is not self._ending.state
            self._ending = ending
            if is_news:
                self._tell(ending.state)
        await self._notify()

    def _tell(self, state: State) -> None:
        for watcher in self._watchers:
            try:
                watcher(state)
            except Exception:  # noqa: BLE001  # of the application
                _log.exception("a function that was to be told of %s failed", self.name)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _until(self, is_so: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: is_so() or self._ending.is_final)
        if not is_so():
            raise Removed(self._ending)
