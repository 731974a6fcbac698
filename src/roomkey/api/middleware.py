"""What stands in front of applications: plain ASGI, over HTTP and WebSocket alike."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl

import structlog
from starlette.datastructures import Headers as RequestHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roomkey.api.authentication import Authenticator, SecurityConfig, address_of, presented
from roomkey.api.http_messages import HTML, Disconnected, Headers, headers_of, problem_reply
from roomkey.api.limits import SPENT, TOLD
from roomkey.api.session_limits import SessionLimits, telling
from roomkey.api.socket_guard import SocketGuard, SocketGuards, usable
from roomkey.domain.lifecycle import check_usable
from roomkey.domain.session import Session, SessionState
from roomkey.errors import (
    AccessUnknown,
    CredentialsMissing,
    Draining,
    Expired,
    Forbidden,
    Invalidated,
    InvalidToken,
    OriginRejected,
    Overloaded,
    RateLimited,
    RoomkeyError,
    SecurityViolation,
    Serialization,
    Storage,
    Suspended,
)
from roomkey.problems import presentation_of
from roomkey.security.credentials import Credential, CredentialKind, client_of
from roomkey.security.event_log import SecurityEventLog
from roomkey.security.events import SecurityEvents
from roomkey.security.limits import Spent
from roomkey.security.tickets import Tickets
from roomkey.sessions.manager import SessionManager
from roomkey.transports import COUNTED

# What every request is compared with. Python 3.11 takes a tenth of a microsecond to find a member in its class.
_ACTIVE: Final = SessionState.ACTIVE
_COOKIE, _TICKET = CredentialKind.COOKIE, CredentialKind.TICKET

_log = structlog.get_logger("roomkey.api")

SECURITY_HEADERS: Final[Headers] = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]

NOTHING_ALLOWED: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")

STRICT_TRANSPORT: Final = (b"strict-transport-security", b"max-age=31536000")
"""A year (ASVS 3.4.1); only said over TLS, where it means something."""


class ProblemMiddleware:
    """Whatever is raised becomes an RFC 9457 problem. Of what is our own fault only the log learns the cause."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and answer in place of an application that raises before it has answered."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Disconnected:
            return
        except Exception as error:
            instance = None if presentation_of(error).status < 500 else uuid.uuid4().urn
            if instance is not None:
                _log_failure(error, instance, scope["method"])
            if started:
                raise
            await problem_reply(error, instance=instance).send(send, head=scope["method"] == "HEAD")


def _log_failure(error: Exception, instance: str, method: str) -> None:
    if isinstance(error, Draining | Overloaded):
        return  # it was told so, and every probe of a load balancer would say it again; who overloads it is an event
    if isinstance(error, AccessUnknown | Serialization | Storage):
        # Storage has named the record, or said that it is away, once; where requests stumble over it says nothing new.
        _log.error("request_failed", instance=instance, method=method, reason=str(error))
    else:
        _log.error("request_failed", instance=instance, method=method, exc_info=error)


NODE_HEADER: Final = "roomkey-node"
"""Which process has answered."""


class CommonHeadersMiddleware:
    """Every response says that browsers should trust it little, who answered, and what is left of a budget."""

    def __init__(self, app: ASGIApp, node: str | None = None) -> None:
        self.app = app
        self._headers: Headers = [*SECURITY_HEADERS]
        if node is not None:
            self._headers.append((NODE_HEADER.encode(), node.encode("ascii")))
        self._headers_with_policy: Headers = [*self._headers, NOTHING_ALLOWED]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; add the headers to the response."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def harden(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: Headers = message["headers"]
                # The page of the documentation brings a policy of its own.
                headers += self._headers if HTML in headers else self._headers_with_policy
                spent: Spent | None = scope.get(SPENT)
                if spent is not None and TOLD not in scope:
                    headers += spent.headers()
                if scope["scheme"] == "https":
                    headers.append(STRICT_TRANSPORT)
            await send(message)

        await self.app(scope, receive, harden)


class CorsMiddleware(CORSMiddleware):
    """
    Starlette's, for pages of ``allowed_origins`` and no others; what it refuses is told as a problem.

    Only preflights are refused. From all other requests a browser that is not told it may keeps the response from
    the page, and what a cookie could do is guarded where cookies are read.
    """

    def __init__(self, app: ASGIApp, allowed_origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=allowed_origins,
            allow_methods=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
            allow_headers=_ALLOWED_HEADERS,
            expose_headers=_EXPOSED_HEADERS,
            allow_credentials=True,
        )

    def preflight_response(self, request_headers: RequestHeaders) -> Response:
        """Whether the page may send what it wants to send."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        reply = problem_reply(Forbidden(bytes(answer.body).decode()))
        vary = {"vary": answer.headers["vary"]}
        return Response(reply.body, reply.status, vary | {key.decode(): value.decode() for key, value in reply.headers})


_ALLOWED_HEADERS: Final = (
    "authorization",
    "content-type",
    "dpop",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "x-csrf-token",
    "prefer",
    "x-session-id",
)
_EXPOSED_HEADERS: Final = (
    "audit-index",
    "preference-applied",
    "etag",
    "location",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "idempotent-replayed",
    "www-authenticate",
    "content-disposition",
    "dpop-nonce",
    "roomkey-lineage",
    "roomkey-node",
    "roomkey-sequence",
)


class SessionSecurityMiddleware:
    """
    Lets only holders of an active session reach an application, and shows it the session as ``scope["session"]``.

    Over HTTP whoever has none gets a 401 or 410 problem. A WebSocket is refused before it is accepted, and closed
    with 4401 or 4423 when its session ends later: at once if this process ended it or its deadline passed, and at
    the first message after ``violation_check_interval`` if another process did. With ``tickets`` a handshake may
    also bring ``?ticket=``. What is too much, by ``config``, is refused: requests with 429 or 413, messages by closing
    the socket with 4429 or 1009. An interface of ours behind this counts neither again.
    """

    def __init__(
        self,
        app: ASGIApp,
        sessions: SessionManager,
        config: SecurityConfig | None = None,
        *,
        tickets: Tickets | None = None,
        events: SecurityEvents | None = None,
    ) -> None:
        """``events`` is told of what is refused; without it, the log is, once a minute for each kind and source."""
        self.app = app
        self._sessions = sessions
        self._config = config or SecurityConfig()
        self._tickets = tickets
        self._authenticator = Authenticator(sessions, security=self._config)
        self._limits = SessionLimits(sessions, self._config)
        self._guards = SocketGuards(sessions)
        self._events = events or _logged(sessions)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the connection on if its session is good."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        inner = dict(scope)
        session = None
        try:
            self._limits.check_address(inner)
            headers = headers_of(scope)
            session = inner["session"] = await self._session(headers, scope)
            if session is not None:
                if session.violations:
                    await self._limits.check_violations(session)
                self._limits.check_session(inner, session)
            is_bounded = scope["type"] != "http" or self._limits.check_length(scope, headers)
        except RoomkeyError as refusal:
            if session is not None and isinstance(refusal, RateLimited):
                await self._limits.insisted(session)
            self._events.refused(refusal.code, address=address_of(scope), place=scope["type"])
            await _refuse(refusal, inner, send)
            return
        if scope["type"] == "http" and is_bounded:
            await self.app(inner, receive, telling(inner, send))
        elif scope["type"] == "http":
            await self._serve_unbounded(inner, receive, telling(inner, send))
        elif session is None:
            await self.app(inner, receive, send)
        else:
            await self._serve_socket(inner, session, receive, send)

    async def _serve_unbounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        guard = self._limits.body_guard(receive, send)
        try:
            await self.app(scope, guard.receive, guard.send)
        except Exception:
            if not guard.is_over:  # otherwise the application was told that its client has gone
                raise

    async def _serve_socket(self, scope: Scope, session: Session, receive: Receive, send: Send) -> None:
        interval = self._config.violation_check_interval
        guard = SocketGuard(self._sessions, session, receive, send, interval=interval, limits=self._limits)
        scope[COUNTED] = guard.waive
        with self._guards.entered(guard):
            try:
                # It was read before its events were listened to: it may have ended in between.
                await usable(self._sessions, session)
            except RoomkeyError as refusal:
                await _refuse(refusal, scope, send)
                return
            async with guard.watching():
                await self.app(scope, guard.receive, guard.send)

    async def _session(self, headers: Mapping[str, str], scope: Scope) -> Session | None:
        upgrade = scope["type"] == "websocket"
        credential = (
            presented(headers, query=_query(scope), subprotocols=scope.get("subprotocols", ()))
            if upgrade
            else presented(headers)
        )
        required = self._config.require_session_validation
        if credential is None:
            if required:
                raise CredentialsMissing("a session is needed here")
            return None
        try:
            # A handshake is a GET, but foreign pages may send it, with cookies, and read what comes back.
            if credential.kind is _COOKIE and upgrade:
                self._authenticator.check_origin(headers)
            elif credential.kind is _COOKIE:
                self._authenticator.check_meant(credential, headers, scope)
            if credential.kind is _TICKET:
                session = await self._redeemed(credential, headers, scope)
            else:
                session = await self._authenticator.session(credential, headers, scope)
        except (SecurityViolation, Expired, Invalidated, Suspended, OriginRejected):
            # Browsers send cookies unasked: an old one must not keep anyone from a page that is open to all.
            if required or credential.kind is not CredentialKind.COOKIE:
                raise
            return None
        if session.state is not _ACTIVE:
            check_usable(session)
        return session

    async def _redeemed(self, ticket: Credential, headers: Mapping[str, str], scope: Scope) -> Session:
        if self._tickets is None:
            raise InvalidToken("tickets are not redeemed here")
        session = await self._tickets.session_of(ticket.secret, self._sessions)
        check_usable(session, even_pending=True)
        await self._sessions.recognise(session, client_of(headers, address_of(scope)))
        return session


def _logged(sessions: SessionManager) -> SecurityEvents:
    events = SecurityEvents(sessions.clock)
    events.listen(SecurityEventLog())
    return events


async def _refuse(refusal: RoomkeyError, scope: Scope, send: Send) -> None:
    reply = problem_reply(refusal)
    if (spent := scope.get(SPENT)) is not None:
        reply.headers += spent.headers()
    if scope["type"] == "http":
        await reply.send(send, head=scope["method"] == "HEAD")
    elif "websocket.http.response" in (scope.get("extensions") or {}):
        headers = [*reply.headers, (b"content-length", str(len(reply.body)).encode())]
        await send({"type": "websocket.http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": reply.body})
    else:
        await send({"type": "websocket.close", "code": presentation_of(refusal).close_code, "reason": refusal.code})


def _query(scope: Scope) -> dict[str, str]:
    pairs = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    return dict(reversed(pairs))  # of a repeated parameter the first counts
