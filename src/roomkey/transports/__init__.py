"""Transports carry frames in and out of sockets, within bounds of time and memory."""

from datetime import timedelta
from typing import Final

from msgspec import Struct

BODY_DEADLINE: Final = "roomkey.body_deadline"
"""An extension in the scope of a request: its server drops a body that does not arrive in time."""

COUNTED: Final = "roomkey.counted"
"""In the scope of a socket: a function that whoever counts its messages by himself calls, so that nobody does twice."""


class TransportSettings(Struct, frozen=True, kw_only=True):
    """Timeouts and limits of every WebSocket transport."""

    handshake_timeout: timedelta = timedelta(seconds=5)
    """Time after which an opening handshake that is still undecided is refused with 503."""
    max_handshakes: int = 1000
    """Maximum number of opening handshakes being decided; the next one is refused with 503."""
    ping_interval: timedelta = timedelta(seconds=25)
    """Time between two pings; many proxies and NAT tables forget a connection that is silent for 30 s."""
    pong_timeout: timedelta = timedelta(seconds=10)
    """Silence after a ping that ends the connection. Less than ``ping_interval``."""
    close_timeout: timedelta = timedelta(seconds=3)
    """Time that a peer has to answer a close frame, and then to close its side of the connection."""
    compression: bool = True
    """Whether permessage-deflate is used when a client offers it."""


class HttpSettings(Struct, frozen=True, kw_only=True):
    """Timeouts and limits of requests that are not whole yet."""

    head_timeout: timedelta = timedelta(seconds=10)
    """Time from connecting, or from the first byte of a further request, to the end of its head."""
    body_timeout: timedelta = timedelta(seconds=30)
    """Time from the end of the head to the end of the body."""
    response_timeout: timedelta = timedelta(seconds=30)
    """Time in which a client must take some of a response that waits for it."""
    max_head_bytes: int = 64 * 1024
    """Maximum size of the request line and headers together."""
    max_waiting: int = 1000
    """Maximum number of connections without a whole request head, or whose client does not read; beyond it the one that
    waits longest is dropped, of the address that has a quarter of them, if one has."""


DEFAULTS: Final = TransportSettings()
