"""
What this node shows, on its way to the others: into the store first, and then as messages of the rooms.

What is to be written is the difference between what rooms show and what was said of it. So nothing queues up while the
store is away, a session that came and went meanwhile costs nothing, and trying again does no harm.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

import structlog
from msgspec import Struct

from roomkey.domain.session import SessionId
from roomkey.errors import RoomkeyError
from roomkey.ports import Broker, PresenceChange, PresenceStore
from roomkey.realtime.rooms.room_messages import (
    PresenceChanged,
    PresenceEntry,
    portions,
    room_format,
    shown_format,
)
from roomkey.realtime.rooms.shared_presence import Shown, Versions

MAX_ROOMS_AT_ONCE: Final = 500
"""Rooms whose changes are written together."""

FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 5.0

_log = structlog.get_logger("roomkey.realtime")

Own = Callable[[str], Mapping[SessionId, Shown]]
"""What this node shows in a room now."""


class _Said(Struct, frozen=True, gc=False):
    """What was said of a session; whether that has arrived is not known if it is not ``certain``."""

    shown: Shown
    certain: bool


class PresenceWriter:
    """Says what this node shows. ``own`` is asked for what that is, whenever something is said."""

    def __init__(
        self,
        store: PresenceStore,
        broker: Broker,
        *,
        node: str,
        own: Own,
        versions: Versions,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._broker = broker
        self._node = node
        self._own = own
        self._versions = versions
        self._now = now
        self._format = room_format()
        self._stored = shown_format()
        self._said: dict[str, dict[SessionId, _Said]] = {}
        self._dirty: dict[str, None] = {}
        self._dead: dict[str, None] = {}
        self._wanted = asyncio.Event()

    @property
    def is_done(self) -> bool:
        """Whether everything was said."""
        return not self._dirty and not self._dead

    def changed(self, room: str) -> None:
        """The node shows something else in ``room``."""
        self._dirty[room] = None
        self._wanted.set()

    def forget(self, nodes: Sequence[str]) -> None:
        """Remove what these nodes have said, which live no more."""
        self._dead |= dict.fromkeys(nodes)
        self._wanted.set()

    def compare(self, room: str, stored: Mapping[SessionId, bytes]) -> None:
        """That is what the store has of this node in ``room``: say again whatever it should have instead."""
        said = self._said.get(room, {})
        if stored == {session: self._stored.encode(each.shown) for session, each in said.items()}:
            return
        for session in stored.keys() - said.keys():
            # From before a failure of the store: nothing is known of it but that it is there.
            shown = self._stored.decode(stored[session]) or Shown(0, False, b"")
            self._said.setdefault(room, {})[session] = _Said(shown, certain=False)
        self._doubt(room)
        self.changed(room)

    async def run(self) -> None:
        """Say what changes, as soon as what was said before has arrived, until cancelled."""
        pause = 0.0
        while True:
            await self._wanted.wait()
            try:
                await self.flush()
            except RoomkeyError as error:
                if not pause:
                    _log.warning("presence_not_written", code=error.code, error=str(error))
                pause = min(max(pause * 2, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
                await asyncio.sleep(pause)
            else:
                pause = 0.0

    async def flush(self) -> None:
        """
        Say what has changed until now.

        Raises:
            Storage: If the store or the broker is away; it will be said the next time.
        """
        self._wanted.clear()
        while self._dead:
            node = next(iter(self._dead))
            try:
                await self._store.forget(node)
            except BaseException:
                self._wanted.set()
                raise
            self._dead.pop(node, None)
        while self._dirty:
            rooms = list(self._dirty)[:MAX_ROOMS_AT_ONCE]
            for room in rooms:
                del self._dirty[room]
            try:
                await self._say({room: entries for room in rooms if (entries := self._entries(room))})
            except BaseException:
                self._dirty |= dict.fromkeys(rooms)
                self._wanted.set()
                raise

    async def _say(self, rooms: Mapping[str, Sequence[PresenceEntry]]) -> None:
        for room, entries in rooms.items():
            self._note(room, entries, certain=False)
        await self._store.change(
            [
                PresenceChange(room, entry.session, None if entry.shown is None else self._stored.encode(entry.shown))
                for room, entries in rooms.items()
                for entry in entries
            ]
        )
        for room, entries in rooms.items():
            for part in portions(entries, lambda entry: 0 if entry.shown is None else len(entry.shown.payload)):
                message = self._format.encode(PresenceChanged(part))
                await self._broker.publish(room, message, origin=self._node, keep=False)
            self._note(room, entries, certain=True)

    def _entries(self, room: str) -> Sequence[PresenceEntry]:
        """What is to be said of ``room`` now."""
        own, said = self._own(room), self._said.get(room, {})
        gone = [
            PresenceEntry(session, self._versions.next(self._now()), None) for session in said if session not in own
        ]
        news = [
            PresenceEntry(session, shown.version, shown)
            for session, shown in own.items()
            if (before := said.get(session)) is None or not before.certain or before.shown != shown
        ]
        return [*gone, *news]

    def _note(self, room: str, entries: Sequence[PresenceEntry], *, certain: bool) -> None:
        said = self._said.setdefault(room, {})
        for entry in entries:
            if entry.shown is not None:
                said[entry.session] = _Said(entry.shown, certain)
            elif certain:
                said.pop(entry.session, None)
        if not said:
            self._said.pop(room, None)

    def _doubt(self, room: str) -> None:
        said = self._said.get(room, {})
        for session, each in said.items():
            said[session] = _Said(each.shown, certain=False)
