"""
Sockets that edit documents: what their sessions allow, and the peers of y-websocket.

A message is looked at in this order: is the session still good, is there budget, is it a message, may the
session do that in this document.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Final

from roomkey.documents.crdt.replica import PoisonUpdate
from roomkey.documents.document import Document
from roomkey.documents.writer import Settled
from roomkey.domain.access import Access, access_to
from roomkey.domain.session import Client, Session
from roomkey.ports import Author
from roomkey.realtime.clients.catch_up import MergedBacklog
from roomkey.realtime.clients.client import ClientHost, RealtimeClient
from roomkey.realtime.clients.document_subscription import READ_ONLY, DocumentSubscription
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.protocol.json_messages import CloseReason, Fault
from roomkey.realtime.rooms.hub import Hub
from roomkey.realtime.rooms.rooms import participant
from roomkey.realtime.session.closing import closing
from roomkey.realtime.session.effects import (
    Admit,
    AskForToken,
    Authenticate,
    Close,
    Deliver,
    Effect,
    Reject,
    Review,
    Touch,
)
from roomkey.realtime.session.guard import NOTHING, Effects, Watch
from roomkey.security.authorization import author_of
from roomkey.wire.frame import Frame

_REVIEW: Final[Effects] = (Review(),)
_ASK_FOR_TOKEN: Final[Effects] = (AskForToken(),)
_TOUCH: Final[Effects] = (Touch(),)


class EditingWatch(Watch):
    """The watch of a socket that edits documents: budgets, grants, and what follows when they change."""

    __slots__ = ()

    def receive(self, message: bytes, now: datetime) -> Effects:
        """Decide whether a message is handed on now, later, or not at all."""
        if self.is_over:
            return NOTHING
        self._heard_at = now
        limits, seconds = self._limits, now.timestamp()
        if limits.edits.take(1.0, seconds) or limits.edit_traffic.take(len(message), seconds):
            # A change that was not taken would be missing under all that follow: better to begin anew.
            exhausted = limits.patience.take(_COST_OF_HASTE, seconds)
            return self._end(closing(CloseReason.LIMITS_IGNORED if exhausted else CloseReason.TOO_FAST))
        return self._admit(message, now)

    def access(self, document: str) -> Access | None:
        """What the session may do in ``document``."""
        return access_to(document, self.session.grants)

    def acted(self, now: datetime) -> Effects:
        """The user did something, which moves the idle deadline (ASVS 7.3.1)."""
        return _TOUCH if self._deadline.act(now) else NOTHING

    def refresh(self, address: str, token: str) -> Effects:
        """Another token came, for ``address``: messages wait until it is known whose it is."""
        self._refreshing = Authenticate(address, token)
        return [self._refreshing]

    def _understand(self, message: bytes, now: datetime) -> Effects:  # noqa: ARG002  # watches are asked alike
        return [Deliver(message)]

    def _review(self) -> Effects:
        return _REVIEW

    def _renewal(self, renewed: Authenticate) -> Effects:
        return [Admit(renewed.id or "")]

    def _notice(self) -> Effects:
        return _ASK_FOR_TOKEN

    def _refused(self, fault: Fault, refused: Authenticate, now: datetime) -> Effects:
        del now
        return [Reject(refused.id or "", fault)]


_COST_OF_HASTE: Final = 10.0
"""Of the patience with a session, in messages of ``/ws`` that would be too many: each time costs a connection."""


class DocumentClient(RealtimeClient[EditingWatch]):
    """What the two protocols have in common: a session's socket in some documents."""

    __slots__ = ("missed",)

    def __init__(self, connection: EditingWatch, host: ClientHost, client: Client, hub: Hub) -> None:
        self.missed = MergedBacklog(self._attended)
        super().__init__(connection, host, client, hub=hub, backlog=self.missed)

    def text(self, message: bytes) -> None:  # noqa: ARG002  # whatever it is
        """Part: these protocols are binary."""
        self.end(closing(CloseReason.BINARY_ONLY))

    def binary(self, message: bytes) -> None:
        """Decide, and do."""
        host = self._host
        now = host.now()
        host.received(len(message))
        self.carry_out(self.connection.receive(message, now), now)

    def carry_out(self, effects: Effects, now: datetime) -> None:
        """Do what was decided, in order."""
        for effect in effects:
            if type(effect) is Deliver:
                try:
                    self._deliver(effect.message, now)
                except (yjs.MalformedFrame, PoisonUpdate):
                    self.carry_out(self.connection.close(closing(CloseReason.MALFORMED)), now)
            else:
                super().carry_out((effect,), now)

    def documents(self) -> Sequence[str]:
        """The documents that it is in."""
        return [document.name for _, document in self._attended()]

    def author(self) -> Author:
        """As whom the client writes."""
        return author_of(self.connection.session)

    def _rebind(self, former: Session, now: datetime) -> None:
        names = self.documents()
        for name in names:
            self._host.disappeared(self, name)
        self.who = participant(self.box, self.connection.session)
        super()._rebind(former, now)
        for name in names:
            self._host.appeared(self, name)

    def _deliver(self, message: bytes, now: datetime) -> None:
        """Do what the client says. Raises ``MalformedFrame`` or ``PoisonUpdate`` if it is nothing."""
        raise NotImplementedError

    def _attended(self) -> Sequence[tuple[bytes, Document]]:
        """The documents that the socket is in, with its address in each."""
        raise NotImplementedError

    def _farewell(self, close: Close, now: datetime) -> Sequence[Frame]:
        del close, now
        return ()


class YjsClient(DocumentClient):
    """The ``Conversation`` of a y-websocket client: one socket, one document."""

    __slots__ = ("_is_pinned", "_subscription")

    def __init__(
        self,
        connection: EditingWatch,
        host: ClientHost,
        client: Client,
        *,
        hub: Hub,
        document: Document,
        access: Access,
        wants_status: bool,
    ) -> None:
        super().__init__(connection, host, client, hub)
        self._subscription = _YjsSubscription(self, document, hub, access=access, wants_status=wants_status)
        document.pins += 1  # until it is joined, or will not be
        self._is_pinned = True

    def _begin(self, now: datetime) -> None:
        del now
        self._subscription.begin()
        self._unpin()
        if not self.connection.is_over:
            self._host.appeared(self, self._subscription.document.name)

    def _unpin(self) -> None:
        if self._is_pinned:
            self._is_pinned = False
            self._subscription.document.pins -= 1

    def _deliver(self, message: bytes, now: datetime) -> None:
        if self._subscription.deliver(yjs.decode(message), now):
            self.carry_out(self.connection.acted(now), now)

    def _attended(self) -> Sequence[tuple[bytes, Document]]:
        return ((b"", self._subscription.document),)

    def _carry_out(self, effect: Effect, now: datetime) -> None:
        if isinstance(effect, Review):
            access = self.connection.access(self._subscription.document.name)
            if access is None:
                self.carry_out(self.connection.close(closing(CloseReason.FORBIDDEN)), now)
            else:
                self._subscription.allow(access)

    def _leave(self, now: datetime) -> None:
        self._unpin()
        document = self._subscription.document
        if self._subscription in document.subscribers:
            self._subscription.leave(now)
            self._host.disappeared(self, document.name)


class _YjsSubscription(DocumentSubscription):
    """
    The protocol has no word for what became of a change; those who asked for it are told how many are durable.

    That is: all up to a number. A change that was refused is a gap, until the client brings everything again.
    """

    __slots__ = ("_client", "_durable", "_gap", "_taken", "_wants_status")

    def __init__(self, client: YjsClient, document: Document, hub: Hub, *, access: Access, wants_status: bool) -> None:
        super().__init__(
            document, client.box, hub, missed=client.missed, address=b"", author=client.author(), access=access
        )
        self._client = client
        self._wants_status = wants_status
        self._taken = 0
        self._durable = 0
        self._gap: int | None = None

    def begin(self) -> None:
        """As every attachment; whoever may only read is told so."""
        super().begin()
        if not self.may_write:
            self.told_access()

    def _expect(self, *, brings_all: bool) -> Settled:
        self._taken += 1
        return partial(self._settled_up_to, self._taken, brings_all)

    def _settled_up_to(self, number: int, brings_all: bool, stored: bool) -> None:  # noqa: FBT001
        if not stored:
            return
        if brings_all and self._gap is not None and self._gap < number:
            self._gap = None
        if number > self._durable and (self._gap is None or number < self._gap):
            self._durable = number
            self.accepted()

    def accepted(self) -> None:
        if self._wants_status and self.box.socket is not None:
            self.send(yjs.saved(self._durable))

    def refused(self, reason: str) -> None:
        if self._gap is None:
            self._gap = self._taken
        self.send(yjs.denied(reason))

    def told_access(self) -> None:
        if not self.may_write:
            self.send(yjs.denied(READ_ONLY))

    def document_deleted(self) -> None:
        self._client.end(closing(CloseReason.DOCUMENT_DELETED))

    def sent_away(self) -> None:
        self._client.end(closing(CloseReason.UNAVAILABLE))
