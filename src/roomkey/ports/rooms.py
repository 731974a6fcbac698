"""The seam between a node and whatever joins it to others: what is published, who is shown, who lives."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Protocol, Self

from msgspec import Struct

# --- what is published ----------------------------------------------------------------------------------


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

    def on_gap(self) -> None:
        """
        Publications may be missing from here on, because the broker was away or its history is another one.

        Those with a position can be had with ``since``; of the others nobody knows. Must neither wait nor raise.
        """
        ...


class Broker(Protocol):
    """
    Carries what is published in a room to every node that listens there, and keeps the latest of it.

    There is one order per room, and everybody has it: the sender's own node is given a publication as all others
    are. Offsets of one epoch have no holes; a history that was lost begins a new epoch. A receiver that may have missed
    something is told with ``on_gap``, as soon as it is handed publications again.

    A broker is an async context manager: it is usable after entering, and closed on leaving. Calls about one room take
    effect in the order in which they were begun.

    The coroutines may be begun outside of a task, because a broker in the process answers at once; one that is
    elsewhere must not use ``asyncio.timeout`` before it first waits. All raise ``Storage`` when the broker is away.
    """

    shared: bool
    """Whether it reaches other nodes."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

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

    def degradations(self) -> Mapping[str, str]:
        """What is wrong with what it stands on, by name, and why; empty if nothing. Asks nobody."""
        ...


# --- who is shown ---------------------------------------------------------------------------------------


class Presence(Struct, frozen=True, gc=False):
    """
    That somebody is in a room: ``member`` (a session, or whatever is counted) by way of ``node``.

    ``shown`` is what the others are told of it: opaque bytes.
    """

    node: str
    member: str
    shown: bytes


class PresenceChange(Struct, frozen=True, gc=False):
    """What this node shows of ``member`` in ``room`` from now on; nothing any more if ``shown`` is ``None``."""

    room: str
    member: str
    shown: bytes | None


class PresenceStore(Protocol):
    """
    Who is in which room, on all nodes.

    What a node has said stands as long as it lives, see ``NodeRegistry``: nobody is in a room by way of a node whose
    lease is over. All methods raise ``Storage`` when the store is away.
    """

    async def change(self, changes: Sequence[PresenceChange]) -> None:
        """
        Say what this node shows, in order: the last of one member in one room holds.

        Each is one atomic step. Saying the same again does not matter.
        """
        ...

    async def here(self, room: str) -> Sequence[Presence]:
        """Who is in ``room``, by way of any node that lives, this one too."""
        ...

    async def forget(self, node: str) -> None:
        """Remove what a node has said that does not live any more. Repetitions do not matter."""
        ...


# --- who lives ------------------------------------------------------------------------------------------


class NodeStatus(Struct, frozen=True, kw_only=True):
    """
    A node as it describes itself: what an operator wants to know.

    ``id`` is another one after each start. ``address`` is where its server listens. ``sockets`` and ``rooms``
    are how many it has open, ``lag_ms`` is how far it is behind the event log at most. ``messages`` are the
    versions of messages between nodes that it reads.
    """

    id: str
    version: str
    started_at: datetime
    address: str = ""
    sockets: int = 0
    rooms: int = 0
    lag_ms: int = 0
    draining: bool = False
    messages: Collection[int] = (1,)


class NodeRegistry(Protocol):
    """
    Which nodes live: those that have said so within the lifetime that they gave themselves.

    Time is the store's. All methods raise ``Storage`` when the registry is away.
    """

    async def renew(self, status: NodeStatus, lifetime: timedelta) -> Sequence[NodeStatus]:
        """Say that this node lives, for ``lifetime`` from now; returns all that live, this one too, by their ids."""
        ...

    async def leave(self, id: str) -> None:
        """This node lives no more: what it has said in a ``PresenceStore`` does not stand any more."""
        ...

    async def nodes(self) -> Sequence[NodeStatus]:
        """All nodes that live, by their ids."""
        ...


# --- all of it ------------------------------------------------------------------------------------------


class Cluster(Struct, frozen=True):
    """What joins this node to the others. All of it is usable while ``broker`` is entered."""

    broker: Broker
    presence: PresenceStore
    nodes: NodeRegistry
