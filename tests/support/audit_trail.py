"""An audit log in memory whose store may fail, and what a test asks of it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from roomkey.audit.records import AuditRecord, Line
from roomkey.audit.sealing import Sealer, line_of
from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.encryption.subjects import SubjectKeys, blind_index
from roomkey.errors import OutcomeUnknown, Storage
from roomkey.ports import NamedObject, StoredObject
from roomkey.ports.objects import NOTHING_EXPECTED, Changes
from roomkey.testing.clock import ManualClock

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class FailingObjects(MemoryObjectStore):
    """Objects that are away, or full, when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.is_full = False
        self.commits_left: int | None = None
        """How many commits there is room for; ``None``: for all."""
        self.lost_answers = 0
        """Commits that will be done without anybody being told."""

    async def get(self, space: str, name: str) -> StoredObject | None:
        self._check()
        return await super().get(space, name)

    async def get_many(self, space: str, names: Sequence[str]) -> list[StoredObject | None]:
        self._check()
        return await super().get_many(space, names)

    async def list(self, space: str, *, prefix: str = "", after: str = "", limit: int = 100) -> Sequence[NamedObject]:
        self._check()
        return await super().list(space, prefix=prefix, after=after, limit=limit)

    async def commit(self, space: str, changes: Changes, *, expected: Mapping[str, int] = NOTHING_EXPECTED) -> None:
        self._check()
        if self.is_full or self.commits_left == 0:
            raise Storage("the disk is full")
        if self.commits_left is not None:
            self.commits_left -= 1
        await super().commit(space, changes, expected=expected)
        if self.lost_answers:
            self.lost_answers -= 1
            raise OutcomeUnknown("the connection broke")

    def _check(self) -> None:
        if self.is_away:
            raise Storage("the store is away")


class ListedLog:
    """A log that is a list, as far as the trail needs one; what it has is as durable as ``objects``."""

    def __init__(self, objects: FailingObjects) -> None:
        self._objects = objects
        self.recorded: list[bytes] = []
        self.batches: list[int] = []
        """How many entries came together."""
        self.reads = 0
        self.remembers_lost_ones = False
        """Whether what nobody was told of is recorded all the same."""

    async def append(self, entries: Sequence[bytes]) -> int:
        try:
            await self._objects.commit("audit", {})
        except OutcomeUnknown:
            if self.remembers_lost_ones:
                self.recorded += entries
            raise
        self.recorded += entries
        self.batches.append(len(entries))
        return len(self.recorded) - len(entries)

    async def size(self) -> int:
        return len(self.recorded)

    async def entries(self, first: int, count: int) -> Sequence[bytes]:
        self.reads += 1
        await self._objects.get("audit", "log")
        return self.recorded[first : first + count]

    async def receipt(self, index: int, *, within: object) -> str:
        del within
        return f"receipt of {index}"

    @property
    def lines(self) -> list[Line]:
        return [line_of(entry) for entry in self.recorded]


class Office:
    """What makes and reads entries: a log, the keys of persons, and a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOON)
        self.objects = FailingObjects()
        self.log = ListedLog(self.objects)
        self.naming = blind_index(b"names of persons")
        self.keys = SubjectKeys(self.objects, self.clock, str)
        self.sealer = Sealer(self.keys, self.naming)

    async def erase(self, person: str) -> None:
        await self.keys.destroy(self.naming(person))

    async def sealed(self, *records: AuditRecord) -> list[bytes]:
        return await self.sealer.seal(records)

    async def personal(self, entry: bytes) -> Mapping[str, Any]:
        return (await self.sealer.open(0, [entry]))[0].personal
