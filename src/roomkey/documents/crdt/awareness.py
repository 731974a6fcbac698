"""
Awareness of a document: the states of Yjs clients, and the connection that each of them belongs to.

The laws of y-protocols: a state is newer if its clock is higher, or equal and the state is ``null``. Ours
beside them: a client belongs to the connection that introduced it, and no other changes or removes it. When
the connection goes, its clients go with it, one clock further, and that is remembered: a client that comes back
sooner than its clock has passed that is told, so that it shows itself anew.

A client that hears that it has gone answers with its state and the next clock, whoever says so. That is a
``reminder``, and the only way to a higher clock: if the server counted one itself, the client's next state would
be lost.

Clients that are connected to another node belong to that node as a whole: it has looked at them, and says when they go.
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import Final, Protocol

from msgspec import Struct

from roomkey.wire.lib0 import GONE, AwarenessEntry

MAX_CLOCK: Final = 2**31
"""
What is said at a higher clock is not taken. A client that moves its cursor ten times a second gets there in seven
years; and when it goes, there is always a next clock, which every library can count.
"""

SHARE: Final = 4
"""One user fills at most one in so many bytes of what may be shown, so that others are seen, too."""

MAX_REMEMBERED: Final = 1_000
"""Maximum number of departed clients remembered per document, the latest ones."""


class Owner(Struct, frozen=True, gc=False):
    """
    Where a client was introduced. Another ``connection`` of the same ``user`` may take it over: that is how a
    client looks that reconnects before its old connection is found dead.
    """

    connection: Hashable
    user: str


class OtherNode(Struct, frozen=True, gc=False):
    """All connections of another node: what clients belong to that are connected there."""

    node: str


class Identity(Protocol):
    """Who a connection is, and what its states may say about that."""

    def concerns(self, state: bytes) -> bool:
        """Whether ``state`` may say something about it."""
        ...

    def identify(self, state: bytes) -> bytes | None:
        """The state as it may be shown; ``None`` if it may not."""
        ...


class AwarenessOutcome(Struct, frozen=True, gc=False):
    """
    The result of an awareness update: entries to pass on to everyone, and entries to send back to its sender.
    ``refused`` says that a state was not taken because it showed somebody else.

    ``has_changed`` says that a state has changed: clients repeat their state every 15 seconds, also without a user
    at the keyboard.
    """

    news: Sequence[AwarenessEntry]
    reminders: Sequence[AwarenessEntry] = ()
    has_changed: bool = False
    refused: bool = False


class _Shown:
    __slots__ = ("entry", "owner")

    def __init__(self, entry: AwarenessEntry, owner: Owner) -> None:
        self.entry = entry
        self.owner = owner


class Awareness:
    """The awareness of one document. Sizes are bytes of JSON."""

    __slots__ = ("_left", "_max_clients", "_max_share", "_max_size", "_max_state", "_shown", "_size", "_size_of")

    def __init__(self, *, max_state: int, max_size: int, max_clients: int) -> None:
        """
        Args:
            max_state: What one client may show.
            max_size: What all of them may show together.
            max_clients: How many one connection may introduce.
        """
        self._max_state = max_state
        self._max_size = max_size
        self._max_share = max(max_state, max_size // SHARE)
        self._max_clients = max_clients
        self._shown: dict[int, _Shown] = {}
        self._left: dict[int, int] = {}
        self._size = 0
        self._size_of: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._shown)

    def entries(self) -> list[AwarenessEntry]:
        """The states of all clients, for joiners."""
        return [shown.entry for shown in self._shown.values()]

    def owner(self, client: int) -> Owner | None:
        """Where the client belongs; ``None`` if it is not shown."""
        shown = self._shown.get(client)
        return None if shown is None else shown.owner

    def owned(self) -> list[tuple[AwarenessEntry, Owner]]:
        """The states of all clients, and where these belong."""
        return [(shown.entry, shown.owner) for shown in self._shown.values()]

    def news(self) -> list[AwarenessEntry]:
        """The states of all clients, and the departed clients: for connections that may still show one of those."""
        return [*self.entries(), *(AwarenessEntry(client, clock, GONE) for client, clock in self._left.items())]

    def knows(self, client: int) -> bool:
        """Whether the client is shown, or was lately."""
        return client in self._shown or client in self._left

    def is_new(self, entry: AwarenessEntry) -> bool:
        """Whether it would show a client that is not shown now."""
        return (
            entry.client not in self._shown
            and not entry.is_gone
            and self._left.get(entry.client, -1) < entry.clock <= MAX_CLOCK
        )

    def reminder(self, client: int) -> tuple[Hashable, AwarenessEntry] | None:
        """What has ``client`` show itself anew, and the connection that it is sent to; ``None`` if it has gone."""
        shown = self._shown.get(client)
        return None if shown is None else (shown.owner.connection, _departed(shown.entry))

    def apply(
        self, entries: Iterable[AwarenessEntry], owner: Owner, identity: Identity | None = None
    ) -> AwarenessOutcome:
        """Take what a connection says about clients, as far as they are its own and ``identity`` allows it."""
        news: list[AwarenessEntry] = []
        reminders: list[AwarenessEntry] = []
        has_changed = refused = False
        for said in entries:
            entry = said if identity is None else self._identified(said, owner, identity)
            if entry is None:
                refused = True
                continue
            shown = self._shown.get(entry.client)
            before = None if shown is None else shown.entry.state
            if self._take(entry, owner):
                news.append(entry)
                has_changed = has_changed or (before is not None and entry.state not in (before, GONE))
                continue
            left = self._left.get(entry.client)
            if left is not None and not entry.is_gone and entry.clock <= left:
                reminders.append(AwarenessEntry(entry.client, left, GONE))
        return AwarenessOutcome(news, reminders, has_changed, refused)

    def _identified(self, entry: AwarenessEntry, owner: Owner, identity: Identity) -> AwarenessEntry | None:
        # Clients repeat the states of others: those are not theirs, and will not be taken.
        if not identity.concerns(entry.state) or not self._may_take(entry, owner):
            return entry
        state = identity.identify(entry.state)
        if state is entry.state:
            return entry
        return None if state is None else AwarenessEntry(entry.client, entry.clock, state)

    def leave(self, connection: Hashable) -> list[AwarenessEntry]:
        """The connection is gone. What the others must be told of its clients."""
        gone = [client for client, shown in self._shown.items() if shown.owner.connection == connection]
        return [self._remove(client) for client in gone]

    def remove(self, clients: Iterable[int]) -> list[AwarenessEntry]:
        """These clients have gone without a word. What the others must be told of them."""
        return [self._remove(client) for client in clients if client in self._shown]

    def _take(self, entry: AwarenessEntry, owner: Owner) -> bool:
        shown = self._shown.get(entry.client)
        if shown is None:
            return self._introduce(entry, owner)
        if not self._may_replace(shown, entry, owner):
            return False
        if entry.is_gone:
            self._forget(entry.client)
            self._remember(entry.client, entry.clock)
            return True
        growth = len(entry.state) - len(shown.entry.state)
        if not self._has_room(growth, entry, owner):
            return False
        self._grow(growth, owner)
        shown.entry, shown.owner = entry, owner
        return True

    def _may_take(self, entry: AwarenessEntry, owner: Owner) -> bool:
        shown = self._shown.get(entry.client)
        return self.is_new(entry) if shown is None else self._may_replace(shown, entry, owner)

    def _may_replace(self, shown: _Shown, entry: AwarenessEntry, owner: Owner) -> bool:
        if entry.clock > MAX_CLOCK:
            return False
        if shown.owner.connection == owner.connection:
            return entry.clock > shown.entry.clock or (entry.clock == shown.entry.clock and entry.is_gone)
        # Another connection takes over only with a newer state: clients repeat the states of others.
        is_newer = entry.clock > shown.entry.clock and not entry.is_gone
        return is_newer and shown.owner.user == owner.user and self._has_place(owner)

    def _introduce(self, entry: AwarenessEntry, owner: Owner) -> bool:
        if not self.is_new(entry):
            return False
        if not self._has_room(len(entry.state), entry, owner) or not self._has_place(owner):
            return False
        self._left.pop(entry.client, None)
        self._shown[entry.client] = _Shown(entry, owner)
        self._grow(len(entry.state), owner)
        return True

    def _has_room(self, growth: int, entry: AwarenessEntry, owner: Owner) -> bool:
        return (
            len(entry.state) <= self._max_state
            and self._size + growth <= self._max_size
            and self._size_of.get(owner.user, 0) + growth <= self._max_share
        )

    def _grow(self, growth: int, owner: Owner) -> None:
        self._size += growth
        self._size_of[owner.user] = self._size_of.get(owner.user, 0) + growth
        if not self._size_of[owner.user]:
            del self._size_of[owner.user]

    def _has_place(self, owner: Owner) -> bool:
        if isinstance(owner.connection, OtherNode):
            return True  # its node has counted
        return sum(shown.owner.connection == owner.connection for shown in self._shown.values()) < self._max_clients

    def _remove(self, client: int) -> AwarenessEntry:
        gone = _departed(self._forget(client))
        self._remember(client, gone.clock)
        return gone

    def _forget(self, client: int) -> AwarenessEntry:
        shown = self._shown.pop(client)
        self._grow(-len(shown.entry.state), shown.owner)
        return shown.entry

    def _remember(self, client: int, clock: int) -> None:
        self._left.pop(client, None)
        self._left[client] = clock
        if len(self._left) > MAX_REMEMBERED:
            del self._left[next(iter(self._left))]


def _departed(entry: AwarenessEntry) -> AwarenessEntry:
    """What is said when the client of ``entry`` has gone without a word."""
    return AwarenessEntry(entry.client, entry.clock + 1, GONE)
