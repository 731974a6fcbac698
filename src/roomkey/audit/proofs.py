"""Receipts: that an entry is in a log, for everybody who has the keys and for ever (C2SP tlog-proof)."""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from roomkey.audit.checkpoints import Checkpoint, checkpoint, hash_text, hashes_of, number
from roomkey.audit.merkle import MOST_HASHES, leaf_hash, proves_inclusion
from roomkey.audit.notes import MAX_NOTE_BYTES, Note, VerifierKey, note
from roomkey.audit.tiles import MAX_ENTRY_BYTES
from roomkey.errors import InvalidInput, NotProven

HEADER: Final = "c2sp.org/tlog-proof@v1"
MEDIA_TYPE: Final = "text/plain; charset=utf-8"

MAX_RECEIPT_BYTES: Final = MAX_NOTE_BYTES + 2 * MAX_ENTRY_BYTES + 64 * 1024
"""The note, the entry in base64, and what else there is, with room to spare."""


class Receipt(Struct, frozen=True, kw_only=True):
    """
    A proof that entry number ``index`` is in the log whose head ``head`` says.

    ``entry`` is the entry itself, if whoever gave the receipt has put it in: it is not covered by a signature, but
    by the hashes, as any entry that is shown beside the receipt.
    """

    index: int
    hashes: Sequence[bytes]
    head: Note
    entry: bytes | None = None

    def __str__(self) -> str:
        lines = [HEADER]
        if self.entry is not None:
            lines.append(f"extra {b64encode(self.entry).decode()}")
        lines += [f"index {self.index}", *map(hash_text, self.hashes), "", str(self.head)]
        return "\n".join(lines)


class Proven(Struct, frozen=True):
    """What a receipt has proven."""

    index: int
    entry: bytes
    head: Checkpoint
    witnesses: Mapping[str, datetime]
    """The witnesses that have signed the head, by name, and when."""


def receipt(content: bytes) -> Receipt:
    """
    The receipt that is written so; nothing of it is verified.

    Raises:
        InvalidInput: If it is none.
    """
    if len(content) > MAX_RECEIPT_BYTES:
        raise InvalidInput(f"a receipt has at most {MAX_RECEIPT_BYTES} bytes")
    try:
        above, separator, below = content.decode().partition("\n\n")
    except UnicodeDecodeError:
        raise InvalidInput("a receipt is text in UTF-8") from None
    lines = above.split("\n")
    if not separator or lines.pop(0) != HEADER:
        raise InvalidInput(f"a receipt begins with {HEADER}, and has an empty line before its checkpoint")
    entry = _extra(lines.pop(0)) if lines and lines[0].startswith("extra ") else None
    if not lines or not lines[0].startswith("index "):
        raise InvalidInput("a receipt says which entry it is of: index and a number")
    index = number(lines.pop(0).removeprefix("index "))
    return Receipt(index=index, hashes=hashes_of(lines, MOST_HASHES), head=note(below), entry=entry)


def verify(
    given: Receipt,
    *,
    keys: Collection[VerifierKey],
    witnesses: Collection[VerifierKey] = (),
    quorum: int = 0,
    entry: bytes | None = None,
) -> Proven:
    """
    What ``given`` proves to whoever trusts one of ``keys`` to be the log's, and ``quorum`` of ``witnesses``.

    Args:
        entry: The entry, if it is not in the receipt, or to be the one that is meant.

    Raises:
        NotProven: If it proves nothing; the message says why.
        InvalidInput: If its note is not a checkpoint.
    """
    head = checkpoint(given.head.text)
    if not given.head.verified(keys):
        raise NotProven("no key of the log has signed the checkpoint")
    seen = {key.name: at for key, at in given.head.verified(witnesses).items() if at is not None}
    if len(seen) < quorum:
        raise NotProven(f"{len(seen)} witnesses have signed the checkpoint, and {quorum} are needed")
    if entry is None:
        entry = given.entry
    if entry is None:
        raise NotProven("the entry is not in the receipt: it must be given, too")
    if not proves_inclusion(leaf_hash(entry), given.index, head.size, given.hashes, head.root):
        raise NotProven(f"the hashes do not lead from this entry, as number {given.index}, to the root that was signed")
    return Proven(given.index, entry, head, seen)


def _extra(line: str) -> bytes:
    try:
        return b64decode(line.removeprefix("extra "), validate=True)
    except (Base64Error, ValueError):
        raise InvalidInput("what is extra in a receipt is in base64") from None
