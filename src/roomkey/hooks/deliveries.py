"""What became of messages, as it is kept for those who ask."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec
from msgspec import Struct

from roomkey.errors import InvalidInput
from roomkey.hooks.events import AnyHookEvent
from roomkey.hooks.outbox import SPACE, done_of, nanoseconds
from roomkey.hooks.settings import WebhookSettings
from roomkey.ports import Clock, ObjectStore
from roomkey.ports.objects import MAX_CHANGES

_LAST: Final = 10**20
"""More nanoseconds than there will be: names count down from here, so that the newest come first."""


class Delivery(Struct, frozen=True, kw_only=True):
    """What became of one message. ``status`` is that of the last answer, ``reason`` why it was none of success."""

    id: str
    state: Literal["delivered", "failed"]
    at: datetime
    attempts: int
    seconds: float
    """How long the last attempt took."""
    event: AnyHookEvent
    status: int | None = None
    reason: str | None = None


class DeliveryPage(Struct, frozen=True):
    """One part of the deliveries of an endpoint, the newest first."""

    deliveries: list[Delivery]
    next_cursor: str | None = None


encode: Final = msgspec.msgpack.Encoder().encode
decode: Final = msgspec.msgpack.Decoder(list[Delivery]).decode


def name_of(endpoint: str, nanoseconds: int) -> str:
    """The name under which deliveries of this moment are kept together."""
    return f"{done_of(endpoint)}{_LAST - nanoseconds:020}"


def moment_of(name: str) -> int:
    """The nanoseconds in such a name."""
    return _LAST - int(name.rpartition("/")[2])


async def page_of(objects: ObjectStore, endpoint: str, cursor: str | None, limit: int) -> DeliveryPage:
    """
    A page of the deliveries that are kept.

    Raises:
        InvalidInput: If the cursor is not one of ours.
    """
    prefix = done_of(endpoint)
    batch, skip = _place(cursor)
    found: list[Delivery] = []
    after = "" if batch is None else f"{prefix}{int(batch) - 1:020}"
    while len(found) <= limit:
        stored = await objects.list(SPACE, prefix=prefix, after=after, limit=10)
        for each in stored:
            after, name = each.name, each.name.removeprefix(prefix)
            deliveries = decode(each.value)
            for place in range(skip if name == batch else 0, len(deliveries)):
                if len(found) == limit:
                    return DeliveryPage(found, f"{name}.{place}")
                found.append(deliveries[place])
        if len(stored) < 10:
            break
    return DeliveryPage(found)


async def find(objects: ObjectStore, endpoint: str, id: str) -> Delivery | None:
    """The newest delivery of the message with this id."""
    after = ""
    while stored := await objects.list(SPACE, prefix=done_of(endpoint), after=after, limit=100):
        for each in stored:
            for delivery in decode(each.value):
                if delivery.id == id:
                    return delivery
        after = stored[-1].name
    return None


def _place(cursor: str | None) -> tuple[str | None, int]:
    if cursor is None:
        return None, 0
    batch, dot, place = cursor.partition(".")
    if not dot or len(batch) != 20 or not (batch + place).isascii() or not (batch + place).isdigit() or len(place) > 6:
        raise InvalidInput("the cursor is none of this list")
    return batch, int(place)


class Records:
    """The deliveries of one endpoint as they are kept by whoever sends to it: how many there are, and since when."""

    def __init__(self, objects: ObjectStore, endpoint: str, settings: WebhookSettings, clock: Clock) -> None:
        self._objects = objects
        self._endpoint = endpoint
        self._most = settings.keep_deliveries
        self._age = settings.keep_for
        self._now = clock.now
        self._kept: deque[tuple[str, int]] = deque()
        """The names under which there are some, and how many, the oldest first."""
        self._count = 0
        self._last = 0

    async def load(self) -> None:
        """Find out what is kept. Raises ``Storage``."""
        self._kept.clear()
        self._count, after = 0, ""
        while stored := await self._objects.list(SPACE, prefix=done_of(self._endpoint), after=after, limit=100):
            for each in stored:
                count = len(decode(each.value))
                self._kept.appendleft((each.name, count))
                self._count += count
            after = stored[-1].name
        self._last = moment_of(self._kept[-1][0]) if self._kept else 0

    def added(self, some: Sequence[Delivery]) -> Mapping[str, bytes | None]:
        """What is to be written for these deliveries; what there are too many of is removed with it."""
        self._last = max(self._last + 1, nanoseconds(self._now()))
        name = name_of(self._endpoint, self._last)
        self._kept.append((name, len(some)))
        self._count += len(some)
        changes: dict[str, bytes | None] = dict.fromkeys(self._beyond())
        changes[name] = encode(list(reversed(some)))
        return changes

    async def forget_old(self) -> None:
        """Remove what is older than it has to be kept. Raises ``Storage``."""
        before = nanoseconds(self._now() - self._age)
        old: list[str] = []
        while self._kept and moment_of(self._kept[0][0]) < before and len(old) < MAX_CHANGES:
            old.append(self._pop())
        if old:
            await self._objects.commit(SPACE, dict.fromkeys(old))

    def _beyond(self) -> Iterator[str]:
        while len(self._kept) > 1 and self._count - self._kept[0][1] >= self._most:
            yield self._pop()

    def _pop(self) -> str:
        name, count = self._kept.popleft()
        self._count -= count
        return name
