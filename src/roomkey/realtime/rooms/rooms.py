"""What happens in documents on this node: the hub, the histories and who is present, kept in step."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import count
from typing import Any

from msgspec import Raw

from roomkey.domain.session import Session, SessionId
from roomkey.realtime.protocol.json_messages import (
    OFFLINE,
    ONLINE,
    MessageType,
    SessionInfo,
    decode_value,
    encode,
    encode_value,
)
from roomkey.realtime.rooms.history import Histories, Position, Window
from roomkey.realtime.rooms.hub import Hub, Outbox
from roomkey.realtime.rooms.presence import Presence
from roomkey.realtime.settings import RealtimeSettings
from roomkey.wire.frame import Frame


class Participant:
    """A connection as others in its documents see it: where its frames wait, and whose it is."""

    __slots__ = ("box", "info", "session_id")

    def __init__(self, box: Outbox, session_id: SessionId, info: Raw) -> None:
        """``info`` is the encoded ``session_info`` of everything that the connection says."""
        self.box = box
        self.session_id = session_id
        self.info = info


def participant(box: Outbox, session: Session) -> Participant:
    """The connection behind ``box`` as others see it while it belongs to ``session``."""
    return Participant(box, session.id, encode_value(SessionInfo(session.id, session.user_id)))


class Rooms:
    """
    Joins, leaves, publications, cursors and presence of all documents of this node. Nothing here waits.

    A publication has its place in the history before anyone is given it, and a joiner is given the history
    and what follows it without anything in between.
    """

    def __init__(
        self,
        settings: RealtimeSettings,
        *,
        new_epoch: Callable[[], str],
        schedule: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self.hub = Hub(max_outbox_size=settings.max_outbox_bytes, schedule=schedule)
        self.publications = 0
        window = Window(
            publications=settings.history_publications, age=settings.history_age, size=settings.history_bytes
        )
        self.histories = Histories(
            window, max_size=settings.max_history_bytes, max_idle=settings.max_documents, new_epoch=new_epoch
        )
        self.presence = Presence(lease=settings.presence_lease, max_document_size=settings.max_document_presence_bytes)
        self._settings = settings
        self._numbers: Iterator[int] = count(1)
        self._told: dict[str, int] = {}
        """How far the subscribers of a document know from position checks that it has moved."""
        self._next_positions: datetime | None = None
        self._next_leases: datetime | None = None

    def new_id(self) -> str:
        """An id for a message of the server, which this node does not use again."""
        return f"s{next(self._numbers)}"

    # --- in and out -----------------------------------------------------------------------------------

    def join(self, who: Participant, document: str, since: Position | None, now: datetime) -> dict[str, Any]:
        """Let the connection follow ``document``; returns the payload of ``subscribed``."""
        # No publication can come in between: there is no await here.
        self.hub.join(who.box, document)
        history = self.histories.open(document, now)
        missed = None if since is None else history.since(since)
        if missed is not None and sum(frame.size for frame in missed) > self._settings.max_recovery_bytes:
            missed = None
        return {
            "document": document,
            "position": history.position,
            "recovered": missed is not None,
            "publications": [Raw(frame.payload) for frame in missed or ()],
            "presence": self.presence.here(document),
        }

    def leave(self, who: Participant, document: str, now: datetime) -> None:
        """Let the connection follow ``document`` no more."""
        if who.box.member(document) is None:
            return
        if self.presence.leave(document, who.session_id, who.box):
            self._tell_gone(document, who.info, who.box, now)
        if self.hub.leave(who.box, document):
            self.histories.release(document)
            self._told.pop(document, None)

    def leave_all(self, who: Participant, now: datetime) -> None:
        """The connection is gone."""
        for document in tuple(who.box.members or ()):
            self.leave(who, document, now)

    def change_hands(self, former: Participant, who: Participant, now: datetime) -> None:
        """The connection belongs to another session from now on; ``former`` and ``who`` have the same outbox."""
        for document in former.box.members or ():
            shown = self.presence.shown(document, former.session_id, former.box)
            if shown is None:
                continue
            if self.presence.leave(document, former.session_id, former.box):
                self._tell_gone(document, former.info, former.box, now)
            payload = decode_value(shown)
            self.announce(who, document, payload["status"], payload, now)

    # --- what is said ---------------------------------------------------------------------------------

    def publish(
        self,
        who: Participant,
        document: str,
        message_type: str,
        payload: dict[str, Any],
        *,
        history: bool,
        now: datetime,
    ) -> Position | None:
        """
        Give a message to everyone else in ``document``; its position if it is kept in the history.

        ``session_info`` and ``position`` in the payload are ours, whatever the client wrote there.
        """
        payload["session_info"] = who.info
        self.publications += 1
        if not history:
            self._relay(who, document, encode(self.new_id(), message_type, payload, now))
            return None
        position = self.histories[document].next_position()
        payload["position"] = position
        frame = encode(f"{position.epoch}.{position.offset}", message_type, payload, now)
        self.histories.append(document, frame, now)
        self._relay(who, document, frame)
        return position

    def point(self, who: Participant, document: str, payload: dict[str, Any], now: datetime) -> None:
        """Give a cursor to everyone else in ``document``."""
        payload["session_info"] = who.info
        frame = encode(self.new_id(), MessageType.CURSOR_POSITION, payload, now)
        self.hub.point(self.hub.rooms[document], frame, who.box)

    def announce(self, who: Participant, document: str, status: str, payload: dict[str, Any], now: datetime) -> bool:
        """Show how the session is, to everyone in ``document`` and those who come. ``False`` if there is no room."""
        payload["session_info"] = who.info
        if status == OFFLINE:
            # Whoever is here through another connection as well is still here.
            if self.presence.leave(document, who.session_id, who.box):
                self._relay(who, document, encode(self.new_id(), MessageType.USER_PRESENCE, payload, now))
            return True
        shown = bytes(encode_value(payload))
        if len(shown) > self._settings.max_presence_bytes:
            return False
        if not self.presence.announce(document, who.session_id, who.box, shown, now):
            return False
        self._relay(who, document, encode(self.new_id(), MessageType.USER_PRESENCE, Raw(shown), now))
        return True

    def appear(self, who: Participant, document: str, now: datetime) -> None:
        """Show that the session edits ``document`` as a Yjs document, if it shows nothing else there."""
        payload = {"document": document, "status": ONLINE, "via": "yjs", "session_info": who.info}
        shown = encode_value(payload)
        if self.presence.attend(document, who.session_id, who.box, bytes(shown), now):
            self._tell(document, encode(self.new_id(), MessageType.USER_PRESENCE, shown, now))

    def disappear(self, who: Participant, document: str, now: datetime) -> None:
        """The connection edits ``document`` no more."""
        if self.presence.leave(document, who.session_id, who.box):
            self._tell_gone(document, who.info, None, now)

    def _relay(self, who: Participant, document: str, frame: Frame) -> None:
        self.hub.publish(self.hub.rooms[document], frame, who.box)

    def _tell_gone(self, document: str, info: Any, box: Outbox | None, now: datetime) -> None:
        payload = {"document": document, "status": OFFLINE, "session_info": info}
        self._tell(document, encode(self.new_id(), MessageType.USER_PRESENCE, payload, now), box)

    def _tell(self, document: str, frame: Frame, box: Outbox | None = None) -> None:
        room = self.hub.rooms.get(document)
        if room is not None:
            self.hub.publish(room, frame, box)

    # --- time -----------------------------------------------------------------------------------------

    def sweep(self, now: datetime, present: Iterable[tuple[Participant, Iterable[str]]]) -> None:
        """
        Do what is due: position checks, leases, old history.

        ``present`` are the connections that live, and the documents that they are in.
        """
        if self._next_positions is None or now >= self._next_positions:
            if self._next_positions is not None:
                self._tell_positions(now)
                self.histories.trim(now)
            self._next_positions = now + self._settings.position_interval
        if self._next_leases is None or now >= self._next_leases:
            self._renew_leases(present, now)
            self._next_leases = now + self._settings.presence_lease / 3

    def _tell_positions(self, now: datetime) -> None:
        """So that a subscriber notices if the last message before a silence did not arrive."""
        for document, room in self.hub.rooms.items():
            position = self.histories[document].position
            if self._told.get(document, 0) != position.offset:
                self._told[document] = position.offset
                payload = {"document": document, "position": position}
                self.hub.publish(room, encode(self.new_id(), MessageType.POSITION, payload, now))

    def _renew_leases(self, present: Iterable[tuple[Participant, Iterable[str]]], now: datetime) -> None:
        if not len(self.presence):
            return
        for who, documents in present:
            for document in documents:
                self.presence.renew(document, who.session_id, who.box, now)
        for document, shown in self.presence.lapse(now):
            self._tell_gone(document, decode_value(shown)["session_info"], None, now)
