"""
HTML, sanitised in both directions: only tags that are listed here, addresses of harmless schemes, everything else
escaped.

What is no such tag is carried by ``data-node`` and ``data-mark`` with its attributes in ``data-attrs``. White space
counts, but for line ends and what stands around them.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from html import escape
from html.parser import HTMLParser
from typing import Any, Final, cast

import msgspec
from msgspec import Struct, field

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
    UNDERLINE,
    Mark,
    Part,
    inline_text,
    joined,
    mark_attrs,
)
from roomkey.documents.content.rich.tree import TEXT
from roomkey.documents.content.rich.urls import SCHEMES, is_safe
from roomkey.errors import BodyTooLarge, InvalidInput

MAX_BYTES: Final = 4 * 1024 * 1024
"""Maximum size of HTML that is read."""

MAX_NESTING: Final = 100
"""Maximum nesting of tags."""

_MARK_TAGS: Final = {BOLD: "strong", ITALIC: "em", STRIKE: "s", CODE: "code", UNDERLINE: "u"}
_TAG_MARKS: Final = {
    "strong": BOLD,
    "b": BOLD,
    "em": ITALIC,
    "i": ITALIC,
    "s": STRIKE,
    "del": STRIKE,
    "strike": STRIKE,
    "code": CODE,
    "u": UNDERLINE,
}
_ORDER: Final = (LINK, BOLD, ITALIC, STRIKE, UNDERLINE, CODE)


# --- writing ------------------------------------------------------------------------------------------


def render(parts: Sequence[Part]) -> str:
    """The parts as HTML, one block in a line."""
    return "".join(f"{_block(part)}\n" for part in parts)


def _blocks(parts: Sequence[Part]) -> str:
    return "".join(map(_block, parts))


def _block(part: Part) -> str:  # noqa: PLR0911  # one for each kind
    if part.unknown:
        return f"<div{_data('node', part.type, part.attrs)}>{_inside(part)}</div>"
    match part.type:
        case "heading":
            return f"<h{part.attrs['level']}>{_inline(part.content)}</h{part.attrs['level']}>"
        case "codeBlock":
            language = part.attrs.get("language")
            said = f' class="language-{escape(language)}"' if language else ""
            return f"<pre><code{said}>{escape(''.join(each.plain for each in part.content), quote=False)}</code></pre>"
        case "blockquote":
            return f"<blockquote>{_blocks(part.content)}</blockquote>"
        case "bulletList" | "taskList" | "orderedList":
            return _list(part)
        case "horizontalRule":
            return "<hr>"
        case "image":
            return f"<p>{_image(part)}</p>"
        case "table":
            rows = ["".join(_cell(cell) for cell in row.content) for row in part.content]
            return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
        case _:
            return f"<p>{_inline(part.content)}</p>"


def _inside(part: Part) -> str:
    return _inline(part.content) if part.is_text_block else _blocks(part.content)


def _list(part: Part) -> str:
    tag = "ol" if part.type == ORDERED_LIST else "ul"
    start = f' start="{part.attrs["start"]}"' if "start" in part.attrs else ""
    items: list[str] = []
    for item in part.content:
        box = ""
        if item.type == TASK_ITEM:
            box = f'<input type="checkbox" disabled{" checked" if item.attrs.get("checked") else ""}>'
        items.append(f"<li>{box}{_block(item) if item.unknown else _blocks(item.content)}</li>")
    return f"<{tag}{start}>{''.join(items)}</{tag}>"


def _cell(cell: Part) -> str:
    tag = "th" if cell.type == HEADER else "td"
    attrs = cast("dict[str, Any]", (cell.source or {}).get("attrs") or {})
    spans = "".join(
        f' {name}="{attrs[name]}"'
        for name in ("colspan", "rowspan")
        if isinstance(attrs.get(name), int) and attrs[name] > 1
    )
    return f"<{tag}{spans}>{_inline(cell.content)}</{tag}>"


def _image(part: Part) -> str:
    src = part.attrs.get("src", "")
    named = [
        ("src", src if is_safe(src, _IMAGE_SCHEMES) else ""),
        ("alt", part.attrs.get("alt")),
        ("title", part.attrs.get("title")),
    ]
    return f"<img{''.join(f' {name}={chr(34)}{escape(value)}{chr(34)}' for name, value in named if value is not None)}>"


_IMAGE_SCHEMES: Final = frozenset({"http", "https"})


def _inline(parts: Sequence[Part]) -> str:
    return "".join(_run(part) for part in joined(parts))


def _run(part: Part) -> str:
    if part.unknown:
        said = f"<span{_data('node', part.type, part.attrs)}></span>"
    elif part.type == BREAK:
        said = "<br>"
    elif part.type == IMAGE:
        said = _image(part)
    else:
        said = escape(part.text, quote=False)
    for mark in sorted(part.marks, key=_rank, reverse=True):
        said = _marked(said, mark)
    return said


def _rank(mark: Mark) -> tuple[int, str]:
    return _ORDER.index(mark["type"]) if mark["type"] in _ORDER else -1, mark["type"]


def _marked(said: str, mark: Mark) -> str:
    attrs = mark_attrs(mark)
    if mark["type"] == LINK and isinstance(attrs.get("href"), str):
        href = attrs["href"] if is_safe(attrs["href"]) else ""
        title = f' title="{escape(str(attrs["title"]))}"' if attrs.get("title") else ""
        return f'<a href="{escape(href)}"{title} rel="noopener noreferrer nofollow">{said}</a>'
    tag = _MARK_TAGS.get(mark["type"])
    return f"<{tag}>{said}</{tag}>" if tag else f"<span{_data('mark', mark['type'], attrs)}>{said}</span>"


def _data(kind: str, name: str, attrs: Mapping[str, Any]) -> str:
    said = f' data-attrs="{escape(msgspec.json.encode(attrs).decode())}"' if attrs else ""
    return f' data-{kind}="{escape(name)}"{said}'


# --- reading ------------------------------------------------------------------------------------------


def parse(text: str) -> list[Part]:
    """
    HTML as parts. What is not allowed is left out: scripts and styles with all in them, other tags without what is in
    them.

    Raises:
        BodyTooLarge: If it has more than ``MAX_BYTES``.
        InvalidInput: If it nests too deep; or the library is not installed.
    """
    if len(text.encode()) > MAX_BYTES:
        raise BodyTooLarge(f"HTML has at most {MAX_BYTES} bytes")
    builder = _Builder()
    builder.feed(_cleaner()(text))
    builder.close()
    return _read_blocks(builder.root.children)


@cache
def _cleaner() -> Callable[[str], str]:
    try:
        import nh3  # noqa: PLC0415  # an extra
    except ImportError:
        raise InvalidInput("HTML needs the extra `richtext`: pip install 'roomkey[richtext]'") from None
    cleaner = nh3.Cleaner(
        tags=set(_ALLOWED),
        attributes={tag: set(names) for tag, names in _ALLOWED.items() if names},
        url_schemes=set(SCHEMES),
        link_rel=None,
        strip_comments=True,
    )
    return cast("Callable[[str], str]", cleaner.clean)


_DATA: Final = ("data-node", "data-mark", "data-attrs")
_ALLOWED: Final[Mapping[str, Sequence[str]]] = {
    **dict.fromkeys(("p", "blockquote", "ul", "hr", "table", "thead", "tbody", "tfoot", "tr", "br", "pre"), ()),
    **dict.fromkeys((f"h{level}" for level in range(1, 7)), ()),
    **dict.fromkeys((*_TAG_MARKS,), ()),
    "code": ("class",),
    "div": _DATA,
    "span": _DATA,
    "ol": ("start",),
    "li": ("data-checked",),
    "th": ("colspan", "rowspan"),
    "td": ("colspan", "rowspan"),
    "a": ("href", "title"),
    "img": ("src", "alt", "title"),
    "input": ("type", "checked"),
}
_VOID: Final = frozenset({"br", "hr", "img", "input"})
_BLOCK_TAGS: Final = frozenset(
    {"p", "blockquote", "ul", "ol", "li", "hr", "table", "thead", "tbody", "tfoot", "tr", "td", "th", "pre", "div"}
    | {f"h{level}" for level in range(1, 7)}
)


class _Tag(Struct):
    name: str
    attrs: dict[str, str]
    children: "list[_Tag | str]" = field(default_factory=list["_Tag | str"])


class _Builder(HTMLParser):
    """A tree of what was cleaned, which is well formed."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = _Tag("", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        new = _Tag(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(new)
        if tag not in _VOID:
            self._open.append(new)
            if len(self._open) > MAX_NESTING:
                raise InvalidInput(f"HTML nests at most {MAX_NESTING} deep")

    def handle_endtag(self, tag: str) -> None:
        if any(each.name == tag for each in self._open[1:]):
            while self._open.pop().name != tag:
                pass

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)


def _read_blocks(children: "Sequence[_Tag | str]") -> list[Part]:
    parts: list[Part] = []
    line: list[_Tag | str] = []
    for child in [*children, None]:
        if child is not None and not _is_block(child):
            line.append(child)
            continue
        parts += _paragraph(line)
        line = []
        if isinstance(child, _Tag):
            parts += _read_block(child)
    return parts


def _is_block(child: "_Tag | str") -> bool:
    if isinstance(child, str):
        return False
    if child.name in _BLOCK_TAGS:
        return True
    return child.name != "span" and any(_is_block(inner) for inner in child.children)


def _paragraph(line: "Sequence[_Tag | str]") -> list[Part]:
    content = _read_inline(line, ())
    if not content or all(part.type == TEXT and not part.text.strip() for part in content):
        return []
    return _lifted(Part(PARAGRAPH, content=content))


def _read_block(tag: _Tag) -> list[Part]:  # noqa: PLR0911  # one for each kind
    name = tag.name
    match name:
        case "p":
            return _lifted(Part(PARAGRAPH, content=_read_inline(tag.children, ())))
        case "h1" | "h2" | "h3" | "h4" | "h5" | "h6":
            return [Part(HEADING, {"level": int(name[1])}, _read_inline(tag.children, ()))]
        case "pre":
            return [_code_block(tag)]
        case "blockquote":
            return [Part(QUOTE, content=_read_blocks(tag.children))]
        case "ul" | "ol":
            return _read_list(tag)
        case "hr":
            return [Part(RULE)]
        case "table":
            rows = [Part(ROW, content=[_read_cell(cell) for cell in _tags(row, "td", "th")]) for row in _rows(tag)]
            return [Part(TABLE, content=rows)] if rows else []
        case "div" if "data-node" in tag.attrs:
            part = Part(tag.attrs["data-node"], _attrs(tag), unknown=True)
            is_text = not any(map(_is_block, tag.children))
            part.content = _read_inline(tag.children, ()) if is_text else _read_blocks(tag.children)
            return [part]
        case _:
            return _read_blocks(tag.children)


def _lifted(paragraph: Part) -> list[Part]:
    """An image that is alone in its paragraph is a block."""
    match paragraph.content:
        case [Part(type="image", marks=[], unknown=False) as image]:
            return [Part(IMAGE, image.attrs)]
        case _:
            return [paragraph]


def _code_block(tag: _Tag) -> Part:
    inner = next((child for child in tag.children if isinstance(child, _Tag) and child.name == "code"), None)
    language = "" if inner is None else inner.attrs.get("class", "").removeprefix("language-")
    text = _text(tag)
    return Part(CODE_BLOCK, {"language": language} if language else {}, [inline_text(text)] if text else [])


def _text(tag: "_Tag | str") -> str:
    return tag if isinstance(tag, str) else "".join(map(_text, tag.children))


def _read_list(tag: _Tag) -> list[Part]:
    start = tag.attrs.get("start", "")
    attrs = {"start": int(start)} if tag.name == "ol" and re.fullmatch(r"\d{1,9}", start) and start != "1" else {}
    lists: list[Part] = []
    for child in _tags(tag, "li"):
        checked = _checked(child)
        content = _read_blocks(
            [inner for inner in child.children if not (isinstance(inner, _Tag) and inner.name == "input")]
        )
        kind = ORDERED_LIST if tag.name == "ol" else BULLET_LIST if checked is None else TASK_LIST
        if kind == TASK_LIST:
            item = Part(TASK_ITEM, {"checked": checked is True}, content)
        else:
            item = Part(LIST_ITEM, content=content)
        if lists and lists[-1].type == kind:
            lists[-1].content.append(item)
        else:
            lists.append(Part(kind, attrs, [item]))
    return lists


def _checked(item: _Tag) -> bool | None:
    if "data-checked" in item.attrs:
        return item.attrs["data-checked"] == "true"
    boxes = [child for child in item.children if isinstance(child, _Tag) and child.name == "input"]
    return "checked" in boxes[0].attrs if boxes and boxes[0].attrs.get("type") == "checkbox" else None


def _tags(tag: _Tag, *names: str) -> Iterator[_Tag]:
    return (child for child in tag.children if isinstance(child, _Tag) and child.name in names)


def _rows(table: _Tag) -> Iterator[_Tag]:
    for child in _tags(table, "tr", "thead", "tbody", "tfoot"):
        if child.name == "tr":
            yield child
        else:
            yield from _tags(child, "tr")


def _read_cell(tag: _Tag) -> Part:
    kind = HEADER if tag.name == "th" else CELL
    if not any(map(_is_block, tag.children)):
        return Part(kind, content=_read_inline(tag.children, ()))
    content: list[Part] = []
    for block in _read_blocks(tag.children):
        content += [Part(BREAK, inline=True)] * bool(content) + (
            block.content if block.is_text_block else [inline_text(block.plain)]
        )
    return Part(kind, content=joined(content))


_LINE_END: Final = re.compile(r"[ \t]*[\n\r][ \t\n\r]*")


def _read_inline(children: "Sequence[_Tag | str]", marks: Sequence[Mark]) -> list[Part]:
    parts = joined(list(_runs(children, marks)))
    # White space with a line end in it at the edge of a block only sets it out.
    if parts and parts[0].type == TEXT and not marks:
        parts[0].text = parts[0].text.removeprefix("\n")
    if parts and parts[-1].type == TEXT and not marks:
        parts[-1].text = parts[-1].text.removesuffix("\n")
    for part in parts:
        part.text = part.text.replace("\n", " ") if not marks else part.text
    return joined(parts)


def _runs(children: "Sequence[_Tag | str]", marks: Sequence[Mark]) -> Iterator[Part]:
    for child in children:
        if isinstance(child, str):
            yield inline_text(_LINE_END.sub("\n", child), sorted(marks, key=_type))
        elif child.name == "br":
            yield Part(BREAK, inline=True)
        elif child.name == "img":
            attrs = {name: child.attrs[name] for name in ("src", "alt", "title") if child.attrs.get(name)}
            yield Part(IMAGE, attrs, marks=sorted(marks, key=_type), inline=True)
        elif child.name == "span" and "data-node" in child.attrs:
            yield Part(
                child.attrs["data-node"], _attrs(child), marks=sorted(marks, key=_type), unknown=True, inline=True
            )
        else:
            mark = _mark(child)
            yield from _runs(
                child.children,
                [
                    *(
                        each
                        for each in marks
                        if mark is None or each["type"] != mark["type"] or each["type"] not in _ORDER
                    ),
                    *([mark] if mark else []),
                ],
            )


def _type(mark: Mark) -> str:
    return mark["type"]


def _mark(tag: _Tag) -> Mark | None:
    if tag.name == "a":
        attrs = {name: tag.attrs[name] for name in ("href", "title") if tag.attrs.get(name)}
        return {"type": LINK, "attrs": attrs} if "href" in attrs else None
    if tag.name in _TAG_MARKS:
        return {"type": _TAG_MARKS[tag.name]}
    if tag.name == "span" and "data-mark" in tag.attrs:
        attrs = _attrs(tag)
        return {"type": tag.attrs["data-mark"], **({"attrs": attrs} if attrs else {})}
    return None


def _attrs(tag: _Tag) -> dict[str, Any]:
    said = tag.attrs.get("data-attrs")
    if not said:
        return {}
    try:
        return msgspec.json.decode(said, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        raise InvalidInput("data-attrs must be a JSON object") from None
