"""REST on one core: creating, reading and presenting sessions, next to frameworks and their session middlewares."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from http.client import HTTPConnection, HTTPResponse
from itertools import count, cycle
from typing import Any, Final

import msgspec
from msgspec import Struct

from benchmarks import node, python
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
from benchmarks.httpload import Api, HttpLoad, Unexpected, request
from benchmarks.node import Missing
from benchmarks.processes import HOST, Meter, Started, roomkey

CONNECTIONS: Final = 32
DURABLE_CONNECTIONS: Final = 256
SESSIONS_PER_USER: Final = 4
READERS: Final = 200
"""So many sessions are read in turns."""

CREATE: Final = "POST /sessions"
MANY: Final = f"POST /sessions, {DURABLE_CONNECTIONS} connections"
READ: Final = "GET /sessions/{id}"
MINE: Final = "GET /sessions/me"
NOTHING: Final = "GET /health/live"

ROOMKEY: Final = "Roomkey, memory"
LMDB: Final = "Roomkey, LMDB"
EXPRESS: Final = "Express, express-session"
FASTAPI: Final = "FastAPI, starsessions"
LITESTAR: Final = "Litestar, its server-side sessions"

PEERS: Final[Mapping[str, Callable[[], AbstractContextManager[Started | Missing]]]] = {
    EXPRESS: lambda: node.peer("express.mjs"),
    FASTAPI: lambda: python.peer("fastapi_starsessions.py"),
    LITESTAR: lambda: python.peer("litestar_sessions.py"),
}

WANTED_RATIOS: Final[Mapping[str, float]] = {EXPRESS: 1.3, FASTAPI: 1.8, LITESTAR: 1.5}
WANTED_DURABLE_SHARE: Final = 0.6
WANTED_AUTHENTICATION: Final = 15
"""Microseconds."""

_numbers = count(1)


# --- how a server is spoken to --------------------------------------------------------------------------


class Side(Struct, frozen=True):
    """
    A server that makes sessions and shows them to those who present their credential: a token, or a cookie.

    ``caller`` has the headers of somebody who may make sessions, if the server asks; only Roomkey does.
    """

    server: Started
    health: str = "/health"
    caller: Mapping[str, str] = {}

    def sign_in(self, user: str) -> tuple[str, Mapping[str, str]]:
        """
        Make a session; returns its id, and the headers by which it is presented.

        Raises:
            Unexpected: If there is none.
        """
        response, body = self._call("POST", "/sessions", self.caller, b'{"user_id": "%s"}' % user.encode())
        if response.status != 201:
            raise Unexpected(f"POST /sessions: {response.status} {body}")
        if "token" in body:
            return body["session"]["id"], {"authorization": f"Bearer {body['token']}"}
        return body["id"], {"cookie": response.headers["set-cookie"].partition(";")[0]}

    def check(self) -> None:
        """
        Show that a session that is made can be read with its credential, and not without one.

        Raises:
            Unexpected: If it is not so.
        """
        user = f"checked-{next(_numbers)}"
        id, credential = self.sign_in(user)
        response, body = self._call("GET", "/sessions/me", credential)
        if (response.status, body.get("id"), body.get("user_id")) != (200, id, user):
            raise Unexpected(f"the session of {user} is shown as {response.status} {body}")
        response, body = self._call("GET", "/sessions/me", {})
        if response.status != 401:
            raise Unexpected(f"a session is shown to nobody: {response.status} {body}")

    def _call(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> tuple[HTTPResponse, Any]:
        connection = HTTPConnection(HOST, self.server.port, timeout=10)
        connection.request(method, path, body, {**headers, "content-type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response, msgspec.json.decode(content)


# --- what is measured -----------------------------------------------------------------------------------


def _creates(headers: Mapping[str, str]) -> Iterator[bytes]:
    """One request after the other, for new users all the time."""
    # All bodies are of one length, so the head is made once.
    template = request("POST", "/sessions", headers=headers, body=b'{"user_id": "user-%010d"}' % 0)
    head = template[: template.index(b"\r\n\r\n") + 4]
    return (head + b'{"user_id": "user-%010d"}' % (number // SESSIONS_PER_USER) for number in count())


def _contender(side: Side, connections: int, requests: Iterator[bytes], status: int = 200) -> Contender:
    """Requests on so many connections; after each round the server must still keep what it is given."""

    def contend(seconds: float) -> Measures:
        with HttpLoad(side.server, connections) as load:
            meter = Meter(side.server)
            durations = load.run(requests, status=status, seconds=seconds)
            measures = meter.measures(len(durations), "request", "requests")
        side.check()
        return {**measures, **quantiles(durations)}

    return contend


def _ours(server: Started) -> Side:
    return Side(server, "/health/live", Api(server).authorization)


def _cases(side: Side, plan: Plan) -> dict[str, Contender]:
    """What all servers can do, and what only Roomkey does."""
    connections = plan.size(CONNECTIONS, 4)
    issued = [side.sign_in(f"reader-{number}") for number in range(plan.size(READERS, 10))]
    mine = cycle([request("GET", "/sessions/me", headers=credential) for _, credential in issued])
    cases = {
        CREATE: _contender(side, connections, _creates(side.caller), 201),
        MINE: _contender(side, connections, mine),
        NOTHING: _contender(side, connections, cycle([request("GET", side.health)])),
    }
    if side.caller:
        ids = cycle([request("GET", f"/sessions/{id}", headers=side.caller) for id, _ in issued])
        cases[READ] = _contender(side, connections, ids)
    return cases


def run(plan: Plan) -> Finding:
    """Every case with its sides in turns; all servers are there throughout, and one has work."""
    rows: list[Row] = []
    with ExitStack() as stack:
        memory, disk = (_ours(stack.enter_context(roomkey(storage=storage))) for storage in ("memory", "file"))
        started = {name: stack.enter_context(start()) for name, start in PEERS.items()}
        sides = {ROOMKEY: memory, **{name: Side(peer) for name, peer in started.items() if isinstance(peer, Started)}}
        for side in (*sides.values(), disk):
            side.check()
        cases = {name: _cases(side, plan) for name, side in sides.items()}
        for case in (CREATE, READ, MINE, NOTHING):
            found = interleaved(plan, {name: known[case] for name, known in cases.items() if case in known})
            rows += [Row(case, name, figures, paced=False) for name, figures in found.items()]
        connections = plan.size(DURABLE_CONNECTIONS, 16)
        both = {
            name: _contender(side, connections, _creates(side.caller), 201)
            for name, side in ((ROOMKEY, memory), (LMDB, disk))
        }
        rows += [Row(MANY, name, figures, paced=False) for name, figures in interleaved(plan, both).items()]
    missing = {name: peer.reason for name, peer in started.items() if isinstance(peer, Missing)}
    rows += [Row(case, name, skipped=why) for case in (CREATE, MINE, NOTHING) for name, why in missing.items()]
    return Finding(rows, _goals(rows), _notes(rows))


def _goals(rows: Sequence[Row]) -> list[Goal]:
    ours, durable = row_of(rows, CREATE, ROOMKEY), row_of(rows, MANY, LMDB)
    return [
        *(
            Goal(
                f"{CREATE}, memory: requests per second against {peer}",
                ratio(ours, row_of(rows, CREATE, peer), "requests"),
                wanted,
                TIMES,
            )
            for peer, wanted in WANTED_RATIOS.items()
        ),
        Goal(
            f"{MANY}: LMDB against memory",
            ratio(durable, row_of(rows, MANY, ROOMKEY), "requests"),
            WANTED_DURABLE_SHARE,
            TIMES,
        ),
        Goal(
            f"CPU of {MINE} over {NOTHING}, memory", _authentication(rows), WANTED_AUTHENTICATION, "µs", at_least=False
        ),
    ]


def _authentication(rows: Sequence[Row]) -> float | None:
    """Microseconds of the processor that it takes to find out whose token it is, and to show the session."""
    mine, nothing = (value(rows, case, ROOMKEY, "CPU per request") for case in (MINE, NOTHING))
    return None if mine is None or nothing is None else mine - nothing


def _notes(rows: Sequence[Row]) -> list[str]:
    more = _authentication(rows)
    return [
        (
            f"{CONNECTIONS} keep-alive connections, or {DURABLE_CONNECTIONS} where it is said (LMDB answers after its "
            "fsync), each with one request under way. Server and load have a core each; load CPU far below 100 % "
            "shows that the server sets the pace."
        ),
        (
            f"Roomkey checks an API key ({CREATE}, {READ}) or a session's token ({MINE}) on every request. What that "
            f"and showing the session cost is the difference to {NOTHING}: {'' if more is None else f'{more:.1f} µs'}."
        ),
        (
            "The others parse JSON, make a session in their store in memory and give it a cookie (Express signs it); "
            f"they check no key. Their {MINE} reads the session of the cookie, their {NOTHING} needs none: "
            "Express and FastAPI look for one, Litestar is told not to."
        ),
        (
            "FastAPI and Litestar run on uvicorn with uvloop and httptools, as Roomkey does; all servers are one "
            "process. starsessions writes the session back with every answer."
        ),
        (
            "Before and after every round a session is made on each server and must be shown to who presents its "
            "credential, and to nobody else."
        ),
    ]


BENCHMARK: Final = Benchmark(
    name="rest",
    title="REST against Express, FastAPI and Litestar with sessions",
    about="Requests per second of a server on one core, memory and durable.",
    run=run,
    versions=installed("uvicorn", "httptools", "starlette", "uvloop"),
    peers={
        **{package: node.version_of(package) for package in ("express", "express-session")},
        **{package: python.version_of(package) for package in ("fastapi", "litestar", "starsessions")},
    },
)

if __name__ == "__main__":
    main(BENCHMARK)
