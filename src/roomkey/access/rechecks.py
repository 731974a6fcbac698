"""What one node rechecks the others do within a second: each reads a short list that all write."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from roomkey.access.watch import Subject
from roomkey.domain.session import SessionId
from roomkey.errors import Conflict, RoomkeyError
from roomkey.ports import ObjectStore
from roomkey.ports.objects import ABSENT, Changes

SPACE: Final = "access"
NAME: Final = "rechecks"

READ_INTERVAL_SECONDS: Final = 0.4

MAX_LISTED: Final = 256
"""Rechecks in the list. A node that has missed some rechecks everything."""

ATTEMPTS: Final = 16
"""Against as many others who write at the same moment."""

EVERYTHING: Final = Subject()

NOTHING_CHANGED: Final[Changes] = {}

_log = structlog.get_logger("roomkey.access")


class _Entry(Struct, frozen=True, array_like=True):
    number: int
    node: str
    session: str | None
    document: str | None
    group: str | None = None
    reason: str | None = None

    @property
    def subject(self) -> Subject:
        session = None if self.session is None else SessionId(self.session)
        return Subject(session, self.document, self.group, self.reason)


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[_Entry]).decode


class Rechecks:
    """The list of rechecks, as this node reads and writes it."""

    def __init__(
        self, objects: ObjectStore, recheck: Callable[[Sequence[Subject]], Awaitable[object]], *, node: str
    ) -> None:
        """``recheck`` is told what nodes other than ``node`` have rechecked."""
        self._node = node
        self._objects = objects
        self._recheck = recheck
        self._revision: int | None = None
        self._seen: int | None = None
        self._is_away = False

    async def announce(self, subject: Subject, changes: Changes = NOTHING_CHANGED) -> None:
        """
        Have every other node recheck this; what they then read, ``changes`` to the same space, is written with it.

        Raises:
            Storage, Conflict: If they were not told, or perhaps were.
        """
        for attempt in range(1, ATTEMPTS + 1):
            stored = await self._objects.get(SPACE, NAME)
            entries = [] if stored is None else _entries(stored.value)
            number = entries[-1].number + 1 if entries else 1
            entry = _Entry(number, self._node, subject.session, subject.document, subject.group, subject.reason)
            try:
                await self._objects.commit(
                    SPACE,
                    {**changes, NAME: _encode([*entries[1 - MAX_LISTED :], entry])},
                    expected={NAME: ABSENT if stored is None else stored.revision},
                )
            except Conflict:
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    async def run(self) -> None:
        """Read what others have rechecked, until cancelled."""
        while True:
            await self.read()
            await asyncio.sleep(READ_INTERVAL_SECONDS)

    async def read(self) -> None:
        """Recheck what others have since the last time; the first time everything: who knows what it has missed."""
        try:
            stored = await self._objects.get(SPACE, NAME)
        except RoomkeyError as error:
            if not self._is_away:
                _log.warning("rechecks_not_read", error=str(error))
            self._is_away = True
            return
        self._is_away = False
        revision = ABSENT if stored is None else stored.revision
        if revision == self._revision:
            return
        self._revision = revision
        news = self._news([] if stored is None else _entries(stored.value))
        if news:
            await self._recheck(news)

    def _news(self, entries: Sequence[_Entry]) -> Sequence[Subject]:
        seen, last = self._seen, entries[-1].number if entries else 0
        self._seen = last
        # Or the list was put back, or has gone on too far.
        if seen is None or last < seen or (entries and entries[0].number > seen + 1):
            return (EVERYTHING,)
        return [entry.subject for entry in entries if entry.number > seen and entry.node != self._node]


def _entries(value: bytes) -> list[_Entry]:
    """The list; one that cannot be read begins anew, and whoever has seen more rechecks everything."""
    try:
        return _decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        _log.error("rechecks_damaged")
        return []
