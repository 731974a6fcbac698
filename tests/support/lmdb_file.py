"""What is done to an LMDB file from outside of the storage: looking at every index, and holding its lock."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from roomkey.backends.lmdb.commit import stored
from roomkey.backends.lmdb.file import Tables
from roomkey.backends.lmdb.layout import ENDED, HEADER, LIVE, UserEntry, micros, time_key, user_prefix
from roomkey.domain.lifecycle import deadline
from roomkey.ports import CHECKSUMMED_RECORDS, RecordCodec, RecordKind

EARLIER = "is due before its entry says so"
"""A fault of a session."""


def index_faults(directory: Path, codec: RecordCodec = CHECKSUMMED_RECORDS) -> list[str]:
    """Entries of indexes that point at nothing or at the wrong place, and records that an index lacks."""
    with lmdb.Environment(str(directory), max_dbs=len(Tables._fields), readonly=True, map_size=2**34) as environment:
        tables = Tables(*(environment.open_db(name.encode(), create=False) for name in Tables._fields))
        with environment.begin() as transaction:
            contents = {
                name: dict(transaction.cursor(table).iternext())
                for name, table in zip(Tables._fields, tables, strict=True)
            }
    expected: dict[str, set[bytes]] = {"users": set(), "deadlines": set(), "ended": set()}
    faults: list[str] = []
    for key, sealed in contents["sessions"].items():
        value = codec.decode(RecordKind.SESSION, key, 0, sealed)
        found = stored(value)
        session = found.session
        if session.id.encode() != key:
            faults.append(f"{key!r} holds the session {session.id}")
        place = UserEntry(micros(session.created_at), key)
        prefix = user_prefix(session.user_id.encode())
        expected["users"].add(place.key(prefix, LIVE if session.state.is_live else ENDED))
        expected["deadlines" if session.state.is_live else "ended"].add(time_key(found.position, key))
        due = deadline(session)
        if due is not None and micros(due) < found.position:
            faults.append(f"{session.id} {EARLIER}")
        assert HEADER.unpack_from(value) == (found.epoch, found.position)
    for name, keys in expected.items():
        faults += [f"{name} lacks {key!r}" for key in keys - contents[name].keys()]
        faults += [f"{name} has {key!r}, which points at nothing" for key in contents[name].keys() - keys]
    return faults


@contextmanager
def holding_the_lock(path: Path) -> Generator[None]:
    """Another process that is writing and does not come to an end."""
    code = (
        "import lmdb, sys; environment = lmdb.open(sys.argv[1], max_dbs=9); "
        "transaction = environment.begin(write=True); print('held', flush=True); sys.stdin.read(); transaction.abort()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        try:
            yield
        finally:
            assert child.stdin is not None
            child.stdin.close()


def damaged(record: bytes, place: int) -> bytes:
    """A record with one byte that is neither what it was nor anything in msgpack."""
    byte = b"\xc1" if record[place] != 0xC1 else b"\xc0"
    return record[:place] + byte + record[place + 1 :]
