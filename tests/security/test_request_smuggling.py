"""Requests that two programs in a row might take for different ones: refused, and what follows is never answered."""

from contextlib import suppress
from typing import Final

import pytest

from tests.support.attacks import under_attack
from tests.support.rawsocket import RawClient, connected

PLAIN: Final = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
SMUGGLED: Final = b"GET /sessions/me HTTP/1.1\r\nhost: x\r\n\r\n"
"""What is answered with 401, if it is taken for a request."""

POST: Final = b"POST /sessions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
GET: Final = b"GET /health/live HTTP/1.1\r\nhost: x\r\n"
CHUNKED: Final = POST + b"transfer-encoding: chunked\r\n\r\n"
UPGRADE: Final = (
    b"/ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)

REFUSED: Final = {
    "two lengths": POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "one length twice": POST + b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "a list of lengths": POST + b"content-length: 5, 5\r\n\r\nhello",
    "a length with a sign": POST + b"content-length: +5\r\n\r\nhello",
    "a negative length": POST + b"content-length: -5\r\n\r\nhello",
    "a length in hex": POST + b"content-length: 0x5\r\n\r\nhello",
    "an empty length": POST + b"content-length: \r\n\r\nhello",
    "a length beyond 64 bits": POST + b"content-length: 18446744073709551621\r\n\r\nhello",
    "length and coding": POST + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": POST + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
    "a coding that looks like chunked": POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity": POST + b"transfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "chunked, but not last": POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "gzip within chunked": POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two codings": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "a vertical tab": POST + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a space behind a name": POST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "a coding in HTTP/1.0": b"POST /sessions HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF": b"GET /health/live HTTP/1.1\nhost: x\n\n",
    "bare LF behind a header": GET + b"a: b\nc: d\r\n\r\n",
    "bare CR": GET + b"a: b\rc: d\r\n\r\n",
    "LF behind a chunk's size": CHUNKED + b"1\na\r\n0\r\n\r\n",
    "LF in an extension": CHUNKED + b"1;a\nb\r\na\r\n0\r\n\r\n",
    "a chunk's size with 0x": CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
    "a chunk's size beyond 64 bits": CHUNKED + b"10000000000000001\r\na\r\n0\r\n\r\n",
    "a chunk that goes on": CHUNKED + b"1\r\naXX0\r\n\r\n",
    "a folded header": GET + b"a: b\r\n c\r\n\r\n",
    "a folded coding": POST + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "NUL in a value": GET + b"a: b\x00c\r\n\r\n",
    "NUL in a name": GET + b"a\x00b: c\r\n\r\n",
    "a header without a colon": GET + b"abc\r\n\r\n",
    "a header without a name": GET + b": v\r\n\r\n",
    "no host": b"GET /health/live HTTP/1.1\r\n\r\n",
    "two hosts": GET + b"host: y\r\n\r\n",
    "the address of another host": b"GET http://evil.example/health/live HTTP/1.1\r\nhost: x\r\n\r\n",
    "an address with a user": b"GET http://x@evil.example/health/live HTTP/1.1\r\nhost: x\r\n\r\n",
    "the address of another host's socket": b"GET http://evil.example" + UPGRADE + b"\r\n",
    "another scheme": b"GET file://x/health/live HTTP/1.1\r\nhost: x\r\n\r\n",
    "only a host": b"GET x:80 HTTP/1.1\r\nhost: x\r\n\r\n",
    "a tunnel": b"CONNECT evil.example:80 HTTP/1.1\r\nhost: x\r\n\r\n",
    "a fragment": b"GET /health/live#a HTTP/1.1\r\nhost: x\r\n\r\n",
    "HTTP/0.9": b"GET /health/live\r\n\r\n",
    "HTTP/2.0": b"GET /health/live HTTP/2.0\r\nhost: x\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a space in the target": b"GET /health live HTTP/1.1\r\nhost: x\r\n\r\n",
    "bytes in the target": b"GET /health/\xff HTTP/1.1\r\nhost: x\r\n\r\n",
    "an upgrade with a body": b"GET " + UPGRADE + b"content-length: 5\r\n\r\nhello",
    "an upgrade with chunks": b"GET " + UPGRADE + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "another upgrade with a body": GET + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 5\r\n\r\nhello",
    "another upgrade with chunks": GET
    + b"connection: upgrade\r\nupgrade: h2c\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "an upgrade with POST": b"POST " + UPGRADE + b"content-length: 5\r\n\r\nhello",
    "an upgrade of a stranger": b"GET " + UPGRADE + b"\r\n",
}
"""Each is refused, and the connection is closed."""

NOT_FOUND: Final = {
    "two slashes": b"GET //health/live HTTP/1.1\r\nhost: x\r\n\r\n",
    "a host in the path": b"GET //evil.example/health/live HTTP/1.1\r\nhost: x\r\n\r\n",
    "..": b"GET /documents/../health/live HTTP/1.1\r\nhost: x\r\n\r\n",
    "%2e%2e": b"GET /documents/%2e%2e/health/live HTTP/1.1\r\nhost: x\r\n\r\n",
    "an asterisk": b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
}
"""Each is well formed, leads nowhere, and the next request is answered."""


async def statuses(client: RawClient) -> list[int]:
    """Of all responses until the server hangs up."""
    answered: list[int] = []
    with suppress(EOFError, ConnectionError):
        while True:
            answered.append((await client.response()).status)
    return answered


async def test_what_is_ambiguous_is_refused_and_what_follows_is_no_request() -> None:
    answers: dict[str, list[int]] = {}
    async with under_attack() as target:
        for shape, request in REFUSED.items():
            async with connected(target.server.port) as client:
                client.send(request, SMUGGLED)
                answers[shape] = await statuses(client)
        assert await target.is_served()
        log = target.server.errors

    assert {shape: told for shape, told in answers.items() if told not in ([400], [401])} == {}
    assert [shape for shape, told in answers.items() if told == [401]] == ["an upgrade of a stranger"]
    assert log.count('"cause": "malformed"') == 1
    assert "127.0.0.1" in log
    assert len(log.splitlines()) < 5


async def test_a_path_that_climbs_leads_nowhere_and_the_next_request_is_answered() -> None:
    async with under_attack() as target:
        for request in NOT_FOUND.values():
            async with connected(target.server.port) as client:
                client.send(request, PLAIN)
                assert [(await client.response()).status for _ in range(2)] == [404, 200]


async def test_an_upgrade_that_is_not_known_is_ignored() -> None:
    async with under_attack() as target, connected(target.server.port) as client:
        client.send(GET, b"connection: upgrade\r\nupgrade: h2c\r\n\r\n", PLAIN.replace(b"/health/live", b"/nowhere"))
        assert [(await client.response()).status for _ in range(2)] == [200, 404]


@pytest.mark.parametrize("body", [b"content-length: %d\r\n\r\n" % len(SMUGGLED), b"transfer-encoding: chunked\r\n\r\n"])
async def test_a_body_that_nobody_reads_is_not_taken_for_requests(body: bytes) -> None:
    content = SMUGGLED if b"length" in body else b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    async with under_attack() as target:
        for head in (POST, GET, GET + b"expect: 100-continue\r\n"):
            async with connected(target.server.port) as client:
                client.send(head, body, content, PLAIN.replace(b"/health/live", b"/nowhere"))
                answered = [(await client.response()).status for _ in range(2)]
                assert answered[0] in (200, 401)
                assert answered[1] == 404


async def test_names_of_documents_with_nul_dots_and_slashes_are_refused_on_every_way() -> None:
    async with under_attack() as target:
        token = await target.session()
        for name in ("%00", "a%00b", "%2e%2e", "..", ".", "%2e", "a%2f..%2fb", "%c0%ae%c0%ae", "%ff"):
            async with connected(target.server.port) as client:
                client.send(b"GET /documents/%b HTTP/1.1\r\nhost: x\r\n" % name.encode())
                client.send(b"authorization: Bearer %b\r\n\r\n" % token.encode())
                assert (await client.response()).status in (400, 404, 422), name
            async with connected(target.server.port) as client:
                refused = await client.upgrade(f"/yjs/{name}", {"Authorization": f"Bearer {token}"})
                assert refused.status in (400, 404), name


async def test_a_flaw_behind_a_request_is_told_behind_its_answer() -> None:
    async with under_attack() as target, connected(target.server.port) as client:
        client.send(PLAIN, b"GET / HTTP/1.1\r\n\r\n", SMUGGLED)
        assert await statuses(client) == [200, 400]


async def test_no_socket_opens_while_a_request_before_it_is_being_answered() -> None:
    async with under_attack() as target, connected(target.server.port) as client:
        token = await target.session()
        credential = b"authorization: Bearer %b\r\n\r\n" % token.encode()
        client.send(b"GET /sessions/me HTTP/1.1\r\nhost: x\r\n", credential, b"GET ", UPGRADE, credential)
        assert await statuses(client) == [200, 400]
