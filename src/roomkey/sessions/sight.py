"""
How far a node sees what others do to sessions, and what follows if it does not.

Pure. Moments are seconds of a clock that is never set. Two sources say how far: the log, when it was read to its end,
and the broker, when a message of this node has come back: everything that was said before has then arrived, unless
there was a gap, which only the log fills.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import Enum, auto
from typing import Final

BLIND_AFTER: Final = timedelta(seconds=2)
"""Age of what a node knows from which it counts as blind."""


class Phase(Enum):
    """What a node makes of what it sees."""

    SEEING = auto()
    BLIND = auto()
    """Nobody new is let in; open sockets go on."""
    SHUT = auto()
    """There are no sockets any more."""


class Step(Enum):
    """What has to be done now."""

    LET_NOBODY_IN = auto()
    CLOSE_SOCKETS = auto()
    VERIFY = auto()
    """Let people in again, and ask storage about everybody who is there."""


class View(Enum):
    """How old what the node knows is."""

    FRESH = auto()
    OLD = auto()
    TOO_OLD = auto()


NEXT: Final[Mapping[Phase, Mapping[View, tuple[Phase, Sequence[Step]]]]] = {
    Phase.SEEING: {
        View.FRESH: (Phase.SEEING, ()),
        View.OLD: (Phase.BLIND, (Step.LET_NOBODY_IN,)),
        View.TOO_OLD: (Phase.SHUT, (Step.LET_NOBODY_IN, Step.CLOSE_SOCKETS)),
    },
    Phase.BLIND: {
        View.FRESH: (Phase.SEEING, (Step.VERIFY,)),
        View.OLD: (Phase.BLIND, ()),
        View.TOO_OLD: (Phase.SHUT, (Step.CLOSE_SOCKETS,)),
    },
    Phase.SHUT: {
        View.FRESH: (Phase.SEEING, (Step.VERIFY,)),
        View.OLD: (Phase.SHUT, ()),
        View.TOO_OLD: (Phase.SHUT, ()),
    },
}
"""What follows from how old it is."""


class Sight:
    """What is seen. At first the log has been read, and the broker not been heard."""

    def __init__(self, now: float, *, grace: timedelta, after: timedelta = BLIND_AFTER) -> None:
        self.phase = Phase.SEEING
        self._after = after.total_seconds()
        self._until = self._after + grace.total_seconds()
        self._followed = now
        self._heard = now
        self._gap = now
        self._is_whole = False

    def followed(self, begun: float) -> None:
        """The log was read to its end, which was asked for at ``begun``."""
        self._followed = max(self._followed, begun)
        self._is_whole = self._is_whole or begun >= self._gap

    def gap(self, now: float) -> None:
        """The broker may have missed something until now."""
        self._gap = now
        self._is_whole = False

    def echoed(self, sent: float) -> None:
        """A message came back that was sent at ``sent``."""
        self._heard = max(self._heard, sent)

    def log_age(self, now: float) -> float:
        """Seconds since the log was read to its end."""
        return now - self._followed

    def broker_age(self, now: float) -> float:
        """Seconds since the broker gave back what was sent."""
        return now - self._heard

    def age(self, now: float) -> float:
        """How old what is known is, in seconds."""
        return now - (max(self._followed, self._heard) if self._is_whole else self._followed)

    def look(self, now: float) -> Sequence[Step]:
        """What has to be done, in order."""
        age = self.age(now)
        view = View.FRESH if age < self._after else View.OLD if age < self._until else View.TOO_OLD
        self.phase, steps = NEXT[self.phase][view]
        return steps
