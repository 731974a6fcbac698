"""
How deep the shared types of a document lie within one another.

The native library prints and deletes them recursively and dies when the stack overflows: with 8 MiB, at 10,500
and 31,000. No update has to be conspicuous for that: a type can be put into the deepest one again and again, and
long chains can wait, unseen, for the one block that joins them.
"""

from collections.abc import Callable, Sequence
from typing import Final

from roomkey.documents.crdt.updates import Block, BlockId, BlockKind, MalformedUpdate, Places, read_update

MAX_NESTING: Final = 1_500
"""Maximum nesting of types, when it is measured."""

UNMEASURED_TYPES: Final = 1_500
"""Types accepted between two measurements: the deepest is then at most at a third of the deadly depth."""

MAX_WAITING_BYTES: Final = 1024 * 1024
"""Maximum number of updates with types that wait for something missing, or came in since the last measurement."""


class Nesting:
    """
    Keeps one document from nesting too deep, and costs next to nothing: as long as few types have come in
    since it was last measured, none of them can lie too deep.
    """

    __slots__ = ("_types", "_waiting")

    def __init__(self) -> None:
        # What was stored may be as deep as it gets, so the first type is a reason to measure.
        self._types = UNMEASURED_TYPES
        # The library does not show what waits inside it for something missing.
        self._waiting: list[bytes] = []

    def admit(self, update: bytes, state: Callable[[], bytes]) -> None:
        """
        Accept an update that was vetted and is to be applied next. ``state`` returns the whole document.

        Raises:
            MalformedUpdate: If types would nest deeper than ``MAX_NESTING`` with it, or could once what is
                missing comes.
        """
        if len(update.translate(None, _TYPE_MARKS)) == len(update):
            return
        types = sum(block.kind is BlockKind.TYPE for block in read_update(update).blocks)
        if not types:
            return
        waiting = [*self._waiting, update]
        if self._types + types <= UNMEASURED_TYPES and sum(map(len, waiting)) <= MAX_WAITING_BYTES:
            self._types += types
        else:
            waiting = _still_waiting(state(), waiting)
            self._types = 0
        self._waiting = waiting


_TYPE_MARKS: Final = bytes(bits << 5 | BlockKind.TYPE for bits in range(8))
"""A block that holds a type begins with one of these. In texts they are a few letters."""


def _still_waiting(state: bytes, updates: Sequence[bytes]) -> list[bytes]:
    """Measure ``state`` with ``updates``; those of which the place is not known."""
    read = [read_update(update).blocks for update in updates]
    deepest, astray = depth_of([block for blocks in (read_update(state).blocks, *read) for block in blocks])
    waiting = [
        update for update, blocks in zip(updates, read, strict=True) if any(block.id in astray for block in blocks)
    ]
    if deepest > MAX_NESTING or sum(map(len, waiting)) > MAX_WAITING_BYTES:
        raise MalformedUpdate("shared types nest too deep, or too many hang on what is missing")
    return waiting


def depth_of(blocks: Sequence[Block]) -> tuple[int, set[BlockId]]:
    """
    At how many types the deepest one lies within one another, at most; and those that hang on what is not here.

    Their places are not known, so the worst case counts: that they all come to lie within one another.
    """
    places = Places(blocks)
    depths: dict[BlockId, int | None] = {}
    for block in blocks:
        holder = block if block.kind is BlockKind.TYPE else None
        way: list[BlockId] = []
        depth: int | None = None
        while holder is not None:
            if holder.id in depths:
                depth = depths[holder.id]
                break
            way.append(holder.id)
            depths[holder.id] = None  # who lies within itself is met here again
            place = places.of(holder)
            if place is None or isinstance(place.parent, str):
                depth = None if place is None else 0
                break
            holder = places.find(place.parent)
        for id in reversed(way):
            depth = None if depth is None else depth + 1
            depths[id] = depth
    astray = {id for id, depth in depths.items() if depth is None}
    return max((depth for depth in depths.values() if depth is not None), default=0) + len(astray), astray
