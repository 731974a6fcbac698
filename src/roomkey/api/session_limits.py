"""What a session may ask of an application behind ``SessionSecurityMiddleware``, over HTTP and over its sockets."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from starlette.types import Message, Receive, Scope, Send

from roomkey.api.authentication import SecurityConfig, address_of
from roomkey.api.http_messages import problem_reply
from roomkey.api.limits import SPENT, TOLD, charge
from roomkey.domain.session import Session
from roomkey.errors import BodyTooLarge, Invalidated, InvalidState, NotFound
from roomkey.ports import Rate
from roomkey.security.budgets import Budgets
from roomkey.security.limits import RequestLimits, Spent
from roomkey.sessions.manager import SessionManager
from roomkey.wire.close import CloseCode, CloseReason

Closing = tuple[CloseCode, str]

PATIENCE: Final = Rate(per_second=1.0, burst=50)
"""Requests of a session that are refused before they count as a violation."""


class SessionLimits:
    """The budgets of all sessions in front of one application, and what follows when they are ignored."""

    def __init__(self, sessions: SessionManager, config: SecurityConfig) -> None:
        self._sessions = sessions
        self._max_violations = config.max_violations
        self._max_body_bytes = config.max_body_bytes
        self._max_message_bytes = config.max_message_bytes
        self._messages = Rate(config.messages_per_second, config.message_burst)
        self._traffic = Rate(config.traffic_per_second_bytes, config.traffic_burst_bytes)
        self._violations = Rate(1.0 / config.violation_check_interval.total_seconds(), 1.0)
        self._budgets = Budgets()
        self._requests = RequestLimits(config.limits, self._budgets)

    # --- requests -------------------------------------------------------------------------------------

    def check_address(self, scope: Scope) -> None:
        """
        Charge a request or a handshake to its address.

        Raises:
            RateLimited: If nothing is left.
        """
        charge(scope, self._requests.of_address(address_of(scope)))

    def check_session(self, scope: Scope, session: Session) -> None:
        """Charge it to its session. Raises as ``check_address``."""
        charge(scope, self._requests.of_caller("", session.id))

    async def insisted(self, session: Session) -> None:
        """A request of the session was refused. Whoever goes on asking all the same commits a violation."""
        if self._budgets.spend(f"refused {session.id}", PATIENCE).wait:
            await self.violated(session)

    def check_length(self, scope: Scope, headers: Mapping[str, str]) -> bool:
        """
        Whether it is known how long the body of a request is; otherwise ``BodyGuard`` counts.

        Raises:
            BodyTooLarge: If it is longer than it may be.
        """
        length = headers.get("content-length")
        if length is not None:
            if not (length.isascii() and length.isdigit()) or len(length) > 18 or int(length) > self._max_body_bytes:
                raise too_large(self._max_body_bytes)
            return True
        return scope["method"] in ("GET", "HEAD") and scope["http_version"].startswith("1")  # RFC 9112, 6.3: no body

    def body_guard(self, receive: Receive, send: Send) -> "BodyGuard":
        """For a body of which it is not known how long it is."""
        return BodyGuard(receive, send, self._max_body_bytes)

    # --- sockets --------------------------------------------------------------------------------------

    async def check_message(self, session: Session, message: Message) -> Closing | None:
        """With what the socket is closed because of a message; ``None`` if it may pass."""
        text: str | None = message.get("text")
        # What a text has in UTF-8 is only counted where it could make a difference.
        size = len(message["bytes"]) if text is None else len(text)
        if text is not None and not text.isascii():
            size = len(text.encode("utf-8", "surrogatepass"))
        if size > self._max_message_bytes:
            return CloseCode.TOO_BIG, "message too big"
        spend = self._budgets.spend
        if (
            spend(f"messages {session.id}", self._messages).wait
            or spend(f"bytes {session.id}", self._traffic, size).wait
        ):
            await self.violated(session)
            return CloseCode.LIMITS_IGNORED, CloseReason.LIMITS_IGNORED
        return None

    # --- violations -----------------------------------------------------------------------------------

    async def violated(self, session: Session) -> None:
        """Record a violation of the session's holder, at most one in each ``violation_check_interval``."""
        if not self._budgets.spend(f"violations {session.id}", self._violations).wait:
            with suppress(NotFound, InvalidState):  # it has ended meanwhile
                await self._sessions.record_violation(session.id, "limits_ignored")

    async def check_violations(self, session: Session) -> None:
        """
        End a session with ``max_violations``.

        Raises:
            Invalidated: If it has as many.
        """
        if session.violations < self._max_violations:
            return
        with suppress(NotFound, InvalidState):
            await self._sessions.invalidate_session(session.id, reason="too_many_violations")
        raise Invalidated("the session has violated too many rules", reason="too_many_violations")


class BodyGuard:
    """Stands between a request whose body has no stated length and its application: 413 beyond the limit."""

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self._receive = receive
        self._send = send
        self._limit = limit
        self._size = 0
        self._has_started = False
        self.is_over = False
        """Whether the client was told that its body is too long, and the application that the client has gone."""

    async def receive(self) -> Message:
        """The next part of the body, unless that is one too many."""
        if self.is_over:
            return {"type": "http.disconnect"}
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size <= self._limit:
            return message
        self.is_over = True
        if not self._has_started:
            await problem_reply(too_large(self._limit)).send(self._send)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send what the application answers, as long as nothing else was answered."""
        if self.is_over and not self._has_started:
            return
        self._has_started = True
        await self._send(message)


def too_large(limit: int) -> BodyTooLarge:
    """The body is longer than ``limit`` bytes."""
    return BodyTooLarge(f"a body has at most {limit} bytes")


def telling(scope: Scope, send: Send) -> Send:
    """``send``, with what is left of the budget that the request was charged to."""
    spent: Spent | None = scope.get(SPENT)
    if spent is None:
        return send
    scope[TOLD] = True

    async def tell(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *spent.headers()]}
        await send(message)

    return tell
