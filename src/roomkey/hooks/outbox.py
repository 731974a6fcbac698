"""
What is to be told by webhooks, kept in the object store until it is: in the space ``webhooks``, by name.

- ``notes/<node>/…``: what is about to be done, before it is. It goes in the commit that brings what came of it.
- ``out/<endpoint>/<lane>/…``: what waits. A lane is a document, or a session. Of ``LATEST_ONLY`` there is one for each
  document, which the next one takes the place of; so whatever happens while a receiver is away, there is at most one.
- ``done/<endpoint>/…``: what was delivered, or given up, some at a time, the newest first.
- ``disabled/<endpoint>``: since when and why nothing is sent to it.
- ``figures/<endpoint>``: how it stands, as the node sees it that sends.
- ``sessions``: how far the event log was read.

All nodes put in what happens there, under names that no other one uses, or that are for everybody's newest; so nobody
gets in anybody's way. One node at a time takes out for one endpoint, see ``sending``.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice
from secrets import token_hex
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from roomkey.errors import RoomkeyError
from roomkey.hooks.events import LATEST_ONLY, AnyHookEvent, DocumentEvent, EventType
from roomkey.hooks.handlers import lane_of
from roomkey.hooks.observer import Note
from roomkey.hooks.settings import WebhookEndpoint
from roomkey.ports import Clock, ObjectStore
from roomkey.ports.objects import Changes

SPACE: Final = "webhooks"

CHANGES_AT_ONCE: Final = 500
"""Entries in one commit: some hundred bytes each."""

LINGER_SECONDS: Final = 0.02
"""Time for which an event waits for others, because a commit costs what one costs."""

LONGEST_PAUSE_SECONDS: Final = 5.0
"""Longest time between two tries while the store is away."""

WATCH_SECONDS: Final = 1.0
"""How often it is looked which endpoints are disabled."""

_log = structlog.get_logger("roomkey.hooks")


class Entry(Struct, frozen=True):
    """An event that waits for an endpoint. ``id`` is that of the message; ``order`` puts those of a lane in order."""

    id: str
    order: int
    event: AnyHookEvent


class Disabled(Struct, frozen=True):
    """Since when, and why, nothing is sent to an endpoint."""

    at: datetime
    reason: str


encode: Final = msgspec.msgpack.Encoder().encode
decode_entry: Final = msgspec.msgpack.Decoder(Entry).decode
decode_note: Final = msgspec.msgpack.Decoder(Note).decode
decode_disabled: Final = msgspec.msgpack.Decoder(Disabled).decode


class Outbox:
    """
    Where a node puts what is to be told by webhooks. ``run`` and ``watch`` must run; all on one event loop.

    ``tell`` takes a moment and waits for nothing; what it was given is durable a few milliseconds later, and in memory
    until then, at most ``bound`` events of it. ``written`` is called with each endpoint for which something was put in.
    """

    def __init__(
        self,
        objects: ObjectStore,
        clock: Clock,
        *,
        node: str,
        endpoints: Sequence[WebhookEndpoint],
        bound: int,
        written: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._objects = objects
        self._now = clock.now
        self._node = node
        self._endpoints = endpoints
        self._bound = bound
        self.written = written
        self._puts: dict[str, tuple[str, Entry]] = {}
        """What is not in the store yet, by name, and for which endpoint."""
        self._forgotten: list[str] = []
        self._numbers = 0
        self._order = 0
        self._wake = asyncio.Event()
        self._flushing = asyncio.Lock()
        self._is_failing = False
        self.disabled: Mapping[str, Disabled] = {}
        """The endpoints to which nothing is sent."""
        self.dropped: dict[str, int] = {}
        """How many events were not put in for an endpoint, because the store was away for too long."""

    # --- notes ----------------------------------------------------------------------------------------

    def wants(self, type: EventType) -> bool:
        """Whether any endpoint is told of such events."""
        return any(type in each.events for each in self._endpoints)

    def needs(self, type: EventType, document: str) -> bool:
        """See ``Notes``."""
        return any(type in each.events and each.covers(document) for each in self._enabled())

    def _enabled(self) -> Iterable[WebhookEndpoint]:
        if not self.disabled:
            return self._endpoints
        return [each for each in self._endpoints if each.name not in self.disabled]

    async def note(self, notes: Sequence[Note]) -> Sequence[str]:
        """See ``Notes``."""
        names = [f"{notes_of(self._node)}{number:012}" for number in range(self._numbers, self._numbers + len(notes))]
        self._numbers += len(notes)
        named = iter(zip(names, notes, strict=True))
        while some := [*islice(named, CHANGES_AT_ONCE)]:
            await self._objects.commit(SPACE, {name: encode(note) for name, note in some})
        return names

    # --- putting in -----------------------------------------------------------------------------------

    def tell(self, event: AnyHookEvent | None, notes: Sequence[str] = (), *, id: str | None = None) -> None:
        """
        Have ``event`` put in for every endpoint that wants it, and then ``notes`` removed.

        With ``id``, what was put in under it before is put in once.
        """
        if event is not None:
            entry = Entry(id or new_id(), self._next_order() if id is None else nanoseconds(event.at), event)
            for endpoint in self._enabled():
                if endpoint.wants(event):
                    self._put(endpoint.name, entry)
        self._forgotten += notes
        if self._puts or self._forgotten:
            self._wake.set()

    def repeat(self, endpoint: str, id: str, event: AnyHookEvent) -> None:
        """Have an event put in for one endpoint once more, under the id that it had."""
        entry = Entry(id, self._next_order(), event)
        self._puts[f"{out_of(endpoint)}{lane_name(event)}/{entry.order:020}-{id}"] = endpoint, entry
        self._wake.set()

    def _put(self, endpoint: str, entry: Entry) -> None:
        name = _name_of(endpoint, entry)
        if name not in self._puts and len(self._puts) >= self._bound:
            self.dropped[endpoint] = self.dropped.get(endpoint, 0) + 1
            return
        self._puts[name] = endpoint, entry

    def _next_order(self) -> int:
        self._order = max(self._order + 1, nanoseconds(self._now()))
        return self._order

    async def run(self) -> None:
        """Put in what there is, until cancelled. A store that is away is tried again; that is reported once."""
        self._wake, self._flushing = asyncio.Event(), asyncio.Lock()  # anew: those of an earlier run belong to its loop
        pause = LINGER_SECONDS
        while True:
            if not self._puts and not self._forgotten:
                self._wake.clear()
                await self._wake.wait()
            await asyncio.sleep(pause)
            try:
                await self.flush()
            except RoomkeyError as error:
                if not self._is_failing:
                    _log.error("webhooks_not_put_in", waiting=len(self._puts), code=error.code, reason=str(error))
                self._is_failing = True
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                self._is_failing = False
                pause = LINGER_SECONDS

    async def flush(self) -> None:
        """Put in everything that there is now. Raises ``Storage``; then nothing is lost, and it can be tried again."""
        async with self._flushing:
            puts, self._puts = self._puts, {}
            notes, self._forgotten = self._forgotten, []
            try:
                await self._commit(puts, notes)
            except BaseException:
                self._puts = puts | self._puts
                self._forgotten = notes + self._forgotten
                raise
            for endpoint in {endpoint for endpoint, _ in puts.values()}:
                self.written(endpoint)

    async def _commit(self, puts: Mapping[str, tuple[str, Entry]], notes: Sequence[str]) -> None:
        # Notes last: each goes when what came of it is in.
        changes: Changes = {name: encode(entry) for name, (_, entry) in puts.items()} | dict.fromkeys(notes)
        named = iter(changes.items())
        while some := dict(islice(named, CHANGES_AT_ONCE)):
            await self._objects.commit(SPACE, some)

    # --- what is disabled -----------------------------------------------------------------------------

    async def watch(self) -> None:
        """Look which endpoints are disabled, until cancelled."""
        while True:
            with suppress(RoomkeyError):  # that the store is away is said by itself
                await self.look()
            await asyncio.sleep(WATCH_SECONDS)

    async def look(self) -> None:
        """Look once. Raises ``Storage``."""
        names = [endpoint.name for endpoint in self._endpoints]
        found = await self._objects.get_many(SPACE, [disabled_of(name) for name in names])
        self.disabled = {
            name: decode_disabled(stored.value) for name, stored in zip(names, found, strict=True) if stored is not None
        }

    async def disable(self, endpoint: str, reason: str) -> None:
        """Send nothing to it from now on, nor put in anything, on any node. Raises ``Storage``."""
        disabled = Disabled(self._now(), reason)
        await self._objects.commit(SPACE, {disabled_of(endpoint): encode(disabled)})
        self.disabled = {**self.disabled, endpoint: disabled}

    async def enable(self, endpoint: str) -> None:
        """Send to it again. Raises ``Storage``."""
        await self._objects.commit(SPACE, {disabled_of(endpoint): None})
        self.disabled = {name: each for name, each in self.disabled.items() if name != endpoint}
        self.written(endpoint)

    @property
    def buffered(self) -> int:
        """Events that are in memory only."""
        return len(self._puts)

    @property
    def is_failing(self) -> bool:
        """Whether nothing could be put in when that was last tried."""
        return self._is_failing


# --- names --------------------------------------------------------------------------------------------


def new_id() -> str:
    """The id of a message."""
    return f"msg_{token_hex(16)}"


def id_of(event: str) -> str:
    """The id of the message about an event that has a name of its own: always the same."""
    return f"msg_{sha256(event.encode()).hexdigest()[:32]}"


def out_of(endpoint: str) -> str:
    """What the names of everything begin with that waits for an endpoint."""
    return f"out/{endpoint}/"


def notes_of(node: str) -> str:
    """What the names of the notes of a node begin with."""
    return f"notes/{node}/"


def done_of(endpoint: str) -> str:
    """What the names of deliveries begin with."""
    return f"done/{endpoint}/"


def disabled_of(endpoint: str) -> str:
    """The name of what disables an endpoint."""
    return f"disabled/{endpoint}"


def figures_of(endpoint: str) -> str:
    """The name of the figures of an endpoint."""
    return f"figures/{endpoint}"


def lane_name(event: AnyHookEvent) -> str:
    """The lane of an event, of a bounded length."""
    return sha256(lane_of(event).encode()).hexdigest()[:32]


def _name_of(endpoint: str, entry: Entry) -> str:
    event = entry.event
    latest = isinstance(event, DocumentEvent) and event.type in LATEST_ONLY
    place = f"~{event.type}" if latest else f"{entry.order:020}-{entry.id}"
    return f"{out_of(endpoint)}{lane_name(event)}/{place}"


def is_replaced(name: str) -> bool:
    """Whether the next entry takes the place of the one of this name."""
    return "/~" in name


def nanoseconds(at: datetime) -> int:
    """A moment as a number, by which names can be ordered."""
    return int(at.timestamp() * 1_000_000) * 1_000


def moment(nanoseconds: int) -> datetime:
    """The moment of such a number."""
    return datetime.fromtimestamp(nanoseconds / 1_000_000_000, UTC)
