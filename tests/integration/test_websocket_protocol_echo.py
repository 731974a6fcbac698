"""The echo server that conformance suites run against, as a command."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.support.rawsocket import TEXT, TRANSPORTS, Received, close, connected, frame


@asynccontextmanager
async def echo(transport: str) -> AsyncGenerator[tuple[asyncio.subprocess.Process, str], None]:
    """The command, and the first line that it prints."""
    command = [sys.executable, "-m", "roomkey.testing.echo", "--transport", transport, "--port", "0"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process, (await process.stdout.readline()).decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_the_echo_says_where_it_listens_and_stops_when_told_to(transport: str, stop: signal.Signals) -> None:
    async with echo(transport) as (process, said):
        address = re.fullmatch(r"listening on ws://127\.0\.0\.1:(\d+)\n", said)
        assert address is not None
        async with connected(int(address[1])) as client:
            assert (await client.upgrade("/any/path?at=all")).status == 101
            client.send(frame(TEXT, b"hello"))
            assert await client.receive() == Received(TEXT, b"hello")

            process.send_signal(stop)
            goodbye = await client.receive()
            with suppress(ConnectionError):  # The server below the ASGI transport does not wait for an answer.
                client.send(close(1012))
                assert await client.the_rest() == []

        assert await process.wait() == 0
        assert goodbye is not None
        assert goodbye.payload[:2] == (1012).to_bytes(2, "big")
