"""
Sealed records: the codec that encrypts what a backend stores, and binds it to its place.

A record is a mark, the id of its data key, a nonce of XAES-256-GCM, what is sealed, and a tag: 45 bytes more than it
was. Its store, kind, id and version are authenticated with it, so one that was moved, or replaced by another one of
the same place where the version is known from outside, is refused as one that was altered is.
"""

import struct
from collections.abc import Callable, Mapping
from itertools import count
from math import inf
from os import urandom
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from roomkey.encryption.xaes import NONCE_BYTES, PREFIX_BYTES, TAG_BYTES, KeyDerivation, new_prefix
from roomkey.errors import Serialization, Storage
from roomkey.ports import CHECKSUMMED_RECORDS, RecordCodec, RecordKind

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MARK: Final = b"\xc1"
"""What sealed records begin with. Msgpack never does, which other records are."""

ID_BYTES: Final = 4
OVERHEAD_BYTES: Final = len(MARK) + ID_BYTES + NONCE_BYTES + TAG_BYTES

KEYS_SPACE: Final = "keys"
"""The space of an ``ObjectStore`` whose objects are never sealed: what is needed to open everything else."""

RECORDS_PER_CIPHER: Final = 2**24
"""How many nonces of a process begin alike: with 96 random bits behind that, two are the same once in 2**49 times."""

MAX_READERS: Final = 10_000
"""Number of ciphers that are kept for reading: one for each start of a process that wrote, and 2**24 records."""

Crypt = Callable[[bytes, bytes, bytes], bytes]
Refused = Callable[[RecordKind, bytes, str], None]
"""Told of every record that is refused: what it is, its id, and why. Called on any thread."""


class SealedRecords:
    """
    ``ports.SealingCodec`` that seals with the newest data key and opens with all. Safe to use on several threads.

    Before there are keys, records pass through another codec, and so do those that are not sealed, as long as the keys
    allow it. After that they are refused, or anyone with access to the storage could write some.
    """

    def __init__(
        self,
        ciphers: "Ciphers",
        refused: Refused = lambda _kind, _id, _reason: None,
        *,
        store: str = "",
        unsealed: RecordCodec = CHECKSUMMED_RECORDS,
    ) -> None:
        """Records of different ``store`` cannot take each other's place."""
        self._ciphers = ciphers
        self._refused = refused
        self._store = store
        self._unsealed = unsealed
        self._places = {kind: f"roomkey 1\0{store}\0{kind}\0".encode() for kind in RecordKind}

    def within(self, store: str) -> "SealedRecords":
        """As ``ports.SealingCodec``."""
        return SealedRecords(self._ciphers, self._refused, store=store, unsealed=self._unsealed)

    def reading(self, unsealed: RecordCodec) -> "SealedRecords":
        """As ``ports.SealingCodec``."""
        return SealedRecords(self._ciphers, self._refused, store=self._store, unsealed=unsealed)

    def is_current(self, stored: bytes) -> bool:
        """As ``ports.SealingCodec``."""
        writes_with = self._ciphers.writes_with
        return writes_with is None or stored.startswith(MARK + writes_with)

    def encode(self, kind: RecordKind, id: bytes, version: int, record: bytes) -> bytes:
        """As ``ports.RecordCodec``. Raises ``Storage`` if the data keys could not be read for too long."""
        if kind is _OBJECT and id.startswith(_KEYS):
            return CHECKSUMMED_RECORDS.encode(kind, id, version, record)
        writer = self._ciphers.writing()
        if writer is None:
            return self._unsealed.encode(kind, id, version, record)
        nonce = urandom(_NONCE_BYTES)
        return writer.head + nonce + writer.encrypt(nonce, record, self._places[kind] + _VERSION.pack(version) + id)

    def decode(self, kind: RecordKind, id: bytes, version: int, stored: bytes) -> bytes:
        """As ``ports.RecordCodec``. Raises ``Storage`` if it may be that the data key is only not known here yet."""
        decrypt = self._ciphers.readers.get(stored[:_HEAD_BYTES])
        if decrypt is None:
            return self._decode_other(kind, id, version, stored)
        try:
            return decrypt(
                stored[_HEAD_BYTES:_SEALED_FROM],
                stored[_SEALED_FROM:],
                self._places[kind] + _VERSION.pack(version) + id,
            )
        except _unsealable():
            return self._decode_unsealed(kind, id, version, stored, "it was altered, or is of another place")

    def _decode_other(self, kind: RecordKind, id: bytes, version: int, stored: bytes) -> bytes:
        """What was not sealed, or with a cipher that was not used yet."""
        if kind is _OBJECT and id.startswith(_KEYS):
            return CHECKSUMMED_RECORDS.decode(kind, id, version, stored)
        if stored[:1] != MARK or len(stored) < OVERHEAD_BYTES:
            return self._decode_unsealed(kind, id, version, stored, "it is not sealed")
        if not self._ciphers.learn(stored[:_HEAD_BYTES]):
            key = _key_of(stored).hex()
            return self._decode_unsealed(kind, id, version, stored, f"there is no data key {key}")
        return self.decode(kind, id, version, stored)

    def _decode_unsealed(self, kind: RecordKind, id: bytes, version: int, stored: bytes, reason: str) -> bytes:
        if self._ciphers.reads_unsealed:
            try:
                return self._unsealed.decode(kind, id, version, stored)
            except Serialization:
                if stored[:1] != MARK:
                    raise  # it is damaged, as records are
        self._refused(kind, id, reason)
        raise Serialization(f"a {kind} record is refused: {reason}")


class Ciphers:
    """
    The ciphers of all data keys, which the records of all stores of a process share.

    Keys come with a time until which they are good: after that others may have made new ones, and retired the one that
    is written with here. Then nothing is sealed any more, and what is not known is not held to be forged. Nothing is
    either before ``use`` was called.
    """

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        """``now`` is a clock that nobody sets, in seconds."""
        self.reads_unsealed = False
        """Whether records that are not sealed are read at all."""
        self.readers: dict[bytes, Crypt] = {}
        """What opens records with this head."""
        self._now = now
        self._good_until = -inf
        self._keys: Mapping[bytes, KeyDerivation] = {}
        self._writer: _Writer | None = None

    def use(
        self, keys: Mapping[bytes, bytes], *, writing: bytes | None, reads_unsealed: bool, good_until: float = inf
    ) -> None:
        """Open with these keys, which have 32 bytes each, by their ids, and seal with the one that is ``writing``."""
        # A key never changes under its id.
        self._keys = {id: self._keys.get(id) or KeyDerivation(key) for id, key in keys.items()}
        self.readers = {head: reader for head, reader in self.readers.items() if _key_of(head) in keys}
        self.reads_unsealed = reads_unsealed
        self._good_until = good_until
        if writing is None:
            self._writer = None
        elif writing != self.writes_with:
            self._writer = self._new_writer(writing)

    @property
    def writes_with(self) -> bytes | None:
        """The id of the key that seals."""
        return None if self._writer is None else _key_of(self._writer.head)

    def writing(self) -> "_Writer | None":
        """What seals the next record; ``None`` if it is not to be sealed."""
        self._check_age()
        writer = self._writer
        # The counter is the lock: no two threads are given the same number.
        if writer is not None and next(writer.used) == RECORDS_PER_CIPHER:
            self._writer = self._new_writer(_key_of(writer.head))
        return writer

    def learn(self, head: bytes) -> bool:
        """Make what opens records with this head; whether there is a key for it."""
        key = self._keys.get(_key_of(head))
        if key is None:
            self._check_age()
            return False
        if len(self.readers) >= MAX_READERS:
            self.readers = {}
        self.readers[head] = _cipher(key, head).decrypt
        return True

    def _check_age(self) -> None:
        if self._now() > self._good_until:
            raise Storage("the data keys were not read yet, or not for too long")

    def _new_writer(self, id: bytes) -> "_Writer":
        head = MARK + id + new_prefix()
        return _Writer(head, _cipher(self._keys[id], head).encrypt, count())


class _Writer(NamedTuple):
    head: bytes
    encrypt: Crypt
    used: "count[int]"


_OBJECT: Final = RecordKind.OBJECT
_KEYS: Final = KEYS_SPACE.encode() + b"\0"
_VERSION: Final = struct.Struct(">Q")
_NONCE_BYTES: Final = NONCE_BYTES - PREFIX_BYTES
_HEAD_BYTES: Final = len(MARK) + ID_BYTES + PREFIX_BYTES
_SEALED_FROM: Final = _HEAD_BYTES + _NONCE_BYTES


def _key_of(head: bytes) -> bytes:
    return head[len(MARK) : len(MARK) + ID_BYTES]


def _unsealable() -> tuple[type[Exception], ...]:
    """What a cipher raises over a record that is not what it was, or was cut short."""
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415  # as below

    return InvalidTag, ValueError


def _cipher(key: KeyDerivation, head: bytes) -> "AESGCM":
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  # not all commands need it

    return AESGCM(key.key(head[-PREFIX_BYTES:]))
