"""
When, from where and with what a user usually works: less than a kilobyte, without an address or a name in it. Pure.

Networks and programs are in it as keyed hashes that also depend on the user, so that nobody who reads the store can
tell which they are, or whether two users share one. Hours are counts of the 24 hours of a day in UTC that fade.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import Struct

from roomkey.threats.places import Place
from roomkey.threats.signals import Signal

MAX_NETWORKS: Final = 24
MAX_DEVICES: Final = 12

MAX_PATTERN_BYTES: Final = 1024

_HASH_BYTES: Final = 6
"""Of two that were seen and two that were not, one in 10^12 is taken for another; it is only a hint."""

_ONE: Final = 100
"""What one use adds to an hour."""

_FULL: Final = 60_000
_FADES: Final = 0.98
"""Per day: what was a month ago counts about half."""

MIN_DAYS: Final = 7
MIN_USES: Final = 20
"""Before a user was here on so many days, and so often, nothing is unusual."""

_RARE: Final = 0.02
"""An hour with a smaller share of the uses, with those before and after it, is unusual."""


class Pattern(Struct, frozen=True, array_like=True, tag=1):
    """
    The pattern of one user. Hashes are in the order in which they were seen, the latest last.

    ``days`` is on how many days the user was here, ``day`` the last of them, counted from the year 1.
    """

    # The order is a part of what is stored.
    day: int = 0
    days: int = 0
    hours: tuple[int, ...] = (0,) * 24
    networks: tuple[bytes, ...] = ()
    devices: tuple[bytes, ...] = ()

    @property
    def is_established(self) -> bool:
        """Whether it can be said what is usual."""
        return self.days >= MIN_DAYS and sum(self.hours) >= MIN_USES * _ONE


class Use(Struct, frozen=True):
    """A user was here."""

    at: datetime
    network: bytes | None
    device: bytes | None

    @classmethod
    def of(cls, user: str, place: Place, at: datetime, key: bytes) -> "Use":
        """A use of ``user`` at ``place``; ``key`` has 16 to 64 bytes."""
        network = None if place.network is None else place.network.prefix
        return cls(at, _hash(key, user, "network", network), _hash(key, user, "device", place.program))


def unusual(pattern: Pattern, use: Use) -> Iterator[tuple[Signal, str]]:
    """What is unusual for this user about a use, with what it is, for people."""
    if not pattern.is_established:
        return
    if use.network is not None and pattern.networks and use.network not in pattern.networks:
        yield Signal.USER_NETWORK, f"none of {len(pattern.networks)} networks"
    if use.device is not None and pattern.devices and use.device not in pattern.devices:
        yield Signal.USER_DEVICE, f"none of {len(pattern.devices)} devices"
    hour = use.at.hour
    around = sum(pattern.hours[(hour + step) % 24] for step in (-1, 0, 1))
    share = around / sum(pattern.hours)
    if share < _RARE:
        yield Signal.USER_HOURS, f"{hour:02}:00 UTC has {share:.1%} of the uses"


def learnt(pattern: Pattern, use: Use) -> Pattern:
    """The pattern with one use more."""
    day = use.at.toordinal()
    hours = list(pattern.hours)
    if day > pattern.day:
        faded = _FADES ** (day - pattern.day) if pattern.day else 1.0
        hours = [int(count * faded) for count in hours]
    hours[use.at.hour] = min(_FULL, hours[use.at.hour] + _ONE)
    return Pattern(
        day=max(day, pattern.day),
        days=min(pattern.days + (day > pattern.day), 10_000),
        hours=tuple(hours),
        networks=_with(pattern.networks, use.network, MAX_NETWORKS),
        devices=_with(pattern.devices, use.device, MAX_DEVICES),
    )


def is_forgotten(pattern: Pattern, now: datetime, retention: timedelta) -> bool:
    """Whether the user was here so long ago that the pattern is to be deleted."""
    return now.toordinal() - pattern.day > retention / timedelta(days=1)


def encode(pattern: Pattern) -> bytes:
    """The pattern as it is stored."""
    return msgspec.msgpack.encode(pattern)


def decode(stored: bytes) -> Pattern:
    """
    The pattern that ``encode`` made ``stored`` of.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: If it is none.
    """
    return _decoder.decode(stored)


def _with(seen: Sequence[bytes], hash: bytes | None, most: int) -> tuple[bytes, ...]:
    if hash is None or (seen and seen[-1] == hash):
        return tuple(seen)
    return (*(other for other in seen if other != hash), hash)[-most:]


def _hash(key: bytes, user: str, kind: str, value: str | None) -> bytes | None:
    if value is None:
        return None
    return blake2b(f"{kind}\0{user}\0{value}".encode(), key=key, digest_size=_HASH_BYTES).digest()


_decoder = msgspec.msgpack.Decoder(Pattern)
