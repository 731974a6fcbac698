"""
Reconcile a shared type with another value, by as few edits as possible.

The target is JSON, or a shared type of another document with its nested types, formatting and embedded things.
Parts that are equal already are left alone, so that no concurrent edit of them is lost; a nested type that differs
only in parts is edited, not replaced.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, cast

from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from roomkey.documents.content.json_patch import fingerprint, spans
from roomkey.documents.content.text_edits import edits_between, replace_text
from roomkey.documents.content.values import SharedType, attributes, entries, plain, portrait
from roomkey.errors import InvalidInput

MAX_ITEMS: Final = 20_000
MAX_NEW_ITEMS: Final = 5_000
"""Bounds of one changed array: the native library walks from its start for each item, so these take about a second."""

_SHARED: Final = (Text, Array, Map, XmlFragment, XmlElement, XmlText)


def reconcile(shared: SharedType, target: Any) -> None:
    """
    Make ``shared`` say what ``target`` says, which ``fits`` it.

    Raises:
        InvalidInput: If that cannot be done.
    """
    if not fits(shared, target):
        raise InvalidInput("a shared type cannot become one of another kind")
    match shared:
        case Text() | XmlText():
            if isinstance(target, str):
                replace_text(shared, target)
            else:
                _liken_text(shared, target)
        case Array():
            _liken_array(shared, target)
        case Map():
            _liken_map(shared, target)
        case _:
            _liken_children(shared, target)
    if isinstance(shared, XmlElement | XmlText) and not isinstance(target, str):
        _liken_attributes(shared, target)


def fits(shared: Any, target: Any) -> bool:
    """Whether edits can make ``shared`` say what ``target`` says."""
    match shared:
        case XmlElement():
            return isinstance(target, XmlElement) and shared.tag == target.tag
        case Text():
            return isinstance(target, str | Text)
        case Array():
            return isinstance(target, list | Array)
        case Map():
            return isinstance(target, dict | Map)
        case XmlFragment() | XmlText():
            return type(shared) is type(target)
        case _:
            return False


def _mark(value: Any, other: Any) -> bytes:
    """What tells ``value`` from others, seen as something of the kind of ``other``."""
    return fingerprint(portrait(value) if isinstance(other, _SHARED) else plain(value))


def _liken_map(map: Map[Any], target: Any) -> None:
    wanted = dict(entries(cast("Map[Any]", target))) if isinstance(target, Map) else cast("dict[str, Any]", target)
    present = dict(entries(map))
    for key in present.keys() - wanted.keys():
        del map[key]
    for key, value in wanted.items():
        if key in present:
            now = present[key]
            if _mark(now, value) == _mark(value, value):
                continue
            if fits(now, value):
                reconcile(now, value)
                continue
        new = _blank(value)
        map[key] = new
        _fill(new, value)


def _liken_array(array: Array[Any], target: Any) -> None:
    if len(array) > MAX_ITEMS or len(target) > len(array) + MAX_NEW_ITEMS:
        raise InvalidInput(f"an array has at most {MAX_ITEMS} items, {MAX_NEW_ITEMS} of them new, if it is changed so")
    present = list(cast("Iterator[Any]", iter(array)))
    _liken_items(array, present, list(target), partial(_mark, other=target))


def _liken_children(node: XmlFragment | XmlElement, target: XmlFragment | XmlElement) -> None:
    _liken_items(node.children, list(node.children), list(target.children), partial(_mark, other=target))


def _liken_items(holder: Any, present: Sequence[Any], wanted: Sequence[Any], mark: Callable[[Any], bytes]) -> None:
    """``holder`` has the items ``present``; items with the same mark are alike."""
    # From the end, so that the places before stay what they are.
    for span in reversed(list(spans(list(map(mark, present)), list(map(mark, wanted))))):
        if span.end > span.start + span.common:
            del holder[span.start + span.common : span.end]
        for offset in range(span.common, span.new_end - span.new_start):
            _put(holder, span.start + offset, wanted[span.new_start + offset])
        for offset in range(span.common):
            index, now, value = span.start + offset, present[span.start + offset], wanted[span.new_start + offset]
            if fits(now, value):
                reconcile(now, value)
            else:
                del holder[index]
                _put(holder, index, value)


def _put(holder: Any, index: int, value: Any) -> None:
    new = _blank(value)
    holder.insert(index, new)
    _fill(new, value)


def _liken_attributes(node: XmlElement | XmlText, target: XmlElement | XmlText) -> None:
    present, wanted = dict(attributes(node)), dict(attributes(target))
    for key in present.keys() - wanted.keys():
        del node.attributes[key]
    for key, value in wanted.items():
        if key not in present or fingerprint(plain(present[key])) != fingerprint(plain(value)):
            node.attributes[key] = value


def _blank(value: Any) -> Any:
    """An empty type like ``value``, which is filled once it has its place; what is no type is itself."""
    match value:
        case XmlElement():
            return XmlElement(value.tag or "")
        case Text() | Array() | Map() | XmlFragment() | XmlText():
            return cast("type[Any]", type(cast("Any", value)))()
        case Doc():
            return cast("Any", Doc(guid=value.guid))
        case _:
            return _writable(value)


def _writable(value: Any) -> Any:
    """A value as the native library takes it back."""
    match value:
        case list():
            return [_writable(item) for item in cast("list[Any]", value)]
        case dict():
            return {key: _writable(item) for key, item in cast("dict[str, Any]", value).items()}
        case bytearray():
            return bytes(value)
        case _:
            return value


def _fill(new: Any, value: Any) -> None:
    if isinstance(value, _SHARED):
        reconcile(new, value)


# --- formatted texts ----------------------------------------------------------------------------------


class _Signs:
    """One character for each embedded thing, so that a text with them can be compared as a text."""

    def __init__(self, *texts: Text | XmlText) -> None:
        said = set("".join(content for text in texts for content, _ in text.diff() if isinstance(content, str)))
        # The private use area of the last plane (Unicode 15, section 23.5), as far as it is not used.
        self._free = (sign for sign in map(chr, range(0x100000, 0x10FFFE)) if sign not in said)
        self._signs: dict[bytes, str] = {}
        self.embedded: dict[str, Any] = {}

    def line(self, text: Text | XmlText) -> str:
        """The text with signs in it."""
        return "".join(content if isinstance(content, str) else self._sign(content) for content, _ in text.diff())

    def _sign(self, content: Any) -> str:
        mark = fingerprint(portrait(content))
        if mark not in self._signs:
            sign = next(self._free, None)
            if sign is None:
                raise InvalidInput("there is too much embedded in the text")
            self._signs[mark] = sign
        self.embedded[self._signs[mark]] = content
        return self._signs[mark]

    def parts(self, line: str) -> list[str]:
        """Texts and signs, each by itself."""
        parts: list[str] = []
        for character in line:
            if parts and character not in self.embedded and parts[-1] not in self.embedded:
                parts[-1] += character
            else:
                parts.append(character)
        return parts

    def length(self, line: str) -> int:
        """How long a line is as the native library counts."""
        return sum(1 if part in self.embedded else len(part.encode()) for part in self.parts(line))


def _liken_text(text: Text | XmlText, target: Text | XmlText) -> None:
    signs = _Signs(text, target)
    old, new = signs.line(text), signs.line(target)
    for start, end, insert in reversed(list(edits_between(old, new))):
        place = signs.length(old[:start])
        if start < end:
            del text[place : place + signs.length(old[start:end])]
        for part in reversed(signs.parts(insert)):
            if part in signs.embedded:
                blank = _blank(signs.embedded[part])
                text.insert_embed(place, blank)
                _fill(blank, signs.embedded[part])
            else:
                text.insert(place, part)
    _liken_formats(text, target)


def _liken_formats(text: Text | XmlText, target: Text | XmlText) -> None:
    place = 0
    for length, present, wanted in _in_step(_formats(text), _formats(target)):
        changed = {
            key: wanted.get(key)
            for key in present.keys() | wanted.keys()
            if fingerprint(plain(present.get(key))) != fingerprint(plain(wanted.get(key)))
        }
        if changed:
            text.format(place, place + length, changed)
        place += length


_Format = tuple[int, Mapping[str, Any]]


def _formats(text: Text | XmlText) -> list[_Format]:
    """How many bytes in a row have which format."""
    return [
        (len(content.encode()) if isinstance(content, str) else 1, attributes or {})
        for content, attributes in text.diff()
    ]


def _in_step(one: list[_Format], other: list[_Format]) -> Iterator[tuple[int, Mapping[str, Any], Mapping[str, Any]]]:
    """Stretches of two texts of one length in which neither format changes."""
    one, other = one[::-1], other[::-1]
    while one and other:
        (length, format), (other_length, other_format) = one.pop(), other.pop()
        common = min(length, other_length)
        if length > common:
            one.append((length - common, format))
        if other_length > common:
            other.append((other_length - common, other_format))
        yield common, format, other_format
