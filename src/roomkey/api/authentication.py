"""Who is calling: an API key, a session, or nobody, and how that is found out."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

import structlog
from msgspec import Struct
from starlette.types import Scope

from roomkey.api.http_messages import SAFE_METHODS
from roomkey.domain.session import Session
from roomkey.errors import InvalidToken, OriginRejected
from roomkey.security import apikeys, credentials
from roomkey.security.apikeys import ApiKeys
from roomkey.security.authorization import DEVELOPER, STRANGER, Caller
from roomkey.security.credentials import Credential, CredentialKind
from roomkey.sessions.manager import SessionManager

_EMPTY: Final[Mapping[str, str]] = {}

_log = structlog.get_logger("roomkey.api")


class SecurityConfig(Struct, frozen=True, kw_only=True):
    """
    How strictly sessions are checked in front of an application.

    At the first message after each ``violation_check_interval`` the session behind an open WebSocket is looked at
    again, in case that another process ended it. Without ``require_session_validation`` requests that present
    nothing pass, and the application sees no session. Cookies count only on pages of the same origin or of
    ``allowed_origins``.
    """

    violation_check_interval: timedelta = timedelta(seconds=10)
    require_session_validation: bool = True
    allowed_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for origin in self.allowed_origins:
            credentials.check_origin(origin)


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
        self._callers = {key: Caller.of_key(key) for key in self._keys}
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
        return Caller.of_session(await self.session(credential, headers, ip), credential.secret)

    async def session(self, credential: Credential, headers: Mapping[str, str], ip: str | None) -> Session:
        """The pending or active session that ``credential`` opens, which it must. Raises as ``caller``."""
        return await self._sessions.authenticate(credential.secret, client=credentials.client_of(headers, ip))

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
