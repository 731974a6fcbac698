"""Minimal changes: what stays is not touched, and what cannot be made is refused."""

from typing import Any

import pytest
from pycrdt import Doc, Map, XmlElement, XmlFragment, XmlText

from roomkey.documents.content.rich.forms import Content, Form, find_rich_root, rich_root
from roomkey.documents.content.rich.marks import hashed_name
from roomkey.documents.content.rich.tree import Probe, probe
from roomkey.errors import InvalidInput
from tests.support.rich_text import ROOT, content_of, document, node, paragraph, text, updates_of


def write(doc: Doc[Any], *content: Any) -> None:
    Content(Form.PROSEMIRROR, list(content), None).write(doc, ROOT)


def typed(doc: Doc[Any], *path: int) -> XmlText:
    found: Any = doc.get(ROOT, type=XmlFragment)
    for index in path:
        found = found.children[index]
    return found


def test_a_word_that_changes_between_blocks_that_come_and_go_leaves_the_text_it_is_in() -> None:
    doc = document([paragraph("first"), paragraph("the second one"), paragraph("third")])
    kept = typed(doc, 1, 0)
    kept.format(0, 3, {"comment": {}})

    write(doc, node("heading", text("new"), level=1), paragraph(text("the", "comment"), " 2nd one"), paragraph("third"))

    assert typed(doc, 1, 0) == kept
    assert str(kept) == "<comment>the</comment> 2nd one"


def test_a_block_with_an_id_is_the_one_of_that_id_whatever_it_says() -> None:
    doc = document([node("block", text("alpha"), id="1"), node("block", text("beta"), id="2")])
    second = typed(doc, 1)

    write(doc, node("block", text("alpha too"), id="2"))

    assert typed(doc, 0) == second


def test_what_somebody_types_at_the_same_time_in_the_same_paragraph_is_kept() -> None:
    doc = document([paragraph("one two three")])
    other: Doc[Any] = Doc()
    other.apply_update(doc.get_update())
    typed(other, 0, 0).insert(3, "!")

    write(doc, paragraph("one two ", text("3", "bold")))
    doc.apply_update(other.get_update())

    assert content_of(doc) == [paragraph("one! two ", text("3", "bold"))]


def test_attributes_that_are_null_say_nothing_and_numbers_are_what_javascript_has() -> None:
    doc = document([node("heading", text("a"), level=1, ratio=1.5, open=True, style=None, deep={"a": [1, None]})])
    updates = updates_of(doc)

    write(doc, node("heading", text("a"), level=1.0, ratio=1.5, open=True, deep={"a": [1, None]}))

    assert updates == []
    assert content_of(doc)[0]["attrs"] == {"level": 1, "ratio": 1.5, "open": True, "deep": {"a": [1, None]}}


def test_marks_that_overlap_are_called_as_the_document_calls_them() -> None:
    doc: Doc[Any] = Doc()
    doc[ROOT] = XmlFragment([XmlElement("paragraph", {}, [XmlText("one two")])])
    typed(doc, 0, 0).format(0, 3, {"comment--AAAABBBB": {"id": 1}})

    write(
        doc,
        paragraph(
            text("one two", {"type": "comment", "attrs": {"id": 1}}), text("!", {"type": "comment", "attrs": {"id": 2}})
        ),
    )

    other = hashed_name("comment", {"id": 2})
    assert [formats for _, formats in typed(doc, 0, 0).diff()] == [{"comment--AAAABBBB": {"id": 1}}, {other: {"id": 2}}]


def test_a_hash_is_the_one_that_y_prosemirror_makes() -> None:
    attrs = {"id": 5, "x": None, "f": 1.5, "t": True, "l": [-70, 100000]}

    assert hashed_name("comment", attrs) == "comment--JsVucnZ/"


def test_texts_beside_one_another_are_left_alone_until_they_change() -> None:
    doc: Doc[Any] = Doc()
    doc[ROOT] = XmlFragment([XmlElement("paragraph", {}, [XmlText("one "), XmlText("two")])])
    updates = updates_of(doc)

    write(doc, paragraph("one two"))
    assert updates == []

    write(doc, paragraph("one three"))
    assert content_of(doc) == [paragraph("one three")]


def test_what_cannot_be_said_in_json_is_kept_or_removed_but_not_made() -> None:
    opaque = {"type": "yjs:opaque", "attrs": {"kind": "Doc"}}
    doc: Doc[Any] = Doc()

    with pytest.raises(InvalidInput, match="not made"):
        write(doc, paragraph("a"), opaque)


def test_types_within_a_text_are_edited_where_they_are() -> None:
    inner = node("yjs:text", text("inner"), __type="listitem")
    doc = document([node("yjs:text", node("yjs:map", value={"a": 1}), inner, __type="list")])
    updates = updates_of(doc)

    inner = node("yjs:text", text("inners"), __type="listitem")
    write(doc, node("yjs:text", node("yjs:map", value={"a": 1}), inner, __type="list"))

    assert len(updates[0]) < 40


def test_roots_are_told_apart_by_what_is_in_them() -> None:
    doc: Doc[Any] = document([paragraph("a")], "page")
    doc["settings"] = Map({"a": 1})
    doc["plain"] = other = XmlFragment()
    assert other is not None
    copy: Doc[Any] = Doc()
    copy.apply_update(doc.get_update())

    kinds = {name: probe(copy, name) for name in ("page", "settings", "nothing")}

    assert kinds == {"page": Probe.RICH, "settings": Probe.OTHER, "nothing": Probe.EMPTY}
    assert rich_root(copy, None) == "page"
    assert find_rich_root(copy, "nothing") == "nothing"
    with pytest.raises(InvalidInput, match="no rich text"):
        rich_root(copy, "settings")
