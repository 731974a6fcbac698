"""Connections that never finish what they began: each ends by its deadline, is named once, and keeps nobody out."""

import asyncio
import socket
import ssl
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import httpx

from tests.support.attacks import MEMORY_BYTES, Target, crowd, under_attack
from tests.support.certificates import make_certificates
from tests.support.rawsocket import CLOSE, RawClient, connected
from tests.support.server import RunningServer, running_server

SHORT: Final = ("--set", "http.head_timeout=1s", "--set", "http.body_timeout=1s", "--set", "http.response_timeout=1s")
HELLO: Final = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
"""The beginning of a TLS handshake."""


async def ended(client: RawClient) -> bytes:
    """What the server said before it hung up."""
    said = b""
    with suppress(ConnectionError):
        while part := await client.reader.read(1 << 16):
            said += part
    return said


async def dribble(client: RawClient, data: bytes) -> None:
    """One byte after the other, until the server has had enough."""
    for byte in data:
        if client.reader.at_eof() or client.writer.is_closing():
            return
        client.send(bytes((byte,)))
        await asyncio.sleep(0.02)  # so that it is slow: what is tested is that this is not waited for


async def dribbled(target: Target, begin: bytes, rest: bytes, *, count: int = 100) -> Sequence[bytes]:
    async with crowd(target.server.port, count, begin) as clients, asyncio.TaskGroup() as group:
        slow = [group.create_task(dribble(client, rest)) for client in clients]
        assert await target.is_served()
        said = await asyncio.gather(*(ended(client) for client in clients))
        for each in slow:
            each.cancel()
    return said


async def test_heads_and_bodies_byte_by_byte_end_by_their_deadlines() -> None:
    body = b"PUT /documents/a HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: 100000\r\n"
    async with under_attack(*SHORT) as target, asyncio.timeout(60):
        credential = b"authorization: Bearer %b\r\n\r\n" % (await target.session()).encode()
        heads = await dribbled(target, b"GET / HTTP/1.1\r\nhost: x\r\nslow: ", b"x" * 10_000)
        bodies = await dribbled(target, body + credential, b"x" * 10_000)
        log = target.server.errors

    assert all(said.startswith(b"HTTP/1.1 408 ") for said in (*heads, *bodies))
    assert log.count('"cause": "too_slow"') == 1


# --- TLS ----------------------------------------------------------------------------------------------


async def is_served_with_tls(server: RunningServer, authority: Path) -> bool:
    context = ssl.create_default_context(cafile=authority)
    async with httpx.AsyncClient(base_url=server.url, verify=context, timeout=30) as client:
        return (await client.get("/health/live")).status_code == 200


async def test_a_tls_handshake_that_never_finishes_ends_by_its_deadline(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    files = ("--tls-cert", str(made.certificate), "--tls-key", str(made.key))
    settings = ("--set", "server.tls_handshake_timeout=1s")
    async with running_server(*files, *settings) as server, crowd(server.port, 100, b"", HELLO) as clients:
        assert await is_served_with_tls(server, made.authority)
        async with asyncio.timeout(30):
            assert set(await asyncio.gather(*(ended(client) for client in clients))) == {b""}
        assert await is_served_with_tls(server, made.authority)
        await server.says("tls_too_slow")
        log = server.errors

    assert log.count("tls_too_slow") == 1
    assert "127.0.0.1" in log


async def test_only_so_many_tls_handshakes_are_held_and_the_oldest_go(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    files = ("--tls-cert", str(made.certificate), "--tls-key", str(made.key))
    settings = ("--set", "server.tls_handshake_timeout=10m", "--set", "http.max_waiting=50")
    async with running_server(*files, *settings) as server, crowd(server.port, 200, HELLO) as clients:
        async with asyncio.timeout(30):
            await asyncio.gather(*(ended(client) for client in clients[:150]))

        assert await is_served_with_tls(server, made.authority)
        assert sum(not client.reader.at_eof() for client in clients) >= 40
        await server.says("crowded_out")
        assert server.errors.count("crowded_out") == 1


# --- nobody reads -------------------------------------------------------------------------------------


@contextmanager
def deaf(port: int, count: int, data: bytes) -> Generator[Sequence[socket.socket]]:
    """Connections that ask, and take next to nothing of the answer."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            each.connect(("127.0.0.1", port))
            each.sendall(data)
        yield sockets
    finally:
        for each in sockets:
            each.close()


MUCH: Final = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 60


async def test_whoever_does_not_read_what_it_asked_for_is_dropped() -> None:
    async with under_attack(*SHORT) as target:
        with deaf(target.server.port, 50, MUCH):
            assert await target.is_served()
            await target.server.says("unread")
            async with asyncio.timeout(30):
                while target.connections > 1:  # noqa: ASYNC110  # the kernel tells nobody
                    await asyncio.sleep(0.1)
            assert await target.is_served()
            assert target.growth < MEMORY_BYTES
            log = target.server.errors

    assert log.count('"cause": "unread"') == 1
    assert len(log.splitlines()) < 5


async def test_of_many_that_do_not_read_the_oldest_go() -> None:
    async with under_attack("--set", "http.max_waiting=20", "--set", "http.response_timeout=10m") as target:
        with deaf(target.server.port, 60, MUCH):
            await target.server.says("crowded_out")
            async with asyncio.timeout(30):
                while target.connections > 21:  # noqa: ASYNC110  # the kernel tells nobody
                    await asyncio.sleep(0.1)
            assert await target.is_served()


async def test_whoever_hangs_up_in_the_middle_of_answers_leaves_no_trace_in_the_log() -> None:
    async with under_attack() as target:
        with deaf(target.server.port, 20, MUCH):
            assert await target.is_served()
        assert await target.is_served()
        assert target.server.errors == ""


async def test_a_slow_reader_gets_all_of_its_answer() -> None:
    async with under_attack(*SHORT) as target, asyncio.timeout(60):
        whole = len((await target.honest.get("/openapi.json")).content)
        with deaf(target.server.port, 1, MUCH.replace(b"\r\n\r\n", b"\r\n\r\n", 1)) as (slow,):
            slow.settimeout(30)
            received = 0
            loop = asyncio.get_running_loop()
            while received < 20 * whole:
                received += len(await loop.run_in_executor(None, slow.recv, 16_384))
            assert await target.is_served()


# --- sockets ------------------------------------------------------------------------------------------


async def test_sockets_without_a_token_are_closed_by_their_deadline() -> None:
    async with under_attack("--set", "documents.authentication_deadline=1s") as target:
        async with connected(target.server.port) as client, asyncio.timeout(30):
            assert (await client.upgrade("/hocuspocus")).status == 101
            frames = await client.the_rest()
            assert frames[-1].opcode == CLOSE
        assert await target.is_served()


async def test_a_socket_that_is_dead_is_dropped_by_its_ping() -> None:
    settings = ("--set", "websocket.ping_interval=1s", "--set", "websocket.pong_timeout=500ms")
    async with under_attack(*settings) as target:
        async with target.socket("/ws", await target.session()) as client, asyncio.timeout(30):
            await ended(client)
        assert await target.is_served()
