"""A server under attack: what an honest client waits for, what the server grows by, and how much it logs."""

import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from math import ceil
from typing import Final

from benchmarks.attackers import LONGEST_SECONDS
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
    value,
)
from benchmarks.httpload import Api, Unexpected, receive_status, request
from benchmarks.processes import HOST, Started, roomkey
from benchmarks.websocket import PATIENCE_SECONDS, close, connect, frame, receive_until

ROOMKEY: Final = "Roomkey, memory"
QUIET: Final = "nobody attacks"
HALF_OPEN: Final = "connections that are half open"
WRONG_TOKENS: Final = "wrong tokens"
MANY_ADDRESSES: Final = "addresses, once each"
BOMBS: Final = "bombs and brackets"

SIZES: Final[Mapping[str, tuple[str, int, int]]] = {
    HALF_OPEN: ("half_open", 5_000, 200),
    WRONG_TOKENS: ("wrong_tokens", 1_000_000, 1_000),
    MANY_ADDRESSES: ("many_addresses", 100_000, 1_000),
    BOMBS: ("bombs", 1_000, 4),
}
"""The attack, and how much of it there is: in full, and where it must only work."""

SETTINGS: Final[Mapping[str, str]] = {
    "server.trusted_proxies": '["127.0.0.0/8"]',
    "limits.address_requests_per_second": "2000",
    "limits.address_request_burst": "20000",
}
"""Addresses have the limits that they have by default, and are those that are said to be forwarded."""

WANTED_TIMES: Final = 2.0
WANTED_GROWTH: Final = 128.0
WANTED_LINES: Final = 10.0
WANTED_LINES_OF_MANY: Final = 250.0
"""Where everybody is another one: a line for each of the first 200 (``security.event_log``), and some for the rest."""

_PAUSE_SECONDS: Final = 0.002

_HEARTBEAT: Final = b'{"id": "m%d", "message_type": "heartbeat", "payload": {}, "timestamp": "2026-01-02T12:00:00Z"}'


@contextmanager
def attacked(server: Started, name: str, many: int, token: str) -> Generator[subprocess.Popen[bytes]]:
    """The attack is under way, until it is done or the block is left."""
    command = [sys.executable, "-m", "benchmarks.attackers", name, str(server.port), str(many), token]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


class Honest:
    """A client with a session: one connection for requests, and a socket."""

    def __init__(self, server: Started, token: str) -> None:
        headers = {"authorization": f"Bearer {token}", "x-forwarded-for": "203.0.113.1"}
        self._request = request("GET", "/sessions/me", headers=headers)
        self._http = socket.create_connection((HOST, server.port), PATIENCE_SECONDS)
        (self._socket,) = connect(server.port, "/ws", [token])
        receive_until(self._socket, b"session_connected")

    def measure(self, seconds: float, attack: subprocess.Popen[bytes] | None) -> Measures:
        """How long answers take, for so long at least, and until the attack is over."""
        requests: list[float] = []
        messages: list[float] = []
        begun = time.perf_counter()
        while (passed := time.perf_counter() - begun) < seconds or _goes_on(attack, passed):
            requests.append(self._asks())
            messages.append(self._says(len(messages)))
            time.sleep(_PAUSE_SECONDS)
        return {**quantiles(requests, "REST "), **quantiles(messages, "socket ")}

    def _asks(self) -> float:
        begun = time.perf_counter()
        self._http.sendall(self._request)
        if (status := receive_status(self._http)) != 200:
            raise Unexpected(f"the honest client is answered with {status}")
        return time.perf_counter() - begun

    def _says(self, number: int) -> float:
        begun = time.perf_counter()
        self._socket.sendall(frame(_HEARTBEAT % number))
        receive_until(self._socket, b"heartbeat_ack")
        return time.perf_counter() - begun

    def close(self) -> None:
        """Hang up."""
        close([self._http, self._socket])


def _goes_on(attack: subprocess.Popen[bytes] | None, passed: float) -> bool:
    return attack is not None and attack.poll() is None and passed < LONGEST_SECONDS


def _contender(server: Started, tokens: Sequence[str], name: str, many: int, *, is_whole: bool) -> Contender:
    base = server.usage().resident

    def contend(seconds: float) -> Measures:
        lines, begun = server.log_lines(), time.perf_counter()
        with attacked(server, name, many, tokens[1]) if name else nullcontext() as attack:
            honest = Honest(server, tokens[0])
            measures = honest.measure(seconds, attack if is_whole else None)
            honest.close()
        minutes = ceil((time.perf_counter() - begun) / 60)
        return {
            **measures,
            "growth": ((server.usage().resident - base) / 1e6, "MB"),
            "log lines per minute": ((server.log_lines() - lines) / minutes, ""),
        }

    return contend


def run(plan: Plan) -> Finding:
    """Quiet and each attack in turns, on one server."""
    with roomkey(settings=SETTINGS) as server:
        tokens = [token for _, token in Api(server).sessions(2)]
        contenders = {QUIET: _contender(server, tokens, "", 0, is_whole=False)}
        for case, (name, full, quick) in SIZES.items():
            many = plan.size(full, quick)
            is_whole = case == MANY_ADDRESSES  # the others go on for as long as anybody looks
            contenders[_named(case, many)] = _contender(server, tokens, name, many, is_whole=is_whole)
        found = interleaved(plan, contenders, warm_up=False)
    rows = [Row(case, ROOMKEY, figures, paced=True) for case, figures in found.items()]
    return Finding(rows, _goals(rows), _notes(plan))


def _named(case: str, many: int) -> str:
    return f"{many:,} {case}" if case != BOMBS else case


def _goals(rows: Sequence[Row]) -> list[Goal]:
    goals: list[Goal] = []
    for row in rows[1:]:
        for quantity in ("REST p99", "socket p99"):
            quiet, attacked = value(rows, QUIET, ROOMKEY, quantity), value(rows, row.case, ROOMKEY, quantity)
            times = attacked / quiet if quiet and attacked else None
            goals.append(Goal(f"{row.case}: {quantity} against quiet", times, WANTED_TIMES, TIMES, at_least=False))
        lines = WANTED_LINES_OF_MANY if row.case.endswith(MANY_ADDRESSES) else WANTED_LINES
        for quantity, wanted, unit in (("growth", WANTED_GROWTH, "MB"), ("log lines per minute", lines, "")):
            measured = value(rows, row.case, ROOMKEY, quantity)
            goals.append(Goal(f"{row.case}: {quantity}", measured, wanted, unit, at_least=False))
    return goals


def _notes(plan: Plan) -> list[str]:
    return [
        "One honest client asks for its session and sends a heartbeat, by turns.",
        "Attackers are a process of a lower priority on the core of the client: a part of what it waits for is theirs.",
        f"A million wrong tokens are sent for as long as a round lasts ({plan.seconds:g} s); the addresses all come.",
        "Growth is that of the server since its start, behind each attack; addresses are forwarded by a trusted proxy.",
    ]


BENCHMARK = Benchmark(
    name="attacks",
    title="Under attack",
    about="An honest client beside half-open connections, guessed tokens, many addresses and bombs.",
    run=run,
    versions=installed("uvicorn", "uvloop", "httptools", "picows"),
)

if __name__ == "__main__":
    main(BENCHMARK)
