"""The doors to documents: the sockets of y-websocket and of Hocuspocus, and where their documents come from."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final

from roomkey.documents.open_documents import OpenDocuments
from roomkey.domain.access import Access
from roomkey.domain.session import Client, Session
from roomkey.errors import Forbidden, InvalidInput, RoomkeyError
from roomkey.realtime.admission import Admission
from roomkey.realtime.clients.document_audience import Audiences
from roomkey.realtime.clients.hocuspocus_client import HocuspocusClient
from roomkey.realtime.clients.unauthenticated import UnauthenticatedConnection
from roomkey.realtime.clients.yjs_client import YjsClient
from roomkey.realtime.connections import Connections
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.refusals import Refusal, refusal_of, unavailable
from roomkey.realtime.session.closing import closing
from roomkey.realtime.session.guard import SessionGuard
from roomkey.realtime.session.limits import SessionLimits
from roomkey.realtime.settings import RealtimeSettings
from roomkey.realtime.transport import Accepted, Conversation, Handshake
from roomkey.security.credentials import client_of, select_subprotocol
from roomkey.security.inspection import check_document_name
from roomkey.wire.close import CloseReason
from roomkey.wire.frame import Frame

FRAMING_BYTES: Final = 4 * 1024
"""What may stand around an update in a message: a document's name, and some numbers."""

LINEAGE_HEADER: Final = "roomkey-lineage"

LOOK_INTERVAL: Final = timedelta(seconds=1)
"""How often each open document is looked at: for a thousand of them that is a millisecond."""


class DocumentEndpoint:
    """Lets editors in. ``tick`` must be called as long as there are strangers."""

    def __init__(
        self,
        open_documents: OpenDocuments,
        connections: Connections,
        *,
        admission: Admission,
        settings: RealtimeSettings,
    ) -> None:
        self._open_documents = open_documents
        self._connections = connections
        self._admission = admission
        self._settings = settings
        self._documents = open_documents.settings
        self._audiences = Audiences(connections.hub, open_documents.settings, settings.awareness_identity)
        self._unauthenticated: dict[UnauthenticatedConnection, datetime] = {}
        self._next_look: datetime | None = None
        self._held: dict[UnauthenticatedConnection, tuple[datetime, Refusal]] = {}

    def leads_to(self, path: str) -> bool:
        """Whether ``path`` is one of these doors."""
        return path.startswith(self._documents.path + "/") or self._is_hocuspocus(path)

    def _is_hocuspocus(self, path: str) -> bool:
        return path.rstrip("/") == self._documents.hocuspocus_path

    def greeting(self, path: str) -> Sequence[Frame]:
        """
        What a client on ``path`` is sent that cannot be let in for now.

        A Hocuspocus provider that hears nothing takes it for a failed attempt, and waits longer after each.
        """
        return (Frame(yjs.PING, binary=True),) if self._is_hocuspocus(path) else ()

    async def accept(self, handshake: Handshake) -> Accepted:
        """
        Admit a handshake.

        Raises:
            Refusal, RoomkeyError: If not.
        """
        if handshake.path.startswith(self._documents.path + "/"):
            return await self._accept_y_websocket(handshake)
        return await self._accept_hocuspocus(handshake)

    # --- y-websocket ----------------------------------------------------------------------------------

    async def _accept_y_websocket(self, handshake: Handshake) -> Accepted:
        name = self._document_name(handshake)
        session = await self._admission.authenticate_handshake(handshake)
        access = await self._connections.decisions.decide(session, name)
        if access is None:
            raise refusal_of(Forbidden("The session may not use this document."))
        async with self._open_documents.using(name, create=access is not Access.READ) as document:
            client = await self._admission.admit(
                session,
                lambda limits, now: YjsClient(
                    self._guard(session, limits, now),
                    self._connections,
                    client_of(handshake.headers, handshake.client_ip),
                    self._audiences,
                    document=document,
                    access=access,
                    wants_status=handshake.query.get("status") == "1",
                ),
            )
            stated = handshake.query.get("lineage")
            if stated and stated != document.lineage:
                # Browsers are not told why a handshake is refused, so it is accepted and ended at once.
                client.end(closing(CloseReason.LINEAGE_MISMATCH))
            lineage = ((LINEAGE_HEADER, document.lineage),) if document.lineage else ()
            return self._accepted(handshake, client, *lineage)

    def _document_name(self, handshake: Handshake) -> str:
        try:
            return check_document_name(handshake.path.removeprefix(self._documents.path + "/"))
        except InvalidInput as error:
            raise Refusal(
                HTTPStatus.NOT_FOUND,
                "not_found",
                f"There can be no such document: {error}.",
                reason=CloseReason.INVALID_DOCUMENT_NAME,
            ) from None

    # --- Hocuspocus -----------------------------------------------------------------------------------

    async def _accept_hocuspocus(self, handshake: Handshake) -> Accepted:
        client = client_of(handshake.headers, handshake.client_ip)
        if self._admission.has_credential(handshake):
            session = await self._admission.authenticate_handshake(handshake)
            return self._accepted(handshake, await self._hocuspocus_client(session, client))
        self._admission.check_page(handshake)
        if len(self._unauthenticated) >= self._documents.max_unauthenticated_sockets:
            raise unavailable("overloaded", "Too many connections have not shown a token yet.")
        connection = UnauthenticatedConnection(
            self._documents,
            lambda connection, address, token: self._open_documents.spawn(
                self._identify(connection, address, token, client)
            ),
            self._forget,
        )
        self._unauthenticated[connection] = self._connections.now() + self._documents.authentication_deadline
        return self._accepted(handshake, connection)

    async def _identify(self, connection: UnauthenticatedConnection, address: str, token: str, client: Client) -> None:
        try:
            session = await self._admission.authenticate_token(token, client)
            identified = await self._hocuspocus_client(session, client)
        except RoomkeyError as error:
            self._reject(connection, address, refusal_of(error))
        except Refusal as refusal:
            self._reject(connection, address, refusal)
        else:
            connection.admitted(identified, address, self._connections.now())

    def _reject(self, connection: UnauthenticatedConnection, address: str, refusal: Refusal) -> None:
        connection.rejected(address, refusal.text, is_for_now=refusal.is_for_now)
        if refusal.is_for_now and connection in self._unauthenticated:
            # Its provider shows a token once per connection: it has to connect anew to show it again.
            self._held.setdefault(connection, (self._connections.now() + self._settings.refusal_hold, refusal))

    async def _hocuspocus_client(self, session: Session, client: Client) -> HocuspocusClient:
        return await self._admission.admit(
            session,
            lambda limits, now: HocuspocusClient(
                self._guard(session, limits, now),
                self._connections,
                client,
                self._audiences,
                opener=self,
                settings=self._documents,
            ),
        )

    def _forget(self, connection: UnauthenticatedConnection) -> None:
        self._unauthenticated.pop(connection, None)
        self._held.pop(connection, None)

    def open(self, client: HocuspocusClient, address: str, document: str) -> None:
        """See ``DocumentOpener``."""
        self._open_documents.spawn(self._open(client, address, document))

    async def _open(self, client: HocuspocusClient, address: str, name: str) -> None:
        try:
            session, decisions = client.guard.session, self._connections.decisions
            access = await decisions.decide(session, name)
            if access is None:
                client.not_allowed(address)
                return
            async with self._open_documents.using(name, create=access is not Access.READ) as document:
                if client.guard.session.id != session.id:  # another token came meanwhile
                    await decisions.decide(client.guard.session, name)
                client.opened_document(address, document)
        except RoomkeyError:
            client.not_opened(address)

    # --- both -----------------------------------------------------------------------------------------

    def _guard(self, session: Session, limits: SessionLimits, now: datetime) -> SessionGuard:
        return SessionGuard(session, limits, settings=self._settings, now=now)

    def _accepted(self, handshake: Handshake, conversation: Conversation, *headers: tuple[str, str]) -> Accepted:
        return Accepted(
            conversation=conversation,
            subprotocol=select_subprotocol(handshake.subprotocols),
            headers=headers,
            max_message_bytes=self._documents.max_update_bytes + FRAMING_BYTES,
        )

    # --- time -----------------------------------------------------------------------------------------

    def tick(self, now: datetime) -> None:
        """Part from strangers whose time is over, and let documents do what is due."""
        for connection, (due, refusal) in tuple(self._held.items()):
            if now >= due and refusal.reason is not None:
                connection.part(refusal.reason, refusal.text)
                self._forget(connection)
        # The oldest come first, and all have the same time.
        for connection, deadline in tuple(self._unauthenticated.items()):
            if now < deadline:
                break
            connection.part(CloseReason.NOT_AUTHENTICATED)
            self._forget(connection)
        if self._next_look is None or now >= self._next_look:
            self._next_look = now + LOOK_INTERVAL
            self._audiences.tick(now)
            self._open_documents.tick()

    def drain(self) -> None:
        """Close unauthenticated connections; no further one is admitted."""
        for connection in tuple(self._unauthenticated):
            connection.part(CloseReason.DRAINING)
