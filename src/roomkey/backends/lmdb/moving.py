"""Moving house: sessions, epochs, events and checkpoints that are handed over, or taken in as they were elsewhere."""

import struct
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from msgspec.structs import replace

from roomkey.backends.lmdb.commit import SESSION, Commit, Stored, stored
from roomkey.backends.lmdb.file import Table
from roomkey.backends.lmdb.layout import CHECKPOINTS, EPOCH, HEADER, moment, session_key
from roomkey.backends.lmdb.snapshot import Snapshot
from roomkey.backends.lmdb.write_batch import checked_figures
from roomkey.backends.records import encode_event, encode_session
from roomkey.backends.taking_in import follows, raised, succeeds
from roomkey.domain.lifecycle import deadline
from roomkey.domain.session import LIVE_STATES, PARTITIONS, SessionId
from roomkey.errors import Serialization
from roomkey.ports import (
    CheckpointItem,
    EpochItem,
    EventItem,
    Gone,
    LoggedEvent,
    LogStart,
    PartitionItem,
    RecordKind,
    SessionItem,
    Unreadable,
)

BATCH: Final = 500
"""How many records are read between two turns of the event loop: a few milliseconds."""

_NUMBERS: Final = struct.Struct(f">{PARTITIONS}Q")


class Export(Snapshot):
    """One moment of the sessions, as they are stored."""

    __slots__ = ()

    def sessions(self, partition: int, after: bytes) -> tuple[list[SessionItem | Unreadable], bytes]:
        """The next sessions of a partition behind a key, and the key that they end with; none at the end."""
        prefix = b"%02x" % partition
        items: list[SessionItem | Unreadable] = []
        for key, value in self._rows(self._file.tables.sessions, after + b"\0" if after else prefix):
            if not key.startswith(prefix):
                break
            after = key
            items.append(self._item(key, value))
            if len(items) == BATCH:
                break
        return items, after

    def _item(self, key: bytes, value: bytes) -> SessionItem | Unreadable:
        try:
            return item_of(self._with_touch(stored(self._file.codec.decode(SESSION, key, 0, value))))
        except (Serialization, struct.error):
            return Unreadable(f"session {key.decode(errors='replace')}")

    def _with_touch(self, found: Stored) -> Stored:
        session = found.session
        seen = self._touched.get(session.id)
        if seen is None or seen <= session.last_seen_at or session.state not in LIVE_STATES:
            return found
        return found._replace(session=replace(session, last_seen_at=seen))

    def epochs(self, after: bytes) -> tuple[list[EpochItem | Unreadable], bytes]:
        """The epochs of the next users behind a key, and the key that they end with; none at the end."""
        rows = [*islice(self._rows(self._file.tables.epochs, after + b"\0"), BATCH)]
        return [self._epoch(*row) for row in rows], rows[-1][0] if rows else after

    def _epoch(self, user: bytes, value: bytes) -> EpochItem | Unreadable:
        try:
            return EpochItem(user.decode(), EPOCH.unpack(self._checked(user, value, EPOCH.size))[0])
        except (Serialization, UnicodeDecodeError):
            return Unreadable(f"the epoch of user {user.decode(errors='replace')!r}")

    def _checked(self, key: bytes, value: bytes, size: int) -> bytes:
        return checked_figures(self._file.codec.decode(RecordKind.FIGURES, key, 0, value), size)

    def checkpoints(self) -> list[CheckpointItem]:
        """All checkpoints."""
        items: list[CheckpointItem] = []
        for key, value in self._rows(self._file.tables.meta, CHECKPOINTS):
            if not key.startswith(CHECKPOINTS):
                break
            consumer = key.removeprefix(CHECKPOINTS).decode()
            positions = enumerate(_NUMBERS.unpack(self._checked(key, value, _NUMBERS.size)))
            items += [CheckpointItem(consumer, partition, place) for partition, place in positions if place]
        return items

    def _rows(self, table: Table, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        with self._transaction.cursor(table) as cursor:
            if cursor.set_range(start):
                yield from cursor.iternext()


def item_of(found: Stored) -> SessionItem:
    """A session in the form in which it is handed over."""
    ended_at = None if found.session.state in LIVE_STATES else moment(found.position)
    return SessionItem(found.session, found.secret, found.epoch, ended_at)


def take_in(commit: Commit, partition: int, items: Sequence[PartitionItem]) -> None:
    """``MovableSessions.take_in``."""
    for item in items:
        match item:
            case SessionItem():
                _take_in_session(commit, item)
            case EpochItem(user, epoch):
                held = commit.epoch_of(user)
                if raised(epoch, held) != held:
                    commit.put_epoch(user.encode(), epoch)
            case LogStart(after):
                commit.writes += commit.log.begin_behind(partition, after)
            case EventItem():
                _take_in_event(commit, partition, item)
            case Gone(id):
                _take_out(commit, id)


def _take_in_session(commit: Commit, item: SessionItem) -> None:
    session = item.session
    key = session.id.encode()
    found = commit.load(key)
    if not succeeds(item, None if found is None else item_of(found)):
        return
    record = encode_session(session, item.secret)
    if found is not None:
        _take_out(commit, session.id)
    position = commit.enter(session, key, item.ended_at or deadline(session) or session.expires_at)
    commit.put_record(SESSION, commit.tables.sessions, key, HEADER.pack(item.epoch, position) + record)
    commit.counters.added(session.state)


def _take_in_event(commit: Commit, partition: int, item: EventItem) -> None:
    head = commit.counters.heads[partition]
    held = None
    if item.sequence <= head:
        entry = next(commit.log.after(partition, item.sequence - 1), None)
        held = None if entry is None or entry.event is None else LoggedEvent(entry.sequence, entry.event)
    if follows(item.sequence, item.event, head, held):
        commit.append_to(partition, encode_event(item.event))


def _take_out(commit: Commit, id: SessionId) -> None:
    key = session_key(id)
    found = commit.load(key)
    if found is not None and key is not None:
        commit.forget(found)
        commit.remove(commit.tables.sessions, key)
        commit.counters.removed(found.session.state)


def take_in_checkpoints(commit: Commit, items: Sequence[CheckpointItem]) -> None:
    """``MovableSessions.take_in_checkpoints``."""
    for item in items:
        key = CHECKPOINTS + item.consumer.encode()
        value = commit.figures(commit.tables.meta, key, _NUMBERS.size)
        positions = [0] * PARTITIONS if value is None else [*_NUMBERS.unpack(value)]
        positions[item.partition] = item.sequence
        commit.put_figures(commit.tables.meta, key, _NUMBERS.pack(*positions))
