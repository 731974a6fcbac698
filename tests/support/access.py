"""An application that says what it is told to, and sessions that it is asked about."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from roomkey.domain.access import Access, Grant
from roomkey.domain.session import Session, SessionId, SessionState

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
EVERYTHING = (Grant("**", Access.ADMIN),)


def a_session(name: str = "one", grants: Sequence[Grant] = EVERYTHING, user: str = "alice") -> Session:
    return Session(
        id=SessionId(name),
        user_id=user,
        state=SessionState.ACTIVE,
        created_at=NOON,
        expires_at=NOON + timedelta(days=1),
        idle_timeout=None,
        activation_timeout=timedelta(minutes=10),
        last_seen_at=NOON,
        version=2,
        grants=tuple(grants),
    )


class ByUser(dict[str, Any]):
    """Answers by user."""


class Application:
    """``says`` is its answer: by document, by user, or the same to everything; an exception is raised."""

    def __init__(self, says: Any = "write") -> None:
        self.says = says
        self.asked: list[tuple[str, str]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.is_asked = asyncio.Event()

    async def __call__(self, session: Session, document: str) -> Any:
        self.asked.append((session.user_id, document))
        # As when it was asked: what changes while it thinks is not in its answer.
        said: Any = self.says
        key = session.user_id if isinstance(said, ByUser) else document
        answer = cast("dict[str, Any]", said).get(key) if isinstance(said, dict) else said
        self.is_asked.set()
        await self.may_answer.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


class Hook:
    """An application's hook over HTTP: it notes what it is asked, and gives ``answers``, the last one for ever."""

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        self.answers = [*answers]
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.more_headers = ""
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")[1:-2]
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                self.bodies.append(await reader.readexactly(int(headers["content-length"])))
                self.headers.append(headers)
                await self.may_answer.wait()
                status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                start = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n{self.more_headers}\r\n"
                writer.write(start.encode() + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def a_hook(*answers: tuple[int, bytes]) -> AsyncGenerator[Hook]:
    hook = Hook(*answers)
    server = await asyncio.start_server(hook.serve, "127.0.0.1", 0)
    hook.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/access"
    try:
        yield hook
    finally:
        server.close()
