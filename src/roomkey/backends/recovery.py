"""
What every backend with a server behind it does when that server fails: time limits, retries, a circuit breaker.

The error recovery patterns of the specification, in one place. A driver's errors become a ``Failure`` by a function
of the backend; what follows from one is decided here. A failure that the next try repairs is no change of state; one
that callers are told of is logged once, until the server has recovered.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from itertools import count
from time import monotonic
from typing import Final, TypeVar

import structlog
from msgspec import Struct

from roomkey.errors import OutcomeUnknown, RoomkeyError, Storage

_log = structlog.get_logger("roomkey.storage")

T = TypeVar("T")


class Kind(StrEnum):
    """How a server failed."""

    AWAY = "away"
    """Nobody answers at its address, or the connection broke."""
    SLOW = "slow"
    """It did not answer in time."""
    BUSY = "busy"
    """It says that it cannot do this just now: it is loading, a deadlock, too many connections."""
    READ_ONLY = "read-only"
    """It takes no writes: a replica, before everybody has noticed a failover."""
    FULL = "full"
    """Its memory or disk has no room left."""
    REFUSED = "refused"
    """It does not let us in, or not do this: password, rights, certificate."""
    WRONG = "wrong data"
    """What is there is not what Roomkey keeps, or the server cannot do what is needed."""


PASSING: Final = frozenset({Kind.AWAY, Kind.SLOW, Kind.BUSY, Kind.READ_ONLY})
"""What may be over by the next try."""

BREAKING: Final = frozenset({Kind.AWAY, Kind.SLOW})
"""
What makes every further call wait in vain, so that these are refused at once.

All other kinds are answers, and a server that answers so has not done what it was asked for.
"""


class Failure(Struct, frozen=True):
    """
    A failure of a server. ``detail`` is for operators and shows no secret.

    ``is_undone`` says that nothing of what was asked for was done, and nothing will be: it need only be said of a
    server that did not answer.
    """

    kind: Kind
    detail: str
    is_undone: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the server may have done what it was asked for, or may still do it."""
        return self.kind in BREAKING and not self.is_undone


Classify = Callable[[BaseException], Failure | None]
"""What a driver's error says of the server; ``None`` for an error that is not the server's."""


class RecoverySettings(Struct, frozen=True, kw_only=True):
    """Time limits and retries. Seconds; a retry comes after a random time up to a pause that doubles (full jitter)."""

    timeout: float = 5.0
    """Maximum time of one try."""
    tries: int = 4
    first_pause: float = 0.05
    longest_pause: float = 1.0
    breaks_after: int = 5
    """Number of failures in a row after which calls are refused without asking the server."""
    rest: float = 0.5
    """Time until one call may ask a broken server again; it doubles up to ``longest_rest``."""
    longest_rest: float = 5.0
    settles_after: float = 2.0
    """
    Time without a failure after which an answer means that a server is well again which refused something.

    A server whose disk is full answers reads, and these say nothing about writes.
    """


class Breaker:
    """
    Whether it makes sense to ask a server: a circuit breaker with the states closed, open and half-open.

    While it is open, calls are refused; when its rest is over, one call, the probe, may try. Calls that began before
    it opened end while it is open: one that succeeds closes it, one that fails changes nothing.
    """

    def __init__(self, name: str, settings: RecoverySettings, *, now: Callable[[], float] = monotonic) -> None:
        """``name`` says in logs and health which server this is, without a secret."""
        self.name = name
        self._settings = settings
        self._now = now
        self._in_a_row = 0
        self._rest = settings.rest
        self._open_until: float | None = None
        self._is_probing = False
        self._failure: Failure | None = None
        self._failed_at = 0.0
        self._logged: set[Kind] = set()

    def check(self) -> bool:
        """
        Return if the server may be asked, and whether this call is the probe.

        Whoever was let through says ``succeeded``, ``failed`` or ``abandoned``.

        Raises:
            Storage: If it would be in vain.
        """
        if self._open_until is None:
            return False
        if self._is_probing or self._now() < self._open_until:
            raise Storage(self._message())
        self._is_probing = True
        return True

    def succeeded(self) -> None:
        """It answered."""
        if not self._in_a_row and self._failure is None:
            return
        self._close()
        failure = self._failure
        if failure is None:
            return
        if failure.kind in BREAKING or self._now() >= self._failed_at + self._settings.settles_after:
            self._failure = None
            self._logged.clear()
            _log.info("storage_server_recovered", server=self.name)

    def failed(self, failure: Failure, *, is_probe: bool, is_final: bool = True) -> None:
        """It failed; ``is_final`` says that a caller is told of it, because no other try follows."""
        if failure.kind not in BREAKING:
            self._close()  # it answers, after all
        elif self._open_until is None or is_probe:
            self._in_a_row += 1
            if is_probe or self._in_a_row >= self._settings.breaks_after:
                self._open()
        if is_final or self._open_until is not None:
            self._note(failure)

    def abandoned(self, *, is_probe: bool) -> None:
        """Whoever asked was cancelled, and knows nothing."""
        if is_probe:
            self._is_probing = False

    def degradations(self) -> Mapping[str, str]:
        """What is wrong, for health; empty while the server answers."""
        return {} if self._failure is None else {self.name: f"{self._failure.kind.value}: {self._failure.detail}"}

    def _open(self) -> None:
        self._open_until = self._now() + self._rest
        self._rest = min(2 * self._rest, self._settings.longest_rest)
        self._is_probing = False

    def _close(self) -> None:
        self._in_a_row = 0
        self._rest = self._settings.rest
        self._open_until = None
        self._is_probing = False

    def _note(self, failure: Failure) -> None:
        self._failure = failure
        self._failed_at = self._now()
        # Once for each kind: a server in trouble may fail in two ways by turns.
        if failure.kind not in self._logged:
            self._logged.add(failure.kind)
            _log.warning("storage_server_failed", server=self.name, kind=failure.kind.value, detail=failure.detail)

    def _message(self) -> str:
        assert self._failure is not None  # noqa: S101  # it is noted whenever this opens
        return f"{self.name} is {self._failure.kind.value}: {self._failure.detail}"


class Recovery:
    """Calls to one server, each with its time limit, retries and breaker."""

    def __init__(self, name: str, classify: Classify, settings: RecoverySettings | None = None) -> None:
        self.settings = settings or RecoverySettings()
        self.breaker = Breaker(name, self.settings)
        self._classify = classify

    async def call(self, operation: Callable[[], Awaitable[T]], *, may_repeat: bool) -> T:
        """
        What ``operation`` returns.

        It is tried again after a failure that may pass, if nothing was done, or if ``may_repeat`` says that doing it
        twice is the same as once. Whoever passes ``True`` says why in a comment.

        Raises:
            Storage: If the server failed.
            OutcomeUnknown: If it may have done what it was asked for.
        """
        for number in count(1):
            is_probe = self.breaker.check()
            try:
                async with asyncio.timeout(self.settings.timeout):
                    found = await operation()
            except Exception as error:
                failure = self.failure_of(error)
                if failure is None:
                    self._answered(error, is_probe=is_probe)
                    raise
                is_final = number >= self.settings.tries or not self.should_repeat(failure, may_repeat=may_repeat)
                self.breaker.failed(failure, is_probe=is_probe, is_final=is_final)
                if is_final:
                    raise self.error(failure, may_repeat=may_repeat) from error
            except BaseException:
                self.breaker.abandoned(is_probe=is_probe)
                raise
            else:
                self.breaker.succeeded()
                return found
            await asyncio.sleep(self.pause(number))
        raise AssertionError  # the loop has no end of its own

    def failure_of(self, error: BaseException) -> Failure | None:
        """What ``error`` says of the server."""
        if isinstance(error, TimeoutError):
            return Failure(Kind.SLOW, f"no answer within {self.settings.timeout:g} s")
        return self._classify(error)

    @staticmethod
    def should_repeat(failure: Failure, *, may_repeat: bool) -> bool:
        """Whether another try can help, and does no harm."""
        return failure.kind in PASSING and (may_repeat or not failure.is_open)

    def pause(self, number: int) -> float:
        """Seconds before the try after number ``number``: exponential backoff with full jitter."""
        longest = min(self.settings.longest_pause, self.settings.first_pause * 2 ** (number - 1))
        return random.uniform(0, longest)  # noqa: S311  # spread, not secrecy

    def error(self, failure: Failure, *, may_repeat: bool) -> Storage:
        """What callers are told of ``failure``."""
        message = f"{self.breaker.name} is {failure.kind.value}: {failure.detail}"
        if may_repeat or not failure.is_open:
            return Storage(message)
        return OutcomeUnknown(f"{message}; whether it did what it was asked for is not known")

    def _answered(self, error: Exception, *, is_probe: bool) -> None:
        """An error that is not the server's: one of ours is about what it has answered, any other says nothing."""
        if isinstance(error, RoomkeyError) and not isinstance(error, Storage):
            self.breaker.succeeded()
        else:
            self.breaker.abandoned(is_probe=is_probe)
