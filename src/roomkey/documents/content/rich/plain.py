"""
Plain text: the text of each block, with an empty line between blocks and a line end for a break, as ``getText`` of
Tiptap.

In place of something in a line that is no text stands U+FFFC. Blocks without text, such as rules, do not show.

What is written is compared block by block: blocks stay what they are, headings and items of lists, and keep their
marks.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from roomkey.documents.content.json_patch import spans
from roomkey.documents.content.rich.graft import merged
from roomkey.documents.content.rich.parts import BREAK, CODE_BLOCK, ITEMS, PARAGRAPH, Part, inline_text, joined

SEPARATOR: Final = "\n\n"

_NO_MARKS: Final = frozenset[str]()


def render(parts: Sequence[Part]) -> str:
    """The text of the parts."""
    return SEPARATOR.join(place.part.plain for place in _places(parts))


def starts(parts: Sequence[Part]) -> dict[int, int]:
    """Where in the text each run begins, by the identity of its node."""
    found: dict[int, int] = {}
    at = 0
    for place in _places(parts):
        for part in place.part.content:
            if part.source is not None:
                found[id(part.source)] = at
            at += len(part.plain)
        at += len(SEPARATOR)
    return found


def parse(text: str) -> list[Part]:
    """A paragraph for each block."""
    return [Part(PARAGRAPH, content=_line(said)) for said in text.split(SEPARATOR)] if text else []


def rewrite(document: Part, text: str) -> None:
    """Change ``document``, all of which is kept, to say ``text``; one line end at the end of all is none of it."""
    if text.endswith("\n") and not text.endswith(SEPARATOR):
        text = text[:-1]
    places = _places(document.content, document)
    old = [piece for place in places for piece in place.part.plain.split(SEPARATOR)]
    owners = [place for place in places for _ in place.part.plain.split(SEPARATOR)]
    new = text.split(SEPARATOR) if text else []
    pieces: dict[int, list[str]] = {id(place): [] for place in places}
    added: list[tuple[_Place | None, str]] = []
    at = 0
    for span in [*spans(old, new), None]:
        end = len(old) if span is None else span.start
        for index in range(at, end):
            pieces[id(owners[index])].append(old[index])
        if span is None:
            break
        for offset in range(span.common):
            pieces[id(owners[span.start + offset])].append(new[span.new_start + offset])
        before = owners[span.start + span.common - 1] if span.start + span.common else None
        for said in new[span.new_start + span.common : span.new_end]:
            if (
                before is not None
                and before.part.type == CODE_BLOCK
                and span.end < len(owners)
                and owners[span.end] is before
            ):
                pieces[id(before)].append(said)
            else:
                added.append((before, said))
        at = span.end
    for place in places:
        _say(place, pieces[id(place)])
    for before, said in reversed(added):
        _add(document, before, Part(PARAGRAPH, content=_line(said)))


class _Place(Struct):
    """A block with text, and what it is in, from the outside."""

    part: Part
    above: list[Part]


def _places(parts: Sequence[Part], *above: Part) -> list[_Place]:
    found: list[_Place] = []
    for part in parts:
        if part.is_text_block:
            found.append(_Place(part, list(above)))
        else:
            found += _places(part.content, *above, part)
    return found


def _say(place: _Place, pieces: Sequence[str]) -> None:
    part = place.part
    if pieces and SEPARATOR.join(pieces) == part.plain:
        return
    _touch(place)
    if not pieces:
        _remove(place)
        return
    said = SEPARATOR.join(pieces)
    wanted = [inline_text(said)] if part.type == CODE_BLOCK else _line(said)
    part.content = merged(part.content, part.content, wanted, _NO_MARKS, inherit=True)


def _touch(place: _Place) -> None:
    for part in (place.part, *place.above):
        part.kept = False


def _remove(place: _Place) -> None:
    """Take a block away, and what has nothing else in it."""
    inner = place.part
    for outer in reversed(place.above):
        outer.content = [each for each in outer.content if each is not inner]
        if outer.content or outer.type == "doc":
            return
        inner = outer


def _add(document: Part, before: _Place | None, new: Part) -> None:
    if before is None:
        document.content.insert(0, new)
        return
    _touch(before)
    inner = before.part
    for outer in reversed(before.above):
        if any(each is inner for each in outer.content):
            index = next(index for index, each in enumerate(outer.content) if each is inner)
            if outer.type in ITEMS and not outer.unknown and index == len(outer.content) - 1:
                # Behind the last block of an item there is another item.
                new = Part(outer.type, {"checked": False} if outer.attrs else {}, [new])
                inner = outer
                continue
            if outer.type in ("doc", "blockquote") or inner.type in ITEMS or (outer.type in ITEMS):
                outer.content.insert(index + 1, new)
                return
        inner = outer
    document.content.append(new)


def _line(text: str) -> list[Part]:
    found: list[Part] = []
    for index, said in enumerate(text.split("\n")):
        if index:
            found.append(Part(BREAK, inline=True))
        found.append(inline_text(said))
    return joined(found)
