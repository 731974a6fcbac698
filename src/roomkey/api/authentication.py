"""Who is calling: an API key, a session, or nobody, and how that is found out."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Final

import structlog
from msgspec import Struct
from starlette.types import Scope

from roomkey.api.http_messages import SAFE_METHODS
from roomkey.api.problems import CredentialsMissing, OriginRejected
from roomkey.domain.access import Access, access_to, allows
from roomkey.domain.session import Session, SessionState
from roomkey.errors import DocumentNotFound, Forbidden, Invalidated, InvalidToken, SessionPending
from roomkey.security import apikeys, credentials
from roomkey.security.apikeys import ApiKeys
from roomkey.security.credentials import Credential, CredentialKind
from roomkey.security.inspection import check_document_name
from roomkey.sessions.manager import SessionManager

_EMPTY: Final[Mapping[str, str]] = {}

_log = structlog.get_logger("roomkey.api")


class SecurityConfig(Struct, frozen=True, kw_only=True):
    """
    How strictly sessions are checked in front of an application.

    A session with ``max_violations`` recorded violations is ended when it is next used. Every
    ``violation_check_interval`` the session behind an open WebSocket is looked at again. Without
    ``require_session_validation`` requests that present nothing pass, and the application sees no session.
    Cookies count only on pages of the same origin or of ``allowed_origins``.
    """

    max_violations: int = 10
    violation_check_interval: timedelta = timedelta(seconds=10)
    require_session_validation: bool = True
    allowed_origins: tuple[str, ...] = ()


class Standing(StrEnum):
    """What a caller is to us."""

    ADMIN = "admin"
    SERVICE = "service"
    SESSION = "session"
    PENDING = "pending session"
    STRANGER = "stranger"


KEYS: Final = frozenset({Standing.ADMIN, Standing.SERVICE})
SESSIONS: Final = frozenset({Standing.SESSION})
SESSIONS_EVEN_PENDING: Final = frozenset({Standing.SESSION, Standing.PENDING})
ANYONE: Final = frozenset(Standing)
"""Nobody has to say who they are, but who does must be right."""

PUBLIC: Final = frozenset[Standing]()
"""It is not even asked who is calling."""


class Caller:
    """
    Whoever sent the request. ``actor`` is how events name it.

    A session's ``token`` is what it presented, for rotating it; it is not shown anywhere.
    """

    __slots__ = ("_token", "actor", "session", "standing")

    def __init__(
        self, standing: Standing, actor: str, session: Session | None = None, token: str | None = None
    ) -> None:
        self.standing = standing
        self.actor = actor
        self.session = session
        self._token = token

    @property
    def token(self) -> str | None:
        """The secret that was presented, if it was a session's."""
        return self._token

    @property
    def is_key(self) -> bool:
        """Whether the caller may see and change every session."""
        return self.standing in KEYS

    def __repr__(self) -> str:
        return f"Caller({self.standing}, {self.actor})"


STRANGER: Final = Caller(Standing.STRANGER, "anonymous")
DEVELOPER: Final = Caller(Standing.ADMIN, "dev")
"""Who does not say who they are, on a server that was started with ``--dev``."""


class Authenticator:
    """
    Finds out who is calling. What is presented must be good: a bad credential is never taken for none.

    With ``dev`` whoever presents nothing may do everything.
    """

    def __init__(
        self,
        sessions: SessionManager,
        *,
        keys: ApiKeys | None = None,
        security: SecurityConfig | None = None,
        dev: bool = False,
    ) -> None:
        self._sessions = sessions
        self._security = security or SecurityConfig()
        self._keys = keys or ApiKeys()
        self._callers = {key: Caller(Standing(key.role.value), key.actor) for key in self._keys}
        self._nobody = DEVELOPER if dev else STRANGER

    async def caller(self, headers: Mapping[str, str], method: str, ip: str | None) -> Caller:
        """
        Who sent a request with these headers.

        Raises:
            InvalidToken, TokenReused, Expired, Invalidated, Suspended: If what was presented opens nothing.
            OriginRejected: If it was a cookie, and the request could be forged by a foreign page.
        """
        credential = presented(headers)
        if credential is None:
            return self._nobody
        if credential.kind is CredentialKind.BEARER and credential.secret.startswith(apikeys.PREFIX):
            key = self._keys.find(credential.secret)
            if key is None:
                _log.warning("key_refused", ip=ip)
                raise InvalidToken("no API key answers to this token")
            return self._callers[key]
        if credential.kind is CredentialKind.COOKIE and method not in SAFE_METHODS:
            self.check_origin(headers)
        session = await self.session(credential, headers, ip)
        standing = Standing.PENDING if session.state is SessionState.PENDING else Standing.SESSION
        return Caller(standing, f"user:{session.user_id}", session, credential.secret)

    async def session(self, credential: Credential, headers: Mapping[str, str], ip: str | None) -> Session:
        """The pending or active session that ``credential`` opens, which it must. Raises as ``caller``."""
        session = await self._sessions.authenticate(credential.secret, client=credentials.client_of(headers, ip))
        if session.violations >= self._security.max_violations:
            await self._sessions.invalidate_session(session.id, reason="violations")
            raise Invalidated("the session was ended for what was done with it")
        return session

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """
        Raise unless the page that a cookie came from is ours.

        Raises:
            OriginRejected: If it is not, or did not say (ASVS 3.5.1; RFC 6454, 7.2).
        """
        origin = headers.get("origin")
        allowed = self._security.allowed_origins
        if origin is None or not credentials.origin_allowed(origin, headers.get("host"), allowed):
            raise OriginRejected("a request with a cookie must come from a page of ours")


def presented(
    headers: Mapping[str, str], *, query: Mapping[str, str] = _EMPTY, subprotocols: Sequence[str] = ()
) -> Credential | None:
    """
    The credential that a request brings, or ``None`` if it brings nothing that looks like one.

    Raises:
        InvalidToken: If it tries to, and fails: that must not pass for a stranger.
    """
    credential = credentials.find(headers, query=query, subprotocols=subprotocols)
    if credential is not None and credential.kind is CredentialKind.BEARER:
        return credential
    authorization = headers.get("authorization")
    # Another scheme beside a credential of ours is for somebody in front of us, such as a proxy.
    if authorization is not None and (credential is None or authorization.strip().lower() in ("", "bearer")):
        raise InvalidToken("the authorization is not one of ours")
    if credential is None and "x-session-id" in headers:
        raise InvalidToken("the credential is empty")
    return credential


def address_of(scope: Scope) -> str | None:
    """The address of the peer; behind a proxy the server has put the client's there, if it trusts the proxy."""
    peer = scope.get("client")
    return peer[0] if peer else None


def check_standing(caller: Caller, allowed: frozenset[Standing]) -> None:
    """
    Raise unless callers like ``caller`` are ``allowed``.

    Raises:
        CredentialsMissing, SessionPending, Forbidden: As they say.
    """
    if caller.standing in allowed:
        return
    if caller is STRANGER or caller is DEVELOPER:
        raise CredentialsMissing("a credential is needed here")
    if caller.standing is Standing.PENDING and Standing.SESSION in allowed:
        raise SessionPending("activate the session first")
    if caller.session is None:
        raise Forbidden("only a session may do this")
    raise Forbidden("only an API key may do this")


def check_access(caller: Caller, document: str, wanted: Access) -> None:
    """
    Raise unless ``caller`` may do what ``wanted`` says: a key with every document, a session by its grants.

    Raises:
        InvalidInput: If no document can have that name.
        DocumentNotFound: If no grant covers it, whether or not there is such a document.
        Forbidden: If the grants do not reach so far.
    """
    check_document_name(document)
    session = caller.session
    if session is None:
        return
    if access_to(document, session.grants) is None:
        raise DocumentNotFound("there is no such document")
    if not allows(session.grants, document, wanted):
        raise Forbidden(f"the session may not {wanted} this document")
