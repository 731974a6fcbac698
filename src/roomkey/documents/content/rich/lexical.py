"""
Documents of Lexical, read: ``@lexical/yjs`` writes texts within texts, with the state of each node in its attributes.

A text node is a map that says how it is formatted, followed by what it says. A document of Lexical is edited at an
anchor, or written as the tree that it was read as.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from roomkey.documents.content.rich.parts import (
    BOLD,
    BREAK,
    BULLET_LIST,
    CELL,
    CODE,
    CODE_BLOCK,
    HEADER,
    HEADING,
    ITALIC,
    LINK,
    LIST_ITEM,
    ORDERED_LIST,
    PARAGRAPH,
    QUOTE,
    ROW,
    RULE,
    STRIKE,
    TABLE,
    TASK_ITEM,
    TASK_LIST,
    UNDERLINE,
    Mark,
    Part,
    inline_text,
    joined,
)
from roomkey.documents.content.rich.tree import MAP, TEXT, YJS_TEXT, Node, attrs_of, children_of

_FORMATS: Final = {1: BOLD, 2: ITALIC, 4: STRIKE, 8: UNDERLINE, 16: CODE}
"""The bits of ``__format``: ``IS_BOLD`` and its neighbours in ``LexicalConstants.ts``."""

_LISTS: Final = {"bullet": BULLET_LIST, "number": ORDERED_LIST, "check": TASK_LIST}


def parts_of(tree: Node) -> list[Part]:
    """The blocks of a document."""
    return [_block(node) for node in children_of(tree)]


def _block(node: Node) -> Part:  # noqa: PLR0911  # one for each kind
    attrs = attrs_of(node)
    children = children_of(node)
    match attrs.get("__type", node["type"]):
        case "paragraph":
            return Part(PARAGRAPH, content=_inline(children), source=node)
        case "heading":
            tag = str(attrs.get("__tag", "h1"))
            level = int(tag[1:]) if tag[1:].isdecimal() else 1
            return Part(HEADING, {"level": min(max(level, 1), 6)}, _inline(children), source=node)
        case "quote":
            return Part(QUOTE, content=[Part(PARAGRAPH, content=_inline(children))], source=node)
        case "code":
            language = attrs.get("__language")
            text = "".join(part.plain for part in _inline(children))
            return Part(
                CODE_BLOCK, {"language": language} if language else {}, [inline_text(text)] if text else [], source=node
            )
        case "list":
            return _list(node, attrs, children)
        case "horizontalrule":
            return Part(RULE, source=node)
        case "table":
            return Part(TABLE, content=[_row(row) for row in children], source=node)
        case str() as name:
            blocks = [child for child in children if child["type"] == YJS_TEXT and not _is_inline(child)]
            content = [_block(child) for child in blocks] if blocks else _inline(children)
            return Part(name, unknown=True, content=content, source=node)
        case _:
            return Part(node["type"], unknown=True, source=node)


def _list(node: Node, attrs: Mapping[str, Any], children: Sequence[Node]) -> Part:
    kind = _LISTS.get(str(attrs.get("__listType")), BULLET_LIST)
    start = attrs.get("__start")
    said = {"start": start} if kind == ORDERED_LIST and isinstance(start, int) and start != 1 else {}
    found = Part(kind, said, source=node)
    for child in children:
        nested = [each for each in children_of(child) if attrs_of(each).get("__type") == "list"]
        if nested and found.content:  # Lexical has a nested list in an item of its own
            found.content[-1].content += [_block(each) for each in nested]
            continue
        own = [each for each in children_of(child) if each not in nested]
        item = Part(
            TASK_ITEM if kind == TASK_LIST else LIST_ITEM, content=[Part(PARAGRAPH, content=_inline(own))], source=child
        )
        if kind == TASK_LIST:
            item.attrs = {"checked": attrs_of(child).get("__checked") is True}
        item.content += [_block(each) for each in nested]
        found.content.append(item)
    return found


def _row(row: Node) -> Part:
    cells: list[Part] = []
    for cell in children_of(row):
        content: list[Part] = []
        for block in children_of(cell):
            content += [Part(BREAK, inline=True)] * bool(content) + _inline(children_of(block))
        is_header = bool(attrs_of(cell).get("__headerState"))
        cells.append(Part(HEADER if is_header else CELL, content=content, source=cell))
    return Part(ROW, content=cells, source=row)


def _is_inline(node: Node) -> bool:
    return attrs_of(node).get("__type") in ("link", "autolink")


def _inline(nodes: Sequence[Node], marks: Sequence[Mark] = ()) -> list[Part]:
    parts: list[Part] = []
    own: list[Mark] = list(marks)
    for node in nodes:
        if node["type"] == TEXT:
            parts.append(Part(TEXT, text=node["text"], marks=own, inline=True, source=node))
        elif node["type"] == MAP:
            state = cast("dict[str, Any]", attrs_of(node).get("value") or {})
            if state.get("__type") == "linebreak":
                parts.append(Part(BREAK, inline=True, source=node))
            else:
                own = [*_marks(state.get("__format")), *marks]
        elif _is_inline(node):
            link: Mark = {"type": LINK, "attrs": {"href": str(attrs_of(node).get("__url", ""))}}
            parts += _inline(children_of(node), [*marks, link])
        else:
            parts.append(Part(str(attrs_of(node).get("__type", node["type"])), unknown=True, inline=True, source=node))
    return joined(parts)


def _marks(format: Any) -> list[Mark]:
    bits = format if isinstance(format, int) else 0
    return [{"type": name} for bit, name in _FORMATS.items() if bits & bit]
