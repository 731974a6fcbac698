"""
One connection in one document: its client's messages become changes, answers and refusals.

Common to both Yjs protocols. They differ in how a client learns what became of its changes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from roomkey.documents.crdt.awareness import Owner
from roomkey.documents.crdt.identity import Source
from roomkey.documents.document import Document, DocumentTooLarge, WritesRefused
from roomkey.documents.writer import Settled
from roomkey.domain.access import Access
from roomkey.domain.session import Session
from roomkey.realtime.clients.catch_up import MergedBacklog
from roomkey.realtime.clients.document_audience import Audiences, DocumentAudience
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.protocol.shown_user import FOREIGN_USER, ShownUser
from roomkey.realtime.rooms.hub import Outbox
from roomkey.realtime.session.activity import is_activity
from roomkey.realtime.session.guard import SessionGuard
from roomkey.realtime.transport import HIGH_WATER_BYTES
from roomkey.security.authorization import author_of
from roomkey.wire import lib0
from roomkey.wire.close import CloseReason
from roomkey.wire.frame import Frame

READ_ONLY = "read-only"
"""Why a change is refused of a session that may only read."""

LEFT_OUT_INTERVAL = timedelta(seconds=2)
"""After so long a client is asked again for what only others may bring: as a rule they have brought it by then."""


class DocumentSubscription(ABC):
    """
    The ``Subscriber`` of a socket.

    ``deliver`` raises what a message is not: ``Malformed`` or ``PoisonUpdate``. Then the client is to be
    parted from; the document is as it was. ``missed`` is the backlog of ``box``.
    """

    __slots__ = (
        "_audience",
        "_audiences",
        "_guard",
        "_has_shown",
        "_identity",
        "_is_taking",
        "_missed",
        "_owner",
        "_source",
        "address",
        "author",
        "box",
        "document",
        "may_write",
    )

    def __init__(
        self,
        document: Document,
        box: Outbox,
        audiences: Audiences,
        *,
        missed: MergedBacklog,
        address: bytes,
        session: Session,
        access: Access,
        guard: SessionGuard,
    ) -> None:
        self.document = document
        self.box = box
        self.address = address
        self.may_write = access is not Access.READ
        self._audiences = audiences
        self._guard = guard
        self._audience: DocumentAudience | None = None
        self._has_shown = False
        self._is_taking = False
        self._missed = missed
        self.belong_to(session)
        self._owner = Owner(self, self.author.actor)
        self._source = Source(session.user_id)

    def belong_to(self, session: Session) -> None:
        """Be a connection of ``session``, which is one of the same user, from now on."""
        self.author = author_of(session)
        self._identity = ShownUser(session, self._audiences.identity)

    # --- in and out -----------------------------------------------------------------------------------

    def begin(self, now: datetime) -> None:
        """Subscribe, send what the document has, and ask for what it lacks."""
        if not self.join(now):
            return
        self.ask_for_missing()
        self.show_everybody()

    def join(self, now: datetime) -> bool:
        """Subscribe, unless the document has gone since it was opened; whether it worked."""
        if self.document.is_deleted:
            self.document_deleted()
        elif self.document.is_gone:
            self.unavailable()
        elif self.document.is_withheld:
            self.storage_lost()
        else:
            self._audience = self._audiences.join(self.document, self, now)
            self.document.enter(self._source)
        return self._audience is not None

    def leave(self, now: datetime) -> bool:
        """Unsubscribe, and remove the client's awareness. Whether it was in the document."""
        self._audience = None
        self.document.leave(self._source)
        return self._audiences.leave(self.document, self, now)

    def show_everybody(self) -> None:
        """Send the awareness of everyone to the client."""
        if entries := self.document.awareness.entries():
            self.send(yjs.awareness(entries))

    def remind(self, reminders: Sequence[lib0.AwarenessEntry]) -> None:
        """Have clients of this connection show themselves anew."""
        self.send(yjs.awareness(reminders))

    def ask_for_missing(self) -> None:
        """Ask the client for what the document lacks here: the answer to a step 1 is a step 2."""
        self.send(yjs.sync_step1(self.document.replica.state()))

    def send(self, message: bytes) -> None:
        """Send a message to the client."""
        self._audiences.hub.send(self.box, Frame(self.address + message, binary=True))

    # --- what the client says -------------------------------------------------------------------------

    def deliver(self, message: yjs.Message, frame: bytes, now: datetime) -> bool:
        """Process a message, which came as ``frame``; returns whether it is activity of the user."""
        is_new = False
        match message:
            case yjs.Update(update):
                is_known = self._guard.is_open_to_activity(now) and self.document.contains(update)
                is_new = self._take(update, frame, now) and not is_known
            case yjs.AwarenessUpdate(entries):
                is_new = self._take_awareness(entries, now)
            case yjs.SyncStep2(update):
                is_new = self._take(update, None, now)
            case yjs.SyncStep1(state):
                self._answer(state)
            case yjs.QueryAwareness():
                self.show_everybody()
            case _:
                raise lib0.Malformed("this is not said in a document")
        return is_activity(type(message), is_new=is_new)

    def answer(self, state: bytes) -> Frame:
        """The answer to a step 1 with ``state``."""
        if self._audience is None:
            return Frame(self.address + yjs.sync_step2(self.document.replica.since(state)), binary=True)
        return self._audience.answer(state, self.address)

    def _answer(self, state: bytes) -> None:
        if self.box.behind or self.box.size > HIGH_WATER_BYTES:
            self._missed.ask(self.address, state)
            self._audiences.hub.hold_back(self.box)
        else:
            self._audiences.hub.send(self.box, self.answer(state))

    def _take_awareness(self, entries: Sequence[lib0.AwarenessEntry], now: datetime) -> bool:
        if not self._has_shown and self._audience is not None:
            self._has_shown = True
            self._audience.introduced(entries, now)
        outcome = self.document.take_awareness(entries, self._owner, now, source=self._source, identity=self._identity)
        if outcome.refused:
            self.refused_awareness(FOREIGN_USER)
        if outcome.reminders:
            self.remind(outcome.reminders)
        return outcome.has_changed

    def _take(self, update: bytes, frame: bytes | None, now: datetime) -> bool:
        """Process a change that came as ``frame``, or, without a frame, the answer to our step 1."""
        settled = self._expect(brings_all=frame is None)
        if self.document.is_of_the_deleted(update):
            self.document_deleted()
            return False
        if not self.may_write and not self.document.contains(update):
            self.refused(READ_ONLY)
            return False
        self._is_taking = True
        try:
            taken = self.may_write and self._apply(update, frame, now, settled)
        except (WritesRefused, DocumentTooLarge) as error:
            self.refused(error.code)
            if error.retry and self._audience is not None:
                self._audience.ask_later(self, now)
            return False
        finally:
            self._is_taking = False
        if self._source.was_cut:
            self._source.was_cut = False
            self.left_out()
            if self._audience is not None:
                # It may be taken when its owner has brought the rest.
                self._audience.ask_later(self, now + LEFT_OUT_INTERVAL)
        elif not taken and settled is not None:
            # There is nothing new in it. But what it repeats may not be durable yet.
            self.document.when_saved(settled)
        return taken

    def _apply(self, update: bytes, frame: bytes | None, now: datetime, settled: Settled | None) -> bool:
        document, source = self.document, self._source
        if frame is None:
            return document.take_missing(update, self.author, now, source=source, settled=settled)
        return document.take_update(update, self.author, now, source=source, settled=settled, message=frame)

    def unavailable(self) -> None:
        """The document cannot be used any more. The client whose change broke it is closed with MALFORMED instead."""
        if not self._is_taking:
            self.sent_away(CloseReason.UNAVAILABLE)

    def storage_lost(self) -> None:
        """Storage has lost the document."""
        self.sent_away(CloseReason.STORAGE_LOST)

    # --- what may be done -----------------------------------------------------------------------------

    def allow(self, access: Access) -> None:
        """The session's rights in the document are other ones now, or still the same."""
        may_write = access is not Access.READ
        if may_write == self.may_write:
            return
        self.may_write = may_write
        self.told_access()
        if may_write:
            self.document.want(self.author)
            self.ask_for_missing()  # what was refused meanwhile

    # --- what protocols say ---------------------------------------------------------------------------

    @abstractmethod
    def _expect(self, *, brings_all: bool) -> Settled | None:
        """
        A change has come; what is returned is called when it is known what became of it.

        ``brings_all`` says that everything is in it that the client had before.
        """

    @abstractmethod
    def refused(self, reason: str) -> None:
        """A change of the client was refused."""

    @abstractmethod
    def refused_awareness(self, reason: str) -> None:
        """What the client showed of itself was refused; what it showed before stays."""

    @abstractmethod
    def left_out(self) -> None:
        """A part of a change was not taken, because only others may bring it: it is not durable."""

    @abstractmethod
    def told_access(self) -> None:
        """The client is told whether it may write."""

    @abstractmethod
    def warned(self, details: Mapping[str, Any]) -> None:
        """The client is told that violations of its session count."""

    @abstractmethod
    def told_service(self, *, degraded: bool) -> None:
        """The client is told whether changes reach others later than they should, if the protocol can say that."""

    @abstractmethod
    def document_deleted(self) -> None:
        """The document was deleted."""

    @abstractmethod
    def sent_away(self, reason: CloseReason) -> None:
        """The client cannot be in the document now, and may reconnect."""
