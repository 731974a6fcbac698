"""What ``SessionSecurityMiddleware`` adds to a request, in process and next to the bare application."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from benchmarks.harness import Benchmark, Finding, Goal, Plan, Row, at_once, figures, least, main, value
from roomkey.api.authentication import SecurityConfig
from roomkey.api.middleware import SessionSecurityMiddleware
from roomkey.backends.memory import MemorySessionStorage
from roomkey.security.limits import LimitSettings
from roomkey.sessions.manager import SessionManager

REQUESTS: Final = 100
TURNS: Final = 150
WANTED_MICROSECONDS: Final = 15.0

BARE: Final = "the application alone"
GUARDED: Final = "behind the middleware"
ADDED: Final = "what the middleware adds"
CASE: Final = "an authenticated request"
COST: Final = "CPU per request"

# The rates are the default ones, and the bursts never used up: so the budgets are neither full, which is cheaper to
# find out, nor empty.
UNTHROTTLED: Final = SecurityConfig(
    limits=LimitSettings(session_request_burst=1_000_000_000, address_request_burst=1_000_000_000)
)

App = Callable[[Any, Any, Any], Awaitable[None]]


async def application(_scope: Any, _receive: Any, send: Any) -> None:
    """Answers at once."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def _receive() -> Any:
    return {"type": "http.request"}


async def _send(_message: Any) -> None:
    pass


async def _request(app: App, token: str) -> None:
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"accept", b"*/*"), (b"authorization", b"Bearer " + token.encode())],
        "client": ("192.0.2.7", 50_000),
    }
    await app(scope, _receive, _send)


def run(plan: Plan) -> Finding:
    """Both in turns, in one process."""
    sessions = SessionManager(MemorySessionStorage())
    token = asyncio.run(sessions.create_session("alice", activate=True)).token
    guarded = SessionSecurityMiddleware(application, sessions, UNTHROTTLED)
    works = {
        BARE: at_once(partial(_request, application, token)),
        GUARDED: at_once(partial(_request, guarded, token)),
    }
    gc.collect()
    gc.freeze()  # as the server does
    rounds = [least(works, calls=REQUESTS, turns=plan.size(TURNS, 3)) for _ in range(plan.rounds)]
    for found in rounds:
        found[ADDED] = found[GUARDED] - found[BARE]
    rows = [
        Row(CASE, side, figures([{COST: (found[side], "µs")} for found in rounds])) for side in (BARE, GUARDED, ADDED)
    ]
    added = value(rows, CASE, ADDED, COST)
    return Finding(rows, [Goal(CASE, added, WANTED_MICROSECONDS, "µs", at_least=False)], NOTES)


NOTES: Final = [
    "Sessions in memory, in process and without a server: session and address are looked up, checked and charged.",
    "Each round is the shortest of many short turns, so that what else runs on the machine counts as little as can be.",
]

BENCHMARK: Final = Benchmark(
    name="middleware",
    title="The middleware in front of other applications",
    about="What a session check and the limits add to a request.",
    run=run,
)

if __name__ == "__main__":
    main(BENCHMARK)
