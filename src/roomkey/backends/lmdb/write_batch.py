"""A write transaction in the making, whatever it is that is written."""

from typing import Final, Generic

from roomkey.backends.lmdb.file import MappedFile, Table, TablesT, Transaction
from roomkey.ports import RecordKind

_PROBE_KEY: Final = b"probe"
_NOTHING: Final = b""


class Changes(Generic[TablesT]):
    """
    What becomes one commit.

    ``writes`` counts what was changed. Whoever changes something without these methods counts it, too.
    """

    __slots__ = ("codec", "tables", "transaction", "writes")

    def __init__(self, transaction: Transaction, file: MappedFile[TablesT]) -> None:
        self.transaction = transaction
        self.tables = file.tables
        self.codec = file.codec
        self.writes = 0

    def close(self) -> None:
        """The last thing before the transaction is committed, if anything was written."""

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self.transaction.get(key, None, table)

    def put(self, table: Table, key: bytes, value: bytes = _NOTHING) -> None:
        self.writes += 1
        self.transaction.put(key, value, True, True, False, table)  # keywords cost half a microsecond

    def record(self, kind: RecordKind, table: Table, key: bytes) -> bytes | None:
        """The record with this key."""
        value = self.get(table, key)
        return None if value is None else self.codec.decode(kind, key, 0, value)

    def put_record(self, kind: RecordKind, table: Table, key: bytes, record: bytes, *, version: int = 0) -> None:
        """Store a record. ``version`` is how old it is, if readers know that from elsewhere."""
        self.put(table, key, self.codec.encode(kind, key, version, record))

    def remove(self, table: Table, key: bytes) -> None:
        self.writes += 1
        self.transaction.delete(key, _NOTHING, table)

    def probe(self, size: int) -> None:
        """Write something that means nothing, to see whether there is room for so many bytes."""
        self.put(self.tables.meta, _PROBE_KEY, bytes(size))
