"""Objects in the memory of one process. No method suspends."""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from roomkey.backends.object_records import ObjectRecords, ObjectRow, check_space, name_of
from roomkey.errors import Conflict
from roomkey.ports import PLAIN_RECORDS, NamedObject, StoredObject
from roomkey.ports.objects import NOTHING_EXPECTED, Changes


class _Space:
    def __init__(self) -> None:
        self.objects: dict[bytes, ObjectRow] = {}
        self.names: list[bytes] = []
        """In order."""

    def put(self, row: ObjectRow) -> None:
        if row.name not in self.objects:
            insort(self.names, row.name)
        self.objects[row.name] = row

    def remove(self, name: bytes) -> None:
        if self.objects.pop(name, None) is not None:
            self.names.remove(name)


class MemoryObjectStore:
    """``ports.ObjectStore`` for one process."""

    def __init__(self) -> None:
        self._spaces: defaultdict[str, _Space] = defaultdict(_Space)
        self._records = ObjectRecords(PLAIN_RECORDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def get(self, space: str, name: str) -> StoredObject | None:
        found = self._space(space).objects.get(name_of(name))
        return None if found is None else StoredObject(found.revision, found.stored)

    async def get_many(self, space: str, names: Sequence[str]) -> list[StoredObject | None]:
        return [await self.get(space, name) for name in names]

    async def list(self, space: str, *, prefix: str = "", after: str = "", limit: int = 100) -> Sequence[NamedObject]:
        return await self._records.listed(self._rows, space, prefix=prefix, after=after, limit=limit)

    async def _rows(self, space: str, start: bytes, end: bytes, limit: int) -> Sequence[ObjectRow]:
        found = self._space(space)
        place = bisect_left(found.names, start)
        last = bisect_left(found.names, end, place)
        return [found.objects[name] for name in found.names[place : min(last, place + limit)]]

    async def commit(self, space: str, changes: Changes, *, expected: Mapping[str, int] = NOTHING_EXPECTED) -> None:
        found, commit = self._space(space), self._records.prepared(space, changes, expected)
        if not commit.agrees({name: row.revision for name in commit.expected if (row := found.objects.get(name))}):
            raise Conflict("somebody else has changed an object first")
        for row in commit.puts:
            found.put(row)
        for name in commit.removed:
            found.remove(name)

    async def ping(self) -> None:
        return None

    def degradations(self) -> Mapping[str, str]:
        return {}

    def _space(self, space: str) -> _Space:
        return self._spaces[check_space(space)]
