"""
The event log in the file, and why its keys begin with a slot.

A commit has events of many partitions. If each partition's events stood by themselves, every commit would
rewrite a page at the end of each. So the log is cut into slots of ``SLOT_SIZE`` events as they come, and only
within a slot events are sorted by partition: the end of all partitions lies on the same few pages. At the
beginning of each slot the last sequence number of every partition is written down, by which readers find
the slot that an event is in.
"""

import struct
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Final, NamedTuple

from roomkey.backends.lmdb.file import MappedFile, Table, Tables, Transaction
from roomkey.backends.lmdb.layout import COUNTERS_KEY, SLOT_SIZE, TAILS_KEY, Counters
from roomkey.backends.lmdb.write_batch import checked_figures
from roomkey.backends.records import decode_event
from roomkey.domain.session import PARTITIONS, AnyEvent
from roomkey.errors import Serialization
from roomkey.ports import PLAIN_RECORDS, LoggedEvent, RecordCodec, RecordKind

_EVENT: Final = RecordKind.EVENT
_EVENT_KEY: Final = struct.Struct(">IBQ")
_SLOT_KEY: Final = struct.Struct(">I")
_NUMBER: Final = struct.Struct(">Q")
_NUMBERS: Final = struct.Struct(f">{PARTITIONS}Q")

NUMBERS_BYTES: Final = _NUMBERS.size
"""The size of what is written down for a slot."""


class LogEntry(NamedTuple):
    """An event at its place; ``None`` for one that cannot be read."""

    sequence: int
    event: AnyEvent | None
    key: bytes


class Log:
    """The log as one transaction sees it; ``append`` and ``purge`` need one that may write."""

    __slots__ = ("_codec", "_counters", "_damage", "_events", "_meta", "_slots", "_transaction")

    def __init__(self, transaction: Transaction, file: MappedFile[Tables], counters: Counters) -> None:
        tables = file.tables
        self._transaction = transaction
        self._codec = file.codec
        self._damage = file.damage
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
            self.put_start(counters.slot, counters.heads)
        counters.room -= 1
        counters.heads[partition] = sequence = counters.heads[partition] + 1
        key = _EVENT_KEY.pack(counters.slot, partition, sequence)
        if self._codec is not PLAIN_RECORDS:
            record = self._codec.encode(_EVENT, key, 0, record)
        self._transaction.put(key, record, True, True, False, self._events)  # keywords cost half a microsecond

    def put_start(self, slot: int, heads: Sequence[int]) -> None:
        """Write down where each partition is at the beginning of a slot."""
        self._put_figures(self._slots, _SLOT_KEY.pack(slot), _NUMBERS.pack(*heads))

    def read(self, partition: int, after: int, limit: int) -> list[LoggedEvent]:
        """``EventLog.events``: no answer spans what is missing, so that whoever reads on finds a gap in front."""
        found: list[LoggedEvent] = []
        for sequence, event, _ in self.after(partition, after):
            if found and (event is None or sequence != found[-1].sequence + 1 or len(found) == limit):
                break
            if event is not None:
                found.append(LoggedEvent(sequence, event))
        return found[:limit]

    def after(self, partition: int, sequence: int) -> Iterator[LogEntry]:
        """The events of a partition behind ``sequence``, as far as they were not purged."""
        head = self._counters.heads[partition]
        last = max(sequence, self._tails()[partition])
        if last >= head:
            return
        first = self._first_slot()
        if first is None:
            return
        slot, last_slot = self._slot_after(partition, last, first), self._last_slot()
        with self._transaction.cursor(self._events) as cursor:
            while True:
                if cursor.set_range(_EVENT_KEY.pack(slot, partition, last + 1)):
                    for key, record in cursor.iternext():
                        if len(key) != _EVENT_KEY.size:
                            continue  # not one of ours
                        place = _EVENT_KEY.unpack(key)
                        if place[:2] != (slot, partition) or place[2] > head:
                            break
                        event = self.event(key, record)
                        if event is not None:
                            last = place[2]  # the number of another one may be as wrong as the rest of it
                        yield LogEntry(place[2], event, key)
                if slot >= last_slot:
                    return
                slot = self._slot_after(partition, last, slot + 1)

    def event(self, key: bytes, value: bytes) -> AnyEvent | None:
        """The event that lies there; ``None`` if it cannot be read, which is noted."""
        try:
            return decode_event(value if self._codec is PLAIN_RECORDS else self._codec.decode(_EVENT, key, 0, value))
        except Serialization as error:
            self._damage.note(_EVENT, named(key), error)
            return None

    def purge(self, before: datetime, limit: int) -> int:
        """Forget up to ``limit`` events older than ``before`` from the front of each partition."""
        tails = self._tails()
        purged = 0
        for partition in range(PARTITIONS):
            for entry in list(self._older(partition, before, limit - purged)):
                self._transaction.delete(entry.key, db=self._events)
                if entry.event is not None:
                    tails[partition] = entry.sequence
                purged += 1
        if purged:
            self._put_figures(self._meta, TAILS_KEY, _NUMBERS.pack(*tails))
            self._drop_empty_slots(tails)
        return purged

    def _older(self, partition: int, before: datetime, limit: int) -> Iterator[LogEntry]:
        # One that cannot be read has no time: it is as old as the next one that can.
        ageless: list[LogEntry] = []
        number = 0
        for entry in self.after(partition, 0):
            ageless.append(entry)
            if entry.event is None:
                continue
            if number + len(ageless) > limit or entry.event.at >= before:
                return
            number += len(ageless)
            yield from ageless
            ageless.clear()

    def _drop_empty_slots(self, tails: list[int]) -> None:
        slot = self._first_slot()
        while slot is not None and slot < self._counters.slot:
            following = self.start_of(slot + 1)
            if any(start > tail for start, tail in zip(following, tails, strict=True)):
                return
            self._transaction.delete(_SLOT_KEY.pack(slot), db=self._slots)
            slot += 1

    def _tails(self) -> list[int]:
        """The last sequence number of each partition that was purged; too low is no harm."""
        value = self._figures(self._meta, TAILS_KEY)
        return [0] * PARTITIONS if value is None else list(_NUMBERS.unpack(value))

    def _first_slot(self) -> int | None:
        """The first slot that has a beginning or an event."""
        found: list[int] = []
        for table, size in ((self._slots, _SLOT_KEY.size), (self._events, _EVENT_KEY.size)):
            with self._transaction.cursor(table) as cursor:
                keys = cursor.iternext(keys=True, values=False)
                found += [_SLOT_KEY.unpack_from(key)[0] for key in islice((k for k in keys if len(k) == size), 1)]
        return min(found, default=None)

    def _last_slot(self) -> int:
        """The last slot that has an event. The counters know it, too, unless they are damaged."""
        with self._transaction.cursor(self._events) as cursor:
            key = cursor.key() if cursor.last() else b""
        return min(self._counters.slot, _SLOT_KEY.unpack_from(key)[0] if len(key) >= _SLOT_KEY.size else 2**32)

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
        value = self._figures(self._slots, _SLOT_KEY.pack(slot))
        if value is None:
            return self._derived_start(slot, partition)
        return _NUMBER.unpack_from(value, partition * _NUMBER.size)[0]

    def start_of(self, slot: int) -> Sequence[int]:
        """Where each partition is at the beginning of a slot."""
        value = self._figures(self._slots, _SLOT_KEY.pack(slot))
        if value is None:
            return [self._derived_start(slot, partition) for partition in range(PARTITIONS)]
        return _NUMBERS.unpack(value)

    def _derived_start(self, slot: int, partition: int) -> int:
        """The same from the events, where what was written down is damaged: one before the next event."""
        with self._transaction.cursor(self._events) as cursor:
            found = cursor.set_range(_EVENT_KEY.pack(slot, partition, 0))
            while found:
                key = cursor.key()
                if len(key) != _EVENT_KEY.size:
                    found = cursor.next()  # not one of ours
                    continue
                place, owner, sequence = _EVENT_KEY.unpack(key)
                if owner == partition:
                    return sequence - 1
                following = place + (owner > partition)
                found = following <= self._counters.slot and cursor.set_range(_EVENT_KEY.pack(following, partition, 0))
        return self._counters.heads[partition]

    def _figures(self, table: Table, key: bytes) -> bytes | None:
        """``PARTITIONS`` numbers; ``None`` if they are missing or damaged, which is noted."""
        value = self._transaction.get(key, None, table)
        if value is None:
            return None
        try:
            return checked_figures(self._codec.decode(RecordKind.FIGURES, key, 0, value), _NUMBERS.size)
        except Serialization as error:
            self._damage.note(RecordKind.FIGURES, named(key) if table is self._slots else key, error)
            return None

    def _put_figures(self, table: Table, key: bytes, value: bytes) -> None:
        self._transaction.put(key, self._codec.encode(RecordKind.FIGURES, key, 0, value), db=table)


def named(key: bytes) -> str:
    """A key of ``events`` or ``slots`` as operators read it."""
    if len(key) == _EVENT_KEY.size:
        slot, partition, sequence = _EVENT_KEY.unpack(key)
        return f"event {sequence} of partition {partition} in slot {slot}"
    return f"slot {_SLOT_KEY.unpack(key)[0]}" if len(key) == _SLOT_KEY.size else key.hex()


def numbers_of(value: bytes | None) -> Sequence[int]:
    """What is written down for a slot, or in ``tails``."""
    return [0] * PARTITIONS if value is None else _NUMBERS.unpack(value)


def check_key(key: bytes) -> None:
    """Raise ``Serialization`` if ``key`` cannot be one in ``events``."""
    if len(key) != _EVENT_KEY.size:
        raise Serialization("there is no event with such a key")


def slot_of(key: bytes) -> int:
    """The slot that a key in ``slots`` is of; raises ``Serialization`` if it is of none."""
    if len(key) != _SLOT_KEY.size:
        raise Serialization("there is no slot with such a key")
    return _SLOT_KEY.unpack(key)[0]


def counters_value(transaction: Transaction, tables: Tables, codec: RecordCodec) -> bytes | None:
    """
    What ``Counters`` are made of; ``None`` before the first event.

    Raises:
        Serialization: If it is damaged, or missing though there is a log.
    """
    value = transaction.get(COUNTERS_KEY, None, tables.meta)
    if value is not None:
        return codec.decode(RecordKind.FIGURES, COUNTERS_KEY, 0, value)
    if any(transaction.stat(table)["entries"] for table in (tables.slots, tables.events)):
        raise Serialization("the counters are missing")
    return None


def count_events(transaction: Transaction, table: Table) -> tuple[list[int], int]:
    """The last sequence number of each partition and the last slot, as the events themselves say."""
    heads: list[int] = [0] * PARTITIONS
    last = 0
    with transaction.cursor(table) as cursor:
        for key in cursor.iternext(keys=True, values=False):
            if len(key) == _EVENT_KEY.size:
                place: tuple[int, int, int] = _EVENT_KEY.unpack(key)
                slot, partition, sequence = place
                heads[partition] = max(heads[partition], sequence)
                last = max(last, slot)
    return heads, last
