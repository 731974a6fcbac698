"""The port of resealing: what a store does so that no record of it needs an old key any more."""

from typing import NamedTuple, Protocol, runtime_checkable


class Resealed(NamedTuple):
    """
    A part of the records of a store: how many were ``looked_at``, and what became of them.

    ``resealed`` were written anew, ``left`` cannot be read and stay as they are. ``next`` is where to go on; ``None``
    when all were looked at.
    """

    next: bytes | None
    looked_at: int
    resealed: int
    left: int


@runtime_checkable
class Resealable(Protocol):
    """A store with a ``SealingCodec`` that can write its records anew. For operators: it reads everything."""

    async def reseal(self, after: bytes, limit: int, *, only_counts: bool = False) -> Resealed:
        """
        Write those of the next records anew that are not ``is_current``; their contents and versions stay.

        May be done while others read and write: what changes meanwhile is current. Durable when this returns.

        Args:
            after: Where to go on, from ``Resealed.next``; empty at first.
            limit: About how many records are looked at.
            only_counts: Write nothing; ``resealed`` are those that would be.
        """
        ...
