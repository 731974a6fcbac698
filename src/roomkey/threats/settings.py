"""Settings of the watch over threats."""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum

from msgspec import Struct


class SignalPolicy(StrEnum):
    """What follows when a session's client is not the one that it was."""

    IGNORE = "ignore"
    """Nothing; it is not even looked at."""
    FLAG = "flag"
    """It is reported and counts in the score; the user goes on."""
    CHALLENGE = "challenge"
    """The session is suspended until its user has signed in again and the application resumes it."""
    REVOKE = "revoke"
    """The session is ended."""


class ThreatSettings(Struct, frozen=True, kw_only=True):
    """Violations and how they escalate, changes of clients, anomalies, and access patterns of users."""

    # --- violations -----------------------------------------------------------------------------------
    max_violations: int = 10
    """Violations that count at the same time and end a session."""
    suspend_at: int = 6
    """Violations that count at the same time and suspend a session."""
    warn_at: int = 3
    """Violations that count at the same time and from which the client is warned of each."""
    violation_check_interval: timedelta = timedelta(minutes=1)
    """Time after which one violation is forgiven."""
    weights: Mapping[str, int] = {}
    """How many violations one of a kind counts as, where it is not the default: ``{ forged = 5 }``."""

    # --- changes of clients ---------------------------------------------------------------------------
    on_network_change: SignalPolicy = SignalPolicy.FLAG
    """What follows when a session comes from another network. Phones change theirs all day long."""
    on_program_change: SignalPolicy = SignalPolicy.FLAG
    """What follows when a session comes from another family of browsers or another operating system."""
    on_key_change: SignalPolicy = SignalPolicy.FLAG
    """What follows when the token of a session that is bound to a key comes with another one or none. It opens nothing
    anyway."""
    ipv4_prefix: int = 24
    """Number of bits by which IPv4 networks are told apart."""
    ipv6_prefix: int = 48
    """Number of bits by which IPv6 networks are told apart."""

    # --- the score of signals -------------------------------------------------------------------------
    flag_score: float = 3.0
    """Score from which a session's verdict is ``flag``."""
    challenge_score: float | None = None
    """Score from which a session is suspended until its user has signed in again. Off: signals only flag."""
    invalidate_score: float | None = None
    """Score from which a session is ended. Off: signals only flag."""

    # --- access patterns ------------------------------------------------------------------------------
    patterns: bool = True
    """Whether usual hours, networks and devices of users are kept, as keyed hashes and counts."""
    pattern_retention: timedelta = timedelta(days=90)
    """Time after which the pattern of a user who did not come back is forgotten."""

    def __post_init__(self) -> None:
        if not 0 < self.warn_at <= self.suspend_at <= self.max_violations:
            raise ValueError("warn_at, suspend_at and max_violations must be more than 0, and in this order")
        if self.violation_check_interval <= timedelta():
            raise ValueError("violation_check_interval must be longer than 0s")
        if any(weight < 0 for weight in self.weights.values()):
            raise ValueError("weights must not be less than 0")
        if not 8 <= self.ipv4_prefix <= 32:
            raise ValueError("ipv4_prefix must be 8 to 32")
        if not 16 <= self.ipv6_prefix <= 128:
            raise ValueError("ipv6_prefix must be 16 to 128")
        steps = [score for score in (self.flag_score, self.challenge_score, self.invalidate_score) if score is not None]
        if steps[0] <= 0 or steps != sorted(steps):
            raise ValueError("flag_score, challenge_score and invalidate_score must be more than 0, and in this order")
