"""
Rotation of data keys: a new key, everything written anew under it while servers run, and old keys forgotten.

It may be stopped at any moment and begun again: then it goes on with the same key, and what is under it already is only
looked at. The last look at everything begins when no node can write with an old key any more; old keys go only if
nothing needs them after it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from time import monotonic
from typing import Final

from msgspec import Struct, field

from roomkey.encryption.data_keys import DataKeys, DataKeyStore
from roomkey.encryption.records import KEYS_SPACE
from roomkey.encryption.service import Encryption
from roomkey.errors import ConfigurationError, Conflict
from roomkey.ports import Clock, ObjectStore, Repairable, Resealable
from roomkey.ports.objects import ABSENT, SPACES

ROTATION: Final = "rotation"
"""The name of the object that says for which key a rotation was begun and has not ended."""

BATCH: Final = 500
RATE: Final = 20_000

_TRIES: Final = 20

Told = Callable[[str, int], None]
"""Told what is being done, and how many records were looked at in it."""


class Outcome(Struct):
    """
    What a rotation has done. ``left`` are records that cannot be read, ``not_resealable`` stores that cannot do it.

    ``retired`` are the keys that are gone; none if anything may still need them.
    """

    key: bytes
    resealed: int = 0
    left: int = 0
    not_resealable: list[str] = field(default_factory=list[str])
    retired: tuple[bytes, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether everything is under the new key."""
        return not self.left and not self.not_resealable


class Outdated(Struct):
    """
    How many of the records that were ``looked_at`` are not under the key that seals now.

    ``is_all``: they were all looked at. Objects are not; a rotation writes them anew, too.
    """

    looked_at: int = 0
    outdated: int = 0
    is_all: bool = True


async def count_outdated(stores: Iterable[object], seconds: float) -> Outdated:
    """Look at the records of open stores, for so long at most."""
    found, end = Outdated(), monotonic() + seconds
    for store in stores:
        after: bytes | None = b""
        while isinstance(store, Resealable) and after is not None:
            if monotonic() >= end:
                found.is_all = False
                return found
            part = await store.reseal(after, BATCH, only_counts=True)
            after = part.next
            found.looked_at += part.looked_at
            found.outdated += part.resealed + part.left
    return found


class Rotation:
    """One rotation over the stores of a process, which are open, and have the codec of ``encryption``."""

    def __init__(
        self,
        encryption: Encryption,
        objects: ObjectStore,
        stores: Mapping[str, object],
        clock: Clock,
        *,
        rate: int = RATE,
        told: Told = lambda _what, _number: None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """At most ``rate`` records per second are looked at."""
        self._encryption = encryption
        self._objects = objects
        self._keys: DataKeyStore = encryption.data_keys(objects)
        self._stores = stores
        self._clock = clock
        self._rate = rate
        self._told = told
        self._sleep = sleep

    async def run(self) -> Outcome:
        """
        Rotate, or go on with a rotation that was begun.

        Raises:
            ConfigurationError: If there are no data keys.
            Conflict: If another rotation has made a newer key meanwhile, and goes on with everything.
            Storage: If storage or key ring is away: run it again.
        """
        outcome = Outcome(await self._begun())
        outcome.not_resealable = [name for name, store in self._stores.items() if not isinstance(store, Resealable)]
        await self._wait_until_used(outcome.key)
        await self._look_at_all(outcome)  # while old keys are still in use: the rest is less, and soon done
        await self._wait_until_alone(outcome.key)
        outcome.left = 0
        await self._look_at_all(outcome)
        outcome.left += await self._reseal_objects()
        await self._end(outcome)
        return outcome

    # --- the key --------------------------------------------------------------------------------------

    async def _begun(self) -> bytes:
        """The key that everything is to be under: a new one, unless a rotation was begun and has not ended."""
        for _ in range(_TRIES):
            newest = (await self._loaded()).ring.keys[-1].id
            found = await self._objects.get(KEYS_SPACE, ROTATION)
            if found is not None and found.value == newest:
                return newest
            if found is None:
                newest = (await self._keys.add()).ring.keys[-1].id
            revision = ABSENT if found is None else found.revision
            try:
                await self._objects.commit(KEYS_SPACE, {ROTATION: newest}, expected={ROTATION: revision})
            except Conflict:
                continue  # somebody else has begun one
            return newest
        raise Conflict("others begin rotations again and again")

    async def _loaded(self) -> DataKeys:
        keys = await self._keys.load()
        if keys is None:
            raise ConfigurationError("there are no data keys: a server makes them when encryption is on")
        return keys

    async def _wait_until_used(self, key: bytes) -> None:
        """Wait until every node knows the key, and this process seals with it."""
        keys = await self._loaded()
        (stored,) = [each for each in keys.ring.keys if each.id == key]
        await self._wait_until(stored.writes_from - self._clock.now(), "waiting until all nodes know the new key")
        await self._encryption.refresh(self._objects)

    async def _wait_until_alone(self, key: bytes) -> None:
        """Wait until no node can seal with another key: who has not read the keys for so long does not seal at all."""
        keys = await self._loaded()
        (stored,) = [each for each in keys.ring.keys if each.id == key]
        alone = stored.writes_from + self._keys.announcement * 1.25
        await self._wait_until(alone - self._clock.now(), "waiting until no node writes with an old key")

    async def _wait_until(self, time: timedelta, why: str) -> None:
        if time > timedelta():
            self._told(why, 0)
            await self._sleep(time.total_seconds())

    async def _end(self, outcome: Outcome) -> None:
        keys = await self._loaded()
        if keys.ring.keys[-1].id != outcome.key:
            raise Conflict("another rotation has made a newer key meanwhile, and goes on with everything")
        if outcome.is_complete:
            await self._keys.refuse_unsealed()
            outcome.retired = tuple(key.id for key in keys.ring.keys if key.id != outcome.key)
            await self._keys.retire(outcome.retired)
        found = await self._objects.get(KEYS_SPACE, ROTATION)
        if found is not None and found.value == outcome.key:
            with suppress(Conflict):  # somebody else has ended it, too
                await self._objects.commit(KEYS_SPACE, {ROTATION: None}, expected={ROTATION: found.revision})
        await self._encryption.refresh(self._objects)

    # --- the records ----------------------------------------------------------------------------------

    async def _look_at_all(self, outcome: Outcome) -> None:
        for name, store in self._stores.items():
            if isinstance(store, Resealable):
                await self._reseal(name, store, outcome)

    async def _reseal(self, name: str, store: Resealable, outcome: Outcome) -> None:
        after: bytes | None = b""
        looked_at, begun = 0, monotonic()
        while after is not None:
            part = await store.reseal(after, BATCH)
            after = part.next
            outcome.resealed += part.resealed
            outcome.left += part.left
            looked_at += part.looked_at
            self._told(name, looked_at)
            await self._sleep(max(0.0, looked_at / self._rate - (monotonic() - begun)))

    async def _reseal_objects(self) -> int:
        """Write every object anew; how many cannot be read. They are few, and have no other way to a new key."""
        written = 0
        for space in SPACES:
            after = ""
            while space != KEYS_SPACE and (found := await self._objects.list(space, after=after, limit=BATCH)):
                for each in found:
                    try:
                        await self._objects.commit(space, {each.name: each.value}, expected={each.name: each.revision})
                    except Conflict:
                        continue  # whoever was faster has used the new key
                after = found[-1].name
                written += len(found)
                self._told("objects", written)
        return len(await self._objects.damaged()) if isinstance(self._objects, Repairable) else 0
