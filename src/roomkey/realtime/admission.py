"""Whom to let in: a handshake becomes a client with an active session, or a refusal in plain HTTP."""

from collections.abc import Callable, Sequence
from datetime import datetime
from http import HTTPStatus
from math import ceil
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from roomkey import errors
from roomkey.domain.lifecycle import check_usable
from roomkey.domain.session import Client, Session
from roomkey.errors import RoomkeyError
from roomkey.ports import Authenticator
from roomkey.realtime.connections import AnyClient, Connections
from roomkey.realtime.session.limits import SessionLimits
from roomkey.realtime.settings import RealtimeSettings
from roomkey.realtime.transport import Handshake, Refused
from roomkey.security.credentials import Credential, CredentialKind, client_of, find, origin_allowed
from roomkey.security.tickets import Tickets

ClientT = TypeVar("ClientT", bound=AnyClient)

_CHALLENGE: Final = 'Bearer realm="roomkey"'


class Refusal(Exception):
    """A handshake is not welcome, for a reason that is not an error of a session."""

    def __init__(self, status: HTTPStatus, code: str, detail: str, *headers: tuple[str, str]) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.headers = headers

    def answer(self) -> Refused:
        """The problem (RFC 9457) as the transport sends it."""
        problem = {
            "type": f"urn:roomkey:problem:{self.code}",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": str(self),
            "code": self.code,
        }
        headers: Sequence[tuple[str, str]] = (("content-type", "application/problem+json"), *self.headers)
        return Refused(status=self.status.value, body=msgspec.json.encode(problem), headers=headers)


class _Kind(Struct, frozen=True):
    status: HTTPStatus
    headers: Sequence[tuple[str, str]] = ()
    detail: str | None = None
    """What is said instead of the error's own words, where these are none of the client's business."""


_REJECTED: Final = (("www-authenticate", f'{_CHALLENGE}, error="invalid_token"'),)
_LATER: Final = (("retry-after", "1"),)

KINDS: Final[dict[type[RoomkeyError], _Kind]] = {
    errors.SecurityViolation: _Kind(HTTPStatus.UNAUTHORIZED, _REJECTED),
    errors.Suspended: _Kind(HTTPStatus.UNAUTHORIZED, _REJECTED),
    errors.Forbidden: _Kind(HTTPStatus.FORBIDDEN),
    errors.Expired: _Kind(HTTPStatus.GONE),
    errors.Invalidated: _Kind(HTTPStatus.GONE),
    RoomkeyError: _Kind(HTTPStatus.SERVICE_UNAVAILABLE, _LATER, "This cannot be checked now."),
}
"""How an error of a session is shown at the door; the first kind that fits."""


def refusal_of(error: RoomkeyError) -> Refusal:
    """The refusal that ``error`` amounts to."""
    kind = next(kind for cause, kind in KINDS.items() if isinstance(error, cause))
    return Refusal(kind.status, error.code, kind.detail or str(error), *kind.headers)


def too_many(code: str, detail: str, *, wait: float = 1.0) -> Refusal:
    """Something is used up, and will be there again in ``wait`` seconds."""
    return Refusal(HTTPStatus.TOO_MANY_REQUESTS, code, detail, ("retry-after", str(max(1, ceil(wait)))))


def unavailable(code: str, detail: str) -> Refusal:
    """The node cannot take anyone now."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, code, detail, *_LATER)


class Admission:
    """Who is let in, by whatever way they come: from a handshake to a session, from a session to a client."""

    def __init__(
        self,
        sessions: Authenticator,
        connections: Connections,
        *,
        settings: RealtimeSettings,
        tickets: Tickets,
    ) -> None:
        self._sessions = sessions
        self._connections = connections
        self._settings = settings
        self._tickets = tickets
        self.is_draining = False
        """Whether nobody is let in any more."""

    # --- from a handshake to a session ----------------------------------------------------------------

    async def authenticate_handshake(self, handshake: Handshake) -> Session:
        """
        The active session that the handshake's credential opens.

        Raises:
            Refusal: If there is none, or it may not be used from where it came.
            RoomkeyError: If the credential opens nothing, or nothing that may be used.
        """
        credential = self._find(handshake)
        if credential is None:
            challenge = ("www-authenticate", _CHALLENGE)
            raise Refusal(HTTPStatus.UNAUTHORIZED, "credentials_missing", "A credential is needed here.", challenge)
        self._check_origin(handshake, credential)
        session = await self._session(handshake, credential)
        check_usable(session)
        return session

    async def authenticate_token(self, token: str, client: Client) -> Session:
        """
        The active session that ``token`` opens.

        Raises:
            RoomkeyError: If it opens nothing, or nothing that may be used.
        """
        session = await self._sessions.authenticate(token, client=client)
        check_usable(session)
        return session

    def has_credential(self, handshake: Handshake) -> bool:
        """Whether the handshake brings anything that could open a session."""
        return self._find(handshake) is not None

    def check_page(self, handshake: Handshake) -> None:
        """
        Raise if the handshake comes from a page that may not connect, whoever is sitting before it.

        Raises:
            Refusal: If it does.
        """
        origin, allowed = handshake.headers.get("origin"), self._settings.allowed_origins
        if origin is not None and allowed and not origin_allowed(origin, handshake.headers.get("host"), allowed):
            raise _foreign_page()

    def _find(self, handshake: Handshake) -> Credential | None:
        return find(
            handshake.headers,
            query=handshake.query,
            subprotocols=handshake.subprotocols,
            allow_query_token=self._settings.query_tokens,
        )

    async def _session(self, handshake: Handshake, credential: Credential) -> Session:
        if credential.kind is not CredentialKind.TICKET:
            client = client_of(handshake.headers, handshake.client_ip)
            return await self._sessions.authenticate(credential.secret, client=client)
        return await self._tickets.session_of(credential.secret, self._sessions)

    def _check_origin(self, handshake: Handshake, credential: Credential) -> None:
        """Cookies come along whoever asks for it, so they count on our pages only (ASVS 4.4.2, RFC 6455, 10.2)."""
        if credential.kind is not CredentialKind.COOKIE:
            self.check_page(handshake)
        elif not origin_allowed(
            handshake.headers.get("origin"), handshake.headers.get("host"), self._settings.allowed_origins
        ):
            raise _foreign_page()

    # --- from a session to a client -------------------------------------------------------------------

    async def admit(self, session: Session, make: Callable[[SessionLimits, datetime], ClientT]) -> ClientT:
        """
        The client of ``session`` that ``make`` makes: counted, registered, and its session looked at once more.

        Raises:
            Refusal, RoomkeyError: If there is no room for it, or the session ended at this moment.
        """
        connections = self._connections
        if len(connections.registry.of_session(session.id)) >= self._settings.max_connections_per_session:
            raise too_many("too_many_connections", "The session has as many connections as it may.")
        now = connections.now()
        client = make(connections.limits.open(session.id), now)
        connections.registry.enter(client, session)
        connections.deadlines.set(client, now + self._settings.opening_timeout)
        try:
            await self._check_again(client, session)
        except BaseException:
            client.closed(1006)
            raise
        return client

    async def _check_again(self, client: AnyClient, session: Session) -> None:
        # The session was read before its events were listened to: it may have ended in between.
        # And who was let in before the drain, but is not among those who are drained, must go, too.
        current = await self._sessions.get_session(session.id)
        if current is None:
            raise errors.InvalidToken("the session was deleted")
        check_usable(current)
        if client.connection.is_over:
            raise errors.Invalidated("the session was ended")
        if self.is_draining:
            raise unavailable("draining", "The server is about to stop.")
        client.connection.learn(current)


def _foreign_page() -> Refusal:
    return Refusal(HTTPStatus.FORBIDDEN, "origin_rejected", "Pages of this origin may not connect.")
