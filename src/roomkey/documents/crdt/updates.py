"""
What is inside a Yjs update (V1): the blocks that it brings, and what it deletes.

A block is what one client wrote in one go; its units are numbered by the client's clock, and a text counts in
units of UTF-16. Only the first block of a list or key says where it belongs; the others name their neighbours,
their origins, and belong where these do.

The native library trusts what it is given: it overflows the stack over deeply nested values, and corrupts its
memory over clients that are listed twice or blocks without a length. ``validate`` keeps such updates away from it.
Everything here is checked against the bytes that are there, and what is wrong raises ``MalformedUpdate`` and
nothing else.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from enum import Enum, IntEnum, auto
from typing import Final, NamedTuple

from msgspec import Struct

from roomkey.wire.lib0 import Malformed, number, read_bytes, read_number, read_text

MAX_CLOCK: Final = 2**32 - 1
"""
Clocks, lengths and counts: the native library keeps them in 32 bits (``yrs::ID.clock`` is a ``u32``) and wraps
silently. Yjs itself, in whose numbers 2^53 fits, would bear more; but what only a part of the copies takes must not
be let in.
"""

MAX_PARTS: Final = 100_000
"""
Blocks and deletions in one update of a client. A megabyte of an honest one has some forty thousand; each costs more
than two microseconds, in which the node does nothing else.
"""

MAX_VALUE_DEPTH: Final = 64
"""Lists and objects within one another in one JSON-like value. The native library dies at 25,000."""

BlockId = tuple[int, int]
"""Client and clock of a block's first unit, or of one within it."""


class MalformedUpdate(ValueError):
    """What came is no update, or one that no honest client makes."""


class BlockKind(IntEnum):
    """What a block holds, numbered as it is encoded."""

    GC = 0
    DELETED = 1
    JSON = 2
    BINARY = 3
    STRING = 4
    EMBED = 5
    FORMAT = 6
    TYPE = 7
    ANY = 8
    DOC = 9
    SKIP = 10
    MOVE = 11


class SharedKind(IntEnum):
    """The shared types, numbered as they are encoded."""

    ARRAY = 0
    MAP = 1
    TEXT = 2
    XML_ELEMENT = 3
    XML_FRAGMENT = 4
    XML_HOOK = 5
    XML_TEXT = 6


class Block(Struct, frozen=True, gc=False):
    """
    What ``client`` wrote from ``clock`` on, ``length`` units.

    ``parent`` is the name of a root or the block of a nested type; ``None`` means: where its origins are.
    ``shared`` says which type is nested here, if one is; ``text`` is what a ``STRING`` says.
    """

    client: int
    clock: int
    length: int
    kind: BlockKind
    origin: BlockId | None = None
    right_origin: BlockId | None = None
    parent: str | BlockId | None = None
    key: str | None = None
    shared: SharedKind | None = None
    text: str = ""

    @property
    def id(self) -> BlockId:
        """Its first unit."""
        return self.client, self.clock

    @property
    def end(self) -> int:
        """The clock behind the last unit."""
        return self.clock + self.length


class Structs(Struct, frozen=True):
    """An update, read. ``deleted`` has for each client the ranges of clocks (begin, end) that are gone, in order."""

    blocks: Sequence[Block]
    deleted: Mapping[int, Sequence[tuple[int, int]]]


class Place(NamedTuple):
    """In which root, by name, or in which nested type, and at which key of it if it is a map or an attribute."""

    parent: str | BlockId
    key: str | None


class Places:
    """Which of ``blocks`` is where: found by any of its units, and where it belongs."""

    __slots__ = ("_blocks", "_known")

    def __init__(self, blocks: Iterable[Block]) -> None:
        self._blocks: dict[int, list[Block]] = {}
        for block in blocks:
            self._blocks.setdefault(block.client, []).append(block)
        for own in self._blocks.values():
            own.sort(key=_clock)
        self._known: dict[BlockId, Place | None] = {}

    def find(self, id: BlockId | None) -> Block | None:
        """The block with this unit, or ``None`` if it is not here."""
        if id is None or id[0] not in self._blocks:
            return None
        own = self._blocks[id[0]]
        index = bisect_right(own, id[1], key=_clock) - 1
        return own[index] if index >= 0 and id[1] < own[index].end else None

    def of(self, block: Block) -> Place | None:
        """Where ``block`` is; ``None`` if nothing here says it."""
        way: list[BlockId] = []
        near: Block | None = block
        found: Place | None = None
        while near is not None:
            if near.parent is not None:
                found = Place(near.parent, near.key)
                break
            if near.id in self._known:
                found = self._known[near.id]
                break
            way.append(near.id)
            self._known[near.id] = None  # who is its own neighbour is met here again
            near = self.find(near.origin or near.right_origin)
        for id in way:
            self._known[id] = found
        return found


def _clock(block: Block) -> int:
    return block.clock


class ClockRange(Struct, frozen=True, gc=False):
    """Units of one client: from ``clock`` on, up to ``end``, which is not in it."""

    client: int
    clock: int
    end: int


# --- the whole of an update ---------------------------------------------------------------------------


def read_update(update: bytes, most: int | None = None) -> Structs:
    """
    Everything that is in ``update``.

    Raises:
        MalformedUpdate: If it is none, or has more than ``most`` blocks and deletions: these are not read.
    """
    room = MAX_CLOCK if most is None else most
    try:
        blocks, at = _read_sections(update, room)
        deleted, at = _read_deleted(update, at, room - len(blocks))
    except Malformed as error:
        raise MalformedUpdate(str(error)) from None
    except IndexError:
        raise MalformedUpdate("the update is cut off") from None
    if at != len(update):
        raise MalformedUpdate("there is something behind the update")
    return Structs(blocks, deleted)


class Keystroke(Enum):
    """An update that needs no closer look, because it is what the pressing of a key makes."""

    TYPED = auto()
    """One text, somewhere between others."""
    ERASED = auto()
    """One range of one client is deleted."""


def validate(update: bytes, own: Container[bytes] | None = None, most: int | None = None) -> Structs | Keystroke:
    """
    Accept an update for the native library. Returns what is in it; keystrokes are recognised without being read.

    ``own`` are the encoded ids of clients of which keystrokes need no closer look; by default, of all. ``most`` is as
    for ``read_update``.

    Raises:
        MalformedUpdate: If it is none, or would do harm.
    """
    typed = _TYPED.fullmatch(update)
    if typed is not None and typed[3][0] == len(typed[3]) - 1:
        return Keystroke.TYPED if own is None or typed[1] in own else read_update(update, most)
    erased = _ERASED.fullmatch(update)
    is_erased = erased is not None and (own is None or erased[1] in own)
    return Keystroke.ERASED if is_erased else read_update(update, most)


def without(update: bytes, beyond: Mapping[int, int]) -> bytes:
    """
    A valid ``update``, cut: of the clients in ``beyond`` nothing is left but deletions up to the clock there.

    Raises:
        MalformedUpdate: As ``read_update``.
    """
    try:
        count, at = read_number(update, 0)
        kept: list[bytes] = []
        for _ in range(count):
            client, _, end = _read_section(update, at)
            if client not in beyond:
                kept.append(update[at:end])
            at = end
        deleted, _ = _read_deleted(update, at)
    except (Malformed, IndexError) as error:
        raise MalformedUpdate("the update is cut off") from error
    return number(len(kept)) + b"".join(kept) + _deletions(deleted, beyond)


def _deletions(deleted: Mapping[int, Sequence[tuple[int, int]]], beyond: Mapping[int, int]) -> bytes:
    kept: list[bytes] = []
    for client, ranges in deleted.items():
        last = beyond.get(client, MAX_CLOCK)
        cut = [(begin, min(end, last)) for begin, end in ranges if begin < last]
        if cut:
            encoded = b"".join(number(begin) + number(end - begin) for begin, end in cut)
            kept.append(number(client) + number(len(cut)) + encoded)
    return number(len(kept)) + b"".join(kept)


def clients_of(update: bytes) -> list[ClockRange]:
    """
    Whose units ``update`` brings, one range for each client and gap.

    Raises:
        MalformedUpdate: As ``read_update``.
    """
    typed = _TYPED.fullmatch(update)
    if typed is not None and typed[3][0] == len(typed[3]) - 1 and (length := _units_of(typed[3])):
        clock = read_number(typed[2], 0)[0]
        return [ClockRange(read_number(typed[1], 0)[0], clock, clock + length)]
    ranges: list[ClockRange] = []
    for block in read_update(update).blocks:
        if block.kind is BlockKind.SKIP:
            continue
        last = ranges[-1] if ranges else None
        if last is not None and last.client == block.client and last.end == block.clock:
            ranges[-1] = ClockRange(block.client, last.clock, block.end)
        else:
            ranges.append(ClockRange(block.client, block.clock, block.end))
    return ranges


def _units_of(sized: bytes) -> int:
    """How long a short text is that has its length in front; 0 if it is no text."""
    if sized.isascii():
        return sized[0]
    try:
        return units(sized[1:].decode())
    except UnicodeDecodeError:
        return 0


# What the pressing of a key makes, for which a pattern is several times faster than reading it. What is unusual in
# it, such as a clock of more than 28 bits, does not match and is read.
_CLIENT: Final = rb"[\x80-\xff]{0,6}[\x00-\x7f]|[\x80-\xff]{7}[\x00-\x0f]"
_CLOCK: Final = rb"[\x80-\xff]{0,3}[\x00-\x7f]"
_ID: Final = b"(?:" + _CLIENT + b")" + _CLOCK

_TYPED: Final = re.compile(
    rb"\x01\x01(" + _CLIENT + b")(" + _CLOCK + rb")(?:[\x84\x44]|\xc4" + _ID + b")" + _ID + rb"([\x01-\x7f].+)\x00",
    re.DOTALL,
)
"""One text with one or two origins, and nothing deleted: client, clock, and the text with its length in front."""

_ERASED: Final = re.compile(rb"\x00\x01(" + _CLIENT + rb")\x01" + _CLOCK + _CLOCK)
"""One range of one client is deleted: client."""


# --- blocks -------------------------------------------------------------------------------------------


def _read_sections(data: bytes, room: int) -> tuple[list[Block], int]:
    count, at = _read_count(data, 0, _LEAST_SECTION_BYTES)
    blocks: list[Block] = []
    clients: set[int] = set()
    for _ in range(count):
        client, section, at = _read_section(data, at, room - len(blocks))
        if client in clients:
            raise MalformedUpdate("a client is listed twice")
        clients.add(client)
        blocks += section
    return blocks, at


def _read_section(data: bytes, at: int, room: int = MAX_CLOCK) -> tuple[int, list[Block], int]:
    """A client and its blocks, for which there must be ``room``."""
    size, at = _read_count(data, at, _LEAST_BLOCK_BYTES)
    if size > room:
        raise MalformedUpdate("it has too many blocks")
    client, at = read_number(data, at)
    clock, at = read_number(data, at)
    blocks: list[Block] = []
    for _ in range(size):
        block, at = _read_block(data, at, client, clock)
        clock = block.end
        if not block.length or clock > MAX_CLOCK:
            raise MalformedUpdate("a block is empty, or its clock too large")
        blocks.append(block)
    return client, blocks, at


_LEAST_SECTION_BYTES: Final = 3
_LEAST_BLOCK_BYTES: Final = 2


def _read_block(data: bytes, at: int, client: int, clock: int) -> tuple[Block, int]:
    info = data[at]
    at += 1
    if info in (BlockKind.GC, BlockKind.SKIP):
        length, at = read_number(data, at)
        return Block(client, clock, length, _KINDS[info]), at
    kind = _KINDS.get(info & _KIND_BITS)
    if kind is None or kind not in _CONTENTS:
        raise MalformedUpdate("there is no such kind of block")
    origin = right_origin = parent = key = shared = None
    text = ""
    if info & _HAS_ORIGIN:
        origin, at = _read_id(data, at)
    if info & _HAS_RIGHT_ORIGIN:
        right_origin, at = _read_id(data, at)
    if not info & (_HAS_ORIGIN | _HAS_RIGHT_ORIGIN):
        parent, at = _read_parent(data, at)
        if info & _HAS_KEY:
            key, at = read_text(data, at)
    if kind is BlockKind.TYPE:
        shared, at = _read_shared(data, at)
        length = 1
    elif kind is BlockKind.STRING:
        text, at = read_text(data, at)
        length = units(text)
    else:
        length, at = _CONTENTS[kind](data, at)
    return Block(client, clock, length, kind, origin, right_origin, parent, key, shared, text), at


_KINDS: Final = {kind.value: kind for kind in BlockKind}
_KIND_BITS: Final = 0x1F
_HAS_KEY: Final = 0x20
_HAS_RIGHT_ORIGIN: Final = 0x40
_HAS_ORIGIN: Final = 0x80


def _read_id(data: bytes, at: int) -> tuple[BlockId, int]:
    client, at = read_number(data, at)
    clock, at = read_number(data, at)
    return (client, clock), at


def _read_parent(data: bytes, at: int) -> tuple[str | BlockId, int]:
    is_root, at = read_number(data, at)
    return read_text(data, at) if is_root == 1 else _read_id(data, at)


def _read_count(data: bytes, at: int, least_bytes: int) -> tuple[int, int]:
    """How many things follow, of which each takes ``least_bytes`` or more."""
    count, at = read_number(data, at)
    if count * least_bytes > len(data) - at:
        raise MalformedUpdate("there is less than was announced")
    return count, at


# --- what blocks hold ---------------------------------------------------------------------------------
# Each returns the length in units, and where the content ends.


def units(text: str) -> int:
    """How long a text is in units of UTF-16, in which JavaScript and clocks count."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def _read_json(data: bytes, at: int) -> tuple[int, int]:
    count, at = _read_count(data, at, 1)
    for _ in range(count):
        at = read_bytes(data, at)[1]
    return count, at


def _read_one(data: bytes, at: int) -> tuple[int, int]:
    """Bytes, or a value in JSON: the native library bounds the depth of those itself."""
    return 1, read_bytes(data, at)[1]


def _read_format(data: bytes, at: int) -> tuple[int, int]:
    return _read_one(data, read_bytes(data, at)[1])


def _read_shared(data: bytes, at: int) -> tuple[SharedKind, int]:
    number, at = read_number(data, at)
    # Hooks are left out: Yjs and the native library do not agree on how they are encoded.
    if number not in _SHARED:
        raise MalformedUpdate("there is no such shared type")
    if number == SharedKind.XML_ELEMENT:
        at = read_bytes(data, at)[1]
    return _SHARED[number], at


_SHARED: Final = {kind.value: kind for kind in SharedKind if kind is not SharedKind.XML_HOOK}


def _read_values(data: bytes, at: int) -> tuple[int, int]:
    count, at = _read_count(data, at, 1)
    return count, _skip_values(data, at, count)


def _read_doc(data: bytes, at: int) -> tuple[int, int]:
    return 1, _skip_values(data, read_bytes(data, at)[1], 1)


def _skip_values(data: bytes, at: int, count: int) -> int:
    """Where ``count`` JSON-like values end. Not recursive: how deep they nest is not ours to choose."""
    left = [count]
    keyed = [False]
    while left:
        if not left[-1]:
            left.pop()
            keyed.pop()
            continue
        left[-1] -= 1
        if keyed[-1]:
            at = read_bytes(data, at)[1]
        kind = data[at]
        at += 1
        if kind in (_LIST, _OBJECT):
            is_object = kind == _OBJECT
            size, at = _read_count(data, at, 2 if is_object else 1)
            left.append(size)
            keyed.append(is_object)
            if len(left) > MAX_VALUE_DEPTH + 1:
                raise MalformedUpdate("a value nests too deep")
        else:
            at = _skip_scalar(data, at, kind)
    return at


_LIST: Final = 117
_OBJECT: Final = 118
_INTEGER: Final = 125
_SIZED: Final = (116, 119)
"""Bytes and text."""

_FIXED: Final = {120: 0, 121: 0, 122: 8, 123: 8, 124: 4, 126: 0, 127: 0}
"""How many bytes follow: true, false, 64 bits as integer and as float, 32 bits as float, null, undefined."""

_MAX_INTEGER_BYTES: Final = 10


def _skip_scalar(data: bytes, at: int, kind: int) -> int:
    if kind in _SIZED:
        return read_bytes(data, at)[1]
    if kind == _INTEGER:
        for end in range(at, at + _MAX_INTEGER_BYTES):
            if data[end] < 0x80:
                return end + 1
        raise MalformedUpdate("an integer is too large")
    if kind not in _FIXED or at + _FIXED[kind] > len(data):
        raise MalformedUpdate("there is no such value")
    return at + _FIXED[kind]


_CONTENTS: Final[Mapping[BlockKind, Callable[[bytes, int], tuple[int, int]]]] = {
    BlockKind.DELETED: read_number,
    BlockKind.JSON: _read_json,
    BlockKind.BINARY: _read_one,
    BlockKind.STRING: _read_one,
    BlockKind.EMBED: _read_one,
    BlockKind.FORMAT: _read_format,
    BlockKind.TYPE: _read_one,
    BlockKind.ANY: _read_values,
    BlockKind.DOC: _read_doc,
}


# --- what is deleted ----------------------------------------------------------------------------------


def _read_deleted(data: bytes, at: int, room: int = MAX_CLOCK) -> tuple[dict[int, list[tuple[int, int]]], int]:
    count, at = _read_count(data, at, 2)
    deleted: dict[int, list[tuple[int, int]]] = {}
    for _ in range(count):
        client, at = read_number(data, at)
        size, at = _read_count(data, at, 2)
        room -= size
        if room < 0:
            raise MalformedUpdate("it deletes in too many places")
        ranges = deleted.setdefault(client, [])
        for _ in range(size):
            clock, at = read_number(data, at)
            length, at = read_number(data, at)
            if clock + length > MAX_CLOCK:
                raise MalformedUpdate("a deleted clock is too large")
            ranges.append((clock, clock + length))
        ranges.sort()
    return deleted, at


def joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges of clocks in order, those that touch or overlap as one."""
    found: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return found
