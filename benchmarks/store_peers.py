"""The stores of other session libraries on the same Redis, each in a process of its own on the load's core."""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from benchmarks import node, python
from benchmarks.databases import Database
from benchmarks.harness import Contender, Measures
from benchmarks.httpload import Unexpected
from benchmarks.node import Missing
from benchmarks.processes import HOST

STARSESSIONS: Final = "starsessions, Redis"
LITESTAR: Final = "Litestar's sessions, Redis"
EXPRESS: Final = "express-session, connect-redis"

PEER_DATABASE: Final = 2
"""What they write goes there, so that it is not among what is measured."""

_Run = Callable[..., bytes | Missing]

_PEERS: Final[Mapping[str, tuple[_Run, tuple[str, ...]]]] = {
    STARSESSIONS: (python.run, ("redis_sessions.py", "starsessions")),
    LITESTAR: (python.run, ("redis_sessions.py", "litestar")),
    EXPRESS: (node.run, ("redis_sessions.mjs",)),
}

NAMES: Final = tuple(_PEERS)

VERSIONS: Final[Mapping[str, str]] = {
    **{package: python.version_of(package) for package in ("litestar", "redis", "starsessions")},
    **{package: node.version_of(package) for package in ("connect-redis", "express-session")},
    "redis on Node.js": node.version_of("redis"),
}


class Found(msgspec.Struct):
    """What a peer says of itself: operations per second, and seconds."""

    operations: float
    cpu_seconds: float
    p50: float
    p99: float


def install(name: str) -> Missing | None:
    """What is in the way of a peer, once it was tried to install it."""
    return (node if name == EXPRESS else python).install()


def contender(name: str, redis: Database, case: str, callers: int) -> Contender:
    """A peer in a ``case``: ``create``, ``get`` or ``request``."""
    run, arguments = _PEERS[name]
    url = f"redis://{HOST}:{redis.port}/{PEER_DATABASE}"

    def contend(seconds: float) -> Measures:
        said = run(*arguments, url, case, str(callers), str(seconds))
        if isinstance(said, Missing):
            raise Unexpected(said.reason)
        found = msgspec.json.decode(said, type=Found)
        return {
            "operations": (found.operations, "/s"),
            "CPU per operation": (found.cpu_seconds * 1e6, "µs"),
            "p50": (found.p50 * 1000, "ms"),
            "p99": (found.p99 * 1000, "ms"),
        }

    return contend
