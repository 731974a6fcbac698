"""How long a revoked session's socket stays open."""

import time
from collections.abc import Sequence
from contextlib import closing
from socket import IPPROTO_TCP, TCP_NODELAY, create_connection, socket
from typing import Final

from benchmarks import websocket
from benchmarks.harness import Benchmark, Finding, Goal, Measures, Plan, Row, figures, installed, main, quantiles, value
from benchmarks.holder import holding
from benchmarks.httpload import Api, Unexpected, receive_status, request
from benchmarks.processes import HOST, Meter, Started, Used, roomkey

BYSTANDERS: Final = 1_000
REVOCATIONS: Final = 150
"""In a round."""

WANTED_MS: Final = 5.0

CLOSE_CODE: Final = 4401

CASE: Final = "PUT /sessions/{id}/invalidate"
ROOMKEY: Final = "Roomkey"


def _revoke(control: socket, victim: socket, call: bytes) -> tuple[float, float]:
    """Seconds from sending the request to the close frame at the victim, and to the answer at the caller."""
    begun = time.perf_counter()
    control.sendall(call)
    code = _close_code(victim)
    closed = time.perf_counter()
    if code != CLOSE_CODE:
        raise Unexpected(f"the socket was closed with {code}")
    status = receive_status(control)
    answered = time.perf_counter()
    if status != 200:
        raise Unexpected(f"the server answered {status}")
    return closed - begun, answered - begun


def _close_code(victim: socket) -> int | None:
    received = b""
    while True:
        chunk = victim.recv(65536)
        if not chunk:
            return None
        received += chunk
        for opcode, payload, _ in websocket.frames(received):
            if opcode == websocket.CLOSE:
                return int.from_bytes(payload[:2], "big")


def revoke_each(
    server: Started, issued: Sequence[tuple[str, str]], *, called: Started | None = None, used: Used | None = None
) -> Measures:
    """
    Revoke the sessions one after the other, each with a socket open on ``server``.

    The calls go to ``called``, if that is another node; ``used`` are the processes whose work counts, then.
    """
    called = called or server
    headers = {"authorization": f"Bearer {called.key}"}
    to_close: list[float] = []
    to_answer: list[float] = []
    victims = websocket.connect(server.port, "/ws", [token for _, token in issued])
    for victim in victims:
        websocket.receive_until(victim, b'"session_connected"')
    with create_connection((HOST, called.port)) as control:
        control.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        meter = Meter(used or server)
        for (id, _), victim in zip(issued, victims, strict=True):
            call = request("PUT", f"/sessions/{id}/invalidate", headers=headers)
            closed, answered = _revoke(control, victim, call)
            to_close.append(closed)
            to_answer.append(answered)
        measures = meter.measures(len(issued), "revocation", "revocations")
    websocket.close(victims)
    return {**quantiles(to_close, "closed "), **quantiles(to_answer, "answered "), **measures}


def run(plan: Plan) -> Finding:
    """Rounds with fresh victims; the bystanders stay."""
    count, bystanders = plan.size(REVOCATIONS, 5), plan.size(BYSTANDERS, 20)
    with roomkey() as server, closing(Api(server)) as api:
        tokens = [token for _, token in api.sessions(bystanders, "other")]
        with holding(server, "/ws", tokens) as others:
            rounds = [revoke_each(server, api.sessions(count, f"victim-{number}")) for number in range(plan.rounds + 1)]
            alive = others.still_open()
    if alive != bystanders:
        raise Unexpected(f"{bystanders - alive} of {bystanders} sockets of other sessions were closed, too")
    rows = [Row(CASE, ROOMKEY, figures(rounds[1:]))]  # the first round warms up
    closed = value(rows, CASE, ROOMKEY, "closed p99")
    goals = [
        Goal("revoked to closed, same node, p99", closed, WANTED_MS, "ms", at_least=False),
    ]
    notes = [
        (
            f"{len(rounds) - 1} rounds of {count} revocations, one after the other, with {bystanders:,} other sockets "
            "open, which stay open."
        ),
        (
            f"From sending the request to reading the close frame with {CLOSE_CODE}; answered is when the caller has "
            "its 200. Victims and caller are one process, whose time to read is in it."
        ),
    ]
    return Finding(rows, goals, notes)


BENCHMARK: Final = Benchmark(
    name="revocation",
    title="From revocation to closed socket",
    about="Time from PUT /sessions/{id}/invalidate to the close frame on that session's socket, on one node.",
    run=run,
    versions=installed("picows", "uvloop", "uvicorn"),
)

if __name__ == "__main__":
    main(BENCHMARK)
