"""Looking at every row of a file, whatever is in it: naming those that are damaged, and putting them aside."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, Generic, NamedTuple

from roomkey.backends.damage import NewerSchema, shown
from roomkey.backends.lmdb.file import StoreTablesT, Table, Transaction
from roomkey.backends.lmdb.write_batch import Changes
from roomkey.errors import Serialization
from roomkey.ports import DamagedRecord, RecordCodec, RecordKind

INSPECTED_AT_A_TIME: Final = 2_000
"""Rows that are looked at between two turns of the event loop: some ten milliseconds."""

_SEPARATOR: Final = b"\0"


class Rows(Generic[StoreTablesT]):
    """The file as a check sees it."""

    def __init__(self, transaction: Transaction, tables: StoreTablesT, codec: RecordCodec) -> None:
        self.transaction = transaction
        self.tables = tables
        self.codec = codec

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The value of a row."""
        return self.transaction.get(key, None, table)


class Check(NamedTuple, Generic[StoreTablesT]):
    """
    How the rows of a table are looked at: ``look`` raises ``Serialization`` for one that is damaged.

    ``name`` says in words which row it is.
    """

    kind: RecordKind
    look: Callable[[Rows[StoreTablesT], bytes, bytes], None]
    name: Callable[[bytes], str] = shown

    def flaw(self, rows: Rows[StoreTablesT], key: bytes, value: bytes) -> Serialization | None:
        """What is wrong with a row."""
        try:
            self.look(rows, key, value)
        except Serialization as error:
            return error
        return None


Checks = Mapping[str, Check[StoreTablesT]]
"""What is looked at, by the names of the tables."""


class Search(Generic[StoreTablesT]):
    """
    A search for damaged rows, which takes as many transactions as it needs.

    ``found`` are they. It has ``ended`` when every table was looked at.
    """

    def __init__(self, checks: Checks[StoreTablesT]) -> None:
        self.ended = False
        self.found: list[DamagedRecord] = []
        self._checks = checks
        self._places = [(table, b"") for table in checks]

    def go_on(self, rows: Rows[StoreTablesT]) -> None:
        """Look at some more rows."""
        table, start = self._places.pop(0)
        check = self._checks[table]
        looked_at = 0
        for key, value in islice(_rows_from(rows, getattr(rows.tables, table), start), INSPECTED_AT_A_TIME):
            looked_at += 1
            error = check.flaw(rows, key, value)
            if error is not None:
                self.found.append(_damaged(check, table, key, error))
            start = key + b"\0"
        if looked_at == INSPECTED_AT_A_TIME:
            self._places.insert(0, (table, start))
        self.ended = not self._places


def still_damaged(
    changes: Changes[StoreTablesT], checks: Checks[StoreTablesT], records: Sequence[DamagedRecord]
) -> Iterator[tuple[str, bytes]]:
    """The table and the key of each of these records, as far as they are there and damaged now."""
    rows = Rows(changes.transaction, changes.tables, changes.codec)
    for record in records:
        name, _, key = record.place.partition(_SEPARATOR)
        table = name.decode()
        check = checks.get(table)
        value = rows.get(getattr(rows.tables, table), key) if check and key else None
        if check is None or value is None:
            continue
        flaw = check.flaw(rows, key, value)
        if flaw is not None and not isinstance(flaw, NewerSchema):
            yield table, key


def _rows_from(rows: Rows[StoreTablesT], table: Table, start: bytes) -> Iterator[tuple[bytes, bytes]]:
    with rows.transaction.cursor(table) as cursor:
        if cursor.set_range(start) if start else cursor.first():
            yield from cursor.iternext()


def _damaged(check: Check[StoreTablesT], table: str, key: bytes, error: Serialization) -> DamagedRecord:
    return DamagedRecord(
        kind=check.kind,
        key=check.name(key) if check.kind is not RecordKind.FIGURES else f"{check.name(key)} in {table}",
        reason=str(error),
        place=table.encode() + _SEPARATOR + key,
        is_newer=isinstance(error, NewerSchema),
    )
