"""
The seam between a transport, which carries frames, and a conversation, which interprets them.

Transports know RFC 6455 and nothing of sessions; conversations know sessions and nothing of TCP.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from msgspec import Struct

from roomkey.security.certificates import PeerCertificate
from roomkey.wire.frame import Frame

HIGH_WATER_BYTES: Final = 64 * 1024
"""A socket with more than this unsent is given nothing more; its transport says when it is ``writable`` again."""


class Handshake(Struct, frozen=True, kw_only=True):
    """
    A client's request to open a WebSocket, before it is answered.

    ``path`` is percent-decoded, ``raw_path`` is not. Header names are lower case; of a repeated header
    ``headers`` has the values joined with ``, ``. Of a repeated query parameter the first counts.
    """

    path: str
    raw_path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    subprotocols: Sequence[str] = ()
    client_ip: str | None = None
    secure: bool = False
    certificate: PeerCertificate | None = None
    """What the client has shown when the TLS connection was made, if we made it."""

    def addresses(self, public_url: str | None) -> Sequence[str]:
        """The addresses by which the client may know what it opens, as those of the request that opens it."""
        asked = f"{'https' if self.secure else 'http'}://{self.headers.get('host', '')}{self.raw_path}"
        return (asked,) if public_url is None else (asked, public_url.rstrip("/") + self.raw_path)


class Refused(Struct, frozen=True, kw_only=True):
    """The answer to a refused handshake: plain HTTP, never a 101."""

    status: int
    body: bytes
    headers: Sequence[tuple[str, str]] = (("content-type", "application/problem+json"),)


class Accepted(Struct, frozen=True, kw_only=True):
    """
    The answer to an accepted handshake: the conversation of the socket, and the contents of the 101.

    Messages longer than ``max_message_bytes``, inflated and reassembled, are closed with 1009 before they
    are buffered.
    """

    conversation: "Conversation"
    subprotocol: str | None = None
    headers: Sequence[tuple[str, str]] = ()
    max_message_bytes: int = 10 * 1024


class Socket(Protocol):
    """One open WebSocket as its conversation sees it. Nothing here waits, nothing here raises."""

    def send(self, frames: Sequence[Frame]) -> None:
        """Write whole messages, in order, in one system call if possible. Ignored once closing has begun."""
        ...

    def buffered(self) -> int:
        """Bytes that were sent and that the operating system has not taken yet."""
        ...

    def close(self, code: int, reason: str = "") -> None:
        """
        Begin the closing handshake; what was sent goes first. ``reason`` is cut at 123 bytes.

        The connection is gone within seconds, whether or not the peer answers.
        """
        ...

    def abort(self) -> None:
        """Drop the connection now, without a close frame and without what was still buffered."""
        ...


class Conversation(Protocol):
    """
    What a transport calls for one socket. Calls come in order, one at a time, on the loop.

    ``closed`` is called exactly once, last. Should one of these raise, this socket closes with 1011 and
    no other is touched. Nothing is delivered after ``Socket.close`` or ``Socket.abort`` was called.
    """

    def opened(self, socket: Socket) -> None:
        """The 101 was sent."""
        ...

    def text(self, message: bytes) -> None:
        """A whole text message, inflated, valid UTF-8."""
        ...

    def binary(self, message: bytes) -> None:
        """A whole binary message, inflated."""
        ...

    def writable(self) -> None:
        """``Socket.buffered`` had passed ``HIGH_WATER_BYTES`` and is low again."""
        ...

    def too_big(self) -> None:
        """The client has sent a message that is longer than it may be. The socket is closed with 1009."""
        ...

    def closed(self, code: int) -> None:
        """The connection is gone. ``code`` is the peer's close code, 1005 if it gave none, 1006 without a close."""
        ...


class HandshakeHandler(Protocol):
    """Decides about handshakes: the only way from a transport to the realtime services."""

    async def accept(self, handshake: Handshake) -> Accepted | Refused:
        """Answer a handshake. The transport sets a deadline; any exception becomes a 503."""
        ...
