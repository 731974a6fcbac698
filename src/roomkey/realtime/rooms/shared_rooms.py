"""
The rooms of this node among those of others: what was missed is fetched, what is shown here is said there.

The work in the background, ``run``, is bounded: a room waits once for whatever it needs, cursors of one session and
tick are one, and presence is the difference to what was said before.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from msgspec.structs import replace

from roomkey.domain.session import SessionId
from roomkey.errors import RoomkeyError
from roomkey.ports import Broker, Clock, MessageKey, Position, PresenceStore, Published, Recovered
from roomkey.realtime.protocol.json_messages import MessageType, encode, encode_publication, fingerprint_of
from roomkey.realtime.rooms.hub import Hub, Outbox
from roomkey.realtime.rooms.presence_writer import PresenceWriter
from roomkey.realtime.rooms.room_messages import (
    PUBLICATION,
    Cursor,
    CursorsMoved,
    portions,
    room_format,
    shown_format,
)
from roomkey.realtime.rooms.rooms import Participant, Room, Rooms
from roomkey.realtime.rooms.shared_presence import SharedPresence, Versions
from roomkey.realtime.rooms.shared_room import SharedRoom
from roomkey.realtime.settings import RealtimeSettings

ROOMS_AT_A_TIME: Final = 32
"""Maximum number of rooms for which the broker is asked at a time."""

CURSOR_SECONDS: Final = 0.016
"""Cursors leave for other nodes so often at most: the time of one picture on a screen."""

ASLEEP: Final = timedelta(seconds=5)
"""A node that does nothing for longer may have been taken for dead, and what it shows forgotten: it looks."""

ROOMS_TOLD_AT_ONCE: Final = 200
"""Rooms whose cursors are on their way to other nodes at the same time."""

PAUSE: Final = timedelta(seconds=1)
"""After so long a room that could not be looked after has its next turn."""

_log = structlog.get_logger("roomkey.realtime")


class SharedRooms(Rooms):
    """``Rooms`` on a broker that reaches other nodes. Each of its rooms is a ``SharedRoom``."""

    def __init__(
        self,
        settings: RealtimeSettings,
        hub: Hub,
        broker: Broker,
        *,
        presence: PresenceStore,
        node: str,
        clock: Clock,
    ) -> None:
        """``node`` is the id of this one among the others."""
        super().__init__(settings, hub, broker)
        self.node = node
        self.now = clock.now
        self.format = room_format()
        self.stored = shown_format()
        self._presence = presence
        self._versions = Versions()
        self.writer = PresenceWriter(
            presence, broker, node=node, own=self._shown_here, versions=self._versions, now=clock.now
        )
        self._unknown = 0
        self._shared: dict[str, SharedRoom] = {}
        self._open: dict[SharedRoom, None] = {}
        self._failed_until: dict[SharedRoom, datetime] = {}
        self._to_look_after: asyncio.Queue[SharedRoom] = asyncio.Queue()  # each room is in it at most once
        self._cursors: dict[str, dict[SessionId, bytes]] = {}
        self._cursors_moved = asyncio.Event()
        self._next_check: datetime | None = None
        self._unchecked: list[SharedRoom] = []
        self._per_tick = 1
        self._swept_at: datetime | None = None

    @property
    def ignored_messages(self) -> int:
        """Messages of other nodes that this one did not understand."""
        return self._unknown + self.format.ignored + self.stored.ignored

    def ignored(self) -> None:
        """Count a publication that this node does not understand."""
        self._unknown += 1

    def participant(self, box: Outbox, session: Any) -> Participant:
        """The connection behind ``box`` as others see it, on any node."""
        participant = super().participant(box, session)
        participant.origin = f"{self.node}/{participant.origin}"
        return participant

    def _new_room(self, name: str) -> Room:
        def revealed(shown: bytes) -> None:
            room.reveal(shown)

        presence = SharedPresence(
            lease=self._settings.presence_lease,
            max_size=self._settings.max_document_presence_bytes,
            versions=self._versions,
            changed=lambda: self.writer.changed(name),
            revealed=revealed,
        )
        room = self._shared[name] = SharedRoom(name, self, presence)
        return room

    def _dropped(self, room: Room) -> None:
        if isinstance(room, SharedRoom) and self._shared.get(room.name) is room:
            del self._shared[room.name]
            self._open.pop(room, None)
            self._failed_until.pop(room, None)

    def _shown_here(self, name: str) -> Any:
        room = self._shared.get(name)
        return {} if room is None else room.everybody.own

    # --- in and out -----------------------------------------------------------------------------------

    async def _recover(self, room: Room, since: Position | None) -> Recovered:
        """Where the room stands and what came after ``since``; and who is here, if nobody on this node knew it."""
        shared = self._shared[room.name] if self._shared.get(room.name) is room else None
        if shared is not None and shared.progress.position is None:
            # Whoever joins is let in even if it cannot be said who is here; then members are told later.
            with suppress(RoomkeyError):
                await self._ask_who(shared)
        recovered = await self.broker.since(room.name, since)
        if recovered.publications is None:
            return recovered
        readable = [each for each in recovered.publications if each.message[:1] == PUBLICATION]
        return replace(recovered, publications=readable)

    def _fell_silent(self, room: Room) -> None:
        if isinstance(room, SharedRoom):
            room.rest()

    # --- what is said ---------------------------------------------------------------------------------

    async def publish_in_order(
        self,
        who: Participant,
        name: str,
        message_type: str,
        payload: dict[str, Any],
        *,
        keep: bool,
        id: str | None,
        now: datetime,
        told: Callable[[Published], None],
    ) -> None:
        """
        As ``publish``; ``told`` is called at the message's place among those of others.

        Returns after that. Raises as ``Broker.publish``; then ``told`` is not called.
        """
        payload["session_info"] = who.info
        payload.pop("position", None)
        message = encode_publication(message_type, payload, now)
        key = None if id is None else MessageKey(who.session_id, id, fingerprint_of(message_type, message))
        room = (who.rooms or {}).get(name)
        if not keep or not isinstance(room, SharedRoom):
            told(await self.broker.publish(name, message, origin=who.origin, keep=keep, key=key))
            return
        receipt = room.expect(who.origin, message, told)
        try:
            published = await self.broker.publish(name, message, origin=who.origin, keep=keep, key=key)
        except BaseException:
            if receipt.is_told:
                return
            room.expect_no_more(receipt)
            raise
        room.published(receipt, published)
        await receipt.wait()

    def point(self, who: Participant, name: str, payload: dict[str, Any], now: datetime) -> None:
        """Give a cursor to everyone else in the room, on every node."""
        room = (who.rooms or {}).get(name)
        if room is not None:
            payload["session_info"] = who.info
            frame = encode(self.new_id(), MessageType.CURSOR_POSITION, payload, now)
            room.point(frame, who.box)
            self._cursors.setdefault(name, {})[who.session_id] = frame.payload
            self._cursors_moved.set()

    # --- other nodes ----------------------------------------------------------------------------------

    def look_after(self, room: SharedRoom) -> None:
        """Ask the broker and the store for what ``room`` may have missed."""
        self._open[room] = None
        if not room.is_looked_after and room not in self._failed_until:
            room.is_looked_after = True
            self._to_look_after.put_nowait(room)

    def look_after_soon(self, room: SharedRoom) -> None:
        """As ``look_after``, at the next tick, unless that has come by itself."""
        self._open[room] = None

    def nodes_gone(self, ids: Sequence[str]) -> None:
        """These nodes live no more: nobody is shown by way of them."""
        others = [id for id in ids if id != self.node]
        for room in tuple(self._shared.values()):
            room.tell_differences(room.everybody.forget(others))
        self.writer.forget(others)

    # --- what time brings -----------------------------------------------------------------------------

    def sweep(self, now: datetime, present: Iterable[tuple[Participant, Iterable[str]]]) -> None:
        """As in rooms of this node alone; and see that nothing stays missing."""
        super().sweep(now, present)
        if self._swept_at is not None and now - self._swept_at > ASLEEP:
            for room in tuple(self._shared.values()):
                self._check(room)
        self._swept_at = now
        for room in [room for room, until in self._failed_until.items() if until <= now]:
            del self._failed_until[room]
        for room in tuple(self._open):
            room.tick(now)
            if room.progress.is_behind or room.wants_presence:
                self.look_after(room)
            elif not room.needs_attention:
                del self._open[room]
        self._check_some(now)

    def _check_some(self, now: datetime) -> None:
        """Have each room compared with the broker and the store once per position interval, spread over it."""
        interval, tick = self._settings.position_interval, self._settings.tick
        if self._next_check is None or now >= self._next_check:
            for room in self._unchecked:
                self._check(room)
            self._unchecked = list(self._shared.values()) if self._next_check is not None else []
            self._next_check = now + interval
            self._per_tick = int(len(self._unchecked) / max(1.0, interval / tick / 2)) + 1
        for _ in range(min(self._per_tick, len(self._unchecked))):
            self._check(self._unchecked.pop())

    def _check(self, room: SharedRoom) -> None:
        if self._shared.get(room.name) is room:
            room.wants_presence = True
            self.look_after(room)

    # --- the work in the background -------------------------------------------------------------------

    async def run(self) -> None:
        """Do what rooms need of the broker and the store, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.writer.run())
            group.create_task(self._keep_pointing())
            for _ in range(ROOMS_AT_A_TIME):
                group.create_task(self._keep_looking_after())

    async def _keep_looking_after(self) -> None:
        while True:
            room = await self._to_look_after.get()
            room.is_looked_after = False
            try:
                await self._fetch(room)
            except RoomkeyError as error:
                _log.debug("room_not_looked_after", room=room.name, error=str(error))
                self._open[room] = None
                self._failed_until[room] = self.now() + PAUSE
            except Exception:  # noqa: BLE001  # one room may not end the looking after of all others
                _log.exception("room_failed", room=room.name)
            self._forget_if_dropped(room)

    def _forget_if_dropped(self, room: SharedRoom) -> None:
        if self._shared.get(room.name) is not room:
            self._open.pop(room, None)
            self._failed_until.pop(room, None)

    async def _fetch(self, room: SharedRoom) -> None:
        question = room.progress.ask()
        if question is not None and room.has_listeners:
            room.fill(question, await self.broker.since(room.name, question.position))
        if room.wants_presence and self._shared.get(room.name) is room:
            await self._ask_who(room)

    async def _ask_who(self, room: SharedRoom) -> None:
        room.ask_who()
        try:
            here = await self._presence.here(room.name)
        except BaseException:
            room.not_told_who()
            self._open[room] = None
            raise
        room.told_who(here)

    async def _keep_pointing(self) -> None:
        while True:
            await self._cursors_moved.wait()
            self._cursors_moved.clear()
            moved, self._cursors = self._cursors, {}
            rooms = list(moved)
            for start in range(0, len(rooms), ROOMS_TOLD_AT_ONCE):
                async with asyncio.TaskGroup() as group:
                    for name in rooms[start : start + ROOMS_TOLD_AT_ONCE]:
                        group.create_task(self._point(name, [Cursor(*each) for each in moved[name].items()]))
            await asyncio.sleep(CURSOR_SECONDS)

    async def _point(self, name: str, cursors: Sequence[Cursor]) -> None:
        for portion in portions(cursors, lambda cursor: len(cursor.message)):
            with suppress(RoomkeyError):  # the next one comes soon
                await self.broker.publish(name, self.format.encode(CursorsMoved(portion)), origin=self.node, keep=False)
