"""A bad day: readers that do not read, clients that say nothing, garbage, floods. Others do not notice."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.support.calls import calling
from tests.support.editor import editing
from tests.support.rawsocket import TEXT, RawClient, frame
from tests.support.server import RunningServer, running_server

MEBIBYTE = 1024 * 1024
PATIENT = {
    "ROOMKEY_REALTIME_MESSAGES_PER_SECOND": "100000",
    "ROOMKEY_REALTIME_MESSAGE_BURST": "100000",
    "ROOMKEY_REALTIME_TRAFFIC_PER_SECOND_BYTES": "1GiB",
    "ROOMKEY_REALTIME_TRAFFIC_BURST_BYTES": "1GiB",
}


def resident(server: RunningServer) -> int:
    """Bytes of memory of the server's process."""
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * 4096


@asynccontextmanager
async def dialled(server: RunningServer) -> AsyncGenerator[RawClient]:
    """A bare TCP connection to the server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=64 * 1024)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.close()


async def until_closed(client: RawClient) -> bytes:
    """Everything that still comes, until the server hangs up."""
    received = b""
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            while chunk := await client.reader.read(MEBIBYTE):
                received = (received + chunk)[-MEBIBYTE:]
    return received


async def test_a_reader_that_never_reads_is_sent_away_and_costs_bounded_memory() -> None:
    # What a closed socket still holds is dropped after this time, and the reader reads only when all is written.
    environment = {**PATIENT, "ROOMKEY_WEBSOCKET_CLOSE_TIMEOUT": "12s"}
    async with running_server(environment=environment) as server, calling(server) as caller, dialled(server) as deaf:
        _, token = await caller.session("deaf")
        answer = await deaf.upgrade("/ws", {"Authorization": f"Bearer {token}"})
        assert answer.status == 101
        subscribe = {"id": "1", "message_type": "subscribe", "payload": {"document": "plan"}}
        deaf.send(frame(TEXT, json.dumps(subscribe).encode()))
        deaf.read_nothing()
        _, writers = await caller.session("writer")
        _, readers = await caller.session("reader")
        async with editing(server.websocket_url, writers) as writer, editing(server.websocket_url, readers) as reader:
            await writer.subscribe("plan")
            await reader.subscribe("plan")
            await writer.edit("plan", n=-1)
            before = resident(server)

            for number in range(3000):  # 24 MB, far more than the kernel and the outbox hold
                await writer.edit("plan", n=number, text="x" * 8000)
            heard = [(await reader.next("realtime_edit"))["n"] for _ in range(3001)]
            grown = resident(server) - before

        assert heard == list(range(-1, 3000))
        assert grown < 16 * MEBIBYTE
        deaf.read_on()
        assert b"too_slow" in await until_closed(deaf)


async def test_a_thousand_clients_that_say_nothing_keep_nobody_out() -> None:
    timeouts = {"ROOMKEY_HTTP_HEAD_TIMEOUT": "2s", "ROOMKEY_WEBSOCKET_HANDSHAKE_TIMEOUT": "2s"}
    async with running_server(environment=timeouts) as server, calling(server) as caller, AsyncExitStack() as stack:
        await caller.session()
        before = resident(server)
        silent = [await stack.enter_async_context(dialled(server)) for _ in range(1000)]
        for client in silent[:500]:
            client.send(b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n")  # and never the rest

        _, token = await caller.session()
        async with editing(server.websocket_url, token) as editor:
            answer = await editor.ask("heartbeat")
        grown = resident(server) - before

        assert answer["message_type"] == "heartbeat_ack"
        assert grown < 32 * MEBIBYTE
        ends = await asyncio.gather(*[until_closed(client) for client in silent])
        assert all(b"101 Switching" not in end for end in ends)


async def test_garbage_closes_its_sender_and_nobody_else() -> None:
    async with running_server() as server, calling(server) as caller:
        _, token = await caller.session()
        async with editing(server.websocket_url, token) as good, editing(server.websocket_url, token) as bad:
            for _ in range(50):
                with contextlib.suppress(Exception):
                    await bad.socket.send("{" * 100)
            ended = await bad.end()

            assert (ended[0], ended[1]) == (4400, "malformed")
            assert set(ended[2]) == {"error", "session_disconnected"}
            assert (await good.ask("heartbeat"))["message_type"] == "heartbeat_ack"


async def test_a_flood_is_refused_and_then_ended() -> None:
    limits = {"ROOMKEY_REALTIME_MESSAGES_PER_SECOND": "5", "ROOMKEY_REALTIME_MESSAGE_BURST": "5"}
    async with running_server(environment=limits) as server, calling(server) as caller:
        _, token = await caller.session()
        async with editing(server.websocket_url, token) as flood:
            for _ in range(200):
                with contextlib.suppress(Exception):
                    await flood.send("heartbeat")
            ended = await flood.end()

        assert (ended[0], ended[1]) == (4429, "limits_ignored")
        assert ended[2].count("heartbeat_ack") <= 10


async def test_a_message_that_is_too_long_is_an_error_and_one_beyond_all_bounds_the_end() -> None:
    async with running_server() as server, calling(server) as caller:
        _, token = await caller.session()
        async with editing(server.websocket_url, token) as editor:
            await editor.subscribe("plan")
            refused = await editor.ask("realtime_edit", {"document": "plan", "text": "x" * 11_000})
            await editor.socket.send("x" * 70_000)
            ended = await editor.end()

        assert refused["payload"]["code"] == "MESSAGE_TOO_LARGE"
        assert ended[0] == 1009
