"""
Those who attack, in a process of their own that yields to whoever wants the core: ``python -m benchmarks.attackers``.

They say ``ready`` when the attack is under way, and how much they did when it is over.
"""

import os
import socket
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import count
from typing import Final

from benchmarks.processes import HOST
from benchmarks.websocket import BINARY, frame

PIPELINED: Final = 50
LONGEST_SECONDS: Final = 120
MEGABYTE: Final = 1_000_000

_BEGINNINGS: Final = (b"", b"GET /sessions/me HTTP/1.1\r\nhost: x\r\nslow: ", b"\x16\x03\x01\x02\x00\x01")
_REPLACING_SECONDS: Final = 0.002
"""Time between two of them, when there are enough: all are new within ten seconds, in which the server drops them."""

_HELD: Final[list[socket.socket]] = []


def half_open(port: int, many: int, _token: str) -> Iterator[int]:
    """Connections that have said nothing or a part of a head; as many all the time."""
    for number in range(many):
        _HELD.append(_dial(port, _BEGINNINGS[number % len(_BEGINNINGS)]))
    yield many
    for number in count(many):
        _HELD.append(_dial(port, _BEGINNINGS[number % len(_BEGINNINGS)]))
        _HELD.pop(0).close()
        time.sleep(_REPLACING_SECONDS)
        yield 1


def wrong_tokens(port: int, many: int, _token: str) -> Iterator[int]:
    """Tokens that nobody has issued, from one address."""
    return _requests(port, many, lambda _: "198.51.100.7")


def many_addresses(port: int, many: int, _token: str) -> Iterator[int]:
    """A wrong token from each of many addresses."""
    return _requests(port, many, _address)


def bombs(port: int, many: int, token: str) -> Iterator[int]:
    """By turns a gigabyte of zeros, compressed, and many brackets, on every way in, by somebody with a session."""
    deflater = zlib.compressobj(9, wbits=-15)
    zeros = deflater.compress(bytes(MEGABYTE)) + deflater.flush(zlib.Z_FULL_FLUSH)
    bomb = frame((zeros * 1_000)[:-4], BINARY)
    bomb = bytes((bomb[0] | 0x40,)) + bomb[1:]
    credential = f"host: x\r\nauthorization: Bearer {token}\r\nx-forwarded-for: 198.51.100.7\r\n"
    brackets = b"[" * 60_000
    put = f"PUT /documents/a HTTP/1.1\r\n{credential}content-type: application/json\r\ncontent-length: {len(brackets)}"
    for number in range(many):
        path = ("/ws", "/yjs/plan", "/hocuspocus")[number % 3]
        upgrade = (
            f"GET {path} HTTP/1.1\r\n{credential}connection: upgrade\r\nupgrade: websocket\r\n"
            "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "sec-websocket-extensions: permessage-deflate\r\n\r\n"
        )
        for said in (upgrade.encode() + bomb, put.encode() + b"\r\n\r\n" + brackets):
            with _dial(port, b"") as connection, suppress(OSError):
                connection.sendall(said)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):
                    pass
        yield 1


ATTACKS: Final[Mapping[str, Callable[[int, int, str], Iterator[int]]]] = {
    attack.__name__: attack for attack in (half_open, wrong_tokens, many_addresses, bombs)
}


def _requests(port: int, many: int, address: Callable[[int], str]) -> Iterator[int]:
    with _dial(port, b"") as connection:
        for first in range(0, many, PIPELINED):
            numbers = range(first, min(first + PIPELINED, many))
            connection.sendall(b"".join(_guess(address(number), number) for number in numbers))
            answered = 0
            while answered < len(numbers):
                answered += connection.recv(1 << 20).count(b"HTTP/1.1 4")
            yield len(numbers)


def _guess(address: str, number: int) -> bytes:
    headers = f"host: x\r\nx-forwarded-for: {address}\r\nauthorization: Bearer wrong-{number}"
    return f"GET /sessions/me HTTP/1.1\r\n{headers}\r\n\r\n".encode()


def _address(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def _dial(port: int, opening: bytes) -> socket.socket:
    connection = socket.create_connection((HOST, port), 30)
    if opening:
        connection.sendall(opening)
    return connection


def main() -> None:
    """``NAME PORT MANY TOKEN``: attack until it is done, or for so long."""
    name, port, many, token = sys.argv[1:]
    os.nice(10)
    end, done = time.monotonic() + LONGEST_SECONDS, 0
    for number, some in enumerate(ATTACKS[name](int(port), int(many), token)):
        if not number:
            print("ready", flush=True)
        done += some
        if time.monotonic() > end:
            break
    print(done, flush=True)


if __name__ == "__main__":
    main()
