"""REST on one core: creating, reading and presenting sessions, next to Express with express-session."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from itertools import count, cycle
from typing import Final

from benchmarks.harness import (
    TIMES,
    Benchmark,
    Contender,
    Finding,
    Goal,
    Measures,
    Plan,
    Row,
    installed,
    interleaved,
    main,
    quantiles,
    ratio,
    value,
)
from benchmarks.harness import find as row_of
from benchmarks.httpload import Api, HttpLoad, request
from benchmarks.node import Missing, peer, version_of
from benchmarks.processes import HOST, Meter, Started, roomkey

CONNECTIONS: Final = 32
DURABLE_CONNECTIONS: Final = 256
SESSIONS_PER_USER: Final = 4
READERS: Final = 200
"""So many sessions are read in turns."""

CREATE: Final = "POST /sessions"
DURABLE: Final = "POST /sessions, on the disk"
READ: Final = "GET /sessions/{id}"
MINE: Final = "GET /sessions/me"
NOTHING: Final = "GET /health/live"

ROOMKEY: Final = "Roomkey, memory"
LMDB: Final = "Roomkey, LMDB"
EXPRESS: Final = "Express, memory"

Requests = Callable[[], Iterator[bytes]]


def _creates(headers: dict[str, str]) -> Iterator[bytes]:
    """One request after the other, for new users all the time."""
    # All bodies are of one length, so the head is made once.
    template = request("POST", "/sessions", headers=headers, body=b'{"user_id": "user-%010d"}' % 0)
    head = template[: template.index(b"\r\n\r\n") + 4]
    return (head + b'{"user_id": "user-%010d"}' % (number // SESSIONS_PER_USER) for number in count())


def _contender(server: Started, connections: int, requests: Iterator[bytes], status: int) -> Contender:
    def contend(seconds: float) -> Measures:
        with HttpLoad(server, connections) as load:
            meter = Meter(server)
            durations = load.run(requests, status=status, seconds=seconds)
            return {**meter.measures(len(durations), "request", "requests"), **quantiles(durations)}

    return contend


def _roomkey_cases(server: Started, connections: int) -> dict[str, Contender]:
    api = Api(server)
    issued = api.sessions(READERS, "reader")
    api.close()
    tokens = cycle(
        [request("GET", "/sessions/me", headers={"authorization": f"Bearer {token}"}) for _, token in issued]
    )
    ids = cycle([request("GET", f"/sessions/{id}", headers=api.authorization) for id, _ in issued])
    return {
        CREATE: _contender(server, connections, _creates(api.authorization), 201),
        READ: _contender(server, connections, ids, 200),
        MINE: _contender(server, connections, tokens, 200),
        NOTHING: _contender(server, connections, cycle([request("GET", "/health/live")]), 200),
    }


def _express_cases(server: Started, connections: int) -> dict[str, Contender]:
    cookies = [_express_cookie(server, f"reader-{number}") for number in range(READERS)]
    mine = cycle([request("GET", "/sessions/me", headers={"cookie": cookie}) for cookie in cookies])
    return {
        CREATE: _contender(server, connections, _creates({}), 201),
        MINE: _contender(server, connections, mine, 200),
        NOTHING: _contender(server, connections, cycle([request("GET", "/health")]), 200),
    }


def _express_cookie(server: Started, user: str) -> str:
    connection = HTTPConnection(HOST, server.port)
    connection.request("POST", "/sessions", b'{"user_id": "%s"}' % user.encode(), {"content-type": "application/json"})
    cookie = connection.getresponse().headers["set-cookie"].partition(";")[0]
    connection.close()
    return cookie


def run(plan: Plan) -> Finding:
    """Every case with its sides in turns; all servers are there throughout, and one has work."""
    connections, durable_connections = plan.size(CONNECTIONS, 4), plan.size(DURABLE_CONNECTIONS, 16)
    with ExitStack() as stack:
        memory = stack.enter_context(roomkey())
        disk = stack.enter_context(roomkey(storage="file"))
        express = stack.enter_context(peer("express.mjs"))
        sides = {ROOMKEY: _roomkey_cases(memory, connections)}
        if not isinstance(express, Missing):
            sides[EXPRESS] = _express_cases(express, connections)
        rows: list[Row] = []
        for case in (CREATE, READ, MINE, NOTHING):
            found = interleaved(plan, {side: cases[case] for side, cases in sides.items() if case in cases})
            rows += [Row(case, side, figures) for side, figures in found.items()]
        durable = {LMDB: _roomkey_cases(disk, durable_connections)[CREATE]}
        rows += [Row(DURABLE, side, figures) for side, figures in interleaved(plan, durable).items()]
        if isinstance(express, Missing):
            rows += [Row(case, EXPRESS, skipped=express.reason) for case in (CREATE, MINE, NOTHING)]
    return Finding(rows, _goals(rows), _notes(rows))


def _goals(rows: list[Row]) -> list[Goal]:
    faster = ratio(row_of(rows, CREATE, ROOMKEY), row_of(rows, CREATE, EXPRESS), "requests")
    return [
        Goal(f"{CREATE}, memory, {CONNECTIONS} connections", value(rows, CREATE, ROOMKEY, "requests"), 10_000, "/s"),
        Goal(f"{CREATE}, requests per second against Express", faster, 3, TIMES),
        Goal(f"{CREATE}, LMDB, {DURABLE_CONNECTIONS} connections", value(rows, DURABLE, LMDB, "requests"), 7_000, "/s"),
    ]


def _notes(rows: list[Row]) -> list[str]:
    cost = "CPU per request"
    mine, nothing = value(rows, MINE, ROOMKEY, cost), value(rows, NOTHING, ROOMKEY, cost)
    more = "" if mine is None or nothing is None else f"{mine - nothing:.1f} µs"
    return [
        (
            f"{CONNECTIONS} keep-alive connections ({DURABLE_CONNECTIONS} to the store on the disk, which answers "
            "after its fsync), each with one request under way. Server and load have a core each; load CPU far below "
            "100 % shows that the server sets the pace."
        ),
        (
            f"Roomkey checks an API key ({CREATE}, {READ}) or a session's token ({MINE}) on every request. What that "
            f"and showing the session cost is the difference to {NOTHING}: {more}."
        ),
        (
            "Express parses JSON, makes a session in the store of express-session and signs its cookie; it checks no "
            f"key. Its {MINE} reads the session of a signed cookie, its {NOTHING} looks for one and finds none."
        ),
    ]


BENCHMARK: Final = Benchmark(
    name="rest",
    title="REST against Express and express-session",
    about="Requests per second of a server on one core, memory and durable.",
    run=run,
    versions={
        **installed("uvicorn", "httptools", "starlette"),
        **{package: version_of(package) for package in ("express", "express-session")},
    },
)

if __name__ == "__main__":
    main(BENCHMARK)
