"""
Marks of ProseMirror as formats of a shared text.

A mark is a format whose name is its type and whose value are its attributes. Marks that may lie over others of their
type, such as comments, have a name each: y-prosemirror adds ``--`` and eight characters, made of their attributes. A
tree has the type without them.
"""

import re
import struct
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, cast

from roomkey.documents.content.json_patch import fingerprint
from roomkey.wire import lib0

Formats = Mapping[str, Any]
"""Of a run of text: values by name; ``null`` is none."""

VALUE: Final = "yjs:value"
"""The attribute that has the value of a format, where that is not an object as marks have it."""

_HASHED: Final = re.compile(r"(.+)--[A-Za-z0-9+/=]{8}", re.DOTALL)
_HASH_BYTES: Final = 6


class MarkNames:
    """How the formats of one document are called: marks of one type may have names of their own each."""

    __slots__ = ("_hashed", "_names")

    def __init__(self) -> None:
        self._names: dict[tuple[str, bytes], str] = {}
        self._hashed: set[str] = set()

    def mark(self, name: str, value: Any) -> dict[str, Any]:
        """The mark that a format is, whose name is noted. ``value`` is as in JSON."""
        attrs = cast("dict[str, Any]", value) if isinstance(value, dict) else {VALUE: value}
        found = _HASHED.fullmatch(name)
        type = name
        if found is not None:
            type = found[1]
            self._hashed.add(type)
            self._names[type, fingerprint(attrs)] = name
        return {"type": type, "attrs": attrs} if attrs else {"type": type}

    def formats(self, marks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What ``marks`` are as formats, called as others of this document are."""
        types = [mark["type"] for mark in marks]
        formats: dict[str, Any] = {}
        for mark, type in zip(marks, types, strict=True):
            attrs = cast("dict[str, Any]", mark.get("attrs") or {})
            name = type
            if type in self._hashed or types.count(type) > 1:
                name = self._names.get((type, fingerprint(attrs))) or hashed_name(type, attrs)
            formats[name] = attrs[VALUE] if attrs.keys() == {VALUE} else attrs
        return formats


def hashed_name(type: str, attrs: Mapping[str, Any]) -> str:
    """The name that y-prosemirror 1.3 gives to a mark that may lie over others of its type."""
    said = {"type": type, "attrs": attrs} if attrs else {"type": type}
    digest = sha256(_encoded(said)).digest()
    folded = bytearray(digest[:_HASH_BYTES])
    for at in range(_HASH_BYTES, len(digest)):
        folded[at % _HASH_BYTES] ^= digest[at]
    return f"{type}--{b64encode(folded).decode()}"


def _encoded(value: Any) -> bytes:
    """A JSON value as ``encodeAny`` of lib0 writes it."""
    match value:
        case None | bool():
            return _CONSTANTS[value]
        case str():
            return b"\x77" + lib0.text(value)
        case int() | float():
            return _number(value)
        case list():
            items = cast("list[Any]", value)
            return b"\x75" + lib0.number(len(items)) + b"".join(map(_encoded, items))
        case _:
            entries = cast("Mapping[str, Any]", value).items()
            return (
                b"\x76" + lib0.number(len(entries)) + b"".join(lib0.text(key) + _encoded(item) for key, item in entries)
            )


_CONSTANTS: Final[Mapping[Any, bytes]] = {None: b"\x7e", True: b"\x78", False: b"\x79"}
_MAX_INTEGER: Final = 2**31 - 1


def _number(value: float) -> bytes:
    if float(value).is_integer() and abs(value) <= _MAX_INTEGER:
        return b"\x7d" + _signed(int(value))
    try:
        short = struct.pack(">f", value)
    except OverflowError:
        return b"\x7b" + struct.pack(">d", value)
    return b"\x7c" + short if struct.unpack(">f", short)[0] == value else b"\x7b" + struct.pack(">d", value)


def _signed(value: int) -> bytes:
    """A whole number as ``writeVarInt`` writes it: six bits and a sign first, then seven bits a byte."""
    left = abs(value)
    encoded = bytearray([(0x80 if left > 0x3F else 0) | (0x40 if value < 0 else 0) | (left & 0x3F)])
    left >>= 6
    while left:
        encoded.append((0x80 if left > 0x7F else 0) | (left & 0x7F))
        left >>= 7
    return bytes(encoded)
