"""What is far too large, deep, or many: refused while it costs little, on every way in, and others are served."""

import asyncio
import zlib
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Final

import pytest

from roomkey.wire import lib0
from tests.support.attacks import MEMORY_BYTES, Target, under_attack
from tests.support.rawsocket import BINARY, CONTINUATION, PING, TEXT, RawClient, connected, frame

PATHS: Final = ("/ws", "/yjs/plan", "/hocuspocus")
MIB: Final = 1024 * 1024


@asynccontextmanager
async def unimpressed(*arguments: str) -> AsyncGenerator[Target]:
    """A server that grows by little, goes on serving, and says little while the block is done."""
    async with under_attack(*arguments) as target:
        yield target
        assert await target.is_served()
        assert target.growth < MEMORY_BYTES
        assert len(target.server.errors.splitlines()) < 5


async def flooded(client: RawClient, parts: Iterable[bytes]) -> bytes:
    """Send for as long as the server takes it; returns the end of what it said, at its end."""
    said = bytearray()

    async def read() -> None:
        while part := await client.reader.read(MIB):
            said[:] = (said + part)[-200:]

    async def write() -> None:
        for part in parts:
            client.send(part)
            await client.writer.drain()

    async with asyncio.timeout(60):
        reading = asyncio.create_task(read())
        with suppress(ConnectionError):
            await write()
        with suppress(ConnectionError):
            await reading
    return bytes(said)


# --- heads --------------------------------------------------------------------------------------------


async def test_heads_of_many_megabytes_are_cut_off() -> None:
    begin = b"GET /health/live HTTP/1.1\r\nhost: x\r\n"
    endless = {
        "a request line": [b"GET /", *[b"a" * MIB] * 50],
        "a header": [begin, b"x: ", *[b"a" * MIB] * 50],
        "a name": [begin, *[b"a" * MIB] * 50],
        "many headers": [begin, *[b"x: y\r\n" * 100_000] * 50],
    }
    async with unimpressed() as target:
        for what, parts in endless.items():
            async with connected(target.server.port) as client:
                assert not (said := await flooded(client, parts)) or b"head_too_large" in said, what


# --- frames -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
async def test_a_million_small_fragments_of_one_message_are_too_many(path: str) -> None:
    fragments = frame(CONTINUATION, b"", fin=False) * 10_000
    async with unimpressed() as target, target.socket(path, await target.session()) as client:
        said = await flooded(client, [frame(BINARY, b"", fin=False), *[fragments] * 100])
    assert b"too many frames" in said


@pytest.mark.parametrize("path", PATHS)
async def test_pings_without_end_are_too_many(path: str) -> None:
    async with unimpressed() as target, target.socket(path, await target.session()) as client:
        said = await flooded(client, [frame(PING, b"") * 10_000] * 50)
    assert b"too many frames" in said


@pytest.mark.parametrize("path", PATHS)
async def test_frames_that_break_the_rules_end_their_socket_only(path: str) -> None:
    broken = {
        "continuation without a start": frame(CONTINUATION, b"x"),
        "a long ping": frame(PING, b"x" * 126),
        "a ping in parts": frame(PING, b"x", fin=False),
        "no mask": frame(BINARY, b"x", mask=None),
        "a reserved bit": frame(BINARY, b"x", rsv=2),
        "2^63 bytes": frame(BINARY, b"", length=b"\x7f" + b"\xff" * 8),
        "a second start": frame(BINARY, b"x", fin=False) + frame(BINARY, b"y"),
    }
    async with unimpressed() as target:
        for what, sent in broken.items():
            async with target.socket(path, await target.session()) as client, asyncio.timeout(30):
                client.send(sent)
                assert await client.close_code() in (1002, 1007, 1009), what


# --- bombs --------------------------------------------------------------------------------------------


def bomb(megabytes: int) -> bytes:
    deflater = zlib.compressobj(9, wbits=-15)
    parts = [deflater.compress(bytes(MIB)) for _ in range(megabytes)]
    return b"".join([*parts, deflater.flush(zlib.Z_SYNC_FLUSH)])[:-4]


GIGABYTE: Final = bomb(1024)
"""Of zeros, in one megabyte."""


@pytest.mark.parametrize("path", PATHS)
async def test_a_gigabyte_of_zeros_is_not_inflated(path: str) -> None:
    opcode = TEXT if path == "/ws" else BINARY
    pieces = [GIGABYTE[start : start + 30_000] for start in range(0, len(GIGABYTE), 30_000)]
    in_parts = [
        frame(opcode, pieces[0], fin=False, rsv=4),
        *(frame(CONTINUATION, each, fin=False) for each in pieces[1:]),
    ]
    async with unimpressed() as target:
        for sent in ([frame(opcode, GIGABYTE, rsv=4)], in_parts):
            async with target.socket(path, await target.session()) as client:
                assert b"\x03\xf1" in await flooded(client, sent)  # 1009
        assert target.peak < MEMORY_BYTES


async def test_compressed_bodies_are_refused_unread() -> None:
    async with unimpressed() as target:
        headers = {"authorization": f"Bearer {await target.session()}", "content-encoding": "gzip"}
        for method, path, media in (("PUT", "/documents/a", "text/plain"), ("POST", "/sessions", "application/json")):
            content = zlib.compress(bytes(60_000), wbits=31)
            answer = await target.honest.request(
                method, path, content=content, headers={**headers, "content-type": media}
            )
            assert answer.status_code in (403, 415)


# --- depth --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "media"), [("/sessions/batch", "application/json"), ("/documents/a", "application/json")]
)
async def test_two_hundred_megabytes_of_brackets_are_refused_over_rest(path: str, media: str) -> None:
    method = b"PUT" if path == "/documents/a" else b"POST"
    settings = ("--set", "api.max_document_bytes=1MB")
    async with unimpressed(*settings) as target:
        token = target.backend if method == b"POST" else await target.session()
        head = b"%b %b HTTP/1.1\r\nhost: x\r\ncontent-type: %b\r\nauthorization: Bearer %b\r\n" % (
            method,
            path.encode(),
            media.encode(),
            token.encode(),
        )
        chunk = b"10000\r\n" + b"[" * 65_536 + b"\r\n"
        async with connected(target.server.port) as client:
            client.send(head, b"content-length: 200000000\r\n\r\n")
            assert (await client.response()).status == 413
        async with connected(target.server.port) as client:
            said = await flooded(client, [head, b"transfer-encoding: chunked\r\n\r\n", *[chunk] * 3_000])
            assert not said or b"too_large" in said
        deep = b"[" * 60_000
        async with connected(target.server.port) as client:
            client.send(head, b"content-length: %d\r\n\r\n" % len(deep), deep)
            assert (await client.response()).status in (400, 422)


async def test_two_hundred_megabytes_of_brackets_are_refused_over_a_socket() -> None:
    async with unimpressed() as target:
        token = await target.session()
        announced = frame(TEXT, b"", length=b"\x7f" + (200_000_000).to_bytes(8, "big"))
        async with target.socket("/ws", token) as client:
            assert b"\x03\xf1" in await flooded(client, [announced, *[b"[" * MIB] * 200])
        fragment = frame(CONTINUATION, b"[" * 60_000, fin=False)
        async with target.socket("/ws", token) as client:
            assert b"\x03\xf1" in await flooded(client, [frame(TEXT, b"[", fin=False), *[fragment] * 3_300])


# --- Yjs ----------------------------------------------------------------------------------------------

N: Final = lib0.number
BILLIONS: Final = {
    "clients in a state vector": b"\x00\x00" + lib0.sized(N(2**50) + b"\x01\x01\x01"),
    "clients in awareness": b"\x01" + lib0.sized(N(2**52) + b"\x01\x01\x01"),
    "clients in an update": b"\x00\x02" + lib0.sized(N(2**40) + b"\x01" * 6),
    "blocks in an update": b"\x00\x02" + lib0.sized(b"\x01" + N(2**40) + b"\x01\x00" + b"\x00\x01" * 6),
    "deletions": b"\x00\x02" + lib0.sized(b"\x00\x01\x05" + N(2**40) + b"\x00\x01"),
    "values": b"\x00\x02" + lib0.sized(b"\x01\x01\x01\x00\x08\x01\x01t" + N(2**40) + b"\x7f" * 6 + b"\x00"),
    "bytes": b"\x00\x02" + N(2**52) + b"\x01\x01",
    "a number without end": b"\x00\x02" + b"\xff" * 100,
    "values in one another": b"\x00\x02"
    + lib0.sized(b"\x01\x01\x01\x00\x08\x01\x01t\x01" + b"\x75\x01" * 400_000 + b"\x7f\x00"),
    "awareness of everybody": b"\x01" + lib0.sized(N(200_000) + b"\x01\x01\x011" * 200_000),
}


@pytest.mark.parametrize("prefix", [b"", lib0.text("plan")], ids=["yjs", "hocuspocus"])
async def test_counts_of_billions_cost_nothing_and_end_their_socket_only(prefix: bytes) -> None:
    async with unimpressed() as target:
        for what, message in BILLIONS.items():
            path = "/hocuspocus" if prefix else "/yjs/plan"
            async with target.socket(path, await target.session()) as client, asyncio.timeout(60):
                if prefix:
                    client.send(frame(BINARY, prefix + b"\x02\x00\x00"))
                client.send(frame(BINARY, prefix + message))
                assert await client.close_code() in (4400, 1007, 1002), what


async def test_an_update_beyond_the_bound_ends_its_socket_only() -> None:
    async with unimpressed() as target, target.socket("/yjs/plan", await target.session()) as client:
        assert b"\x03\xf1" in await flooded(client, [frame(BINARY, bytes(2 * MIB))])
