"""HTTP from clients that are slow, silent or endless: each costs little, for a short time, and nobody else anything."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest

from roomkey.transports import BODY_DEADLINE, HttpSettings
from roomkey.transports.http import http_protocol
from tests.support.rawsocket import Door, RawClient, connected, serving

GET = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n"


@asynccontextmanager
async def bounded(**settings: object) -> AsyncGenerator[int, None]:
    values = {"head_timeout": timedelta(seconds=0.2), "body_timeout": timedelta(seconds=0.2), **settings}
    async with serving("picows", Door(), http=http_protocol(HttpSettings(**values))) as port:  # pyright: ignore[reportArgumentType]  # checked by the calls
        yield port


async def status(client: RawClient, *data: bytes) -> int:
    client.send(*data)
    return (await client.response()).status


async def test_a_silent_connection_is_dropped_without_a_word() -> None:
    async with bounded() as port, connected(port) as client, asyncio.timeout(30):
        assert await client.reader.read() == b""


async def test_a_head_that_trickles_is_a_408() -> None:
    async with bounded() as port, connected(port) as client, asyncio.timeout(30):

        async def trickle() -> None:
            for byte in GET * 100:
                client.send(bytes((byte,)))
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as tasks:
            trickling = tasks.create_task(trickle())
            response = await client.response()
            trickling.cancel()

        assert response.status == 408
        assert response.headers["connection"] == "close"


async def test_a_body_that_does_not_come_is_a_408() -> None:
    async with bounded() as port, connected(port) as client, asyncio.timeout(30):
        assert await status(client, POST, b"hel") == 408


async def test_an_application_knows_that_its_server_has_a_deadline_for_bodies() -> None:
    extensions: list[object] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        extensions.append(scope["extensions"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async with serving("picows", Door(), app=app) as port, connected(port) as client, asyncio.timeout(30):
        for _ in range(2):
            assert await status(client, GET) == 204

    assert extensions == [{BODY_DEADLINE: {}}] * 2


async def test_a_further_request_has_a_deadline_of_its_own() -> None:
    async with bounded() as port, connected(port) as client, asyncio.timeout(30):
        assert await status(client, GET) == 200
        assert await status(client, POST, b"hello") == 200

        assert await status(client, GET[:10]) == 408


async def test_requests_that_come_in_time_are_answered_however_they_are_cut() -> None:
    stream = GET + POST + b"hello" + GET
    async with bounded() as port:
        for size in (1, 7, 30, 1000):
            async with connected(port) as client:
                for start in range(0, len(stream), size):
                    client.send(stream[start : start + size])
                    await asyncio.sleep(0)

                answers = [await client.response() for _ in range(3)]

                assert [answer.body for answer in answers] == [b"0", b"5", b"0"]


async def test_a_head_that_is_too_long_is_a_431() -> None:
    line = b"x: " + b"a" * 1000 + b"\r\n"
    for head in (
        b"GET / HTTP/1.1\r\nhost: test\r\n" + line * 70 + b"\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: test\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: test\r\n" + line * 1000,
        b"GET / HTTP/1.1\r\nhost: test\r\nx: " + b"a" * 1_000_000,
        GET + b"GET / HTTP/1.1\r\nhost: test\r\n" + line * 70 + b"\r\n",
    ):
        async with bounded(head_timeout=timedelta(seconds=10)) as port, connected(port) as client:
            statuses = [await status(client, head)]
            if statuses == [200]:
                statuses.append((await client.response()).status)

            assert statuses[-1] == 431


async def test_a_handshake_with_a_head_that_is_too_long_is_a_431_and_no_failure_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    upgrade = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    key = b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"

    async with bounded() as port, connected(port) as client:
        answered = await status(client, upgrade + key + b"x: " + b"a" * 70_000 + b"\r\n\r\n")

    assert answered == 431
    assert caplog.records == []


async def test_a_head_just_below_the_bound_is_fine() -> None:
    head = b"GET / HTTP/1.1\r\nhost: test\r\n" + (b"x: " + b"a" * 995 + b"\r\n") * 65 + b"\r\n"
    async with bounded() as port, connected(port) as client:
        assert await status(client, head) == 200
        assert await status(client, head) == 200


async def test_chunks_and_trailers_may_not_be_endless() -> None:
    chunked = b"POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n"
    for endless in (b"5;" + b"a" * 1_000_000, b"0\r\n" + b"trailer: x\r\n" * 100_000, b"0\r\nx: " + b"a" * 1_000_000):
        async with bounded(body_timeout=timedelta(seconds=10)) as port, connected(port) as client:
            assert await status(client, chunked, endless) == 400


async def test_small_chunks_are_fine() -> None:
    chunked = b"POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n"
    async with bounded() as port, connected(port) as client:
        client.send(chunked, b"1\r\na\r\n" * 60_000, b"0\r\n\r\n")

        assert (await client.response()).body == b"60000"


async def test_of_many_silent_connections_the_oldest_go_and_others_are_served() -> None:
    async with bounded(max_waiting=10, head_timeout=timedelta(seconds=30)) as port, AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(connected(port)) for _ in range(50)]
        honest = await stack.enter_async_context(connected(port))

        assert await status(honest, GET) == 200

        ended = [client for client in silent[:40] if await client.reader.read() == b""]
        assert len(ended) == 40
        assert await status(silent[-1], GET) == 200


async def test_idle_connections_between_requests_are_not_taken_for_silent_ones() -> None:
    async with bounded(max_waiting=5) as port, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(port)) for _ in range(5)]
        for client in clients:
            assert await status(client, GET) == 200
        for _ in range(5):
            await stack.enter_async_context(connected(port))

        assert [await status(client, GET) for client in clients] == [200] * 5


async def test_requests_may_be_pipelined_but_not_by_the_thousand() -> None:
    async with bounded() as port, connected(port) as few, connected(port) as many:
        few.send(GET * 50)
        many.send(GET * 5000)

        assert [(await few.response()).status for _ in range(50)] == [200] * 50
        with suppress(ConnectionResetError):
            assert (await many.reader.read()).count(b"HTTP/1.1 200") < 100
