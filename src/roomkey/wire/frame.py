"""A message encoded once, in every form that goes over the wire, for everyone who will receive it."""

import zlib
from struct import Struct
from typing import Final

DEFLATE_FROM_BYTES = 1024
"""Shorter messages are sent as they are: deflate would cost more than it saves."""

DEFLATE_UP_TO_BYTES = 1024 * 1024
"""Longer messages are not compressed either: that would stall the event loop, 15 ms per million bytes."""

LARGEST_WINDOW_BITS = 15
"""The default window of RFC 7692: 32 KiB."""

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
"""The opcodes of RFC 6455, 5.2."""


class Frame:
    """
    One whole message as server frames, which are not masked and therefore the same for every subscriber.

    ``payload`` is the message, ``plain`` the finished frame. A compressed form is made when the first
    subscriber that negotiated permessage-deflate needs it, and shared by all with the same window
    (RFC 7692, no context takeover).
    """

    __slots__ = ("_deflated", "binary", "payload", "plain", "size")

    def __init__(self, payload: bytes, *, binary: bool = False) -> None:
        self.payload = payload
        self.binary = binary
        self.plain = header(BINARY if binary else TEXT, len(payload)) + payload
        self.size = len(self.plain)
        self._deflated: dict[int, bytes] | None = None

    def deflated(self, window_bits: int = LARGEST_WINDOW_BITS) -> bytes:
        """The frame for peers with permessage-deflate, a window of 9 to 15 bits: compressed where that is worth it."""
        if not DEFLATE_FROM_BYTES <= len(self.payload) <= DEFLATE_UP_TO_BYTES:
            return self.plain
        if self._deflated is None:
            self._deflated = {}
        finished = self._deflated.get(window_bits)
        if finished is None:
            finished = self._deflated[window_bits] = self._deflate(window_bits)
        return finished

    def _deflate(self, window_bits: int) -> bytes:
        compressor = zlib.compressobj(level=1, wbits=-window_bits)
        # RFC 7692, 7.2.1: the empty block that a sync flush leaves at the end is not sent.
        data = (compressor.compress(self.payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        if len(data) >= len(self.payload):
            return self.plain
        return header((BINARY if self.binary else TEXT) | 0x40, len(data)) + data


def header(opcode: int, length: int) -> bytes:
    """The head of an unmasked, final frame; ``opcode`` may carry RSV1 as 0x40."""
    first = 0x80 | opcode
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return _medium(first, 126, length)
    return bytes((first, 127)) + length.to_bytes(8, "big")


_medium = Struct("!BBH").pack
