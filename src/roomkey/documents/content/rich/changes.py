"""
Make a root say what a tree says, by as few edits as possible.

The trees are compared, not the documents. What is equal is left alone; an element that is of the same type is edited;
in texts only the characters and formats that differ are touched. So cursors stay, and concurrent edits are kept.
"""

from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from msgspec import Struct
from pycrdt import Array, Map, Text, XmlElement, XmlText
from pycrdt import _pycrdt as native  # pyright: ignore[reportPrivateUsage]

from roomkey.documents.content.json_patch import Span, fingerprint, spans
from roomkey.documents.content.rich.pairing import paired, similarity
from roomkey.documents.content.rich.tree import (
    ARRAY,
    INLINE_TYPES,
    MAP,
    OPAQUE,
    STRING,
    TEXT,
    YJS_TEXT,
    Node,
    Root,
    attrs_of,
    children_of,
    normal_content,
    text_of,
)
from roomkey.documents.content.text_edits import edits_between
from roomkey.errors import InvalidInput


def write(root: Root, wanted: Sequence[Node]) -> None:
    """
    Make ``root`` say ``wanted``, which was checked.

    Raises:
        InvalidInput: If something in it cannot be made anew. The document may be changed by half then.
    """
    Writer(root).liken_children(root.native, wanted)


class _Item(Struct):
    """What is edited as one: an element, a shared text with more than runs, or runs that stand beside one another."""

    type: str
    nodes: list[Node]
    texts: list[Any]
    index: int = 0
    length: int = 1

    @property
    def node(self) -> Node:
        return self.nodes[0]


class Writer:
    """Edits in one transaction of a root."""

    __slots__ = ("_doc", "_names", "_reader", "_transaction")

    def __init__(self, root: Root) -> None:
        self._doc = root.doc
        self._transaction = root.transaction
        self._reader = root.reader
        self._names = root.reader.names

    # --- nodes beside one another ---------------------------------------------------------------------

    def liken_children(self, holder: Any, wanted: Sequence[Node]) -> None:
        """Make a fragment or an element have these nodes in it."""
        present = self._items(holder)
        new = _grouped(normal_content(wanted))
        marks, new_marks = ([fingerprint(normal_content(item.nodes)) for item in items] for items in (present, new))
        # From the end, so that the places before stay what they are.
        for span in reversed(list(spans(marks, new_marks))):
            behind = holder.len(self._transaction) if span.end == len(present) else present[span.end].index
            self._liken_span(holder, present, new, span, behind=behind)

    def liken_between(self, holder: Any, start: int, end: int, wanted: Sequence[Node]) -> None:
        """Make what is in ``holder`` from one place to another become these nodes. Nothing else is read."""
        children = [holder.get(self._transaction, index) for index in range(start, end)]
        present = self._items_of(children, start)
        new = _grouped(normal_content(wanted))
        self._liken_span(holder, present, new, Span(0, len(present), 0, len(new)), behind=end)

    def _liken_span(
        self, holder: Any, present: Sequence[_Item], new: Sequence[_Item], span: Span, *, behind: int
    ) -> None:
        """Make a span of items become what it is to be; ``behind`` is the place after it."""
        old, wanted = present[span.start : span.end], new[span.new_start : span.new_end]
        pairs = dict(paired(old, wanted, _likeness))
        at, end = behind, len(old)
        for offset in range(len(wanted) - 1, -1, -1):
            partner = pairs.get(offset)
            if partner is None:
                self._insert(holder, at, wanted[offset])
                continue
            for item in reversed(old[partner + 1 : end]):
                holder.remove_range(self._transaction, item.index, item.length)
            if normal_content(old[partner].nodes) != normal_content(wanted[offset].nodes):
                self._liken(holder, old[partner], wanted[offset])
            at, end = old[partner].index, partner
        for item in reversed(old[:end]):
            holder.remove_range(self._transaction, item.index, item.length)

    def _items(self, holder: Any) -> list[_Item]:
        return self._items_of(holder.children(self._transaction), 0)

    def _items_of(self, children: Sequence[Any], start: int) -> list[_Item]:
        items: list[_Item] = []
        for index, child in enumerate(children, start):
            if type(child) is not native.XmlText:
                node = self._reader.node(child, 1)
                items.append(_Item(node["type"], [node], [child], index))
                continue
            nodes = self._reader.text(child, 1)
            if nodes and nodes[0]["type"] == YJS_TEXT:
                items.append(_Item(YJS_TEXT, nodes, [child], index))
            elif items and items[-1].type == TEXT:
                items[-1] = _Item(
                    TEXT, items[-1].nodes + nodes, [*items[-1].texts, child], items[-1].index, items[-1].length + 1
                )
            else:
                items.append(_Item(TEXT, nodes, [child], index))
        return items

    def _liken(self, holder: Any, item: _Item, wanted: _Item) -> None:
        if item.type == TEXT:
            for spare in range(item.length - 1, 0, -1):
                holder.remove_range(self._transaction, item.index + spare, 1)
            self._liken_runs(item.texts[0], wanted.nodes)
        elif item.type == YJS_TEXT:
            self._liken_text(item.texts[0], wanted.node)
        else:
            self._liken_element(item.texts[0], wanted.node)

    def _liken_element(self, element: Any, node: Node) -> None:
        self._liken_attrs(element, node)
        self.liken_children(element, children_of(node))

    def _liken_text(self, text: Any, node: Node) -> None:
        self._liken_attrs(text, node)
        self._liken_runs(text, normal_content(children_of(node)))

    def _liken_attrs(self, holder: Any, node: Node) -> None:
        present = {name: self._reader.value(value) for name, value in holder.attributes(self._transaction)}
        wanted = attrs_of(node)
        for name in present.keys() - wanted.keys():
            if present[name] is not None:
                holder.remove_attribute(self._transaction, name)
        for name, value in wanted.items():
            if name not in present or fingerprint(present[name]) != fingerprint(value):
                holder.insert_attribute(self._transaction, name, _writable(value))

    # --- what is new ----------------------------------------------------------------------------------

    def _insert(self, holder: Any, index: int, item: _Item) -> None:
        """Put something new into ``holder``, which is filled without looking at what is there."""
        if item.type == OPAQUE:
            raise InvalidInput(f"a node of the type {OPAQUE!r} can be kept or removed, but not made")
        if item.type == TEXT:
            self._type(holder.insert_str(self._transaction, index, ""), item.nodes)
        elif item.type == YJS_TEXT:
            text = holder.insert_str(self._transaction, index, "")
            self._set_attrs(text, item.node)
            self._type(text, children_of(item.node))
        else:
            element = holder.insert_element_prelim(self._transaction, index, item.type)
            self._fill(element, item.node)

    def _fill(self, element: Any, node: Node) -> None:
        self._set_attrs(element, node)
        for index, inner in enumerate(_grouped(children_of(node))):
            self._insert(element, index, inner)

    def _set_attrs(self, holder: Any, node: Node) -> None:
        for name, value in attrs_of(node).items():
            holder.insert_attribute(self._transaction, name, _writable(value))

    def _type(self, text: Any, nodes: Sequence[Node]) -> None:
        at = 0
        for node in nodes:
            formats = {name: _writable(value) for name, value in self._formats(node).items()}
            if node["type"] == TEXT:
                text.insert(self._transaction, at, node["text"], iter(formats.items()))
                at += len(node["text"].encode())
            else:
                self._embed(text, at, node, formats)
                at += 1

    # --- texts ----------------------------------------------------------------------------------------

    def _liken_runs(self, text: Any, wanted: Sequence[Node]) -> None:
        present = self._runs(text)
        new = [_Run(node["text"] if node["type"] == TEXT else node, self._formats(node)) for node in wanted]
        signs = _Signs([*present, *new])
        old_line, new_line = signs.line(present), signs.line(new)
        for start, end, _, new_start, new_end in reversed(list(_edits(old_line, new_line))):
            self._edit(text, signs, (old_line, start, end), _between(new, new_start, new_end))
        self._liken_formats(text, new)

    def _edit(self, text: Any, signs: "_Signs", place: tuple[str, int, int], wanted: "list[_Run]") -> None:
        line, start, end = place
        at = signs.length(line[:start])
        removed = line[start:end]
        embedded = signs.embedded.get(removed) if len(wanted) == 1 else None
        if embedded is not None and self._liken_embedded(embedded, wanted[0].content):
            return
        if removed:
            text.remove_range(self._transaction, at, signs.length(removed))
        for run in reversed(wanted):
            if isinstance(run.content, str):
                text.insert(self._transaction, at, run.content, iter(run.formats.items()))
            else:
                self._embed(text, at, run.content, run.formats)

    def _liken_embedded(self, present: "_Run", wanted: Any) -> bool:
        """Edit a type that is embedded in a text, if it can become what is wanted."""
        if isinstance(wanted, str) or present.native is None or present.content["type"] != wanted["type"]:
            return False
        if type(present.native) is native.XmlText:
            self._liken_text(present.native, wanted)
            return True
        if type(present.native) is native.XmlElement:
            self._liken_element(present.native, wanted)
            return True
        return False

    def _embed(self, text: Any, at: int, node: Node, formats: dict[str, Any]) -> None:
        holder = XmlText(_doc=self._doc, _integrated=text)
        match node["type"]:
            case "yjs:text":
                new: Any = XmlText()
                holder.insert_embed(at, new, formats)
                self._set_attrs(new.integrated, node)
                self._type(new.integrated, children_of(node))
            case "yjs:embed":
                holder.insert_embed(at, _writable(attrs_of(node).get("value")), formats)
            case "yjs:map" | "yjs:array" | "yjs:string" as kind:
                holder.insert_embed(at, _shared({kind: attrs_of(node).get("value")}), formats)
            case "yjs:opaque":
                raise InvalidInput(f"a node of the type {OPAQUE!r} can be kept or removed, but not made")
            case tag:
                new = XmlElement(tag)
                holder.insert_embed(at, new, formats)
                self._fill(new.integrated, node)

    def _runs(self, text: Any) -> "list[_Run]":
        runs: list[_Run] = []
        for value, formats in text.diff(self._transaction):
            said = self._reader.run(value, 1)
            own = cast("dict[str, Any]", formats or {})
            known = {name: self._reader.value(value) for name, value in own.items() if value is not None}
            runs.append(_Run(said, known, value if type(value) in _EDITABLE else None))
        return runs

    def _formats(self, node: Node) -> dict[str, Any]:
        return self._names.formats(cast("list[Node]", node.get("marks") or []))

    def _liken_formats(self, text: Any, wanted: "Sequence[_Run]") -> None:
        at = 0
        changes: list[tuple[int, int, dict[str, Any]]] = []
        for length, present, formats in _in_step(self._runs(text), wanted):
            changed = {
                name: _writable(formats.get(name))
                for name in present.keys() | formats.keys()
                if fingerprint(present.get(name)) != fingerprint(formats.get(name))
            }
            if changed:
                changes.append((at, length, changed))
            at += length
        for at, length, changed in changes:
            text.format(self._transaction, at, length, iter(changed.items()))


_EDITABLE: Final = frozenset({native.XmlText, native.XmlElement})


def _grouped(nodes: Sequence[Node]) -> list[_Item]:
    items: list[_Item] = []
    for node in nodes:
        kind = TEXT if node["type"] in INLINE_TYPES else node["type"]
        if kind == TEXT and items and items[-1].type == TEXT:
            items[-1].nodes.append(node)
        else:
            items.append(_Item(kind, [node], []))
    return items


def _likeness(one: _Item, other: _Item) -> float:
    if one.type != other.type:
        return 0.0
    if one.type == TEXT:
        return 1.0
    id = attrs_of(one.node).get("id")
    if id is not None and id == attrs_of(other.node).get("id"):
        return 3.0
    return similarity(text_of(one.node), text_of(other.node))


# --- runs ---------------------------------------------------------------------------------------------


class _Run(Struct):
    """A part of a text of one format: a string, or a node for what is embedded, and that itself if it can be edited."""

    content: Any
    formats: dict[str, Any]
    native: Any = None

    @property
    def native_length(self) -> int:
        return len(self.content.encode()) if isinstance(self.content, str) else 1


class _Signs:
    """One character for each embedded thing, so that a text with them can be compared as a text."""

    def __init__(self, runs: Sequence[_Run]) -> None:
        said = set("".join(run.content for run in runs if isinstance(run.content, str)))
        # The private use area of the last plane (Unicode 15, section 23.5), as far as it is not used.
        self._free = (sign for sign in map(chr, range(0x100000, 0x10FFFE)) if sign not in said)
        self._signs: dict[bytes, str] = {}
        self.embedded: dict[str, _Run] = {}

    def line(self, runs: Sequence[_Run]) -> str:
        """The text with signs in it."""
        return "".join(run.content if isinstance(run.content, str) else self._sign(run) for run in runs)

    def _sign(self, run: _Run) -> str:
        mark = fingerprint(normal_content([run.content]))
        sign = self._signs.get(mark)
        if sign is None:
            sign = next(self._free, None)
            if sign is None:
                raise InvalidInput("there is too much embedded in the text")
            self._signs[mark] = sign
            self.embedded[sign] = run
        return sign

    def length(self, line: str) -> int:
        """How long a part of a line is as the native library counts."""
        # A sign is four bytes long, and what it stands for counts as one.
        return len(line.encode()) - 3 * sum(map(line.count, self.embedded))


def _edits(old: str, new: str) -> Iterator[tuple[int, int, str, int, int]]:
    """What makes ``new`` of ``old``, with where in ``new`` that is."""
    shift = 0
    for start, end, insert in edits_between(old, new):
        yield start, end, insert, start + shift, start + shift + len(insert)
        shift += len(insert) - (end - start)


def _between(runs: Sequence[_Run], start: int, end: int) -> list[_Run]:
    """The parts of ``runs`` from one place in their line to another."""
    found: list[_Run] = []
    at = 0
    for run in runs:
        length = len(run.content) if isinstance(run.content, str) else 1
        first, last = max(start, at), min(end, at + length)
        if first < last:
            content = run.content[first - at : last - at] if isinstance(run.content, str) else run.content
            found.append(_Run(content, run.formats))
        at += length
    return found


def _in_step(one: Sequence[_Run], other: Sequence[_Run]) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    """Stretches, in bytes, of two texts of one length in which neither format changes."""
    first = [(run.native_length, run.formats) for run in reversed(one)]
    second = [(run.native_length, run.formats) for run in reversed(other)]
    while first and second:
        (length, formats), (other_length, other_formats) = first.pop(), second.pop()
        common = min(length, other_length)
        if length > common:
            first.append((length - common, formats))
        if other_length > common:
            second.append((other_length - common, other_formats))
        yield common, formats, other_formats


# --- values -------------------------------------------------------------------------------------------


def _writable(value: Any) -> Any:
    """A value of a tree as the native library takes it."""
    match value:
        case {"yjs:bytes": str() as encoded, **rest} if not rest:
            return b64decode(encoded)
        case dict():
            entries = cast("Mapping[str, Any]", value)
            if entries.keys() & {MAP, ARRAY, STRING, OPAQUE}:
                raise InvalidInput("a shared type within a value can be kept or removed, but not made")
            return {key: _writable(item) for key, item in entries.items()}
        case list():
            return [_writable(item) for item in cast("list[Any]", value)]
        case _:
            return value


def _shared(value: Any) -> Any:
    """A shared type that says what it does in a tree."""
    match value:
        case {"yjs:map": dict(), **rest} if not rest:
            return Map({key: _shared(item) for key, item in cast("dict[str, Any]", value["yjs:map"]).items()})
        case {"yjs:array": list(), **rest} if not rest:
            return Array([_shared(item) for item in cast("list[Any]", value["yjs:array"])])
        case {"yjs:string": [], **rest} if not rest:
            return Text("")
        case {"yjs:string": [[str() as said, {**formats}]], **rest} if not rest and not formats:
            return Text(said)
        case _:
            return _writable(value)
