"""
What may name something: printable text of a bounded size, whether it is a user, a document or a status.

Beyond that, names differ in who reads them. Identities are compared by machines, so two that look the same must not
both exist. Names and labels are read by people, in every script, so they may have what scripts need, and nothing that
makes a reader see something else than what is there. ``RULES`` is the whole table; everything in it is refused, except
in what stock editors show of their user, which nobody could correct: there it is left out (``without_tricks``).
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from roomkey.errors import InvalidInput


def check_text(what: str, text: str, *, max_bytes: int) -> str:
    """
    Return ``text`` if it may name something: 1 to ``max_bytes`` bytes of printable Unicode.

    Raises:
        InvalidInput: If not; the message calls it ``what`` and does not repeat it.
    """
    # The common case first: ASCII is as long in bytes as in characters.
    if text.isascii():
        size = len(text)
    else:
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise InvalidInput(f"{what} must be valid Unicode") from None
    if not 0 < size <= max_bytes:
        raise InvalidInput(f"{what} has 1 to {max_bytes} bytes")
    if not text.isprintable():
        raise InvalidInput(f"{what} must not contain control characters")
    return text


class NameRule(Struct, frozen=True, kw_only=True):
    """
    What text of one kind must not have; nothing invisible may stand in any of them.

    ``joiners``: what joins letters and emoji, and what says how they are joined, may be there: Persian, Hindi and
    families need it. ``composed``: it must be in Unicode's normal form C, so that one text has one spelling.
    ``one_alphabet``: a word must not mix alphabets whose letters look the same (UTS 39, 5.2).
    """

    joiners: bool
    composed: bool
    one_alphabet: bool


RULES: Final[Mapping[str, NameRule]] = {
    "user_id": NameRule(joiners=False, composed=True, one_alphabet=True),
    "name": NameRule(joiners=True, composed=False, one_alphabet=True),
    "device": NameRule(joiners=True, composed=False, one_alphabet=False),
    "label": NameRule(joiners=True, composed=False, one_alphabet=False),
    "reason": NameRule(joiners=True, composed=False, one_alphabet=False),
    "document": NameRule(joiners=True, composed=False, one_alphabet=False),
    "key": NameRule(joiners=True, composed=False, one_alphabet=False),
}
"""
By kind: ``name`` is the one in a session's metadata, ``key`` any key of that, ``label`` that of a version, ``reason``
why a session ended. Documents are named by applications: "Δt" and "µm" are names of some, and a file of a Mac is
spelt in form D.
"""

# Of the category Cf and others that leave no mark, by what they are good for. U+2800 and the fillers of Hangul are
# printable by their category, and empty. As a regular expression of Python and of ECMA 262 writes them.
_EMPTY: Final = (
    r"\u00AD\u034F\u115F\u1160\u17B4\u17B5\u180B-\u180F\u200B\u2028\u2029\u2060-\u2064\u206A-\u206F\u2800\u3164\uFEFF"
    r"\uFFA0\uFFF9-\uFFFB"
)
_CONTROLS: Final = r"\u0000-\u001F\u007F-\u009F"
_TURNING: Final = r"\u202A-\u202E\u2066-\u2069"
"""Embeddings, overrides and isolates: what is read is in another order than what is there (CVE-2021-42574)."""
_JOINING: Final = "\\u061C\\u200C-\\u200F\\uFE00-\\uFE0F\U000e0100-\U000e01ef"
_TAGS: Final = "\U000e0000-\U000e007f"
_FLAG: Final = "\U0001f3f4"
"""The flags of England, Scotland and Wales are a black one and tags; anywhere else these are hidden text."""

HIDDEN: Final = _CONTROLS + _EMPTY + _TURNING + _TAGS
"""What no text may contain, for a class of a regular expression. Behind a black flag tags are accepted, too."""

_TRICKS: Final = re.compile(f"[{_CONTROLS}{_EMPTY}{_TURNING}]|(?<![{_FLAG}{_TAGS}])[{_TAGS}]+")
_TRICKS_AND_JOINERS: Final = re.compile(f"[{HIDDEN}{_JOINING}]")

MAX_MARKS: Final = 8
"""Marks on one letter. Hebrew with all its points has four; what climbs over the lines above has dozens."""

_PILE: Final = re.compile(f"[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]{{{MAX_MARKS + 1}}}")

_WORD: Final = re.compile(r"[^\W\d_]+")

_ALIKE: Final = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "FULLWIDTH", "MATHEMATICAL"})
"""Alphabets with letters that look like those of others, as they begin the names of their letters."""


def check_name(kind: str, what: str, text: str) -> str:
    """
    Return ``text`` if it is what text of a ``kind`` in ``RULES`` may be; what is longer than allowed is checked before.

    Raises:
        InvalidInput: If not; the message calls it ``what`` and does not repeat it.
    """
    if text.isascii() and text.isprintable():
        return text
    rule = RULES[kind]
    if (_TRICKS if rule.joiners else _TRICKS_AND_JOINERS).search(text):
        raise InvalidInput(f"{what} must not contain control characters, nor what is invisible or turns text around")
    if _PILE.search(unicodedata.normalize("NFD", text)):
        raise InvalidInput(f"{what} has at most {MAX_MARKS} marks on a letter")
    if rule.composed and not unicodedata.is_normalized("NFC", text):
        raise InvalidInput(f"{what} must be in Unicode's normal form C")
    if rule.one_alphabet and any(len(_alphabets(word)) > 1 for word in _WORD.findall(text)):
        raise InvalidInput(f"{what} must not mix alphabets within a word")
    return text


def without_tricks(text: str) -> str:
    """``text`` without what is invisible or turns it around: for what cannot be refused."""
    return text if text.isascii() and text.isprintable() else _TRICKS.sub("", text)


def _alphabets(word: str) -> set[str]:
    return {unicodedata.name(letter, "").partition(" ")[0] for letter in word} & _ALIKE
