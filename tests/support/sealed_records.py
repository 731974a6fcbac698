"""A codec that hides records and binds them to their place, as encryption does; of no use against anybody."""

import os
from hashlib import blake2b, shake_128

from roomkey.errors import Serialization
from roomkey.ports import RecordKind

NONCE_BYTES = 8
TAG_BYTES = 16


class SealedRecords:
    """What is stored is a tag, a nonce, and the record under a mask."""

    def __init__(self, key: bytes = b"key") -> None:
        self._key = key

    def encode(self, kind: RecordKind, id: bytes, version: int, record: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        masked = self._mask(nonce, record)
        return self._tag(kind, id, version, nonce + masked) + nonce + masked

    def decode(self, kind: RecordKind, id: bytes, version: int, stored: bytes) -> bytes:
        tag, sealed = stored[:TAG_BYTES], stored[TAG_BYTES:]
        if tag != self._tag(kind, id, version, sealed):
            raise Serialization("a record was changed, or is not of this place")
        return self._mask(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:])

    def _mask(self, nonce: bytes, record: bytes) -> bytes:
        stream = shake_128(self._key + nonce).digest(len(record))
        return (int.from_bytes(record) ^ int.from_bytes(stream)).to_bytes(len(record))

    def _tag(self, kind: RecordKind, id: bytes, version: int, sealed: bytes) -> bytes:
        place = b"%s|%d|%d|" % (kind.encode(), version, len(id)) + id
        return blake2b(place + sealed, key=self._key, digest_size=TAG_BYTES).digest()
