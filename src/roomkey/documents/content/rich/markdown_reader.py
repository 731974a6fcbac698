"""Markdown that is read, by markdown-it, as parts; ``markdown.py`` says what in it stands for what."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final
from urllib.parse import unquote

from roomkey.documents.content.rich.parts import (
    BOLD,
    BREAK,
    BULLET_LIST,
    CELL,
    CODE,
    CODE_BLOCK,
    HEADER,
    HEADING,
    IMAGE,
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
    Mark,
    Part,
    inline_text,
    joined,
)
from roomkey.documents.content.rich.tree import TEXT
from roomkey.errors import BodyTooLarge, InvalidInput

MAX_BYTES: Final = 2 * 1024 * 1024
"""Maximum size of Markdown that is read: the library takes a few seconds for that."""

MAX_STEPS: Final = 2_000_000
"""Maximum number of places in a text at which the library tries its rules; those of long paragraphs count more."""

MAX_NESTING: Final = 60
"""Maximum nesting of lists and quotes."""

SCHEME: Final = "roomkey:"
"""Of the address of an image that stands for something in a line that Markdown has no form for."""

SEPARATOR: Final = "<!-- -->"
"""Says nothing, and parts what would be one otherwise."""

_LIBRARY_NESTING: Final = 100  # beyond it the library drops what it reads, without a word


def parse(text: str) -> list[Part]:
    """
    Markdown as parts. Unknown ones have the attribute ``hash``.

    Raises:
        BodyTooLarge: If it has more than ``MAX_BYTES``.
        InvalidInput: If it nests too deep, or takes too long; or the library is not installed.
    """
    if len(text.encode()) > MAX_BYTES:
        raise BodyTooLarge(f"Markdown has at most {MAX_BYTES} bytes")
    reading = _Reading()
    tokens = _library().parse(text, reading.env)
    if any(token.level >= MAX_NESTING for token in tokens):
        raise InvalidInput(f"Markdown nests at most {MAX_NESTING} deep")
    return _Parser(tokens, reading).blocks("")


class _Reading:
    """One text that is read, and how many steps that has taken."""

    __slots__ = ("env",)

    def __init__(self) -> None:
        self.env: dict[str, Any] = {"steps": 0}


def parse_line(text: str) -> list[Part]:
    """What is in a line of Markdown. Raises as ``parse``."""
    return _inline_parts(_library().parseInline(text, _Reading().env)[0].children)


def _count_step(state: Any, *_: Any) -> bool:
    """A rule that never applies, and bounds the time: the library tries it wherever it tries the others."""
    steps = state.env["steps"] = state.env["steps"] + 1 + (len(state.src) >> 14)
    if steps > MAX_STEPS:
        raise InvalidInput("the Markdown is too intricate to be read")
    return False


@cache
def _library() -> Any:
    try:
        from markdown_it import MarkdownIt  # noqa: PLC0415  # an extra
    except ImportError:
        raise InvalidInput("Markdown needs the extra `richtext`: pip install 'roomkey[richtext]'") from None
    library = MarkdownIt("commonmark", {"maxNesting": _LIBRARY_NESTING}).enable(["table", "strikethrough"])
    library.inline.ruler.before("text", "count_step", _count_step)
    library.block.ruler.before("code", "count_step", _count_line)
    return library


def _count_line(state: Any, *_: Any) -> bool:
    state.env["steps"] += 1
    return False


class _Parser:
    """Tokens of blocks, one after the other."""

    def __init__(self, tokens: Sequence[Any], reading: _Reading) -> None:
        self._tokens = tokens
        self._reading = reading
        self._at = 0

    def blocks(self, end: str, name: str = "") -> list[Part]:
        """Blocks up to the token ``end``, or to the closing comment of the unknown block ``name``."""
        parts: list[Part] = []
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            if token.type == end:
                break
            self._at += 1
            if token.type == "html_block":
                if self._is_end(token, name):
                    return parts
                parts += self._html(token)
            else:
                parts += self._block(token)
        if name:
            raise InvalidInput(f"<!--roomkey:{name}:…--> is not followed by <!--/roomkey:{name}-->")
        self._at += 1
        return parts

    def _is_end(self, token: Any, name: str) -> bool:
        found = _END.fullmatch(token.content.strip())
        if found is None:
            return False
        if found[1] != name:
            raise InvalidInput(f"<!--/roomkey:{found[1]}--> closes nothing here")
        return True

    def _block(self, token: Any) -> list[Part]:  # noqa: PLR0911  # one for each kind
        match token.type:
            case "paragraph_open":
                return _lifted(Part(PARAGRAPH, content=self._inline("paragraph_close")))
            case "heading_open":
                return [Part(HEADING, {"level": int(token.tag[1:])}, self._inline("heading_close"))]
            case "fence" | "code_block":
                language = token.info.strip()
                text = token.content.removesuffix("\n")
                return [
                    Part(CODE_BLOCK, {"language": language} if language else {}, [inline_text(text)] if text else [])
                ]
            case "blockquote_open":
                return [Part(QUOTE, content=self.blocks("blockquote_close"))]
            case "bullet_list_open":
                return self._list(BULLET_LIST, {}, "bullet_list_close")
            case "ordered_list_open":
                start = token.attrGet("start")
                return self._list(
                    ORDERED_LIST, {} if start in (None, 1) else {"start": int(start)}, "ordered_list_close"
                )
            case "hr":
                return [Part(RULE)]
            case "table_open":
                return [Part(TABLE, content=list(self._rows()))]
            case _:
                return []

    def _inline(self, end: str) -> list[Part]:
        token = self._tokens[self._at]
        self._at += 1 if token.type == end else 2
        return [] if token.type == end else _inline_parts(token.children or [])

    def _list(self, kind: str, attrs: dict[str, Any], end: str) -> list[Part]:
        lists: list[Part] = []
        while self._tokens[self._at].type != end:
            self._at += 1
            box = self._box() if kind == BULLET_LIST else None
            checked = None if box is None else box[1] != " "
            content = self.blocks("list_item_close")
            wanted = kind if checked is None else TASK_LIST
            item = (
                Part(LIST_ITEM, content=content) if checked is None else Part(TASK_ITEM, {"checked": checked}, content)
            )
            if box is not None:
                _remove_box(item, len(box[0]))
            if lists and lists[-1].type == wanted:
                lists[-1].content.append(item)
            else:
                lists.append(Part(wanted, attrs, [item]))
        self._at += 1
        return lists

    def _box(self) -> re.Match[str] | None:
        """The box of the item, if it is a task, as it stands in the source: what is escaped there is none."""
        inside = self._tokens[self._at : self._at + 2]
        is_text = [token.type for token in inside] == ["paragraph_open", "inline"]
        return _BOX.match(inside[1].content) if is_text else None

    def _rows(self) -> Iterator[Part]:
        while self._tokens[self._at].type != "table_close":
            token = self._tokens[self._at]
            self._at += 1
            if token.type == "tr_open":
                yield Part(ROW, content=list(self._cells()))
        self._at += 1

    def _cells(self) -> Iterator[Part]:
        while self._tokens[self._at].type != "tr_close":
            token = self._tokens[self._at]
            self._at += 1
            kind = HEADER if token.type == "th_open" else CELL
            yield Part(kind, content=self._inline(token.type.replace("open", "close")))
        self._at += 1

    def _html(self, token: Any) -> list[Part]:
        said = token.content.strip()
        if said == SEPARATOR:
            return []
        found = _COMMENT.fullmatch(said)
        if found is None:
            inline: Any = _library().parseInline(said, self._reading.env)[0]
            return [Part(PARAGRAPH, content=_inline_parts(inline.children))]
        part = Part(unquote(found[1]), {"hash": found[2]}, unknown=True)
        if not found[3]:
            part.content = self.blocks("", found[1]) or [Part(PARAGRAPH)]
        return [part]


_COMMENT: Final = re.compile(r"<!--roomkey:([^:\s]{1,500}):([0-9a-f]{12})(/?)-->")
_END: Final = re.compile(r"<!--/roomkey:([^:\s]{1,500})-->")
_BOX: Final = re.compile(r"\[([ xX])\](\s+|$)")


def _remove_box(item: Part, length: int) -> None:
    paragraph = item.content[0]
    if paragraph.content and paragraph.content[0].type == TEXT:
        first = paragraph.content[0]
        paragraph.content = joined([inline_text(first.text[length:], first.marks), *paragraph.content[1:]])


def _lifted(paragraph: Part) -> list[Part]:
    """An image that is alone in its paragraph is a block."""
    match paragraph.content:
        case [Part(type="image", marks=[], unknown=False) as image]:
            return [Part(IMAGE, image.attrs)]
        case _:
            return [paragraph]


_MARK_TOKENS: Final = {"strong": BOLD, "em": ITALIC, "s": STRIKE}
_MARK_TAGS: Final = {"strong": BOLD, "b": BOLD, "em": ITALIC, "i": ITALIC, "del": STRIKE, "s": STRIKE, "code": CODE}
_TAG: Final = re.compile(r"<(/?)(\w+)\s*/?>")


def _inline_parts(tokens: Sequence[Any]) -> list[Part]:
    parts: list[Part] = []
    marks: list[Mark] = []
    for token in tokens:
        _READERS.get(token.type, _read_other)(token, parts, marks)
    return joined(parts)


def _read_text(token: Any, parts: list[Part], marks: list[Mark]) -> None:
    parts.append(inline_text(token.content, _sorted(marks)))


def _read_softbreak(_: Any, parts: list[Part], marks: list[Mark]) -> None:
    parts.append(inline_text(" ", _sorted(marks)))


def _read_hardbreak(_: Any, parts: list[Part], __: list[Mark]) -> None:
    parts.append(Part(BREAK, inline=True))


def _read_code(token: Any, parts: list[Part], marks: list[Mark]) -> None:
    parts.append(inline_text(token.content, _sorted([*marks, {"type": CODE}])))


_INLINE_NODE: Final = re.compile(re.escape(SCHEME) + r"([^/\s]{1,500})/([0-9a-f]{12})")


def _read_image(token: Any, parts: list[Part], marks: list[Mark]) -> None:
    found = _INLINE_NODE.fullmatch(token.attrGet("src") or "")
    if found is not None:
        parts.append(Part(unquote(found[1]), {"hash": found[2]}, marks=_sorted(marks), unknown=True, inline=True))
        return
    said = {"src": token.attrGet("src"), "alt": token.content and _alt(token), "title": token.attrGet("title")}
    parts.append(Part(IMAGE, {key: value for key, value in said.items() if value}, marks=_sorted(marks), inline=True))


def _alt(token: Any) -> str:
    children: list[Any] = token.children
    return "".join(
        child.content if child.type in ("text", "code_inline") else " " for child in children if not child.nesting
    )


def _read_link(token: Any, _: list[Part], marks: list[Mark]) -> None:
    attrs = {"href": token.attrGet("href"), "title": token.attrGet("title")}
    marks.append({"type": LINK, "attrs": {key: value for key, value in attrs.items() if value}})


def _read_html(token: Any, parts: list[Part], marks: list[Mark]) -> None:
    said = token.content
    if said == SEPARATOR:
        return
    tag = _TAG.fullmatch(said)
    name = tag[2].lower() if tag is not None else ""
    if tag is None or (name not in _MARK_TAGS and name != "br"):
        parts.append(inline_text(said, _sorted(marks)))
    elif name == "br":
        parts.append(Part(BREAK, inline=True))
    elif tag[1]:
        _close(marks, _MARK_TAGS[name])
    else:
        marks.append({"type": _MARK_TAGS[name]})


def _read_other(token: Any, parts: list[Part], marks: list[Mark]) -> None:
    name, _, way = token.type.rpartition("_")
    if name in _MARK_TOKENS:
        if way == "open":
            marks.append({"type": _MARK_TOKENS[name]})
        else:
            _close(marks, _MARK_TOKENS[name])
    elif token.content:
        parts.append(inline_text(token.content, _sorted(marks)))


def _read_link_end(_: Any, __: list[Part], marks: list[Mark]) -> None:
    _close(marks, LINK)


_READERS: Final[Mapping[str, Callable[[Any, list[Part], list[Mark]], None]]] = {
    "text": _read_text,
    "softbreak": _read_softbreak,
    "hardbreak": _read_hardbreak,
    "code_inline": _read_code,
    "image": _read_image,
    "link_open": _read_link,
    "link_close": _read_link_end,
    "html_inline": _read_html,
}


def _close(marks: list[Mark], type: str) -> None:
    for index in range(len(marks) - 1, -1, -1):
        if marks[index]["type"] == type:
            del marks[index]
            return


def _sorted(marks: Sequence[Mark]) -> list[Mark]:
    """Each mark once, in order."""
    unique = {mark["type"]: mark for mark in marks}
    return [unique[type] for type in sorted(unique)]
