"""What can be set about a Redis, besides what its URL says."""

from typing import Final

from msgspec import Struct

from roomkey.backends.recovery import RecoverySettings

OLDEST: Final = (6, 2)
"""The oldest Redis that will do: it has exclusive ranges of streams, and ``XTRIM MINID``."""

MAX_CLOCK_DIFFERENCE: Final = 0.5
"""Seconds; beyond it health says so."""


class RedisSettings(Struct, frozen=True, kw_only=True):
    """
    How a Redis is used.

    ``key_prefix`` is what all keys begin with, if the URL does not say.
    """

    key_prefix: str | None = None
    recovery: RecoverySettings = RecoverySettings()
    max_in_flight: int = 10_000
    """Number of commands on their way to a server; whoever has more waits."""
    max_bytes: int = 8 * 2**20
    """Bytes that wait to be written to a server, in the same way."""
    wait_replicas: int = 0
    """Number of replicas that must have a revocation before it is answered. A failover loses nothing they have."""
    wait_seconds: float = 1.0
    """How long it waits for them; after that the revocation is done and its outcome is reported as unknown."""
    allows_eviction: bool = False
    """Whether to start although Redis forgets what it likes when its memory is full (``allkeys-*``)."""
