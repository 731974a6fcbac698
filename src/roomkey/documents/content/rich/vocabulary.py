"""
How editors call things, and the shape that they give them: between their trees and parts.

Tiptap and ProseMirror differ in names only. BlockNote has a flat list of blocks, each in a container with an id, and
what is indented under a block in a group within it. Lexical is read in ``lexical.py``.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, cast

from roomkey.documents.content.rich import lexical
from roomkey.documents.content.rich.parts import (
    BOLD,
    BREAK,
    BULLET_LIST,
    CELL,
    CELLS,
    CODE,
    CODE_BLOCK,
    HEADER,
    HEADING,
    IMAGE,
    INLINE,
    ITALIC,
    ITEMS,
    KNOWN_ATTRS,
    LINK,
    LIST_ITEM,
    LISTS,
    ORDERED_LIST,
    PARAGRAPH,
    QUOTE,
    ROW,
    RULE,
    STRIKE,
    TABLE,
    TASK_ITEM,
    TASK_LIST,
    TEXT_BLOCKS,
    UNDERLINE,
    Mark,
    Part,
    joined,
    mark_attrs,
)
from roomkey.documents.content.rich.tree import DOC, TEXT, Node, attrs_of, children_of, nodes_in
from roomkey.errors import Flaw, InvalidInput, SchemaViolation


class Schema(StrEnum):
    """Whose names and shapes a document has."""

    TIPTAP = "tiptap"
    PROSEMIRROR = "prosemirror"
    BLOCKNOTE = "blocknote"
    LEXICAL = "lexical"


_NODES: Final[Mapping[Schema, Mapping[str, str]]] = {
    Schema.TIPTAP: {
        name: name for name in (*LISTS, *ITEMS, *CELLS, *TEXT_BLOCKS, QUOTE, RULE, BREAK, IMAGE, TABLE, ROW)
    },
    Schema.PROSEMIRROR: {
        PARAGRAPH: "paragraph",
        HEADING: "heading",
        BULLET_LIST: "bullet_list",
        ORDERED_LIST: "ordered_list",
        LIST_ITEM: "list_item",
        QUOTE: "blockquote",
        CODE_BLOCK: "code_block",
        RULE: "horizontal_rule",
        BREAK: "hard_break",
        IMAGE: "image",
        TABLE: "table",
        ROW: "table_row",
        CELL: "table_cell",
        HEADER: "table_header",
    },
}
_MARKS: Final[Mapping[Schema, Mapping[str, str]]] = {
    Schema.TIPTAP: {name: name for name in (BOLD, ITALIC, STRIKE, CODE, LINK, UNDERLINE)},
    Schema.PROSEMIRROR: {BOLD: "strong", ITALIC: "em", CODE: "code", LINK: "link"},
    Schema.BLOCKNOTE: {name: name for name in (BOLD, ITALIC, STRIKE, CODE, LINK, UNDERLINE)},
}
_ATTRS: Final[Mapping[str, Mapping[str, str]]] = {
    "ordered_list": {"start": "order"},
    "code_block": {"language": "params"},
}
"""Attributes that are called otherwise here, by the name of the node."""

_KNOWN_NODES: Final = {other: name for names in _NODES.values() for name, other in names.items()}
_KNOWN_MARKS: Final = {other: name for names in _MARKS.values() for name, other in names.items()}

_PROSEMIRROR_ONLY: Final = frozenset(_NODES[Schema.PROSEMIRROR].values()) - frozenset(_NODES[Schema.TIPTAP].values())
_TIPTAP_ONLY: Final = frozenset(_NODES[Schema.TIPTAP].values()) - frozenset(_NODES[Schema.PROSEMIRROR].values())


def schema_of(tree: Node) -> Schema | None:
    """Whose document it is, as far as its names tell."""
    found: Schema | None = None
    for node in nodes_in(tree):
        name = node["type"]
        if name == "blockContainer":
            return Schema.BLOCKNOTE
        if name == "yjs:text" and "__type" in attrs_of(node):
            return Schema.LEXICAL
        marks = {mark["type"] for mark in cast("list[Mark]", node.get("marks") or ())}
        if name in _PROSEMIRROR_ONLY or marks & {"strong", "em"}:
            found = found or Schema.PROSEMIRROR
        elif name in _TIPTAP_ONLY or marks & {BOLD, ITALIC, STRIKE, UNDERLINE}:
            found = found or Schema.TIPTAP
    return found


# --- from trees to parts ------------------------------------------------------------------------------


def document_of(tree: Node) -> Part:
    """A document as a part."""
    schema = schema_of(tree)
    if schema is Schema.LEXICAL:
        parts = lexical.parts_of(tree)
    elif schema is Schema.BLOCKNOTE:
        parts = [part for group in children_of(tree) for part in _blocks_of_group(group)]
    else:
        parts = _blocks(children_of(tree))
    return Part(DOC, content=parts)


def _blocks(nodes: Sequence[Node]) -> list[Part]:
    return [_block(node) for node in nodes]


def _block(node: Node) -> Part:
    name = _KNOWN_NODES.get(node["type"])
    if name is None:
        return _unknown(node)
    part = Part(name, _known_attrs(name, node), source=node)
    if name in CELLS:
        part.content = _cell_content(node)
    elif name in TEXT_BLOCKS:
        part.content = inline_parts(children_of(node))
        if name == PARAGRAPH and [(inner.type, inner.marks) for inner in part.content] == [(IMAGE, [])]:
            return Part(IMAGE, part.content[0].attrs, source=node)
    elif name not in INLINE:
        part.content = _blocks(children_of(node))
    return part


def _unknown(node: Node) -> Part:
    part = Part(node["type"], attrs_of(node), unknown=True, source=node)
    children = children_of(node)
    part.content = inline_parts(children) if _is_inline(children) else _blocks(children)
    return part


def _is_inline(nodes: Sequence[Node]) -> bool:
    return any(node["type"] == TEXT or _KNOWN_NODES.get(node["type"]) == BREAK for node in nodes)


def inline_parts(nodes: Sequence[Node]) -> list[Part]:
    """What is in a text block."""
    return joined([_inline(node) for node in nodes])


def _inline(node: Node) -> Part:
    raw = cast("list[Mark]", node.get("marks") or [])
    marks = [mark_of(mark) for mark in raw]
    if node["type"] == TEXT:
        return Part(TEXT, text=node["text"], marks=marks, raw=raw, inline=True, source=node)
    name = _KNOWN_NODES.get(node["type"])
    if name in (BREAK, IMAGE):
        return Part(name, _known_attrs(name, node), marks=marks, raw=raw, inline=True, source=node)
    return Part(node["type"], attrs_of(node), marks=marks, raw=raw, unknown=True, inline=True, source=node)


def mark_of(mark: Mark) -> Mark:
    """A mark by the name that it has in parts, with the attributes that are known of such."""
    name = _KNOWN_MARKS.get(mark["type"])
    if name is None:
        return mark
    attrs = {key: value for key, value in mark_attrs(mark).items() if key in KNOWN_ATTRS.get(name, ()) and value}
    return {"type": name, "attrs": attrs} if attrs else {"type": name}


def _known_attrs(name: str, node: Node) -> dict[str, Any]:
    called = _ATTRS.get(node["type"], {})
    attrs = attrs_of(node)
    found = {key: attrs[called.get(key, key)] for key in KNOWN_ATTRS.get(name, ()) if called.get(key, key) in attrs}
    return _with_defaults(name, found)


def _with_defaults(name: str, attrs: dict[str, Any]) -> dict[str, Any]:
    match name:
        case "heading":
            level = attrs.get("level")
            return {"level": min(max(level, 1), 6) if isinstance(level, int) else 1}
        case "orderedList":
            start = attrs.get("start")
            return {"start": start} if isinstance(start, int) and 0 <= start < 10**9 and start != 1 else {}
        case "taskItem":
            return {"checked": attrs.get("checked") is True}
        case "codeBlock":
            language = attrs.get("language")
            return {"language": language} if isinstance(language, str) and language else {}
        case _:
            return {key: value for key, value in attrs.items() if isinstance(value, str) and value}


def _cell_content(node: Node) -> list[Part]:
    """The content of a cell as one line: blocks in it are parted by breaks."""
    children = children_of(node)
    if _is_inline(children):
        return inline_parts(children)
    found: list[Part] = []
    for block in _flat(_blocks(children)):
        if found:
            found.append(Part(BREAK, inline=True))
        found += block.content
    return joined(found)


def _flat(parts: Sequence[Part]) -> Iterator[Part]:
    for part in parts:
        if part.is_text_block or not part.content:
            yield part
        else:
            yield from _flat(part.content)


# --- BlockNote ----------------------------------------------------------------------------------------

_BLOCKNOTE_ITEMS: Final = {
    "bulletListItem": BULLET_LIST,
    "numberedListItem": ORDERED_LIST,
    "checkListItem": TASK_LIST,
}
_BLOCKNOTE_BLOCKS: Final = {
    "paragraph": PARAGRAPH,
    "heading": HEADING,
    "codeBlock": CODE_BLOCK,
    "divider": RULE,
    "table": TABLE,
}


def _blocks_of_group(group: Node) -> list[Part]:
    if group["type"] != "blockGroup":
        return [_unknown(group)]
    parts: list[Part] = []
    for container in children_of(group):
        _add_container(parts, container)
    return parts


def _add_container(parts: list[Part], container: Node) -> None:
    children = children_of(container)
    inner = [child for child in children if child["type"] == "blockGroup"]
    if container["type"] != "blockContainer" or len(children) - len(inner) != 1 or len(inner) > 1:
        parts.append(_unknown(container))
        return
    block = children[0]
    nested = [part for group in inner for part in _blocks_of_group(group)]
    list_type = _BLOCKNOTE_ITEMS.get(block["type"])
    if list_type is None:
        part = _blocknote_block(block, container)
        # What is indented under a block that is no item of a list has no form in Markdown.
        parts.append(
            part if not nested else Part("blockContainer", unknown=True, source=container, content=[part, *nested])
        )
        return
    paragraph = Part(PARAGRAPH, content=inline_parts(children_of(block)))
    item = Part(TASK_ITEM if list_type == TASK_LIST else LIST_ITEM, source=container, content=[paragraph, *nested])
    if list_type == TASK_LIST:
        item.attrs = {"checked": attrs_of(block).get("checked") is True}
    last = parts[-1] if parts else None
    start = attrs_of(block).get("start")
    if last is not None and last.type == list_type and not last.unknown and start is None:
        last.content.append(item)
    else:
        attrs = {"start": start} if list_type == ORDERED_LIST and isinstance(start, int) and start != 1 else {}
        parts.append(Part(list_type, attrs, content=[item]))


def _blocknote_block(block: Node, container: Node) -> Part:
    attrs = attrs_of(block)
    if block["type"] == "quote":
        return Part(QUOTE, source=container, content=[Part(PARAGRAPH, content=inline_parts(children_of(block)))])
    if block["type"] == "image":
        said = {"src": attrs.get("url"), "alt": attrs.get("name"), "title": attrs.get("caption")}
        return Part(IMAGE, _with_defaults(IMAGE, said), source=container)
    if block["type"] in _BLOCKNOTE_BLOCKS:
        part = _block({**block, "type": _BLOCKNOTE_BLOCKS[block["type"]]})
    else:
        part = _unknown(block)
    part.source = container
    return part


# --- from parts to trees ------------------------------------------------------------------------------


class Maker:
    """Makes nodes of parts, as ``schema`` has them. ``taken`` are the ids of blocks that are in use."""

    __slots__ = ("_attempt", "_marks", "_nodes", "_schema", "_taken")

    def __init__(self, schema: Schema, taken: Iterable[str] = ()) -> None:
        if schema is Schema.LEXICAL:
            raise InvalidInput("documents of Lexical can be written as ProseMirror JSON or edited at an anchor only")
        self._schema = schema
        self._nodes = _NODES.get(schema, _NODES[Schema.TIPTAP])
        self._marks = _MARKS[schema]
        self._taken = set(taken)
        self._attempt = 0

    def document(self, document: Part) -> list[Node]:
        """The content of a document."""
        nodes = self.blocks(document.content, "#", document.tail)
        if self._schema is not Schema.BLOCKNOTE:
            return nodes
        return [{"type": "blockGroup", "content": nodes or self.blocks([Part(PARAGRAPH)], "#")}]

    def blocks(self, parts: Sequence[Part], path: str, tail: Sequence[Node] = ()) -> list[Node]:
        """Blocks beside one another, with ``tail`` behind them."""
        make = self._containers if self._schema is Schema.BLOCKNOTE else self._block
        nodes: list[Node] = []
        for index, part in enumerate(parts):
            nodes += part.hidden
            place = f"{path}/content/{index}"
            if part.kept and part.source is not None:
                nodes.append(part.source)
            else:
                for each in self._split(part, place):
                    nodes += make(each, place)
        return [*nodes, *tail]

    def _split(self, part: Part, path: str) -> list[Part]:
        """A block in the shape of the schema, which may have images within paragraphs only, or never."""
        is_paragraph = part.type == PARAGRAPH and not part.unknown
        if self._schema is Schema.PROSEMIRROR:
            return [Part(PARAGRAPH, content=[part], hidden=part.hidden)] if part.type == IMAGE else [part]
        if not is_paragraph or not any(inner.type == IMAGE for inner in part.content) or _has_image(part.source):
            if (
                part.type == HEADING
                and any(inner.type == IMAGE for inner in part.content)
                and not _has_image(part.source)
            ):
                raise refusal(path, "an image cannot stand in a heading")
            return [part]
        found: list[Part] = []
        for inner in part.content:
            if inner.type == IMAGE:
                found.append(inner)
            elif found and found[-1].type == PARAGRAPH:
                found[-1].content.append(inner)
            elif inner.type != TEXT or inner.text.strip():
                found.append(Part(PARAGRAPH, content=[inner]))
        return found

    def inline(self, parts: Sequence[Part], path: str) -> list[Node]:
        """What is in a text block."""
        return [self._inline(part, f"{path}/content/{index}") for index, part in enumerate(parts)]

    def _inline(self, part: Part, path: str) -> Node:
        if part.kept and part.source is not None:
            return part.source
        if part.type == TEXT:
            node: Node = {"type": TEXT, "text": part.text}
        elif part.unknown:
            node = dict(part.source) if part.source is not None else {"type": part.type, "attrs": part.attrs}
        else:
            node = self._named(part, path)
        if part.raw is None:
            marks = [self.mark(mark, path) for mark in part.marks]
        else:
            marks = [*part.raw, *(self.mark(mark, path) for mark in part.fresh)]
        return {**node, "marks": marks} if marks else node

    def mark(self, mark: Mark, path: str) -> Mark:
        """A mark as this schema calls it."""
        known = mark["type"] in KNOWN_ATTRS or mark["type"] in _MARKS[Schema.TIPTAP]
        if not known:
            return mark
        name = self._marks.get(mark["type"])
        if name is None:
            raise refusal(path, f"the vocabulary {self._schema.value} has no mark {mark['type']!r}")
        return {**mark, "type": name}

    def _named(self, part: Part, path: str) -> Node:
        type = part.type
        if type in CELLS and part.source is not None:  # GFM takes every first row for a header
            type = _KNOWN_NODES.get(part.source["type"], type)
        name = self._nodes.get(type)
        if name is None:
            raise refusal(path, f"the vocabulary {self._schema.value} has no {part.type!r}")
        called = _ATTRS.get(name, {})
        attrs = _attrs_over(
            part.source, name, {called.get(key, key): value for key, value in part.attrs.items()}, part.type
        )
        return {"type": name, "attrs": attrs} if attrs else {"type": name}

    def _block(self, part: Part, path: str) -> list[Node]:
        if part.unknown:
            node: Node = {"type": part.type, **({"attrs": part.attrs} if part.attrs else {})}
        else:
            node = self._named(part, path)
        if part.type in CELLS and not part.unknown:
            node["content"] = self.blocks([Part(PARAGRAPH, content=part.content)], path)
        elif part.is_text_block:
            node["content"] = self.inline(part.content, path)
        elif part.content:
            node["content"] = self.blocks(part.content, path, part.tail)
        elif part.type in (ITEMS | {QUOTE}):
            node["content"] = self.blocks([Part(PARAGRAPH)], path)
        return [node]

    # --- BlockNote --------------------------------------------------------------------------------

    def _containers(self, part: Part, path: str) -> list[Node]:  # noqa: PLR0911  # one for each kind
        if part.type in LISTS and not part.unknown:
            return [self._item(part, item, index, f"{path}/content/{index}") for index, item in enumerate(part.content)]
        if part.type == "blockContainer" and part.unknown and part.content:
            first, *nested = part.content
            return [self._container(part.source, self._containers(first, path), nested, part.tail, path)]
        if part.type == QUOTE and not part.unknown:
            lines: list[Part] = []
            for block in _flat(part.content):
                lines += [Part(BREAK, inline=True)] * bool(lines) + block.content
            return [self._wrapped(part, {"type": "quote", "content": self.inline(lines, path)})]
        if part.type == IMAGE:
            attrs = {
                "url": part.attrs.get("src", ""),
                "name": part.attrs.get("alt", ""),
                "caption": part.attrs.get("title", ""),
            }
            return [self._wrapped(part, {"type": "image", "attrs": attrs})]
        if part.type == RULE:
            return [self._wrapped(part, {"type": "divider"})]
        if part.type == TABLE and not part.unknown:
            return [self._wrapped(part, self._table(part, path))]
        return [self._wrapped(part, node) for node in self._block(part, path)]

    def _wrapped(self, part: Part, block: Node) -> Node:
        old = _content_node(part.source)
        if old is not None and old["type"] == block["type"]:
            known = KNOWN_ATTRS.get(part.type, ()) if part.type != IMAGE else ("url", "name", "caption")
            kept = {key: value for key, value in attrs_of(old).items() if key not in known}
            block = {**block, "attrs": kept | attrs_of(block)}
        return {"type": "blockContainer", "attrs": self._container_attrs(part.source, block), "content": [block]}

    def _container(
        self, source: Node | None, first: Sequence[Node], nested: Sequence[Part], tail: Sequence[Node], path: str
    ) -> Node:
        container = first[0]
        content = [*children_of(container)]
        if source is not None:
            container = {**container, "attrs": self._container_attrs(source, container)}
        if nested or tail:
            content.append({"type": "blockGroup", "content": self.blocks(nested, path, tail)})
        return {**container, "content": content}

    def _item(self, holder: Part, item: Part, index: int, path: str) -> Node:
        name = next(name for name, list_type in _BLOCKNOTE_ITEMS.items() if list_type == holder.type)
        if item.kept and item.source is not None:
            return item.source
        blocks = list(item.content)
        first = blocks.pop(0) if blocks and blocks[0].type == PARAGRAPH else Part(PARAGRAPH)
        attrs: dict[str, Any] = {}
        if holder.type == TASK_LIST:
            attrs = {"checked": item.attrs.get("checked") is True}
        elif holder.type == ORDERED_LIST and not index and "start" in holder.attrs:
            attrs = {"start": holder.attrs["start"]}
        block: Node = {"type": name, "attrs": attrs, "content": self.inline(first.content, path)}
        part = Part(TASK_ITEM if holder.type == TASK_LIST else LIST_ITEM, source=item.source)
        return self._container(None, [self._wrapped(part, block)], blocks, item.tail, path)

    def _table(self, part: Part, path: str) -> Node:
        rows: list[Node] = []
        for index, row in enumerate(part.content):
            cells: list[Node] = []
            for place, cell in enumerate(row.content):
                inside = self.inline(cell.content, f"{path}/content/{index}/content/{place}")
                cells.append({**self._named(cell, path), "content": [{"type": "tableParagraph", "content": inside}]})
            rows.append({"type": ROW, "content": cells})
        return {"type": TABLE, "content": rows}

    def _container_attrs(self, source: Node | None, block: Node) -> dict[str, Any]:
        attrs = dict(attrs_of(source)) if source is not None else {}
        if "id" not in attrs:
            attrs["id"] = self._new_id(block)
        return attrs

    def _new_id(self, block: Node) -> str:
        """An id that no other block has; made of what is in it, for the same change to make the same one each time."""
        while True:
            self._attempt += 1
            digest = sha256(f"{self._attempt}:{block}".encode()).hexdigest()
            id = "-".join((digest[:8], digest[8:12], f"4{digest[13:16]}", f"8{digest[17:20]}", digest[20:32]))
            if id not in self._taken:
                self._taken.add(id)
                return id


def ids_in(tree: Node) -> list[str]:
    """The ids of all blocks."""
    return [id for node in nodes_in(tree) if isinstance(id := attrs_of(node).get("id"), str)]


def _has_image(source: Node | None) -> bool:
    return source is not None and any(_KNOWN_NODES.get(node["type"]) == IMAGE for node in children_of(source))


def _content_node(source: Node | None) -> Node | None:
    if source is None or source["type"] != "blockContainer":
        return None
    return next(iter(children_of(source)), None)


def _attrs_over(source: Node | None, name: str, attrs: Mapping[str, Any], type: str) -> dict[str, Any]:
    """``attrs``, with those of the node that it comes from of which nothing is known here."""
    if source is None or source["type"] != name:
        return dict(attrs)
    called = _ATTRS.get(name, {})
    known = {called.get(key, key) for key in KNOWN_ATTRS.get(type, ())}
    kept = {key: value for key, value in attrs_of(source).items() if key not in known}
    # A default that is written down stays so.
    same = {
        key: value
        for key, value in attrs_of(source).items()
        if key in known and key not in attrs and _is_default(key, value)
    }
    return {**kept, **same, **attrs}


def _is_default(key: str, value: Any) -> bool:
    return (key in ("start", "order") and value == 1) or value in ("", False)


def refusal(path: str, detail: str) -> InvalidInput:
    """That something cannot be done, and where in the document."""
    return SchemaViolation(Flaw(detail=detail, pointer=path))
