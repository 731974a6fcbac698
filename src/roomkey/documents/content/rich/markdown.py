"""
Markdown: CommonMark with the tables, tasks and strikethrough of GFM; read by markdown-it, and written so that it
reads back as it was.

A block that Markdown has no form for is a comment, ``<!--roomkey:NAME:HASH/-->``, or a pair of them around what is in
it; in a line it is an image, ``![NAME](roomkey:NAME/HASH)``. The hash finds the node in the document, so that it
survives wherever its comment is left. All other HTML is text, but for the tags of the marks that there are, which are
used where no delimiter works.
"""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final, cast
from urllib.parse import quote

from roomkey.documents.content.rich.markdown_reader import SCHEME, SEPARATOR, parse, parse_line
from roomkey.documents.content.rich.parts import (
    BOLD,
    BREAK,
    BULLET_LIST,
    CODE,
    IMAGE,
    ITALIC,
    LINK,
    LISTS,
    ORDERED_LIST,
    PARAGRAPH,
    QUOTE,
    STRIKE,
    TASK_ITEM,
    TASK_LIST,
    Mark,
    Part,
    inline_text,
    joined,
    mark_attrs,
)
from roomkey.documents.content.rich.tree import TEXT, Node, attrs_of, nodes_in, signature
from roomkey.documents.content.rich.urls import is_safe
from roomkey.errors import InvalidInput

__all__ = ["comment", "hash_of", "is_visible", "nodes_by_hash", "parse", "render"]


def render(parts: Sequence[Part]) -> str:
    """The parts as Markdown, with a line end behind the last line."""
    lines = _blocks(parts)
    return "\n".join(lines) + "\n" if lines else ""


def is_visible(part: Part) -> bool:
    """Whether a block shows in Markdown: empty paragraphs do not."""
    return part.unknown or part.type != PARAGRAPH or bool(joined(part.content))


def _blocks(parts: Sequence[Part], *, tight: bool = False) -> list[str]:
    lines: list[str] = []
    before: tuple[str, int] = ("", 0)
    for part in parts:
        if not is_visible(part):
            continue
        kind = "-" if part.type in (BULLET_LIST, TASK_LIST) else part.type
        # Lists beside one another are one, unless their markers differ; so are quotes, unless a comment is between.
        turn = 1 - before[1] if kind == before[0] else 0
        if kind == QUOTE and before[0] == QUOTE:
            lines += ["", SEPARATOR]
        before = kind, turn
        said = _block(part, turn)
        if lines and not (tight and _may_follow_text(part, said[0])):
            lines.append("")
        lines += said
    return lines


def _may_follow_text(part: Part, line: str) -> bool:
    """Whether what begins with ``line`` is a list even right behind a paragraph (CommonMark, 5.3)."""
    return part.type in LISTS and not part.unknown and part.attrs.get("start", 1) == 1 and " " in line


def _block(part: Part, turn: int) -> list[str]:  # noqa: PLR0911  # one for each kind
    if part.unknown:
        return _unknown(part)
    match part.type:
        case "heading":
            return [f"{'#' * part.attrs['level']} {_closed(_inline(part.content, single=True))}".rstrip(" ")]
        case "codeBlock":
            return _code_block(part)
        case "blockquote":
            return [f"> {line}".rstrip(" ") for line in _blocks(part.content)] or [">"]
        case "bulletList" | "orderedList" | "taskList":
            return _list(part, turn)
        case "horizontalRule":
            return ["___"]
        case "table":
            return _table(part)
        case "image":
            return [_image(part)]
        case _:
            return _inline(part.content).split("\n")


def _unknown(part: Part) -> list[str]:
    name = quote(part.type, safe="")
    if not part.content:
        return [comment(part)]
    return [f"<!--roomkey:{name}:{_hash_of(part)}-->", "", *_inner(part), "", f"<!--/roomkey:{name}-->"]


def _inner(part: Part) -> list[str]:
    if part.is_text_block:
        return _inline(part.content).split("\n") if joined(part.content) else []
    return _blocks(part.content)


def comment(part: Part) -> str:
    """What stands for a node without parts."""
    return f"<!--roomkey:{quote(part.type, safe='')}:{_hash_of(part)}/-->"


def _hash_of(part: Part) -> str:
    if part.source is None:
        return str(part.attrs.get("hash", ""))
    return hash_of(part.source, whole=not part.content)


def hash_of(node: Node, *, whole: bool) -> str:
    """What finds a node again: made of all of it, or of its type and attributes."""
    said = signature(node if whole else {"type": node["type"], "attrs": attrs_of(node)})
    return sha256(said).hexdigest()[:12]


def nodes_by_hash(tree: Node) -> dict[tuple[str, bool], Node]:
    """The nodes of a tree by their hash, and by whether it is made of all of it."""
    return {
        (hash_of(node, whole=whole), whole): node
        for node in nodes_in(tree)
        if node["type"] != TEXT
        for whole in (True, False)
    }


def _closed(text: str) -> str:
    # A heading may end with number signs, which are not part of it.
    return text[:-1] + "\\#" if text.endswith("#") else text


def _code_block(part: Part) -> list[str]:
    text = "".join(inner.plain for inner in part.content)
    language = part.attrs.get("language", "")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    said = _escaped(language) if re.fullmatch(r"[^\s`]+", language) else ""
    return [fence + said, *(text.split("\n") if text else []), fence]


def _list(part: Part, turn: int) -> list[str]:
    lines: list[str] = []
    number = part.attrs.get("start", 1)
    is_loose = any(_is_loose(item) for item in part.content)
    for item in part.content:
        marker = f"{number}{'.)'[turn]}" if part.type == ORDERED_LIST else "-*"[turn]
        number += 1
        if is_loose and lines:
            lines.append("")
        lines += _item(item, marker)
    return lines


def _is_loose(item: Part) -> bool:
    visible = [part for part in item.content if is_visible(part)]
    return any(part.type not in LISTS or part.unknown for part in visible[1:])


def _item(item: Part, marker: str) -> list[str]:
    inside = _unknown(item) if item.unknown else _blocks(item.content, tight=not _is_loose(item))
    if item.type == TASK_ITEM:
        box = "[x]" if item.attrs.get("checked") else "[ ]"
        first = next((part for part in item.content if is_visible(part)), None)
        is_text = first is not None and first.type == PARAGRAPH and not first.unknown
        inside = [f"{box} {inside[0]}", *inside[1:]] if is_text else [box, *([""] if inside else []), *inside]
    if not inside:
        return [marker]
    indent = " " * (len(marker) + 1)
    return [f"{marker} {inside[0]}", *(indent + line if line else "" for line in inside[1:])]


def _table(part: Part) -> list[str]:
    rows = [[_cell(cell) for cell in row.content] for row in part.content]
    width = max(map(len, rows), default=0)
    if not width or _is_irregular(part, width):
        return [comment(Part(part.type, source=part.source, attrs=part.attrs))]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], f"|{' --- |' * width}", *lines[1:]]


def _is_irregular(part: Part, width: int) -> bool:
    """Whether rows differ in length, or cells span others, which GFM cannot say."""
    if any(len(row.content) != width or row.unknown for row in part.content):
        return True
    cells = [cell for row in part.content for cell in row.content]
    return any(attrs_of(cell.source or {}).get(span, 1) != 1 for cell in cells for span in ("colspan", "rowspan"))


def _cell(cell: Part) -> str:
    return _inline(cell.content, single=True).replace("|", "\\|")


def _image(part: Part) -> str:
    return f"![{_escaped(part.attrs.get('alt', ''))}]({_target(part.attrs.get('src', ''), part.attrs.get('title'))})"


def _target(url: str, title: str | None) -> str:
    said = url.replace("\n", "%0A").replace("\r", "%0D")
    if not said or re.search(r"[\s()<>\\]", said):
        said = "<" + re.sub(r"([\\<>])", r"\\\1", said) + ">"
    said = re.sub(r"&(?=#|\w)", "&amp;", said)
    return f'{said} "{_escaped(title, quotes=True)}"' if title else said


# --- writing what is in a line ------------------------------------------------------------------------

_DELIMITERS: Final = {BOLD: ("**", "**"), ITALIC: ("*", "*"), STRIKE: ("~~", "~~")}
_TAGS: Final = {
    BOLD: ("<strong>", "</strong>"),
    ITALIC: ("<em>", "</em>"),
    STRIKE: ("<del>", "</del>"),
    CODE: ("<code>", "</code>"),
}
_ORDER: Final = (LINK, BOLD, ITALIC, STRIKE)


def _inline(parts: Sequence[Part], *, single: bool = False) -> str:
    """What is in a text block; ``single``: in one line."""
    runs = _trimmed(_visible_runs(parts))
    if not any(run.marks for run in runs):
        return _line_starts(_joined_runs(runs, _DELIMITERS, single=single))
    said = _line_starts(_joined_runs(runs, _DELIMITERS, single=single))
    if not _is_plain_sailing(runs) and not _reads_as(said, runs):
        said = _line_starts(_joined_runs(runs, _TAGS, single=single))
    return said


def _visible_runs(parts: Sequence[Part]) -> list[Part]:
    runs: list[Part] = []
    for part in joined(parts):
        marks = [mark for mark in part.marks if _is_sayable(mark)]
        marks.sort(key=lambda mark: mark["type"])
        runs.append(
            Part(part.type, part.attrs, part.content, part.text, marks, part.unknown, inline=True, source=part.source)
        )
    return joined(runs)


def _is_sayable(mark: Mark) -> bool:
    if mark["type"] == LINK:
        return is_safe(str(mark_attrs(mark).get("href", "")))
    return mark["type"] in _TAGS


def _trimmed(runs: list[Part]) -> list[Part]:
    """Runs in which emphasis neither begins nor ends with white space, for it would be none."""
    found: list[Part] = []
    for index, run in enumerate(runs):
        if run.type != TEXT or not run.marks:
            found.append(run)
            continue
        before = runs[index - 1].marks if index else []
        after = runs[index + 1].marks if index + 1 < len(runs) else []
        text = run.text
        lead, trail = len(text) - len(text.lstrip()), len(text) - len(text.rstrip()) if text.strip() else 0
        found.append(inline_text(text[:lead], [mark for mark in run.marks if mark in before or not _is_emphasis(mark)]))
        found.append(inline_text(text[lead : len(text) - trail], run.marks))
        found.append(
            inline_text(
                text[len(text) - trail :], [mark for mark in run.marks if mark in after or not _is_emphasis(mark)]
            )
        )
    found = joined(found)
    # What was white space between others may be at the edge now.
    return (
        found
        if [run.marks for run in found] == [run.marks for run in runs] and len(found) == len(runs)
        else _trimmed(found)
    )


def _is_emphasis(mark: Mark) -> bool:
    return mark["type"] in _DELIMITERS


def _is_plain_sailing(runs: Sequence[Part]) -> bool:
    """Whether every delimiter stands between a word and white space, and none beside another."""
    before = ""
    for index, run in enumerate(runs):
        after = runs[index + 1] if index + 1 < len(runs) else None
        if run.type != TEXT or run.unknown:
            if run.marks:
                return False
            before = " "
            continue
        if any(_is_emphasis(mark) for mark in run.marks):
            nearby = len(run.marks) == 1 and not (after is not None and after.marks)
            inside = run.text[0].isalnum() and run.text[-1].isalnum()
            outside = (not before or before.isspace()) and (after is None or not after.text or after.text[0].isspace())
            if not (nearby and inside and outside):
                return False
            before = "*"
        else:
            before = run.text[-1] if not run.marks else ")"
    return True


def _reads_as(said: str, runs: Sequence[Part]) -> bool:
    """Whether Markdown that was written reads as what it was written of."""
    try:
        found = parse_line(said)
    except InvalidInput:
        return False
    return [(run.type, run.text, _types(run)) for run in found] == [(run.type, run.text, _types(run)) for run in runs]


def _types(run: Part) -> list[str]:
    return sorted(mark["type"] for mark in run.marks)


def _joined_runs(runs: Sequence[Part], delimiters: Mapping[str, tuple[str, str]], *, single: bool) -> str:
    said: list[str] = []
    opened: list[Mark] = []
    for index, run in enumerate(runs):
        wanted = sorted(
            (mark for mark in run.marks if mark["type"] != CODE), key=lambda mark: _ORDER.index(mark["type"])
        )
        common = 0
        while common < min(len(opened), len(wanted)) and opened[common] == wanted[common]:
            common += 1
        said += [_end(mark, delimiters) for mark in reversed(opened[common:])]
        if said and said[-1].endswith("!") and any(mark["type"] == LINK for mark in wanted[common:]):
            said[-1] = said[-1][:-1] + "\\!"  # or the link would be an image
        said += [_begin(mark, delimiters) for mark in wanted[common:]]
        opened = wanted
        said.append(_run(run, delimiters, is_edge=single or index in (0, len(runs) - 1)))
    said += [_end(mark, delimiters) for mark in reversed(opened)]
    return _edges("".join(said))


def _begin(mark: Mark, delimiters: Mapping[str, tuple[str, str]]) -> str:
    return "[" if mark["type"] == LINK else delimiters[mark["type"]][0]


def _end(mark: Mark, delimiters: Mapping[str, tuple[str, str]]) -> str:
    if mark["type"] != LINK:
        return delimiters[mark["type"]][1]
    attrs = mark_attrs(mark)
    return f"]({_target(str(attrs.get('href', '')), cast('str | None', attrs.get('title')))})"


def _run(run: Part, delimiters: Mapping[str, tuple[str, str]], *, is_edge: bool) -> str:
    if run.unknown:
        return f"![{_escaped(run.type)}]({SCHEME}{quote(run.type, safe='')}/{_hash_of(run)})"
    if run.type == BREAK:
        return "<br>" if is_edge else "\\\n"
    if run.type == IMAGE:
        return _image(run)
    if any(mark["type"] == CODE for mark in run.marks):
        return _code(run.text, delimiters)
    return _escaped(run.text)


def _code(text: str, delimiters: Mapping[str, tuple[str, str]]) -> str:
    if "\n" in text or "\r" in text or not text.strip() or delimiters is _TAGS:
        return f"<code>{_escaped(text)}</code>"
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text[0] == "`" or text[-1] == "`" or (text[0] == text[-1] == " ") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


_SPECIAL: Final = re.compile(r"[`*\[\]<~]|\\(?=[!-/:-@\[-`{-~\n]|$)|&(?=#|\w)|!(?=\[)|(?<![^\W_])_|_(?![^\W_])")


def _escaped(text: str, *, quotes: bool = False) -> str:
    said = _SPECIAL.sub(r"\\\g<0>", text)
    if quotes:
        said = said.replace('"', '\\"')
    return said.replace("\n", "&#10;").replace("\r", "&#13;")


def _edges(said: str) -> str:
    """White space at the beginning and end of lines as entities, or it would be lost."""
    return "\n".join(_edge(line) for line in said.split("\n"))


def _edge(line: str) -> str:
    if line and line[0].isspace():
        line = f"&#{ord(line[0])};{line[1:]}"
    if line and line[-1].isspace():
        line = f"{line[:-1]}&#{ord(line[-1])};"
    elif len(line) > 1 and line[-1] == "\\" and line[-2].isspace() and line.count("\\") % 2:
        line = f"{line[:-2]}&#{ord(line[-2])};\\"  # in front of a break
    return line


_STARTS: Final = re.compile(r"[-+=>#|:]|\d{1,9}(?=[.)](?:\s|$))")


def _line_starts(said: str) -> str:
    """``said`` without anything that would begin another kind of block at the beginning of a line."""
    return "\n".join(_line_start(line) for line in said.split("\n"))


def _line_start(line: str) -> str:
    if line == "<br>":  # alone in its line a tag begins a block (CommonMark, 4.6)
        return f"<br>{SEPARATOR}"
    found = _STARTS.match(line)
    if found is None:
        return line
    return f"{found[0]}\\{line[found.end() :]}" if found[0].isdigit() else f"\\{line}"
