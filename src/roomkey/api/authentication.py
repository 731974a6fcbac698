"""Who is calling: an API key, a session, or nobody, and how that is found out."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import structlog
from msgspec import Struct
from starlette.types import Scope

from roomkey.domain.lifecycle import check_usable
from roomkey.domain.session import Session
from roomkey.errors import HolderUnproven, InvalidProof, InvalidToken, KeyRefused, OriginRejected
from roomkey.keys import KeyRegistry
from roomkey.security import apikeys, credentials, csrf, tokens
from roomkey.security.authorization import DEVELOPER, STRANGER, Caller
from roomkey.security.certificates import EXTENSION, ClientCertificates, PeerCertificate
from roomkey.security.credentials import Credential, CredentialKind
from roomkey.security.csrf import SAFE_METHODS
from roomkey.security.limits import DEFAULTS as LIMITS
from roomkey.security.limits import LimitSettings
from roomkey.security.possession import DPOP, NO_EVIDENCE, Attempt, Evidence, Possession
from roomkey.sessions.manager import SessionManager

_EMPTY: Final[Mapping[str, str]] = {}

# What every request is compared with. Python 3.11 takes a tenth of a microsecond to find a member in its class.
_BEARER, _COOKIE, _DPOP = CredentialKind.BEARER, CredentialKind.COOKIE, CredentialKind.DPOP
_IN_AUTHORIZATION: Final = (_BEARER, _DPOP)

_log = structlog.get_logger("roomkey.api")


class SecurityConfig(Struct, frozen=True, kw_only=True):
    """
    How strictly sessions are checked in front of an application, and how much they may ask of it.

    At the first message after each ``violation_check_interval`` the session behind an open WebSocket is looked at
    again, in case that another process ended it. Without ``require_session_validation`` requests that present
    nothing pass, and the application sees no session. Cookies count only on pages of the same origin or of
    ``allowed_origins``.

    A session that has ``max_violations`` is ended: when it comes, and on its open sockets. Violations are what
    ``record_violation`` counts: the application's own, and one in each ``violation_check_interval`` in which a session
    goes on asking although it is refused. ``limits`` are those of requests, per session and address; messages and
    bytes are counted over all sockets of a session. A body or a message that is larger than it may be is refused.
    """

    max_violations: int = 10
    violation_check_interval: timedelta = timedelta(seconds=10)
    require_session_validation: bool = True
    allowed_origins: tuple[str, ...] = ()
    limits: LimitSettings = LIMITS
    messages_per_second: float = 200.0
    message_burst: int = 400
    traffic_per_second_bytes: int = 2 * 1024 * 1024
    traffic_burst_bytes: int = 16 * 1024 * 1024
    max_message_bytes: int = 1024 * 1024
    max_body_bytes: int = 16 * 1024 * 1024

    def __post_init__(self) -> None:
        for origin in self.allowed_origins:
            credentials.check_origin(origin)
        if self.violation_check_interval <= timedelta():
            raise ValueError("violation_check_interval must be longer than 0s")
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
                raise ValueError(f"{name} must be more than 0")


class Authenticator:
    """
    Finds out who is calling. What is presented must be good: a bad credential is never taken for none.

    With ``dev`` whoever presents nothing may do everything.
    """

    def __init__(
        self,
        sessions: SessionManager,
        *,
        keys: KeyRegistry | None = None,
        security: SecurityConfig | None = None,
        dev: bool = False,
        csrf_key: bytes | None = None,
        possession: Possession | None = None,
        certificates: ClientCertificates | None = None,
        public_url: str | None = None,
    ) -> None:
        """
        Args:
            csrf_key: Signs the tokens of browsers that do not say from which page a request came.
            possession: Looks at proofs of those whose sessions are bound; without it nobody has proved anything.
            certificates: Which keys stand behind certificates of clients.
            public_url: Where clients believe to find us, which is what their proofs say.
        """
        self._sessions = sessions
        self._csrf_key = csrf_key
        self._possession = possession
        self._certificates = certificates or ClientCertificates()
        self._public_url = public_url
        self._security = security or SecurityConfig()
        self._keys = keys
        self._nobody = DEVELOPER if dev else STRANGER

    async def caller(self, headers: Mapping[str, str], scope: Scope) -> Caller:
        """
        Who sent a request with these headers.

        Raises:
            RateLimited: If the address has been wrong too often.
            InvalidToken, TokenReused, Expired, Invalidated, Suspended: If what was presented opens nothing.
            Storage: If that cannot be found out now.
            OriginRejected: If a browser may have presented it unasked, and a foreign page sent the request.
        """
        credential = presented(headers)
        if credential is None:
            return self._unnamed(headers, scope)
        if credential.kind is _BEARER and credential.secret.startswith(apikeys.PREFIX):
            return await self._caller_with_key(credential.secret, scope)
        by_cookie = credential.kind is _COOKIE
        if by_cookie:
            self.check_meant(credential, headers, scope)
        session = await self.session(credential, headers, scope)
        return Caller.of_session(session, credential.secret, by_cookie=by_cookie)

    async def again(self, caller: Caller, headers: Mapping[str, str], scope: Scope) -> Caller:
        """The caller as it stands now, later in the same request: what was proved stays so. Raises as ``caller``."""
        if caller.session is not None:
            session = await self._sessions.get_session(caller.session.id)
            if session is None:
                raise InvalidToken("no session answers to this token")
            check_usable(session, even_pending=True)
            return Caller.of_session(session, caller.token, by_cookie=caller.by_cookie)
        credential = presented(headers)
        if credential is None or not credential.secret.startswith(apikeys.PREFIX):
            return caller
        return await self._caller_with_key(credential.secret, scope)

    async def _caller_with_key(self, secret: str, scope: Scope) -> Caller:
        attempts, address = self._sessions.attempts, address_of(scope)
        attempts.check(address, secret)
        if self._keys is None:
            raise KeyRefused
        try:
            key = await self._keys.find(secret)
        except KeyRefused:
            attempts.failed(address, secret)
            raise
        attempts.succeeded(secret)
        return Caller.of_key(key)

    async def session(self, credential: Credential, headers: Mapping[str, str], scope: Scope) -> Session:
        """The pending or active session that ``credential`` opens, which it must. Raises as ``caller``."""
        evidence = self.evidence(credential, headers, scope)
        session = await self._sessions.authenticate(
            credential.secret, client=credentials.client_of(headers, address_of(scope)), held=evidence.held
        )
        if credential.kind is _DPOP and not (session.bound_to or "").startswith(DPOP):
            raise HolderUnproven("the session is not bound to a key: its token is presented as Bearer")  # RFC 9449, 7.1
        if evidence.proof is not None:
            await self.accept(evidence)
        return session

    def evidence(self, credential: Credential | None, headers: Mapping[str, str], scope: Scope) -> Evidence:
        """
        What the caller has proved to have; to be accepted once its credential is known to be genuine.

        Raises:
            InvalidProof, NonceNeeded: If there is a proof that does not hold, or there is none where there must be.
        """
        proof = headers.get("dpop")
        kind = None if credential is None else credential.kind
        if kind is _DPOP and proof is None:
            raise InvalidProof("a token that is presented as DPoP comes with a proof")
        if self._possession is None:
            return NO_EVIDENCE
        certificate = certificate_of(scope)
        if proof is None and certificate is None:
            return NO_EVIDENCE
        attempt = Attempt(
            method=scope.get("method", "GET"),
            urls=addresses_of(headers, scope, self._public_url),
            # RFC 9449, 7.2: a token that is presented as Bearer is a bearer's, whatever stands beside it.
            proof=None if kind is _BEARER else proof,
            certificate=None if certificate is None else certificate.thumbprint,
        )
        return self._possession.look(attempt, None if credential is None else credential.secret)

    async def accept(self, evidence: Evidence) -> None:
        """
        Take what was proved for good, before anything is done on the strength of it.

        Raises:
            InvalidProof: If the proof came before.
        """
        if self._possession is not None:
            await self._possession.accept(evidence)

    def check_meant(self, credential: Credential, headers: Mapping[str, str], scope: Scope) -> None:
        """
        Raise if a request with a cookie changes something, and a foreign page may have sent it.

        Raises:
            InvalidToken: If the cookie is none of ours.
            OriginRejected: If so (ASVS 3.5.1).
        """
        if scope["method"] not in SAFE_METHODS:
            csrf.check_cookie(
                headers,
                tokens.session_of(credential.secret),
                key=self._csrf_key,
                allowed_origins=self._security.allowed_origins,
            )

    def check_page(self, headers: Mapping[str, str]) -> None:
        """
        Raise if a foreign page sent this.

        Raises:
            OriginRejected: If so.
        """
        csrf.check_page(headers, self._security.allowed_origins)

    def _unnamed(self, headers: Mapping[str, str], scope: Scope) -> Caller:
        """Who presents nothing: whoever the certificate of the connection belongs to, or nobody."""
        certificate = certificate_of(scope)
        if certificate is None:
            return self._nobody
        name = self._certificates.key_of(certificate)
        key = None if name is None or self._keys is None else self._keys.configured(name)
        if key is None:
            _log.info("certificate_unknown", subject=certificate.subject, fingerprint=certificate.fingerprint)
            return self._nobody
        if scope["method"] not in SAFE_METHODS:
            self.check_page(headers)  # browsers show certificates as they send cookies: unasked
        return Caller.of_key(key)

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
    if credential is not None and credential.kind in _IN_AUTHORIZATION:
        return credential
    authorization = headers.get("authorization")
    # Another scheme beside a credential of ours is for somebody in front of us, such as a proxy.
    if authorization is not None and (credential is None or authorization.strip().lower() in ("", "bearer", "dpop")):
        raise InvalidToken("the authorization is not one of ours")
    if credential is None and "x-session-id" in headers:
        raise InvalidToken("the credential is empty")
    return credential


def certificate_of(scope: Scope) -> PeerCertificate | None:
    """The certificate of the client, if Roomkey's own server ended the TLS connection and there was one."""
    extensions: Mapping[str, Any] = scope.get("extensions") or {}
    return extensions.get(EXTENSION)


def addresses_of(headers: Mapping[str, str], scope: Scope, public_url: str | None) -> Sequence[str]:
    """The addresses by which a client may know what it asks for: as it was asked, and below ``public_url``."""
    raw: bytes | None = scope.get("raw_path")
    path = scope["path"] if raw is None else raw.decode("latin-1").partition("?")[0]
    asked = f"{scope['scheme']}://{headers.get('host', '')}{path}"
    return (asked,) if public_url is None else (asked, public_url.rstrip("/") + path)


def address_of(scope: Scope) -> str | None:
    """The address of the peer; behind a proxy the server has put the client's there, if it trusts the proxy."""
    peer = scope.get("client")
    return peer[0] if peer else None
