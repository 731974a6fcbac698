"""
A root of rich text as a tree in JSON, in the form of ProseMirror: ``{"type", "attrs", "content", "text", "marks"}``.

An element is a node, its attributes are ``attrs``; a run of a text is a node ``text``, its formats are ``marks``.
This is how y-prosemirror writes the documents of Tiptap, BlockNote and others. What ProseMirror has no form for
becomes a node whose type begins with ``yjs:``, so that nothing is lost when a tree is read and written back:

- ``yjs:text``: a shared text with attributes, or with types in it: all of what Lexical writes
- ``yjs:embed``, ``yjs:map``, ``yjs:array``, ``yjs:string``: what is embedded in a text, as ``attrs.value``
- ``yjs:opaque``: what cannot be said in JSON; it can be kept or removed, but not made anew

The native objects are read without their wrappers, which take longer than they do.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum, auto
from math import isfinite
from typing import Any, Final, cast

from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText
from pycrdt import _pycrdt as native  # pyright: ignore[reportPrivateUsage]

from roomkey.documents.content.json_patch import fingerprint
from roomkey.documents.content.rich.marks import Formats, MarkNames
from roomkey.documents.content.values import MAX_DEPTH
from roomkey.errors import InvalidInput
from roomkey.wire.lib0 import MAX_NUMBER

Node = dict[str, Any]

DOC: Final = "doc"
TEXT: Final = "text"
YJS_TEXT: Final = "yjs:text"
EMBED: Final = "yjs:embed"
MAP: Final = "yjs:map"
ARRAY: Final = "yjs:array"
STRING: Final = "yjs:string"
OPAQUE: Final = "yjs:opaque"
BYTES: Final = "yjs:bytes"
"""The key of an object that stands for bytes, with them in base64."""

INLINE_TYPES: Final = frozenset({TEXT, EMBED, MAP, ARRAY, STRING})
"""Nodes that are part of a shared text, and of none of their own."""


class Root:
    """
    A root of ``doc`` in a transaction, for reading and for ``edits``; the transaction is that of the caller.

    ``doc`` is a copy: a root becomes of the kind that it is first read as.
    """

    __slots__ = ("doc", "name", "native", "reader", "transaction")

    def __init__(self, doc: Doc[Any], transaction: Any, name: str) -> None:
        self.doc = doc
        self.name = name
        self.transaction = transaction._txn  # noqa: SLF001
        self.native = _native(doc).get_or_insert_xml_fragment(self.transaction, name)
        self.reader = Reader(self.transaction)

    def read(self) -> Node:
        """All of it. Raises ``InvalidInput`` if it nests too deep."""
        return {"type": DOC, "content": self.reader.children(self.native, 1)}


def root_names(doc: Doc[Any]) -> list[str]:
    """The roots of ``doc``, in order."""
    with doc.transaction() as transaction:
        return sorted(_native(doc).roots(cast("Any", transaction)._txn))  # noqa: SLF001


class Probe(Enum):
    """What a root is, as far as what is in it tells."""

    RICH = auto()
    TEXT = auto()
    OTHER = auto()
    EMPTY = auto()


def probe(doc: Doc[Any], name: str) -> Probe:
    """
    What the root ``name`` of ``doc`` is.

    ``doc`` is a copy: a root that is empty becomes of a kind by being looked at.
    """
    with doc.transaction() as transaction:
        txn = cast("Any", transaction)._txn  # noqa: SLF001
        if name not in _native(doc).roots(txn):
            return Probe.EMPTY
        runs: Sequence[tuple[Any, Any]] = _native(doc).get_or_insert_text(txn, name).diff(txn)
        if any(type(value) is str for value, _ in runs):
            return Probe.TEXT  # which may have elements in it; but elements have no strings beside them
        if runs:
            return Probe.RICH if all(type(value) in _XML for value, _ in runs) else Probe.OTHER
        return Probe.OTHER if _native(doc).get_or_insert_map(txn, name).len(txn) else Probe.EMPTY


def _native(doc: Doc[Any]) -> Any:
    return doc._doc  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


class Reader:
    """Reads nodes in the native transaction ``transaction``. ``names`` are those of the formats that it has met."""

    __slots__ = ("_transaction", "names")

    def __init__(self, transaction: Any) -> None:
        self._transaction = transaction
        self.names = MarkNames()

    def children(self, holder: Any, depth: int) -> list[Node]:
        """What is in a fragment or an element, as nodes."""
        nodes: list[Node] = []
        for child in holder.children(self._transaction):
            if type(child) is native.XmlText:
                self._add_text(nodes, child, depth)
            else:
                nodes.append(self.node(child, depth))
        return nodes

    def child(self, child: Any) -> Node:
        """A child of a root as one node; a text that stands there by itself as a ``yjs:text``."""
        return self.whole_text(child, 1) if type(child) is native.XmlText else self.node(child, 1)

    def node(self, element: Any, depth: int) -> Node:
        """An element with everything in it."""
        if depth > MAX_DEPTH:
            raise InvalidInput(f"the document nests deeper than {MAX_DEPTH}")
        if type(element) is not _ELEMENT:
            return {"type": OPAQUE, "attrs": {"kind": type(element).__name__}}
        node: Node = {"type": element.tag()}
        attributes = element.attributes(self._transaction)
        if attributes:
            node["attrs"] = {name: self.value(value) for name, value in sorted(attributes, key=_name)}
        content = self.children(element, depth + 1)
        if content:
            node["content"] = content
        return node

    def text(self, text: Any, depth: int) -> list[Node]:
        """A shared text: its runs, or if it is more than these, itself."""
        nodes: list[Node] = []
        self._add_text(nodes, text, depth)
        return nodes

    def whole_text(self, text: Any, depth: int) -> Node:
        """A shared text as a ``yjs:text``."""
        if depth > MAX_DEPTH:
            raise InvalidInput(f"the document nests deeper than {MAX_DEPTH}")
        node: Node = {"type": YJS_TEXT}
        attributes = text.attributes(self._transaction)
        if attributes:
            node["attrs"] = {name: self.value(value) for name, value in sorted(attributes, key=_name)}
        content: list[Node] = []
        for value, formats in text.diff(self._transaction):
            self._append(content, self.run(value, depth + 1), formats)
        if content:
            node["content"] = content
        return node

    def _add_text(self, nodes: list[Node], text: Any, depth: int) -> None:
        runs = text.diff(self._transaction)
        if text.attributes(self._transaction) or any(_is_node(value) for value, _ in runs):
            nodes.append(self.whole_text(text, depth))
            return
        for value, formats in runs:
            self._append(nodes, value if type(value) is str else self.run(value, depth), formats)

    def run(self, value: Any, depth: int) -> Any:
        """What stands in a text: a string as it is, anything else as a node."""
        kind = cast("Any", type(value))
        if kind is str:
            return value
        if kind is native.XmlText:
            return self.whole_text(value, depth)
        if kind is native.XmlElement:
            return self.node(value, depth)
        if kind in _SHARED:
            return self._shared(value)
        return {"type": EMBED, "attrs": {"value": self.value(value)}}

    def _append(self, nodes: list[Node], value: Any, formats: Formats | None) -> None:
        """Put a run behind the others; neighbours that are formatted alike are one."""
        marks = self.marks(formats) if formats else None
        if type(value) is not str:
            nodes.append({**value, "marks": marks} if marks else value)
            return
        last = nodes[-1] if nodes else None
        if last is not None and last["type"] == TEXT and last.get("marks") == marks:
            last["text"] += value
        elif marks:
            nodes.append({"type": TEXT, "text": value, "marks": marks})
        else:
            nodes.append({"type": TEXT, "text": value})

    def marks(self, formats: Formats) -> list[Node]:
        """The marks that formats are."""
        named = sorted(((name, value) for name, value in formats.items() if value is not None), key=_name)
        return [self.names.mark(name, self.value(value)) for name, value in named]

    def _shared(self, value: Any) -> Node:
        said = self.value(value)
        for kind in (MAP, ARRAY, STRING):
            if isinstance(said, dict) and kind in said:
                return {"type": kind, "attrs": {"value": said[kind]}}
        return {"type": OPAQUE, "attrs": {"kind": type(value).__name__}}

    def value(self, value: Any, depth: int = 0) -> Any:  # noqa: PLR0911  # one for each kind
        """A value as JSON; shared types and bytes are objects with one key."""
        kind = cast("Any", type(value))
        if kind is str or kind is bool or value is None:
            return value
        if kind is float:
            if not isfinite(value):
                return None
            return int(value) if value.is_integer() and abs(value) <= MAX_NUMBER else value
        if depth > MAX_DEPTH:
            raise InvalidInput(f"the document nests deeper than {MAX_DEPTH}")
        if kind is dict:
            return {name: self.value(item, depth + 1) for name, item in sorted(value.items(), key=_name)}
        if kind is list:
            return [self.value(item, depth + 1) for item in value]
        if kind in (bytes, bytearray):
            return {BYTES: b64encode(value).decode()}
        return self._shared_value(value, depth) if kind in _SHARED else value

    def _shared_value(self, value: Any, depth: int) -> Any:
        match value:
            case native.Map():
                keys: Sequence[str] = list(cast("Any", value).keys(self._transaction))
                entries = [(key, value.get(self._transaction, key)) for key in keys]
                said = {key: self.value(item, depth + 1) for key, item in sorted(entries, key=_name)}
                return {MAP: said}
            case native.Array():
                return {
                    ARRAY: [
                        self.value(value.get(self._transaction, i), depth + 1)
                        for i in range(value.len(self._transaction))
                    ]
                }
            case native.Text():
                runs = value.diff(self._transaction)
                return {
                    STRING: [
                        [self.value(item, depth + 1), self.value(formats or {}, depth + 1)] for item, formats in runs
                    ]
                }
            case native.XmlText():
                return self.whole_text(value, depth + 1)
            case native.XmlElement():
                return self.node(value, depth + 1)
            case _:
                return {OPAQUE: type(value).__name__}


_ELEMENT: Final[Any] = native.XmlElement
_XML: Final = frozenset({native.XmlElement, native.XmlText, native.XmlFragment})
_SHARED: Final = _XML | {native.Map, native.Array, native.Text, native.Doc}
WRAPPERS: Final[Mapping[Any, Any]] = {
    native.XmlElement: XmlElement,
    native.XmlText: XmlText,
    native.XmlFragment: XmlFragment,
    native.Map: Map,
    native.Array: Array,
    native.Text: Text,
}


def _is_node(value: Any) -> bool:
    """Whether what stands in a text makes it more than a text of ProseMirror."""
    return type(value) is not str and type(value) in _SHARED


def _name(entry: tuple[str, Any]) -> str:
    return entry[0]


# --- trees --------------------------------------------------------------------------------------------


def children_of(node: Node) -> list[Node]:
    """What is in a node."""
    return cast("list[Node]", node.get("content") or [])


def attrs_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a node or a mark; those that are ``null`` say nothing."""
    attrs = cast("dict[str, Any]", node.get("attrs") or {})
    return {name: value for name, value in attrs.items() if value is not None}


def text_of(node: Node) -> str:
    """All that was typed in a node, without anything between its parts."""
    if node["type"] == TEXT:
        return node["text"]
    return "".join(text_of(child) for child in children_of(node))


def nodes_in(node: Node) -> Iterator[Node]:
    """A node and all in it."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        yield one
        waiting += reversed(children_of(one))


def signature(node: Node) -> bytes:
    """The same bytes for nodes that say the same, however they say it."""
    return fingerprint(normal(node))


def normal(node: Node) -> Node:
    """A node in its one form: nothing that is empty, marks in order, neighbouring runs of the same marks as one."""
    said: Node = {"type": node["type"]}
    attrs = attrs_of(node)
    if attrs:
        said["attrs"] = attrs
    if node["type"] == TEXT:
        said["text"] = node["text"]
    if node.get("marks"):
        said["marks"] = normal_marks(node["marks"])
    content = normal_content(children_of(node))
    if content:
        said["content"] = content
    return said


def normal_content(nodes: Sequence[Node]) -> list[Node]:
    """Nodes beside one another, each in its one form."""
    content: list[Node] = []
    for child in nodes:
        if child["type"] == TEXT and not child["text"]:
            continue
        said = normal(child)
        last = content[-1] if content else None
        if last is not None and said["type"] == last["type"] == TEXT and said.get("marks") == last.get("marks"):
            last["text"] += said["text"]
        else:
            content.append(said)
    return content


def normal_marks(marks: Sequence[Mapping[str, Any]]) -> list[Node]:
    """Marks in order, each once. Their attributes stay as they are: they are stored as one value."""
    said = [{"type": mark["type"], **({"attrs": mark["attrs"]} if mark.get("attrs") else {})} for mark in marks]
    unique = {fingerprint(mark): mark for mark in said}
    return [unique[key] for key in sorted(unique, key=lambda key: (unique[key]["type"], key))]
