"""Frames to messages: what RFC 6455 and RFC 7692 demand of a client's frames once they are cut out of the stream."""

import codecs
from collections.abc import Callable

from roomkey.transports.deflate import Inflater
from roomkey.wire.close import CloseCode, Violation
from roomkey.wire.frame import BINARY, CONTINUATION, TEXT

_utf8_decoder = codecs.getincrementaldecoder("utf-8")
_DECODE_AT_ONCE = 64 * 1024
"""A longer text is checked in pieces, not decoded into a second copy up to four times its size."""


class MessageAssembler:
    """
    Assembles one connection's messages; holds at most ``limit`` bytes of an unfinished one.

    ``binary`` says of what kind the message is that ``receive`` returned last.
    """

    __slots__ = ("_compression", "_decode", "_inflater", "_limit", "_partial", "binary")

    def __init__(self, limit: int, *, compression: bool) -> None:
        self.binary = False
        self._limit = limit
        self._compression = compression
        self._partial: bytearray | None = None
        self._inflater: Inflater | None = None
        self._decode: Callable[[bytes, bool], str] | None = None

    def receive(self, opcode: int, payload: bytes, *, final: bool, rsv1: bool) -> bytes | None:
        """
        Take a data frame; return the message if this completes one.

        Raises:
            Violation: The sooner the better: invalid UTF-8 fails with the first frame that makes it so.
        """
        if opcode == CONTINUATION:
            if self._partial is None:
                raise Violation(CloseCode.PROTOCOL_ERROR, "nothing to continue")
            if rsv1:
                raise Violation(CloseCode.PROTOCOL_ERROR, "RSV1 on a continuation")  # RFC 7692, 6.1
            return self._add(payload, final=final)
        if self._partial is not None:
            raise Violation(CloseCode.PROTOCOL_ERROR, "expected a continuation")
        if rsv1 and not self._compression:
            raise Violation(CloseCode.PROTOCOL_ERROR, "RSV1 without an extension")
        self.binary = opcode == BINARY
        if final and not rsv1:
            if len(payload) > self._limit:
                raise Violation(CloseCode.TOO_BIG, "message too big")
            if opcode == TEXT:
                check_utf8(payload)
            return payload
        self._partial = bytearray()
        self._inflater = Inflater() if rsv1 else None
        self._decode = _utf8_decoder().decode if opcode == TEXT else None
        return self._add(payload, final=final)

    def _add(self, payload: bytes, *, final: bool) -> bytes | None:
        message = self._partial
        assert message is not None  # noqa: S101  # both callers have just made sure
        room = self._limit - len(message)
        if self._inflater is not None:
            payload = self._inflater.inflate(payload, room=room, final=final)
        elif len(payload) > room:
            raise Violation(CloseCode.TOO_BIG, "message too big")
        if self._decode is not None:
            try:
                self._decode(payload, final)
            except UnicodeDecodeError as error:
                raise Violation(CloseCode.INVALID_PAYLOAD, "invalid UTF-8") from error
        # Not a list of fragments: a peer may send any number of empty ones, which must cost nothing.
        message += payload
        if not final:
            return None
        self._partial = self._inflater = self._decode = None
        return bytes(message)


def check_utf8(text: bytes) -> None:
    """
    Accept a whole text.

    Raises:
        Violation: If it is not valid UTF-8 (RFC 3629: no surrogates, nothing overlong, nothing above U+10FFFF).
    """
    try:
        if len(text) <= _DECODE_AT_ONCE:
            text.decode()
            return
        decode = _utf8_decoder().decode
        for start in range(0, len(text), _DECODE_AT_ONCE):
            decode(text[start : start + _DECODE_AT_ONCE])
        decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise Violation(CloseCode.INVALID_PAYLOAD, "invalid UTF-8") from error


def close_code(payload: bytes) -> int:
    """
    The code of a close frame, ``NO_CODE`` if it has none.

    Raises:
        Violation: If the payload is one byte long, the code may not be sent, or the reason is not UTF-8.
    """
    if not payload:
        return CloseCode.NO_CODE
    if len(payload) == 1:
        raise Violation(CloseCode.PROTOCOL_ERROR, "half a close code")
    code = int.from_bytes(payload[:2], "big")
    # RFC 6455, 7.4, and the codes that IANA has registered since: 1012 to 1014.
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise Violation(CloseCode.PROTOCOL_ERROR, "invalid close code")
    check_utf8(payload[2:])
    return code
