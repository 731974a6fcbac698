"""Headers of proxies, on raw sockets, over HTTP and at handshakes alike: what a client smuggles in counts nowhere."""

import base64
import json
import os
from collections.abc import Sequence
from typing import Any

import pytest

from roomkey.realtime.transport import Refused
from roomkey.transports.proxies import BehindProxies, TrustedProxies
from tests.support.rawsocket import Door, RawClient, connected, serving


async def who(scope: Any, _receive: Any, send: Any) -> None:
    """An application that says who asked, and how."""
    body = json.dumps([scope["client"][0], scope["scheme"]]).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def over_http(client: RawClient, lines: Sequence[str]) -> tuple[str | None, bool]:
    client.send("\r\n".join(["GET / HTTP/1.1", "Host: localhost", *lines, "", ""]).encode("latin-1"))
    address, scheme = json.loads((await client.response()).body)
    return address, scheme == "https"


async def at_a_handshake(client: RawClient, lines: Sequence[str], door: Door) -> tuple[str | None, bool]:
    key = base64.b64encode(os.urandom(16)).decode()
    own = ["Host: localhost", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    head = ["GET / HTTP/1.1", *own, f"Sec-WebSocket-Key: {key}", *lines, "", ""]
    client.send("\r\n".join(head).encode("latin-1"))
    await client.response()
    return door.handshakes[-1].client_ip, door.handshakes[-1].secure


CASES = [
    (["X-Forwarded-For: 203.0.113.9"], ("203.0.113.9", False)),
    (["X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 203.0.113.9"], ("203.0.113.9", False)),
    (["x-forwarded-for: 6.6.6.6", "X-FORWARDED-FOR: 203.0.113.9", "x-forwarded-proto: https"], ("203.0.113.9", True)),
    (["X_Forwarded_For: 6.6.6.6"], ("127.0.0.1", False)),
    (["X_Forwarded_Proto: https", "X-Forwarded-For: 203.0.113.9"], ("203.0.113.9", False)),
    (["X-Real-IP: 6.6.6.6", "Forwarded: for=6.6.6.6;proto=https", "True-Client-IP: 6.6.6.6"], ("127.0.0.1", False)),
    (["X-Forwarded-For: junk"], ("127.0.0.1", False)),
    (["X-Forwarded-For: 6.6.6.6, junk"], ("127.0.0.1", False)),
    (["X-Forwarded-For: 6.6.6.6, 203.0.113.9:443"], ("203.0.113.9", False)),
    (["X-Forwarded-For: 6.6.6.6, [2001:db8::7]:443"], ("2001:db8::7", False)),
    (["X-Forwarded-For: 6.6.6.6, ::ffff:203.0.113.9"], ("203.0.113.9", False)),
    (["X-Forwarded-For: 6.6.6.6, \xff\xfe"], ("127.0.0.1", False)),
    (["X-Forwarded-For:", "X-Forwarded-Proto:"], ("127.0.0.1", False)),
    (["X-Forwarded-Proto: https, http"], ("127.0.0.1", False)),
]


@pytest.mark.parametrize(("lines", "expected"), CASES, ids=lambda case: str(case)[:60])
async def test_of_what_stands_there_only_the_word_of_the_proxy_counts(
    lines: list[str], expected: tuple[str, bool]
) -> None:
    proxies = TrustedProxies(["127.0.0.0/8"])
    door = Door(Refused(status=403, body=b"{}"))
    async with serving("picows", door, proxies=proxies, app=BehindProxies(who, proxies), proxy_headers=False) as port:
        async with connected(port) as client:
            seen = await over_http(client, lines)
        async with connected(port) as client:
            seen_at_a_handshake = await at_a_handshake(client, lines, door)

    assert (seen, seen_at_a_handshake) == (expected, expected)


async def test_a_peer_that_is_no_proxy_writes_what_it_likes() -> None:
    proxies = TrustedProxies(["10.0.0.0/8"])
    door = Door(Refused(status=403, body=b"{}"))
    lines = ["X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https"]
    async with serving("picows", door, proxies=proxies, app=BehindProxies(who, proxies), proxy_headers=False) as port:
        async with connected(port) as client:
            seen = await over_http(client, lines)
        async with connected(port) as client:
            seen_at_a_handshake = await at_a_handshake(client, lines, door)

    assert (seen, seen_at_a_handshake) == (("127.0.0.1", False), ("127.0.0.1", False))
