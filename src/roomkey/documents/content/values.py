"""
Shared types as values: what they say, for people and for comparing them.

What the native library reads is in no particular order where it comes to objects and attributes; here it is.
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from html import escape
from math import isfinite
from typing import Any, Final, cast

import msgspec
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from roomkey.errors import InvalidInput
from roomkey.wire.lib0 import MAX_NUMBER

MAX_DEPTH: Final = 100
"""Maximum nesting of types and values that are read."""

MAX_WALKED_ITEMS: Final = 5_000
"""Longer arrays are read by the native library at once: it is quick, but has lists of numbers for bytes."""

SharedType = Text | Array[Any] | Map[Any] | XmlFragment | XmlElement | XmlText


def plain(value: Any, depth: int = 0) -> Any:
    """
    What ``value`` says, as JSON: XML as its source, bytes in base64, a subdocument as its id.

    Raises:
        InvalidInput: If it nests deeper than ``MAX_DEPTH``.
    """
    _check_depth(depth)
    match value:
        case Text():
            return str(value)
        case XmlFragment() | XmlElement() | XmlText():
            return _source(value, depth)
        case Array():
            return _items(cast("Array[Any]", value), depth)
        case Map() | dict():
            return {key: plain(item, depth + 1) for key, item in entries(cast("Map[Any]", value))}
        case list():
            return [plain(item, depth + 1) for item in cast("list[Any]", value)]
        case _:
            return _scalar(value)


def _items(array: Array[Any], depth: int) -> list[Any]:
    if len(array) <= MAX_WALKED_ITEMS:
        return [plain(item, depth + 1) for item in array]
    try:
        return msgspec.json.decode(str(array))
    except (msgspec.DecodeError, RecursionError):
        raise InvalidInput("the document nests too deep") from None


def entries(map: Map[Any] | dict[str, Any]) -> list[tuple[str, Any]]:
    """Keys and values, in the order of the keys."""
    return sorted(cast("Iterator[tuple[str, Any]]", map.items()), key=_key)


def attributes(node: XmlElement | XmlText) -> list[tuple[str, Any]]:
    """Names and values, in the order of the names."""
    return sorted(cast("Iterable[tuple[str, Any]]", node.attributes), key=_key)


def _key(entry: tuple[str, Any]) -> str:
    return entry[0]


def _scalar(value: Any) -> Any:
    if isinstance(value, float):
        # JavaScript has one kind of number, of which JSON has no infinity.
        if not isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) <= MAX_NUMBER else value
    if isinstance(value, bytes | bytearray):
        return b64encode(value).decode()
    if isinstance(value, Doc):
        return value.guid
    return value


def _source(node: Any, depth: int) -> str:
    """XML as a text: what was typed is escaped, and each format is an element around what has it."""
    _check_depth(depth)
    if isinstance(node, XmlText):
        return "".join(_formatted(content, format or {}, depth) for content, format in node.diff())
    inside = "".join(_source(child, depth + 1) for child in node.children)
    return _element(node.tag or "", attributes(node), inside) if isinstance(node, XmlElement) else inside


def _formatted(content: Any, format: dict[str, Any], depth: int) -> str:
    is_node = isinstance(content, XmlElement | XmlText | XmlFragment)
    inside = _source(content, depth + 1) if is_node else escape(_as_text(plain(content, depth + 1)), quote=False)
    for name, value in sorted(format.items(), reverse=True):
        details = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
        inside = _element(name, sorted(details.items()), inside)
    return inside


def _element(tag: str, attributes: Iterable[tuple[str, Any]], inside: str) -> str:
    named = "".join(f' {name}="{escape(_as_text(plain(value)))}"' for name, value in attributes)
    return f"<{tag}{named}>{inside}</{tag}>"


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidInput(f"the document nests deeper than {MAX_DEPTH}")


def portrait(value: Any, depth: int = 0) -> Any:
    """Like ``plain``, with everything that JSON has no place for: which types, and how texts are formatted."""
    _check_depth(depth)
    match value:
        case Text() | XmlText():
            return {type(value).__name__: _runs(value, depth + 1), "attributes": _attributes(value)}
        case XmlElement() | XmlFragment():
            children = [portrait(child, depth + 1) for child in value.children]
            return {_tag(value): children, "attributes": _attributes(value)}
        case Array():
            return {"Array": [portrait(item, depth + 1) for item in cast("Array[Any]", value)]}
        case Map():
            return {"Map": {key: portrait(item, depth + 1) for key, item in entries(cast("Map[Any]", value))}}
        case _:
            return plain(value, depth)


def _runs(text: Text | XmlText, depth: int) -> list[tuple[Any, Any]]:
    """What is in a text with its format; neighbours of one format are one run, however they came to be."""
    runs: list[tuple[Any, Any]] = []
    for content, attributes in text.diff():
        said, format = portrait(content, depth), plain(attributes or {})
        if runs and runs[-1][1] == format and isinstance(said, str) and isinstance(runs[-1][0], str):
            said = runs.pop()[0] + said
        runs.append((said, format))
    return runs


def _tag(value: Any) -> str:
    return f"<{value.tag}>" if isinstance(value, XmlElement) else type(value).__name__


def _attributes(value: Any) -> dict[str, Any]:
    if not isinstance(value, XmlElement | XmlText):
        return {}
    return {key: plain(attribute) for key, attribute in attributes(value)}
