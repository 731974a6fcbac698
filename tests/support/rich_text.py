"""Rich text as editors write it, drawn by Hypothesis: trees of Tiptap's StarterKit, of BlockNote and of Lexical."""
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# What a lambda is given is known to the strategy beside it only.

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from pycrdt import Doc

from roomkey.documents.content.rich.forms import Content, Form, read_tree
from roomkey.documents.content.rich.tree import Node, children_of, normal_content

ROOT = "default"

WORDS = st.text(alphabet="ab Z9ä😀*_[]<>&\\`~|#-+=!.():\"'", min_size=1, max_size=12)


def text(words: str, *marks: str | Node) -> Node:
    """A run of text."""
    said = [{"type": mark} if isinstance(mark, str) else mark for mark in marks]
    return {"type": "text", "text": words, **({"marks": said} if said else {})}


def node(type: str, /, *content: Node, **attrs: Any) -> Node:
    """A node with something in it."""
    return {"type": type, **({"attrs": attrs} if attrs else {}), **({"content": list(content)} if content else {})}


def paragraph(*content: Node | str, **attrs: Any) -> Node:
    """A paragraph."""
    return node("paragraph", *(text(each) if isinstance(each, str) else each for each in content), **attrs)


def document(content: Sequence[Node], root: str = ROOT) -> Doc[Any]:
    """A document that says ``content``."""
    doc: Doc[Any] = Doc()
    Content(Form.PROSEMIRROR, list(content), None).write(doc, root)
    return doc


def content_of(doc: Doc[Any], root: str = ROOT) -> list[Node]:
    """What a document says."""
    return normal_content(children_of(read_tree(doc, root)))


def updates_of(doc: Doc[Any]) -> list[bytes]:
    """The updates that changes of ``doc`` make from now on."""
    updates: list[bytes] = []
    doc.observe(lambda event: updates.append(event.update))
    return updates


# --- Tiptap -------------------------------------------------------------------------------------------

_COMMENTS = st.sampled_from(["c1", "c2"]).map(lambda name: {"type": "comment", "attrs": {"id": name}})
_LINKS = st.sampled_from(["https://a.b/c", "/d?e=f&g", "mailto:a@b.c"]).map(
    lambda href: {"type": "link", "attrs": {"href": href, "target": "_blank", "class": None}}
)
_MARKS = st.lists(
    st.sampled_from([{"type": name} for name in ("bold", "italic", "strike", "code", "underline")])
    | _COMMENTS
    | _LINKS,
    max_size=3,
    unique_by=lambda mark: (mark["type"], str(mark.get("attrs")) if mark["type"] == "comment" else ""),
)
_RUNS = st.builds(text, WORDS) | st.builds(lambda words, marks: text(words, *marks), WORDS, _MARKS)
_INLINE = st.lists(
    _RUNS
    | st.just(node("hardBreak"))
    | st.builds(lambda name: node("mention", id=name), st.sampled_from(["ada", "bob"])),
    max_size=4,
)
_ALIGNED = st.sampled_from([{}, {"textAlign": "center"}])


def _block(type: str, **attrs: Any) -> st.SearchStrategy[Node]:
    return st.builds(lambda content, extra: node(type, *content, **attrs, **extra), _INLINE, _ALIGNED)


_PARAGRAPHS = _block("paragraph")
_TEXT_BLOCKS = (
    _PARAGRAPHS
    | st.integers(1, 6).flatmap(lambda level: _block("heading", level=level))
    | st.builds(
        lambda words, language: node("codeBlock", *([text(words)] if words else []), language=language),
        st.text(alphabet="a b\n`", max_size=10),
        st.sampled_from([None, "py"]),
    )
)
_LEAVES = _TEXT_BLOCKS | st.just(node("horizontalRule")) | st.just(node("video", src="v"))


def _holders(blocks: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    some = st.lists(blocks, min_size=1, max_size=3)
    item = st.builds(lambda first, rest: [first, *rest], _PARAGRAPHS, st.lists(blocks, max_size=2))
    items = st.lists(item, min_size=1, max_size=3)
    return (
        st.builds(lambda content: node("blockquote", *content), some)
        | st.builds(lambda content: node("callout", *content, kind="warn"), some)
        | st.builds(lambda content: node("bulletList", *(node("listItem", *each) for each in content)), items)
        | st.builds(
            lambda content, start: node(
                "orderedList", *(node("listItem", *each) for each in content), start=start, type=None
            ),
            items,
            st.integers(1, 12),
        )
        | st.builds(
            lambda content, checked: node("taskList", *(node("taskItem", *each, checked=checked) for each in content)),
            items,
            st.booleans(),
        )
        | st.lists(_rows("tableHeader"), min_size=1, max_size=1).flatmap(
            lambda head: st.lists(_rows("tableCell"), max_size=2).map(lambda rows: node("table", *head, *rows))
        )
    )


def _rows(kind: str) -> st.SearchStrategy[Node]:
    cell = st.builds(lambda content: node(kind, content, colspan=1, rowspan=1, colwidth=None), _PARAGRAPHS)
    return st.builds(lambda cells: node("tableRow", *cells), st.lists(cell, min_size=2, max_size=2))


TIPTAP = st.lists(st.recursive(_LEAVES, _holders, max_leaves=5), max_size=5)

# --- BlockNote ----------------------------------------------------------------------------------------

_COLOURED = st.sampled_from([{}, {"textColor": "red", "backgroundColor": "default"}])
_BLOCKNOTE_RUNS = st.lists(
    st.builds(
        lambda words, marks: text(words, *marks),
        WORDS,
        st.lists(
            st.sampled_from(
                [{"type": "bold"}, {"type": "italic"}, {"type": "textColor", "attrs": {"stringValue": "blue"}}]
            ),
            max_size=2,
            unique_by=str,
        ),
    ),
    max_size=3,
)


def _content(type: str, **attrs: Any) -> st.SearchStrategy[Node]:
    return st.builds(lambda content, extra: node(type, *content, **attrs, **extra), _BLOCKNOTE_RUNS, _COLOURED)


_BLOCKNOTE_CONTENT = (
    _content("paragraph")
    | _content("heading", level=2)
    | _content("bulletListItem")
    | _content("numberedListItem")
    | _content("checkListItem", checked=True)
    | _content("quote")
    | st.just(node("image", url="https://a.b/c.png", name="c", caption="", previewWidth=512))
    | st.just(node("alert", kind="info"))
)


def _containers(children: st.SearchStrategy[list[Node]]) -> st.SearchStrategy[list[Node]]:
    one = st.builds(
        lambda content, nested: node("blockContainer", content, *([node("blockGroup", *nested)] if nested else [])),
        _BLOCKNOTE_CONTENT,
        children,
    )
    return st.lists(one, min_size=1, max_size=3)


def _with_ids(group: Node, prefix: str = "b") -> Node:
    said = {**group}
    if group["type"] == "blockContainer":
        said["attrs"] = {"id": prefix}
    if group["type"] in ("blockGroup", "blockContainer"):
        said["content"] = [
            _with_ids(child, f"{prefix}-{index}") for index, child in enumerate(group.get("content", []))
        ]
    return said


BLOCKNOTE = st.recursive(st.just([]), _containers, max_leaves=6).map(
    lambda containers: [_with_ids(node("blockGroup", *(containers or [node("blockContainer", paragraph())])))]
)

# --- Lexical ------------------------------------------------------------------------------------------


def lexical_text(words: str, format: int = 0) -> list[Node]:
    """A text node of Lexical: its state, and what it says."""
    state = {"__type": "text", "__format": format, "__style": "", "__mode": 0, "__detail": 0}
    return [node("yjs:map", value=state), text(words)]


def lexical(type: str, *content: Node, **attrs: Any) -> Node:
    """A node of Lexical with others in it."""
    said = {"__type": type, "__dir": "ltr", "__indent": 0, **{f"__{name}": value for name, value in attrs.items()}}
    return {"type": "yjs:text", "attrs": said, **({"content": list(content)} if content else {})}


_LINE_BREAK = [node("yjs:map", value={"__type": "linebreak"})]
_MENTION = [{"type": "UNDEFINED", "attrs": {"__type": "mention", "__name": "Ada"}}]
_LEXICAL_INLINE = st.lists(
    st.builds(lexical_text, WORDS, st.integers(0, 31))
    | st.just(_LINE_BREAK)
    | st.just(_MENTION)
    | st.builds(lambda run: [lexical("link", *run, url="https://a.b")], st.builds(lexical_text, WORDS)),
    max_size=3,
).map(lambda runs: [each for run in runs for each in run])
_LEXICAL_BLOCKS = (
    st.builds(lambda content: lexical("paragraph", *content), _LEXICAL_INLINE)
    | st.builds(lambda content: lexical("heading", *content, tag="h2"), _LEXICAL_INLINE)
    | st.builds(lambda content: lexical("quote", *content), _LEXICAL_INLINE)
    | st.builds(lambda content: lexical("poll", *content, question="?"), _LEXICAL_INLINE)
)
_LEXICAL_LISTS = st.builds(
    lambda items: lexical("list", *(lexical("listitem", *item, value=1) for item in items), listType="number", start=1),
    st.lists(_LEXICAL_INLINE, min_size=1, max_size=3),
)
LEXICAL = st.lists(_LEXICAL_BLOCKS | _LEXICAL_LISTS, max_size=4)
