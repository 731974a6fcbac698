"""What the simulated nodes share: stores in memory that can lose what their promise lets them lose."""

import copy
from collections.abc import Callable, Sequence
from typing import Final

from roomkey.backends.memory import MemorySessionStorage
from roomkey.backends.memory.cluster import MemoryNodeRegistry, MemoryPresence
from roomkey.backends.memory.counters import MemoryCounters
from roomkey.backends.memory.documents import MemoryDocumentStore
from roomkey.backends.memory.leases import MemoryLeases
from roomkey.backends.memory.one_time import MemoryOneTime
from roomkey.ports import Clock, DocumentUpdate, DocumentVersion, NewVersion, OneTimeLimits
from roomkey.security.tickets import TICKET_LIMITS
from roomkey.testing.simulation.broker import BrokerServer

SESSION_READS: Final = frozenset(
    {"get", "get_many", "get_with_secret", "events", "heads", "list", "count", "overdue", "ended_before", "statistics"}
    | {"ping"}
)
DOCUMENT_READS: Final = frozenset(
    {"find", "load", "heads", "changes", "updates", "list", "compactable", "versions", "version", "ping"}
)
PRESENCE_READS: Final = frozenset({"here"})
REGISTRY_READS: Final = frozenset({"nodes", "renew"})
PLAIN: Final = frozenset({"degradations"})


class DocumentServer(MemoryDocumentStore):
    """
    A document store that says what was done under a lease.

    ``ignores_fences`` is a defect, for tests of the checker.
    """

    def __init__(self, *, ignores_fences: bool = False) -> None:
        super().__init__()
        self._ignores_fences = ignores_fences
        self.fenced: Callable[[str, str, int], None] = lambda _document, _what, _fence: None
        self.appended: Callable[[str, str, bytes], None] = lambda _document, _lineage, _update: None

    async def append(
        self, name: str, lineage: str, updates: Sequence[DocumentUpdate], *, after: int | None = None
    ) -> int:
        head = await super().append(name, lineage, updates, after=after)
        for update in updates:
            self.appended(name, lineage, update.data)
        return head

    async def compact(
        self, name: str, lineage: str, *, snapshot: bytes, upto: int, authorship: bytes, fence: int | None = None
    ) -> bool:
        checked = None if self._ignores_fences else fence
        done = await super().compact(name, lineage, snapshot=snapshot, upto=upto, authorship=authorship, fence=checked)
        if done:
            self.appended(name, lineage, snapshot)  # it may have more than the log: what is not saved yet
        self._say(name, "compacted", fence)
        return done

    async def keep_version(
        self, name: str, lineage: str, version: NewVersion, *, fence: int | None = None
    ) -> DocumentVersion:
        kept = await super().keep_version(name, lineage, version, fence=None if self._ignores_fences else fence)
        self._say(name, "kept a version", fence)
        return kept

    async def forget_versions(
        self, name: str, lineage: str, numbers: Sequence[int], *, fence: int | None = None
    ) -> int:
        forgotten = await super().forget_versions(name, lineage, numbers, fence=None if self._ignores_fences else fence)
        self._say(name, "forgot versions", fence)
        return forgotten

    def _say(self, name: str, what: str, fence: int | None) -> None:
        if fence is not None:
            self.fenced(name, what, fence)


class Deployment:
    """All stores of a deployment, and a clock that goes right, which is theirs."""

    def __init__(self, clock: Clock, broker: BrokerServer, *, ignores_fences: bool = False) -> None:
        self.clock = clock
        self.sessions = MemorySessionStorage(events_per_partition=64)
        self.documents = DocumentServer(ignores_fences=ignores_fences)
        self.tickets = MemoryOneTime(clock, TICKET_LIMITS)
        self.answers = MemoryOneTime(clock, OneTimeLimits())
        self.leases = MemoryLeases(clock)
        self.counters = MemoryCounters(clock)
        self.registry = MemoryNodeRegistry(clock)
        self.presence = MemoryPresence(self.registry)
        self.broker = broker

    def lose_what_is_shared_in_memory(self) -> None:
        """The server of the broker is started anew: histories are gone, who is shown, and which nodes live."""
        self.broker.lose_everything()
        self.presence.rooms.clear()
        vars(self.registry).update(vars(MemoryNodeRegistry(self.clock)))


class Follower:
    """What a follower of a document store had at one moment: all that is left after a failover."""

    def __init__(self, store: MemoryDocumentStore) -> None:
        self._state = copy.deepcopy({name: vars(store)[name] for name in vars(MemoryDocumentStore())})

    def take_over(self, store: MemoryDocumentStore) -> None:
        """Let ``store`` be as it was when this was made."""
        changes = store._changes  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # this is its other half
        vars(store).update(self._state)
        store._changes = changes + 1  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
