"""What finds sessions in memory: the ids of a partition in their order, and deadlines."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from heapq import heappop, heappush
from itertools import islice

from roomkey.domain.session import SessionId


class SortedIds:
    """The ids of one partition. They are sorted when somebody lists them, not when they are added."""

    __slots__ = ("_gone", "_ids", "_sorted")

    def __init__(self) -> None:
        self._ids: list[SessionId] = []
        self._gone = 0
        self._sorted = True

    def add(self, id: SessionId) -> None:
        """Take in an id that is not in it."""
        self._ids.append(id)
        self._sorted = False

    def remove(self, existing: Mapping[SessionId, object]) -> None:
        """Account for one removal; the list is cleaned when half of it is gone."""
        self._gone += 1
        if self._gone > 16 and self._gone * 2 > len(self._ids):
            self._ids = [id for id in self._ids if id in existing]
            self._gone = 0

    def discard(self, id: SessionId) -> None:
        """Remove an id at once, so that it may be added again."""
        self._ids = [each for each in self._ids if each != id]

    def after(self, cursor: str | None) -> list[SessionId]:
        """The ids behind ``cursor`` in their order; some may be gone."""
        if not self._sorted:
            self._ids.sort()
            self._sorted = True
        return self._ids if cursor is None else self._ids[bisect_right(self._ids, cursor) :]


class Deadlines:
    """
    Sessions by the second of their deadline.

    An entry may be early, because activity moves deadlines without telling; it is moved when its second has
    come. Entries of sessions that ended are dropped then, or sooner when they become the majority.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, list[SessionId]] = {}
        self._seconds: list[int] = []  # a heap of the keys
        self._size = 0
        self._stale = 0
        self._to_clean: Iterator[int] = iter(())

    def add(self, id: SessionId, due: datetime) -> None:
        """Take in a session that is due then."""
        second = int(due.timestamp())
        bucket = self._buckets.get(second)
        if bucket is None:
            self._buckets[second] = [id]
            heappush(self._seconds, second)
        else:
            bucket.append(id)
        self._size += 1

    def forget(self, due: Callable[[SessionId], datetime | None]) -> None:
        """One entry has become useless. Once they are the majority, each call cleans one bucket."""
        self._stale += 1
        if self._stale < 1024 or self._stale * 2 < self._size:
            return
        second = next(self._to_clean, None)
        if second is None:
            self._to_clean = iter(list(self._buckets))
            return
        bucket = self._buckets.get(second)
        if bucket:
            self._keep(second, [id for id in bucket if due(id) is not None])

    def due(self, now: datetime, limit: int, due: Callable[[SessionId], datetime | None]) -> list[SessionId]:
        """Up to ``limit`` ids whose deadline has come, by the second; they stay until they have none."""
        found: dict[SessionId, None] = {}
        visited: list[int] = []
        last = int(now.timestamp())
        while self._seconds and self._seconds[0] <= last and len(found) < limit:
            second = heappop(self._seconds)
            visited.append(second)
            entries = dict.fromkeys(self._buckets[second])
            self._keep(second, [id for id in entries if self._still_due(id, second, due(id))])
            ripe = (id for id in self._buckets[second] if (when := due(id)) is not None and when <= now)
            found.update(dict.fromkeys(islice(ripe, limit - len(found))))
        for second in visited:
            if self._buckets[second]:
                heappush(self._seconds, second)
            else:
                del self._buckets[second]
        return list(found)

    def _still_due(self, id: SessionId, second: int, when: datetime | None) -> bool:
        if when is None:
            return False
        if int(when.timestamp()) > second:
            self.add(id, when)
            return False
        return True

    def _keep(self, second: int, ids: list[SessionId]) -> None:
        dropped = len(self._buckets[second]) - len(ids)
        self._buckets[second] = ids
        self._size -= dropped
        self._stale = max(0, self._stale - dropped)
