"""
Commits that are made once, though their answers get lost, and that others notice.

Every transaction counts up a row that one write at a time has to itself. When the answer of COMMIT is lost, the write
is tried again; if it was made after all, the row has gone on, and nothing is done twice. Whoever wants to know whether
anything was written at all adds up the rows: nobody waits for anybody to count.
"""

from collections.abc import Awaitable, Callable
from secrets import randbits
from time import time
from typing import Final, NamedTuple, TypeVar

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.sql.database import Database
from roomkey.backends.sql.statements import Query, load, run, touched
from roomkey.errors import Storage

T = TypeVar("T")

DAYS_KEPT: Final = 7
"""Days after which a row that counts no more is added to that of all who are gone."""

_DAY_SECONDS: Final = 24 * 60 * 60


class _Queries(NamedTuple):
    go_on: Query
    begin: Query
    writes_of: Query
    writes: Query
    inherit: Query
    forget: Query
    touch: Query


class _Slot(Struct):
    """A row of ours, and what it says."""

    number: int
    writes: int = 0


class Writers:
    """The writes of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = load("document_writers", database.dialect, _Queries)
        self._writer = 1 + randbits(62)  # 0 has what is left of those who are gone
        self._free: list[_Slot] = []
        self._slots = 0

    async def write(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """
        What ``work`` returns, once it is committed.

        Raises:
            Storage: If it was not committed, or, very seldom, if that is not known.
        """
        slot = self._free.pop() if self._free else self._new_slot()
        found: list[T] = []  # what the last try whose turn it was has come to

        async def counted(connection: AsyncConnection) -> T:
            if not await self._count(connection, slot):
                if found:
                    return found[0]  # it was committed, only the answer was lost
                raise Storage("the database has gone back to an earlier state")
            found[:] = [await work(connection)]
            return found[0]

        try:
            # May be repeated: what was committed is not done again, because the slot has gone on. A former try that
            # is still on its way holds the row, so this one waits for its end.
            outcome = await self._database.write(counted, may_repeat=True)
        except Storage:
            raise  # whether the slot has gone on is not known, so it is not used any more
        except Exception:
            self._free.append(slot)
            raise
        slot.writes += 1
        self._free.append(slot)
        return outcome

    def _new_slot(self) -> _Slot:
        self._slots += 1
        return _Slot(self._slots)

    async def _count(self, connection: AsyncConnection, slot: _Slot) -> bool:
        """Let the slot go on; ``False`` if it has done so already."""
        place, after = (self._writer, slot.number), slot.writes + 1
        if slot.writes and await touched(connection, self._queries.go_on, after, _today(), *place, slot.writes):
            return True
        # It is new, or was idle for so long that it was forgotten, or it has gone on.
        return bool(await touched(connection, self._queries.begin, *place, after, _today()))

    async def writes(self) -> int:
        """How many commits there were, of all writers."""
        ((writes,),) = await self._database.read(lambda connection: run(connection, self._queries.writes))
        return int(writes)

    async def ping(self) -> None:
        """Write something that changes nothing."""
        # May be repeated: it changes nothing.
        await self._database.write(lambda connection: run(connection, self._queries.touch), may_repeat=True)

    async def forget(self) -> None:
        """Add up the rows of those who have not written for days."""
        before = _today() - DAYS_KEPT

        async def work(connection: AsyncConnection) -> None:
            await run(connection, self._queries.inherit, before)
            await run(connection, self._queries.forget, before)

        # May be repeated: what is gone is not added again.
        await self._database.write(work, may_repeat=True)


def _today() -> int:
    return int(time()) // _DAY_SECONDS
