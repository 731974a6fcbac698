"""From records to entries and back: what is personal is sealed under keys of persons, which may be destroyed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from os import urandom
from typing import Any, Final, NamedTuple, Protocol

from msgspec.structs import replace

from roomkey.audit.records import (
    SALT_BYTES,
    UNREADABLE,
    AuditRecord,
    Line,
    Sealed,
    decode,
    decode_personal,
    divide,
    encode,
    encode_personal,
    salt_of,
)
from roomkey.errors import NotFound, Serialization

SEALED_AT_ONCE: Final = 64
"""Records that are sealed in one turn of the loop: about a millisecond, which is how long a frame may wait."""


class PersonKey(Protocol):
    """The key of one person."""

    def seal(self, value: bytes, place: bytes = b"") -> bytes:
        """``value``, for whoever has the key."""
        ...

    def open(self, sealed: bytes, place: bytes = b"") -> bytes:
        """
        What ``seal`` was given for the same place.

        Raises:
            NotFound: If it was sealed with a key that was destroyed.
            Serialization: If it was changed.
        """
        ...


class PersonKeys(Protocol):
    """The keys of persons, by what a ``Naming`` calls them."""

    async def ready(self, subjects: Iterable[str], /) -> Mapping[str, PersonKey]:
        """The keys of all of these, made if there were none. Raises ``Storage``."""
        ...

    async def existing(self, subjects: Iterable[str], /) -> Mapping[str, PersonKey]:
        """The keys that there are of these. Raises ``Storage``."""
        ...

    async def destroy(self, subject: str, /) -> bool:
        """Destroy a key for ever; whether there was one. Raises ``Storage``."""
        ...


class Personality(StrEnum):
    """What became of what is personal in an entry."""

    NONE = "none"
    SHOWN = "shown"
    HIDDEN = "hidden"
    ERASED = "erased"
    UNREADABLE = "unreadable"


class Entry(NamedTuple):
    """An entry as a reader sees it: what is readable, and what could be opened of the rest."""

    number: int
    line: Line
    personal: Mapping[str, Any]
    personality: Personality


Naming = Callable[[str], str]
"""
What the key of a person is called, which shows nothing of the person to whoever does not have a key of the deployment.

It stands in entries. So whoever has that key and knows a person finds the entries that are about that person, also
after the person was erased: that there are some, not what they say.
"""


class Sealer:
    """Makes entries of records, and opens them again."""

    def __init__(self, keys: PersonKeys, naming: Naming) -> None:
        self._keys = keys
        self.naming = naming

    async def seal(self, records: Sequence[AuditRecord]) -> list[bytes]:
        """
        The entries of ``records``, at most ``SEALED_AT_ONCE``. Never the same twice.

        Raises:
            Storage: If the keys of persons are away.
        """
        divided = [divide(record) for record in records]
        named = {person: self.naming(person) for division in divided for person in division.personal}
        keys = await self._keys.ready(named.values()) if named else _NO_KEYS
        entries: list[bytes] = []
        for line, personal in divided:
            salt = urandom(SALT_BYTES)
            sealed = tuple(
                Sealed(named[person], keys[named[person]].seal(encode_personal(fields), salt))
                for person, fields in personal.items()
            )
            entries.append(encode(replace(line, sealed=sealed), salt))
        return entries

    async def open(self, first: int, entries: Sequence[bytes], *, show: bool = True) -> list[Entry]:
        """
        ``entries``, of which the first has the number ``first``; one that cannot be read says so.

        Raises:
            Storage: If the keys of persons are away.
        """
        lines = [(number, entry, line_of(entry)) for number, entry in enumerate(entries, first)]
        names = {sealed.key for _, _, line in lines for sealed in line.sealed}
        keys = await self._keys.existing(names) if names and show else _NO_KEYS
        return [_opened(number, line, salt_of(entry), keys, show=show) for number, entry, line in lines]


_NO_KEYS: Final[Mapping[str, PersonKey]] = {}


def line_of(entry: bytes) -> Line:
    """What is readable of an entry; of one that is none of ours, that it is unreadable."""
    try:
        return decode(entry)
    except Serialization:
        return UNREADABLE


def _opened(number: int, line: Line, salt: bytes, keys: Mapping[str, PersonKey], *, show: bool) -> Entry:
    if not line.sealed:
        return Entry(number, line, {}, Personality.UNREADABLE if line is UNREADABLE else Personality.NONE)
    if not show:
        return Entry(number, line, {}, Personality.HIDDEN)
    personal: dict[str, Any] = {}
    became = Personality.SHOWN
    for name, value in line.sealed:
        try:
            key = keys.get(name)
            if key is None:
                became = Personality.ERASED
            else:
                personal |= decode_personal(key.open(value, salt))
        except NotFound:
            became = Personality.ERASED
        except Serialization:
            became = Personality.UNREADABLE
    return Entry(number, line, personal, became)
