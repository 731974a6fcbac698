"""A write transaction in the making, whatever it is that is written."""

from typing import Final, Generic

import msgspec
from msgspec import Struct

from roomkey.backends.lmdb.file import MappedFile, StoreTablesT, Table, Transaction
from roomkey.errors import Serialization
from roomkey.ports import RecordKind

PROBE_KEY: Final = b"probe"
_NOTHING: Final = b""


class Aside(Struct, frozen=True, array_like=True):
    """A row as it was before it was put aside."""

    table: str
    key: bytes
    value: bytes


_encode = msgspec.msgpack.Encoder().encode


class Changes(Generic[StoreTablesT]):
    """
    What becomes one commit.

    ``writes`` counts what was changed. Whoever changes something without these methods counts it, too.
    """

    __slots__ = ("codec", "damage", "tables", "transaction", "writes")

    def __init__(self, transaction: Transaction, file: MappedFile[StoreTablesT]) -> None:
        self.transaction = transaction
        self.tables = file.tables
        self.codec = file.codec
        self.damage = file.damage
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

    def figures(self, table: Table, key: bytes, size: int) -> bytes | None:
        """
        What is no record and has ``size`` bytes; ``None`` if it is missing or damaged, which is noted.

        Callers know what to make of it: everything that lies there can be had in another way, or is not worth a halt.
        """
        value = self.get(table, key)
        if value is None:
            return None
        try:
            return checked_figures(self.codec.decode(RecordKind.FIGURES, key, 0, value), size)
        except Serialization as error:
            self.damage.note(RecordKind.FIGURES, key, error)
            return None

    def put_figures(self, table: Table, key: bytes, value: bytes) -> None:
        """Store what is no record."""
        self.put(table, key, self.codec.encode(RecordKind.FIGURES, key, 0, value))

    def set_aside(self, name: str, key: bytes) -> None:
        """Move a row of the table with this name to where nothing reads it."""
        table: Table = getattr(self.tables, name)
        row = Aside(name, key, self.get(table, key) or b"")
        with self.transaction.cursor(self.tables.aside) as cursor:
            last = int.from_bytes(cursor.key()) if cursor.last() else 0
        self.put(self.tables.aside, (last + 1).to_bytes(8), _encode(row))
        self.remove(table, key)

    def remove(self, table: Table, key: bytes) -> None:
        self.writes += 1
        self.transaction.delete(key, _NOTHING, table)

    def probe(self, size: int) -> None:
        """Write something that means nothing, to see whether there is room for so many bytes."""
        self.put(self.tables.meta, PROBE_KEY, bytes(size))


def checked_figures(value: bytes, size: int) -> bytes:
    """
    ``value``, which must have ``size`` bytes.

    Raises:
        Serialization: If it has not.
    """
    if len(value) != size:
        raise Serialization("figures have a wrong length")
    return value
