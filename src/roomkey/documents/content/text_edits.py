"""
Changes to shared texts that touch only what differs, so that cursors stay and what others type at the same time
merges well.

Callers count in code points; the native library counts in bytes of UTF-8, and an embedded thing as one.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from msgspec import Struct
from pycrdt import Text, XmlText

from roomkey.documents.content.json_patch import spans
from roomkey.errors import InvalidInput

MAX_COMPARED_WORDS: Final = 20_000
"""Texts that differ in more words than this are replaced between their first and last difference: a second or so."""

Edit = tuple[int, int, str]
"""What is between two code points of the old text becomes something else."""


class _Piece(Struct, frozen=True, gc=False):
    """A run of text without anything embedded: where it begins, in code points and as the library counts."""

    start: int
    native: int
    text: str

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def replace_text(text: Text | XmlText, new: str) -> None:
    """Make ``text`` say ``new``. What is embedded stays where it is."""
    pieces = _pieces(text)
    for start, end, insert in reversed(list(edits_between("".join(piece.text for piece in pieces), new))):
        _edit(text, pieces, start, end, insert)


def edit_text(text: Text | XmlText, index: int, delete: int, insert: str) -> None:
    """
    Put ``insert`` in the place of ``delete`` code points from ``index`` on.

    Raises:
        InvalidInput: If the text is shorter than that.
    """
    pieces = _pieces(text)
    length = pieces[-1].end
    if not (0 <= index <= length and 0 <= delete <= length - index):
        raise InvalidInput(f"the text has {length} code points, the edit is at {index} and deletes {delete}")
    _edit(text, pieces, index, index + delete, insert)


def edits_between(old: str, new: str) -> Iterator[Edit]:
    """What makes ``new`` of ``old``, in order: whole words are compared, then cut down to what differs in them."""
    if old == new:
        return
    begin = _common(old, new)
    behind = _common(old[begin:][::-1], new[begin:][::-1])
    old_words, new_words = (_WORD.findall(text[begin : len(text) - behind]) for text in (old, new))
    old_starts, new_starts = _starts(old_words, begin), _starts(new_words, begin)
    for span in spans(old_words, new_words, MAX_COMPARED_WORDS):
        start, end = old_starts[span.start], old_starts[span.end]
        removed, added = old[start:end], new[new_starts[span.new_start] : new_starts[span.new_end]]
        before = _common(removed, added)
        after = _common(removed[before:][::-1], added[before:][::-1])
        yield start + before, end - after, added[before : len(added) - after]


def runs_between(old: str, new: str) -> list[dict[str, str]]:
    """How ``new`` came from ``old``: runs that are ``equal``, ``delete`` or ``insert``."""
    runs: list[dict[str, str]] = []
    at = 0
    for start, end, insert in edits_between(old, new):
        parts = (("equal", old[at:start]), ("delete", old[start:end]), ("insert", insert))
        runs += [{name: part} for name, part in parts if part]
        at = end
    if at < len(old):
        runs.append({"equal": old[at:]})
    return runs


_WORD: Final = re.compile(r"\w+|\s+|[^\w\s]")


def _starts(words: Sequence[str], begin: int) -> list[int]:
    starts = [begin]
    for word in words:
        starts.append(starts[-1] + len(word))
    return starts


def _common(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _pieces(text: Text | XmlText) -> list[_Piece]:
    """The runs of text, at least one."""
    pieces: list[_Piece] = []
    start = native = 0
    for content, _ in text.diff():
        if isinstance(content, str):
            pieces.append(_Piece(start, native, content))
            start += len(content)
        native += _native_length(content)
    return pieces or [_Piece(0, 0, "")]


def _native_length(content: Any) -> int:
    return len(content.encode()) if isinstance(content, str) else 1


def _edit(text: Text | XmlText, pieces: Sequence[_Piece], start: int, end: int, insert: str) -> None:
    place: int | None = None
    for piece in reversed(pieces):
        if piece.start > end or piece.end < start:
            continue
        first, last = max(start, piece.start) - piece.start, min(end, piece.end) - piece.start
        place = piece.native + len(piece.text[:first].encode())
        if first < last:
            del text[place : place + len(piece.text[first:last].encode())]
    if insert and place is not None:
        text.insert(place, insert)
