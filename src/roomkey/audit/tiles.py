"""
Tiles: how a tree and its entries are cut into files that never change (C2SP tlog-tiles).

A tile of level 0 has 256 hashes of leaves, one of a level above has the roots of 256 tiles of the level below it. The
last tile of each level may be partial: then it has the first hashes of the full one. Entries come in bundles of 256.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from roomkey.audit.merkle import HASH_BYTES, Range, Subtree, folded, full_root, subtrees

WIDTH: Final = 256
HEIGHT: Final = 8
"""2 ** 8 hashes are a full tile."""
TILE_BYTES: Final = WIDTH * HASH_BYTES

MOST_LEVELS: Final = 8
"""Levels that a tree of less than 2 ** 63 entries can have."""

MAX_ENTRY_BYTES: Final = 65_535
LENGTH_BYTES: Final = 2

ENTRIES: Final = "entries"


class Tile(NamedTuple):
    """A place for 256 hashes."""

    level: int
    number: int


class TileFile(NamedTuple):
    """What a path below the prefix of a log names: a tile of hashes, or with ``tile.level`` -1 a bundle of entries."""

    tile: Tile
    width: int
    """Number of hashes or entries; 256 if it is full."""

    @property
    def has_entries(self) -> bool:
        """Whether it is a bundle of entries."""
        return self.tile.level < 0

    @property
    def path(self) -> str:
        """Where it is below the prefix of the log."""
        level = ENTRIES if self.has_entries else str(self.tile.level)
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{level}/{_groups(self.tile.number)}{partial}"


class MalformedBundle(ValueError):
    """It is not a sequence of entries with their lengths."""


# --- names --------------------------------------------------------------------------------------------

_PATH: Final = re.compile(
    r"tile/(?P<level>0|[1-9][0-9]?|entries)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


def bundle(index: int, width: int = WIDTH) -> TileFile:
    """The bundle with the entries from number ``index`` * 256."""
    return TileFile(Tile(-1, index), width)


def file_at(path: str) -> TileFile | None:
    """What the path names, which is the only one for it; ``None`` if it is none."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    level = -1 if match["level"] == ENTRIES else int(match["level"])
    width = int(match["width"] or WIDTH)
    file = TileFile(Tile(level, int(match["index"].replace("x", "").replace("/", ""))), width)
    # 000/x001 and a partial tile of all 256 are other ways to write what has a name already.
    return file if level < MOST_LEVELS and file.path == path else None


def _groups(index: int) -> str:
    groups = [f"{index % 1000:03}"]
    while index >= 1000:  # three digits in each group
        index //= 1000
        groups.append(f"x{index % 1000:03}")
    return "/".join(reversed(groups))


# --- hashes -------------------------------------------------------------------------------------------


def width_of(tile: Tile, size: int) -> int:
    """How many hashes, or entries, ``tile`` has in a tree of ``size`` entries."""
    return min(WIDTH, max(0, (size >> HEIGHT * max(tile.level, 0)) - tile.number * WIDTH))


def last_tiles(size: int) -> Sequence[Tile]:
    """The partial tile of each level, into which further hashes go."""
    return [
        Tile(level, size >> HEIGHT * (level + 1)) for level in range(MOST_LEVELS) if (size >> HEIGHT * level) % WIDTH
    ]


def tiles_for(ranges: Iterable[Range]) -> set[Tile]:
    """The tiles whose hashes say what the nodes over ``ranges`` are."""
    return {_place(subtree)[0] for leaves in ranges for subtree in subtrees(leaves)}


def hashes_in(tiles: Mapping[Tile, bytes]) -> Callable[[Subtree], bytes]:
    """
    What finds the hash of a subtree in ``tiles``.

    Raises:
        LookupError: If a tile is missing or too short.
    """

    def hash_of(subtree: Subtree) -> bytes:
        tile, first, count = _place(subtree)
        hashes = tiles[tile][first * HASH_BYTES : (first + count) * HASH_BYTES]
        if len(hashes) != count * HASH_BYTES:
            raise LookupError(f"{tile} is too short")
        return full_root(split(hashes))

    return hash_of


def root_of(size: int, tiles: Mapping[Tile, bytes]) -> bytes:
    """
    The root of the tree of the first ``size`` entries; ``tiles`` are at least those ``tiles_for`` the whole of it.

    Raises:
        LookupError: If a tile is missing or too short.
    """
    return folded(map(hashes_in(tiles), subtrees(Range(0, size))))


def grown(size: int, tiles: Mapping[Tile, bytes], leaves: Sequence[bytes]) -> Mapping[Tile, bytes]:
    """
    The tiles that change when hashes of further leaves are added to a tree of ``size``, with all that is in them then.

    Args:
        tiles: At least the ``last_tiles``, as they are.
    """
    changed: dict[Tile, bytes] = {}
    for level in range(MOST_LEVELS):
        index, begun = divmod(size, WIDTH)
        hashes = (tiles[Tile(level, index)][: begun * HASH_BYTES] if begun else b"") + b"".join(leaves)
        leaves = []
        for start in range(0, len(hashes), TILE_BYTES):
            content = hashes[start : start + TILE_BYTES]
            changed[Tile(level, index + start // TILE_BYTES)] = content
            if len(content) == TILE_BYTES:
                leaves.append(full_root(split(content)))
        if not leaves:
            break
        size = index
    return changed


def split(hashes: bytes) -> list[bytes]:
    """The single hashes."""
    return [hashes[start : start + HASH_BYTES] for start in range(0, len(hashes), HASH_BYTES)]


def _place(subtree: Subtree) -> tuple[Tile, int, int]:
    """The tile in which the subtree's hash is, or those below it, the first of them, and how many there are."""
    level, above = divmod(subtree.height, HEIGHT)
    index, first = divmod(subtree.number << above, WIDTH)
    return Tile(level, index), first, 1 << above


# --- entries ------------------------------------------------------------------------------------------


def bundle_of(entries: Iterable[bytes]) -> bytes:
    """The entries as a bundle: each behind its length, which has two bytes."""
    return b"".join(part for entry in entries for part in (len(entry).to_bytes(LENGTH_BYTES), entry))


def entries_of(content: bytes) -> list[bytes]:
    """
    The entries of a bundle.

    Raises:
        MalformedBundle: If it is none.
    """
    entries: list[bytes] = []
    position, end = 0, len(content)
    while position < end:
        begin = position + LENGTH_BYTES
        position = begin + int.from_bytes(content[position:begin])
        if position > end or begin > end:
            raise MalformedBundle("an entry ends behind its bundle")
        entries.append(content[begin:position])
    return entries
