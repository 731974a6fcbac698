"""
The peers of Hocuspocus: many documents on one socket, each opened by a token that comes in a message.

A socket carries one session: that of its handshake, or the one that its first good token opens. Until there is
one, and until a document is open, messages wait, within bounds: clients send everything at once. A later token
of the same user is taken as a newer credential for the whole socket.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Final, Protocol

from roomkey.documents.document import Document
from roomkey.documents.settings import DocumentSettings
from roomkey.documents.writer import Settled
from roomkey.domain.access import Access
from roomkey.domain.session import Client, Session
from roomkey.errors import InvalidInput
from roomkey.realtime.clients.client import ClientHost
from roomkey.realtime.clients.document_subscription import DocumentSubscription
from roomkey.realtime.clients.yjs_client import DocumentClient, EditingWatch
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.rooms.hub import HIGH_WATER_BYTES, Hub
from roomkey.realtime.session.closing import closing
from roomkey.realtime.session.effects import Admit, AskForToken, Deliver, Effect, Reject, Review
from roomkey.realtime.transport import Socket
from roomkey.security.inspection import check_document_name
from roomkey.wire import lib0
from roomkey.wire.close import CloseCode, CloseReason
from roomkey.wire.frame import Frame

MAX_REJECTIONS: Final = 10
"""So many tokens of a stranger may be wrong before its socket is closed."""

FORBIDDEN: Final = "forbidden"
UNAVAILABLE: Final = "unavailable"
TOO_MANY: Final = "too_many_documents"
BAD_NAME: Final = "invalid_document_name"
DELETED: Final = "document_deleted"
"""Why a document may not be used; an error of a session is named by its own code."""


DONE: Final = "provider_initiated"
"""Why a document is closed that the client is done with, as Hocuspocus says it."""


class DocumentOpener(Protocol):
    """Who opens documents for a socket."""

    def open(self, client: "HocuspocusClient", address: str, document: str, *, create: bool) -> None:
        """Call ``client.opened_document`` with the document, pinned, or ``client.not_opened``, later."""
        ...


class Queue:
    """Messages that wait until a document is open, in the order in which they came, all within one bound."""

    __slots__ = ("_bytes", "_frames", "_settings")

    def __init__(self, settings: DocumentSettings) -> None:
        self._settings = settings
        self._frames: list[tuple[str, bytes]] = []
        self._bytes = 0

    def put(self, address: str, frame: bytes) -> bool:
        """Let a message wait; ``False`` if there is no room for it."""
        settings = self._settings
        self._bytes += len(frame)
        self._frames.append((address, frame))
        return (
            self._bytes <= settings.max_unauthenticated_bytes
            and len(self._frames) <= settings.max_unauthenticated_messages
            and len({address for address, _ in self._frames}) <= settings.max_documents_per_socket
        )

    def take(self, address: str) -> list[bytes]:
        """The messages for ``address``, which wait no longer."""
        taken = [frame for waiting, frame in self._frames if waiting == address]
        self._frames = [(waiting, frame) for waiting, frame in self._frames if waiting != address]
        self._bytes -= sum(map(len, taken))
        return taken

    def drop(self, address: str) -> None:
        """Forget the messages for ``address`` that were sent with a token that is not good, up to the next one."""
        frames = self.take(address)
        is_token = [isinstance(yjs.decode_addressed(frame).message, yjs.Token) for frame in frames]
        for frame in frames[is_token.index(True) :] if any(is_token) else ():
            self.put(address, frame)

    def take_all(self) -> list[bytes]:
        """All messages, which wait no longer."""
        frames, self._frames, self._bytes = self._frames, [], 0
        return [frame for _, frame in frames]


class HocuspocusClient(DocumentClient):
    """The ``Conversation`` of a Hocuspocus client whose session is known."""

    __slots__ = ("_opener", "_opening", "_queue", "_settings", "_subscriptions")

    def __init__(
        self,
        connection: EditingWatch,
        host: ClientHost,
        client: Client,
        *,
        hub: Hub,
        opener: DocumentOpener,
        settings: DocumentSettings,
    ) -> None:
        super().__init__(connection, host, client, hub)
        self._opener = opener
        self._settings = settings
        self._subscriptions: dict[str, _HocuspocusSubscription] = {}
        self._opening: set[str] = set()
        self._queue = Queue(settings)

    # --- messages -------------------------------------------------------------------------------------

    def _begin(self, now: datetime) -> None:
        """Clients begin."""

    def _deliver(self, message: bytes, now: datetime) -> None:
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
                self._hand_on(addressed.address, content, message, now)

    def _hand_on(self, address: str, content: yjs.Message, frame: bytes, now: datetime) -> None:
        subscription = self._subscriptions.get(address)
        if subscription is not None:
            if subscription.deliver(content, now):
                self.carry_out(self.connection.acted(now), now)
        elif not self._queue.put(address, frame):
            self.carry_out(self.connection.close(closing(CloseReason.QUEUE_FULL)), now)

    def _tell(self, address: str, message: bytes) -> None:
        self._hub.send(self.box, Frame(yjs.address(address) + message, binary=True))

    def _detach(self, address: str, now: datetime) -> None:
        self._queue.take(address)
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
            self.carry_out(self.connection.refresh(address, token), now)
        else:
            self.admit(address, now)  # the socket's own credential counts

    def admit(self, address: str, now: datetime) -> None:
        """The credential for ``address`` is good: open the document, if the session may."""
        if (subscription := self._subscriptions.get(address)) is not None:
            subscription.author = self.author()
            subscription.told_access()
            return
        document = address.partition("\0")[0]
        access = self.connection.access(document)
        if access is None:
            self._deny(address, FORBIDDEN, now)
        elif len(self._subscriptions) + len(self._opening) >= self._settings.max_documents_per_socket:
            self._deny(address, TOO_MANY, now)
        elif address not in self._opening:
            self._opening.add(address)
            self._opener.open(self, address, document, create=access is not Access.READ)

    def opened_document(self, address: str, document: Document) -> None:
        """The document that was asked for."""
        if self.connection.is_over or address not in self._opening:
            return
        self._opening.discard(address)
        now = self._host.now()
        access = self.connection.access(document.name)
        if access is None:
            self._deny(address, FORBIDDEN, now)
            return
        subscription = _HocuspocusSubscription(self, document, self._hub, address=yjs.address(address), access=access)
        self._subscriptions[address] = subscription
        subscription.begin()
        if self._count(document) == 1:
            self._host.appeared(self, document.name)
        self.carry_out([Deliver(frame) for frame in self._queue.take(address)], now)

    def not_opened(self, address: str) -> None:
        """The document that was asked for cannot be had now."""
        if address in self._opening:
            self._deny(address, UNAVAILABLE, self._host.now())

    def _deny(self, address: str, reason: str, now: datetime) -> None:
        self._detach(address, now)
        self._tell(address, yjs.permission_denied(reason))

    # --- what the connection decides ------------------------------------------------------------------

    def _carry_out(self, effect: Effect, now: datetime) -> None:
        match effect:
            case Admit(address):
                self.admit(address, now)
            case Reject(address, why):
                self._deny(address, str((why.details or {}).get("reason", why.code)).lower(), now)
            case Review():
                self._review(now)
            case AskForToken():
                for subscription in self._subscriptions.values():
                    subscription.send(yjs.token_wanted())
            case _:  # pragma: no cover
                raise NotImplementedError

    def _review(self, now: datetime) -> None:
        for address, subscription in tuple(self._subscriptions.items()):
            access = self.connection.access(subscription.document.name)
            if access is None:
                self._deny(address, FORBIDDEN, now)
            else:
                subscription.allow(access)

    def _rebind(self, former: Session, now: datetime) -> None:
        super()._rebind(former, now)
        for subscription in self._subscriptions.values():
            subscription.author = self.author()

    def _attended(self) -> Sequence[tuple[bytes, Document]]:
        return [(subscription.address, subscription.document) for subscription in self._subscriptions.values()]

    def _leave(self, now: datetime) -> None:
        for address in tuple(self._subscriptions):
            self._detach(address, now)
        self._opening.clear()
        self._queue.take_all()

    def lose(self, subscription: "_HocuspocusSubscription", reason: str) -> None:
        """The document is no more, or not here; the socket stays open for the others."""
        now = self._host.now()
        for address, mine in tuple(self._subscriptions.items()):
            if mine is subscription:
                self._deny(address, reason, now)


class _HocuspocusSubscription(DocumentSubscription):
    """Each change of the client, and each step 2, is answered with one status: once it is durable, or refused."""

    __slots__ = ("_client", "_made_up", "_refusals")

    def __init__(
        self, client: HocuspocusClient, document: Document, hub: Hub, *, address: bytes, access: Access
    ) -> None:
        super().__init__(
            document, client.box, hub, missed=client.missed, address=address, author=client.author(), access=access
        )
        self._client = client
        self._refusals = 0
        self._made_up = 0

    def begin(self) -> None:
        """Clients ask first, and then are asked."""
        if not self.join():
            return
        self.told_access()
        self.show_everybody()

    def deliver(self, message: yjs.Message, now: datetime) -> bool:
        """As every attachment; who asks is asked."""
        acted = super().deliver(message, now)
        if isinstance(message, yjs.SyncStep1):
            self.ask_for_missing()
        return acted

    def _expect(self, *, brings_all: bool) -> Settled:
        # A step 2 brings what was refused before, too, which the client still counts as open.
        self._made_up, self._refusals = (self._refusals, 0) if brings_all else (0, self._refusals)
        return partial(self._settled_with, self._made_up)

    def _settled_with(self, refusals: int, stored: bool) -> None:  # noqa: FBT001  # as savers call it
        for _ in range(1 + refusals):
            self._settled(stored)

    def accepted(self) -> None:
        if self.box.socket is not None:
            self.send(yjs.sync_status(applied=True))

    def refused(self, reason: str) -> None:
        del reason  # there is no word for it
        self._refusals += 1 + self._made_up
        self._made_up = 0
        self.send(yjs.sync_status(applied=False))

    def told_access(self) -> None:
        self.send(yjs.authenticated(yjs.READ_WRITE if self.may_write else yjs.READ_ONLY))

    def document_deleted(self) -> None:
        self._client.lose(self, DELETED)

    def sent_away(self) -> None:
        self._client.lose(self, UNAVAILABLE)


class UnauthenticatedConnection:
    """
    The ``Conversation`` of a Hocuspocus client until a token has said whose it is; from then on it passes on
    what the transport says. ``ask`` has a token looked at, one at a time.
    """

    __slots__ = ("_ask", "_asking", "_client", "_closed", "_queue", "_rejections", "_socket")

    def __init__(
        self,
        settings: DocumentSettings,
        ask: Callable[["UnauthenticatedConnection", str, str], None],
        closed: Callable[["UnauthenticatedConnection"], None],
    ) -> None:
        self._ask = ask
        self._closed = closed
        self._queue = Queue(settings)
        self._asking = False
        self._rejections = 0
        self._socket: Socket | None = None
        self._client: HocuspocusClient | None = None

    # --- what the transport says ----------------------------------------------------------------------

    def opened(self, socket: Socket) -> None:
        """Wait for a token."""
        self._socket = socket

    def text(self, message: bytes) -> None:
        """Part: this protocol is binary."""
        if self._client is not None:
            self._client.text(message)
        else:
            self.part(CloseReason.BINARY_ONLY)

    def binary(self, message: bytes) -> None:
        """Look for a token; everything else waits."""
        if self._client is not None:
            self._client.binary(message)
        elif self._socket is not None:
            self._take(message)

    def writable(self) -> None:
        """Go on."""
        if self._client is not None:
            self._client.writable()

    def closed(self, code: int) -> None:
        """Nobody there any more."""
        self._socket = None
        self._closed(self)
        if self._client is not None:
            self._client.closed(code)

    # --- tokens ---------------------------------------------------------------------------------------

    def admitted(self, client: HocuspocusClient, address: str, now: datetime) -> None:
        """The token for ``address`` opened a session, to which everything that waits is handed on."""
        if self._socket is None:
            client.closed(CloseCode.NO_CLOSE)
            return
        self._client = client
        self._closed(self)
        client.opened(self._socket)
        client.admit(address, now)
        for frame in self._queue.take_all():
            client.binary(frame)

    def rejected(self, address: str, reason: str) -> None:
        """The token for ``address`` opened nothing. The socket stays open; what waited for it is forgotten."""
        self._asking = False
        self._queue.drop(address)
        self._say(yjs.address(address) + yjs.permission_denied(reason))
        self._rejections += 1
        if self._rejections >= MAX_REJECTIONS:
            self.part(CloseReason.BAD_TOKENS)
            return
        for frame in self._queue.take_all():
            self._take(frame)

    def part(self, reason: CloseReason) -> None:
        """End the connection."""
        socket, self._socket = self._socket, None
        self._queue.take_all()
        if socket is not None:
            end = closing(reason)
            socket.close(end.code, end.reason)

    def _take(self, frame: bytes) -> None:
        try:
            addressed = yjs.decode_addressed(frame)
        except lib0.Malformed:
            self.part(CloseReason.MALFORMED)
            return
        message = addressed.message
        if isinstance(message, yjs.Sign):
            if message.is_ping:
                self._say(yjs.PONG)
        elif isinstance(message, yjs.Token) and not self._asking:
            self._asking = True
            self._ask(self, addressed.address, message.token)
        elif not self._queue.put(addressed.address, frame):
            self.part(CloseReason.QUEUE_FULL)

    def _say(self, message: bytes) -> None:
        if self._socket is None:
            return
        self._socket.send([Frame(message, binary=True)])
        if self._socket.buffered() > HIGH_WATER_BYTES:
            self.part(CloseReason.TOO_SLOW)  # it is told next to nothing, and does not even read that
