"""The rooms of this node: members, recovery and presence. One room is one object."""

from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any

from msgspec import Raw

from roomkey.domain.session import Session, SessionId
from roomkey.errors import Storage
from roomkey.ports import Broker, MessageKey, Position, Publication, Published, Recovered
from roomkey.realtime.protocol.json_messages import (
    OFFLINE,
    ONLINE,
    MessageType,
    SessionInfo,
    decode_value,
    encode,
    encode_publication,
    encode_value,
    fingerprint_of,
    identify,
    place,
)
from roomkey.realtime.protocol.payloads import Standing, Subscribed
from roomkey.realtime.rooms.hub import Channel, Hub, Outbox
from roomkey.realtime.rooms.presence import Presence
from roomkey.realtime.settings import RealtimeSettings
from roomkey.wire.frame import Frame


class Participant:
    """
    A connection as others see it: its outbox, its session, and the rooms that it is in.

    ``origin`` names it, on this node and on others. ``info`` is the encoded ``session_info`` of what it says.
    """

    __slots__ = ("box", "info", "origin", "rooms", "session_id")

    def __init__(self, origin: str, box: Outbox, session: Session) -> None:
        self.origin = origin
        self.box = box
        self.rooms: dict[str, Room] | None = None
        self.belong_to(session)

    def belong_to(self, session: Session) -> None:
        """Be a connection of ``session`` from now on."""
        self.session_id: SessionId = session.id
        self.info: Raw = encode_value(SessionInfo(session.id, session.user_id))


class Room:
    """
    One room as this node knows it: its members, who is present, and how far it has come.

    It is what the broker hands publications to. A joiner that waits for the history is not a member yet: what is
    published meanwhile is kept for it in ``_joining``.
    """

    __slots__ = ("_hub", "_joining", "_new_id", "channel", "members", "name", "position", "presence", "told_offset")

    def __init__(self, name: str, hub: Hub, new_id: Callable[[], str], presence: Presence) -> None:
        self.name = name
        self.channel = Channel()
        self.members: dict[str, Outbox] = {}
        self.presence = presence
        self.position: Position | None = None
        self.told_offset = 0
        """How far the members know from position checks that the room has moved."""
        self._hub = hub
        self._new_id = new_id
        self._joining: dict[str, list[Publication]] = {}

    @property
    def has_listeners(self) -> bool:
        """Whether it has members, or connections that are joining."""
        return bool(self.members or self._joining)

    @property
    def is_empty(self) -> bool:
        """Whether it has neither listeners nor presence."""
        return not self.has_listeners and not len(self.presence)

    # --- members --------------------------------------------------------------------------------------

    def begin_joining(self, who: Participant) -> None:
        """Keep what is published from now on for ``who``."""
        self._joining.setdefault(who.origin, [])

    def join(self, who: Participant, recovered: Recovered, answer: Frame) -> None:
        """Make ``who`` a member that has been given everything up to ``recovered.position`` with ``answer``."""
        meanwhile = self._joining.pop(who.origin, [])
        self.position = _later(self.position, recovered.position)
        self._hub.send(who.box, answer)
        for publication in meanwhile:
            if publication.origin != who.origin and _is_behind(recovered.position, publication):
                self._hub.send(who.box, self._frame(publication))
        self._hub.join(who.box, self.channel)
        self.members[who.origin] = who.box

    def leave(self, who: Participant) -> None:
        """``who`` is a member no more, or does not become one after all."""
        self._joining.pop(who.origin, None)
        if self.members.pop(who.origin, None) is not None:
            self._hub.leave(who.box, self.channel)

    # --- what is said ---------------------------------------------------------------------------------

    def on_publication(self, publication: Publication) -> None:
        """Send a publication to every member but the connection that it came from."""
        if publication.position is not None:
            self.position = publication.position
        if self._joining:
            self._keep_for_joiners(publication)
        if self.members:
            self._hub.publish(self.channel, self._frame(publication), self.members.get(publication.origin))

    def on_gap(self) -> None:
        """Nothing is missing of what is published on this node alone."""

    def _keep_for_joiners(self, publication: Publication) -> None:
        for origin, meanwhile in self._joining.items():
            if origin != publication.origin and origin not in self.members:
                meanwhile.append(publication)

    def tell(self, frame: Frame, box: Outbox | None = None) -> None:
        """Send a frame of this node to every member but ``box``."""
        if self.members:
            self._hub.publish(self.channel, frame, box)

    def point(self, frame: Frame, box: Outbox) -> None:
        """Give a cursor to everyone else."""
        self._hub.point(self.channel, frame, box)

    def _frame(self, publication: Publication) -> Frame:
        message, position = publication.message, publication.position
        return Frame(identify(message, self._new_id()) if position is None else place(message, position))


def _later(one: Position | None, other: Position) -> Position:
    if one is None or one.epoch != other.epoch:
        return other
    return one if one.offset > other.offset else other


def _is_behind(position: Position, publication: Publication) -> bool:
    """Whether ``publication`` came after ``position``."""
    there = publication.position
    return there is None or there.epoch != position.epoch or there.offset > position.offset


class Rooms:
    """
    Joins, leaves, publications, cursors and presence of all rooms of this node.

    A publication has its place in the history before anyone is given it, and a joiner is given the history and what
    follows it without anything in between. What is awaited here never waits while the broker is in this process.
    """

    def __init__(self, settings: RealtimeSettings, hub: Hub, broker: Broker) -> None:
        self.hub = hub
        self.broker = broker
        self.publications = 0
        self._settings = settings
        self._rooms: dict[str, Room] = {}
        self._numbers = count(1)
        self._origins = count(1)
        self._next_positions: datetime | None = None
        self._next_leases: datetime | None = None

    def __len__(self) -> int:
        """Number of rooms with listeners."""
        return sum(room.has_listeners for room in self._rooms.values())

    def new_id(self) -> str:
        """An id for a message of the server, which this node does not use again."""
        return f"s{next(self._numbers)}"

    def participant(self, box: Outbox, session: Session) -> Participant:
        """The connection behind ``box`` as others see it."""
        return Participant(f"c{next(self._origins)}", box, session)

    def present(self) -> int:
        """How many sessions are shown, in all rooms together."""
        return sum(len(room.presence) for room in self._rooms.values())

    def _room(self, name: str) -> Room:
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = self._new_room(name)
        return room

    def _new_room(self, name: str) -> Room:
        settings = self._settings
        presence = Presence(lease=settings.presence_lease, max_size=settings.max_document_presence_bytes)
        return Room(name, self.hub, self.new_id, presence)

    def _drop_if_empty(self, room: Room) -> None:
        if room.is_empty and self._rooms.get(room.name) is room:
            del self._rooms[room.name]
            self._dropped(room)

    def _dropped(self, room: Room) -> None:
        """The room is none of ours any more."""

    def _fell_silent(self, room: Room) -> None:
        """Nobody listens to the room any more."""

    # --- in and out -----------------------------------------------------------------------------------

    async def join(
        self, who: Participant, name: str, since: Position | None, answer: Callable[[Callable[..., Subscribed]], Frame]
    ) -> None:
        """
        Let the connection join the room: it is sent ``answer`` of the payload of ``subscribed``, then what is new.

        The payload lacks what the connection may do, which is none of the room's business.

        Raises:
            Storage: If the broker is away; the connection is not in the room then, even if it was before.
        """
        room = self._room(name)
        room.begin_joining(who)
        if who.rooms is None:
            who.rooms = {}
        who.rooms[name] = room
        try:
            await self.broker.subscribe(name, room)
            recovered = await self._recover(room, since)
        except BaseException:
            room.leave(who)
            who.rooms.pop(name, None)
            self._drop_if_empty(room)
            if not room.has_listeners:
                self._fell_silent(room)
                with suppress(Storage):  # or publications would be handed to a room without members
                    await self.broker.unsubscribe(name)
            raise
        if name not in who.rooms:
            return  # it has left meanwhile
        if room.position is not None and room.position.epoch != recovered.position.epoch:
            room.told_offset = 0
        room.join(who, recovered, answer(self._subscribed(room, recovered)))

    def _recover(self, room: Room, since: Position | None) -> Coroutine[Any, Any, Recovered]:
        return self.broker.since(room.name, since)

    def _subscribed(self, room: Room, recovered: Recovered) -> Callable[..., Subscribed]:
        missed = recovered.publications
        if missed is not None and sum(len(each.message) for each in missed) > self._settings.max_recovery_bytes:
            missed = None
        return partial(
            Subscribed,
            document=room.name,
            position=recovered.position,
            recovered=missed is not None,
            publications=[
                Raw(place(each.message, each.position)) for each in missed or () if each.position is not None
            ],
            presence=room.presence.here(),
        )

    async def leave(self, who: Participant, name: str, now: datetime) -> None:
        """Let the connection leave the room."""
        room = None if who.rooms is None else who.rooms.pop(name, None)
        if room is None:
            return
        if room.presence.leave(who.session_id, who.origin):
            self._tell_gone(room, who.info, who.box, now)
        room.leave(who)
        self._drop_if_empty(room)
        if not room.has_listeners:
            self._fell_silent(room)
            await self.broker.unsubscribe(name)

    def change_hands(self, who: Participant, session: Session, now: datetime) -> None:
        """The connection belongs to another session from now on."""
        former_id, former_info = who.session_id, who.info
        who.belong_to(session)
        for room in (who.rooms or {}).values():
            shown = room.presence.shown(former_id, who.origin)
            if shown is None:
                continue
            if room.presence.leave(former_id, who.origin):
                self._tell_gone(room, former_info, who.box, now)
            payload = decode_value(shown)
            self._announce(who, room, payload["status"], payload, now)

    # --- what is said ---------------------------------------------------------------------------------

    def publish(
        self,
        who: Participant,
        name: str,
        message_type: str,
        payload: dict[str, Any],
        *,
        keep: bool,
        id: str | None,
        now: datetime,
    ) -> Coroutine[Any, Any, Published]:
        """
        Give a message to everyone else in the room; its position if it is kept in the history.

        ``session_info`` and ``position`` in the payload are ours, whatever the client wrote there. A message of the
        session with the same ``id`` and content is not published again. Raises as ``Broker.publish``.
        """
        payload["session_info"] = who.info
        payload.pop("position", None)
        message = encode_publication(message_type, payload, now)
        key = None if id is None else MessageKey(who.session_id, id, fingerprint_of(message_type, message))
        return self.broker.publish(name, message, origin=who.origin, keep=keep, key=key)

    def point(self, who: Participant, name: str, payload: dict[str, Any], now: datetime) -> None:
        """Give a cursor to everyone else in the room."""
        room = (who.rooms or {}).get(name)
        if room is not None:
            payload["session_info"] = who.info
            room.point(encode(self.new_id(), MessageType.CURSOR_POSITION, payload, now), who.box)

    def announce(self, who: Participant, name: str, status: str, payload: dict[str, Any], now: datetime) -> bool:
        """Show the session's status to the room and to later joiners. ``False`` if there is no room for it."""
        room = (who.rooms or {}).get(name)
        return room is None or self._announce(who, room, status, payload, now)

    def _announce(self, who: Participant, room: Room, status: str, payload: dict[str, Any], now: datetime) -> bool:
        payload["session_info"] = who.info
        if status == OFFLINE:
            # A session that has another connection here is still present.
            if room.presence.leave(who.session_id, who.origin):
                room.tell(encode(self.new_id(), MessageType.USER_PRESENCE, payload, now), who.box)
            return True
        shown = bytes(encode_value(payload))
        if len(shown) > self._settings.max_presence_bytes:
            return False
        if not room.presence.announce(who.session_id, who.origin, shown, now):
            return False
        room.tell(encode(self.new_id(), MessageType.USER_PRESENCE, Raw(shown), now), who.box)
        return True

    def appear(self, who: Participant, name: str, now: datetime) -> None:
        """Show that the session edits the document of this name, if it shows nothing else there."""
        room = self._room(name)
        payload = {"document": name, "status": ONLINE, "via": "yjs", "session_info": who.info}
        shown = encode_value(payload)
        if room.presence.attend(who.session_id, who.origin, bytes(shown), now):
            room.tell(encode(self.new_id(), MessageType.USER_PRESENCE, shown, now))
        self._drop_if_empty(room)

    def disappear(self, who: Participant, name: str, now: datetime) -> None:
        """The connection edits the document no more."""
        room = self._rooms.get(name)
        if room is None:
            return
        if room.presence.leave(who.session_id, who.origin):
            self._tell_gone(room, who.info, None, now)
        self._drop_if_empty(room)

    def _tell_gone(self, room: Room, info: Any, box: Outbox | None, now: datetime) -> None:
        payload = {"document": room.name, "status": OFFLINE, "session_info": info}
        room.tell(encode(self.new_id(), MessageType.USER_PRESENCE, payload, now), box)

    # --- time -----------------------------------------------------------------------------------------

    def sweep(self, now: datetime, present: Iterable[tuple[Participant, Iterable[str]]]) -> None:
        """
        Do what is due: position checks, leases, and what the broker has to do.

        ``present`` are the connections that live, and the rooms that they are in.
        """
        self.broker.tick(now)
        if self._next_positions is None or now >= self._next_positions:
            if self._next_positions is not None:
                self._tell_positions(now)
            self._next_positions = now + self._settings.position_interval
        if self._next_leases is None or now >= self._next_leases:
            self._renew_leases(present, now)
            self._next_leases = now + self._settings.presence_lease / 3

    def _tell_positions(self, now: datetime) -> None:
        """Send position checks, so that a subscriber notices if the last message before a silence did not arrive."""
        for room in self._rooms.values():
            position = room.position
            if room.members and position is not None and room.told_offset != position.offset:
                room.told_offset = position.offset
                payload = Standing(room.name, position)
                room.tell(encode(self.new_id(), MessageType.POSITION, payload, now))

    def _renew_leases(self, present: Iterable[tuple[Participant, Iterable[str]]], now: datetime) -> None:
        shown = [room for room in self._rooms.values() if len(room.presence)]
        if not shown:
            return
        for who, names in present:
            for name in names:
                room = self._rooms.get(name)
                if room is not None:
                    room.presence.renew(who.session_id, who.origin, now)
        for room in shown:
            for gone in room.presence.lapse(now):
                self._tell_gone(room, decode_value(gone)["session_info"], None, now)
            self._drop_if_empty(room)
