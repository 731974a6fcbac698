"""Attacks on a running server with real sockets: it holds little for them, and serves everybody else meanwhile."""

import asyncio
from typing import Any, Final

from roomkey.security.event_log import SecurityEventLog
from tests.support.attacks import MEMORY_BYTES, crowd, under_attack
from tests.support.rawsocket import connected
from tests.support.rest import Rest

SLOW: Final = (
    b"",  # silent
    b"GET /health HTTP/1.1\r\nhost: x\r\nx-slow: ",
    b"POST /sessions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 60000\r\n\r\n{",
    b"PUT /documents/a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
    b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n",
    b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n" * 50 + b"GET",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the beginning of a TLS handshake
)


async def test_connections_that_never_finish_anything_cost_little_and_keep_nobody_out() -> None:
    async with under_attack() as target, crowd(target.server.port, 1_050, *SLOW):
        assert await target.is_served(20)
        assert target.growth < MEMORY_BYTES


async def test_wrong_tokens_are_refused_and_logged_once() -> None:
    request = b"GET /sessions/me HTTP/1.1\r\nhost: x\r\nauthorization: Bearer wrong-%05d\r\n\r\n"
    statuses: list[int] = []
    async with under_attack() as target, connected(target.server.port) as attacker, asyncio.timeout(30):
        for batch in range(0, 1_600, 50):
            attacker.send(*(request % number for number in range(batch, batch + 50)))
            statuses += [(await attacker.response()).status for _ in range(50)]
            if not batch % 800:
                assert await target.is_served(1)
        log = target.server.errors

        assert await target.is_served()
        assert target.growth < MEMORY_BYTES
    assert set(statuses) == {401, 429}
    assert statuses[:1_000] == [401] * 1_000
    assert statuses.count(429) > 400
    assert "wrong-" not in log
    assert 1 <= log.count("security_event") <= 4
    assert "127.0.0.1" in log


async def test_many_addresses_once_each_are_held_in_bounded_memory_and_a_few_lines() -> None:
    rest = Rest()
    lines: list[str] = []

    def say(_level: int, event: str, **_fields: Any) -> None:
        lines.append(event)

    rest.events.listen(SecurityEventLog(say))
    token = (await rest.session()).token

    for number in range(5_000):
        address = f"127.{number >> 12}.{number >> 6 & 63}.{number & 63}"
        assert (await rest.call("GET", "/sessions/me", token="wrong", client=address)).status == 401

    assert (await rest.call("GET", "/sessions/me", token=token)).status == 200
    assert len(lines) <= 201
