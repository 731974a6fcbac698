"""One exchange over HTTP on bare ASGI: headers, a body that is bounded while it arrives, and the reply."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from roomkey import problems
from roomkey.errors import BodyTooLarge, MalformedRequest, NotAcceptable, RequestTimeout, UnsupportedMediaType

Headers = list[tuple[bytes, bytes]]

SINGLETONS: Final = frozenset(
    {
        "authorization",
        "content-length",
        "content-type",
        "dpop",
        "host",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "origin",
        "x-csrf-token",
        "x-session-id",
    }
)
"""Headers that may stand once. A second one is how requests are smuggled past a proxy that reads the other."""

_HOST_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:[]")

NO_STORE: Final = (b"cache-control", b"no-store")

HTML: Final = (b"content-type", b"text/html; charset=utf-8")
_JSON: Final = (b"content-type", b"application/json")
_JSON_ONLY: Final = ("application/json",)
_PROBLEM: Final = (b"content-type", problems.MEDIA_TYPE.encode())

_CHARSET: Final = re.compile(r"""\bcharset\s*=\s*"?([^\s";]+)""", re.IGNORECASE)
_WEIGHT: Final = re.compile(r"\bq\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*(?:;|$)", re.IGNORECASE)
"""RFC 9110, 12.4.2; what is written otherwise weighs as much as nothing at all: 1."""

_encoder = msgspec.json.Encoder()


class Disconnected(Exception):
    """The client went away before its request was complete; nobody waits for an answer."""


Arrival = Callable[[], AbstractContextManager[Callable[[int], object]]]
"""Entered while a body arrives in parts; what it returns is called with the size of each."""


def _anything() -> AbstractContextManager[Callable[[int], object]]:
    return nullcontext(lambda _: None)


class Reply:
    """A whole response. It may be kept and sent again; ``headers`` lacks only what the server adds."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes, headers: Headers) -> None:
        self.status = status
        self.body = body
        self.headers = headers

    async def send(self, send: Send, *, head: bool = False) -> None:
        """Send it; without its body when the request was a HEAD."""
        headers = [*self.headers]
        if self.status not in (204, 304):
            headers.append((b"content-length", str(len(self.body)).encode()))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if head else self.body})


def json_reply(value: Any, status: int = 200, *extra: tuple[bytes, bytes]) -> Reply:
    """``value`` as JSON that nobody stores (ASVS 14.3.2)."""
    return Reply(status, _encoder.encode(value), [_JSON, NO_STORE, *extra])


def empty_reply(status: int = 204, *extra: tuple[bytes, bytes]) -> Reply:
    """A status and nothing else."""
    return Reply(status, b"", [NO_STORE, *extra])


def problem_reply(error: BaseException, *, instance: str | None = None) -> Reply:
    """The RFC 9457 problem that ``error`` is to the caller."""
    problem = problems.problem_of(error, instance=instance)
    own = [(name.encode(), value.encode()) for name, value in problems.headers_of(error)]
    return Reply(problem.status, problems.encode(problem), [_PROBLEM, NO_STORE, *own])


def headers_of(scope: Scope) -> dict[str, str]:
    """
    The request's headers by lower-case name; the values of a repeated one are joined.

    Raises:
        MalformedRequest: If a header is repeated that may stand once.
    """
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1")
        value = raw_value.decode("latin-1")
        if name in headers:
            if name in SINGLETONS:
                raise MalformedRequest(f"the header {name} stands twice")
            value = headers[name] + ("; " if name == "cookie" else ", ") + value
        headers[name] = value
    return headers


def check_json(headers: Mapping[str, str]) -> None:
    """
    Raise unless the body is said to be JSON. Forms are what foreign pages can send without being asked.

    Raises:
        UnsupportedMediaType: If it is said to be something else, or nothing is said.
    """
    media_type(headers, _JSON_ONLY)


def media_type(headers: Mapping[str, str], accepted: Sequence[str]) -> str:
    """
    What the body is said to be: one of ``accepted``, not compressed, and text in UTF-8.

    Raises:
        UnsupportedMediaType: If it is said to be something else, or nothing is said.
    """
    said = headers.get("content-type", "")
    kind, _, parameters = said.partition(";")
    if said not in accepted:
        kind = kind.strip().lower()
        if kind not in accepted:
            raise UnsupportedMediaType(f"the body must be {' or '.join(accepted)}", accepted)
        charset = _CHARSET.search(parameters) if kind.startswith("text/") else None
        if charset is not None and charset[1].lower() not in ("utf-8", "us-ascii"):
            raise UnsupportedMediaType("text must be in UTF-8", accepted)
    if headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMediaType("the body must not be compressed", accepted)
    return kind


def preferred(accept: str | None, offered: Sequence[str]) -> str:
    """
    Which of the ``offered`` media types the caller likes best, and of several the first (RFC 9110, 12.5.1).

    Raises:
        NotAcceptable: If it wants none of them.
    """
    ranges = [_media_range(text) for text in (accept or "").split(",") if text.strip()]
    if not ranges:
        return offered[0]
    best = max(offered, key=lambda kind: _quality(kind, ranges))
    if not _quality(best, ranges):
        raise NotAcceptable(f"this comes as {' or '.join(offered)}")
    return best


def _media_range(text: str) -> tuple[str, float]:
    kind, _, parameters = text.partition(";")
    weight = _WEIGHT.search(parameters)
    return kind.strip().lower(), 1.0 if weight is None else float(weight[1])


def _quality(kind: str, ranges: Sequence[tuple[str, float]]) -> float:
    """How much ``kind`` is liked: what the range says that is closest to it."""
    closeness = {"*/*": 0, kind.partition("/")[0] + "/*": 1, kind: 2}
    said = [(closeness[pattern], quality) for pattern, quality in ranges if pattern in closeness]
    return max(said, default=(0, 0.0))[1]


async def read_body(
    receive: Receive,
    headers: Mapping[str, str],
    limit: int,
    within: timedelta | None,
    *,
    arrival: Arrival = _anything,
) -> bytes:
    """
    The whole body, refused before more than ``limit`` bytes are in memory, announced or not.

    ``arrival`` is entered by a body that comes in parts, and told of each. ``within`` is ``None`` if the server does
    not wait for ever: a deadline costs as much as a sixth of a request.

    Raises:
        BodyTooLarge, RequestTimeout, MalformedRequest: As they say.
        RateLimited, Overloaded: If ``arrival`` has no room for it.
        Disconnected: If the client went away.
    """
    announced = headers.get("content-length")
    if announced is not None and not (announced.isascii() and announced.isdecimal()):
        raise MalformedRequest("the header content-length must be a number")
    if announced is not None and (len(announced) > 18 or int(announced) > limit):
        raise BodyTooLarge(f"a body has at most {limit} bytes")
    if within is None:
        return await _read_all(receive, limit, arrival)
    try:
        async with asyncio.timeout(within.total_seconds()):
            return await _read_all(receive, limit, arrival)
    except TimeoutError:
        raise RequestTimeout("the body took too long") from None


async def _read_all(receive: Receive, limit: int, arrival: Arrival) -> bytes:
    part, more = await _read_part(receive, limit)
    if not more:
        return part
    body = bytearray(part)
    with arrival() as grow:
        grow(len(part))
        while more:
            part, more = await _read_part(receive, limit - len(body))
            grow(len(part))
            body += part
    return bytes(body)


async def _read_part(receive: Receive, room: int) -> tuple[bytes, bool]:
    """What has come of a body, and whether there is more to come."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Disconnected
    part: bytes = message.get("body", b"")
    if len(part) > room:
        raise BodyTooLarge("the body is longer than it may be")
    return part, message.get("more_body", False)


@lru_cache(maxsize=256)
def socket_address(scheme: str, host: str | None, path: str) -> str:
    """
    The URL of the sockets at ``path``, as the client that sent ``host`` sees us.

    Raises:
        MalformedRequest: If that is no host: it would end up in a URL.
    """
    if not host or len(host) > 255 or not _HOST_CHARACTERS.issuperset(host):
        raise MalformedRequest("the header host must name a host")
    return f"{'wss' if scheme == 'https' else 'ws'}://{host}{path}"


def etag(version: int) -> tuple[bytes, bytes]:
    """The header that names a session's version."""
    return b"etag", b'"%d"' % version


def matches_etag(condition: str | None, current: bytes) -> bool:
    """Whether If-None-Match names what the caller would get (RFC 9110, 13.1.2: weak comparison)."""
    if condition is None:
        return False
    if condition.strip() == "*":
        return True
    return current.decode("latin-1") in [tag.strip().removeprefix("W/") for tag in condition.split(",")]


def expected_tags(condition: str | None) -> frozenset[str] | None:
    """
    The entity tags, without their quotes, that If-Match allows; ``None`` if any will do (RFC 9110, 13.1.1).

    Weak ones allow nothing.

    Raises:
        MalformedRequest: If it is not a list of entity tags.
    """
    if condition is None or condition.strip() == "*":
        return None
    tags: set[str] = set()
    for tag in condition.split(","):
        text = tag.strip()
        strong = text.removeprefix("W/")
        if len(strong) < 2 or not (strong[0] == strong[-1] == '"') or '"' in strong[1:-1]:
            raise MalformedRequest('the header if-match must be * or entity tags, such as "3"')
        if text is strong:
            tags.add(strong[1:-1])
    return frozenset(tags)


def expected_versions(condition: str | None) -> frozenset[int] | None:
    """
    The versions of a session that If-Match allows; ``None`` if any will do. Raises as ``expected_tags``.

    Tags that are well formed and not ours allow nothing.
    """
    tags = expected_tags(condition)
    if tags is None:
        return None
    return frozenset(int(tag) for tag in tags if tag.isascii() and tag.isdecimal() and len(tag) < 16)
