"""Objects on their way into a backend and back: their names, what is stored of them, and which are damaged."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple

from roomkey.backends.damage import DamageNotes, NewerSchema
from roomkey.domain.names import check_text
from roomkey.errors import InvalidInput, Serialization
from roomkey.ports import DamagedRecord, NamedObject, RecordCodec, RecordKind
from roomkey.ports.objects import (
    ABSENT,
    MAX_CHANGES,
    MAX_COMMIT_BYTES,
    MAX_NAME_BYTES,
    MAX_OBJECT_BYTES,
    SPACES,
    Changes,
    new_revision,
)

SEPARATOR: Final = b"\0"
"""Stands between space and name where both are in one key; no name has it."""

_NO_UTF_8: Final = b"\xff"
"""Stands behind every name that goes on at its place: it is in none."""

_BEHIND_ALL: Final = _NO_UTF_8 * (MAX_NAME_BYTES + 1)
"""Also what is damaged, or not ours."""

INSPECTED_AT_A_TIME: Final = 200


class ObjectRow(NamedTuple):
    """An object as it lies in a backend."""

    name: bytes
    revision: int
    stored: bytes


class PreparedCommit(NamedTuple):
    """A commit with everything that can be prepared before its turn comes."""

    expected: Mapping[bytes, int]
    puts: Sequence[ObjectRow]
    removed: Sequence[bytes]

    def agrees(self, present: Mapping[bytes, int]) -> bool:
        """Whether these revisions, of all objects that exist among the expected ones, are as expected."""
        return all(present.get(name, ABSENT) == revision for name, revision in self.expected.items())

    @property
    def names(self) -> list[bytes]:
        """Everything that it changes."""
        return [*(put.name for put in self.puts), *self.removed]

    def is_done(self, present: Mapping[bytes, int]) -> bool:
        """Whether these revisions, of all objects that exist among ``names``, show that it was done."""
        return all(present.get(put.name) == put.revision for put in self.puts) and not any(
            name in present for name in self.removed
        )


Rows = Callable[[str, bytes, bytes, int], Awaitable[Sequence[ObjectRow]]]
"""At most so many objects of a space, in order, from a name on, and before another one."""


class ObjectRecords:
    """What becomes of objects through a codec; ``damage`` is told of those that cannot be read."""

    def __init__(self, codec: RecordCodec) -> None:
        self._codec = codec
        self.damage = DamageNotes("objects")

    def prepared(self, space: str, changes: Changes, expected: Mapping[str, int]) -> PreparedCommit:
        """
        What is to be stored.

        Raises:
            InvalidInput: If it is beyond the limits of the port.
        """
        if len(changes) > MAX_CHANGES or sum(len(value or b"") for value in changes.values()) > MAX_COMMIT_BYTES:
            raise InvalidInput(f"a commit has at most {MAX_CHANGES} changes and {MAX_COMMIT_BYTES} bytes")
        return PreparedCommit(
            {name_of(name): revision for name, revision in expected.items()},
            [self.row(space, name, value) for name, value in sorted(changes.items()) if value is not None],
            [name_of(name) for name, value in sorted(changes.items()) if value is None],
        )

    def row(self, space: str, name: str, value: bytes) -> ObjectRow:
        """An object with a new revision."""
        if len(value) > MAX_OBJECT_BYTES:
            raise InvalidInput(f"an object has at most {MAX_OBJECT_BYTES} bytes")
        revision, key = new_revision(), name_of(name)
        return ObjectRow(key, revision, self._codec.encode(RecordKind.OBJECT, place_of(space, key), revision, value))

    def value(self, space: str, row: ObjectRow) -> bytes:
        """
        The value of an object.

        Raises:
            Serialization: If it cannot be read.
        """
        try:
            return self._codec.decode(RecordKind.OBJECT, place_of(space, row.name), row.revision, row.stored)
        except Serialization as error:
            self.damage.note(RecordKind.OBJECT, shown(space, row.name), error)
            raise

    async def listed(self, rows: Rows, space: str, *, prefix: str, after: str, limit: int) -> list[NamedObject]:
        """What ``ObjectStore.list`` returns, of what ``rows`` reads."""
        check_space(space)
        start, end, limit = start_of(prefix, after), prefix.encode() + _NO_UTF_8, min(limit, MAX_CHANGES)
        found: list[NamedObject] = []
        while True:
            batch = await rows(space, start, end, limit)
            for row in batch:
                if len(found) == limit:
                    return found
                try:
                    found.append(NamedObject(row.name.decode(), row.revision, self.value(space, row)))
                except (Serialization, UnicodeDecodeError):
                    continue  # it was noted, and `roomkey doctor` names it
            if len(batch) < limit:
                return found
            start = batch[-1].name + SEPARATOR

    async def damaged(self, rows: Rows) -> list[DamagedRecord]:
        """``Repairable.damaged``, of what ``rows`` reads."""
        found: list[DamagedRecord] = []
        for space in SPACES:
            start = b""
            while batch := await rows(space, start, _BEHIND_ALL, INSPECTED_AT_A_TIME):
                found += [record for row in batch if (record := self.flaw(space, row)) is not None]
                start = batch[-1].name + SEPARATOR
        return found

    def flaw(self, space: str, row: ObjectRow) -> DamagedRecord | None:
        """What is wrong with an object; ``None`` if it can be read."""
        place = place_of(space, row.name)
        try:
            self._codec.decode(RecordKind.OBJECT, place, row.revision, row.stored)
        except Serialization as error:
            return DamagedRecord(
                kind=RecordKind.OBJECT,
                key=shown(space, row.name),
                reason=str(error),
                place=place,
                is_newer=isinstance(error, NewerSchema),
            )
        return None


def check_space(space: str) -> str:
    """
    Return ``space`` if there is such a one.

    Raises:
        InvalidInput: If not.
    """
    if space not in SPACES:
        raise InvalidInput(f"there is no space {space!r} for objects")
    return space


def name_of(name: str) -> bytes:
    """
    A name as it is stored.

    Raises:
        InvalidInput: If it can be none.
    """
    return check_text("the name of an object", name, max_bytes=MAX_NAME_BYTES).encode()


def place_of(space: str, name: bytes) -> bytes:
    """Where an object lies, in one key."""
    return space.encode() + SEPARATOR + name


def split_place(place: bytes) -> tuple[str, bytes]:
    """Space and name of an object, from ``place_of``."""
    space, _, name = place.partition(SEPARATOR)
    return space.decode(errors="replace"), name


def start_of(prefix: str, after: str) -> bytes:
    """The first name that may be listed."""
    return after.encode() + SEPARATOR if after and after.encode() >= prefix.encode() else prefix.encode()


def shown(space: str, name: bytes) -> str:
    """An object as people are told of it."""
    return f"{space}/{name.decode(errors='replace')}"
