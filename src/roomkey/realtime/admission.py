"""Whom to let in: a handshake becomes an active session, or a refusal in plain HTTP."""

from collections.abc import Sequence
from http import HTTPStatus
from math import ceil
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from roomkey import errors
from roomkey.domain.session import Client, Session, SessionId, SessionState
from roomkey.errors import RoomkeyError
from roomkey.ports import Clock
from roomkey.realtime.settings import RealtimeSettings
from roomkey.realtime.transport import Handshake, Refused
from roomkey.security.credentials import Credential, CredentialKind, find, origin_allowed
from roomkey.security.tickets import Tickets

MAX_USER_AGENT_CHARS: Final = 512

_CHALLENGE: Final = 'Bearer realm="roomkey"'


class Sessions(Protocol):
    """
    What sockets need to know of sessions.

    All raise ``roomkey.errors``; whoever implements it tells ``SessionWebSocketHandler.on_events`` what changes.
    """

    async def authenticate(self, token: str, *, client: Client | None = None) -> Session:
        """The pending or active session that ``token`` opens; raises for every other."""
        ...

    async def get_session(self, id: SessionId) -> Session | None:
        """The session as it stands now; one whose time is over is ended first."""
        ...

    async def touch(self, id: SessionId) -> None:
        """The user was active just now."""
        ...


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


class Door:
    """Finds the credential of a handshake, and whom it opens for."""

    def __init__(self, sessions: Sessions, *, settings: RealtimeSettings, clock: Clock, tickets: Tickets) -> None:
        self._sessions = sessions
        self._settings = settings
        self._clock = clock
        self._tickets = tickets

    async def admit(self, handshake: Handshake) -> Session:
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
            return await self._sessions.authenticate(credential.secret, client=client_of(handshake))
        id = self._tickets.redeem(credential.secret, self._clock.now())
        session = None if id is None else await self._sessions.get_session(id)
        if session is None:
            raise errors.InvalidToken("the ticket is unknown, used, or too old")
        return session

    def _check_origin(self, handshake: Handshake, credential: Credential) -> None:
        """Cookies come along whoever asks for it, so they count on our pages only (ASVS 4.4.2, RFC 6455, 10.2)."""
        if credential.kind is not CredentialKind.COOKIE:
            self.check_page(handshake)
        elif not origin_allowed(
            handshake.headers.get("origin"), handshake.headers.get("host"), self._settings.allowed_origins
        ):
            raise _foreign_page()


def _foreign_page() -> Refusal:
    return Refusal(HTTPStatus.FORBIDDEN, "origin_rejected", "Pages of this origin may not connect.")


def check_usable(session: Session) -> None:
    """
    Raise unless the session is active.

    Raises:
        Refusal, RoomkeyError: As ``Door.admit``.
    """
    match session.state:
        case SessionState.ACTIVE:
            return
        case SessionState.PENDING:
            raise Refusal(HTTPStatus.FORBIDDEN, "session_pending", "Activate the session first.")
        case SessionState.SUSPENDED:
            raise errors.Suspended("the session is suspended")
        case SessionState.EXPIRED:
            raise errors.Expired("the session's time is over")
        case SessionState.INVALIDATED:
            raise errors.Invalidated("the session was ended")


def client_of(handshake: Handshake) -> Client:
    """What a handshake says about the device that it came from."""
    agent = handshake.headers.get("user-agent", "")[:MAX_USER_AGENT_CHARS]
    return Client(ip=handshake.client_ip, user_agent=agent if agent and agent.isprintable() else None)
