"""What stands in front of applications, over HTTP and WebSocket."""

# ruff: noqa: ARG001  # every ASGI application takes three arguments, whether or not it looks at them

from datetime import timedelta
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roomkey.api.authentication import SecurityConfig
from roomkey.api.http_messages import Disconnected
from roomkey.api.middleware import (
    CommonHeadersMiddleware,
    CorsMiddleware,
    ProblemMiddleware,
    SessionSecurityMiddleware,
)
from roomkey.api.operations import ApiSettings
from roomkey.errors import InvalidState, Storage
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
    answer = await call(CommonHeadersMiddleware(hello), "GET", "/", scheme="https")

    assert answer.header("strict-transport-security").startswith("max-age=")


ORIGIN = "https://app.example.com"


def varies(answer: Answer) -> set[str]:
    return set(answer.header("vary").lower().split(", "))


async def test_pages_of_allowed_origins_may_read() -> None:
    answer = await call(CorsMiddleware(hello, [ORIGIN]), "GET", "/", headers=[("origin", ORIGIN)])

    assert answer.header("access-control-allow-origin") == ORIGIN
    assert answer.header("access-control-allow-credentials") == "true"
    assert "etag" in answer.header("access-control-expose-headers")
    assert varies(answer) == {"origin"}


@pytest.mark.parametrize("origin", ["https://evil.example.com", "http://app.example.com", "null", ORIGIN + ":444"])
async def test_pages_of_other_origins_are_told_nothing(origin: str) -> None:
    app = CorsMiddleware(hello, [ORIGIN])
    asked = [("origin", origin), ("access-control-request-method", "PUT")]

    answers = [await call(app, method, "/", headers=asked) for method in ("GET", "OPTIONS")]

    for answer in answers:
        assert not answer.header("access-control-allow-origin")
        assert "origin" in varies(answer)


async def test_an_allowed_page_may_ask_before_it_sends() -> None:
    asked = [("origin", ORIGIN), ("access-control-request-method", "PUT")]

    answer = await call(CorsMiddleware(hello, [ORIGIN]), "OPTIONS", "/", headers=asked)

    assert answer.status == 200
    assert answer.header("access-control-allow-origin") == ORIGIN
    assert answer.header("access-control-allow-credentials") == "true"
    assert "PUT" in answer.header("access-control-allow-methods")
    assert "if-match" in answer.header("access-control-allow-headers")


@pytest.mark.parametrize(
    ("origin", "method", "header"),
    [
        ("https://evil.example.com", "GET", "if-match"),
        (ORIGIN, "TRACE", "if-match"),
        (ORIGIN, "GET", "x-forwarded-for"),
    ],
)
async def test_a_page_that_may_not_send_is_told_so_with_a_problem(origin: str, method: str, header: str) -> None:
    asked = [
        ("origin", origin),
        ("access-control-request-method", method),
        ("access-control-request-headers", header),
    ]

    answer = await call(CorsMiddleware(hello, [ORIGIN]), "OPTIONS", "/", headers=asked)

    assert (answer.status, answer.code) == (403, "forbidden")
    assert "origin" in varies(answer)


async def test_without_allowed_origins_there_is_no_cors() -> None:
    answer = await Rest().call("GET", "/health/live", headers=[("origin", ORIGIN)])

    assert not answer.header("vary")
    assert not answer.header("access-control-allow-credentials")


async def test_a_problem_can_be_read_by_a_page_of_an_allowed_origin() -> None:
    rest = Rest(settings=ApiSettings(allowed_origins=(ORIGIN,)))

    answer = await rest.call("GET", "/sessions", headers=[("origin", ORIGIN)])

    assert (answer.status, answer.header("access-control-allow-origin")) == (401, ORIGIN)


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
        CommonHeadersMiddleware(app),
        CorsMiddleware(app, [ORIGIN]),
    ):
        await layer({"type": "lifespan"}, receive, send)

    assert seen == ["lifespan"] * 4
