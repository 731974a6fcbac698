"""
Rich text in one vocabulary, whatever the editor calls things: what Markdown and HTML are made of, and read as.

The names are those of Tiptap. What has no name here keeps its own, and is ``unknown``. A part remembers the node that
it comes from, its ``source``, so that attributes and marks that nobody here knows can be carried over.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from msgspec import Struct, field

from roomkey.documents.content.json_patch import fingerprint
from roomkey.documents.content.rich.tree import TEXT, Node

Mark = dict[str, Any]

PARAGRAPH: Final = "paragraph"
HEADING: Final = "heading"
BULLET_LIST: Final = "bulletList"
ORDERED_LIST: Final = "orderedList"
TASK_LIST: Final = "taskList"
LIST_ITEM: Final = "listItem"
TASK_ITEM: Final = "taskItem"
QUOTE: Final = "blockquote"
CODE_BLOCK: Final = "codeBlock"
RULE: Final = "horizontalRule"
BREAK: Final = "hardBreak"
IMAGE: Final = "image"
TABLE: Final = "table"
ROW: Final = "tableRow"
CELL: Final = "tableCell"
HEADER: Final = "tableHeader"

LISTS: Final = frozenset({BULLET_LIST, ORDERED_LIST, TASK_LIST})
ITEMS: Final = frozenset({LIST_ITEM, TASK_ITEM})
CELLS: Final = frozenset({CELL, HEADER})
TEXT_BLOCKS: Final = frozenset({PARAGRAPH, HEADING, CODE_BLOCK})
INLINE: Final = frozenset({TEXT, BREAK, IMAGE})

BOLD: Final = "bold"
ITALIC: Final = "italic"
STRIKE: Final = "strike"
CODE: Final = "code"
LINK: Final = "link"
UNDERLINE: Final = "underline"
KNOWN_MARKS: Final = frozenset({BOLD, ITALIC, STRIKE, CODE, LINK})
"""What Markdown can say."""

KNOWN_ATTRS: Final[Mapping[str, Sequence[str]]] = {
    HEADING: ("level",),
    ORDERED_LIST: ("start",),
    TASK_ITEM: ("checked",),
    CODE_BLOCK: ("language",),
    IMAGE: ("src", "alt", "title"),
    LINK: ("href", "title"),
}
"""The attributes that parts and their marks have."""


ATOM: Final = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands in a text for what is none (Unicode 15, section 23.8)."""


class Part(Struct):
    """
    A block, or something in one. ``unknown`` parts have the type and all attributes of their node.

    ``hidden`` are nodes in front of its own that cannot be seen in this form, such as empty paragraphs, and ``tail``
    those behind all that is in it. ``kept`` says that it is what its ``source`` was. ``raw`` are the marks as the
    document has them, to which ``fresh`` are added, and ``origin`` is the part of the document that this one is a
    reading of.
    """

    type: str
    attrs: dict[str, Any] = field(default_factory=dict[str, Any])
    content: "list[Part]" = field(default_factory=list["Part"])
    text: str = ""
    marks: list[Mark] = field(default_factory=list[Mark])
    unknown: bool = False
    inline: bool = False
    source: Node | None = None
    hidden: list[Node] = field(default_factory=list[Node])
    tail: list[Node] = field(default_factory=list[Node])
    kept: bool = False
    raw: list[Mark] | None = None
    fresh: list[Mark] = field(default_factory=list[Mark])
    origin: "Part | None" = None

    @property
    def is_text_block(self) -> bool:
        """Whether it has text in it, and no blocks."""
        if self.type in TEXT_BLOCKS and not self.unknown:
            return True
        return bool(self.content) and self.content[0].inline

    @property
    def plain(self) -> str:
        """The text in it, line by line."""
        if self.type == TEXT:
            return self.text
        if self.type == BREAK:
            return "\n"
        if self.inline and not self.content:
            return ATOM
        return ("" if self.is_text_block else "\n\n").join(part.plain for part in self.content)


def inline_text(text: str, marks: Sequence[Mark] = (), raw: list[Mark] | None = None) -> Part:
    """A run of text."""
    return Part(TEXT, text=text, marks=list(marks), inline=True, raw=raw)


def portrait_of(part: Part, marks: frozenset[str] | None = None) -> Any:
    """What a part says, for comparing: without where it comes from, and of marks only those of these types."""
    return (
        part.type,
        part.unknown,
        sorted(part.attrs.items()),
        part.text,
        sorted(fingerprint(mark).decode() for mark in part.marks if marks is None or mark["type"] in marks),
        [portrait_of(each, marks) for each in part.content],
    )


def sign_of(part: Part, marks: frozenset[str] | None = None) -> bytes:
    """The same bytes for parts that say the same."""
    return fingerprint(portrait_of(part, marks))


def joined(parts: Sequence[Part]) -> list[Part]:
    """Inline parts without empty texts, neighbours of the same marks as one."""
    found: list[Part] = []
    for part in parts:
        if part.type != TEXT:
            found.append(part)
        elif part.text:
            last = found[-1] if found else None
            if last is not None and last.type == TEXT and _formats(last) == _formats(part):
                found[-1] = Part(
                    TEXT, text=last.text + part.text, marks=part.marks, raw=part.raw, fresh=part.fresh, inline=True
                )
            else:
                found.append(part)
    return found


def _formats(part: Part) -> Any:
    return part.marks, part.raw, part.fresh


def text_blocks(parts: Sequence[Part]) -> Iterator[Part]:
    """The blocks that have text in them, in order, however deep they are."""
    for part in parts:
        if part.is_text_block:
            yield part
        else:
            yield from text_blocks(part.content)


def mark_attrs(mark: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a mark."""
    return cast("dict[str, Any]", mark.get("attrs") or {})
