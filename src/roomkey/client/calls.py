"""Requests to a server: typed answers, the errors of the library, and another try where nothing can happen twice."""

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import UNSET

from roomkey.errors import RevisionMismatch, RoomkeyError, Storage
from roomkey.problems import PRESENTATIONS, Problem

if TYPE_CHECKING:
    import httpx

TRIES: Final = 4
"""How often a request is sent that may be repeated."""

FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 5.0

_PASSING: Final = frozenset({429, 502, 503, 504})
"""Statuses after which the same request may succeed."""

T = TypeVar("T")


class Calls:
    """Requests with one credential. ``http`` is the client that carries them, and is somebody else's to close."""

    def __init__(self, http: "httpx.AsyncClient", credential: str | None) -> None:
        self._http = http
        self._headers = {} if credential is None else {"authorization": f"Bearer {credential}"}

    async def ask(
        self,
        kind: type[T],
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """
        The answer as ``kind``, which JSON has to be; ``body`` is sent as JSON.

        Raises as ``send``.
        """
        content = None if body is None else msgspec.json.encode(body)
        given = {**({} if content is None else {"content-type": "application/json"}), **(headers or {})}
        answer = await self.send(method, path, query=query, content=content, headers=given)
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Storage(f"the server's answer to {method} {path} is not what was expected: {error}") from None

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> "httpx.Response":
        """
        The answer to a request. It is sent again if there is none, or it may succeed later, unless it could happen
        twice: a POST carries a key by which the server knows it again.

        Raises:
            RoomkeyError: What the server says, as the class that it has there.
            Storage: If there is no answer.
        """
        given = {**self._headers, **(headers or {})}
        if method == "POST":
            given.setdefault("idempotency-key", token_urlsafe(16))
        parameters = {name: str(value) for name, value in (query or {}).items() if value is not None}
        tries = TRIES if method in ("GET", "POST") or (method == "PUT" and "if-match" not in given) else 1
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = await self._http.request(method, path, params=parameters, content=content, headers=given)
            except _failures() as error:
                if attempt == tries:
                    raise Storage(f"no answer from the server: {str(error) or type(error).__name__}") from error
            else:
                if answer.is_success:
                    return answer
                if attempt == tries or answer.status_code not in _PASSING:
                    raise error_of(answer.status_code, answer.content)
            await asyncio.sleep(pause(attempt))


def pause(attempt: int) -> float:
    """Seconds to wait after so many tries: exponential, with full jitter, so that many clients do not come at once."""
    return random.uniform(0, min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(attempt, 10)))  # noqa: S311  # no secret


def segment(name: str) -> str:
    """``name`` as one segment of a path."""
    return quote(name, safe="")


def error_of(status: int, content: bytes) -> RoomkeyError:
    """What the server says is wrong, as the error that it is there; an answer that does not say so was not its own."""
    try:
        problem = msgspec.json.decode(content, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Storage(f"the server, or something in front of it, answered {status}")
    if problem.current is not UNSET:
        return RevisionMismatch(problem.detail, problem.current)
    return _BY_CODE.get(problem.code, RoomkeyError)(problem.detail)


def code_of(content: bytes) -> str:
    """The stable code of a problem; empty if it is none."""
    try:
        return msgspec.json.decode(content, type=Problem).code
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _made_of_a_message(kind: type[RoomkeyError]) -> type[RoomkeyError]:
    """The class itself, or the nearest above it that says just what it is given."""
    for each in kind.__mro__[: kind.__mro__.index(RoomkeyError)]:
        with suppress(TypeError):
            if str(each("said")) == "said":
                return each
    return RoomkeyError


_BY_CODE: Final[Mapping[str, type[RoomkeyError]]] = {
    kind.code: _made_of_a_message(kind) for kind in reversed(PRESENTATIONS)
}
"""Of several with one code the first, which is the most general in that table."""


def _failures() -> tuple[type[Exception], ...]:
    import httpx  # noqa: PLC0415  # of an extra

    return (httpx.TransportError,)
