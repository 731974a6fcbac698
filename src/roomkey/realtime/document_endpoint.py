"""The doors to documents: the sockets of y-websocket and of Hocuspocus, and where their documents come from."""

from datetime import datetime
from http import HTTPStatus
from typing import Final

from roomkey.documents.open_documents import Library
from roomkey.domain.access import Access, access_to
from roomkey.domain.session import Client, Session
from roomkey.errors import InvalidInput, RoomkeyError
from roomkey.realtime.admission import Door, Refusal, Sessions, check_usable, client_of, refusal_of, unavailable
from roomkey.realtime.arrivals import Arrivals
from roomkey.realtime.clients.hocuspocus_client import HocuspocusPeer, Stranger
from roomkey.realtime.clients.yjs_client import EditingWatch, YWebsocketPeer
from roomkey.realtime.connections import NodeOffice
from roomkey.realtime.protocol.json_messages import CloseReason
from roomkey.realtime.session.closing import ending
from roomkey.realtime.session.limits import Ledger
from roomkey.realtime.settings import RealtimeSettings
from roomkey.realtime.transport import Accepted, Conversation, Handshake
from roomkey.security.credentials import select_subprotocol
from roomkey.security.inspection import check_document_name

FRAMING_BYTES: Final = 4 * 1024
"""What may stand around an update in a message: a document's name, and some numbers."""

LINEAGE_HEADER: Final = "roomkey-lineage"


class DocumentDoor:
    """Lets editors in. ``tick`` must be called as long as there are strangers."""

    def __init__(
        self,
        library: Library,
        office: NodeOffice,
        *,
        arrivals: Arrivals,
        door: Door,
        sessions: Sessions,
        settings: RealtimeSettings,
    ) -> None:
        self._library = library
        self._office = office
        self._arrivals = arrivals
        self._door = door
        self._sessions = sessions
        self._settings = settings
        self._documents = library.settings
        self._strangers: dict[Stranger, datetime] = {}

    def leads_to(self, path: str) -> bool:
        """Whether ``path`` is one of these doors."""
        documents = self._documents
        return path.startswith(documents.path + "/") or path.rstrip("/") == documents.hocuspocus_path

    async def accept(self, handshake: Handshake) -> Accepted:
        """
        Let somebody in.

        Raises:
            Refusal, RoomkeyError: If not.
        """
        if handshake.path.startswith(self._documents.path + "/"):
            return await self._accept_y_websocket(handshake)
        return await self._accept_hocuspocus(handshake)

    # --- y-websocket ----------------------------------------------------------------------------------

    async def _accept_y_websocket(self, handshake: Handshake) -> Accepted:
        name = self._document_name(handshake)
        session = await self._door.admit(handshake)
        access = access_to(name, session.grants)
        if access is None:
            raise Refusal(HTTPStatus.FORBIDDEN, "forbidden", "No grant of the session covers this document.")
        async with self._library.using(name, found=access is not Access.READ) as document:
            peer = await self._arrivals.settle(
                session,
                lambda ledger, now: YWebsocketPeer(
                    self._watch(session, ledger, now),
                    self._office,
                    client_of(handshake),
                    hub=self._library.hub,
                    document=document,
                    access=access,
                    wants_status=handshake.query.get("status") == "1",
                ),
            )
            stated = handshake.query.get("lineage")
            if stated and stated != document.lineage:
                # Browsers are not told why a handshake is refused, so it is accepted and ended at once.
                peer.end(ending(CloseReason.LINEAGE_MISMATCH))
            lineage = ((LINEAGE_HEADER, document.lineage),) if document.lineage else ()
            return self._accepted(handshake, peer, *lineage)

    def _document_name(self, handshake: Handshake) -> str:
        try:
            return check_document_name(handshake.path.removeprefix(self._documents.path + "/"))
        except InvalidInput as error:
            raise Refusal(HTTPStatus.NOT_FOUND, "not_found", f"There can be no such document: {error}.") from None

    # --- Hocuspocus -----------------------------------------------------------------------------------

    async def _accept_hocuspocus(self, handshake: Handshake) -> Accepted:
        client = client_of(handshake)
        if self._door.has_credential(handshake):
            session = await self._door.admit(handshake)
            return self._accepted(handshake, await self._hocuspocus_peer(session, client))
        self._door.check_page(handshake)
        if len(self._strangers) >= self._documents.max_strangers:
            raise unavailable("overloaded", "Too many connections have not shown a token yet.")
        stranger = Stranger(
            self._documents,
            lambda stranger, address, token: self._library.spawn(self._identify(stranger, address, token, client)),
            self._forget,
        )
        self._strangers[stranger] = self._office.now() + self._documents.authentication_deadline
        return self._accepted(handshake, stranger)

    async def _identify(self, stranger: Stranger, address: str, token: str, client: Client) -> None:
        try:
            session = await self._sessions.authenticate(token, client=client)
            check_usable(session)
            peer = await self._hocuspocus_peer(session, client)
        except RoomkeyError as error:
            stranger.rejected(address, refusal_of(error).code)
        except Refusal as refusal:
            stranger.rejected(address, refusal.code)
        else:
            stranger.admitted(peer, address, self._office.now())

    async def _hocuspocus_peer(self, session: Session, client: Client) -> HocuspocusPeer:
        return await self._arrivals.settle(
            session,
            lambda ledger, now: HocuspocusPeer(
                self._watch(session, ledger, now),
                self._office,
                client,
                hub=self._library.hub,
                desk=self,
                settings=self._documents,
            ),
        )

    def _forget(self, stranger: Stranger) -> None:
        self._strangers.pop(stranger, None)

    def open(self, peer: HocuspocusPeer, address: str, document: str, *, found: bool) -> None:
        """Call ``peer.opened_document`` with the document, pinned, or ``peer.not_opened``, later."""
        self._library.spawn(self._open(peer, address, document, found=found))

    async def _open(self, peer: HocuspocusPeer, address: str, name: str, *, found: bool) -> None:
        try:
            async with self._library.using(name, found=found) as document:
                peer.opened_document(address, document)
        except RoomkeyError:
            peer.not_opened(address)

    # --- both -----------------------------------------------------------------------------------------

    def _watch(self, session: Session, ledger: Ledger, now: datetime) -> EditingWatch:
        return EditingWatch(session, ledger, settings=self._settings, now=now)

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
        # The oldest come first, and all have the same time.
        for stranger, deadline in tuple(self._strangers.items()):
            if now < deadline:
                break
            stranger.part(CloseReason.NOT_AUTHENTICATED)
            self._forget(stranger)
        self._library.tick(now)

    def drain(self) -> None:
        """Part from strangers: nobody is let in any more."""
        for stranger in tuple(self._strangers):
            stranger.part(CloseReason.DRAINING)
