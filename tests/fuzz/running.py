"""One target at a time: inputs until the time is over, and whatever is not allowed is a finding."""

import resource
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from random import Random
from types import FrameType
from typing import Final

from msgspec import Struct

from tests.fuzz.mutation import mutate
from tests.fuzz.target import Target

HANG_SECONDS: Final = 1.0
MAX_GROWTH_KIB: Final = 128 * 1024
CORPUS: Final = 200
"""Inputs that were accepted, and are mutated further: they stay small."""


class Hang(BaseException):
    """One input took longer than ``HANG_SECONDS`` of computing: on a busy machine more time may pass."""


class Finding(Struct, frozen=True):
    """An input with which something else came out than is allowed."""

    data: bytes
    what: str


class Outcome(Struct, frozen=True):
    """What became of one target: inputs tried and accepted, and the first finding."""

    tried: int
    accepted: int
    finding: Finding | None


def fuzz(target: Target, random: Random, goes_on: Callable[[int], bool]) -> Outcome:
    """Try inputs as long as ``goes_on``, which is told their number, and nothing is found."""
    corpus = list(target.seeds)
    accepted = tried = 0
    memory = _peak()
    with _alarm():
        while goes_on(tried):
            # The seeds first: a target whose seeds all fail would find nothing.
            data = corpus[tried] if tried < len(target.seeds) else mutate(random.choice(corpus), corpus, random)
            tried += 1
            finding, is_accepted = attempt(target, data)
            if finding is None and _peak() - memory > MAX_GROWTH_KIB:
                finding = Finding(data, "memory grows")
            if finding is not None:
                return Outcome(tried, accepted, finding)
            if is_accepted:
                accepted += 1
                if len(data) <= 2_000:
                    corpus.insert(random.randrange(len(corpus) + 1), data)
                    del corpus[CORPUS:]
    return Outcome(tried, accepted, None)


def attempt(target: Target, data: bytes) -> tuple[Finding | None, bool]:
    """Try one input: what was found, and whether it was accepted."""
    signal.setitimer(signal.ITIMER_PROF, HANG_SECONDS)
    try:
        target.parse(data)
    except target.allowed:
        return None, False
    except Hang:
        return Finding(data, "it hangs"), False
    except BaseException as error:  # whatever it is, it is what is looked for; panics are no Exceptions
        if isinstance(error, KeyboardInterrupt):
            raise
        return Finding(data, f"{type(error).__name__}: {str(error)[:200]}"), False
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return None, True


@contextmanager
def _alarm() -> Generator[None]:
    def ring(_number: int, _frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGPROF, ring)
    try:
        yield
    finally:
        signal.signal(signal.SIGPROF, before)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
