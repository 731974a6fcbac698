"""
Data keys: made at random, wrapped by a key ring, and kept in the storage in one object that all nodes read.

A new key is announced before it is used: nodes look for keys some times within the announcement, and nobody seals with
one before it has passed, so that all know it by then. The object is authenticated as a whole, under a key that is
wrapped in it, too; a storage that shows an older one can only be noticed by what is not in it.
"""

import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from os import urandom
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from roomkey.encryption.records import ID_BYTES, KEYS_SPACE
from roomkey.errors import ConfigurationError, Conflict, Serialization
from roomkey.ports import Clock, KeyRing, ObjectStore, WrappedKey
from roomkey.ports.objects import ABSENT

RING: Final = "data-keys"
"""The name of the object."""

ANNOUNCEMENT: Final = timedelta(seconds=60)
REFRESHES: Final = 6
"""How often within an announcement nodes look for keys."""

KEY_BYTES: Final = 32
MAX_KEYS: Final = 1_000

_TRIES: Final = 20
_SUM_BYTES: Final = 32


class StoredKey(Struct, frozen=True, array_like=True):
    """A data key as it lies in the storage; nodes seal with it from ``writes_from`` on."""

    id: bytes
    wrapped_by: str
    wrapped: bytes
    created_at: datetime
    writes_from: datetime


class Users(StrEnum):
    """
    What a storage knows users by, which is decided once, before anything is written with the keys.

    ``HIDDEN``: by names that say nothing. ``READABLE``: by their ids, because it was in use before it had keys.
    """

    UNDECIDED = "undecided"
    READABLE = "readable"
    HIDDEN = "hidden"


class StoredRing(Struct, frozen=True, array_like=True):
    """
    All data keys, oldest first. ``root`` authenticates this, ``index`` is what blind indexes are made with for ever.

    ``reads_unsealed`` is whether there may be records that were written before encryption was on.
    """

    root: StoredKey
    index: StoredKey
    keys: tuple[StoredKey, ...]
    reads_unsealed: bool
    users: Users = Users.READABLE


class DataKeys(Struct, frozen=True):
    """What a node knows of the ring: everything unwrapped. ``revision`` is that of the object it was read from."""

    ring: StoredRing
    root: bytes
    index: bytes
    keys: dict[bytes, bytes]
    revision: int

    def writing(self, now: datetime) -> bytes | None:
        """The id of the key to seal with: the newest that everybody knows; ``None`` if that is none yet."""
        return next((key.id for key in reversed(self.ring.keys) if key.writes_from <= now), None)

    def __repr__(self) -> str:
        return f"DataKeys({', '.join(key.id.hex() for key in self.ring.keys)})"


Change = Callable[[StoredRing], StoredRing | None]
"""What becomes of a ring; ``None``: it stays as it is."""


class DataKeyStore:
    """Reads and changes the data keys in a storage. Changes are made on what is there: a lost race is tried again."""

    def __init__(
        self, objects: ObjectStore, key_ring: KeyRing, clock: Clock, *, announcement: timedelta = ANNOUNCEMENT
    ) -> None:
        """Keys seal from ``announcement`` after they were made, which is the same on all nodes."""
        self.announcement = announcement
        self._objects = objects
        self._key_ring = key_ring
        self._clock = clock
        self._unwrapped: dict[bytes, bytes] = {}
        """Keys by what they are wrapped in, so that a key ring is asked once for each."""

    async def load(self) -> DataKeys | None:
        """
        The data keys; ``None`` if there are none yet.

        Raises:
            ConfigurationError: If the key ring is not the one that wrapped them. Nothing was changed.
            Serialization: If they were altered.
            Storage: If storage or key ring is away.
        """
        found = await self._objects.get(KEYS_SPACE, RING)
        return None if found is None else await self._opened(found.value, found.revision)

    async def load_or_create(self, *, index: bytes, announced: bool) -> DataKeys:
        """
        The data keys; of several nodes that find none, one makes the first. Raises as ``load``.

        ``index`` becomes the key of blind indexes. Unless the first key is ``announced`` it seals at once.
        """
        for _ in range(_TRIES):
            if (found := await self.load()) is not None:
                return found
            now = self._clock.now()
            writes_from = now + self.announcement if announced else now
            key = await self._new(now, writes_from=writes_from)
            ring = StoredRing(
                await self._new(now, ROOT_ID),
                await self._new(now, INDEX_ID, index),
                (key,),
                reads_unsealed=True,
                users=Users.UNDECIDED,
            )
            try:
                await self._store(ring, ABSENT)
            except Conflict:
                continue
        raise Conflict("others make data keys again and again")

    async def add(self) -> DataKeys:
        """Announce a new data key, which seals when it was announced long enough. Raises as ``load``."""
        now = self._clock.now()
        key = await self._new(now, writes_from=now + self.announcement)

        def added(ring: StoredRing) -> StoredRing:
            if len(ring.keys) >= MAX_KEYS:
                raise ConfigurationError(f"there are {MAX_KEYS} data keys: retire those that are not in use any more")
            return replace(ring, keys=(*ring.keys, key))

        return await self.change(added)

    async def retire(self, ids: Sequence[bytes]) -> DataKeys:
        """Forget these keys for ever. What is sealed with them cannot be read any more. Raises as ``load``."""

        def retired(ring: StoredRing) -> StoredRing:
            kept = tuple(key for key in ring.keys if key.id not in ids)
            if not kept or kept[-1] != ring.keys[-1]:
                raise ConfigurationError("the newest data key cannot be retired")
            return replace(ring, keys=kept)

        return await self.change(retired)

    async def refuse_unsealed(self) -> DataKeys:
        """From now on no record is read that is not sealed, and the first key seals. Raises as ``load``."""
        now = self._clock.now()
        return await self.change(lambda ring: _refusing(ring, now) if ring.reads_unsealed else None)

    async def decide(self, *, empty: bool) -> DataKeys:
        """
        Decide what users are known by, unless it is decided. In an ``empty`` storage they are hidden, and no record is
        read that is not sealed. Of several nodes the first one decides, and none may write before that. Raises as
        ``load``.
        """
        now = self._clock.now()

        def decided(ring: StoredRing) -> StoredRing | None:
            if ring.users is not Users.UNDECIDED:
                return None
            return replace(_refusing(ring, now), users=Users.HIDDEN) if empty else replace(ring, users=Users.READABLE)

        return await self.change(decided)

    async def take_over(self, keys: DataKeys) -> None:
        """
        Have the data keys of another storage, under the same key ring; what users are known by is undecided here.

        Raises:
            Conflict: If there are others by now.
        """
        await self._store(replace(keys.ring, users=Users.UNDECIDED), ABSENT)

    async def rewrap(self) -> DataKeys:
        """Wrap all keys with the present key-encryption key that another one wrapped. Raises as ``load``."""
        known = await self.load()
        if known is None:
            raise ConfigurationError("there are no data keys")
        plain = {ROOT_ID: known.root, INDEX_ID: known.index, **known.keys}
        wrapped = {id: await self._key_ring.wrap(key, _place(id)) for id, key in plain.items()}

        def rewrapped(ring: StoredRing) -> StoredRing:
            return replace(
                ring,
                root=_wrapped_as(ring.root, wrapped),
                index=_wrapped_as(ring.index, wrapped),
                keys=tuple(_wrapped_as(key, wrapped) for key in ring.keys),
            )

        return await self.change(rewrapped)

    async def change(self, change: Change) -> DataKeys:
        """Change the ring as it is by then. Raises as ``load``."""
        for _ in range(_TRIES):
            known = await self.load()
            if known is None:
                raise ConfigurationError("there are no data keys")
            changed = change(known.ring)
            if changed is None:
                return known
            try:
                await self._store(changed, known.revision)
            except Conflict:
                continue
            found = await self.load()
            if found is not None:
                return found
        raise Conflict("others change the data keys again and again")

    async def _new(
        self, now: datetime, id: bytes | None = None, key: bytes | None = None, *, writes_from: datetime | None = None
    ) -> StoredKey:
        id, key = id or urandom(ID_BYTES), key or urandom(KEY_BYTES)
        wrapped = await self._key_ring.wrap(key, _place(id))
        self._unwrapped[wrapped.wrapped] = key
        return StoredKey(id, wrapped.wrapped_by, wrapped.wrapped, now, writes_from or now)

    async def _store(self, ring: StoredRing, revision: int) -> None:
        body = _encode(ring)
        value = _sum(await self._unwrap(ring.root), body) + body
        await self._objects.commit(KEYS_SPACE, {RING: value}, expected={RING: revision})

    async def _opened(self, value: bytes, revision: int) -> DataKeys:
        body = value[_SUM_BYTES:]
        try:
            ring = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Serialization("the data keys cannot be read") from None
        root = await self._unwrap(ring.root)
        if not ring.keys or not hmac.compare_digest(_sum(root, body), value[:_SUM_BYTES]):
            raise Serialization("the data keys were altered")
        keys = {key.id: await self._unwrap(key) for key in ring.keys}
        index = await self._unwrap(ring.index)
        wanted = {key.wrapped for key in (ring.root, ring.index, *ring.keys)}
        self._unwrapped = {wrapped: key for wrapped, key in self._unwrapped.items() if wrapped in wanted}
        return DataKeys(ring, root, index, keys, revision)

    async def _unwrap(self, key: StoredKey) -> bytes:
        found = self._unwrapped.get(key.wrapped)
        if found is None:
            found = await self._key_ring.unwrap(WrappedKey(key.wrapped_by, key.wrapped), _place(key.id))
            if len(found) != KEY_BYTES:
                raise ConfigurationError(f"{key.wrapped_by} unwraps a data key that is none")
            self._unwrapped[key.wrapped] = found
        return found


ROOT_ID: Final = b"root"
INDEX_ID: Final = b"index"
"""Ids of keys that seal nothing."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(StoredRing).decode


def _place(id: bytes) -> bytes:
    return b"roomkey data key " + id


def _refusing(ring: StoredRing, now: datetime) -> StoredRing:
    """The ring with which nothing is read that is not sealed; so the first key seals at once."""
    first, *others = ring.keys
    return replace(ring, keys=(replace(first, writes_from=min(first.writes_from, now)), *others), reads_unsealed=False)


def _sum(root: bytes, body: bytes) -> bytes:
    return hmac.digest(hmac.digest(root, b"roomkey data keys", "sha256"), body, "sha256")


def _wrapped_as(key: StoredKey, wrapped: Mapping[bytes, WrappedKey]) -> StoredKey:
    found = wrapped.get(key.id)  # one that was added since is wrapped as it should be
    return key if found is None else replace(key, wrapped_by=found.wrapped_by, wrapped=found.wrapped)
