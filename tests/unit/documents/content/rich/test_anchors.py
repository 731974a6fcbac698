"""Edits at an anchor: what is found, what stays, and what is read of a large document."""

from typing import Any

import pytest
from pycrdt import Doc

from roomkey.documents.content.rich.anchors import Anchor, edit
from roomkey.documents.content.rich.forms import Form, read_tree, said
from roomkey.documents.content.rich.tree import normal_content
from roomkey.errors import SchemaViolation
from tests.support.rich_text import ROOT, content_of, document, lexical, lexical_text, node, paragraph, text, updates_of

BREAK = node("hardBreak")


def plain(doc: Doc[Any]) -> str:
    return said(read_tree(doc, ROOT), Form.TEXT).decode()


def markdown(doc: Doc[Any]) -> str:
    return said(read_tree(doc, ROOT), Form.MARKDOWN).decode()


@pytest.mark.parametrize(
    ("anchor", "expected"),
    [
        (Anchor("replace", "X", find="bold"), [text("a "), text("X", "bold"), text(" c")]),
        (Anchor("after", "X", find="bold"), [text("a "), text("boldX", "bold"), text(" c")]),
        (Anchor("before", "X", find="bold"), [text("a "), text("Xbold", "bold"), text(" c")]),
        (Anchor("replace", "X", find="a bold"), [text("X c")]),
        (Anchor("replace", "", find="bold"), [text("a  c")]),
        (Anchor("after", "X", at="start"), [text("Xa "), text("bold", "bold"), text(" c")]),
        (Anchor("after", "X", at="end"), [text("a "), text("bold", "bold"), text(" cX")]),
        (Anchor("after", "\nX", find="c"), [text("a "), text("bold", "bold"), text(" c"), BREAK, text("X")]),
    ],
)
def test_new_text_is_formatted_as_what_is_beside_it(anchor: Anchor, expected: list[Any]) -> None:
    doc = document([paragraph("a ", text("bold", "bold"), " c")])

    edit(doc, ROOT, [anchor])

    assert content_of(doc) == [paragraph(*expected)]


def test_an_anchor_goes_over_marks_and_breaks_and_counts_as_plain_text_does() -> None:
    doc = document([paragraph("one", BREAK, text("two", "bold"), node("mention", id="a"), "😀 three")])

    edit(doc, ROOT, [Anchor("replace", "X", find="one\ntwo"), Anchor("after", "!", find="😀")])

    assert plain(doc) == "X\N{OBJECT REPLACEMENT CHARACTER}😀! three"


def test_line_ends_in_code_are_characters() -> None:
    doc = document([node("codeBlock", text("a\nb"))])

    edit(doc, ROOT, [Anchor("after", "\nc", find="b")])

    assert content_of(doc) == [node("codeBlock", text("a\nb\nc"))]


def test_blocks_go_around_the_block_at_the_top_in_the_vocabulary_of_the_document() -> None:
    lists = node("bullet_list", node("list_item", paragraph("deep")))
    doc = document([paragraph(text("a", "strong")), lists, paragraph("z")])

    edit(doc, ROOT, [Anchor("before", "**x**", find="deep", form=Form.MARKDOWN)])
    edit(doc, ROOT, [Anchor("after", "1. y", find="deep", form=Form.MARKDOWN)])
    edit(doc, ROOT, [Anchor("replace", "<h2>end</h2>", find="z", form=Form.HTML)])

    ordered = node("ordered_list", node("list_item", paragraph("y")))
    assert content_of(doc) == [
        paragraph(text("a", "strong")),
        paragraph(text("x", "strong")),
        lists,
        ordered,
        node("heading", text("end"), level=2),
    ]


def test_blocks_of_blocknote_go_into_its_group_with_ids_of_their_own() -> None:
    first = node("blockContainer", paragraph("a"), id="1")
    doc = document([node("blockGroup", first, node("blockContainer", paragraph("b"), id="2"))])

    for _ in range(2):
        edit(doc, ROOT, [Anchor("after", "same", find="a", occurrence=1, form=Form.MARKDOWN)])

    blocks = content_of(doc)[0]["content"]
    assert [block["content"][0]["content"][0]["text"] for block in blocks] == ["a", "same", "same", "b"]
    assert len({block["attrs"]["id"] for block in blocks}) == 4


def test_texts_of_lexical_keep_the_state_in_front_of_them() -> None:
    before = [lexical("paragraph", *lexical_text("Hello", 1), *lexical_text(" you"))]
    doc = document(before)

    edit(doc, ROOT, [Anchor("replace", "Hi", find="Hello"), Anchor("after", "\n!", find="you")])

    line_break = node("yjs:map", value={"__type": "linebreak"})
    after = [lexical("paragraph", *lexical_text("Hi", 1), *lexical_text(" you"), line_break, text("!"))]
    assert content_of(doc) == normal_content(after)


@pytest.mark.parametrize("find", ["c\n\nd", "nothing", "c"])
def test_what_is_not_there_once_within_a_block_is_refused(find: str) -> None:
    doc = document([paragraph("c c"), paragraph("d")])

    with pytest.raises(SchemaViolation) as refused:
        edit(doc, ROOT, [Anchor("replace", "x", find=find)])

    assert refused.value.flaws[0].pointer == "#/edits/0/find"


def test_an_occurrence_is_counted_over_the_whole_document() -> None:
    doc = document([paragraph("c c"), paragraph("c")])

    edit(doc, ROOT, [Anchor("replace", "x", find="c", occurrence=3), Anchor("replace", "y", find="c", occurrence=2)])

    assert plain(doc) == "c y\n\nx"


def test_what_others_change_between_two_edits_is_seen() -> None:
    doc = document([paragraph("one"), paragraph("two")])
    edit(doc, ROOT, [Anchor("after", "!", find="one")])
    other: Doc[Any] = Doc()
    other.apply_update(doc.get_update())
    edit(other, ROOT, [Anchor("replace", "three", find="two")])
    edit(other, ROOT, [Anchor("before", "zero", at="start", form=Form.MARKDOWN)])

    doc.apply_update(other.get_update())
    edit(doc, ROOT, [Anchor("after", "?", find="three")])
    edit(doc, ROOT, [Anchor("after", "?", find="zero")])

    assert markdown(doc) == "zero?\n\none!\n\nthree?\n"


def test_an_edit_writes_what_it_changes_and_nothing_else() -> None:
    doc = document([paragraph(f"block {number}") for number in range(200)])
    updates = updates_of(doc)

    edit(doc, ROOT, [Anchor("replace", "thing", find="block 150")])

    assert len(updates) == 1
    assert len(updates[0]) < 100
