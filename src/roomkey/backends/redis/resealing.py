"""Writing records in Redis anew, under the key that the codec seals with now: those of sessions and events, and how."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from secrets import token_hex
from typing import Any, Final, NamedTuple

from roomkey.backends.redis.layout import SHELVES, Header, Partition, id_of
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import RedisServer
from roomkey.backends.resealing import Sealed, sealed_anew
from roomkey.errors import Conflict, Serialization
from roomkey.ports import RecordCodec, RecordKind, Resealed, SealingCodec

READ_AT_ONCE: Final = 50
"""Number of records in one answer, and in one write."""

COPY_SECONDS: Final = 600
"""How long a copy of a stream stays that nobody goes on with: longer than any caller waits."""

TRIES: Final = 20

_HASH: Final = Script("hash_reseal")
_STREAM: Final = Script("stream_reseal")

Entry = Any
"""An entry of a stream: its id, and names and values in turns. The last value is its record."""


class Place(NamedTuple):
    """Where a record lies in a hash: its field, and the number of bytes in front of it."""

    field: bytes
    front: int = 0


class Tally:
    """How many records were looked at, and what became of them."""

    def __init__(self) -> None:
        self.looked_at = self.resealed = self.left = 0

    def __iter__(self) -> Iterator[int]:
        return iter((self.looked_at, self.resealed, self.left))

    def add(self, looked_at: int, resealed: int, left: int) -> None:
        """Some more."""
        self.looked_at += looked_at
        self.resealed += resealed
        self.left += left

    def resealed_upto(self, next: bytes | None) -> Resealed:
        """The answer of ``Resealable.reseal``."""
        return Resealed(next, self.looked_at, self.resealed, self.left)


class Resealer:
    """Writes what lies in hashes and streams anew."""

    def __init__(self, server: RedisServer, codec: SealingCodec, *, only_counts: bool) -> None:
        self._server = server
        self._codec = codec
        self._only_counts = only_counts
        self.tally = Tally()

    async def hash(self, key: bytes, records: Sequence[Sealed[Place]]) -> None:
        """Records of a hash, at most ``READ_AT_ONCE``."""
        anew, left = sealed_anew(self._codec, records)
        self.tally.add(len(records), len(anew), left)
        if anew and not self._only_counts:
            arguments = [
                value for (field, front), _, former, record in anew for value in (field, front, former, record)
            ]
            # May be repeated: what was written is not what was read.
            await self._server.run(_HASH, [key], arguments, may_repeat=True)

    async def stream(self, key: bytes, sealed: Callable[[Entry], Sealed[bytes] | None]) -> None:
        """
        Everything in a stream; ``sealed`` is ``None`` for an entry that is damaged.

        A stream only grows at its end, so one with records that are not current is written anew as a whole.

        Raises:
            Conflict: If entries are taken out of it again and again. Nothing was changed.
        """
        outdated = False
        async for entries in self._entries(key, b"-"):
            records, damaged = _sealed(entries, sealed)
            anew, left = sealed_anew(self._codec, records)
            self.tally.add(len(entries), len(anew), left + damaged)
            outdated = outdated or bool(anew)
        if not outdated or self._only_counts:
            return
        for _ in range(TRIES):
            if await self._copied(key, sealed):
                return
        raise Conflict("a stream changes again and again while it is written anew")

    async def _copied(self, key: bytes, sealed: Callable[[Entry], Sealed[bytes] | None]) -> bool:
        """Let a copy take the place of a stream; ``False`` if it was in vain."""
        copy = key + b":anew:" + token_hex(8).encode()
        after = b"-"
        while True:
            entries = await self._server.ask("XRANGE", key, after, "+", "COUNT", READ_AT_ONCE)
            records, _ = _sealed(entries, sealed)
            anew = {each.key: each.record for each in sealed_anew(self._codec, records)[0]}
            arguments: list[Any] = [value for id, fields in entries for value in (id, anew.get(id, fields[-1]))]
            # May be repeated: what is in the copy already is not added again.
            outcome = await self._server.run(_STREAM, [key, copy], [COPY_SECONDS, *arguments], may_repeat=True)
            if outcome:
                return outcome > 0
            after = b"(" + entries[-1][0] if entries else after

    async def _entries(self, key: bytes, after: bytes) -> AsyncIterator[Sequence[Entry]]:
        while entries := await self._server.ask("XRANGE", key, after, "+", "COUNT", READ_AT_ONCE):
            yield entries
            after = b"(" + entries[-1][0]


def _sealed(
    entries: Iterable[Entry], sealed: Callable[[Entry], Sealed[bytes] | None]
) -> tuple[list[Sealed[bytes]], int]:
    """The records of entries, and how many have none."""
    found = [sealed(entry) for entry in entries]
    records = [each for each in found if each is not None]
    return records, len(found) - len(records)


class Resealing:
    """``Resealable`` for sessions."""

    def __init__(self, server: RedisServer, partitions: Sequence[Partition], codec: RecordCodec) -> None:
        self._server = server
        self._partitions = partitions
        self._codec = codec

    async def reseal(self, after: bytes, limit: int, *, only_counts: bool) -> Resealed:
        """``Resealable.reseal``: whole partitions, one after the other."""
        if not isinstance(self._codec, SealingCodec):
            return Resealed(None, 0, 0, 0)
        resealer = Resealer(self._server, self._codec, only_counts=only_counts)
        number = int.from_bytes(after)
        while number < len(self._partitions) and resealer.tally.looked_at < limit:
            partition = self._partitions[number]
            ids = await self._server.ask_many([("HKEYS", shelf) for shelf in partition.shelves])
            for shelf in range(SHELVES):
                await self._reseal_shelf(resealer, partition, shelf, ids[shelf])
            await resealer.stream(partition.log, _event)
            number += 1
        return resealer.tally.resealed_upto(number.to_bytes(2) if number < len(self._partitions) else None)

    async def _reseal_shelf(self, resealer: Resealer, partition: Partition, shelf: int, ids: Sequence[bytes]) -> None:
        key = partition.shelves[shelf]
        for start in range(0, len(ids), READ_AT_ONCE):
            some = ids[start : start + READ_AT_ONCE]
            values = await self._server.ask("HMGET", key, *some)
            found = [_session(partition, *each) for each in zip(some, values, strict=True) if each[1] is not None]
            records = [each for each in found if each is not None]
            resealer.tally.add(len(found) - len(records), 0, len(found) - len(records))
            await resealer.hash(key, records)


def _session(partition: Partition, field: bytes, value: bytes) -> Sealed[Place] | None:
    """The record of a session; ``None`` if what is in front of it is damaged."""
    try:
        header, record = Header.of(value)
    except Serialization:
        return None
    id = id_of(partition.number, field).encode()
    return Sealed(Place(field, len(value) - len(record)), RecordKind.SESSION, id, header.version, record)


def _event(entry: Entry) -> Sealed[bytes] | None:
    id, fields = entry
    return Sealed(id, RecordKind.EVENT, fields[3], 0, fields[5]) if len(fields) == 6 else None
