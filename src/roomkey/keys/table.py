"""
The stored keys as this process knows them: who presents one is answered from memory, which is never old.

Storage is asked whether anything has changed, at most every ``REFRESHED_AFTER`` and never for what is presented: a
million wrong keys cost no more reads than one. If it cannot be asked, stored keys open nothing; those of the
configuration do not need it.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from time import monotonic
from typing import Final

import structlog

from roomkey.errors import Serialization, Storage
from roomkey.keys.records import GENERATION, KEY_PREFIX, SPACE, StoredKey, decode
from roomkey.ports import ObjectStore
from roomkey.ports.objects import ABSENT, MAX_CHANGES

REVOKED_WITHIN: Final = timedelta(seconds=1)
"""Age from which nothing is answered from memory: as long as a revoked key may be good on another node."""

REFRESHED_AFTER: Final = timedelta(seconds=0.4)
"""Age from which a table that is in use is read again."""

_log = structlog.get_logger("roomkey.keys")


class KeyTable:
    """The stored keys by the digests of their secrets, for one loop."""

    def __init__(self, objects: ObjectStore, *, now: Callable[[], float] = monotonic) -> None:
        """``now`` is in seconds, on a clock that is never set."""
        self._objects = objects
        self._now = now
        self._revision: int | None = None
        self._read_at = float("-inf")
        self._failed_at = float("-inf")
        self._changes = 0
        self._is_wanted = False
        self._reading: asyncio.Event | None = None
        self._by_name: Mapping[str, StoredKey] = {}
        self._by_digest: Mapping[str, StoredKey] = {}

    @property
    def revision(self) -> int:
        """The revision of the generation of keys that is known here."""
        return ABSENT if self._revision is None else self._revision

    @property
    def by_name(self) -> Mapping[str, StoredKey]:
        """All keys that were there when they were read."""
        return self._by_name

    async def find(self, digest: str) -> StoredKey | None:
        """
        The key with a secret of this ``digest``, expired or not; waits for storage only if what is known is too old.

        Raises:
            Storage: If it is too old, and storage cannot be asked.
        """
        self._is_wanted = True
        if self._age() >= REVOKED_WITHIN.total_seconds():
            await self.refresh(REVOKED_WITHIN)
        return self._by_digest.get(digest)

    async def refresh_if_wanted(self) -> None:
        """Read what has changed, if somebody has asked since the last time: so that who asks need not wait."""
        if self._is_wanted:
            self._is_wanted = False
            await self.refresh(REFRESHED_AFTER)

    async def refresh(self, max_age: timedelta) -> None:
        """
        See that what is known is younger than ``max_age``. Whoever comes while it is read waits for the same.

        Raises:
            Storage: If storage cannot be asked, or could not a moment ago.
        """
        limit = max_age.total_seconds()
        while self._age() >= limit:
            if self._reading is not None:
                await self._reading.wait()
            elif self._now() - self._failed_at < REFRESHED_AFTER.total_seconds():
                raise Storage("the stored API keys cannot be read now")
            else:
                await self._read_once()

    async def read(self) -> None:
        """Know everything that was so when this was called, whoever else reads it. Raises ``Storage``."""
        while True:
            begun, changes = self._now(), self._changes
            head = await self._objects.get(SPACE, GENERATION)
            revision = ABSENT if head is None else head.revision
            listed = None
            if revision != self._revision:
                # Read after the revision, so that it is never older than that says.
                listed = await self._objects.list(SPACE, prefix=KEY_PREFIX, limit=MAX_CHANGES)
            # What this node has changed since then, or another read has seen, must not be undone.
            if changes == self._changes:
                break
        if begun >= self._read_at:
            if listed is not None:
                self._take([each for entry in listed if (each := _readable(entry.name, entry.value)) is not None])
                self._revision = revision
            self._read_at = begun

    def forget(self) -> None:
        """This node has changed something: what is known, and what is being read, is not so any more."""
        self._changes += 1
        self._read_at = float("-inf")

    async def _read_once(self) -> None:
        self._reading = asyncio.Event()
        try:
            await self.read()
        except Storage:
            self._failed_at = self._now()
            raise
        finally:
            self._reading.set()
            self._reading = None

    def _age(self) -> float:
        return self._now() - self._read_at

    def _take(self, keys: list[StoredKey]) -> None:
        former = {key.former.digest: key for key in keys if key.former is not None}
        self._by_name = {key.name: key for key in keys}
        self._by_digest = former | {key.digest: key for key in keys}


def _readable(name: str, value: bytes) -> StoredKey | None:
    """A key that cannot be read, or was put in the place of another, opens nothing, and harms no other."""
    try:
        key = decode(value)
        flaw = None if name == KEY_PREFIX + key.name else f"it is the key {key.name!r}"
    except Serialization as error:
        key, flaw = None, str(error)
    if flaw is not None:
        _log.error("key_unreadable", key=name.removeprefix(KEY_PREFIX), error=flaw)
        return None
    return key
