"""WebSockets behind ``SessionSecurityMiddleware``: who may open one, and when it ends."""

# ruff: noqa: ARG001, ARG002  # every ASGI application takes three arguments, whether or not it looks at them

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roomkey.api.authentication import SecurityConfig
from roomkey.api.middleware import (
    SessionSecurityMiddleware,
)
from roomkey.backends.memory import MemorySessionStorage
from roomkey.backends.memory.one_time import MemoryOneTime
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import SessionId
from roomkey.security.tickets import TICKET_LIMITS, Tickets
from roomkey.sessions.manager import SessionManager
from roomkey.testing.clock import ManualClock
from tests.support.loops import in_no_time
from tests.support.rest import START, Rest

SECOND = timedelta(seconds=1)


def bearer(token: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {token}")


# --- who may open one ---------------------------------------------------------------------------------


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
        await self.serve()
        return self.outgoing

    async def serve(self) -> None:
        """Be served until the application has ended."""

        async def send(message: Message) -> None:
            self.outgoing.append(message)

        await self.app(self.scope, self.incoming.get, send)


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
        await send({"type": "websocket.send", "text": "secret"})
        await send({"type": "websocket.send", "text": "secret"})

    heard = await Chat(socket_guarded(rest, ticker), [bearer(issued.token)]).run()

    assert heard[1:] == [{"type": "websocket.close", "code": 4423, "reason": "session_suspended"}]


async def test_what_another_process_does_is_noticed_at_the_first_message_after_the_interval() -> None:
    rest = Rest()
    other_process = SessionManager(rest.storage, clock=rest.clock)
    issued = await rest.session()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await other_process.delete_session(issued.id)
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


async def test_a_socket_that_comes_with_a_replaced_token_is_told_so_and_its_session_goes_on() -> None:
    rest = Rest()
    issued = await rest.session()
    await rest.sessions.rotate_token(issued.id, issued.token)
    rest.clock.advance(timedelta(seconds=31))

    heard = await Chat(socket_guarded(rest), [bearer(issued.token)]).run()

    assert heard == [{"type": "websocket.close", "code": 4401, "reason": "token_rotated"}]
    assert await rest.sessions.validate_session(issued.id)


# --- the end of an open socket ------------------------------------------------------------------------


class LoopClock:
    """The time of the loop, so that on a loop that jumps it jumps, too."""

    def now(self) -> datetime:
        return START + timedelta(seconds=asyncio.get_running_loop().time())


class Listening:
    """An application that listens for ever, and says when it has begun and what it heard."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.heard: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        self.begun.set()
        while not self.heard or self.heard[-1]["type"] != "websocket.disconnect":
            self.heard.append(await receive())


@asynccontextmanager
async def open_chat(sessions: SessionManager, app: Any, token: str) -> AsyncGenerator[Chat]:
    """An open socket on which the client says nothing; at the end of the block the application must have ended."""
    chat = Chat(SessionSecurityMiddleware(app, sessions), [bearer(token)])

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(chat.serve())
        await app.begun.wait()
        yield chat


def ending(chat: Chat) -> tuple[int, str]:
    assert chat.outgoing[-1]["type"] == "websocket.close"
    return chat.outgoing[-1]["code"], chat.outgoing[-1]["reason"]


@in_no_time
async def test_a_silent_socket_ends_when_its_session_does() -> None:
    rest, app = Rest(), Listening()
    issued = await rest.session()

    async with open_chat(rest.sessions, app, issued.token) as chat:
        await rest.sessions.suspend_session(issued.id)

    assert ending(chat) == (4423, "session_suspended")
    assert [message["type"] for message in app.heard] == ["websocket.disconnect"]


@in_no_time
async def test_a_socket_ends_though_its_application_neither_listens_nor_talks() -> None:
    class Busy(Listening):
        def __init__(self) -> None:
            super().__init__()
            self.done = asyncio.Event()

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "websocket.accept"})
            self.begun.set()
            await self.done.wait()

    rest, app = Rest(), Busy()
    issued = await rest.session()

    async with open_chat(rest.sessions, app, issued.token) as chat:
        await rest.sessions.delete_session(issued.id)
        for _ in range(10):
            await asyncio.sleep(0)
        told = list(chat.outgoing)
        app.done.set()

    assert told[-1]["type"] == "websocket.close"
    assert ending(chat) == (4401, "session_invalidated")


@in_no_time
async def test_when_a_user_is_revoked_every_socket_ends_but_that_of_the_session_that_is_kept() -> None:
    rest, ended, kept = Rest(), Listening(), Listening()
    one, other = await rest.session("alice"), await rest.session("alice")

    async with open_chat(rest.sessions, kept, other.token) as spared:
        async with open_chat(rest.sessions, ended, one.token) as chat:
            await rest.sessions.revoke_user("alice", except_session=other.id)
        spared_then = list(spared.outgoing)
        spared.incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})

    assert ending(chat) == (4401, "session_invalidated")
    assert [message["type"] for message in spared_then] == ["websocket.accept"]


@in_no_time
async def test_a_socket_outlives_what_does_not_end_its_session() -> None:
    rest, app = Rest(), Listening()
    issued = await rest.session()

    async with open_chat(rest.sessions, app, issued.token) as chat:
        await rest.sessions.extend_session(issued.id)
        await rest.sessions.rotate_token(issued.id)
        chat.incoming.put_nowait({"type": "websocket.receive", "text": "still here"})
        chat.incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})

    assert [message.get("text", message["type"]) for message in app.heard] == ["still here", "websocket.disconnect"]
    assert [message["type"] for message in chat.outgoing] == ["websocket.accept"]


async def active(sessions: SessionManager) -> tuple[SessionId, str]:
    issued = await sessions.create_session("alice")
    await sessions.activate_session(issued.id)
    return issued.id, issued.token


@in_no_time
async def test_a_silent_socket_ends_at_the_deadline_of_its_session() -> None:
    policy = SessionPolicy(lifetime=timedelta(minutes=20), idle_timeout=None)
    sessions, app = SessionManager(MemorySessionStorage(), policy=policy, clock=LoopClock()), Listening()
    _, token = await active(sessions)

    async with open_chat(sessions, app, token) as chat:
        pass

    assert asyncio.get_running_loop().time() == pytest.approx(20 * 60)
    assert ending(chat) == (4401, "session_expired")


@in_no_time
async def test_a_deadline_that_was_moved_is_the_one_that_counts() -> None:
    policy = SessionPolicy(lifetime=timedelta(hours=2), idle_timeout=timedelta(minutes=20))
    sessions, app = SessionManager(MemorySessionStorage(), policy=policy, clock=LoopClock()), Listening()
    id, token = await active(sessions)

    async with open_chat(sessions, app, token) as chat:
        await asyncio.sleep(15 * 60)
        await sessions.touch(id)

    assert asyncio.get_running_loop().time() == pytest.approx(35 * 60)
    assert ending(chat) == (4401, "session_expired")


async def test_a_session_that_ends_while_it_is_let_in_does_not_get_in() -> None:
    class Slow(MemorySessionStorage):
        async def touch(self, id: SessionId, at: datetime) -> None:
            await super().touch(id, at)
            await sessions.invalidate_session(id)

    clock = ManualClock(START)
    sessions, app = SessionManager(Slow(), clock=clock), Listening()
    _, token = await active(sessions)
    clock.advance(timedelta(minutes=10))

    heard = await Chat(SessionSecurityMiddleware(app, sessions), [bearer(token)]).run()

    assert [(message["type"], message.get("code")) for message in heard] == [("websocket.close", 4401)]


async def test_what_an_application_raises_comes_out_as_it_is() -> None:
    rest = Rest()
    issued = await rest.session()

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        await Chat(socket_guarded(rest, broken), [bearer(issued.token)]).run()


@in_no_time
async def test_a_client_that_has_gone_is_not_told_of_the_end() -> None:
    class Lingering(Listening):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await super().__call__(scope, receive, send)
            await rest.sessions.suspend_session(issued.id)
            await asyncio.sleep(1)

    rest, app = Rest(), Lingering()
    issued = await rest.session()

    async with open_chat(rest.sessions, app, issued.token) as chat:
        chat.incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})

    assert [message["type"] for message in chat.outgoing] == ["websocket.accept"]
