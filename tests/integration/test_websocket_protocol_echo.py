"""The echo server that conformance suites run against, as a command."""

import asyncio
import re
import signal
import sys

import pytest

from tests.support.rawsocket import TEXT, TRANSPORTS, RawClient, Received, close, frame


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_the_echo_says_where_it_listens_and_stops_when_told_to(transport: str, stop: signal.Signals) -> None:
    command = [sys.executable, "-m", "roomkey.testing.echo", "--transport", transport, "--port", "0"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(30):
        said = re.fullmatch(r"listening on ws://127\.0\.0\.1:(\d+)\n", (await process.stdout.readline()).decode())
        assert said is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", int(said[1]))
        client = RawClient(reader, writer)
        assert (await client.upgrade("/any/path?at=all")).status == 101
        client.send(frame(TEXT, b"hello"))
        assert await client.receive() == Received(TEXT, b"hello")

        process.send_signal(stop)
        goodbye = await client.receive()
        client.send(close(1012))
        rest = await client.the_rest()
        writer.close()

        assert await process.wait() == 0
        assert goodbye is not None
        assert goodbye.payload[:2] == (1012).to_bytes(2, "big")
        assert rest == []
