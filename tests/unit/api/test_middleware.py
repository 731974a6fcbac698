"""What stands in front of applications, over HTTP and WebSocket."""

# ruff: noqa: ARG001  # every ASGI application takes three arguments, whether or not it looks at them

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roomkey.api.authentication import SecurityConfig
from roomkey.api.http_messages import Disconnected
from roomkey.api.middleware import (
    CorsMiddleware,
    ProblemMiddleware,
    SecurityHeadersMiddleware,
    SessionSecurityMiddleware,
)
from roomkey.backends.memory.one_time import MemoryOneTime
from roomkey.errors import InvalidState, Storage
from roomkey.security.tickets import TICKET_LIMITS, Tickets
from tests.support.rest import Answer, Rest, call

SECOND = timedelta(seconds=1)


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that says whose session it sees."""
    session = scope.get("session")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": session.user_id.encode() if session else b"nobody"})


def failing(error: Exception, *, after_start: bool = False) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if after_start:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    return app


# --- problems, headers, CORS --------------------------------------------------------------------------


async def test_what_is_raised_becomes_a_problem() -> None:
    answer = await call(ProblemMiddleware(failing(InvalidState("active is not pending"))), "GET", "/")

    assert (answer.status, answer.code) == (409, "invalid_state")
    assert answer.json["detail"] == "active is not pending"
    assert "instance" not in answer.json


async def test_of_our_own_mistakes_only_the_log_learns_the_cause() -> None:
    answer = await call(ProblemMiddleware(failing(KeyError("s3cret"))), "GET", "/")

    assert (answer.status, answer.code) == (500, "internal")
    assert b"s3cret" not in answer.body
    assert answer.json["instance"].startswith("urn:uuid:")


async def test_a_storage_that_is_away_says_when_to_come_back() -> None:
    answer = await call(ProblemMiddleware(failing(Storage("disk at /var/lib is full"))), "GET", "/")

    assert (answer.status, answer.code, answer.header("retry-after")) == (503, "storage", "1")
    assert b"/var/lib" not in answer.body


async def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    with pytest.raises(KeyError):
        await call(ProblemMiddleware(failing(KeyError("x"), after_start=True)), "GET", "/")


async def test_nobody_is_told_after_they_have_gone() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    await ProblemMiddleware(failing(Disconnected()))({"type": "http", "method": "GET"}, receive, send)

    assert not sent


async def test_every_answer_asks_browsers_for_caution() -> None:
    rest = Rest()

    answers = [await rest.call("GET", path) for path in ("/health/live", "/nothing", "/sessions", "/openapi.json")]

    for answer in answers:
        assert answer.header("x-content-type-options") == "nosniff"
        assert answer.header("x-frame-options") == "DENY"
        assert answer.header("content-security-policy") == "default-src 'none'; frame-ancestors 'none'"
        assert not answer.header("strict-transport-security")


async def test_only_over_tls_browsers_are_told_to_stay_there() -> None:
    answer = await call(SecurityHeadersMiddleware(hello), "GET", "/", scheme="https")

    assert answer.header("strict-transport-security").startswith("max-age=")


ORIGIN = "https://app.example.com"


async def test_pages_of_allowed_origins_may_read() -> None:
    answer = await call(CorsMiddleware(hello, [ORIGIN]), "GET", "/", headers=[("origin", ORIGIN)])

    assert answer.header("access-control-allow-origin") == ORIGIN
    assert answer.header("access-control-allow-credentials") == "true"
    assert "etag" in answer.header("access-control-expose-headers")
    assert answer.header("vary") == "origin"


@pytest.mark.parametrize("origin", ["https://evil.example.com", "http://app.example.com", "null", ORIGIN + ":444"])
async def test_pages_of_other_origins_are_told_nothing(origin: str) -> None:
    app = CorsMiddleware(hello, [ORIGIN])
    asked = [("origin", origin), ("access-control-request-method", "PUT")]

    answers = [await call(app, method, "/", headers=asked) for method in ("GET", "OPTIONS")]

    for answer in answers:
        assert not answer.header("access-control-allow-origin")
        assert answer.header("vary") == "origin"


async def test_an_allowed_page_may_ask_before_it_sends() -> None:
    asked = [("origin", ORIGIN), ("access-control-request-method", "PUT")]

    answer = await call(CorsMiddleware(hello, [ORIGIN]), "OPTIONS", "/", headers=asked)

    assert (answer.status, answer.body) == (204, b"")
    assert "PUT" in answer.header("access-control-allow-methods")
    assert "if-match" in answer.header("access-control-allow-headers")


async def test_without_allowed_origins_there_is_no_cors() -> None:
    answer = await call(CorsMiddleware(hello, []), "GET", "/", headers=[("origin", ORIGIN)])

    assert not answer.header("vary")


# --- sessions in front of an application, over HTTP ---------------------------------------------------


def guarded(rest: Rest, **config: Any) -> ASGIApp:
    return SessionSecurityMiddleware(hello, rest.sessions, SecurityConfig(**config), tickets=rest.tickets)


async def get(app: ASGIApp, *headers: tuple[str, str], method: str = "GET") -> Answer:
    return await call(app, method, "/", headers=headers)


def bearer(token: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {token}")


async def test_the_application_sees_the_session() -> None:
    rest = Rest()
    token = (await rest.session("alice")).token

    answers = [
        await get(guarded(rest), header)
        for header in (bearer(token), ("x-session-id", token), ("cookie", f"__Host-roomkey={token}"))
    ]

    assert [(answer.status, answer.body) for answer in answers] == [(200, b"alice")] * 3


async def test_who_has_no_session_does_not_reach_the_application() -> None:
    rest = Rest()
    ended = await rest.session()
    await rest.sessions.invalidate_session(ended.id)
    suspended = await rest.session()
    await rest.sessions.suspend_session(suspended.id)
    pending = await rest.session(active=False)
    app = guarded(rest)

    answers = [
        await get(app),
        await get(app, bearer("forged")),
        await get(app, bearer(rest.admin)),
        await get(app, ("authorization", "Basic YTpi")),
        await get(app, bearer(ended.token)),
        await get(app, bearer(suspended.token)),
        await get(app, bearer(pending.token)),
    ]

    assert [(answer.status, answer.code) for answer in answers] == [
        (401, "credentials_missing"),
        (401, "invalid_token"),
        (401, "invalid_token"),
        (401, "invalid_token"),
        (410, "session_invalidated"),
        (401, "session_suspended"),
        (403, "session_pending"),
    ]


async def test_a_page_that_is_open_to_all_sees_nobody_or_the_session() -> None:
    rest = Rest()
    token = (await rest.session("alice")).token
    app = guarded(rest, require_session_validation=False)

    answers = [
        await get(app),
        await get(app, bearer(token)),
        await get(app, ("cookie", "__Host-roomkey=outdated")),
        await get(app, bearer("forged")),
    ]

    assert [(answer.status, answer.body) for answer in answers[:3]] == [
        (200, b"nobody"),
        (200, b"alice"),
        (200, b"nobody"),
    ]
    assert answers[3].code == "invalid_token"


async def test_a_cookie_counts_only_on_our_own_pages() -> None:
    rest = Rest()
    cookie = ("cookie", f"__Host-roomkey={(await rest.session()).token}")
    app = guarded(rest, allowed_origins=(ORIGIN,))

    answers = [
        await get(app, cookie, method="POST"),
        await get(app, cookie, ("origin", "https://evil.example.com"), method="POST"),
        await get(app, cookie, ("origin", ORIGIN), method="POST"),
        await get(app, cookie, ("origin", "http://rooms.example.com"), method="POST"),
    ]

    assert [answer.status for answer in answers] == [403, 403, 200, 200]


async def test_what_is_neither_http_nor_websocket_passes() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None: ...

    for layer in (
        SessionSecurityMiddleware(app, Rest().sessions),
        ProblemMiddleware(app),
        SecurityHeadersMiddleware(app),
        CorsMiddleware(app, [ORIGIN]),
    ):
        await layer({"type": "lifespan"}, receive, send)

    assert seen == ["lifespan"] * 4


# --- the same over WebSocket --------------------------------------------------------------------------


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """A chat with itself that begins with whose session it sees."""
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": scope["session"].user_id if scope["session"] else "nobody"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


class Chat:
    """A client's WebSocket into an ASGI application."""

    def __init__(
        self,
        app: ASGIApp,
        headers: Sequence[tuple[str, str]] = (),
        *,
        query: str = "",
        subprotocols: Sequence[str] = (),
        extensions: dict[str, Any] | None = None,
    ) -> None:
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.incoming.put_nowait({"type": "websocket.connect"})
        self.outgoing: list[Message] = []
        self.app = app
        self.scope = {
            "type": "websocket",
            "scheme": "wss",
            "path": "/",
            "query_string": query.encode(),
            "headers": [(b"host", b"rooms.example.com")] + [(name.encode(), value.encode()) for name, value in headers],
            "subprotocols": list(subprotocols),
            "client": ("198.51.100.1", 50_000),
            "extensions": extensions or {},
        }

    async def run(self, *texts: str) -> list[Message]:
        """Say ``texts``, go away, and return what was heard."""
        for text in texts:
            self.incoming.put_nowait({"type": "websocket.receive", "text": text})
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})

        async def send(message: Message) -> None:
            self.outgoing.append(message)

        await self.app(self.scope, self.incoming.get, send)
        return self.outgoing


def socket_guarded(rest: Rest, app: ASGIApp = echo, **config: Any) -> ASGIApp:
    return SessionSecurityMiddleware(app, rest.sessions, SecurityConfig(**config), tickets=rest.tickets)


async def test_a_socket_sees_the_session_whatever_carries_it() -> None:
    rest = Rest()
    issued = await rest.session("alice")
    ticket = await rest.tickets.issue(issued.id)
    app = socket_guarded(rest)

    heard = [
        await Chat(app, [bearer(issued.token)]).run(),
        await Chat(app, subprotocols=["chat", f"roomkey.token.{issued.token}"]).run(),
        await Chat(app, query=f"ticket={ticket}&ticket=other").run(),
        await Chat(app, [("cookie", f"__Host-roomkey={issued.token}"), ("origin", "https://rooms.example.com")]).run(),
    ]

    assert [messages[1]["text"] for messages in heard] == ["alice"] * 4


async def test_a_socket_without_a_session_is_refused_before_it_is_accepted() -> None:
    rest = Rest()
    issued = await rest.session()
    ticket = await rest.tickets.issue(issued.id)
    app = socket_guarded(rest)
    await Chat(app, query=f"ticket={ticket}").run()

    heard = [
        await Chat(app).run(),
        await Chat(app, [bearer("forged")]).run(),
        await Chat(app, query=f"ticket={ticket}").run(),
        await Chat(app, query=f"token={issued.token}").run(),
        await Chat(app, [("cookie", f"__Host-roomkey={issued.token}")]).run(),
        await Chat(app, [("cookie", f"__Host-roomkey={issued.token}"), ("origin", "https://evil.com")]).run(),
    ]

    for messages in heard:
        assert [(message["type"], message["code"]) for message in messages] == [("websocket.close", 4401)]


async def test_a_server_that_can_answer_a_handshake_gets_a_problem() -> None:
    rest = Rest()
    issued = await rest.session()
    await rest.sessions.invalidate_session(issued.id)

    start, body = await Chat(
        socket_guarded(rest), [bearer(issued.token)], extensions={"websocket.http.response": {}}
    ).run()

    assert (start["type"], start["status"]) == ("websocket.http.response.start", 410)
    assert dict(start["headers"])[b"content-type"] == b"application/problem+json"
    assert b"session_invalidated" in body["body"]


async def test_an_ended_session_hears_and_says_nothing_more() -> None:
    rest = Rest()
    issued = await rest.session()
    said: list[str] = []

    async def revoked_in_between(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        said.append((await receive())["text"])
        await rest.sessions.invalidate_session(issued.id)
        rest.clock.advance(10 * SECOND)
        said.append((await receive())["type"])
        await send({"type": "websocket.send", "text": "secret"})

    heard = await Chat(socket_guarded(rest, revoked_in_between), [bearer(issued.token)]).run("one", "two")

    assert said == ["one", "websocket.disconnect"]
    assert heard[-1] == {"type": "websocket.close", "code": 4401, "reason": "session_invalidated"}
    assert "secret" not in str(heard)


async def test_a_server_that_only_talks_notices_too() -> None:
    rest = Rest()
    issued = await rest.session()

    async def ticker(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await rest.sessions.suspend_session(issued.id)
        rest.clock.advance(10 * SECOND)
        await send({"type": "websocket.send", "text": "secret"})
        await send({"type": "websocket.send", "text": "secret"})

    heard = await Chat(socket_guarded(rest, ticker), [bearer(issued.token)]).run()

    assert heard[1:] == [{"type": "websocket.close", "code": 4423, "reason": "session_suspended"}]


async def test_between_two_looks_nobody_is_asked() -> None:
    rest = Rest()
    issued = await rest.session()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await rest.sessions.delete_session(issued.id)
        rest.clock.advance(10 * SECOND - timedelta(milliseconds=1))
        await send({"type": "websocket.send", "text": "still"})
        rest.clock.advance(timedelta(milliseconds=1))
        await send({"type": "websocket.send", "text": "no more"})

    heard = await Chat(socket_guarded(rest, app), [bearer(issued.token)]).run()

    assert [message.get("text", message.get("reason")) for message in heard[1:]] == ["still", "session_invalidated"]


async def test_a_socket_in_use_keeps_its_session_awake() -> None:
    rest = Rest()
    issued = await rest.session()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        for _ in range(6):
            rest.clock.advance(timedelta(minutes=30))
            await send({"type": "websocket.send", "text": "tick"})

    heard = await Chat(socket_guarded(rest, app), [bearer(issued.token)]).run()

    assert len(heard) == 7
    assert all(message["type"] != "websocket.close" for message in heard)


async def test_a_socket_that_is_open_to_all_sees_nobody() -> None:
    heard = await Chat(socket_guarded(Rest(), require_session_validation=False)).run("hi")

    assert [message.get("text") for message in heard] == [None, "nobody", "hi"]


async def test_a_ticket_means_nothing_where_none_are_redeemed() -> None:
    rest = Rest()
    issued = await rest.session()
    ticket = await Tickets(MemoryOneTime(rest.clock, TICKET_LIMITS)).issue(issued.id)

    heard = await Chat(SessionSecurityMiddleware(echo, rest.sessions), query=f"ticket={ticket}").run()

    assert heard == [{"type": "websocket.close", "code": 4401, "reason": "invalid_token"}]
