"""
Where the log is kept: its objects in the space ``audit``, by name.

- ``recorded``: how many entries there are. Whoever records some commits under its revision, so that numbers have no
  gaps and none is given twice.
- ``batch/…``: entries that are recorded and not integrated yet, by the number of the first.
- ``entries/…``: integrated ones, in parts of bundles. A part belongs to one bundle.
- ``tile/…``: hashes. What is in a partial tile stays in it; hashes are added.
- ``tree``: how much is integrated. Whoever integrates commits under its revision.
- ``signed``: the head that was signed last, which is here before its signature leaves.
- ``checkpoint``: the head that is published.
- ``retained``: what is not shown any more.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from roomkey.audit.checkpoints import Checkpoint, checkpoint
from roomkey.audit.merkle import EMPTY_ROOT, Range, proof_of
from roomkey.audit.notes import Note, note
from roomkey.audit.tiles import (
    WIDTH,
    MalformedBundle,
    Tile,
    bundle_of,
    entries_of,
    hashes_in,
    root_of,
    tiles_for,
)
from roomkey.errors import AuditLogDamaged, InvalidInput
from roomkey.ports import ObjectStore
from roomkey.ports.objects import ABSENT, MAX_CHANGES, Changes

SPACE: Final = "audit"

PART_BYTES: Final = 256 * 1024
"""An object with entries is not made longer when it has as many bytes: few entries are so large."""

BATCHES_AT_ONCE: Final = 32
"""Objects with entries that are read together."""

RECENT: Final = 64
"""How many commits of entries are remembered, so that whoever got no answer finds its own."""

_RECORDED: Final = "log/recorded"
_TREE: Final = "log/tree"
_SIGNED: Final = "log/signed"
_CHECKPOINT: Final = "log/checkpoint"
_RETAINED: Final = "log/retained"
_BATCHES: Final = "log/batch/"
_ENTRIES: Final = "log/entries/"
_TILES: Final = "log/tile/"


class Recorded(Struct, frozen=True, array_like=True):
    """How many entries there are, and where the latest commits of some began, by what each called itself."""

    size: int = 0
    recent: tuple[tuple[bytes, int], ...] = ()

    def with_more(self, count: int, name: bytes) -> "Recorded":
        """With so many entries more, which the commit ``name`` has brought."""
        return Recorded(self.size + count, (*self.recent, (name, self.size))[-RECENT:])

    def first_of(self, name: bytes) -> int | None:
        """The number of the first entry that this commit has brought; ``None`` if it was not done."""
        return dict(self.recent).get(name)


class Tree(Struct, frozen=True, array_like=True):
    """How many entries are integrated, the root above them, and where the last object with entries begins."""

    size: int = 0
    root: bytes = EMPTY_ROOT
    part: int = 0


class Retained(Struct, frozen=True, array_like=True):
    """The first entry that is still shown, and how many entries were published on some days (proleptic ordinals)."""

    first: int = 0
    days: tuple[tuple[int, int], ...] = ()


T = TypeVar("T")


class Versioned(NamedTuple, Generic[T]):
    """What an object says, and the revision under which it may be changed."""

    revision: int
    value: T


class Heads(NamedTuple):
    """The tree, and the two heads of it that have left or may leave."""

    tree: Versioned[Tree]
    signed: Versioned[Note | None]
    published: Versioned[Note | None]


_encode: Final = msgspec.msgpack.Encoder().encode


class StoredLog:
    """The objects of one log. Whatever contradicts itself raises ``AuditLogDamaged``."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    # --- entries ------------------------------------------------------------------------------------------

    async def recorded(self) -> Versioned[Recorded]:
        """How many entries there are."""
        return await self._structure(_RECORDED, Recorded())

    async def record(self, before: Versioned[Recorded], entries: Sequence[bytes], name: bytes) -> None:
        """
        Record ``entries`` behind those that there were ``before``, in one commit that bears a ``name``.

        Raises:
            Conflict: If there are more by now.
            OutcomeUnknown: If it cannot be told whether it was done.
        """
        changes: dict[str, bytes | None] = {
            _numbered(_BATCHES, first): content for first, content in _batches(before.value.size, entries)
        }
        changes[_RECORDED] = _encode(before.value.with_more(len(entries), name))
        await self._commit(changes, {_RECORDED: before.revision})

    async def batches(self, most: int, after: str = "") -> Sequence[tuple[int, bytes]]:
        """Batches that are not integrated, from the first: the number of each one's first entry, and its content."""
        found = await self._objects.list(SPACE, prefix=_BATCHES, after=after, limit=most)
        return [(int(batch.name.removeprefix(_BATCHES)), batch.value) for batch in found]

    async def every_batch(self, first: int = 0) -> AsyncIterator[tuple[int, bytes]]:
        """All of them whose first entry has number ``first`` or a higher one, some at a time."""
        after = _numbered(_BATCHES, first - 1) if first else ""
        while found := await self.batches(BATCHES_AT_ONCE, after):
            for batch in found:
                yield batch
            after = _numbered(_BATCHES, found[-1][0])

    async def bundle(self, index: int) -> list[bytes]:
        """The integrated entries from number ``index`` * 256 on, up to 256."""
        entries: list[bytes] = []
        first = index * WIDTH
        after = _numbered(_ENTRIES, first - 1) if first else _ENTRIES
        while len(entries) < WIDTH:
            found = await self._objects.list(SPACE, prefix=_ENTRIES, after=after, limit=2)
            if not found or found[0].name != _numbered(_ENTRIES, first + len(entries)):
                break
            entries += readable(found[0].value, first + len(entries))
            after = found[0].name
        return entries

    # --- the tree -----------------------------------------------------------------------------------------

    async def tree(self) -> Versioned[Tree]:
        """How much is integrated."""
        return await self._structure(_TREE, Tree())

    async def heads(self) -> Heads:
        """The tree and its heads, read at once."""
        tree, signed, published = await self._objects.get_many(SPACE, (_TREE, _SIGNED, _CHECKPOINT))
        return Heads(
            Versioned(ABSENT, Tree()) if tree is None else Versioned(tree.revision, _structured(tree.value, Tree)),
            Versioned(ABSENT, None) if signed is None else Versioned(signed.revision, _noted(signed.value)),
            Versioned(ABSENT, None) if published is None else Versioned(published.revision, _noted(published.value)),
        )

    async def tiles(self, tiles: Iterable[Tile]) -> dict[Tile, bytes]:
        """Those of ``tiles`` that there are, with all hashes that are in them."""
        wanted = sorted(tiles)
        found = await self._objects.get_many(SPACE, [_tile_name(tile) for tile in wanted])
        return {tile: content.value for tile, content in zip(wanted, found, strict=True) if content is not None}

    async def part(self, first: int) -> bytes:
        """The object with entries that begins with number ``first``; empty if there is none."""
        found = await self._objects.get(SPACE, _numbered(_ENTRIES, first))
        return b"" if found is None else found.value

    async def root(self, size: int) -> bytes:
        """The root of the tree of the first ``size`` entries."""
        tiles = await self.tiles(tiles_for([Range(0, size)]))
        try:
            return root_of(size, tiles)
        except LookupError as error:
            raise AuditLogDamaged(_missing(error)) from None

    async def proof(self, path: Iterable[Range]) -> list[bytes]:
        """The hashes over the ranges."""
        ranges = [*path]
        tiles = await self.tiles(tiles_for(ranges))
        try:
            return proof_of(ranges, hashes_in(tiles))
        except LookupError as error:
            raise AuditLogDamaged(_missing(error)) from None

    async def integrate(
        self,
        before: Versioned[Tree],
        after: Tree,
        *,
        tiles: Mapping[Tile, bytes],
        parts: Mapping[int, bytes],
        batches: Iterable[int],
    ) -> None:
        """
        Make the tree ``after`` of what was ``before``, with everything that is in it, and forget ``batches``.

        Raises:
            Conflict: If somebody else has done so.
        """
        changes: dict[str, bytes | None] = {_TREE: _encode(after)}
        changes |= {_tile_name(tile): content for tile, content in tiles.items()}
        changes |= {_numbered(_ENTRIES, first): content for first, content in parts.items()}
        changes |= dict.fromkeys(_numbered(_BATCHES, first) for first in batches)
        await self._commit(changes, {_TREE: before.revision})

    # --- heads --------------------------------------------------------------------------------------------

    async def sign(self, heads: Heads, head: Note) -> None:
        """
        Keep ``head`` as the one that was signed last.

        Raises:
            Conflict: If another one was signed, or the tree has grown.
        """
        expected = {_TREE: heads.tree.revision, _SIGNED: heads.signed.revision}
        await self._commit({_SIGNED: str(head).encode()}, expected)

    async def publish(self, heads: Heads, head: Note) -> None:
        """
        Show ``head`` to everybody from now on.

        Raises:
            Conflict: If another one was published.
        """
        await self._commit({_CHECKPOINT: str(head).encode()}, {_CHECKPOINT: heads.published.revision})

    async def published(self) -> Note | None:
        """The head that everybody is shown; ``None`` before the first."""
        found = await self._objects.get(SPACE, _CHECKPOINT)
        return None if found is None else _noted(found.value)

    # --- retention ----------------------------------------------------------------------------------------

    async def retained(self) -> Versioned[Retained]:
        """What is still shown."""
        return await self._structure(_RETAINED, Retained())

    async def retain(self, before: Versioned[Retained], after: Retained) -> None:
        """
        Show from now on what ``after`` says.

        Raises:
            Conflict: If somebody else has changed that.
        """
        await self._commit({_RETAINED: _encode(after)}, {_RETAINED: before.revision})

    # --- objects ------------------------------------------------------------------------------------------

    async def _structure(self, name: str, default: T) -> Versioned[T]:
        found = await self._objects.get(SPACE, name)
        return (
            Versioned(ABSENT, default)
            if found is None
            else Versioned(found.revision, _structured(found.value, type(default)))
        )

    async def _commit(self, changes: Changes, expected: Mapping[str, int]) -> None:
        if len(changes) > MAX_CHANGES:
            raise InvalidInput(f"one commit changes at most {MAX_CHANGES} objects")
        await self._objects.commit(SPACE, changes, expected=expected)


def head_of(note: Note | None) -> Checkpoint | None:
    """The head that a stored note says."""
    try:
        return None if note is None else checkpoint(note.text)
    except InvalidInput as error:
        raise AuditLogDamaged(f"a stored checkpoint is none: {error}") from None


def readable(content: bytes, first: int) -> list[bytes]:
    """The entries in an object whose first is number ``first``."""
    try:
        return entries_of(content)
    except MalformedBundle as error:
        raise AuditLogDamaged(f"the entries from number {first} on cannot be read: {error}") from None


def parts_of(tree: Tree, part: bytes, entries: Sequence[bytes]) -> tuple[Mapping[int, bytes], int]:
    """
    The objects that change when ``entries`` come behind those of ``tree``, and where the last of them begins.

    Args:
        part: The object with entries that was the last one until then.
    """
    first, number = tree.part, tree.size
    content, parts = bytearray(part), dict[int, bytes]()
    for entry in entries:
        if number != first and (number % WIDTH == 0 or len(content) >= PART_BYTES):
            if number > tree.size:
                parts[first] = bytes(content)
            first, content = number, bytearray()
        content += bundle_of((entry,))
        number += 1
    parts[first] = bytes(content)
    return parts, first


def _batches(first: int, entries: Sequence[bytes]) -> Iterable[tuple[int, bytes]]:
    """Entries in objects of a bounded size, each with the number of its first."""
    content, begun = bytearray(), first
    for number, entry in enumerate(entries, first):
        if len(content) >= PART_BYTES:
            yield begun, bytes(content)
            content, begun = bytearray(), number
        content += bundle_of((entry,))
    yield begun, bytes(content)


def _numbered(prefix: str, number: int) -> str:
    """A name whose order is that of the numbers."""
    return f"{prefix}{number:019}"


def _tile_name(tile: Tile) -> str:
    return f"{_TILES}{tile.level}/{tile.number:019}"


def _missing(error: LookupError) -> str:
    (tile,) = error.args
    return f"hashes are missing: {_tile_name(tile) if isinstance(tile, Tile) else tile}"


def _structured(content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AuditLogDamaged(f"{kind.__name__.lower()} cannot be read: {error}") from None


def _noted(content: bytes) -> Note:
    try:
        return note(content)
    except InvalidInput as error:
        raise AuditLogDamaged(f"a stored checkpoint is none: {error}") from None
