"""Where ledgers and patterns are kept: one small object per user and kind, under names that nobody can read back."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from roomkey.domain.session import SessionId
from roomkey.errors import Conflict, OutcomeUnknown, Serialization
from roomkey.ports import ObjectStore
from roomkey.ports.objects import ABSENT, MAX_CHANGES
from roomkey.threats import ledger as ledgers
from roomkey.threats import patterns
from roomkey.threats.ledger import Finding, Ledger, News
from roomkey.threats.patterns import Pattern, Use
from roomkey.threats.seen import Latest
from roomkey.threats.settings import ThreatSettings
from roomkey.threats.signals import Signal

LEDGERS: Final = "threats"
PATTERNS: Final = "patterns"

ATTEMPTS: Final = 8

CACHED_PATTERNS: Final = 10_000
"""Patterns of users that are held in memory."""

SWEEP_PAGE: Final = 100
SWEEP_PAUSE_SECONDS: Final = 0.05

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises over damage."""

_log = structlog.get_logger("roomkey.threats")


class Names:
    """What the objects of users are called."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, user: str) -> str:
        """The name for a user: without the key nobody can tell which one it is."""
        return blake2b(user.encode(), key=self._key, digest_size=16, person=b"roomkey users").hexdigest()


class LedgerBook:
    """The ledgers of all users, shared with the other nodes on the same storage."""

    def __init__(self, objects: ObjectStore, names: Names, settings: ThreatSettings) -> None:
        self._objects = objects
        self._names = names
        self._settings = settings

    async def read(self, user: str) -> Ledger:
        """
        The ledger of a user, which may be empty.

        Raises:
            Storage: If it cannot be read now.
            Serialization: If it can never be read.
        """
        return (await self._read(self._names.of(user)))[0]

    async def enter(self, user: str, news: Mapping[SessionId, News], now: datetime) -> list[Finding]:
        """
        Enter what is new, and return what follows from it: once, however many nodes and attempts there are.

        Raises:
            Conflict: If others kept changing the ledger.
            Storage, Serialization: As ``read``; nothing was entered, or it is entered again without consequences.
        """
        name = self._names.of(user)
        for _ in range(ATTEMPTS):
            before, revision = await self._read(name)
            after, findings = ledgers.fold(before, news, now, self._settings)
            if after == before:
                return findings
            value = ledgers.encode(after)
            try:
                await self._objects.commit(LEDGERS, {name: value}, expected={name: revision})
            except Conflict:
                continue
            except OutcomeUnknown:
                stored = await self._objects.get(LEDGERS, name)
                if stored is None or stored.value != value:
                    continue
            return findings
        raise Conflict("others keep changing what is known of the user")

    async def forget(self, user: str) -> None:
        """Delete the ledger of a user."""
        await self._objects.commit(LEDGERS, {self._names.of(user): None})

    async def sweep(self, now: datetime) -> None:
        """Delete ledgers in which nothing counts any more."""
        await _sweep(
            self._objects, LEDGERS, lambda stored: ledgers.is_spent(ledgers.decode(stored), now, self._settings)
        )

    async def _read(self, name: str) -> tuple[Ledger, int]:
        stored = await self._objects.get(LEDGERS, name)
        if stored is None:
            return Ledger(), ABSENT
        try:
            return ledgers.decode(stored.value), stored.revision
        except UNREADABLE as error:
            raise Serialization("the ledger of a user cannot be read") from error


class Oddity(Struct, frozen=True):
    """A use that is unusual for its user."""

    user: str
    session: SessionId
    signal: Signal
    value: str
    at: datetime


class _Known:
    """A pattern as this node knows it, and what it has not written yet."""

    __slots__ = ("pattern", "revision", "unsaved")

    def __init__(self, pattern: Pattern, revision: int) -> None:
        self.pattern = pattern
        self.revision = revision
        self.unsaved: list[Use] = []


class PatternBook:
    """
    The access patterns of all users: read when somebody comes, written now and then, many at a time.

    Nothing is kept here longer than until it is written, so that what another node deletes is gone here, too.
    """

    def __init__(self, objects: ObjectStore, names: Names, settings: ThreatSettings) -> None:
        self._objects = objects
        self._names = names
        self._settings = settings
        self._known: Latest[str, _Known] = Latest(CACHED_PATTERNS)
        self._changed: dict[str, None] = {}

    async def take(self, uses: Sequence[tuple[str, SessionId, Use]]) -> list[Oddity]:
        """
        Learn these uses, each of a user with a session, and return what was unusual about them.

        Raises:
            Storage: If patterns cannot be read now; nothing was learnt.
        """
        await self._load([user for user, _, _ in uses if self._known.get(user) is None])
        oddities: list[Oddity] = []
        for user, session, use in uses:
            known = self._known.get(user)
            if known is None:  # more users at once than are held
                continue
            oddities += [
                Oddity(user, session, signal, value, use.at) for signal, value in patterns.unusual(known.pattern, use)
            ]
            known.pattern = patterns.learnt(known.pattern, use)
            known.unsaved.append(use)
            self._changed[user] = None
        return oddities

    async def save(self) -> None:
        """
        Write what was learnt since.

        Raises:
            Storage: If it cannot be written now; it is kept for the next time.
        """
        while self._changed:
            users = list(self._changed)[:MAX_CHANGES]
            known = {user: held for user in users if (held := self._known.get(user)) is not None}
            try:
                await self._write(known)
            except Conflict:
                await self._learn_again(known)
            for user in users:
                held = self._known.get(user)
                if held is None or not held.unsaved:  # else somebody came meanwhile
                    self._changed.pop(user, None)
                    self._known.pop(user)  # another node may be told to forget it

    async def _write(self, known: Mapping[str, _Known]) -> None:
        names = {user: self._names.of(user) for user in known}
        unsaved = {user: len(held.unsaved) for user, held in known.items()}
        values = {names[user]: patterns.encode(held.pattern) for user, held in known.items()}
        await self._objects.commit(
            PATTERNS, values, expected={names[user]: held.revision for user, held in known.items()}
        )
        stored = await self._objects.get_many(PATTERNS, list(names.values()))
        for (user, held), found in zip(known.items(), stored, strict=True):
            del held.unsaved[: unsaved[user]]
            if found is None or found.value != values[names[user]]:
                self._known.pop(user)  # another node was here in between
            else:
                held.revision = found.revision

    async def _learn_again(self, known: Mapping[str, _Known]) -> None:
        """Other nodes have learnt, too: put what was learnt here on top of that, one user at a time."""
        for user, held in known.items():
            self._known.pop(user)
            await self._load([user])
            fresh = self._known.get(user)
            if fresh is None:
                continue
            if fresh.revision == ABSENT:  # it was deleted, and what was learnt before with it
                self._known.pop(user)
                continue
            for use in held.unsaved:
                fresh.pattern = patterns.learnt(fresh.pattern, use)
            fresh.unsaved = held.unsaved
            try:
                await self._write({user: fresh})
            except Conflict:
                self._known.pop(user)
                _log.info("pattern_not_saved", uses=len(held.unsaved))

    async def forget(self, user: str) -> None:
        """Delete the pattern of a user, here and in the storage."""
        self._known.pop(user)
        self._changed.pop(user, None)
        await self._objects.commit(PATTERNS, {self._names.of(user): None})

    async def sweep(self, now: datetime) -> None:
        """Delete patterns of users who have not been here for long."""
        retention = self._settings.pattern_retention
        await _sweep(
            self._objects, PATTERNS, lambda stored: patterns.is_forgotten(patterns.decode(stored), now, retention)
        )

    async def _load(self, users: Sequence[str]) -> None:
        for start in range(0, len(users), MAX_CHANGES):
            page = list(dict.fromkeys(users[start : start + MAX_CHANGES]))
            stored = await self._objects.get_many(PATTERNS, [self._names.of(user) for user in page])
            for user, found in zip(page, stored, strict=True):
                if found is None:
                    self._known.set(user, _Known(Pattern(), ABSENT))
                else:
                    self._known.set(user, _Known(_pattern(found.value), found.revision))


def _pattern(stored: bytes) -> Pattern:
    """What is no pattern is learnt anew: it is only a hint."""
    try:
        return patterns.decode(stored)
    except UNREADABLE:
        _log.warning("pattern_unreadable")
        return Pattern()


async def _sweep(objects: ObjectStore, space: str, is_over: Callable[[bytes], bool]) -> None:
    """Delete what is over in a space, page by page; what cannot be read is left."""
    after = ""
    while page := await objects.list(space, after=after, limit=SWEEP_PAGE):
        after = page[-1].name
        for each in page:
            try:
                if is_over(each.value):
                    await objects.commit(space, {each.name: None}, expected={each.name: each.revision})
            except Conflict:
                pass  # it is in use after all
            except UNREADABLE:
                _log.warning("object_unreadable", space=space)
        if len(page) == SWEEP_PAGE:
            await asyncio.sleep(SWEEP_PAUSE_SECONDS)
