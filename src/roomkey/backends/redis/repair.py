"""Which entries of the keys of sessions are damaged, and putting them aside."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple

import structlog

from roomkey.backends.damage import NewerSchema, shown
from roomkey.backends.redis.layout import ID_BYTES, Partition, id_of, micros, user_prefix
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import Call, RedisServer
from roomkey.backends.redis.stored import Found, Translator
from roomkey.domain.lifecycle import deadline
from roomkey.errors import Serialization
from roomkey.ports import DamagedRecord, RecordKind

LOOKED_AT_ONCE: Final = 200
"""Entries that are looked at in one write; each is a step of its own."""

_LOOK: Final = Script("sessions/look")
_SET_ASIDE: Final = Script("sessions/set_aside")
_RECOUNT: Final = Script("sessions/recount")
_PLACE: Final = Script("sessions/place")

_EPOCHS, _LIVE, _OVER, _DEADLINES, _ENDED, _FIGURES, _LOG, _SHELF = range(1, 9)
"""The keys of a partition by their numbers in scripts; those of the shelves go on from the last one."""

_INDEXES: Final = (_LIVE, _OVER, _DEADLINES, _ENDED)

_WORDS: Final = {
    _EPOCHS: "the epochs",
    _LIVE: "the index of live sessions",
    _OVER: "the index of sessions that are over",
    _DEADLINES: "the deadlines",
    _ENDED: "the index of ends",
    _FIGURES: "the figures",
}

_log = structlog.get_logger("roomkey.storage")


class _Entry(NamedTuple):
    """An entry of a key of a partition, and with it the session that it is about."""

    partition: Partition
    place: int
    member: bytes
    entry: Any
    value: bytes | None
    is_listed: bool


class Repair:
    """What looks at everything."""

    def __init__(self, server: RedisServer, partitions: Sequence[Partition], translator: Translator) -> None:
        self._server = server
        self._partitions = partitions
        self._translator = translator

    async def damaged(self) -> list[DamagedRecord]:
        """``Repairable.damaged``."""
        found: list[DamagedRecord] = []
        for partition in self._partitions:
            async for place, members in self._members(partition):
                for entry in await self._look(partition, place, members):
                    error = self._flaw(entry)
                    if error is not None:
                        found.append(_damaged(entry, error))
        return found

    async def set_aside(self, records: Sequence[DamagedRecord]) -> int:
        """``Repairable.set_aside``, one after another; what changes meanwhile stays."""
        done = 0
        partitions: set[Partition] = set()
        for record in records:
            number, place, member = record.place[0], record.place[1], record.place[2:]
            partition = self._partitions[number]
            (entry,) = await self._look(partition, place, [member])
            error = self._flaw(entry)
            if error is None or isinstance(error, NewerSchema) or not await self._put_right(entry):
                continue
            done += 1
            partitions.add(partition)
            _log.warning("storage_record_set_aside", kind=record.kind.value, key=record.key)
        # May be repeated: it counts what is there.
        await self._server.run_many([Call(_RECOUNT, each.all) for each in partitions], may_repeat=True)
        if done:
            self._translator.damage.forget()
        return done

    async def _put_right(self, entry: _Entry) -> bool:
        partition = entry.partition
        found = self._sound(entry) if entry.place >= _SHELF else None
        if found is not None and entry.value is not None:
            # It is only not listed.
            session = found.held.session
            time = (deadline(session) or session.last_seen_at) if session.state.is_live else session.last_seen_at
            arguments = entry.member, entry.value, entry.value, micros(time)
            return bool(await self._server.run(_PLACE, partition.all, arguments, may_repeat=True))  # it stays the same
        before = entry.entry if isinstance(entry.entry, bytes) else b""
        keys = [*partition.all, partition.aside]
        # May be repeated: what is gone stays so; only the number may be too small then.
        return bool(await self._server.run(_SET_ASIDE, keys, (entry.place, entry.member, before), may_repeat=True))

    # --- look -----------------------------------------------------------------------------------------

    async def _members(self, partition: Partition) -> AsyncIterator[tuple[int, Sequence[bytes]]]:
        """The entries of all keys of a partition, a few at a time, each with the number of its key."""
        questions = {
            place: ("ZRANGE", key, 0, -1) if place in _INDEXES else ("HKEYS", key)
            for place, key in enumerate(partition.all, 1)
            if place != _LOG
        }
        answers: list[list[bytes]] = await self._server.ask_many([*questions.values()])
        for place, members in zip(questions, answers, strict=True):
            for start in range(0, len(members), LOOKED_AT_ONCE):
                yield place, members[start : start + LOOKED_AT_ONCE]
        after = b"-"
        while entries := await self._server.ask("XRANGE", partition.log, after, "+", "COUNT", LOOKED_AT_ONCE):
            yield _LOG, [name for name, _ in entries]
            after = b"(" + entries[-1][0]

    async def _look(self, partition: Partition, place: int, members: Sequence[bytes]) -> list[_Entry]:
        calls = [Call(_LOOK, partition.all, (place, member)) for member in members]
        replies = await self._server.run_many(calls, may_repeat=True)  # they change nothing
        return [
            _Entry(partition, place, member, entry, value, bool(is_listed))
            for member, (entry, value, is_listed) in zip(members, replies, strict=True)
        ]

    def _flaw(self, entry: _Entry) -> Serialization | None:
        """What is wrong with it; nothing if it is gone."""
        if entry.entry is None:
            return None
        try:
            if entry.place == _LOG:
                self._translator.read_event(entry.entry)
            elif entry.place >= _SHELF:
                self._check_session(entry)
            elif entry.place in {_EPOCHS, _FIGURES}:
                int(entry.entry)
            else:
                self._check_index(entry)
        except Serialization as error:
            return error
        except ValueError:
            return Serialization("a figure is damaged")
        return None

    def _check_session(self, entry: _Entry) -> None:
        if len(entry.member) != ID_BYTES or entry.member[0] >> 4 != entry.place - _SHELF:
            raise Serialization("a session record is at a wrong place")
        self._translator.found(id_of(entry.partition.number, entry.member), entry.entry, None)
        if not entry.is_listed:
            raise Serialization("an index does not list the session")

    def _check_index(self, entry: _Entry) -> None:
        if entry.value is None:
            raise Serialization("no session stands there")
        found = self._sound(entry)
        if found is None:
            return  # it is named itself, and its entries go with it
        session = found.held.session
        id = entry.member[-ID_BYTES:]
        listed = (user_prefix(session.user_id) or b"") + micros(session.created_at).to_bytes(7) + id
        expected = listed if entry.place in {_LIVE, _OVER} else id
        if entry.member != expected or session.state.is_live is not (entry.place in {_LIVE, _DEADLINES}):
            raise Serialization("no session stands there")

    def _sound(self, entry: _Entry) -> Found | None:
        """The session that it is about, if that can be read."""
        if entry.value is None:
            return None
        try:
            return self._translator.found(id_of(entry.partition.number, entry.member[-ID_BYTES:]), entry.value, None)
        except Serialization:
            return None


def _damaged(entry: _Entry, error: Serialization) -> DamagedRecord:
    number, place, member = entry.partition.number, entry.place, entry.member
    if place == _LOG:
        kind, key = RecordKind.EVENT, f"{number:02x}, {member.partition(b'-')[0].decode()}"
    elif place >= _SHELF:
        kind = RecordKind.SESSION
        key = id_of(number, member) if len(member) == ID_BYTES else f"{shown(member)} in partition {number:02x}"
    else:
        kind, key = RecordKind.FIGURES, f"{shown(member)} in {_WORDS[place]} of partition {number:02x}"
    return DamagedRecord(
        kind=kind,
        key=key,
        reason=str(error),
        place=bytes((number, place)) + member,
        is_newer=isinstance(error, NewerSchema),
    )
