"""
Keys of persons: what is sealed for somebody can be read until that person's key is destroyed, and never again.

So what cannot be deleted, because it stands in a log that proves things, can be erased all the same.
"""

import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from os import urandom
from typing import Final, NamedTuple

from roomkey.errors import Conflict, NotFound, Serialization
from roomkey.ports import Clock, ObjectStore
from roomkey.ports.objects import ABSENT, MAX_CHANGES

SPACE: Final = "subjects"
"""Where the keys are in an ``ObjectStore``. They are objects like others there: sealed, if records are."""

MAX_AGE: Final = timedelta(seconds=30)
"""Time for which a key is used without a look whether it is still there: so old may be what others have destroyed."""

MAX_CACHED: Final = 10_000
"""Maximum number of keys that a process remembers, about 300 bytes each."""

KEY_BYTES: Final = 32
ID_BYTES: Final = 8
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16

SCHEMA: Final = b"\x01"
"""The first byte of a stored key, before its id and the key itself."""

_TRIES: Final = 20
"""How often a key is looked for that others are making, or destroying, at the same time."""

Naming = Callable[[str], str]
"""What a subject's key is called in the storage, which shows nothing of the subject."""


class SubjectErased(NotFound):
    """What was sealed for this person cannot be read any more: the key was destroyed."""


class SubjectKey:
    """
    The key of one person: AES-256-GCM under random nonces, good for 2**32 values.

    Sealed values are bound to a ``place``, which is not stored: both ways are given the same. Whoever keeps a key
    longer than ``MAX_AGE`` may read and write what is erased elsewhere; ``SubjectKeys.ready`` is cheap.
    """

    __slots__ = ("_cipher", "id")

    def __init__(self, id: bytes, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  # not all commands need it

        self.id = id
        self._cipher = AESGCM(key)

    def seal(self, value: bytes, place: bytes = b"") -> bytes:
        """``value`` for this person's eyes: 36 bytes longer, and never the same twice."""
        nonce = urandom(NONCE_BYTES)
        return self.id + nonce + self._cipher.encrypt(nonce, value, place)

    def open(self, sealed: bytes, place: bytes = b"") -> bytes:
        """
        What ``seal`` was given for this place.

        Raises:
            SubjectErased: If it was sealed with a key that this person had before.
            Serialization: If it was changed, or is of another place.
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415

        if len(sealed) < ID_BYTES + NONCE_BYTES + TAG_BYTES:
            raise Serialization("what was sealed for a person is damaged: its end is missing")
        if sealed[:ID_BYTES] != self.id:
            raise SubjectErased("this was sealed with a key that was destroyed")
        nonce, rest = sealed[ID_BYTES : ID_BYTES + NONCE_BYTES], sealed[ID_BYTES + NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, rest, place)
        except InvalidTag:
            raise Serialization("what was sealed for a person was changed, or is of another place") from None


class SubjectKeys:
    """
    The keys of all persons, on the objects of a storage. Each is made when it is first needed; of several nodes that
    make it at once, one does.

    A key that was destroyed on this node is gone at once, one that another node destroyed after ``MAX_AGE`` at most,
    or when ``forget`` is told of it. What a node seals in that time with a key that is gone nobody reads any more.
    """

    def __init__(self, objects: ObjectStore, clock: Clock, naming: Naming, *, capacity: int = MAX_CACHED) -> None:
        """``objects`` must be open when any of this is awaited."""
        self._objects = objects
        self._clock = clock
        self._naming = naming
        self._capacity = capacity
        self._cached: dict[str, _Cached] = {}
        """By subject; those looked up last are at the end."""
        self._forgotten = 0
        """How often something was forgotten: what was being read meanwhile is not remembered."""

    def cached(self, subject: str) -> SubjectKey | None:
        """The key of a person, if it was looked up within ``MAX_AGE``: nothing is waited for."""
        found = self._cached.get(subject)
        # A clock that was set back makes no key younger.
        if found is None or not timedelta() <= self._clock.now() - found.at < MAX_AGE:
            return None
        return found.key

    async def ready(self, subjects: Iterable[str]) -> Mapping[str, SubjectKey]:
        """
        The keys of these persons, made if there were none: a round trip or two per thousand, none for what is cached.

        Raises:
            Storage: If storage is away.
            Serialization: If a key is there and cannot be read.
        """
        found: dict[str, SubjectKey] = {}
        missing: list[str] = []
        for subject in dict.fromkeys(subjects):
            if (key := self.cached(subject)) is not None:
                found[subject] = key
            else:
                missing.append(subject)
        for start in range(0, len(missing), MAX_CHANGES):
            found |= await self._read_or_make(missing[start : start + MAX_CHANGES])
        return found

    async def existing(self, subjects: Iterable[str]) -> Mapping[str, SubjectKey]:
        """The keys of those of these persons who have one: for whoever reads. Raises as ``ready``."""
        wanted = [*dict.fromkeys(subjects)]
        found = {subject: key for subject in wanted if (key := self.cached(subject)) is not None}
        missing = [subject for subject in wanted if subject not in found]
        for start in range(0, len(missing), MAX_CHANGES):
            found |= await self._read(missing[start : start + MAX_CHANGES])
        return found

    async def seal(self, subject: str, value: bytes, place: bytes = b"") -> bytes:
        """``value`` under the key of ``subject``, which is made if there is none. Raises as ``ready``."""
        keys = await self.ready((subject,))
        return keys[subject].seal(value, place)

    async def open(self, subject: str, sealed: bytes, place: bytes = b"") -> bytes:
        """
        What was sealed for ``subject`` and this place.

        Raises:
            SubjectErased: If the key was destroyed.
            Serialization: If it was changed, or is of another place or person.
        """
        key = (await self.existing((subject,))).get(subject)
        if key is None:
            raise SubjectErased("this was sealed with a key that was destroyed")
        return key.open(sealed, place)

    async def destroy(self, subject: str) -> bool:
        """
        Destroy the key of a person; whether there was one. Durable when this returns.

        What is sealed later gets another key, which opens nothing of before. Backups have the old one as long as they
        are kept.

        Raises:
            Storage: If it cannot be told whether it is gone: call it again.
        """
        name = self._naming(subject)
        for _ in range(_TRIES):
            present = await self._objects.get(SPACE, name)
            if present is None:
                self.forget(subject)
                return False
            try:
                await self._objects.commit(SPACE, {name: None}, expected={name: present.revision})
            except Conflict:
                continue
            finally:
                # Also if the outcome is unknown. Nothing that was read before is in the cache from here on.
                self.forget(subject)
            return True
        raise Conflict("the key of a person was changed again and again while it was to be destroyed")

    def forget(self, subject: str) -> None:
        """Look the key up before it is used again: another node may have destroyed it."""
        self._forgotten += 1
        self._cached.pop(subject, None)

    async def _read_or_make(self, subjects: Sequence[str]) -> Mapping[str, SubjectKey]:
        for _ in range(_TRIES):
            found = await self._read(subjects)
            missing = [subject for subject in subjects if subject not in found]
            if not missing:
                return found
            made = {self._naming(subject): SCHEMA + urandom(ID_BYTES + KEY_BYTES) for subject in missing}
            try:
                await self._objects.commit(SPACE, made, expected=dict.fromkeys(made, ABSENT))
            except Conflict:
                continue  # others have made some of them
            # Read again, not remembered: whoever destroys one between these two lines must be heeded.
        raise Conflict("keys of persons were changed again and again while they were to be made")

    async def _read(self, subjects: Sequence[str]) -> dict[str, SubjectKey]:
        at, forgotten = self._clock.now(), self._forgotten  # before: what is read is at least as new
        stored = await self._objects.get_many(SPACE, [self._naming(subject) for subject in subjects])
        found = {
            subject: _decoded(each.value) for subject, each in zip(subjects, stored, strict=True) if each is not None
        }
        for subject in subjects:
            self._cached.pop(subject, None)
        if forgotten == self._forgotten:
            self._cached |= {subject: _Cached(key, at) for subject, key in found.items()}
        while len(self._cached) > self._capacity:
            del self._cached[next(iter(self._cached))]
        return found


def blind_index(key: bytes) -> Naming:
    """Names that are HMAC-SHA256 of what they stand for, in hexadecimal: only who has ``key`` can compute them."""
    return lambda subject: hmac.digest(key, subject.encode("utf-8", "surrogatepass"), "sha256").hex()


class _Cached(NamedTuple):
    key: SubjectKey
    at: datetime


def _decoded(stored: bytes) -> SubjectKey:
    if stored[:1] != SCHEMA or len(stored) != 1 + ID_BYTES + KEY_BYTES:
        raise Serialization("the key of a person cannot be read")
    return SubjectKey(stored[1 : 1 + ID_BYTES], stored[1 + ID_BYTES :])
