"""Which messages were published lately, so that one that comes again is not published again."""

from collections import deque
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from roomkey.errors import Conflict
from roomkey.ports import MessageKey, Position

LEAST_REPEATS: Final = 64
"""Ids that every sender may keep, however many there are of all of them."""

SECOND_CHANCES: Final = 8
"""Senders that are looked at before one is forgotten that has published lately."""


class DeduplicationLimits(Struct, frozen=True, kw_only=True):
    """
    How long a message id is remembered, and how many are.

    Beyond ``ids`` of all senders each keeps its latest 64 only. Of more than ``senders`` one is forgotten that came
    early and has fallen silent.
    """

    window: timedelta
    ids_per_sender: int
    ids: int
    senders: int


class _Seen(Struct, frozen=True, gc=False):
    content: int
    position: Position | None
    at: datetime


class _Sender:
    """The ids of one sender, by id and in the order in which they came."""

    __slots__ = ("order", "seen")

    def __init__(self) -> None:
        self.seen: dict[str, _Seen] = {}
        # The first of a dict is far behind what was deleted from it, so it cannot tell quickly which id is the oldest.
        self.order: deque[str] = deque()


class Deduplication:
    """The ids of the messages that were published within the window, in bounded memory."""

    def __init__(self, limits: DeduplicationLimits) -> None:
        self._limits = limits
        self._senders: dict[str, _Sender] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def find(self, key: MessageKey, now: datetime) -> _Seen | None:
        """
        What became of the message with this key, if it is a repetition.

        Raises:
            Conflict: If the id was used for something else.
        """
        sender = self._senders.get(key.sender)
        seen = None if sender is None else sender.seen.get(key.id)
        if seen is None or now - seen.at > self._limits.window:
            return None
        if seen.content != key.content:
            raise Conflict("the message id was used for something else")
        return seen

    def remember(self, key: MessageKey, position: Position | None, now: datetime) -> None:
        """Note that the message with this key, which ``find`` has not found, was published."""
        sender = self._senders.get(key.sender)
        if sender is None:
            sender = self._new_sender(key.sender, now)
        sender.seen[key.id] = _Seen(key.content, position, now)
        sender.order.append(key.id)
        self._count += 1
        limits = self._limits
        most = limits.ids_per_sender if self._count <= limits.ids else LEAST_REPEATS
        while len(sender.order) > most:
            self._forget_oldest(sender)

    def sweep(self, now: datetime) -> None:
        """Forget the ids that are old enough to be used again."""
        for sender in self._senders.values():
            self._forget_old(sender, now)
        self._senders = {name: sender for name, sender in self._senders.items() if sender.order}

    def _new_sender(self, name: str, now: datetime) -> _Sender:
        if len(self._senders) >= self._limits.senders:
            self._make_room(now)
        sender = self._senders[name] = _Sender()
        return sender

    def _make_room(self, now: datetime) -> None:
        """Forget a sender that came early and is silent; those that are not get a second chance."""
        for _ in range(SECOND_CHANCES):
            name, sender = next(iter(self._senders.items()))
            del self._senders[name]
            if now - sender.seen[sender.order[-1]].at > self._limits.window / 4:
                break
            self._senders[name] = sender
        else:
            sender = self._senders.pop(next(iter(self._senders)))
        self._count -= len(sender.order)

    def _forget_old(self, sender: _Sender, now: datetime) -> None:
        while sender.order and now - sender.seen[sender.order[0]].at > self._limits.window:
            self._forget_oldest(sender)

    def _forget_oldest(self, sender: _Sender) -> None:
        del sender.seen[sender.order.popleft()]
        self._count -= 1
