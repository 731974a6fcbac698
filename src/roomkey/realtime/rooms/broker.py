"""The broker of a node that is alone: what is published is kept in its memory, and every answer is there at once."""

from collections.abc import Callable, Mapping
from datetime import datetime
from secrets import choice
from string import ascii_lowercase
from types import TracebackType
from typing import Self

from roomkey.ports import Clock, MessageKey, Position, Publication, Published, Receiver, Recovered
from roomkey.realtime.rooms.deduplication import Deduplication, DeduplicationLimits
from roomkey.realtime.rooms.history import EPOCH_LETTERS, Histories, Window
from roomkey.realtime.settings import RealtimeSettings


def new_epoch() -> str:
    """A random epoch."""
    return "".join(choice(ascii_lowercase) for _ in range(EPOCH_LETTERS))


class LocalBroker:
    """
    The embedded ``Broker``. None of its coroutines ever waits.

    The history of a room without listeners is kept as long as there is memory for it.
    """

    shared = False

    def __init__(self, settings: RealtimeSettings, clock: Clock, *, new_epoch: Callable[[], str] = new_epoch) -> None:
        window = Window(
            publications=settings.history_publications, age=settings.history_age, size=settings.history_bytes
        )
        self._clock = clock
        self._histories = Histories(
            window, max_size=settings.max_history_bytes, max_idle=settings.max_documents, new_epoch=new_epoch
        )
        self._published = Deduplication(
            DeduplicationLimits(
                window=settings.repeat_window,
                ids_per_sender=settings.max_repeats_per_session,
                ids=settings.max_repeats,
                senders=settings.max_connections,
            )
        )
        self._receivers: dict[str, Receiver] = {}
        self._trim_every = settings.position_interval
        self._next_trim: datetime | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for room in tuple(self._receivers):
            await self.unsubscribe(room)

    async def publish(
        self, room: str, message: bytes, *, origin: str, keep: bool = True, key: MessageKey | None = None
    ) -> Published:
        now = self._clock.now()
        if key is not None and (seen := self._published.find(key, now)) is not None:
            return Published(seen.position, repeated=True)
        publication = self._histories.append(room, message, origin, now) if keep else Publication(message, origin, None)
        if key is not None:
            self._published.remember(key, publication.position, now)
        receiver = self._receivers.get(room)
        if receiver is not None:
            receiver.on_publication(publication)
        return Published(publication.position)

    async def subscribe(self, room: str, receiver: Receiver) -> None:
        if room not in self._receivers:
            self._histories.open(room, self._clock.now())
        self._receivers[room] = receiver

    async def unsubscribe(self, room: str) -> None:
        if self._receivers.pop(room, None) is not None:
            self._histories.release(room)

    async def since(self, room: str, position: Position | None) -> Recovered:
        history = self._histories.open(room, self._clock.now())
        if room not in self._receivers:
            self._histories.release(room)
        return Recovered(history.position, None if position is None else history.since(position))

    def tick(self, now: datetime) -> None:
        if self._next_trim is None or now >= self._next_trim:
            self._histories.trim(now)
            self._published.sweep(now)
            self._next_trim = now + self._trim_every

    def kept_bytes(self) -> int:
        return self._histories.size

    def degradations(self) -> Mapping[str, str]:
        return {}
