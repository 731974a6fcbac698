"""
Carry over what a form cannot say, from the document into what somebody has made of its Markdown, HTML or text.

Whoever gets a document in a form and sends it back with changes has not seen all of it. So what was sent is compared
with what the form said before: blocks that it says as before are the nodes that they were; of the others, attributes,
marks and nodes that the form has no words for are kept where they were.
"""

from collections.abc import Callable, Sequence

from roomkey.documents.content.json_patch import fingerprint, spans
from roomkey.documents.content.rich.pairing import paired, similarity
from roomkey.documents.content.rich.parts import (
    ATOM,
    BREAK,
    CELLS,
    TEXT_BLOCKS,
    Mark,
    Part,
    inline_text,
    joined,
    sign_of,
)
from roomkey.documents.content.rich.tree import TEXT, Node
from roomkey.documents.content.text_edits import edits_between
from roomkey.errors import InvalidInput


def graft(
    document: Part, seen: Part, wanted: Part, *, visible: Callable[[Part], bool], marks: frozenset[str] | None
) -> None:
    """
    Let ``wanted`` have all of ``document`` that it does not change.

    ``seen`` is what the form said of ``document``, read again, with all that is ``visible``; ``marks`` are those that
    the form can say.
    """
    _recognise(document, seen, visible)
    _Graft(marks).carry(seen, wanted)


def _recognise(document: Part, seen: Part, visible: Callable[[Part], bool]) -> None:
    """Note for each part of ``seen`` where it comes from."""
    seen.origin = document
    if document.is_text_block:
        return
    shown = [part for part in document.content if visible(part)]
    if [_kind(part) for part in shown] != [_kind(part) for part in seen.content]:
        return  # the form says it as something else: what is changed in there is made anew
    hidden: list[Node] = []
    places = iter(seen.content)
    for part in document.content:
        if not visible(part):
            hidden += [] if part.source is None else [part.source]
            continue
        reading = next(places)
        reading.hidden, hidden = hidden, []
        _recognise(part, reading, visible)
    seen.tail = hidden


def _kind(part: Part) -> str:
    return "cell" if part.type in CELLS else part.type


class _Graft:
    def __init__(self, marks: frozenset[str] | None) -> None:
        self._marks = marks

    def carry(self, seen: Part, wanted: Part) -> None:
        """What ``seen`` comes from is what ``wanted`` is made of."""
        origin = seen.origin
        if origin is not None:
            wanted.source, wanted.tail = origin.source, seen.tail
        wanted.hidden = seen.hidden
        if wanted.is_text_block or (origin is not None and origin.is_text_block):
            if origin is not None and (origin.is_text_block or not origin.content):
                wanted.content = merged(origin.content, seen.content, wanted.content, self._marks)
            return
        old, new = seen.content, wanted.content
        signs, new_signs = ([sign_of(part, self._marks) for part in parts] for parts in (old, new))
        at = 0
        for span in spans(signs, new_signs):
            self._keep_all(old[at : span.start], new[span.new_start - (span.start - at) : span.new_start])
            for place, partner in paired(old[span.start : span.end], new[span.new_start : span.new_end], _likeness):
                self.carry(old[span.start + partner], new[span.new_start + place])
            at = span.end
        self._keep_all(old[at:], new[len(new) - (len(old) - at) :])

    def _keep_all(self, old: Sequence[Part], new: Sequence[Part]) -> None:
        for seen, wanted in zip(old, new, strict=True):
            self._keep(seen, wanted)

    def _keep(self, seen: Part, wanted: Part) -> None:
        wanted.hidden = seen.hidden
        origin = seen.origin
        if origin is None:
            return
        if origin.source is not None:
            wanted.source, wanted.kept = origin.source, True
        elif origin.is_text_block:
            wanted.content = merged(origin.content, seen.content, wanted.content, self._marks)
        else:
            wanted.tail = seen.tail
            self._keep_all(seen.content, wanted.content)


def _likeness(one: Part, other: Part) -> float:
    # A paragraph that becomes a heading is another node with the same text, whose marks are kept.
    is_turned = one.type in TEXT_BLOCKS and other.type in TEXT_BLOCKS and one.plain == other.plain
    return similarity(one.plain, other.plain) if _kind(one) == _kind(other) or is_turned else 0.0


# --- what is in a line --------------------------------------------------------------------------------


def merged(
    origin: Sequence[Part],
    seen: Sequence[Part],
    wanted: Sequence[Part],
    marks: frozenset[str] | None,
    *,
    inherit: bool = False,
) -> list[Part]:
    """
    ``wanted``, with the marks of ``origin`` that the form cannot say, and with all of them where it says what it did.

    With ``inherit`` it is plain text, and what is new is formatted as what is in front of it.
    """
    signs = _Signs(is_plain=inherit)
    old, read, new = signs.characters(origin), signs.characters(seen), signs.characters(wanted)
    if _line(old) != _line(read):
        read = old
    found: list[Part] = []
    at = to = 0
    edits = [(start, end, len(insert)) for start, end, insert in edits_between(_line(read), _line(new))]
    for start, end, length in [*edits, (len(read), len(read), 0)]:
        found += [_kept(old[at + offset], read[at + offset], new[to + offset], marks) for offset in range(start - at)]
        to += start - at
        before = old[start] if start < end else old[start - 1] if start else None
        found += [_added(new[to + offset], before if inherit else None) for offset in range(length)]
        to += length
        at = end
    return joined(found)


class _Signs:
    """One character for each thing that is no text."""

    def __init__(self, *, is_plain: bool) -> None:
        self._signs: dict[bytes, str] = {}
        self._is_plain = is_plain

    def characters(self, parts: Sequence[Part]) -> list[tuple[str, Part]]:
        found: list[tuple[str, Part]] = []
        for part in parts:
            found += [(character, part) for character in part.text] if part.type == TEXT else [(self._sign(part), part)]
        return found

    def _sign(self, part: Part) -> str:
        if self._is_plain and part.type != BREAK:
            return ATOM
        # A comment of Markdown has a hash in place of what the node says.
        said = [part.type, part.unknown, part.attrs if not part.unknown else None]
        sign = self._signs.setdefault(fingerprint(said), chr(0x100000 + len(self._signs)))
        if len(self._signs) > 0xFFFD:
            raise InvalidInput("there is too much embedded in the text")
        return sign


_Character = tuple[str, Part]


def _line(characters: Sequence[_Character]) -> str:
    return "".join(character for character, _ in characters)


def _kept(old: _Character, read: _Character, new: _Character, marks: frozenset[str] | None) -> Part:
    origin, wanted = old[1], new[1]
    if origin.raw is None and origin.type == TEXT:
        return inline_text(new[0], wanted.marks)
    if _said(read[1].marks, marks) == _said(wanted.marks, marks):
        return _with(origin, old[0], origin.raw, [])
    pairs = list(zip(origin.marks, origin.raw or [], strict=False))
    raw_of = {fingerprint(mark): raw for mark, raw in pairs}
    unsaid = [raw for mark, raw in pairs if marks is not None and mark["type"] not in marks]
    new_marks = [mark for mark in wanted.marks if fingerprint(mark) not in raw_of]
    kept = [*unsaid, *(raw_of[fingerprint(mark)] for mark in wanted.marks if fingerprint(mark) in raw_of)]
    return _with(origin, old[0], kept, new_marks)


def _with(origin: Part, character: str, raw: list[Mark] | None, fresh: list[Mark]) -> Part:
    """``origin`` with these marks."""
    if origin.type == TEXT:
        return Part(TEXT, text=character, raw=raw, fresh=fresh, inline=True)
    return Part(
        origin.type, origin.attrs, raw=raw, fresh=fresh, unknown=origin.unknown, inline=True, source=origin.source
    )


def _added(new: _Character, before: _Character | None) -> Part:
    character, part = new
    if part.type != TEXT:
        return part
    if before is not None:
        return Part(TEXT, text=character, raw=before[1].raw or [], inline=True)
    return inline_text(character, part.marks)


def _said(marks: Sequence[Mark], sayable: frozenset[str] | None) -> list[bytes]:
    return sorted(fingerprint(mark) for mark in marks if sayable is None or mark["type"] in sayable)
