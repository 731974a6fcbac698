"""Inputs made of seeds: what breaks parsers is near what they accept."""

from collections.abc import Sequence
from random import Random
from typing import Final

WORDS: Final = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\xff\xff\xff\x0f",
    b"\x80" * 9 + b"\x01",
    b"{",
    b"}",
    b"[" * 40,
    b"[" * 3_000,
    b'{"a":' * 3_000,
    b"]",
    b'"',
    b"\\",
    b"\\ud800",
    b"\\u0000",
    b"NaN",
    b"1e999",
    b"-0",
    b"9" * 40,
    b"9" * 5_000,
    b"null",
    b"true",
    b"\xed\xa0\x80",
    "\u202e\u200b\ufeff\u0301".encode(),
    b"\xc0\xaf",
    b"%",
    b"%00",
    b"%ff",
    b"&",
    b"=",
    b";",
    b",",
    b"*",
    b"**",
    b"/",
    b"..",
    b"\r\n",
    b"\x81\xa1a",
    b"\xdd\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x00",
    b"\x91" * 3_000,
    b"u" * 3_000,
    b"\x75\x01" * 3_000,
    b"\x76\xff\xff\x03",
)
MAX_BYTES: Final = 20_000


def mutate(seed: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """``seed``, changed in a few places."""
    data = bytearray(seed)
    for _ in range(random.choice((1, 1, 2, 3, 8))):
        at = random.randrange(len(data) + 1)
        match random.randrange(7):
            case 0 if data:
                data[at % len(data)] ^= 1 << random.randrange(8)
            case 1 if data:
                data[at % len(data)] = random.randrange(256)
            case 2:
                del data[at : at + random.randrange(1, 9)]
            case 3:
                data[at:at] = random.choice(WORDS)
            case 4:
                other = random.choice(others)
                data[at:] = other[random.randrange(len(other) + 1) :]
            case 5:
                data[at:at] = data[at : at + random.randrange(1, 65)] * random.randrange(1, 5)
            case _:
                data[at : at + 1] = random.randbytes(random.randrange(1, 5))
    return bytes(data[:MAX_BYTES])
