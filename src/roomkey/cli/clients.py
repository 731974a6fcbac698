"""What commands ask, how that is answered, and a client that calls the application in this process."""

from asyncio import Event
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import unquote

from roomkey.cli.outcome import Advance, unseen
from roomkey.errors import Storage

TIMEOUT_SECONDS: Final = 10.0

Headers = Mapping[str, str]
Content = bytes | AsyncIterator[bytes] | None


class Request(NamedTuple):
    """What is asked. ``path`` has its query, and stands below the address of the client."""

    method: str
    path: str
    headers: Headers = MappingProxyType({})
    content: Content = None
    seconds: float = TIMEOUT_SECONDS
    """Time for each step."""
    most_bytes: int | None = None
    """Size of the answer beyond which it is none."""
    advance: Advance = unseen
    """Is told how many bytes of the answer have arrived."""


class Answer(NamedTuple):
    """How a request was answered, whatever its status is."""

    status: int
    content: bytes


class Client(Protocol):
    """Carries requests, one or several at a time."""

    async def call(self, request: Request) -> Answer:
        """
        The answer to a request.

        Raises:
            Storage: If there is none, or it is too long.
        """
        ...


class AppClient:
    """Calls of an ASGI application."""

    def __init__(self, app: Any, headers: Headers, *, on_failure: Callable[[], object]) -> None:
        """``on_failure`` is called when the application answers 500."""
        self._app = app
        self._on_failure = on_failure
        self._headers = {"host": "storage", "user-agent": "roomkey", **headers}

    async def call(self, request: Request) -> Answer:
        """See ``Client``."""
        call = _Call(request.content, Incoming(request))
        await self._app(_scope(request, {**self._headers, **request.headers}), call.receive, call.send)
        answer = call.answer.whole()
        if answer.status == 500:
            self._on_failure()
        return answer


class Incoming:
    """An answer that is arriving."""

    def __init__(self, request: Request) -> None:
        self._most = request.most_bytes
        self._advance = request.advance
        self._status = 0
        self._size: int | None = None
        self._content = bytearray()

    def begin(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Its head has arrived."""
        self._status = status
        for name, value in headers:
            if name.lower() == b"content-length":
                self._size = int(value)

    def add(self, part: bytes) -> None:
        """
        More of its body has arrived.

        Raises:
            Storage: If that is too much.
        """
        self._content += part
        if self._most is not None and len(self._content) > self._most:
            raise Storage(f"the answer has more than {self._most} bytes")
        self._advance(len(self._content), self._size)

    def whole(self) -> Answer:
        """What has arrived, which is all."""
        return Answer(self._status, bytes(self._content))


class _Call:
    """One call of an application, from its side."""

    def __init__(self, content: Content, answer: Incoming) -> None:
        self.answer = answer
        self._parts = _parts(content)
        self._is_sent = False
        self._answered = Event()

    async def receive(self) -> dict[str, Any]:
        if not self._is_sent:
            part = await anext(self._parts, None)
            self._is_sent = part is None
            return {"type": "http.request", "body": part or b"", "more_body": not self._is_sent}
        await self._answered.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.answer.begin(message["status"], message["headers"])
            return
        self.answer.add(message.get("body", b""))
        if not message.get("more_body", False):
            self._answered.set()


async def _parts(content: Content) -> AsyncGenerator[bytes]:
    if isinstance(content, bytes):
        yield content
    elif content is not None:
        async for part in content:
            yield part


def _scope(request: Request, headers: Headers) -> dict[str, Any]:
    path, _, query = request.path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "server": ("storage", None),
        "client": ("127.0.0.1", 0),
        "root_path": "",
    }
