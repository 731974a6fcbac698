"""
A receiver of webhooks that costs little: ``python -m benchmarks.receiving PORT FILE``; 0 lets the system choose a port.

It writes the document of each message into the file before it answers, so that whoever kills it knows what it had.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

import httptools
import msgspec
import uvloop
from msgspec import Struct

ANSWER: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


class _Data(Struct):
    document: str


class _Message(Struct):
    data: _Data


_decode: Final = msgspec.json.Decoder(_Message).decode


class _Connection(asyncio.Protocol):
    def __init__(self, file: int) -> None:
        self._file = file
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body += body

    def on_message_complete(self) -> None:
        """Called by the parser."""
        os.write(self._file, _decode(self._body).data.document.encode() + b"\n")
        self._body = b""
        self._transport.write(ANSWER)


async def _serve(port: int, file: Path) -> None:
    descriptor = os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(descriptor), "127.0.0.1", port)
    print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def received(file: Path) -> Sequence[str]:
    """The documents that were written down; a line that was cut was not answered."""
    return [line.decode().rstrip("\n") for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), Path(sys.argv[2])))
