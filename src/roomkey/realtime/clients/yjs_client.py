"""
Sockets that edit documents: what both protocols have in common, and the clients of y-websocket.

A message is looked at in this order: is the session still good, is there budget, is it a message, may the
session do that in this document.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, assert_never

from roomkey.documents.crdt.replica import Forgery, PoisonUpdate
from roomkey.documents.document import Document
from roomkey.documents.writer import Settled
from roomkey.domain.access import Access
from roomkey.domain.session import Client, Session
from roomkey.realtime.clients.catch_up import MergedBacklog
from roomkey.realtime.clients.client import ClientHost, RealtimeClient
from roomkey.realtime.clients.document_audience import Audiences
from roomkey.realtime.clients.document_subscription import READ_ONLY, DocumentSubscription
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.session.closing import closing
from roomkey.realtime.session.effects import (
    Authenticate,
    Close,
    ExpiringSoon,
    NotRenewed,
    Rebind,
    Renewed,
    Review,
    Touch,
    Verify,
)
from roomkey.realtime.session.guard import GuardEffects, SessionGuard
from roomkey.wire import lib0
from roomkey.wire.close import STOCK_CLOSE_CODES, CloseReason, close_text
from roomkey.wire.frame import Frame

WARNING: Final = "violations"
"""The reason with which y-websocket clients are warned; nothing is denied to them."""

_COST_OF_HASTE: Final = 10.0
"""Cost of one message over the limit, in excess messages of ``/ws``: here each one closes a connection."""


class DocumentClient(RealtimeClient):
    """One socket of a session, in one or more documents."""

    codes = STOCK_CLOSE_CODES

    __slots__ = ("audiences", "missed")

    def __init__(self, guard: SessionGuard, host: ClientHost, device: Client, audiences: Audiences) -> None:
        self.audiences = audiences
        self.missed = MergedBacklog(self._subscribed)
        super().__init__(guard, host, device, backlog=self.missed)

    # --- what the transport says ----------------------------------------------------------------------

    def text(self, message: bytes) -> None:  # noqa: ARG002  # whatever it is
        """Close: these protocols are binary."""
        self.end(closing(CloseReason.BINARY_ONLY))

    def binary(self, message: bytes) -> None:
        """Take a message, unless it has to wait or is one too many."""
        self.messages_in += 1
        self.bytes_in += len(message)
        guard, now = self.guard, self._host.now()
        if guard.is_over:
            return
        guard.heard(now)
        limits, seconds = guard.limits, now.timestamp()
        if limits.edits.take(1.0, seconds) or limits.edit_traffic.take(len(message), seconds):
            limits.rejected += 1
            # A change that was not taken would be missing under all that follow: better to begin anew.
            exhausted = limits.patience.take(_COST_OF_HASTE, seconds)
            reason = CloseReason.LIMITS_IGNORED if exhausted else CloseReason.TOO_FAST
            self.carry_out(guard.close(closing(reason)), now)
            return
        waits = guard.admit(message, now)
        if waits is None:
            self._understand(message, now)
        else:
            self.carry_out(waits, now)

    def _understand(self, message: bytes, now: datetime) -> None:
        try:
            acted = self._deliver(message, now)
        except Forgery:
            self.carry_out(self.guard.close(closing(CloseReason.FORGED)), now)
        except (lib0.Malformed, PoisonUpdate):
            self.carry_out(self.guard.close(closing(CloseReason.MALFORMED)), now)
        else:
            if acted:
                self.carry_out(self.guard.acted(now), now)

    # --- what is decided ------------------------------------------------------------------------------

    def warn(self, details: Mapping[str, Any], now: datetime) -> None:
        """Say it in every document, where the protocol has a word for it."""
        del now
        for subscription in self._subscribed():
            subscription.warned(details)

    def tell_service(self, now: datetime) -> None:
        """Say it in every document, where the protocol has a word for it."""
        del now
        for subscription in self._subscribed():
            subscription.told_service(degraded=self._host.degraded)

    def carry_out(self, effects: GuardEffects, now: datetime) -> None:
        """Do what the guard decided, in order."""
        for effect in effects:
            match effect:
                case Touch() | Authenticate() | Verify() | Close():
                    self._do(effect, now)
                case Rebind(former):
                    self._rebind(former)
                case Review(reason):
                    self._review(reason, now)
                case Renewed(question):
                    self._renewed(question.id or "", now)
                case NotRenewed(question, why):
                    details = why.details or {}
                    reason = close_text(str(details.get("code", why.code)).lower(), details.get("reason"))
                    self._not_renewed(question.id or "", reason, now)
                case ExpiringSoon():
                    self._ask_for_token()
                case _:
                    assert_never(effect)

    def access(self, document: str) -> Access | None:
        """What the session may do in ``document``, as far as that is known."""
        return self._host.decisions.access(self.guard.session, document)

    def documents(self) -> Sequence[str]:
        """The documents that it is in."""
        return [subscription.document.name for subscription in self._subscribed()]

    def _rebind(self, former: Session) -> None:
        names = self.documents()
        for name in names:
            self._host.disappeared(self, name)
        self.who.belong_to(self.guard.session)
        self.guard.limits = self._host.rebound(self, former)
        for name in names:
            self._host.appeared(self, name)
        for subscription in self._subscribed():
            subscription.belong_to(self.guard.session)

    def _farewell(self, close: Close, now: datetime) -> Sequence[Frame]:
        del close, now
        return ()

    # --- what the protocols say -----------------------------------------------------------------------

    @abstractmethod
    def _deliver(self, message: bytes, now: datetime) -> bool:
        """
        Process a message; returns whether it is activity of the user.

        Raises:
            Malformed, PoisonUpdate: If it is nothing.
        """

    @abstractmethod
    def _subscribed(self) -> Sequence[DocumentSubscription]:
        """The documents that the socket is in, once for each address."""

    @abstractmethod
    def _review(self, reason: str | None, now: datetime) -> None:
        """The session's grants may have changed."""

    def _renewed(self, address: str, now: datetime) -> None:
        """The token for ``address`` was accepted."""

    def _not_renewed(self, address: str, reason: str, now: datetime) -> None:
        """The token for ``address`` was refused."""

    def _ask_for_token(self) -> None:
        """Tell the client that it needs a new token soon."""


class YjsClient(DocumentClient):
    """The ``Conversation`` of a y-websocket client: one socket, one document. It has no word for tokens."""

    protocol = "yjs"

    __slots__ = ("_pin", "_subscription")

    def __init__(
        self,
        guard: SessionGuard,
        host: ClientHost,
        device: Client,
        audiences: Audiences,
        *,
        document: Document,
        access: Access,
        wants_status: bool,
    ) -> None:
        super().__init__(guard, host, device, audiences)
        self._subscription = _YjsSubscription(self, document, access=access, wants_status=wants_status)
        self._pin = document.pin()  # until it is joined, or will not be

    def _begin(self, now: datetime) -> None:
        self._subscription.begin(now)
        if self._host.degraded:
            self._subscription.told_service(degraded=True)
        self._pin.release()
        if not self.guard.is_over:
            self._host.appeared(self, self._subscription.document.name)

    def put_out(self, document: str, reason: str | None) -> None:
        """Close the socket: it has one document."""
        del document
        self.disconnect(reason)

    def _deliver(self, message: bytes, now: datetime) -> bool:
        return self._subscription.deliver(yjs.decode(message), message, now)

    def _subscribed(self) -> Sequence[DocumentSubscription]:
        return (self._subscription,)

    def _review(self, reason: str | None, now: datetime) -> None:
        access = self.access(self._subscription.document.name)
        if access is None:
            self.carry_out(self.guard.close(closing(CloseReason.FORBIDDEN, cause=reason)), now)
        else:
            self._subscription.allow(access)

    def _leave(self, now: datetime) -> None:
        self._pin.release()
        if self._subscription.leave(now):
            self._host.disappeared(self, self._subscription.document.name)


class _YjsSubscription(DocumentSubscription):
    """
    The protocol has no word for what became of a change; those who asked for it are told how many are durable.

    That is: all up to a number. A change that was refused is a gap, until the client brings everything again.
    """

    __slots__ = ("_client", "_durable", "_gap", "_taken", "_wants_status")

    def __init__(self, client: YjsClient, document: Document, *, access: Access, wants_status: bool) -> None:
        super().__init__(
            document,
            client.box,
            client.audiences,
            missed=client.missed,
            address=b"",
            session=client.guard.session,
            access=access,
            guard=client.guard,
        )
        self._client = client
        self._wants_status = wants_status
        self._taken = 0
        self._durable = 0
        self._gap: int | None = None

    def begin(self, now: datetime) -> None:
        """As every subscription; a client that may only read is told so."""
        super().begin(now)
        if not self.may_write:
            self.told_access()

    def _expect(self, *, brings_all: bool) -> Settled | None:
        if not self._wants_status:
            return None
        self._taken += 1
        return partial(self._settled_up_to, self._taken, brings_all)

    def _settled_up_to(self, number: int, brings_all: bool, stored: bool) -> None:  # noqa: FBT001  # as writers call it
        if not stored:
            return
        if brings_all and self._gap is not None and self._gap < number:
            self._gap = None
        if number > self._durable and (self._gap is None or number < self._gap):
            self._durable = number
            if self.box.socket is not None:
                self.send(yjs.saved(self._durable))

    def refused(self, reason: str) -> None:
        self.left_out()
        self.send(yjs.denied(reason))

    def left_out(self) -> None:
        if self._gap is None:
            self._gap = self._taken

    def refused_awareness(self, reason: str) -> None:
        self.send(yjs.denied(reason))

    def told_access(self) -> None:
        if not self.may_write:
            self.send(yjs.denied(READ_ONLY))

    def warned(self, details: Mapping[str, Any]) -> None:
        del details  # there is room for a reason only, which pages write into the console
        self.send(yjs.denied(WARNING))

    def told_service(self, *, degraded: bool) -> None:
        if self._wants_status:
            self.send(yjs.service(degraded=degraded))

    def document_deleted(self) -> None:
        self._client.end(closing(CloseReason.DOCUMENT_DELETED))

    def sent_away(self, reason: CloseReason) -> None:
        self._client.end(closing(reason))
