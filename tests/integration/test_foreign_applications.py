"""``SessionSecurityMiddleware`` in front of applications of Starlette, FastAPI and Litestar, on a real server."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, cast

import fastapi
import httpx
import litestar
import pytest
from litestar.background_tasks import BackgroundTask as LitestarTask
from litestar.response import Stream
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from roomkey.api.authentication import SecurityConfig
from roomkey.api.middleware import SessionSecurityMiddleware
from roomkey.backends.memory import MemorySessionStorage
from roomkey.security.limits import LimitSettings
from roomkey.sessions.manager import SessionManager
from tests.support.rest import served

PARTS: Final = [b"one ", b"two ", b"three"]
PROTOCOL: Final = "chat.example"


class Diary:
    """What an application did besides answering."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def write(self, entry: str) -> None:
        self.entries.append(entry)

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncGenerator[None]:
        self.write("started")
        yield
        self.write("stopped")


async def parts() -> AsyncIterator[bytes]:
    for part in PARTS:
        yield part


def user_of(scope: Any) -> str:
    """Whose session an application sees."""
    return scope["session"].user_id


async def end_of(socket: ClientConnection) -> tuple[int, str]:
    """The code and the reason with which a socket is closed."""
    async with asyncio.timeout(30):
        with suppress(ConnectionClosed):
            async for _ in socket:
                pass
    assert socket.close_code is not None
    return socket.close_code, socket.close_reason or ""


# --- the same application, three times ----------------------------------------------------------------


def a_starlette(diary: Diary) -> ASGIApp:
    async def me(request: Request) -> Response:
        return PlainTextResponse(user_of(request.scope), background=BackgroundTask(diary.write, "later"))

    async def upload(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    async def stream(_request: Request) -> Response:
        return StreamingResponse(parts())

    async def fail(_request: Request) -> Response:
        raise LookupError("of the application")

    async def echo(socket: WebSocket) -> None:
        await socket.accept(subprotocol=PROTOCOL if PROTOCOL in socket.scope["subprotocols"] else None)
        await socket.send_text(user_of(socket.scope))
        async for text in socket.iter_text():
            await socket.send_text(text)

    routes = [
        Route("/me", me),
        Route("/upload", upload, methods=["POST"]),
        Route("/stream", stream),
        Route("/fail", fail),
        WebSocketRoute("/echo", echo),
    ]
    return Starlette(routes=routes, lifespan=diary.lifespan)


def a_fastapi(diary: Diary) -> ASGIApp:
    app = fastapi.FastAPI(lifespan=diary.lifespan)

    async def me(request: fastapi.Request, tasks: fastapi.BackgroundTasks) -> Response:
        tasks.add_task(diary.write, "later")
        return PlainTextResponse(user_of(request.scope), background=tasks)

    async def upload(request: fastapi.Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    async def stream() -> Response:
        return StreamingResponse(parts())

    async def fail() -> None:
        raise LookupError("of the application")

    async def echo(socket: fastapi.WebSocket) -> None:
        await socket.accept(subprotocol=PROTOCOL if PROTOCOL in socket.scope["subprotocols"] else None)
        await socket.send_text(user_of(socket.scope))
        async for text in socket.iter_text():
            await socket.send_text(text)

    app.get("/me")(me)
    app.post("/upload")(upload)
    app.get("/stream")(stream)
    app.get("/fail")(fail)
    app.websocket("/echo")(echo)
    return app


def a_litestar(diary: Diary) -> ASGIApp:
    async def me(request: litestar.Request[Any, Any, Any]) -> litestar.Response[str]:
        return litestar.Response(
            user_of(request.scope), media_type="text/plain", background=LitestarTask(diary.write, "later")
        )

    async def upload(request: litestar.Request[Any, Any, Any]) -> str:
        return str(len(await request.body()))

    async def stream() -> Stream:
        return Stream(parts())

    async def fail() -> None:
        raise LookupError("of the application")

    async def echo(socket: litestar.WebSocket[Any, Any, Any]) -> None:
        offered = socket.scope["subprotocols"]
        await socket.accept(subprotocols=PROTOCOL if PROTOCOL in offered else None)
        await socket.send_text(user_of(socket.scope))
        async for text in socket.iter_data(mode="text"):
            await socket.send_text(text)

    handlers = [
        litestar.get("/me", media_type="text/plain")(me),
        litestar.post("/upload", media_type="text/plain")(upload),
        litestar.get("/stream")(stream),
        litestar.get("/fail")(fail),
        litestar.websocket("/echo")(echo),
    ]
    return cast("ASGIApp", litestar.Litestar(handlers, lifespan=[diary.lifespan]))


BUILDERS: Final[dict[str, Callable[[Diary], ASGIApp]]] = {
    "starlette": a_starlette,
    "fastapi": a_fastapi,
    "litestar": a_litestar,
}


# --- on a server --------------------------------------------------------------------------------------

CONFIG: Final = SecurityConfig(
    limits=LimitSettings(session_requests_per_second=0.001, session_request_burst=8, exempt_networks=("127.0.0.0/8",)),
    message_burst=10,
    messages_per_second=0.001,
    max_message_bytes=1_000,
    max_body_bytes=100_000,
)


class Site:
    """An application behind the middleware, and its sessions."""

    def __init__(self, url: str, sessions: SessionManager, diary: Diary) -> None:
        self.url = url
        self.sessions = sessions
        self.diary = diary

    async def token(self, user: str = "alice") -> str:
        return (await self.sessions.create_session(user, activate=True)).token

    async def call(self, path: str, token: str | None = None, **more: Any) -> httpx.Response:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=self.url, verify=False) as client:
            return await client.request(more.pop("method", "GET"), path, headers=headers, **more)

    def socket(self, token: str | None, **more: Any) -> connect:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        url = self.url.replace("http", "ws") + "/echo"
        return connect(url, additional_headers=headers, proxy=None, **more)


@pytest.fixture(scope="module", params=BUILDERS)
def site(request: pytest.FixtureRequest) -> Generator[Site]:
    diary = Diary()
    sessions = SessionManager(MemorySessionStorage())
    app = SessionSecurityMiddleware(BUILDERS[request.param](diary), sessions, CONFIG)
    with served(app, lifespan=True) as url:
        yield Site(url, sessions, diary)
    assert diary.entries[:1] == ["started"]
    assert diary.entries[-1:] == ["stopped"]


async def test_only_sessions_get_in_and_the_application_goes_on_as_ever(site: Site) -> None:
    token = await site.token()

    stranger = await site.call("/me")
    welcome = await site.call("/me", token)
    streamed = await site.call("/stream", token)
    failed = await site.call("/fail", token)
    missing = await site.call("/nothing", token)
    uploaded = await site.call("/upload", token, method="POST", content=b"x" * 1_000)

    assert (stranger.status_code, stranger.json()["code"]) == (401, "credentials_missing")
    assert (welcome.status_code, welcome.text) == (200, "alice")
    assert welcome.headers["ratelimit-policy"] == '"session";q=8;w=8000'
    assert welcome.headers["ratelimit"].startswith('"session";r=7;t=')
    assert streamed.content == b"".join(PARTS)
    assert (failed.status_code, missing.status_code) == (500, 404)
    assert (uploaded.is_success, uploaded.text) == (True, "1000")
    assert "later" in site.diary.entries


async def test_what_is_too_much_is_refused(site: Site) -> None:
    token = await site.token()

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 10_000

    announced = await site.call("/upload", token, method="POST", content=b"x" * 100_001)
    found_out = await site.call("/upload", token, method="POST", content=endless())
    answers = [await site.call("/me", token) for _ in range(8)]

    for refused in (announced, found_out):
        assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert [answer.status_code for answer in answers] == [200] * 6 + [429] * 2
    assert answers[-1].json()["code"] == "rate_limited"
    assert int(answers[-1].headers["retry-after"]) > 1
    assert answers[-1].headers["ratelimit"].startswith('"session";r=0;t=')
    assert (await site.call("/me", await site.token("bob"))).text == "bob"


async def test_sockets_keep_their_subprotocol_and_are_refused_to_strangers(site: Site) -> None:
    async with site.socket(await site.token(), subprotocols=[PROTOCOL]) as socket:
        assert socket.subprotocol == PROTOCOL
        assert await socket.recv() == "alice"
        await socket.send("hello")
        assert await socket.recv() == "hello"

    with pytest.raises(InvalidStatus) as refused:
        await site.socket(None).__aenter__()
    assert refused.value.response.status_code == 401


async def test_messages_are_counted_over_all_sockets_of_a_session(site: Site) -> None:
    token = await site.token()

    async with site.socket(token) as one, site.socket(token) as other:
        assert await one.recv() == await other.recv() == "alice"
        for socket in (one, other) * 5:
            await socket.send("hello")
            assert await socket.recv() == "hello"  # so that the next message is the next one on either socket
        await one.send("one too many")
        assert await end_of(one) == (4429, "limits_ignored")


async def test_a_message_that_is_too_long_ends_its_socket(site: Site) -> None:
    async with site.socket(await site.token()) as socket:
        await socket.send("é" * 501)
        assert (await end_of(socket))[0] == 1009


async def test_a_session_with_too_many_violations_is_ended_everywhere(site: Site) -> None:
    issued = await site.sessions.create_session("alice", activate=True)

    async with site.socket(issued.token) as socket:
        assert await socket.recv() == "alice"
        for _ in range(9):
            await site.sessions.record_violation(issued.id, "spam")
        assert (await site.call("/me", issued.token)).status_code == 200
        await site.sessions.record_violation(issued.id, "spam")
        assert (await end_of(socket))[0] == 4401

    assert (await site.call("/me", issued.token)).status_code == 410


async def test_it_stands_in_front_of_a_mounted_part_only() -> None:
    diary = Diary()
    sessions = SessionManager(MemorySessionStorage())
    members = SessionSecurityMiddleware(a_starlette(diary), sessions, CONFIG)

    async def public(_request: Request) -> Response:
        return PlainTextResponse("everybody")

    with served(Starlette(routes=[Route("/", public), Mount("/members", members)])) as url:
        site = Site(url, sessions, diary)
        token = await site.token()

        assert (await site.call("/")).text == "everybody"
        assert (await site.call("/members/me")).status_code == 401
        assert (await site.call("/members/me", token)).text == "alice"
        assert (await site.call("/members/stream", token)).content == b"".join(PARTS)
