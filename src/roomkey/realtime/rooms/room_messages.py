"""What nodes say to each other in a room beside its publications: who is shown, and where cursors are."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from msgspec import Struct

from roomkey.domain.session import SessionId
from roomkey.realtime.rooms.shared_presence import Shown
from roomkey.wire.node_format import NodeFormat

PUBLICATION: Final = b'"'
"""The first byte of a publication, which is the inside of a JSON object. What nodes say begins with their version."""

MAX_AT_ONCE: Final = 100
"""Sessions in one message."""

MAX_BYTES_AT_ONCE: Final = 256 * 1024
"""What is shown of the sessions in one message has so many bytes, or is that of one session."""

T = TypeVar("T")


class PresenceEntry(Struct, frozen=True, gc=False):
    """What the sender shows of a session: nothing any more, as of ``version``, if ``shown`` is ``None``."""

    session: SessionId
    version: int
    shown: Shown | None


class PresenceChanged(Struct, frozen=True, gc=False, tag="presence"):
    """What the sender shows of these sessions, which stands in the ``PresenceStore`` already."""

    entries: Sequence[PresenceEntry]


class Cursor(Struct, frozen=True, gc=False):
    """The newest cursor of a session of the sender: a whole message, for members."""

    session: SessionId
    message: bytes


class CursorsMoved(Struct, frozen=True, gc=False, tag="cursors"):
    """Where these cursors are now."""

    cursors: Sequence[Cursor]


RoomMessage = PresenceChanged | CursorsMoved


def room_format() -> NodeFormat[RoomMessage]:
    """The format of what nodes say in rooms; it counts what it ignores."""
    return NodeFormat(RoomMessage)


def shown_format() -> NodeFormat[Shown]:
    """The format of what stands in a ``PresenceStore``."""
    return NodeFormat(Shown)


def portions(entries: Sequence[T], size: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """``entries`` in the portions that fit into a message each, in order."""
    portion: list[T] = []
    total = 0
    for entry in entries:
        if portion and (len(portion) >= MAX_AT_ONCE or total + size(entry) > MAX_BYTES_AT_ONCE):
            yield portion
            portion, total = [], 0
        portion.append(entry)
        total += size(entry)
    if portion:
        yield portion
