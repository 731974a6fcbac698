"""Values of one use in a database of SQL, by its clock. They may contain secrets, so they are sealed."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from hashlib import sha256
from time import monotonic
from typing import Final, TypeVar

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.sealing import Seal
from roomkey.backends.sql.database import Database
from roomkey.backends.sql.shared_queries import MICROSECOND, SharedQueries
from roomkey.backends.sql.statements import run, touched
from roomkey.errors import Conflict, Storage
from roomkey.ports import OneTimeLimits

ENTRY_OVERHEAD_BYTES: Final = 1024
"""What an entry costs besides its value, generously: so that many small ones are bounded, too."""

FORGOTTEN_AT_A_TIME: Final = 500

FORGETTING_SECONDS: Final = 1.0
"""Time between two looks of a process for what is overdue."""

MAX_NODES: Final = 16
"""So many nodes that are as busy as this one may add while it does not count what is there."""

COUNTING_SECONDS: Final = 1.0
"""Time after which a process counts again, however few values it has added."""

MAX_ROUNDS: Final = 100
"""How often a change is made anew because others were faster. Each time, somebody got somewhere."""

T = TypeVar("T")


class _Again(Conflict):
    """Somebody else was faster: nothing was written, and it has to be looked at again."""


class _New(Struct, frozen=True):
    """A value that is to be kept: the hashes of its key and owner, and what is stored."""

    id: bytes
    owner: bytes | None
    pinned: bool
    lifetime: int
    size: int
    sealed: bytes


class DatabaseOneTime:
    """
    ``ports.OneTime`` in a database, which has to be entered, for one ``purpose`` of at most 16 characters.

    While there is much room, it is counted now and then, not with every value; so the limits may be exceeded by a
    little when many nodes add at the same moment.
    """

    def __init__(self, database: Database, purpose: str, limits: OneTimeLimits, seal: Seal) -> None:
        self._database = database
        self._purpose = purpose.encode()
        self._limits = limits
        self._seal = seal
        self._queries = SharedQueries.of(database.dialect)
        self._forgot_at = -FORGETTING_SECONDS
        self._counts_at = 0.0
        self._uncounted = 0
        """How many may be added until it is counted again."""

    async def add(
        self, key: str, value: bytes, lifetime: timedelta, *, owner: str | None = None, pinned: bool = False
    ) -> bytes | None:
        await self._forget_overdue()
        id = _hash(key)
        new = _New(
            id,
            None if owner is None else _hash(owner),
            pinned,
            lifetime // MICROSECOND,
            ENTRY_OVERHEAD_BYTES + len(value),
            self._seal.seal(id, value),
        )

        async def work(connection: AsyncConnection) -> bytes | None:
            now = await self._queries.time(connection)
            rows = await run(connection, self._queries.value, self._purpose, id)
            if rows and rows[0][2] <= now:
                await run(connection, self._queries.take, rows[0][0])
            elif rows:
                # No two values are sealed alike, so this one was stored by the try before.
                return None if rows[0][3] == new.sealed else self._seal.open(id, rows[0][3])
            await self._keep(connection, new, now)
            return None

        return await self._change(work)

    async def take(self, key: str, *, expected: bytes | None = None) -> bytes | None:
        id = _hash(key)

        async def work(connection: AsyncConnection) -> bytes | None:
            rows = await run(connection, self._queries.value, self._purpose, id)
            if not rows:
                return None
            number, _, ends, sealed = rows[0]
            value = self._seal.open(id, sealed)
            if expected not in (None, value):
                return None
            if not await touched(connection, self._queries.take, number):
                return None
            return value if ends > await self._queries.time(connection) else None

        # Not repeated: nobody could say whether it was us or somebody else who has taken it.
        return await self._database.write(work, may_repeat=False)

    async def replace(self, key: str, expected: bytes, value: bytes, lifetime: timedelta) -> bool:
        id = _hash(key)
        sealed = self._seal.seal(id, value)

        async def work(connection: AsyncConnection) -> bool:
            rows = await run(connection, self._queries.value, self._purpose, id)
            if not rows:
                return False
            number, owner, ends, present = rows[0]
            if present == sealed:
                return True  # as with `add`
            now = await self._queries.time(connection)
            if ends <= now or self._seal.open(id, present) != expected:
                return False
            if not await touched(connection, self._queries.take, number):
                raise _Again("somebody else has taken it")
            size = ENTRY_OVERHEAD_BYTES + len(value)
            await self._keep(connection, _New(id, owner, False, lifetime // MICROSECOND, size, sealed), now)
            return True

        return await self._change(work)

    async def _change(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        for _ in range(MAX_ROUNDS):
            try:
                # May be repeated: what is stored says itself whether we have stored it.
                return await self._database.write(work, may_repeat=True)
            except _Again:
                continue
        raise Storage("others change the value all the time")

    async def _keep(self, connection: AsyncConnection, new: _New, now: int) -> None:
        row = new.id, new.owner, int(new.pinned), new.size, now + new.lifetime, new.sealed
        if not await touched(connection, self._queries.add, self._purpose, *row):
            raise _Again("somebody else has added it")
        if new.owner is not None and self._limits.entries_per_owner is not None:
            await self._make_room_of(connection, new.owner, self._limits.entries_per_owner, now)
        await self._make_room(connection, now)

    async def _make_room_of(self, connection: AsyncConnection, owner: bytes, limit: int, now: int) -> None:
        rows = await run(connection, self._queries.of_owner, self._purpose, owner, now)
        oldest = [number for number, pinned in rows if not pinned]
        await self._forget(connection, oldest[: max(0, len(rows) - limit)])

    async def _make_room(self, connection: AsyncConnection, now: int) -> None:
        if self._uncounted > 0 and monotonic() < self._counts_at:
            self._uncounted -= 1
            return
        ((entries, size),) = await run(connection, self._queries.totals, self._purpose, now)
        too_many = _excess(entries, self._limits.entries)
        too_large = _excess(int(size), self._limits.bytes)
        while too_many > 0 or too_large > 0:
            rows = await run(connection, self._queries.oldest, self._purpose, now, FORGOTTEN_AT_A_TIME)
            numbers: list[int] = []
            for number, bytes in rows:
                if too_many <= 0 and too_large <= 0:
                    break
                numbers.append(number)
                too_many -= 1
                too_large -= bytes
            await self._forget(connection, numbers)
            if len(rows) < FORGOTTEN_AT_A_TIME:
                break
        self._count_later(-too_many, -too_large)

    def _count_later(self, entries: float, size: float) -> None:
        """So much room is left."""
        self._uncounted = int(min(entries, size / (8 * ENTRY_OVERHEAD_BYTES), 10_000) / MAX_NODES)
        self._counts_at = monotonic() + COUNTING_SECONDS

    async def _forget(self, connection: AsyncConnection, numbers: list[int]) -> None:
        if numbers:
            await run(connection, self._queries.forget, numbers)

    async def _forget_overdue(self) -> None:
        """Now and then; of several processes any may do it."""
        if monotonic() < self._forgot_at + FORGETTING_SECONDS:
            return
        self._forgot_at = monotonic()

        async def work(connection: AsyncConnection) -> None:
            now = await self._queries.time(connection)
            rows = await run(connection, self._queries.overdue, self._purpose, now, FORGOTTEN_AT_A_TIME)
            await self._forget(connection, sorted(number for (number,) in rows))

        # May be repeated: what is gone cannot be forgotten again.
        await self._database.write(work, may_repeat=True)


def _hash(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


def _excess(amount: int, limit: int | None) -> float:
    return float("-inf") if limit is None else amount - limit
