"""Damage to rows of an LMDB file, as a failing disk, a bug or a hand brings it about."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
from hypothesis import strategies as st

KINDS = ("flip", "cut", "empty", "longer", "another", "foreign", "swap", "gone", "flip key", "cut key")


class Damage(NamedTuple):
    """
    What happens to which row: numbers are taken modulo what there is.

    ``another`` is the value of another row of the table, ``foreign`` is msgpack of something else.
    """

    table: str
    row: int
    kind: str
    place: int
    bit: int


def damages(tables: Sequence[str]) -> st.SearchStrategy[Damage]:
    """Any damage to one of these tables."""
    return st.builds(
        Damage,
        table=st.sampled_from(tables),
        row=st.integers(0, 500),
        kind=st.sampled_from(KINDS),
        place=st.integers(0, 3000),
        bit=st.integers(0, 7),
    )


def inflict(directory: Path, tables: Sequence[str], damage: Damage) -> set[bytes]:
    """Do it; returns the keys that have to do with it, none if there is nothing to damage."""
    with lmdb.Environment(str(directory), max_dbs=len(tables), map_size=2**26, sync=False) as environment:
        named: dict[str, Any] = {name: environment.open_db(name.encode()) for name in tables}
        with environment.begin(write=True, db=named[damage.table]) as transaction:
            rows = [row for row in transaction.cursor() if row[0] != b"format"]
            if not rows:
                return set()
            (key, value), (other, other_value) = rows[damage.row % len(rows)], rows[damage.place % len(rows)]
            match damage.kind:
                case "swap":
                    transaction.put(key, other_value)
                    transaction.put(other, value)
                    return {key, other}
                case "gone":
                    transaction.delete(key)
                case "flip key" | "cut key":
                    transaction.delete(key)
                    after = _changed(key, damage, damage.kind.split()[0]) or b"\xff"
                    transaction.put(after[:511], value)
                    return {key, after}
                case "another":
                    transaction.put(key, other_value)
                case kind:
                    transaction.put(key, _changed(value, damage, kind))
            return {key}


def _changed(value: bytes, damage: Damage, kind: str) -> bytes:
    place = damage.place % max(len(value), 1)
    match kind:
        case "flip" if value:
            return value[:place] + bytes([value[place] ^ 1 << damage.bit]) + value[place + 1 :]
        case "cut":
            return value[:place]
        case "longer":
            return value + bytes(damage.bit + 1)
        case "foreign":
            return b"\x01\x93\x01\x02\xa3foo"
        case _:
            return b""
