"""A message encoded once, in every form that goes over the wire, for everyone who will receive it."""

import zlib

DEFLATE_FROM_BYTES = 1024
"""Shorter messages are sent as they are: deflate would cost more than it saves."""

TEXT = 0x1
BINARY = 0x2


class Frame:
    """
    One whole message as server frames, which are not masked and therefore the same for every subscriber.

    ``payload`` is the message, ``plain`` the finished frame. The compressed form is made when the first
    subscriber that negotiated permessage-deflate needs it, and shared by all (RFC 7692, no context takeover).
    """

    __slots__ = ("_deflated", "binary", "payload", "plain", "size")

    def __init__(self, payload: bytes, *, binary: bool = False) -> None:
        self.payload = payload
        self.binary = binary
        self.plain = _header(BINARY if binary else TEXT, len(payload)) + payload
        self.size = len(self.plain)
        self._deflated: bytes | None = None

    def deflated(self) -> bytes:
        """The frame for peers with permessage-deflate: compressed where that is worth it."""
        if self._deflated is None:
            self._deflated = self._deflate() if len(self.payload) >= DEFLATE_FROM_BYTES else self.plain
        return self._deflated

    def _deflate(self) -> bytes:
        compressor = zlib.compressobj(level=1, wbits=-15)
        # RFC 7692, 7.2.1: the empty block that a sync flush leaves at the end is not sent.
        data = (compressor.compress(self.payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        opcode = BINARY if self.binary else TEXT
        return _header(opcode | 0x40, len(data)) + data


def _header(opcode: int, length: int) -> bytes:
    first = 0x80 | opcode
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")
