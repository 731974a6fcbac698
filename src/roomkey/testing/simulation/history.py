"""What was observed at the edges while a history took place: by clients, by operators, by whoever made the faults."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec import Struct

VISITOR: Final = "visitor"
"""How the names begin of those who look into rooms at rest."""


FAILOVER: Final = "failover"
"""The fault in which a store loses what it has acknowledged last."""

CALM: Final = "calm"
"""What is said of a network that is at its best."""


class What(StrEnum):
    """What an observation says. The comments say whose it is, and what the fields mean that are not obvious."""

    BEGIN = "begins"  # text: how the network is
    # --- clients
    CONNECTED = "connected"  # a handshake was accepted: connection, node
    ADMITTED = "admitted"  # the same, and it is known whose it is: session; flag: cannot state a lineage
    REFUSED = "refused"  # number: the status
    CLOSED = "closed"  # number: the close code
    JOINED = "joined"  # the answer to `subscribe`: position, number of publications in it, flag: recovered
    HEARD = "heard"  # a publication: position, text
    SAID = "said"  # a publication is sent: text
    ACKNOWLEDGED = "acknowledged"  # it has a position, text
    LEFT = "left"  # out of a document, whoever wanted it
    CHECKED = "checked"  # a position check of the server; flag: what came before is lost
    TYPED = "typed"  # into a copy: text is the lineage, number the Yjs client, size its clock; node
    SHOWN = "shown"  # of somebody else, in a copy: number is the Yjs client, size up to which clock
    DURABLE = "durable"  # up to that clock
    RESET = "reset"  # the copy was dropped
    SAW = "saw"  # presence: text is who, flag whether there
    SHOWS = "shows"  # what a client shows of itself
    # --- operators
    SIGNED_IN = "signed in"  # session, text: the user
    ASKED = "asked"  # a command begins: text
    DONE = "done"  # it has returned
    FAILED = "failed"  # it has raised
    SERVED = "served"  # a request was let in, by its token: number is when it began, in microseconds
    REDEEMED = "redeemed"  # a one-time value: text
    APPENDED = "appended"  # the store has taken it: number and size as of SHOWN
    FENCED = "fenced"  # the store has accepted what was done under a lease: text what, number the token
    PUBLISHED = "published"  # the broker has given a message its position: text
    # --- faults
    FAULT = "fault"  # it begins: text, node
    OVER = "over"  # it ends
    DEFECT = "defect"  # a service says that it has met something that must not be
    # --- at rest
    REST = "rest"  # nothing happens from here on but what is due anyway
    STORED = "stored"  # a document: text its content, lineage in session; state
    HOLDS = "holds"  # the copy of a client
    HEAD = "head"  # where a room stands
    LIVE = "live"  # sessions of a user: number
    QUEUE = "queue"  # number and its limit: size


class Observation(Struct, frozen=True, omit_defaults=True, gc=False):
    """One line of a history. ``at`` is seconds since it began, by a clock that goes right."""

    at: float
    what: What
    who: str = ""
    node: str = ""
    connection: str = ""
    session: str = ""
    document: str = ""
    lineage: str = ""
    epoch: str = ""
    offset: int = 0
    text: str = ""
    number: int = 0
    size: int = 0
    flag: bool = False
    members: tuple[str, ...] = ()
    state: dict[int, int] = {}

    def __str__(self) -> str:
        words = [f"{self.at:9.3f}", self.who or self.node or "-", self.what]
        if self.epoch:
            words.append(f"{self.epoch}.{self.offset}")
        for name in ("text", "document", "connection", "session", "lineage", "number", "size", "flag", "members"):
            value = getattr(self, name)
            if value:
                words.append(f"{name}={_short(value)}")
        return "  ".join(words)


class History:
    """Observations, in order."""

    def __init__(self) -> None:
        self._observed: list[Observation] = []

    def __iter__(self) -> Iterator[Observation]:
        return iter(self._observed)

    def __len__(self) -> int:
        return len(self._observed)

    def note(self, observation: Observation) -> None:
        """Write down what was observed."""
        self._observed.append(observation)

    def of(self, *kinds: What) -> list[Observation]:
        """The observations of some kinds, in order."""
        return [each for each in self._observed if each.what in kinds]

    def to_bytes(self) -> bytes:
        """All of it: what two runs of one seed have in common, byte for byte."""
        return b"\n".join(map(_encode, self._observed))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_encode = msgspec.json.Encoder().encode
