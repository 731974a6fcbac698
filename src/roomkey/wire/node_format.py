"""
What nodes say to each other: a byte for the version of the format, then a tagged structure in msgpack.

Nodes of two versions run side by side while a deployment is upgraded. So a field that a reader does not know is passed
over, and a message that it does not know is ignored and counted. What begins with ``{`` is a publication in JSON.
"""

from typing import Any, Final, Generic, TypeVar

import msgspec

VERSION: Final = b"\x01"
"""The first byte of what nodes say to each other. Each version has another one, none of them is ``{``."""

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""Longer messages are neither written nor read."""

T = TypeVar("T")


class TooLong(Exception):
    """The message is longer than others would read."""


class NodeFormat(Generic[T]):
    """The messages of one kind of channel: a union of tagged structures, ``T``."""

    def __init__(self, messages: Any, *, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        """``messages`` is ``T`` again, as a value: every structure in it has a tag that never changes its meaning."""
        self._decode = msgspec.msgpack.Decoder(messages).decode
        self._max_bytes = max_bytes
        self.ignored = 0
        """Number of messages that were of an unknown version, malformed or too long."""

    def encode(self, message: T) -> bytes:
        """
        The message as other nodes read it.

        Raises:
            TooLong: If they would not read it.
        """
        encoded = VERSION + _encode(message)
        if len(encoded) > self._max_bytes:
            raise TooLong(f"a message between nodes has at most {self._max_bytes} bytes, not {len(encoded)}")
        return encoded

    def decode(self, encoded: bytes) -> T | None:
        """The message; ``None`` if it is to be ignored."""
        if encoded[:1] == VERSION and len(encoded) <= self._max_bytes:
            try:
                return self._decode(memoryview(encoded)[1:])
            except (msgspec.MsgspecError, RecursionError, ValueError):
                pass
        self.ignored += 1
        return None


_encode: Final = msgspec.msgpack.Encoder().encode
