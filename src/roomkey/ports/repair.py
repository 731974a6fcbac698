"""The port of repair: which records of a store are damaged, and putting them aside."""

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from msgspec import Struct

from roomkey.ports.stores import RecordKind


class DamagedRecord(Struct, frozen=True, kw_only=True):
    """
    A record that cannot be read. ``key`` names it for people, and ``reason`` says what is wrong; neither shows content.

    ``place`` is where it lies, as its store knows it. One that a newer Roomkey wrote is not damaged: it stays where
    it is, so ``is_newer`` ones are never put aside.
    """

    kind: RecordKind
    key: str
    reason: str
    place: bytes
    is_newer: bool = False


@runtime_checkable
class Repairable(Protocol):
    """A store that finds its damaged records and can put them aside. For operators: both look at everything."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def damaged(self) -> Sequence[DamagedRecord]:
        """
        Every record that cannot be read now, and every entry of an index that is none.

        Reads the whole store, with turns for others in between.
        """
        ...

    async def set_aside(self, records: Sequence[DamagedRecord]) -> int:
        """
        Move the bytes of these records to where nothing reads them, and put indexes and counters right.

        Returns how many it were: what was gone, can be read by now, or is newer stays. Nothing is thrown away. A
        session whose record is put aside is gone, a user whose epoch is gets one that no session has yet, and updates
        of a document leave updates that change nothing in their place. Others may have to wait meanwhile.
        """
        ...

    async def has_checksums(self) -> bool:
        """Whether its records carry checksums; without, only damage is found that makes a record unreadable."""
        ...
