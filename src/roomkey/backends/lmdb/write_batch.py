"""A write transaction in the making, whatever it is that is written."""

from typing import Final, Generic

from roomkey.backends.lmdb.file import Table, TablesT, Transaction

_PROBE_KEY: Final = b"probe"
_NOTHING: Final = b""


class Changes(Generic[TablesT]):
    """
    What becomes one commit.

    ``writes`` counts what was changed. Whoever changes something without these methods counts it, too.
    """

    __slots__ = ("tables", "transaction", "writes")

    def __init__(self, transaction: Transaction, tables: TablesT) -> None:
        self.transaction = transaction
        self.tables = tables
        self.writes = 0

    def close(self) -> None:
        """The last thing before the transaction is committed, if anything was written."""

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self.transaction.get(key, None, table)

    def put(self, table: Table, key: bytes, value: bytes = _NOTHING) -> None:
        self.writes += 1
        self.transaction.put(key, value, True, True, False, table)  # keywords cost half a microsecond

    def remove(self, table: Table, key: bytes) -> None:
        self.writes += 1
        self.transaction.delete(key, _NOTHING, table)

    def probe(self, size: int) -> None:
        """Write something that means nothing, to see whether there is room for so many bytes."""
        self.put(self.tables.meta, _PROBE_KEY, bytes(size))
