"""Which rows of the file of sessions are damaged, and putting them aside."""

from collections.abc import Callable, Sequence
from typing import Final

import structlog

from roomkey.backends.lmdb.commit import Commit, Stored, stored
from roomkey.backends.lmdb.file import Table, Tables
from roomkey.backends.lmdb.inspection import Check, Checks, Rows, still_damaged
from roomkey.backends.lmdb.layout import (
    CHECKPOINTS,
    COUNTERS_KEY,
    ENDED,
    EPOCH,
    FENCE_BYTES,
    FENCE_KEY,
    FORMAT_KEY,
    LIVE,
    TAILS_KEY,
    Counters,
    UserEntry,
    micros,
    time_and_key,
    time_key,
    user_prefix,
)
from roomkey.backends.lmdb.log import NUMBERS_BYTES, check_key, named, slot_of
from roomkey.backends.lmdb.resealing import Places, SealedAs
from roomkey.backends.lmdb.write_batch import PROBE_KEY, checked_figures
from roomkey.backends.records import decode_event
from roomkey.errors import Serialization
from roomkey.ports import DamagedRecord, RecordKind

_log = structlog.get_logger("roomkey.storage")


def _session(rows: Rows[Tables], key: bytes, value: bytes) -> None:
    found = _stored(rows, key, value)
    tables = rows.tables
    for table, entry in ((tables.users, user_entry(found)), (_times(tables, found), time_key(found.position, key))):
        if rows.get(table, entry) is None:
            raise Serialization("an index does not list the session")


def _user(rows: Rows[Tables], key: bytes, _value: bytes) -> None:
    prefix = key[: 2 + int.from_bytes(key[:2])]
    entry = UserEntry.of(key, prefix)
    _check_entry(rows, None if entry is None else entry.id, lambda found: user_entry(found) == key)


def _deadline(rows: Rows[Tables], key: bytes, _value: bytes) -> None:
    _stands(rows, key, is_live=True)


def _end(rows: Rows[Tables], key: bytes, _value: bytes) -> None:
    _stands(rows, key, is_live=False)


def _stands(rows: Rows[Tables], entry: bytes, *, is_live: bool) -> None:
    place = time_and_key(entry)
    position, key = (0, None) if place is None else place
    _check_entry(rows, key, lambda found: found.position == position and found.session.state.is_live is is_live)


def _check_entry(rows: Rows[Tables], key: bytes | None, is_right: Callable[[Stored], bool]) -> None:
    """Raise ``Serialization`` unless there is a session with this key for which the entry of an index is right."""
    value = rows.get(rows.tables.sessions, key) if key else None
    if key is None or value is None:
        raise Serialization("no session stands there")
    try:
        found = _stored(rows, key, value)
    except Serialization:
        return  # it is named itself, and its entries go with it
    if not is_right(found):
        raise Serialization("no session stands there")


def _stored(rows: Rows[Tables], key: bytes, value: bytes) -> Stored:
    found = stored(rows.codec.decode(RecordKind.SESSION, key, 0, value))
    if found.session.id.encode() != key:
        raise Serialization("a session record is at a wrong place")
    return found


def _event(rows: Rows[Tables], key: bytes, value: bytes) -> None:
    check_key(key)
    decode_event(rows.codec.decode(RecordKind.EVENT, key, 0, value))


def _epoch(rows: Rows[Tables], key: bytes, value: bytes) -> None:
    checked_figures(rows.codec.decode(RecordKind.FIGURES, key, 0, value), EPOCH.size)


def _slot(rows: Rows[Tables], key: bytes, value: bytes) -> None:
    slot_of(key)
    checked_figures(rows.codec.decode(RecordKind.FIGURES, key, 0, value), NUMBERS_BYTES)


def _meta(rows: Rows[Tables], key: bytes, value: bytes) -> None:
    if key in (FORMAT_KEY, PROBE_KEY):
        return
    if key.startswith(CHECKPOINTS):
        checked_figures(rows.codec.decode(RecordKind.FIGURES, key, 0, value), NUMBERS_BYTES)
        return
    size = {COUNTERS_KEY: Counters.SIZE, TAILS_KEY: NUMBERS_BYTES, FENCE_KEY: FENCE_BYTES}.get(key)
    if size is None:
        raise Serialization("there is no such thing")
    figures = checked_figures(rows.codec.decode(RecordKind.FIGURES, key, 0, value), size)
    if key == COUNTERS_KEY:
        Counters(figures)


CHECKS: Final[Checks[Tables]] = {
    "sessions": Check(RecordKind.SESSION, _session),
    "events": Check(RecordKind.EVENT, _event, named),
    "users": Check(RecordKind.FIGURES, _user),
    "deadlines": Check(RecordKind.FIGURES, _deadline),
    "ended": Check(RecordKind.FIGURES, _end),
    "epochs": Check(RecordKind.FIGURES, _epoch),
    "slots": Check(RecordKind.FIGURES, _slot, named),
    "meta": Check(RecordKind.FIGURES, _meta),
}
"""What is looked at in each table."""

SEALED: Final[Places[Tables]] = {
    "sessions": lambda _rows, _key: SealedAs(RecordKind.SESSION),
    "events": lambda _rows, _key: SealedAs(RecordKind.EVENT),
    "epochs": lambda _rows, _key: SealedAs(RecordKind.FIGURES),
    "slots": lambda _rows, _key: SealedAs(RecordKind.FIGURES),
    "meta": lambda _rows, key: None if key in (FORMAT_KEY, PROBE_KEY) else SealedAs(RecordKind.FIGURES),
}
"""What in each table goes through the codec."""


def set_aside(commit: Commit, records: Sequence[DamagedRecord]) -> int:
    """``Repairable.set_aside``."""
    done = 0
    gone: set[bytes] = set()
    for table, key in still_damaged(commit, CHECKS, records):
        done += 1
        if table == "sessions" and (found := commit.load_readable(key)) is not None:
            _enter(commit, key, found)
            continue
        if table == "sessions":
            gone.add(key)
        if table == "epochs":
            commit.epoch(key)  # puts it aside itself, because it needs another one at once
        else:
            commit.set_aside(table, key)
        _log.warning("storage_record_set_aside", table=table, key=CHECKS[table].name(key))
    if gone:
        _forget(commit, gone)
    if done:
        commit.count_states(commit.counters)
    return done


def _enter(commit: Commit, key: bytes, found: Stored) -> None:
    """Give a session the entries that it should have."""
    commit.put(commit.tables.users, user_entry(found))
    commit.put(_times(commit.tables, found), time_key(found.position, key))


def _forget(commit: Commit, gone: set[bytes]) -> None:
    """Take sessions that were put aside out of the indexes. Nobody knows any more whose they were."""
    for table, start in ((commit.tables.users, 0), (commit.tables.deadlines, 8), (commit.tables.ended, 8)):
        with commit.transaction.cursor(table) as cursor:
            keys = cursor.iternext(keys=True, values=False)
            entries = [key for key in keys if key[start or 11 + int.from_bytes(key[:2]) :] in gone]
        for entry in entries:
            commit.remove(table, entry)


def user_entry(found: Stored) -> bytes:
    """The key that a session has in ``users``."""
    session = found.session
    part = LIVE if session.state.is_live else ENDED
    entry = UserEntry(micros(session.created_at), session.id.encode())
    return entry.key(user_prefix(session.user_id.encode()), part)


def _times(tables: Tables, found: Stored) -> Table:
    return tables.deadlines if found.session.state.is_live else tables.ended
