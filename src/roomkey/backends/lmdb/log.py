"""
The event log in the file, and why its keys begin with a slot.

A commit has events of many partitions. If each partition's events stood by themselves, every commit would
rewrite a page at the end of each. So the log is cut into slots of ``SLOT_SIZE`` events as they come, and only
within a slot events are sorted by partition: the end of all partitions lies on the same few pages. At the
beginning of each slot the last sequence number of every partition is written down, by which readers find
the slot that an event is in.
"""

import struct
from collections.abc import Iterator
from datetime import datetime
from itertools import takewhile
from typing import Final, NamedTuple

from roomkey.backends.lmdb.file import MappedFile, Table, Tables, Transaction
from roomkey.backends.lmdb.layout import TAILS_KEY, Counters
from roomkey.backends.records import decode_event
from roomkey.domain.session import PARTITIONS
from roomkey.ports import PLAIN_RECORDS, RecordKind

SLOT_SIZE: Final = 256

_EVENT: Final = RecordKind.EVENT
_EVENT_KEY: Final = struct.Struct(">IBQ")
_SLOT_KEY: Final = struct.Struct(">I")
_NUMBER: Final = struct.Struct(">Q")
_NUMBERS: Final = struct.Struct(f">{PARTITIONS}Q")


class LogEntry(NamedTuple):
    """An event record at its place."""

    sequence: int
    record: bytes
    key: bytes


class Log:
    """The log as one transaction sees it; ``append`` and ``purge`` need one that may write."""

    __slots__ = ("_codec", "_counters", "_events", "_meta", "_slots", "_transaction")

    def __init__(self, transaction: Transaction, file: MappedFile[Tables], counters: Counters) -> None:
        tables = file.tables
        self._transaction = transaction
        self._codec = file.codec
        self._events: Table = tables.events
        self._slots: Table = tables.slots
        self._meta: Table = tables.meta
        self._counters = counters

    def append(self, partition: int, record: bytes) -> None:
        """Give an event the next place in its partition."""
        counters = self._counters
        if counters.room == 0:
            counters.slot += 1
            counters.room = SLOT_SIZE
            self._transaction.put(_SLOT_KEY.pack(counters.slot), _NUMBERS.pack(*counters.heads), db=self._slots)
        counters.room -= 1
        counters.heads[partition] = sequence = counters.heads[partition] + 1
        key = _EVENT_KEY.pack(counters.slot, partition, sequence)
        if self._codec is not PLAIN_RECORDS:
            record = self._codec.encode(_EVENT, key, 0, record)
        self._transaction.put(key, record, True, True, False, self._events)  # keywords cost half a microsecond

    def after(self, partition: int, sequence: int) -> Iterator[LogEntry]:
        """The events of a partition behind ``sequence``, as far as they were not purged."""
        last = max(sequence, self._tails()[partition])
        if last >= self._counters.heads[partition]:
            return
        first = self._first_slot()
        if first is None:
            return
        slot = self._slot_after(partition, last, first)
        with self._transaction.cursor(self._events) as cursor:
            while True:
                if cursor.set_range(_EVENT_KEY.pack(slot, partition, last + 1)):
                    for key, record in cursor.iternext():
                        place = _EVENT_KEY.unpack(key)
                        if place[:2] != (slot, partition):
                            break
                        last = place[2]
                        if self._codec is not PLAIN_RECORDS:
                            record = self._codec.decode(_EVENT, key, 0, record)  # noqa: PLW2901
                        yield LogEntry(last, record, key)
                if slot >= self._counters.slot:
                    return
                slot = self._slot_after(partition, last, slot + 1)

    def purge(self, before: datetime, limit: int) -> int:
        """Forget up to ``limit`` events older than ``before`` from the front of each partition."""
        tails = self._tails()
        purged = 0
        for partition in range(PARTITIONS):
            for entry in list(self._older(partition, before, limit - purged)):
                self._transaction.delete(entry.key, db=self._events)
                tails[partition] = entry.sequence
                purged += 1
        if purged:
            self._transaction.put(TAILS_KEY, _NUMBERS.pack(*tails), db=self._meta)
            self._drop_empty_slots(tails)
        return purged

    def begin_behind(self, partition: int, after: int) -> int:
        """
        Forget the events of a partition up to ``after``; if it ends before, it goes on behind that.

        Returns how many changes that took.
        """
        tails = self._tails()
        if after <= tails[partition]:
            return 0
        keys = [entry.key for entry in takewhile(lambda entry: entry.sequence <= after, self.after(partition, 0))]
        for key in keys:
            self._transaction.delete(key, db=self._events)
        tails[partition] = after
        self._counters.heads[partition] = max(self._counters.heads[partition], after)
        self._transaction.put(TAILS_KEY, _NUMBERS.pack(*tails), db=self._meta)
        self._drop_empty_slots(tails)
        return len(keys) + 1

    def _older(self, partition: int, before: datetime, limit: int) -> Iterator[LogEntry]:
        for number, entry in enumerate(self.after(partition, 0)):
            if number >= limit or decode_event(entry.record).at >= before:
                return
            yield entry

    def _drop_empty_slots(self, tails: list[int]) -> None:
        slot = self._first_slot()
        while slot is not None and slot < self._counters.slot:
            following = _NUMBERS.unpack(self._start_of(slot + 1))
            if any(start > tail for start, tail in zip(following, tails, strict=True)):
                return
            self._transaction.delete(_SLOT_KEY.pack(slot), db=self._slots)
            slot += 1

    def _tails(self) -> list[int]:
        """The last sequence number of each partition that was purged."""
        value = self._transaction.get(TAILS_KEY, db=self._meta)
        return [0] * PARTITIONS if value is None else list(_NUMBERS.unpack(value))

    def _first_slot(self) -> int | None:
        with self._transaction.cursor(self._slots) as cursor:
            return _SLOT_KEY.unpack(cursor.key())[0] if cursor.first() else None

    def _slot_after(self, partition: int, sequence: int, low: int) -> int:
        """The slot of the event behind ``sequence``, which is not before ``low``: the last that starts no later."""
        step = 1
        while low + step <= self._counters.slot and self._start(low + step, partition) <= sequence:
            low += step
            step *= 2
        high = min(low + step, self._counters.slot + 1)
        while high - low > 1:
            middle = (low + high) // 2
            if self._start(middle, partition) <= sequence:
                low = middle
            else:
                high = middle
        return low

    def _start(self, slot: int, partition: int) -> int:
        return _NUMBER.unpack_from(self._start_of(slot), partition * _NUMBER.size)[0]

    def _start_of(self, slot: int) -> bytes:
        value = self._transaction.get(_SLOT_KEY.pack(slot), db=self._slots)
        return value or bytes(_NUMBERS.size)
