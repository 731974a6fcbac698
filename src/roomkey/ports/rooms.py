"""The seam between the rooms of a node and whatever carries their messages to other nodes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct


class Position(Struct, frozen=True, gc=False):
    """
    A place in a room's publications: the one with this ``offset``, or before the first if it is 0.

    ``epoch`` is 8 random letters that change when offsets start anew.
    """

    epoch: str
    offset: int


class Publication(Struct, frozen=True, gc=False):
    """
    One message of a room: opaque bytes, and beside them where it stands.

    ``origin`` names the connection that it came from, on whatever node. ``position`` is ``None`` if it is not kept.
    """

    message: bytes
    origin: str
    position: Position | None


class MessageKey(Struct, frozen=True, gc=False):
    """
    What makes a message the same one again: the ``id`` that its ``sender`` (a session) gave it.

    ``content`` is what must then be the same, too: a fingerprint of 64 bits that every node makes alike.
    """

    sender: str
    id: str
    content: int


class Published(Struct, frozen=True, gc=False):
    """Where a message stands; ``repeated`` if it was published before and is not published again."""

    position: Position | None
    repeated: bool = False


class Recovered(Struct, frozen=True):
    """Where a room stands, and everything after the position that was asked for; ``None`` if a part is missing."""

    position: Position
    publications: Sequence[Publication] | None


class Receiver(Protocol):
    """A room of this node."""

    def on_publication(self, publication: Publication) -> None:
        """Take a publication. Called in the order of the positions; must neither wait nor raise."""
        ...


class Broker(Protocol):
    """
    Carries what is published in a room to every node that listens there, and keeps the latest of it.

    There is one order per room, and everybody has it: the sender's own node is given a publication as all others
    are. Offsets of one epoch have no holes; a history that was lost begins a new epoch.

    Calls about one room take effect in the order in which they were begun.

    The coroutines may be begun outside of a task, because a broker in the process answers at once; one that is
    elsewhere must not use ``asyncio.timeout`` before it first waits. All raise ``Storage`` when the broker is away.
    """

    async def publish(
        self, room: str, message: bytes, *, origin: str, keep: bool = True, key: MessageKey | None = None
    ) -> Published:
        """
        Give ``message`` a position, append it to the history, and hand it to every receiver of ``room``.

        Without ``keep`` it reaches whoever listens now and has no position. A message whose ``key`` was published
        within the window is not published again. Publications of one origin stay in the order of the calls.

        Raises:
            Conflict: If the key was used for something else; nothing was published.
        """
        ...

    async def subscribe(self, room: str, receiver: Receiver) -> None:
        """Hand everything that is published in ``room`` from now on to ``receiver``: one for each room and node."""
        ...

    async def unsubscribe(self, room: str) -> None:
        """Nobody on this node listens to ``room`` any more."""
        ...

    async def since(self, room: str, position: Position | None) -> Recovered:
        """
        Where ``room`` stands, and what came after ``position``: all of it, or nothing.

        Whoever joins subscribes first and cuts by offset what it has been handed meanwhile.
        """
        ...

    def tick(self, now: datetime) -> None:
        """Do what time has made due, without waiting. Called several times a second."""
        ...

    def kept_bytes(self) -> int:
        """Bytes of history that are kept in the memory of this process."""
        ...
