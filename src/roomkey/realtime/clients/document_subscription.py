"""
One connection in one document: what its client says about the document becomes changes, answers and refusals.

What the two protocols have in common. They differ in how a client is told what became of its changes.
"""

from datetime import datetime
from typing import Protocol

from roomkey.documents.crdt.awareness import Owner
from roomkey.documents.document import Document, DocumentTooLarge, WritesRefused
from roomkey.documents.writer import Settled
from roomkey.domain.access import Access
from roomkey.ports import Author
from roomkey.realtime.clients.catch_up import MergedBacklog
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.rooms.hub import HIGH_WATER_BYTES, Hub, Outbox
from roomkey.wire import lib0
from roomkey.wire.frame import Frame

READ_ONLY = "read-only"
"""Why a change is refused of a session that may only read."""


class Take(Protocol):
    """How a document takes a change."""

    def __call__(self, update: bytes, author: Author, now: datetime, *, settled: Settled) -> bool:
        """Whether there was anything in it; then ``settled`` is called later."""
        ...


class DocumentSubscription:
    """
    The ``Subscriber`` of a socket.

    ``deliver`` raises what a message is not: ``Malformed`` or ``PoisonUpdate``. Then the client is to be
    parted from; the document is as it was. ``missed`` is the backlog of ``box``.
    """

    __slots__ = ("_hub", "_is_taking", "_missed", "_owner", "address", "author", "box", "document", "may_write")

    def __init__(  # keyword-only: where it is, and as whom
        self,
        document: Document,
        box: Outbox,
        hub: Hub,
        *,
        missed: MergedBacklog | None = None,
        address: bytes,
        author: Author,
        access: Access,
    ) -> None:
        self.document = document
        self.box = box
        self.address = address
        self.author = author
        self.may_write = access is not Access.READ
        self._hub = hub
        self._is_taking = False
        self._missed = missed or MergedBacklog(lambda: ((address, document),))
        self._owner = Owner(self, author.actor)

    # --- in and out -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Be told of everything from now on, say what is here, and ask for what is not."""
        if not self.join():
            return
        self.ask_for_missing()
        self.show_everybody()

    def join(self) -> bool:
        """Be in the document, unless it has gone since it was opened."""
        if self.document.is_deleted:
            self.document_deleted()
        elif self.document.is_gone:
            self.unavailable()
        else:
            self.document.join(self)
        return not self.document.is_gone

    def leave(self, now: datetime) -> None:
        """Be gone, and everything with it that the client showed."""
        self.document.leave(self, now)

    def show_everybody(self) -> None:
        """Let the client know what everybody shows."""
        if entries := self.document.awareness.entries():
            self.send(yjs.awareness(entries))

    def ask_for_missing(self) -> None:
        """Let the client send what is missing here: the answer to a step 1 is a step 2."""
        self.send(yjs.sync_step1(self.document.replica.state()))

    def send(self, message: bytes) -> None:
        """Tell the client."""
        self._hub.send(self.box, Frame(self.address + message, binary=True))

    # --- what the client says -------------------------------------------------------------------------

    def deliver(self, message: yjs.Message, now: datetime) -> bool:
        """Take a message; whether it is something that the user did."""
        match message:
            case yjs.Update(update):
                return self._take(update, now, self.document.take_update, self._expect(brings_all=False))
            case yjs.AwarenessUpdate():
                return self._take_awareness(message, now)
            case yjs.SyncStep2(update):
                return self._take(update, now, self.document.take_missing, self._expect(brings_all=True))
            case yjs.SyncStep1(state):
                self._answer(state)
            case yjs.QueryAwareness():
                self.show_everybody()
            case _:
                raise lib0.Malformed("this is not said in a document")
        return False

    def _answer(self, state: bytes) -> None:
        if self.box.behind or self.box.size > HIGH_WATER_BYTES:
            self._missed.ask(self.address, state)
            self._hub.hold_back(self.box)
        else:
            self._hub.send(self.box, self.document.answer(state, self.address))

    def _take_awareness(self, update: yjs.AwarenessUpdate, now: datetime) -> bool:
        outcome = self.document.take_awareness(update, self._owner, now)
        if outcome.reminders:
            self.send(yjs.awareness(outcome.reminders))
        return outcome.is_activity

    def _take(self, update: bytes, now: datetime, take: Take, settled: Settled) -> bool:
        if self.document.is_of_the_deleted(update):
            self.document_deleted()
            return False
        if not self.may_write and not self.document.contains(update):
            self.refused(READ_ONLY)
            return False
        self._is_taking = True
        try:
            taken = self.may_write and take(update, self.author, now, settled=settled)
        except (WritesRefused, DocumentTooLarge) as error:
            self.refused(error.code)
            if error.retry:
                self.document.ask_later(self)
            return False
        finally:
            self._is_taking = False
        if not taken:
            # There is nothing new in it. But what it repeats may not be durable yet.
            self.document.when_saved(settled)
        return taken

    def _expect(self, *, brings_all: bool) -> Settled:
        """
        A change has come; what is returned is called when it is known what became of it.

        ``brings_all`` says that everything is in it that the client had before.
        """
        del brings_all
        return self._settled

    def _settled(self, stored: bool) -> None:  # noqa: FBT001  # as savers call it
        if stored:
            self.accepted()

    def unavailable(self) -> None:
        """The document cannot be used any more. Whoever broke it is told so in another way, and may not come back."""
        if not self._is_taking:
            self.sent_away()

    # --- what may be done -----------------------------------------------------------------------------

    def allow(self, access: Access) -> None:
        """The session's rights in the document are other ones now, or still the same."""
        may_write = access is not Access.READ
        if may_write == self.may_write:
            return
        self.may_write = may_write
        self.told_access()
        if may_write:
            self.document.want()
            self.ask_for_missing()  # what was refused meanwhile

    # --- what protocols say ---------------------------------------------------------------------------

    def accepted(self) -> None:
        """A change of the client is durable, or there was nothing in it. Must not raise."""
        raise NotImplementedError

    def refused(self, reason: str) -> None:
        """A change of the client was not taken."""
        raise NotImplementedError

    def told_access(self) -> None:
        """The client is told whether it may write."""
        raise NotImplementedError

    def document_deleted(self) -> None:
        """The document is no more."""
        raise NotImplementedError

    def sent_away(self) -> None:
        """The client cannot be in the document now, and may come back."""
        raise NotImplementedError
