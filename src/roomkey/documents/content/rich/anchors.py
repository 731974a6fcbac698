"""
Edits at an anchor: at a piece of text that is found, as a program knows it that has read the document.

Only the block at the top of the document in which the anchor is found is read anew and compared, whatever the size
of the rest.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from msgspec import Struct, field
from pycrdt import Doc
from pycrdt import Text as SharedText

from roomkey.documents.content.rich.changes import Writer
from roomkey.documents.content.rich.checks import checked_nodes, flaw
from roomkey.documents.content.rich.forms import Form, maker_for, parts_in, rich_root
from roomkey.documents.content.rich.parts import ATOM
from roomkey.documents.content.rich.tree import (
    DOC,
    MAP,
    TEXT,
    Node,
    Probe,
    Root,
    attrs_of,
    children_of,
    probe,
    root_names,
)
from roomkey.documents.content.rich.vocabulary import Schema, schema_of
from roomkey.documents.content.text_edits import edit_text

MAX_EDITS: Final = 200
"""Maximum number of edits of one change."""

_BREAKS: Final = frozenset({"hardBreak", "hard_break"})


class Anchor(Struct, frozen=True):
    """
    An edit: where, and what.

    It is at the only place, or the ``occurrence``-th (from 1), where the document says ``find`` within one block; or
    ``at`` its ``start`` or ``end``. There ``text`` is put in place of what was found, or ``before`` or ``after`` it, as
    ``how`` says. In any other ``form`` than text it is blocks, and what counts is the block at the top of the document.
    """

    how: str
    content: Any
    find: str | None = None
    occurrence: int | None = None
    at: str | None = None
    form: Form = Form.TEXT


def edit(doc: Doc[Any], name: str | None, edits: Sequence[Anchor], schema: Schema | None = None) -> None:
    """
    Carry out ``edits`` of the root ``name``, or of the only one that is rich text or a text. Each sees what those
    before it did.

    Raises:
        InvalidInput: If one cannot be carried out; ``flaws`` says which. The document may be changed by half then.
    """
    known = _known(doc, name)
    if known is None:
        text = _text_root(doc, name)
        if text is not None:
            _edit_all(doc, text, edits)
            return
    root_name = rich_root(doc, name) if known is None else known.root
    with doc.transaction() as transaction:
        outline = Outline(Root(doc, transaction, root_name), schema, None if known is None else known.entries)
        for index, each in enumerate(edits):
            outline.edit(each, f"#/edits/{index}")
        _OUTLINES[doc] = _Known(root_name, _state(doc), outline.entries)


def _text_root(doc: Doc[Any], name: str | None) -> str | None:
    """The plain text that is meant, if it is one."""
    names = root_names(doc) if name is None else [name]
    kinds = {each: probe(doc, each) for each in names}
    texts = [each for each, kind in kinds.items() if kind is Probe.TEXT]
    return texts[0] if len(texts) == 1 and Probe.RICH not in kinds.values() else None


def _edit_all(doc: Doc[Any], text: str, edits: Sequence[Anchor]) -> None:
    shared = doc.get(text, type=SharedText)
    with doc.transaction():
        for index, each in enumerate(edits):
            _edit_text(shared, each, f"#/edits/{index}")


def _edit_text(shared: SharedText, anchor: Anchor, path: str) -> None:
    if anchor.form is not Form.TEXT:
        raise flaw(f"{path}/format", "a plain text has no blocks: the format must be text")
    said = "".join(content for content, _ in shared.diff() if isinstance(content, str))
    start, end = _range(said, anchor, path)
    if anchor.how == "replace":
        edit_text(shared, start, end - start, anchor.content)
    else:
        edit_text(shared, start if anchor.how == "before" else end, 0, anchor.content)


def _range(said: str, anchor: Anchor, path: str) -> tuple[int, int]:
    if anchor.find is None:
        place = 0 if anchor.at == "start" else len(said)
        return place, place
    place = _found(said, anchor, path)
    return place, place + len(anchor.find)


def _found(said: str, anchor: Anchor, path: str) -> int:
    """Where ``said`` has what is to be found."""
    places = _places(said, anchor.find or "")
    wanted = anchor.occurrence
    if wanted is None:
        found = next(places, None)
        if found is not None and next(places, None) is not None:
            raise flaw(f"{path}/find", "the document says this several times: find more of it, or say which occurrence")
    else:
        found = next((place for count, place in enumerate(places, 1) if count == wanted), None)
    if found is None:
        raise flaw(f"{path}/find", "the document does not say this within one block")
    return found


def _places(said: str, find: str) -> Iterator[int]:
    at = said.find(find)
    while at >= 0:
        yield at
        at = said.find(find, at + 1)


# --- rich text ----------------------------------------------------------------------------------------


class _Known(Struct):
    """What the texts of a document were, and in which state of it."""

    root: str
    state: tuple[bytes, bytes]
    entries: "list[_Entry]"


_OUTLINES: Final = WeakKeyDictionary[Doc[Any], _Known]()
"""Kept for the next edit of the same copy: reading all of a large document takes longer than an edit."""


def _known(doc: Doc[Any], root: str | None) -> _Known | None:
    known = _OUTLINES.pop(doc, None)
    return known if known is not None and root in (None, known.root) and known.state == _state(doc) else None


def _state(doc: Doc[Any]) -> tuple[bytes, bytes]:
    """All that tells one state of a document from another: what is in it, and what of that is deleted."""
    state = doc.get_state()
    return state, doc.get_update(state)


class _Entry(Struct):
    """A block at the top: what it says, block by block in it."""

    lines: list[str]
    paths: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])


_BETWEEN: Final = "\0"
"""Parts the texts of blocks: no text of Yjs that was typed has it, and nothing that is looked for."""


class Outline:
    """The texts of a root by block, kept up while it is edited."""

    def __init__(self, root: Root, schema: Schema | None, entries: list[_Entry] | None) -> None:
        self._root = root
        self._schema = schema
        self._holder = root.native
        blocks = root.native.children(root.transaction)
        if len(blocks) == 1 and getattr(blocks[0], "tag", None) is not None and blocks[0].tag() == "blockGroup":
            self._holder = blocks[0]
        self._writer = Writer(root)
        self.entries = [_entry(node) for node in self._nodes(0, None)] if entries is None else entries

    def edit(self, anchor: Anchor, path: str) -> None:
        """Carry out one edit. Raises as ``edit``."""
        if anchor.find is None:
            self._edit_edge(anchor, path)
            return
        if not anchor.find or _BETWEEN in anchor.find:
            raise flaw(f"{path}/find", "find must be text")
        index, line, place = self._find(anchor, path)
        (node,) = self._nodes(index, index + 1)
        if anchor.form is not Form.TEXT:
            blocks = self._blocks(anchor, path)
            new = {"replace": blocks, "before": [*blocks, node], "after": [node, *blocks]}[anchor.how]
        else:
            start, end = place, place + len(anchor.find)
            where = {"replace": (start, end), "before": (start, start), "after": (end, end)}[anchor.how]
            like = start if anchor.how != "after" else end - 1
            new = [self._spliced(node, self.entries[index].paths[line], where, like, anchor.content)]
        self._replace(index, index + 1, new)

    def _edit_edge(self, anchor: Anchor, path: str) -> None:
        is_start = anchor.at == "start"
        if anchor.form is not Form.TEXT:
            at = 0 if is_start else len(self.entries)
            self._replace(at, at, self._blocks(anchor, path))
            return
        indexes = range(len(self.entries)) if is_start else range(len(self.entries) - 1, -1, -1)
        index = next((each for each in indexes if self.entries[each].lines), None)
        if index is None:
            raise flaw(path, "there is no block with text: say with format what is to be inserted")
        entry, (node,) = self.entries[index], self._nodes(index, index + 1)
        line = 0 if is_start else -1
        place = 0 if is_start else len(entry.lines[-1])
        self._replace(
            index,
            index + 1,
            [self._spliced(node, entry.paths[line], (place, place), place - (not is_start), anchor.content)],
        )

    def _find(self, anchor: Anchor, path: str) -> tuple[int, int, int]:
        """Block at the top, block in it, and code point at which the anchor is."""
        lines = [line for entry in self.entries for line in entry.lines]
        said = _BETWEEN.join(lines)
        found = _found(said, anchor, path)
        starts = [0]
        for line in lines:
            starts.append(starts[-1] + len(line) + 1)
        number = bisect_right(starts, found) - 1
        place = found - starts[number]
        for index, entry in enumerate(self.entries):
            if number < len(entry.lines):
                return index, number, place
            number -= len(entry.lines)
        raise AssertionError

    def _replace(self, start: int, end: int, nodes: Sequence[Node]) -> None:
        before = self._holder.len(self._root.transaction)
        self._writer.liken_between(self._holder, start, end, nodes)
        grown = self._holder.len(self._root.transaction) - before
        self.entries[start:end] = [_entry(node) for node in self._nodes(start, end + grown)]

    def _nodes(self, start: int, end: int | None) -> list[Node]:
        """The blocks at the top from one place to another."""
        transaction, reader = self._root.transaction, self._root.reader
        count = self._holder.len(transaction)
        if end is None:
            children = self._holder.children(transaction)
        else:
            children = [self._holder.get(transaction, index) for index in range(start, min(end, count))]
        return [reader.child(child) for child in children]

    def _blocks(self, anchor: Anchor, path: str) -> list[Node]:
        if anchor.form is Form.PROSEMIRROR:
            return checked_nodes(anchor.content, f"{path}/content")
        tree = self._root.read()
        parts = parts_in(anchor.form, anchor.content, lambda: tree)
        return maker_for(tree, self._schema).blocks(parts, path)

    def _spliced(self, node: Node, path: Sequence[int], where: tuple[int, int], like: int, text: str) -> Node:
        if not path:
            is_code = "code" in node["type"].lower()
            brk = None if is_code or "\n" not in text else self._break(node)
            return {**node, "content": _splice(children_of(node), where, like, text, brk)}
        content = list(children_of(node))
        content[path[0]] = self._spliced(content[path[0]], path[1:], where, like, text)
        return {**node, "content": content}

    def _break(self, node: Node) -> Node:
        """What a line end is, in the vocabulary of this document."""
        schema = schema_of({"type": DOC, "content": [node]}) or schema_of(self._root.read()) or self._schema
        if schema is Schema.LEXICAL:
            return {"type": MAP, "attrs": {"value": {"__type": "linebreak"}}}
        return {"type": "hard_break" if schema is Schema.PROSEMIRROR else "hardBreak"}


def _entry(node: Node) -> _Entry:
    entry = _Entry([])
    _collect(entry, node, ())
    return entry


def _collect(entry: _Entry, node: Node, path: tuple[int, ...]) -> None:
    children = children_of(node)
    if any(child["type"] == TEXT for child in children):
        entry.lines.append("".join(map(_said, children)))
        entry.paths.append(path)
    for index, child in enumerate(children):
        if child["type"] != TEXT:
            _collect(entry, child, (*path, index))
    if not children and _may_have_text(node):
        entry.lines.append("")
        entry.paths.append(path)


def _may_have_text(node: Node) -> bool:
    return node["type"] in ("paragraph", "heading") or attrs_of(node).get("__type") in ("paragraph", "heading")


def _said(node: Node) -> str:
    if node["type"] == TEXT:
        return node["text"]
    state = attrs_of(node).get("value") if node["type"] == MAP else None
    kind = cast("dict[str, Any]", state).get("__type") if isinstance(state, dict) else None
    if kind == "text":
        return ""  # how the text behind it is formatted, in documents of Lexical
    return "\n" if kind == "linebreak" or node["type"] in _BREAKS else ATOM


def _splice(content: Sequence[Node], where: tuple[int, int], like: int, text: str, line_end: Node | None) -> list[Node]:
    """``content`` with ``text`` in place of what is between two places, formatted as the character at ``like``."""
    start, end = where
    before: list[Node] = []
    after: list[Node] = []
    marks: Any = None
    at = 0
    for node in content:
        length = len(_said(node))
        if at <= like < at + length and node["type"] == TEXT:
            marks = node.get("marks")
        if node["type"] != TEXT:
            is_before = at < start or (at == start and not length)
            if is_before or not (start <= at < end):
                (before if is_before else after).append(node)
        else:
            if at < start:
                before.append({**node, "text": node["text"][: start - at]})
            if at + length > end:
                after.append({**node, "text": node["text"][max(end - at, 0) :]})
        at += length
    return [*before, *_inserted(text, marks, line_end), *after]


def _inserted(text: str, marks: Any, line_end: Node | None) -> Iterator[Node]:
    lines = [text] if line_end is None else text.split("\n")
    for index, line in enumerate(lines):
        if index and line_end is not None:
            yield line_end
        if line:
            yield {"type": TEXT, "text": line, **({"marks": marks} if marks else {})}
