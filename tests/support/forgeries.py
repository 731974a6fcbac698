"""Updates that no editor makes: blocks in the name of any Yjs client, put together by hand."""

from roomkey.documents.crdt.updates import MAX_CLOCK
from roomkey.wire import lib0

BlockId = tuple[int, int]


def gc(length: int) -> bytes:
    """Units that were something once."""
    return b"\x00" + lib0.number(length)


def skip(length: int) -> bytes:
    """Units that are not in this update."""
    return b"\x0a" + lib0.number(length)


def erased(length: int, root: str = "content") -> bytes:
    """Units of a root whose content is deleted."""
    return b"\x01\x01" + lib0.text(root) + lib0.number(length)


def words(text: str, root: str = "content", *, behind: BlockId | None = None) -> bytes:
    """A text in a root, or behind a unit of it."""
    if behind is None:
        return b"\x04\x01" + lib0.text(root) + lib0.text(text)
    return b"\x84" + lib0.number(behind[0]) + lib0.number(behind[1]) + lib0.text(text)


def section(client: int, clock: int, *blocks: bytes) -> bytes:
    """Blocks of one client, one behind the other."""
    return lib0.number(len(blocks)) + lib0.number(client) + lib0.number(clock) + b"".join(blocks)


def deletion(client: int, clock: int, length: int) -> bytes:
    """One range of one client is deleted."""
    return lib0.number(client) + b"\x01" + lib0.number(clock) + lib0.number(length)


def put_together(*sections: bytes, deletions: tuple[bytes, ...] = ()) -> bytes:
    """An update of these sections and deletions, each of another client."""
    return lib0.number(len(sections)) + b"".join(sections) + lib0.number(len(deletions)) + b"".join(deletions)


def to_the_end(clock: int) -> int:
    """How many units there are from ``clock`` on."""
    return MAX_CLOCK - clock
