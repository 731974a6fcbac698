"""Failed authentications: whoever fails too often waits, longer each time, and costs next to nothing meanwhile."""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Final, TypeVar

from roomkey.errors import RateLimited
from roomkey.ports import Rate
from roomkey.security.limits import DEFAULTS, LimitSettings
from roomkey.security.networks import membership, network_of
from roomkey.security.ratelimit import Bucket

CAPACITY: Final = 20_000
"""Networks, sessions within a network, and tokens that were right, that are remembered of each; about 10 MB in all."""

K = TypeVar("K")
V = TypeVar("V")

_LONGEST_ID: Final = 64
"""Longer than any id of ours."""

_FORGIVEN_PER_SECOND: Final = 0.1
"""Wrong tokens of one session from one address."""


class _Failing:
    """What is known of one who failed."""

    __slots__ = ("budget", "refused", "until")

    def __init__(self, rate: Rate) -> None:
        self.budget = Bucket(rate)
        self.refused = 0
        """Failures in a row that there was no budget for."""
        self.until = 0.0


class Attempts:
    """
    Who has failed to authenticate, by network, and by session within a network.

    Nobody is kept waiting, which would hold a task: whoever comes too early is refused at once, told when to come, and
    its token is not looked at. A token that was right before is, so that those who are in go on working when somebody
    behind the same NAT fails. A session has no delay that holds for all networks: its id is no secret, and whoever
    knows it could lock its user out; its secret has more bits than could ever be guessed.
    """

    def __init__(
        self, settings: LimitSettings = DEFAULTS, *, capacity: int = CAPACITY, now: Callable[[], float] = monotonic
    ) -> None:
        """``now`` is in seconds, on a clock that is never set."""
        self._now = now
        self._capacity = capacity
        self._is_exempt = membership(settings.exempt_networks)
        self._first = settings.first_failure_delay.total_seconds()
        self._longest = settings.max_failure_delay.total_seconds()
        self._of_network = Rate(settings.failures_per_second, settings.failure_burst)
        self._of_session = Rate(_FORGIVEN_PER_SECOND, settings.session_failure_burst)
        self._networks: OrderedDict[str, _Failing] = OrderedDict()
        self._sessions: OrderedDict[str, _Failing] = OrderedDict()
        self._right: OrderedDict[int, None] = OrderedDict()
        """Hashes of tokens that were right: those of the interpreter, which have a secret key."""

    def __len__(self) -> int:
        return len(self._networks) + len(self._sessions) + len(self._right)

    def check(self, address: str | None, secret: str) -> None:
        """
        Raise if a token from there may not be looked at yet.

        Raises:
            RateLimited: If so.
        """
        if address is None or not self._networks:
            return
        network = network_of(address)
        failing = self._networks.get(network), self._sessions.get(f"{network} {_claimed(secret)}")
        wait = max((each.until for each in failing if each is not None), default=0.0) - self._now()
        if wait > 0 and hash(secret) not in self._right:
            raise RateLimited("too many credentials from this address were wrong", wait=wait)

    def succeeded(self, secret: str) -> None:
        """The token was right."""
        _put(self._right, hash(secret), None, self._capacity)

    def failed(self, address: str | None, secret: str) -> None:
        """The token was wrong."""
        self._right.pop(hash(secret), None)
        if address is None or self._is_exempt(address):
            return
        network = network_of(address)
        self._fail(self._networks, network, self._of_network)
        if session := _claimed(secret):
            self._fail(self._sessions, f"{network} {session}", self._of_session)

    def _fail(self, known: OrderedDict[str, _Failing], who: str, rate: Rate) -> None:
        now = self._now()
        failing = known.get(who) or _Failing(rate)
        _put(known, who, failing, self._capacity)
        if failing.budget.is_full(now):
            failing.refused = 0
        if failing.budget.take(1.0, now):
            delay = min(self._first * 2.0 ** min(failing.refused, 32), self._longest)
            failing.until = now + delay
            failing.budget.rest(delay, now)  # to wait is not yet to behave well
            failing.refused += 1


def _claimed(secret: str) -> str:
    """The session that a token says it is of; empty if it does not look like one."""
    session, separator, _ = secret.partition(".")
    return session if separator and len(session) <= _LONGEST_ID else ""


def _put(known: OrderedDict[K, V], key: K, value: V, capacity: int) -> None:
    """Remember as the latest, and forget the oldest if there are too many."""
    known[key] = value
    known.move_to_end(key)
    if len(known) > capacity:
        known.popitem(last=False)
