"""Signals: what may mean that somebody else uses a session, how much each weighs, and how long. Pure."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from msgspec import Struct

from roomkey.threats.decay import faded


class Signal(StrEnum):
    """What was noticed about a session."""

    NETWORK = "network"
    """It came from a network from which it had not come before."""
    PROGRAM = "program"
    """It came from another family of browsers, or another operating system."""
    KEY = "key"
    """Its token came with another key than the one that it is bound to, or with none."""
    PARALLEL = "parallel"
    """It comes from two networks in turns."""
    PACE = "pace"
    """It sends many times as much as it did before."""
    REJECTED = "rejected"
    """Much of what it sends is refused."""
    USER_HOURS = "user_hours"
    """Its user is hardly ever here at this time of the day."""
    USER_NETWORK = "user_network"
    """Its user has not been seen in this network."""
    USER_DEVICE = "user_device"
    """Its user has not been seen with such a program."""


class Bearing(Struct, frozen=True):
    """How much a signal weighs at most, and the time in which it loses half of that."""

    weight: float
    half_life: timedelta


BEARINGS: Final[Mapping[Signal, Bearing]] = {
    Signal.NETWORK: Bearing(1.0, timedelta(hours=1)),  # phones change theirs all day long
    Signal.PROGRAM: Bearing(4.0, timedelta(hours=12)),
    Signal.KEY: Bearing(6.0, timedelta(hours=24)),
    Signal.PARALLEL: Bearing(3.0, timedelta(hours=2)),
    Signal.PACE: Bearing(1.5, timedelta(minutes=10)),
    Signal.REJECTED: Bearing(1.5, timedelta(minutes=10)),
    Signal.USER_HOURS: Bearing(0.5, timedelta(hours=2)),
    Signal.USER_NETWORK: Bearing(0.5, timedelta(hours=2)),
    Signal.USER_DEVICE: Bearing(1.0, timedelta(hours=12)),
}
"""The score of a session is at most the sum of these weights."""

OF_THE_CLIENT: Final = frozenset({Signal.NETWORK, Signal.PROGRAM, Signal.KEY, Signal.PARALLEL})
"""Signals of a session in two hands; the others say that something is unusual."""

NEWS: Final = 0.25
"""A signal is news if it is stronger than what is left of it by this much."""


class Sign(Struct, frozen=True, array_like=True, gc=False):
    """
    A signal as it was noticed.

    ``strength`` is more than 0, and 1 at most; ``value`` says what was seen, for people.
    """

    # The order is a part of what is stored.
    at: datetime
    strength: float
    value: str


def left_of(signal: Signal, sign: Sign, now: datetime) -> float:
    """How strong the sign is at ``now``."""
    return faded(sign.strength, sign.at, now, BEARINGS[signal].half_life)


def stronger(signal: Signal, one: Sign, other: Sign) -> Sign:
    """
    The one that counts of two signs of the same signal, at whatever later time it is asked.

    The stronger one, and not their sum: whoever notices the same twice, on one node or on two, knows no more. So the
    order in which signs come makes no difference either, and nobody lowers a score by being noticed again.
    """
    at = max(one.at, other.at)
    return max(one, other, key=lambda sign: (left_of(signal, sign, at), sign.at, sign.value))


def is_news(signal: Signal, sign: Sign, before: Sign | None) -> bool:
    """Whether ``sign`` is worth a report beside what was known ``before``."""
    return before is None or sign.strength >= left_of(signal, before, sign.at) + NEWS
