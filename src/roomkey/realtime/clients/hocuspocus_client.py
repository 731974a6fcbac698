"""
The clients of Hocuspocus: many documents on one socket, each opened by a token in a message.

A socket carries one session: that of its handshake, or the one that its first good token opens. Until there is
one, and until a document is open, messages wait, within bounds: clients send everything at once. A later token
of the same user is taken as a newer credential for the whole socket.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, Protocol

from roomkey.documents.document import Document
from roomkey.documents.settings import DocumentSettings
from roomkey.documents.writer import Settled
from roomkey.domain.access import Access
from roomkey.domain.session import Client
from roomkey.errors import InvalidInput
from roomkey.realtime.clients.client import ClientHost
from roomkey.realtime.clients.document_audience import Audiences
from roomkey.realtime.clients.document_subscription import DocumentSubscription
from roomkey.realtime.clients.pending import PendingMessages
from roomkey.realtime.clients.yjs_client import DocumentClient
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.session.closing import closing
from roomkey.realtime.session.effects import Authenticate, Close
from roomkey.realtime.session.guard import SessionGuard
from roomkey.security.inspection import check_document_name
from roomkey.wire import lib0
from roomkey.wire.close import CloseReason, close_text
from roomkey.wire.frame import Frame

FORBIDDEN: Final = "forbidden"
UNAVAILABLE: Final = "unavailable"
TOO_MANY: Final = "too_many_documents"
BAD_NAME: Final = "invalid_document_name"
DELETED: Final = "document_deleted"
"""Why a document may not be used; an error of a session is named by its own code."""


DONE: Final = "provider_initiated"
"""Why a document is closed that the client is done with, as Hocuspocus says it."""


class DocumentOpener(Protocol):
    """Opens documents for a socket."""

    def open(self, client: "HocuspocusClient", address: str, document: str) -> None:
        """
        Decide whether the session may use the document, and open it.

        Calls ``client.opened_document`` with the document, pinned, ``client.not_allowed``, or ``client.not_opened``,
        later.
        """
        ...


class HocuspocusClient(DocumentClient):
    """The ``Conversation`` of a Hocuspocus client whose session is known."""

    protocol = "hocuspocus"

    __slots__ = ("_opener", "_opening", "_pending", "_settings", "_subscriptions")

    def __init__(
        self,
        guard: SessionGuard,
        host: ClientHost,
        device: Client,
        audiences: Audiences,
        *,
        opener: DocumentOpener,
        settings: DocumentSettings,
    ) -> None:
        super().__init__(guard, host, device, audiences)
        self._opener = opener
        self._settings = settings
        self._subscriptions: dict[str, _HocuspocusSubscription] = {}
        self._opening: set[str] = set()
        self._pending = PendingMessages(settings)

    # --- messages -------------------------------------------------------------------------------------

    def _begin(self, now: datetime) -> None:
        """Clients begin."""

    def _deliver(self, message: bytes, now: datetime) -> bool:
        addressed = yjs.decode_addressed(message)
        match addressed.message:
            case yjs.Sign(is_ping):
                if is_ping:
                    self._hub.send(self.box, Frame(yjs.PONG, binary=True))
            case yjs.Token(token):
                self._take_token(addressed, token, now)
            case yjs.Detach():
                was_open = addressed.address in self._subscriptions
                self._detach(addressed.address, now)
                if was_open:
                    self._tell(addressed.address, yjs.closed(DONE))
            case yjs.Stateless():
                pass  # for hooks of the application, and there are none
            case content:
                return self._hand_on(addressed.address, content, message, now)
        return False

    def _hand_on(self, address: str, content: yjs.Message, frame: bytes, now: datetime) -> bool:
        subscription = self._subscriptions.get(address)
        if subscription is not None:
            return subscription.deliver(content, frame, now)
        if not self._pending.put(address, frame):
            self.carry_out(self.guard.close(closing(CloseReason.QUEUE_FULL)), now)
        return False

    def _tell(self, address: str, message: bytes) -> None:
        self._hub.send(self.box, Frame(yjs.address(address) + message, binary=True))

    def _detach(self, address: str, now: datetime) -> None:
        self._pending.take(address)
        self._opening.discard(address)
        subscription = self._subscriptions.pop(address, None)
        if subscription is not None:
            subscription.leave(now)
            if not self._count(subscription.document):
                self._host.disappeared(self, subscription.document.name)

    def _count(self, document: Document) -> int:
        """Under how many addresses the socket is in ``document``."""
        return sum(subscription.document is document for subscription in self._subscriptions.values())

    # --- credentials ----------------------------------------------------------------------------------

    def _take_token(self, addressed: yjs.AddressedMessage, token: str, now: datetime) -> None:
        address = addressed.address
        try:
            check_document_name(addressed.document)
        except InvalidInput:
            self._deny(address, BAD_NAME, now)
            return
        if token:
            self.carry_out(self.guard.refresh(Authenticate(address, token)), now)
        else:
            self.admit(address, now)  # the socket's own credential counts

    def admit(self, address: str, now: datetime) -> None:
        """The credential for ``address`` is good: open the document, if the session may."""
        if (subscription := self._subscriptions.get(address)) is not None:
            subscription.belong_to(self.guard.session)
            subscription.told_access()
            return
        document = address.partition("\0")[0]
        session, decisions = self.guard.session, self._host.decisions
        if decisions.is_fresh(session, document) and decisions.access(session, document) is None:
            self._deny(address, FORBIDDEN, now)
        elif len(self._subscriptions) + len(self._opening) >= self._settings.max_documents_per_socket:
            self._deny(address, TOO_MANY, now)
        elif address not in self._opening:
            self._opening.add(address)
            self._opener.open(self, address, document)

    def opened_document(self, address: str, document: Document) -> None:
        """The document that was asked for."""
        if self.guard.is_over or address not in self._opening:
            return
        self._opening.discard(address)
        now = self._host.now()
        access = self.access(document.name)
        if access is None:
            self._deny(address, FORBIDDEN, now)
            return
        subscription = _HocuspocusSubscription(self, document, address=yjs.address(address), access=access)
        self._subscriptions[address] = subscription
        subscription.begin(now)
        if self._host.degraded:
            subscription.told_service(degraded=True)
        if self.guard.deadline.is_noticed:  # perhaps nothing was open when it was, so nobody was told
            subscription.send(yjs.token_wanted())
        if (details := self._host.warning(self.guard.session.id, now)) is not None:
            subscription.warned(details)
        if self._count(document) == 1:
            self._host.appeared(self, document.name)
        for frame in self._pending.take(address):
            if not self.guard.is_over:
                self._understand(frame, now)

    def not_allowed(self, address: str) -> None:
        """The session may not use the document that was asked for."""
        if address in self._opening:
            self._deny(address, FORBIDDEN, self._host.now())

    def not_opened(self, address: str) -> None:
        """The document that was asked for cannot be had now."""
        if address in self._opening:
            self._deny(address, UNAVAILABLE, self._host.now())

    def _deny(self, address: str, reason: str, now: datetime) -> None:
        self._detach(address, now)
        self._tell(address, yjs.permission_denied(reason))

    # --- what is decided ------------------------------------------------------------------------------

    def _renewed(self, address: str, now: datetime) -> None:
        self.admit(address, now)

    def _not_renewed(self, address: str, reason: str, now: datetime) -> None:
        self._deny(address, reason, now)

    def _ask_for_token(self) -> None:
        for subscription in self._subscriptions.values():
            subscription.send(yjs.token_wanted())

    def put_out(self, document: str, reason: str | None) -> None:
        """Deny the document, which its provider hands on to its page; the socket stays open for the others."""
        self._put_out(lambda name: name == document, reason)

    def disconnect(self, reason: str | None) -> None:
        """Deny every document. The socket stays open: providers whose socket is closed come back at once."""
        self._put_out(lambda _: True, reason)

    def _put_out(self, is_meant: Callable[[str], bool], reason: str | None) -> None:
        text, now = close_text(CloseReason.DISCONNECTED, reason), self._host.now()

        def deny() -> None:
            for address in (*self._subscriptions, *self._opening):
                if is_meant(address.partition("\0")[0]):
                    self._deny(address, text, now)

        self._safely(deny)

    def _review(self, reason: str | None, now: datetime) -> None:
        for address, subscription in tuple(self._subscriptions.items()):
            access = self.access(subscription.document.name)
            if access is None:
                self._deny(address, close_text(CloseReason.FORBIDDEN, reason), now)
            else:
                subscription.allow(access)

    def _subscribed(self) -> Sequence[DocumentSubscription]:
        return tuple(self._subscriptions.values())

    def _leave(self, now: datetime) -> None:
        for address in tuple(self._subscriptions):
            self._detach(address, now)
        self._opening.clear()
        self._pending.take_all()

    def _farewell(self, close: Close, now: datetime) -> Sequence[Frame]:
        """For each document that it may not be used any more, if the session has ended: providers hand on no more."""
        del now
        if close.flush:
            return ()
        denied = yjs.permission_denied(close.text)
        return [Frame(subscription.address + denied, binary=True) for subscription in self._subscribed()]

    def lose(self, subscription: "_HocuspocusSubscription", reason: str) -> None:
        """The document is no more, or not here; the socket stays open for the others."""
        now = self._host.now()
        for address, mine in tuple(self._subscriptions.items()):
            if mine is subscription:
                self._deny(address, reason, now)


class _HocuspocusSubscription(DocumentSubscription):
    """Answers each change of the client, and each step 2, with one status: once it is durable, or refused."""

    __slots__ = ("_client", "_made_up", "_refusals")

    def __init__(self, client: HocuspocusClient, document: Document, *, address: bytes, access: Access) -> None:
        super().__init__(
            document,
            client.box,
            client.audiences,
            missed=client.missed,
            address=address,
            session=client.guard.session,
            access=access,
            guard=client.guard,
        )
        self._client = client
        self._refusals = 0
        self._made_up = 0

    def begin(self, now: datetime) -> None:
        """Clients ask first, and then are asked."""
        if not self.join(now):
            return
        self.told_access()
        self.show_everybody()

    def deliver(self, message: yjs.Message, frame: bytes, now: datetime) -> bool:
        """As every subscription; who asks is asked."""
        acted = super().deliver(message, frame, now)
        if isinstance(message, yjs.SyncStep1):
            self.ask_for_missing()
        return acted

    def remind(self, reminders: Sequence[lib0.AwarenessEntry]) -> None:
        """As every subscription. The provider takes its next clock, but keeps that to itself until it is asked."""
        super().remind(reminders)
        self.send(yjs.QUERY_AWARENESS)

    def _expect(self, *, brings_all: bool) -> Settled:
        # A step 2 brings what was refused before, too, which the client still counts as open.
        self._made_up, self._refusals = (self._refusals, 0) if brings_all else (0, self._refusals)
        return partial(self._settled_with, self._made_up) if self._made_up else self._settled_alone

    def _settled_alone(self, stored: bool) -> None:  # noqa: FBT001  # as writers call it
        if stored and self.box.socket is not None:
            self.send(yjs.sync_status(applied=True))

    def _settled_with(self, refusals: int, stored: bool) -> None:  # noqa: FBT001  # as writers call it
        if stored and self.box.socket is not None:
            for _ in range(1 + refusals):
                self.send(yjs.sync_status(applied=True))

    def refused(self, reason: str) -> None:
        del reason  # there is no word for it
        self.left_out()

    def left_out(self) -> None:
        self._refusals += 1 + self._made_up
        self._made_up = 0
        self.send(yjs.sync_status(applied=False))

    def refused_awareness(self, reason: str) -> None:
        self._client.lose(self, reason)  # the protocol has no lesser word

    def told_access(self) -> None:
        self.send(yjs.authenticated(yjs.READ_WRITE if self.may_write else yjs.READ_ONLY))

    def warned(self, details: Mapping[str, Any]) -> None:
        self.send(yjs.warning_notice(details))

    def told_service(self, *, degraded: bool) -> None:
        self.send(yjs.service_notice(degraded=degraded))

    def document_deleted(self) -> None:
        self._client.lose(self, DELETED)

    def sent_away(self, reason: CloseReason) -> None:
        self._client.lose(self, reason)
