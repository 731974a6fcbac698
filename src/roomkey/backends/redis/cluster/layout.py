"""
Where rooms stand in Redis: their keys and channels, and what lies and is said there.

By its name a room belongs to one of ``PARTITIONS``, and everything of a partition has one hash tag, hence one slot:
its keys and its channels. So a publication is one script, which gives it its place and hands it to all who listen.

| key behind the tag | type | what it has |
|---|---|---|
| ``h:`` room | string | the head: epoch, process of the server, offset, bytes of the history, time of its oldest |
| ``l:`` room | list | the history: time in milliseconds and body of each publication |
| ``k:`` digest | string | of a message key: the content, the epoch and the offset |
| ``t:`` node | string | the last call that was done for the node: its number, and what it was answered |
| ``s:`` room | set | nodes that show somebody there |
| ``m:`` node NUL room | hash | whom the node shows there: member → shown |
| ``w:`` node | set | rooms in which the node shows somebody |

All but the last three have a TTL. The channel of a room is ``c``, the number of the database unless it is 0, a colon
and its name; what is said in it is a version, the epoch, the offset, and the body: the origin behind its length in two
bytes, and the message.
"""

from hashlib import blake2b
from typing import Final, NamedTuple
from zlib import crc32

from roomkey.ports import MessageKey, Position, Publication

PARTITIONS: Final = 64
"""As of documents: few enough that all are subscribed at once, enough that some ten masters have as much to do each."""

VERSION: Final = 1

EPOCH_BYTES: Final = 8
OFFSET_BYTES: Final = 7
TIME_BYTES: Final = 7
ORIGIN_BYTES: Final = 2
"""Of the length of an origin."""

MAX_ORIGIN_BYTES: Final = 2 ** (8 * ORIGIN_BYTES) - 1

_BODY: Final = 1 + EPOCH_BYTES + OFFSET_BYTES
"""Where the body begins in what is said."""

_ERRORS: Final = "surrogatepass"
"""Names are whatever their owners allow."""


class Partition:
    """What all rooms of a partition have in common."""

    __slots__ = ("number", "tag")

    def __init__(self, prefix: bytes, number: int) -> None:
        self.number = number
        self.tag = b"{%s:r%02x}" % (prefix, number)

    def trace(self, node: bytes) -> bytes:
        """Where stands what was done for a node last."""
        return self.tag + b"t:" + node

    def shown_in(self, node: bytes) -> bytes:
        """Where stands in which rooms a node shows somebody."""
        return self.tag + b"w:" + node

    def repetition(self, room: bytes, key: MessageKey) -> bytes:
        """Where stands what is known of a message key."""
        digest = blake2b(digest_size=16)
        for part in (room, key.sender.encode(errors=_ERRORS), key.id.encode(errors=_ERRORS)):
            digest.update(b"%d:%b" % (len(part), part))
        return self.tag + b"k:" + digest.digest()


class Place(NamedTuple):
    """The keys of a room."""

    name: bytes
    partition: Partition
    head: bytes
    history: bytes
    channel: bytes
    nodes: bytes

    def members(self, node: bytes) -> bytes:
        """Where stands whom a node shows in it."""
        return b"%bm:%b\0%b" % (self.partition.tag, node, self.name)


class Layout:
    """The keys and channels behind a prefix. ``suffix`` is in the names of channels."""

    def __init__(self, prefix: bytes, suffix: bytes) -> None:
        self.partitions: Final = tuple(Partition(prefix, number) for number in range(PARTITIONS))
        self._suffix = suffix

    def place(self, room: str) -> Place:
        """Where the room of this name stands."""
        name = room.encode(errors=_ERRORS)
        partition = self.partitions[crc32(name) % PARTITIONS]
        tag = partition.tag
        return Place(
            name,
            partition,
            head=tag + b"h:" + name,
            history=tag + b"l:" + name,
            channel=b"%bc%b:%b" % (tag, self._suffix, name),
            nodes=tag + b"s:" + name,
        )


def encode_body(origin: str, message: bytes) -> bytes:
    """What is kept and said of a publication, besides where it stands."""
    source = origin.encode(errors=_ERRORS)
    return len(source).to_bytes(ORIGIN_BYTES) + source + message


def _decode_body(body: bytes, start: int, position: Position | None) -> Publication:
    begin = start + ORIGIN_BYTES
    end = begin + int.from_bytes(body[start:begin])
    return Publication(body[end:], body[begin:end].decode(errors=_ERRORS), position)


def decode_position(place: bytes) -> Position | None:
    """The position that scripts write so; it has no offset if there is none."""
    offset = int.from_bytes(place[EPOCH_BYTES : EPOCH_BYTES + OFFSET_BYTES])
    return Position(place[:EPOCH_BYTES].decode("ascii"), offset) if offset else None


def decode_said(said: bytes) -> Publication | None:
    """What was said in the channel of a room; ``None`` if it is not understood."""
    if len(said) < _BODY + ORIGIN_BYTES or said[0] != VERSION:
        return None
    return _decode_body(said, _BODY, decode_position(said[1:_BODY]))


def decode_entry(entry: bytes, position: Position) -> Publication:
    """An entry of a history."""
    return _decode_body(entry, TIME_BYTES, position)


def decode_head(head: bytes) -> Position:
    """Where a room stands, by its head."""
    start = EPOCH_BYTES + RUN_BYTES
    return Position(head[:EPOCH_BYTES].decode("ascii"), int.from_bytes(head[start : start + OFFSET_BYTES]))


RUN_BYTES: Final = 16
"""Of the name of the server's process, in a head."""
