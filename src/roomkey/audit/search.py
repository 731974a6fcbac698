"""Reading the audit log: what it says about somebody, of some kind, or in some time, a page at a time."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from roomkey.audit.index import BLOCK, Entries, Found, SearchIndex
from roomkey.audit.records import USER, Line
from roomkey.audit.sealing import Entry, Sealer, line_of
from roomkey.errors import NotFound, NotRetained

MAX_BLOCKS: Final = 64
"""Blocks that are read for one page."""

MAX_LOOKS: Final = 2_000
"""Blocks whose times are looked at for one page."""


class Wanted(Struct, frozen=True, kw_only=True):
    """
    Which entries: every condition that is given must hold.

    ``type`` is a type, or its first word. ``user`` is who acted or who it is about. ``since`` and ``until`` are about
    when it happened: the former is inclusive.
    """

    type: str | None = None
    user: str | None = None
    session: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class EntryPage(Struct, frozen=True):
    """Some of the entries that were asked for, and the number where to go on; ``None`` if there are no more."""

    entries: Sequence[Entry]
    next: int | None


class Search:
    """
    Searches in the log.

    A page reads ``MAX_BLOCKS`` blocks at most, so that it may have few entries, or none, and is not the last. What is
    asked for by user, session or key is found in the index; whatever that does not cover yet is read.
    """

    def __init__(self, log: Entries, index: SearchIndex, sealer: Sealer) -> None:
        self._log = log
        self._index = index
        self._sealer = sealer

    async def one(self, number: int, *, show: bool) -> Entry:
        """
        One entry.

        Raises:
            NotFound: If there is none with this number, or it is not shown any more.
        """
        found = await self._log.entries(number, 1)
        if not found:
            raise NotFound("the audit log has no such entry")
        return (await self._sealer.open(number, found, show=show))[0]

    async def newest(self, wanted: Wanted, *, below: int, limit: int, show: bool = True) -> EntryPage:
        """
        Entries with a number below ``below``, which there must be, from the newest.

        Raises:
            Storage: If the store is away.
        """
        picked: list[tuple[int, bytes]] = []
        reached, read, looked = below, 0, 0
        async for found in self._candidates(wanted, below):
            looked += 1
            reached = found.block * BLOCK
            if found.places != b"":
                read += 1
                try:
                    picked += reversed(await self._matching(found, wanted, below))
                except NotRetained:  # nor is anything before it
                    reached = 0
                    break
            if len(picked) >= limit or read >= MAX_BLOCKS or looked >= MAX_LOOKS:
                break
        else:
            reached = 0
        if len(picked) > limit:
            picked = picked[:limit]
            reached = picked[-1][0]
        return EntryPage(await self._opened(picked, show=show), reached or None)

    async def oldest(self, wanted: Wanted, *, first: int, limit: int, show: bool = True) -> EntryPage:
        """
        Entries from number ``first`` on, in their order. ``next`` is where to look for what comes later.

        Raises:
            NotRetained: If what has that number is not shown any more.
            Storage: If the store is away.
        """
        picked: list[tuple[int, bytes]] = []
        number = first
        for _ in range(MAX_BLOCKS):
            entries = await self._log.entries(number, BLOCK)
            for entry in entries:
                if self._matches(line_of(entry), wanted):
                    picked.append((number, entry))
                number += 1
                if len(picked) >= limit:
                    return EntryPage(await self._opened(picked, show=show), number)
            if len(entries) < BLOCK:
                break
        return EntryPage(await self._opened(picked, show=show), number)

    async def _candidates(self, wanted: Wanted, below: int) -> AsyncIterator[Found]:
        """Blocks in which something may be, from the newest."""
        indexed = await self._index.blocks()
        last = (below - 1) // BLOCK + 1
        for block in range(last - 1, indexed - 1, -1):
            yield Found(block, None)
        token = self._token(wanted)
        known = min(indexed, last)
        if token is not None:
            async for found in self._index.about(token, known):
                yield found
        elif wanted.since is not None or wanted.until is not None:
            async for some in self._index.within(wanted.since, wanted.until, known):
                yield some
        else:
            for block in range(known - 1, -1, -1):
                yield Found(block, None)

    def _token(self, wanted: Wanted) -> str | None:
        index = self._index
        if wanted.session is not None:
            return index.of_session(wanted.session)
        user = wanted.user or (wanted.actor or "").partition(USER)[2]
        if user:
            return index.of_user(user)
        if wanted.actor is not None and wanted.actor.startswith("key:"):
            return index.of_actor(wanted.actor)
        return None

    async def _matching(self, found: Found, wanted: Wanted, below: int) -> list[tuple[int, bytes]]:
        first = found.block * BLOCK
        entries = await self._log.entries(first, BLOCK)
        places = range(len(entries)) if found.places is None else found.places
        return [
            (first + place, entries[place])
            for place in places
            if first + place < below and self._matches(line_of(entries[place]), wanted)
        ]

    def _matches(self, line: Line, wanted: Wanted) -> bool:
        """Whether an entry meets every condition. For persons their names are compared, which nothing erases."""
        naming = self._sealer.naming
        actor = wanted.actor
        if actor is not None and actor.startswith(USER):
            if line.actor != "user" or not _is_about(line, naming(actor.removeprefix(USER))):
                return False
        elif actor is not None and line.actor != actor:
            return False
        return (
            (wanted.type is None or wanted.type in (line.type, line.type.partition(".")[0]))
            and (wanted.session is None or line.session == wanted.session)
            and (wanted.since is None or (line.until or line.at) >= wanted.since)
            and (wanted.until is None or line.at < wanted.until)
            and (wanted.user is None or _is_about(line, naming(wanted.user)))
        )

    async def _opened(self, picked: Sequence[tuple[int, bytes]], *, show: bool) -> list[Entry]:
        opened = await self._sealer.open(0, [entry for _, entry in picked], show=show)
        return [entry._replace(number=number) for (number, _), entry in zip(picked, opened, strict=True)]


def _is_about(line: Line, name: str) -> bool:
    return any(sealed.key == name for sealed in line.sealed)
