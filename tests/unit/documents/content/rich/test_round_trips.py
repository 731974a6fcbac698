"""Nothing of a document is lost by reading it in a form and writing that back, changed or not."""

from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycrdt import Doc

from roomkey.documents.content.rich import markdown
from roomkey.documents.content.rich.forms import Content, Form, read, read_tree, said
from roomkey.documents.content.rich.parts import sign_of
from roomkey.documents.content.rich.tree import Node, normal_content
from roomkey.documents.content.rich.vocabulary import document_of
from tests.support.effort import examples
from tests.support.rich_text import (
    BLOCKNOTE,
    LEXICAL,
    ROOT,
    TIPTAP,
    content_of,
    document,
    node,
    paragraph,
    text,
    updates_of,
)

TREES = TIPTAP | BLOCKNOTE | LEXICAL
TEXT_FORMS = [Form.MARKDOWN, Form.HTML, Form.TEXT]


def write(doc: Doc[Any], form: Form, body: Any) -> None:
    Content(form, body, None).write(doc, ROOT)


@given(TREES)
@settings(max_examples=examples(40))
@example(
    [node("yjs:text", node("yjs:array", value=[1, {"a": None}]), node("yjs:string", value=[["x", {}]]), text("y"))]
)
def test_a_document_says_what_was_written_of_any_editor(tree: list[Node]) -> None:
    doc = document(tree)

    assert content_of(doc) == normal_content(tree)


@given(st.one_of(*(st.tuples(trees, trees) for trees in (TIPTAP, BLOCKNOTE, LEXICAL))))
@settings(max_examples=examples(40))
def test_a_document_that_said_something_else_says_what_was_written_and_is_not_changed_twice(
    trees: tuple[list[Node], list[Node]],
) -> None:
    before, after = trees
    doc = document(before)

    write(doc, Form.PROSEMIRROR, after)
    assert content_of(doc) == normal_content(after)

    updates = updates_of(doc)
    write(doc, Form.PROSEMIRROR, after)
    write(doc, Form.PROSEMIRROR, read(doc, ROOT, Form.PROSEMIRROR))
    assert updates == []


@given(TREES)
@settings(max_examples=examples(40))
def test_the_source_of_a_document_is_its_tree(tree: list[Node]) -> None:
    doc = document(tree)

    assert read(doc, ROOT, Form.PROSEMIRROR) == msgspec.json.encode(read_tree(doc, ROOT))


@pytest.mark.parametrize("form", TEXT_FORMS)
@given(tree=TIPTAP | BLOCKNOTE)
@settings(max_examples=examples(40))
def test_what_was_read_in_a_form_and_is_written_back_changes_nothing(form: Form, tree: list[Node]) -> None:
    doc = document(tree)
    updates = updates_of(doc)

    write(doc, form, said(read_tree(doc, ROOT), form).decode())

    assert updates == []


@pytest.mark.parametrize("form", [Form.MARKDOWN, Form.HTML])
@given(tree=TIPTAP)
@settings(max_examples=examples(40))
def test_what_is_added_in_a_form_leaves_everything_else_as_it_was(form: Form, tree: list[Node]) -> None:
    tree = [*tree, node("horizontalRule")]
    doc = document(tree)
    added = {Form.MARKDOWN: "\nadded\n", Form.HTML: "<p>added</p>"}[form]

    write(doc, form, said(read_tree(doc, ROOT), form).decode() + added)

    assert content_of(doc) == normal_content([*tree, paragraph("added")])


@pytest.mark.parametrize("form", TEXT_FORMS)
@given(tree=BLOCKNOTE)
@settings(max_examples=examples(40))
def test_what_is_added_to_blocks_leaves_all_others_as_they_were(form: Form, tree: list[Node]) -> None:
    doc = document(tree)
    before = content_of(doc)[0]["content"]
    added = {Form.MARKDOWN: "\n# added\n", Form.HTML: "<h1>added</h1>", Form.TEXT: "\n\nadded"}[form]

    before_text = said(read_tree(doc, ROOT), form).decode()
    write(doc, form, before_text + added if before_text else added.lstrip())

    after = content_of(doc)[0]["content"]
    new = [block for block in after if block not in before]
    assert [block for block in after if block in before] == before or form is Form.TEXT
    assert len(new) == 1
    assert "added" in str(new)


@given(TIPTAP)
@settings(max_examples=examples(40))
def test_markdown_that_was_written_reads_as_what_it_says(tree: list[Node]) -> None:
    parts = document_of({"type": "doc", "content": normal_content(tree)}).content

    once = markdown.render(parts)
    again = markdown.render(markdown.parse(once))

    assert again == once
    assert [sign_of(part) for part in markdown.parse(again)] == [sign_of(part) for part in markdown.parse(once)]


@pytest.mark.parametrize("form", TEXT_FORMS)
@given(tree=LEXICAL)
@settings(max_examples=examples(15))
def test_documents_of_lexical_are_read_in_every_form(form: Form, tree: list[Node]) -> None:
    doc = document(tree)

    assert isinstance(said(read_tree(doc, ROOT), form), bytes)
