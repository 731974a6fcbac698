"""
How the application of a path is found: at once where the path is always the same, and by its segments otherwise.

Segments may contain slashes, percent-encoded: they are matched as they were sent, and decoded afterwards.
"""

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import unquote

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

_SLASH: Final = "/"


class FixedPaths:
    """Applications of paths without parameters, so that nothing has to be tried. Every other path is for ``others``."""

    def __init__(self, apps: Mapping[str, ASGIApp], others: ASGIApp) -> None:
        self._apps = apps
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        app = None
        if scope["type"] == "http":
            app = self._apps.get(scope["path"].removeprefix(scope.get("root_path", "")))
        if app is None:
            await self._others(scope, receive, send)
        else:
            scope.setdefault("path_params", {})
            await app(scope, receive, send)


class SegmentRoute(BaseRoute):
    """
    A path of fixed segments and of ``{parameters}`` that are one segment each, and not empty.

    So the document ``a/versions``, sent as ``a%2Fversions``, is never taken for the versions of ``a``. A server
    that gives no ``raw_path`` has decoded the slashes, and only names without one can be reached there. Bytes
    that are no UTF-8 become surrogates, which no name may have.
    """

    def __init__(self, path: str, app: ASGIApp) -> None:
        self.path = path
        self._template = path.split(_SLASH)
        self._app = app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the request is for this path, and its parameters."""
        if scope["type"] != "http":
            return Match.NONE, {}
        segments = _segments(scope, len(self._template))
        if len(segments) != len(self._template):
            return Match.NONE, {}
        parameters: dict[str, str] = {}
        for expected, sent in zip(self._template, segments, strict=True):
            decoded = unquote(sent, errors="surrogateescape")
            if decoded and expected.startswith("{"):
                parameters[expected[1:-1]] = decoded
            elif decoded != expected:
                return Match.NONE, {}
        return Match.FULL, {"path_params": parameters}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        await self._app(scope, receive, send)


def _segments(scope: Scope, count: int) -> Sequence[str]:
    """
    The path below where we are mounted, in segments as they were sent; other than ``count`` if it has not so many.

    The place where we are mounted is known only decoded, so the last segments are taken that make the path.
    """
    path = scope["path"].removeprefix(scope.get("root_path", "").rstrip(_SLASH))
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        return path.split(_SLASH)
    sent = raw.partition(b"?")[0].decode("latin-1").rsplit(_SLASH, count - 1)
    sent[0] = ""
    return sent if unquote(_SLASH.join(sent)) == path else ()
