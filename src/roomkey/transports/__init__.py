"""How frames get in and out of a socket, and what is waited for and bounded while they do."""

from datetime import timedelta
from typing import Final

from msgspec import Struct

BODY_DEADLINE: Final = "roomkey.body_deadline"
"""An extension in the scope of a request: its server drops a body that does not arrive in time."""

HIGH_WATER_BYTES: Final = 64 * 1024
"""A socket with more than this unsent is told when it can be written to again."""


class TransportSettings(Struct, frozen=True, kw_only=True):
    """What every WebSocket transport waits for, and how much of it at once."""

    handshake_timeout: timedelta = timedelta(seconds=5)
    """An opening handshake that is not decided by then is refused with 503."""
    max_handshakes: int = 1000
    """Opening handshakes that are being decided at a time; the next one is refused with 503."""
    ping_interval: timedelta = timedelta(seconds=25)
    """Below the 30 s after which many proxies and NAT tables forget a silent connection."""
    pong_timeout: timedelta = timedelta(seconds=10)
    """A peer of whom nothing is heard for so long after a ping is dead. Less than ``ping_interval``."""
    close_timeout: timedelta = timedelta(seconds=3)
    """How long a peer may take to answer our close, and to close its side of the connection after both."""
    compression: bool = True
    """Whether permessage-deflate is agreed to when a client offers it."""


DEFAULTS: Final = TransportSettings()
