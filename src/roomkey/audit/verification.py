"""
Verifying a log as an outsider: everything that it serves is read and put together, and what contradicts it is named.

Trust goes from the signature down: the signed root says what the partial tiles must be, each hash in a tile says what
the tile or the entry below it must be. So a difference has a place: what is above it is proven.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import islice, product
from typing import Final

from msgspec import Struct, field

from roomkey.audit.checkpoints import Checkpoint, checkpoint
from roomkey.audit.merkle import HASH_BYTES, Range, full_root, leaf_hash
from roomkey.audit.notes import Note, VerifierKey, note
from roomkey.audit.sources import CHECKPOINT, Source
from roomkey.audit.tiles import (
    HEIGHT,
    WIDTH,
    MalformedBundle,
    Tile,
    TileFile,
    bundle,
    entries_of,
    last_tiles,
    root_of,
    split,
    tiles_for,
    width_of,
)
from roomkey.errors import Forbidden, InvalidInput, NotProven, NotRetained

AT_ONCE: Final = 16
"""Files that are asked for at the same time."""

MOST_FINDINGS: Final = 100


class Flaw(StrEnum):
    """What is wrong with a log."""

    NO_CHECKPOINT = "no_checkpoint"
    MALFORMED_CHECKPOINT = "malformed_checkpoint"
    UNSIGNED = "unsigned"
    """No key that was given has signed the checkpoint."""
    FORGED_SIGNATURE = "forged_signature"
    """A signature bears the name and id of a key, and is not of it: the checkpoint was changed."""
    UNWITNESSED = "unwitnessed"
    TRUNCATED = "truncated"
    """The log is shorter than it was."""
    FORKED_HEAD = "forked_head"
    """The log has signed another head of the same entries before."""
    OTHER_TREE = "other_tree"
    """The hashes are those of another tree than was signed."""
    MISSING_TILE = "missing_tile"
    DAMAGED_TILE = "damaged_tile"
    MISSING_ENTRIES = "missing_entries"
    MALFORMED_ENTRIES = "malformed_entries"
    CHANGED = "changed"
    REMOVED = "removed"
    INSERTED = "inserted"
    REORDERED = "reordered"


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that is wrong, and where: the path of a file, or ``entry`` and its number."""

    flaw: Flaw
    place: str
    detail: str


class Report(Struct, kw_only=True):
    """What was verified, and what was found."""

    head: Checkpoint | None = None
    signed_by: Sequence[str] = ()
    witnessed: Mapping[str, datetime] = field(default_factory=dict[str, datetime])
    tiles: int = 0
    """Number of tiles that are proven."""
    entries: int = 0
    """Number of entries that are proven."""
    not_shown: int = 0
    """Number of entries that are older than what is shown."""
    entries_denied: bool = False
    """Whether entries could not be read, for lack of a right."""
    findings: list[Finding] = field(default_factory=list[Finding])

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


class Expectation(Struct, frozen=True, kw_only=True):
    """What a verifier knows before: keys of the log and of witnesses, and heads that it has seen earlier."""

    keys: Collection[VerifierKey]
    witnesses: Collection[VerifierKey] = ()
    quorum: int = 0
    earlier: Sequence[Checkpoint] = ()


async def verify(source: Source, expected: Expectation) -> Report:
    """
    Read the whole log, and say what is wrong with it.

    Raises:
        Storage: If it cannot be read.
    """
    return await _Verification(source, expected).run()


class _Verification:
    def __init__(self, source: Source, expected: Expectation) -> None:
        self._source = source
        self._expected = expected
        self._report = Report()
        self._size = 0

    async def run(self) -> Report:
        head = await self._head()
        if head is None:
            return self._report
        self._report.head, self._size = head, head.size
        edge = await self._edge(head)
        if edge is None:
            return self._report
        await self._check_earlier(head)
        await self._check_below(edge)
        return self._report

    def _found(self, flaw: Flaw, place: str, detail: str) -> None:
        if len(self._report.findings) < MOST_FINDINGS:
            self._report.findings.append(Finding(flaw=flaw, place=place, detail=detail))

    # --- the head -----------------------------------------------------------------------------------------

    async def _head(self) -> Checkpoint | None:
        """The head, if it is signed by the log: otherwise there is nothing that the rest could be compared with."""
        content = await self._source.read(CHECKPOINT)
        if content is None:
            self._found(Flaw.NO_CHECKPOINT, CHECKPOINT, "there is no checkpoint")
            return None
        try:
            signed = note(content)
            head = checkpoint(signed.text)
        except InvalidInput as error:
            self._found(Flaw.MALFORMED_CHECKPOINT, CHECKPOINT, str(error))
            return None
        try:
            self._check_signatures(signed)
        except NotProven as error:
            self._found(Flaw.FORGED_SIGNATURE, CHECKPOINT, str(error))
        return None if self._report.findings else head

    def _check_signatures(self, signed: Note) -> None:
        by = [key.name for key in signed.verified(self._expected.keys)]
        seen = {key.name: at for key, at in signed.verified(self._expected.witnesses).items() if at is not None}
        self._report.signed_by, self._report.witnessed = by, seen
        if not by:
            self._found(Flaw.UNSIGNED, CHECKPOINT, "no key of the log that is known has signed it")
        if len(seen) < self._expected.quorum:
            self._found(
                Flaw.UNWITNESSED, CHECKPOINT, f"{len(seen)} witnesses of {self._expected.quorum} have signed it"
            )

    async def _check_earlier(self, head: Checkpoint) -> None:
        for earlier in self._expected.earlier:
            if earlier.size > head.size:
                detail = f"there were {earlier.size} entries, and there are {head.size}"
                self._found(Flaw.TRUNCATED, f"entry {head.size}", detail)
                continue
            tiles = await self._tiles(tiles_for([Range(0, earlier.size)]))
            try:
                root = root_of(earlier.size, tiles)
            except LookupError:
                continue  # a tile is missing, which is found by itself
            if root != earlier.root:
                detail = f"another head of {earlier.size} entries was signed than the present one continues"
                self._found(Flaw.FORKED_HEAD, CHECKPOINT, detail)

    # --- hashes -------------------------------------------------------------------------------------------

    async def _edge(self, head: Checkpoint) -> Mapping[Tile, bytes] | None:
        """The partial tiles, which lead to the root; ``None`` if none do that."""
        wanted = last_tiles(head.size)
        tiles = await self._tiles(wanted)
        mended = tiles if _leads_to(head, tiles) else await self._mended(head, tiles)
        if mended is None:
            lost = [tile for tile in wanted if tile not in tiles]
            self._missing(lost)
            if not lost:
                self._found(Flaw.OTHER_TREE, CHECKPOINT, "the hashes do not lead to the root that was signed")
            return None
        for tile in wanted:
            if tile not in tiles:
                self._missing([tile])
            elif tiles[tile] != mended[tile]:
                self._damaged(tile)
            else:
                self._report.tiles += 1
        return mended

    async def _mended(self, head: Checkpoint, tiles: Mapping[Tile, bytes]) -> Mapping[Tile, bytes] | None:
        """The partial tiles, some of them computed from what is below them, so that they lead to the root."""
        wanted = last_tiles(head.size)
        choices = [{tiles.get(tile), await self._from_below(tile)} - {None} for tile in wanted]
        for chosen in product(*choices):  # at most 2 ** 8, and two or three levels in all but the largest logs
            mended = {tile: hashes for tile, hashes in zip(wanted, chosen, strict=True) if hashes is not None}
            if _leads_to(head, mended):
                return mended
        return None

    async def _from_below(self, tile: Tile) -> bytes | None:
        """What a partial tile must be, by the tiles or entries below it; ``None`` if these cannot be had."""
        width = width_of(tile, self._size)
        if tile.level == 0:
            entries = await self._entries(TileFile(Tile(-1, tile.number), width), is_check=False)
            return None if entries is None else b"".join(map(leaf_hash, entries))
        below = [Tile(tile.level - 1, tile.number * WIDTH + number) for number in range(width)]
        tiles = await self._tiles(below)
        return b"".join(full_root(split(tiles[each])) for each in below) if len(tiles) == width else None

    async def _check_below(self, edge: Mapping[Tile, bytes]) -> None:
        """Check everything below tiles that are proven, level by level, and at last the entries."""
        proven = {**edge}
        await self._check_entries(edge)
        for level in reversed(range(max((tile.level for tile in edge), default=0))):
            for some in _in_groups(Tile(level, number) for number in range(self._size >> HEIGHT * (level + 1))):
                found = await self._proven(some, proven)
                if level:
                    proven |= found
                else:
                    await self._check_entries(found)

    async def _proven(self, tiles: Sequence[Tile], above: Mapping[Tile, bytes]) -> Mapping[Tile, bytes]:
        """Those of ``tiles`` that are as the hashes above them say."""
        found = await self._tiles(tiles)
        proven: dict[Tile, bytes] = {}
        for tile in tiles:
            parent = above.get(Tile(tile.level + 1, tile.number // WIDTH))
            if parent is None:
                continue  # what is above was found to be missing or damaged, and says nothing of this one
            hash = parent[tile.number % WIDTH * HASH_BYTES :][:HASH_BYTES]
            if tile not in found:
                self._missing([tile])
            elif full_root(split(found[tile])) != hash:
                self._damaged(tile)
            else:
                proven[tile] = found[tile]
                self._report.tiles += 1
        return proven

    def _missing(self, tiles: Iterable[Tile]) -> None:
        for tile in tiles:
            self._found(Flaw.MISSING_TILE, self._path(tile), "it is not there, or has too few hashes")

    def _damaged(self, tile: Tile) -> None:
        self._found(Flaw.DAMAGED_TILE, self._path(tile), "its hashes do not lead to what was signed")

    def _path(self, tile: Tile) -> str:
        return TileFile(tile, width_of(tile, self._size)).path

    async def _tiles(self, tiles: Iterable[Tile]) -> dict[Tile, bytes]:
        """Those of ``tiles`` that are there, with as many hashes as they have in this tree."""
        found: dict[Tile, bytes] = {}
        for some in _in_groups(sorted(tiles)):
            contents = await asyncio.gather(*map(self._tile, some))
            found |= {tile: content for tile, content in zip(some, contents, strict=True) if content is not None}
        return found

    async def _tile(self, tile: Tile) -> bytes | None:
        width = width_of(tile, self._size)
        content = await self._source.read(TileFile(tile, width).path)
        if content is None and width < WIDTH:  # a partial tile may be gone when there is the full one
            content = await self._source.read(TileFile(tile, WIDTH).path)
        content = None if content is None else content[: width * HASH_BYTES]
        return content if content is not None and len(content) == width * HASH_BYTES else None

    # --- entries ------------------------------------------------------------------------------------------

    async def _check_entries(self, proven: Mapping[Tile, bytes]) -> None:
        """Compare the entries below tiles of level 0 with their hashes."""
        leaves = [(tile, hashes) for tile, hashes in proven.items() if tile.level == 0]
        await asyncio.gather(*(self._check_bundle(tile, hashes) for tile, hashes in leaves))

    async def _check_bundle(self, tile: Tile, proven: bytes) -> None:
        hashes = split(proven)
        entries = await self._entries(bundle(tile.number, len(hashes)), is_check=True)
        if entries is None:
            return
        found = [leaf_hash(entry) for entry in entries]
        if found == hashes:
            self._report.entries += len(hashes)
            return
        flaw, at, detail = _difference(hashes, found)
        self._found(flaw, f"entry {tile.number * WIDTH + at}", detail)

    async def _entries(self, file: TileFile, *, is_check: bool) -> list[bytes] | None:
        """The entries of a bundle; ``None`` if they cannot be had, which is reported if this ``is_check``."""
        try:
            content = await self._source.read(file.path)
            if content is None and file.width < WIDTH:
                content = await self._source.read(bundle(file.tile.number).path)
                return None if content is None else entries_of(content)[: file.width]
            if content is not None:
                return entries_of(content)
        except MalformedBundle as error:
            self._report_if(is_check, Flaw.MALFORMED_ENTRIES, file, str(error))
            return None
        except NotRetained:
            self._report.not_shown += file.width if is_check else 0
            return None
        except Forbidden:
            self._report.entries_denied = True
            return None
        self._report_if(is_check, Flaw.MISSING_ENTRIES, file, "it is not there")
        return None

    def _report_if(self, is_check: bool, flaw: Flaw, file: TileFile, detail: str) -> None:  # noqa: FBT001
        if is_check:
            self._found(flaw, file.path, detail)


def _leads_to(head: Checkpoint, tiles: Mapping[Tile, bytes]) -> bool:
    try:
        return root_of(head.size, tiles) == head.root
    except LookupError:
        return False


def _difference(hashes: Sequence[bytes], found: Sequence[bytes]) -> tuple[Flaw, int, str]:
    """How what was ``found`` differs from what the proven ``hashes`` say, and at which of them."""
    at = next((at for at, (one, other) in enumerate(zip(hashes, found, strict=False)) if one != other), None)
    if at is None:  # one is the beginning of the other
        at = min(len(hashes), len(found))
        flaw = Flaw.REMOVED if len(found) < len(hashes) else Flaw.INSERTED
        return flaw, at, f"there are {len(found)} entries in a place of {len(hashes)}"
    if sorted(hashes) == sorted(found):
        return Flaw.REORDERED, at, "the entries are those that were recorded, in another order"
    if hashes[at + 1 : at + 2] == found[at : at + 1]:
        return Flaw.REMOVED, at, "an entry is left out, and the next one is in its place"
    if found[at + 1 : at + 2] == hashes[at : at + 1]:
        return Flaw.INSERTED, at, "an entry was put in that was not recorded"
    return Flaw.CHANGED, at, "the entry is not the one that was recorded"


def _in_groups(tiles: Iterable[Tile]) -> Iterable[Sequence[Tile]]:
    remaining = iter(tiles)
    while some := [*islice(remaining, AT_ONCE)]:
        yield some
