"""A document that BlockNote 0.55 has written, recorded: its packages do not go together with those of other editors."""

import zlib
from base64 import b64decode
from typing import Any

import pytest
from pycrdt import Doc

from roomkey.documents.content.rich.forms import Content, Form, read_tree, rich_root, said
from roomkey.documents.content.rich.tree import children_of
from tests.support.rich_text import updates_of

BLOCKNOTE = (
    "eNqFlc1u00AUhTtx2tCKtmEBomEX0VAkprUT22OXFQkSQhiEUFPW85tYmdqR45BWVXaIvAGvxBOxBtcet1WdODvPmTvX37lnLIPz33///dnZqI"
    "E9FtLpBQ9iOInDiGs7RIZ09CEKp+PaRlak7aVaLwxi7Ac8UjrQakOOmR8MlFDZqmYP2uaZH0t+pOR9gulokHQMWC+UYQRmNcYFnso4r9iO+WW8"
    "Ym/3Zu+d9AfBDSWYVSUXt5ubkv/gEswrufDYn5yFg4HkmEgOrpQMKj4Ds5eMiES3BbR1YUNTJxbEnFtQWFabGKZuGIgvlLflnvcTfSoljz1/En"
    "+M+YXS67n1J1oY5Mbra43XS4zXlxrP8OpLYnq+AvlA26VDTkcPiBs58QstnoXqnY21xI0S4kZZVI1aSsEZuFTKQRYKdXTmWI4JdRNRaNrIhA4h"
    "FCKX6AJ3DOYgW53Yz04QphtCF0mxiTg0O0yHxHQo7OiC6Aw5FHfE4jauZTM51LbHOMKDCI+HSmptbWUPr6oklKxyPf+VLo/uDD+9bk7iKLnv51"
    "hOefO0GXHWnP9My15rySI78SZtUA2Se5IJ8K7FPfW4Kv1g9Oy6OYy4SJoN43g8OT05uTy+ypueAFWrp7XpYTWK1tqkWiVJtcqSOsymLEjHtbCj"
    "QxdRC5qWwNBltA1tykwHU4MjQhdqmsunbGub8c1nqJZIe5Quv4UzpTjadqr0uJRKcrW9VPr6IJ7T/Lq+BVhxuiUG3bXjcctG4NZoKCdjHIA5uJ"
    "WicKakhUIt0HdX0Pdy+veAqH7dEvruWvpuGX23SN8t0DuFND4V/Xgr/HzO/XwBVL3BK/HjrfXjlfnxin68gh+vSN9fQX+e038HTPXrl9D319L3"
    "y+j7Rfr+PXoloRIAW/29OgYSrI2gxTCCpmFT6OquATuoLZAjLEow3/gPsyr9NQ=="
)

MARKDOWN = """\
## Title

- one
  - [x] two

**red**[l](https://x.y)

| a | b |
| --- | --- |
| c | d |
"""


def recorded() -> Doc[Any]:
    doc: Doc[Any] = Doc()
    doc.apply_update(zlib.decompress(b64decode(BLOCKNOTE)))
    return doc


def test_a_document_of_blocknote_is_read_as_markdown() -> None:
    doc = recorded()

    assert rich_root(doc, None) == "document-store"
    assert said(read_tree(doc, "document-store"), Form.MARKDOWN).decode() == MARKDOWN


@pytest.mark.parametrize("form", list(Form))
def test_a_document_of_blocknote_that_is_written_back_in_any_form_is_not_changed(form: Form) -> None:
    doc = recorded()
    updates = updates_of(doc)
    body = said(read_tree(doc, "document-store"), form)

    Content(form, body if form is Form.PROSEMIRROR else body.decode(), None).write(doc, None)

    assert updates == []


def test_a_word_of_a_document_of_blocknote_changes_and_its_block_keeps_its_id_and_colours() -> None:
    doc = recorded()
    before = children_of(read_tree(doc, "document-store"))[0]["content"]

    Content(Form.MARKDOWN, MARKDOWN.replace("red", "dark red").replace("one", "1"), None).write(doc, None)

    after = children_of(read_tree(doc, "document-store"))[0]["content"]
    assert [block["attrs"] for block in after] == [block["attrs"] for block in before]
    assert {"type": "textColor", "attrs": {"stringValue": "red"}} in after[2]["content"][0]["content"][-2]["marks"]
    assert said(read_tree(doc, "document-store"), Form.TEXT).decode().startswith("Title\n\n1\n\ntwo\n\ndark red")
