"""A room that other nodes carry, too: publications, presence and cursors that come from there."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

from msgspec import Raw

from roomkey.domain.session import SessionId
from roomkey.errors import OutcomeUnknown
from roomkey.ports import Position, Presence, Publication, Published, Recovered
from roomkey.realtime.protocol.json_messages import OFFLINE, MessageType, decode_value, encode
from roomkey.realtime.protocol.payloads import Standing
from roomkey.realtime.rooms.hub import Hub, Outbox
from roomkey.realtime.rooms.presence_writer import PresenceWriter
from roomkey.realtime.rooms.recovery import Progress, Question, is_ahead
from roomkey.realtime.rooms.room_messages import PUBLICATION, Cursor, CursorsMoved, PresenceChanged, RoomMessage
from roomkey.realtime.rooms.rooms import Participant, Room
from roomkey.realtime.rooms.shared_presence import Difference, SharedPresence, Shown
from roomkey.wire.frame import Frame
from roomkey.wire.node_format import VERSION, NodeFormat

PATIENCE: Final = timedelta(seconds=2)
"""How long a client waits until a message is handed out that the broker has taken. Then it may send it again."""

MAX_POINTERS: Final = 1_000
"""Sessions of other nodes whose cursors a room tells apart; beyond it the one that moved longest ago is forgotten."""

MAX_HEARD: Final = 1_000
"""What other nodes say of presence while the store is asked; beyond it the store is asked again."""


class Neighbourhood(Protocol):
    """What a room needs of the node to hear the others."""

    hub: Hub
    node: str
    format: NodeFormat[RoomMessage]
    stored: NodeFormat[Shown]
    writer: PresenceWriter

    def new_id(self) -> str:
        """An id for a message of the server."""
        ...

    def now(self) -> datetime:
        """What time it is."""
        ...

    def look_after(self, room: "SharedRoom") -> None:
        """Something may be missing in ``room``: ask the broker and the store for it."""
        ...

    def look_after_soon(self, room: "SharedRoom") -> None:
        """As ``look_after``, unless that has come by itself at the next tick."""
        ...

    def ignored(self) -> None:
        """Count a publication that this node does not understand."""
        ...


class Receipt:
    """A message on its way to the broker and back; ``told`` is called once, in the order of the publications."""

    __slots__ = ("_done", "_told", "is_told", "key", "origin", "published", "since")

    def __init__(self, origin: str, message: bytes, told: Callable[[Published], None]) -> None:
        self.origin = origin
        self.key: tuple[str, bytes] | Position = (origin, message)
        self._told = told
        self._done: asyncio.Future[None] | None = None
        self.is_told = False
        self.published: Published | None = None
        self.since: datetime | None = None

    def tell(self, published: Published) -> None:
        """The message stands there, and everything before it was handed on."""
        if not self.is_told:
            self.is_told = True
            self._told(published)
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def give_up(self) -> None:
        """It is not known when it will be handed on."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(OutcomeUnknown("the broker has taken the message, and not handed it out yet"))

    async def wait(self) -> None:
        """
        Return when that was told.

        Raises:
            Storage: If nobody waits for that any more.
        """
        if not self.is_told:
            self._done = asyncio.get_running_loop().create_future()
            await self._done


class SharedRoom(Room):
    """
    As ``Room``, with other nodes beside this one.

    What the broker hands out is handed on in the order of the positions, see ``Progress``. A joiner that was given
    more of the history than the room has come to is a member at once, and is handed publications (``_ahead``) once the
    room is there. Own messages are acknowledged at their place among the others'.
    """

    __slots__ = (
        "_ahead",
        "_heard",
        "_neighbours",
        "_pointers",
        "_questions",
        "_receipts",
        "everybody",
        "is_looked_after",
        "progress",
        "wants_presence",
    )

    def __init__(self, name: str, neighbours: Neighbourhood, presence: SharedPresence) -> None:
        super().__init__(name, neighbours.hub, neighbours.new_id, presence)
        self.everybody = presence
        self.progress = Progress()
        self.is_looked_after = False
        """Whether the broker is about to be asked for what may be missing."""
        self.wants_presence = False
        """Whether who is here on other nodes must be read from the store."""
        self._neighbours = neighbours
        self._ahead: dict[str, tuple[Outbox, Position]] = {}
        self._receipts: dict[tuple[str, bytes] | Position, Receipt] = {}
        self._heard: list[tuple[str, PresenceChanged]] = []
        self._questions = 0
        """How often the store is being asked who is here."""
        self._pointers: dict[tuple[str, SessionId], Outbox] = {}

    @property
    def needs_attention(self) -> bool:
        """Whether something is open that time has to close."""
        return self.progress.is_behind or self.wants_presence or bool(self._receipts)

    # --- members --------------------------------------------------------------------------------------

    def begin_joining(self, who: Participant) -> None:
        """As in every room; whoever joins again is a member again when it is answered."""
        box = self.members.pop(who.origin, None)
        if box is not None and self._ahead.pop(who.origin, None) is None:
            self._hub.leave(box, self.channel)
        super().begin_joining(who)

    def join(self, who: Participant, recovered: Recovered, answer: Frame) -> None:
        """As in every room; publications that are in ``recovered`` are not handed to ``who`` again."""
        meanwhile = self._joining.pop(who.origin, [])
        progress, there = self.progress, recovered.position
        released: Sequence[Publication] = ()
        if progress.position is None:
            released = progress.begin_at(there)
            self.position = there
        self._hub.send(who.box, answer)
        self.members[who.origin] = who.box
        if is_ahead(there, self.position):
            self._ahead[who.origin] = (who.box, there)
            progress.heard_of(there)
            self._neighbours.look_after_soon(self)
        else:
            self._bring_up(who, there, meanwhile)
            self._hub.join(who.box, self.channel)
        self._hand_on(released)
        if progress.is_blocked:
            self._neighbours.look_after(self)

    def _bring_up(self, who: Participant, there: Position, meanwhile: Sequence[Publication]) -> None:
        """Hand a joiner that knows everything up to ``there`` what the room was handed meanwhile."""
        at = there
        for publication in meanwhile:
            position = publication.position
            if position is None or (position.epoch == at.epoch and position.offset == at.offset + 1):
                at = position or at
                self._hub.send(who.box, self._frame(publication))
        if at != self.position and self.position is not None:
            self._hub.send(who.box, self._lost(self.position))

    def leave(self, who: Participant) -> None:
        """As in every room; what ``who`` said is acknowledged when the broker has it."""
        if self._ahead.pop(who.origin, None) is not None:
            self.members.pop(who.origin, None)
        super().leave(who)
        for receipt in [receipt for receipt in self._receipts.values() if receipt.origin == who.origin]:
            del self._receipts[receipt.key]
            self._settle(receipt)

    def rest(self) -> None:
        """Nobody listens any more; what others say from here on is missed."""
        self.progress.rest()
        self.position = None
        self.told_offset = 0
        self.wants_presence = False
        self._heard.clear()
        self._pointers.clear()
        self.everybody.forget()

    # --- publications ---------------------------------------------------------------------------------

    def on_publication(self, publication: Publication) -> None:
        """Take what comes from any node, this one too."""
        if publication.position is None and publication.message[:1] == VERSION:
            if publication.origin != self._neighbours.node:
                self._hear(publication)
            return
        self._hand_on(self.progress.take(publication))
        if self.progress.is_blocked:
            self._neighbours.look_after(self)

    def on_gap(self) -> None:
        """Ask for everything that may be missing."""
        self.wants_presence = True
        self._neighbours.look_after(self)

    def fill(self, question: Question, recovered: Recovered) -> None:
        """Hand on what the broker has answered; members are told if a part of it is lost."""
        filled = self.progress.fill(question, recovered)
        if filled.lost is not None:
            self._lose(filled.lost)
        self._hand_on(filled.publications)
        if self.position is not None and self.position.epoch == recovered.position.epoch:
            self._admit_strangers(self.position)

    def _lose(self, position: Position) -> None:
        """What members do not have up to ``position`` cannot be had: they must load the document."""
        self.position, self.told_offset = position, position.offset
        frame = self._lost(position)
        super().tell(frame)
        for box, there in self._ahead.values():
            if there.epoch == position.epoch and there.offset < position.offset:
                self._hub.send(box, frame)
        for receipt in tuple(self._receipts.values()):
            there = None if receipt.published is None else receipt.published.position
            if there is not None and (there.epoch != position.epoch or there.offset <= position.offset):
                del self._receipts[receipt.key]
                self._settle(receipt)
        self._admit()

    def _lost(self, position: Position) -> Frame:
        payload = Standing(self.name, position, recovered=False)
        return encode(self._new_id(), MessageType.POSITION, payload, self._neighbours.now())

    def _hand_on(self, publications: Sequence[Publication]) -> None:
        for publication in publications:
            self._hand_on_one(publication)

    def _hand_on_one(self, publication: Publication) -> None:
        position, origin = publication.position, publication.origin
        if position is not None:
            self.position = position
        receipt = self._receipts.pop((origin, publication.message), None) if self._receipts else None
        if publication.message[:1] != PUBLICATION:
            self._neighbours.ignored()
        else:
            if self._joining:
                self._keep_for_joiners(publication)
            if self.members:
                # A connection that does not know that it said this, because the answer was lost, is told as all are.
                sender = self.members.get(origin) if position is None or receipt is not None else None
                frame = self._frame(publication)
                self._hub.publish(self.channel, frame, sender)
                for box, there in self._ahead.values():
                    if box is not sender and (position is None or is_ahead(position, there)):
                        self._hub.send(box, frame)
        if receipt is not None:
            receipt.tell(Published(position))
        if self._receipts and position is not None and (repeated := self._receipts.pop(position, None)) is not None:
            self._settle(repeated)
        if self._ahead:
            self._admit()

    def _admit(self) -> None:
        """Hand publications from here on to those whom the room has caught up with."""
        here = self.position
        for origin, (box, there) in tuple(self._ahead.items()):
            if here is not None and there.epoch == here.epoch and there.offset <= here.offset:
                del self._ahead[origin]
                self._hub.join(box, self.channel)

    def _admit_strangers(self, here: Position) -> None:
        """Those who were given a history that is gone must load the document."""
        for origin, (box, there) in tuple(self._ahead.items()):
            if there.epoch != here.epoch:
                del self._ahead[origin]
                self._hub.send(box, self._lost(here))
                self._hub.join(box, self.channel)

    # --- acknowledgements -----------------------------------------------------------------------------

    def expect(self, origin: str, message: bytes, told: Callable[[Published], None]) -> Receipt:
        """``message`` is about to be published; ``told`` is called when it is handed on."""
        receipt = Receipt(origin, message, told)
        self._receipts[receipt.key] = receipt
        return receipt

    def expect_no_more(self, receipt: Receipt) -> None:
        """It was not published, as far as is known."""
        self._receipts.pop(receipt.key, None)

    def published(self, receipt: Receipt, published: Published) -> None:
        """The broker has taken the message; it is acknowledged now, unless its turn is to come."""
        receipt.published = published
        position = published.position
        if receipt.key not in self._receipts:
            receipt.tell(published)
            return
        if position is None or not is_ahead(position, self.position):
            del self._receipts[receipt.key]
            receipt.tell(published)
        else:
            if published.repeated:
                # What is handed on is the first of them, which the connection does not know to be its own.
                del self._receipts[receipt.key]
                receipt.key = position
                self._receipts[position] = receipt
            self.progress.heard_of(position)
            self._neighbours.look_after_soon(self)

    def _settle(self, receipt: Receipt) -> None:
        if receipt.published is not None:
            receipt.tell(receipt.published)

    # --- what nodes say -------------------------------------------------------------------------------

    def _hear(self, publication: Publication) -> None:
        message = self._neighbours.format.decode(publication.message)
        match message:
            case PresenceChanged() if self._questions:
                if len(self._heard) < MAX_HEARD:
                    self._heard.append((publication.origin, message))
                else:
                    self.wants_presence = True
            case PresenceChanged():
                self._change_presence(publication.origin, message)
            case CursorsMoved(cursors):
                for cursor in cursors:
                    self._point_from(publication.origin, cursor)
            case None:
                pass

    def _change_presence(self, node: str, changed: PresenceChanged) -> None:
        for entry in changed.entries:
            if entry.shown is None:
                difference = self.everybody.hide(node, entry.session, entry.version)
            else:
                difference = self.everybody.show(node, entry.session, entry.shown)
            if difference is not None:
                self._tell_difference(difference)

    def ask_who(self) -> None:
        """The store is about to be asked who is here: what nodes say meanwhile may be older or newer than that."""
        self.wants_presence = False
        self._questions += 1

    def not_told_who(self) -> None:
        """The store has not answered."""
        self.wants_presence = True
        self._hear_again()

    def told_who(self, here: Sequence[Presence]) -> None:
        """They are here, as the store says; members are told the difference."""
        neighbours = self._neighbours
        own: dict[SessionId, bytes] = {}
        elsewhere: dict[tuple[str, SessionId], Shown] = {}
        for each in here:
            member = SessionId(each.member)
            if each.node == neighbours.node:
                own[member] = each.shown
            elif self.has_listeners and (shown := neighbours.stored.decode(each.shown)) is not None:
                elsewhere[each.node, member] = shown
        self.tell_differences(self.everybody.replace(elsewhere))
        self._hear_again()
        neighbours.writer.compare(self.name, own)

    def _hear_again(self) -> None:
        self._questions -= 1
        if self._questions:
            return
        heard, self._heard = self._heard, []
        for node, changed in heard:
            self._change_presence(node, changed)

    def tell_differences(self, differences: Sequence[Difference]) -> None:
        """Tell members who is shown now, and who is gone."""
        for difference in differences:
            self._tell_difference(difference)

    def _tell_difference(self, difference: Difference) -> None:
        if difference.after is not None:
            self.reveal(difference.after)
        elif difference.before is not None:
            info = decode_value(difference.before)["session_info"]
            payload = {"document": self.name, "status": OFFLINE, "session_info": info}
            self.tell(encode(self._new_id(), MessageType.USER_PRESENCE, payload, self._neighbours.now()))

    def reveal(self, shown: bytes) -> None:
        """Tell members what is shown of a session from now on."""
        if self.members:
            self.tell(encode(self._new_id(), MessageType.USER_PRESENCE, Raw(shown), self._neighbours.now()))

    def tell(self, frame: Frame, box: Outbox | None = None) -> None:
        """Send a frame of this node to every member but ``box``."""
        super().tell(frame, box)
        for ahead, _ in self._ahead.values():
            if ahead is not box:
                self._hub.send(ahead, frame)

    def _point_from(self, node: str, cursor: Cursor) -> None:
        """Give a cursor to every member, unless the session's next one comes in the same turn."""
        pointers, key = self._pointers, (node, cursor.session)
        pointer = pointers.pop(key, None)
        if pointer is None:
            pointer = Outbox(_nobody)  # the hub tells cursors apart by whose they are
            if len(pointers) >= MAX_POINTERS:
                del pointers[next(iter(pointers))]
        pointers[key] = pointer
        if self.members:
            self.point(Frame(cursor.message), pointer)

    # --- time -----------------------------------------------------------------------------------------

    def tick(self, now: datetime) -> None:
        """Give up what has waited for too long: before it something is missing that cannot be had now."""
        for receipt in tuple(self._receipts.values()):
            if receipt.published is not None:
                if receipt.since is None:
                    receipt.since = now
                elif now - receipt.since > PATIENCE:
                    del self._receipts[receipt.key]
                    receipt.give_up()


def _nobody() -> None:
    """Nobody is behind a pointer who could be too slow."""
