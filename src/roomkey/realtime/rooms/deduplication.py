"""Which messages were published lately, so that one that comes again is not published again."""

from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from roomkey.errors import Conflict
from roomkey.ports import MessageKey, Position

LEAST_REPEATS: Final = 64
"""Ids that every sender may keep, however many there are of all of them."""


class DeduplicationLimits(Struct, frozen=True, kw_only=True):
    """
    How long a message id is remembered, and how many are.

    Beyond ``ids`` of all senders each keeps its latest 64 only. Of more than ``senders`` those are forgotten
    that published longest ago.
    """

    window: timedelta
    ids_per_sender: int
    ids: int
    senders: int


class _Seen(Struct, frozen=True, gc=False):
    content: str
    position: Position | None
    at: datetime


class Deduplication:
    """The ids of the messages that were published within the window, in bounded memory."""

    def __init__(self, limits: DeduplicationLimits) -> None:
        self._limits = limits
        self._senders: dict[str, dict[str, _Seen]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def find(self, key: MessageKey, now: datetime) -> _Seen | None:
        """
        What became of the message with this key, if it is a repetition.

        Raises:
            Conflict: If the id was used for something else.
        """
        seen = self._senders.get(key.sender, {}).get(key.id)
        if seen is None or now - seen.at > self._limits.window:
            return None
        if seen.content != key.content:
            raise Conflict("this id was used for another message; ids must not repeat")
        return seen

    def remember(self, key: MessageKey, position: Position | None, now: datetime) -> None:
        """Note that the message with this key was published."""
        ids = self._senders.pop(key.sender, None)
        if ids is None:
            ids = {}
        # The sender that published last comes last.
        self._senders[key.sender] = ids
        self._count += key.id not in ids
        ids[key.id] = _Seen(key.content, position, now)
        limits = self._limits
        most = limits.ids_per_sender if self._count <= limits.ids else LEAST_REPEATS
        while len(ids) > most:
            self._forget_oldest(ids)
        self._forget_old(ids, now)
        if len(self._senders) > limits.senders:
            self._count -= len(self._senders.pop(next(iter(self._senders))))

    def sweep(self, now: datetime) -> None:
        """Forget the ids that are old enough to be used again."""
        for ids in self._senders.values():
            self._forget_old(ids, now)
        self._senders = {sender: ids for sender, ids in self._senders.items() if ids}

    def _forget_old(self, ids: dict[str, _Seen], now: datetime) -> None:
        while ids and now - next(iter(ids.values())).at > self._limits.window:
            self._forget_oldest(ids)

    def _forget_oldest(self, ids: dict[str, _Seen]) -> None:
        del ids[next(iter(ids))]
        self._count -= 1
