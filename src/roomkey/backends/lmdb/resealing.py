"""Writing the records of a file anew, under the key that its codec seals with now."""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from roomkey.backends.lmdb.file import StoreTablesT
from roomkey.backends.lmdb.inspection import Rows
from roomkey.backends.lmdb.write_batch import Changes
from roomkey.backends.resealing import Anew, Sealed, sealed_anew
from roomkey.ports import RecordKind, Resealed, SealingCodec


class SealedAs(NamedTuple):
    """What a row has of its codec: a record of this kind and version under its key."""

    kind: RecordKind
    version: int = 0


Places = Mapping[str, Callable[[Rows[StoreTablesT], bytes], SealedAs | None]]
"""What lies under a key, by the names of the tables; ``None``: nothing of the codec."""


def reseal(changes: Changes[StoreTablesT], places: Places[StoreTablesT], after: bytes, limit: int) -> Resealed:
    """``Resealable.reseal``."""
    table, anew, part = _look(Rows(changes.transaction, changes.tables, changes.codec), places, after, limit)
    for key, _, _, record in anew:
        changes.put(getattr(changes.tables, table), key, record)
    return part


def count(rows: Rows[StoreTablesT], places: Places[StoreTablesT], after: bytes, limit: int) -> Resealed:
    """``Resealable.reseal`` that only counts."""
    return _look(rows, places, after, limit)[2]


def _look(
    rows: Rows[StoreTablesT], places: Places[StoreTablesT], after: bytes, limit: int
) -> tuple[str, list[Anew[bytes]], Resealed]:
    """The table that is looked at, what is to be written in it, and how far that goes."""
    name, _, start = after.partition(b"\0")
    table = name.decode() or next(iter(places))
    if not isinstance(rows.codec, SealingCodec):
        return table, [], Resealed(None, 0, 0, 0)
    found = [*islice(_rows_from(rows, table, start), limit)]
    records = (
        Sealed(key, sealed.kind, key, sealed.version, value)
        for key, value in found
        if not rows.codec.is_current(value) and (sealed := places[table](rows, key)) is not None
    )
    anew, left = sealed_anew(rows.codec, records)
    following = _table_after(places, table)
    after_all = None if following is None else following.encode() + b"\0"
    reached = table.encode() + b"\0" + found[-1][0] + b"\0" if len(found) == limit else after_all
    return table, anew, Resealed(reached, len(found), len(anew), left)


def _rows_from(rows: Rows[StoreTablesT], table: str, start: bytes) -> Iterator[tuple[bytes, bytes]]:
    with rows.transaction.cursor(getattr(rows.tables, table)) as cursor:
        if cursor.set_range(start) if start else cursor.first():
            yield from cursor.iternext()


def _table_after(places: Mapping[str, object], table: str) -> str | None:
    tables = [*places]
    following = tables[tables.index(table) + 1 :]
    return following[0] if following else None
