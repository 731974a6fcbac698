"""
Where the entries of a person, a session or a key are: so that a search for them does not read the whole log.

The index says of each block of entries which of them are about whom, as the first half of a person's name
(``sealing.Naming``): it can be read by nobody who does not have the key of the deployment. It holds nothing that is not
in the log, and can be made anew.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol

import msgspec

from roomkey.audit.records import Line
from roomkey.audit.sealing import Naming, line_of
from roomkey.errors import Conflict, NotRetained
from roomkey.ports import ObjectStore
from roomkey.ports.objects import ABSENT, MAX_CHANGES

SPACE: Final = "audit-index"

BLOCK: Final = 128
"""Entries of a block. Each is about two persons, a session and a key at most: a block fits into one commit."""

MAX_ROWS_OF_BLOCK: Final = 4 * BLOCK + 1

_DONE: Final = "done"
"""The object that says how many blocks are indexed."""

_TIMES: Final = "times/"
_LAST: Final = 10**12
"""Blocks are numbered downwards in names, because lists go upwards and searches begin with what is new."""


class Entries(Protocol):
    """The log, as far as it is read."""

    async def size(self) -> int:
        """How many entries are recorded. Raises ``Storage``."""
        ...

    async def entries(self, first: int, count: int) -> Sequence[bytes]:
        """
        Up to ``count`` recorded entries from number ``first`` on; none behind the last.

        Raises:
            NotRetained: If they are not shown any more; it says from where on they are.
            Storage: If the store is away.
        """
        ...


class Found(NamedTuple):
    """A block in which there may be something, and where in it, if that is known; empty if there is nothing."""

    block: int
    places: bytes | None


class Span(NamedTuple):
    """The earliest and the latest moment in a block, in seconds since 1970."""

    first: float
    last: float


class SearchIndex:
    """The index on the objects of a storage."""

    def __init__(self, log: Entries, objects: ObjectStore, naming: Naming) -> None:
        self._log = log
        self._objects = objects
        self._naming = naming

    # --- what is looked for ---------------------------------------------------------------------------

    def of_user(self, user: str) -> str:
        """The token of a user."""
        return _token(self._naming(user))

    def of_session(self, session: str) -> str:
        """The token of a session."""
        return _token(self._naming(f"\0session {session}"))

    def of_actor(self, actor: str) -> str:
        """The token of whoever acted and is no user."""
        return _token(self._naming(f"\0{actor}"))

    def tokens(self, line: Line) -> set[str]:
        """Everything by which an entry is found."""
        tokens = {_token(sealed.key) for sealed in line.sealed}
        if line.session is not None:
            tokens.add(self.of_session(line.session))
        if line.actor.startswith("key:"):
            tokens.add(self.of_actor(line.actor))
        return tokens

    # --- making it ------------------------------------------------------------------------------------

    async def build(self) -> int:
        """
        Index the blocks that are full by now, as many as fit into one commit; how many that were.

        Raises:
            Storage: If the store is away or full.
        """
        stored = await self._objects.get(SPACE, _DONE)
        done = first = 0 if stored is None else int(stored.value)
        rows: dict[str, bytes | None] = {}
        size = await self._log.size()
        # The block that is not full yet is not read: there nearly always is one, and nearly always nothing new.
        while (done + 1) * BLOCK <= size and len(rows) + MAX_ROWS_OF_BLOCK < MAX_CHANGES:
            try:
                entries = await self._log.entries(done * BLOCK, BLOCK)
            except NotRetained as error:
                done = -(-error.first // BLOCK)  # searches look at no block that is not shown as a whole
                continue
            if len(entries) < BLOCK:
                break
            rows |= self._rows(done, entries)
            done += 1
        if done > first:
            rows[_DONE] = str(done).encode()
            try:
                await self._objects.commit(SPACE, rows, expected={_DONE: ABSENT if stored is None else stored.revision})
            except Conflict:
                return 0  # another node is at it
        return done - first

    def _rows(self, block: int, entries: Sequence[bytes]) -> Mapping[str, bytes]:
        places: defaultdict[str, bytearray] = defaultdict(bytearray)
        times: list[float] = []
        for place, entry in enumerate(entries):
            line = line_of(entry)
            times.append((line.until or line.at).timestamp())
            times.append(line.at.timestamp())
            for token in self.tokens(line):
                places[f"{token}/"].append(place)
        rows = {_name(prefix, block): bytes(found) for prefix, found in places.items()}
        rows[_name(_TIMES, block)] = msgspec.msgpack.encode(Span(min(times), max(times)))
        return rows

    # --- asking it ------------------------------------------------------------------------------------

    async def blocks(self) -> int:
        """How many blocks are indexed."""
        stored = await self._objects.get(SPACE, _DONE)
        return 0 if stored is None else int(stored.value)

    async def about(self, token: str, below: int) -> AsyncIterator[Found]:
        """The blocks below number ``below`` in which something is about ``token``, from the newest."""
        async for block, value in self._listed(f"{token}/", below):
            yield Found(block, value)

    async def within(self, since: datetime | None, until: datetime | None, below: int) -> AsyncIterator[Found]:
        """The blocks below number ``below``, from the newest; those without a moment between these two are empty."""
        begin = (since or datetime.fromtimestamp(0, UTC)).timestamp()
        end = float("inf") if until is None else until.timestamp()
        async for block, value in self._listed(_TIMES, below):
            first, last = msgspec.msgpack.decode(value, type=Span)
            yield Found(block, None if last >= begin and first < end else b"")

    async def _listed(self, prefix: str, below: int) -> AsyncIterator[tuple[int, bytes]]:
        after = _name(prefix, below)
        while rows := await self._objects.list(SPACE, prefix=prefix, after=after, limit=MAX_CHANGES):
            for row in rows:
                yield _LAST - int(row.name.removeprefix(prefix)), row.value
            if len(rows) < MAX_CHANGES:
                return
            after = rows[-1].name


def _token(name: str) -> str:
    return name[:32]


def _name(prefix: str, block: int) -> str:
    return f"{prefix}{_LAST - block:013d}"
