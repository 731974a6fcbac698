"""Hashes of records, by which two stores are compared whatever their technologies make of bytes."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

from roomkey.backends.document_records import encode_batch, encode_version
from roomkey.backends.records import encode_event, encode_session
from roomkey.ports import (
    CheckpointItem,
    DocumentItem,
    DocumentVersion,
    EpochItem,
    LoggedEvent,
    NamedObject,
    SessionItem,
)

_ORIGIN: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_TOP: Final = 2**256


class Fingerprint:
    """How many records there are, and a hash of all of them in whatever order they come."""

    __slots__ = ("_sum", "count")

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0

    def add(self, digest: bytes) -> None:
        """Take in the digest of one more record."""
        self.count += 1
        self._sum = (self._sum + int.from_bytes(digest)) % _TOP

    def merge(self, other: "Fingerprint") -> None:
        """Take in everything that ``other`` has."""
        self.count += other.count
        self._sum = (self._sum + other._sum) % _TOP  # noqa: SLF001  # of the same class

    @property
    def hash(self) -> str:
        """The hash, in hexadecimal digits."""
        return f"{self._sum:064x}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fingerprint) and (self.count, self._sum) == (other.count, other._sum)

    def __hash__(self) -> int:
        return hash((self.count, self._sum))


def of_session(item: SessionItem) -> bytes:
    """The digest of a session with its secret, its epoch, and the moment at which it ended."""
    return _digest((encode_session(item.session, item.secret), b"%d" % item.epoch, _moment(item.ended_at)))


def of_epoch(item: EpochItem) -> bytes:
    """The digest of the epoch of a user."""
    return _digest((item.user.encode(), b"%d" % item.epoch))


def of_object(space: str, item: NamedObject) -> bytes:
    """The digest of an object; its revision is that of its place."""
    return _digest((space.encode(), item.name.encode(), item.value))


def of_checkpoint(item: CheckpointItem) -> bytes:
    """The digest of a checkpoint."""
    return _digest((item.consumer.encode(), b"%d" % item.partition, b"%d" % item.sequence))


def of_event(partition: int, logged: LoggedEvent) -> bytes:
    """The digest of an event at its place."""
    return _digest((b"%d" % partition, b"%d" % logged.sequence, encode_event(logged.event)))


def of_document(item: DocumentItem) -> bytes:
    """The digest of a document, which does not depend on how its updates were put together in records."""
    stored, record = item.stored, item.stored.record
    facts = (record.name.encode(), record.lineage.encode(), _moment(record.created_at), _moment(record.updated_at))
    numbers = (b"%d" % record.sequence, b"%d" % stored.upto, b"%d" % item.last_version)
    base = (stored.snapshot or b"", b"+" if stored.snapshot is not None else b"", stored.authorship or b"")
    return _digest((*facts, *numbers, *base, *(encode_batch([update]) for update in stored.updates)))


def of_version(document: bytes, version: DocumentVersion, content: bytes) -> bytes:
    """The digest of a version with its content; ``document`` tells whose it is."""
    return _digest((document, encode_version(version), content))


def whose(name: str, lineage: str) -> bytes:
    """What tells documents apart in digests of their versions."""
    return _digest((name.encode(), lineage.encode("utf-8", "surrogatepass")))


def _moment(moment: datetime | None) -> bytes:
    return b"" if moment is None else b"%d" % ((moment - _ORIGIN) // _MICROSECOND)


def _digest(parts: Iterable[bytes]) -> bytes:
    hash = sha256()
    for part in parts:
        # The length in front, so that what ends one part cannot pass for the beginning of the next.
        hash.update(len(part).to_bytes(8, "big"))
        hash.update(part)
    return hash.digest()
