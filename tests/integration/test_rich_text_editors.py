"""What the editors themselves make of rich text that was written here, and what is made here of theirs."""

import json
import subprocess
from base64 import b64decode, b64encode
from typing import Any

import pytest
from pycrdt import Doc

from roomkey.documents.content.rich.anchors import Anchor, edit
from roomkey.documents.content.rich.forms import Content, Form, read, read_tree, said
from roomkey.documents.content.rich.tree import normal_content
from tests.support.providers import CLIENTS, NODE
from tests.support.rich_text import ROOT, content_of, document, node, paragraph, text, updates_of

pytestmark = pytest.mark.skipif(
    NODE is None or not (CLIENTS / "node_modules" / "y-prosemirror").exists(),
    reason="needs Node.js, and `npm ci` in tests/clients",
)

PATIENCE_SECONDS = 60

COMMENTED = [
    paragraph(
        "plain ",
        text("twice", {"type": "comment", "attrs": {"id": "1"}}, {"type": "comment", "attrs": {"id": "2"}}),
        text(" once", "bold", {"type": "comment", "attrs": {"id": "1"}}),
    ),
    node("orderedList", node("listItem", paragraph("three")), start=3),
]


def ask(operation: str, **request: Any) -> Any:
    """What ``tests/clients/richtext.mjs`` answers."""
    asked = json.dumps({"do": operation, **request})
    command = [NODE or "", str(CLIENTS / "richtext.mjs")]
    ended = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def encoded(doc: Doc[Any]) -> str:
    return b64encode(doc.get_update()).decode()


def decoded(update: str) -> Doc[Any]:
    doc: Doc[Any] = Doc()
    doc.apply_update(b64decode(update))
    return doc


MARKDOWN = """\
# Title

Hello **bold** *it* ~~gone~~ `code` [link](https://example.com)\\
next line

- a
  1. b

* [x] done

> quoted

```js
let x
```

___

| a | b |
| --- | --- |
| c | d |
"""


def test_tiptap_shows_markdown_that_was_written_and_it_reads_as_before() -> None:
    doc: Doc[Any] = Doc()
    Content(Form.MARKDOWN, MARKDOWN, None).write(doc, ROOT)

    shown = ask("tiptap", update=encoded(doc), root=ROOT)

    blocks = [block["type"] for block in shown["content"]]
    lists = ["bulletList", "taskList"]
    assert blocks == ["heading", "paragraph", *lists, "blockquote", "codeBlock", "horizontalRule", "table"]
    assert shown["content"][0]["attrs"] == {"level": 1}
    assert said({"type": "doc", "content": shown["content"]}, Form.MARKDOWN).decode() == MARKDOWN


def test_what_tiptap_writes_is_read_as_it_was_and_marks_that_overlap_keep_their_names() -> None:
    doc = decoded(ask("tiptapWrites", content={"type": "doc", "content": COMMENTED}, root=ROOT))
    updates = updates_of(doc)

    found = content_of(doc)
    Content(Form.PROSEMIRROR, found, None).write(doc, ROOT)
    edit(doc, ROOT, [Anchor("after", "!", find="twice")])

    assert found == normal_content(COMMENTED)
    assert len(updates) == 1
    shown = ask("tiptap", update=encoded(doc), root=ROOT)["content"][0]["content"]
    assert [run["text"] for run in shown] == ["plain ", "twice!", " once"]
    assert len(shown[1]["marks"]) == 2


def test_tiptap_has_nothing_to_mend_in_what_was_written() -> None:
    doc = document([paragraph("plain ", text("bold", "bold", "italic")), *COMMENTED[1:], paragraph()])

    assert ask("tiptapMends", update=encoded(doc), root=ROOT) == 0


def lexical_text(words: str, format: int = 0) -> dict[str, Any]:
    return {"type": "text", "text": words, "format": format, "style": "", "mode": "normal", "detail": 0, "version": 1}


def lexical(type: str, *children: Any, **more: Any) -> dict[str, Any]:
    shape = {"version": 1, "direction": None, "format": "", "indent": 0}
    return {"type": type, "children": list(children), **shape, **more}


def test_lexical_shows_what_was_edited_at_an_anchor_and_written_back() -> None:
    state = {
        "root": lexical(
            "root",
            lexical("heading", lexical_text("Title", 1), tag="h2"),
            lexical("paragraph", lexical_text("Hello"), {"type": "linebreak", "version": 1}, lexical_text("you", 2)),
        )
    }
    doc = decoded(ask("lexicalWrites", state=state))
    before = read(doc, "root", Form.PROSEMIRROR)
    updates = updates_of(doc)

    Content(Form.PROSEMIRROR, before, None).write(doc, None)
    written_back = list(updates)
    edit(doc, None, [Anchor("after", ", world", find="Hello")])

    assert written_back == []
    assert said(read_tree(doc, "root"), Form.MARKDOWN).decode() == "## **Title**\n\nHello, world\\\n*you*\n"
    shown = ask("lexical", update=encoded(doc))["root"]["children"]
    assert [child.get("text") for child in shown[1]["children"]] == ["Hello, world", None, "you"]
    assert shown[0]["tag"] == "h2"
