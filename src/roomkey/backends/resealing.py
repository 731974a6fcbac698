"""What every backend does when its records are to be under another data key."""

from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

from roomkey.errors import Serialization
from roomkey.ports import RecordKind, SealingCodec

KeyT = TypeVar("KeyT")


class Sealed(NamedTuple, Generic[KeyT]):
    """A record as it lies in a store under ``key``, and what it is sealed as."""

    key: KeyT
    kind: RecordKind
    id: bytes
    version: int
    record: bytes


class Anew(NamedTuple, Generic[KeyT]):
    """What is to stand in the place of a record: ``record`` instead of ``former``."""

    key: KeyT
    kind: RecordKind
    former: bytes
    record: bytes


def sealed_anew(codec: SealingCodec, records: Iterable[Sealed[KeyT]]) -> tuple[list[Anew[KeyT]], int]:
    """Those of ``records`` that are not current, sealed anew; and how many of them cannot be read."""
    anew: list[Anew[KeyT]] = []
    unreadable = 0
    for key, kind, id, version, former in records:
        if codec.is_current(former):
            continue
        try:
            record = codec.decode(kind, id, version, former)
        except Serialization:
            unreadable += 1
            continue
        anew.append(Anew(key, kind, former, codec.encode(kind, id, version, record)))
    return anew, unreadable
