"""permessage-deflate (RFC 7692): what is agreed on, and inflating without trusting the sender."""

import re
import zlib

from msgspec import Struct

from roomkey.wire.close import CloseCode, Violation
from roomkey.wire.frame import LARGEST_WINDOW_BITS

NAME = "permessage-deflate"

# RFC 7692, 7.2.2: what the sender took off the end of every message.
_TAIL = b"\x00\x00\xff\xff"

# RFC 6455, 9.1. Quoted values have to be tokens once unquoted, which is all that this extension knows anyway.
_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*({_WORD})(?:[ \t]*=[ \t]*(?:({_WORD})|"({_WORD})"))?')
_OFFER = re.compile(rf'[ \t,]*({_WORD})((?:[ \t]*;[ \t]*{_WORD}(?:[ \t]*=[ \t]*(?:{_WORD}|"{_WORD}"))?)*)[ \t]*(?:,|$)')

# RFC 7692, 7.1.2: decimal, without leading zeros, 8 to 15.
_WINDOWS = frozenset(str(bits) for bits in range(8, 16))

# zlib makes no raw stream with the 256-byte window of 8 bits (it silently takes 512), so we never promise one.
_SMALLEST_WINDOW_BITS = 9


class Agreement(Struct, frozen=True):
    """What a connection agreed on: the ``Sec-WebSocket-Extensions`` of the 101, and the window of what we send."""

    response: str
    window_bits: int


def negotiate(offers: str) -> Agreement | None:
    """
    Agree to the first of a client's offers that can be kept, if there is one.

    Neither side keeps its window between messages: a server may always say so (RFC 7692, 7.1.1), one
    compressed frame then serves every subscriber, and an idle connection holds no 32 KiB of history.
    """
    at = 0
    while at < len(offers):
        offer = _OFFER.match(offers, at)
        if offer is None:
            return None
        if offer[1].lower() == NAME:
            agreed = _agree(offer[2])
            if agreed is not None:
                return agreed
        at = offer.end()
    return None


def _agree(parameters: str) -> Agreement | None:
    response = f"{NAME}; server_no_context_takeover; client_no_context_takeover"
    window_bits = LARGEST_WINDOW_BITS
    seen: set[str] = set()
    for parameter in _PARAMETER.finditer(parameters):
        name = parameter[1].lower()
        value = parameter[2] or parameter[3]
        if name in seen:
            return None
        seen.add(name)
        match name, value:
            case (("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits"), None):
                pass  # We inflate any window, so the client is not told to use a smaller one.
            case "client_max_window_bits", bits if bits in _WINDOWS:
                pass
            case "server_max_window_bits", bits if bits in _WINDOWS and int(bits) >= _SMALLEST_WINDOW_BITS:
                window_bits = int(bits)
                response += f"; server_max_window_bits={bits}"
            case _:
                return None
    return Agreement(response, window_bits)


class Inflater:
    """Inflates one message, piece by piece, and never holds more than it may."""

    __slots__ = ("_stream",)

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=-LARGEST_WINDOW_BITS)

    def inflate(self, piece: bytes, *, room: int, final: bool) -> bytes:
        """
        The next part of the message, at most ``room`` bytes.

        Raises:
            Violation: If it would be longer (1009), or if this is no deflate stream (1007).
        """
        if final:
            piece += _TAIL
        try:
            # One byte more than there is room for, so that a message that just fits is told from one that does not.
            data = self._stream.decompress(piece, room + 1)
        except zlib.error as error:
            raise Violation(CloseCode.INVALID_PAYLOAD, "not a deflate stream") from error
        if len(data) > room:
            raise Violation(CloseCode.TOO_BIG, "message too big")
        # RFC 7692, 7.2.3.5: a sender may end with a final block, of which only an empty one may follow.
        if self._stream.eof and self._stream.unused_data not in {b"", b"\x00", b"\x00" + _TAIL, _TAIL}:
            raise Violation(CloseCode.INVALID_PAYLOAD, "data behind the end of the deflate stream")
        return data
