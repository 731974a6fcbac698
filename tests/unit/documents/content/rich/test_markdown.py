"""Markdown: what is read as what, and what is written so that it reads back."""

# pyright: reportPrivateUsage=false
import sys
from typing import Any

import pytest

from roomkey.documents.content.rich import html, markdown, markdown_reader
from roomkey.documents.content.rich.parts import Part, inline_text, joined, sign_of
from roomkey.documents.content.rich.urls import is_safe
from roomkey.errors import InvalidInput


def again(source: str) -> str:
    return markdown.render(markdown.parse(source))


@pytest.mark.parametrize(
    "source",
    [
        "# one\n\n###### six \\#\n",
        '**bold** *italic* ~~gone~~ `code` [link](https://a.b "title")\n',
        'a<strong>"b"</strong>c\n',
        "one\\\ntwo\n",
        "- a\n- b\n  1. c\n  2. d\n\n* [ ] e\n* [x] f\n",
        "3. three\n4. four\n\n1) other\n",
        "- a\n\n  b\n\n  ```py\n  c\n  ```\n",
        "> a\n>\n> b\n\n<!-- -->\n\n> c\n",
        "````\n```\n````\n",
        "| a | b |\n| --- | --- |\n| c \\| d | **e**<br>f |\n",
        "![alt](https://a.b/c.png)\n",
        "\\# no heading\n\n\\- no item\n\n1\\. no number\n\n\\> no quote\n",
        "\\*no\\* \\_no\\_ snake_case \\`no\\` \\<b> \\&amp; \\[no\\](x)\n",
        "&#32;space at the edges&#32;\n",
        "<!--roomkey:callout:0123456789ab-->\n\ninside\n\n<!--/roomkey:callout-->\n",
        "![mention](roomkey:mention/0123456789ab) first\n",
        "___\n",
    ],
)
def test_markdown_is_written_as_it_was_read(source: str) -> None:
    assert again(source) == source


@pytest.mark.parametrize(
    ("source", "same"),
    [
        ("Title\n=====\n", "# Title\n"),
        ("two\nlines\n", "two lines\n"),
        ("two  \nlines\n", "two\\\nlines\n"),
        ("* a\n+ b\n", "- a\n\n* b\n"),
        ("    code\n", "```\ncode\n```\n"),
        ("__bold__ _italic_\n", "**bold** *italic*\n"),
        ("<script>alert(1)</script>\n", "\\<script>alert(1)\\</script>\n"),
        ("[x](javascript:alert(1))\n", "\\[x\\](javascript:alert(1))\n"),
        ("[ref]\n\n[ref]: /a\n", "[ref](/a)\n"),
        ("<!-- a comment -->\n", "\\<!-- a comment -->\n"),
    ],
)
def test_what_may_be_written_in_several_ways_is_written_in_one(source: str, same: str) -> None:
    assert again(source) == same
    assert again(same) == same


@pytest.mark.parametrize(
    "text", ["a*", "*", "**", "_a_", "a_", "[", "](", "``", "\\", "\\\\*", "&lt;", "~~a~~", "!", "#"]
)
@pytest.mark.parametrize("marks", [(), ("bold",), ("italic", "strike"), ("code",)])
def test_no_text_is_taken_for_markup(text: str, marks: tuple[str, ...]) -> None:
    run = inline_text(text, [{"type": mark} for mark in marks])
    block = Part("paragraph", content=joined([inline_text("x"), run, inline_text("y")]))

    assert [sign_of(part) for part in markdown.parse(markdown.render([block]))] == [sign_of(block)]


@pytest.mark.parametrize(
    ("source", "clean"),
    [
        ("<p>a<script>b</script><style>c</style><iframe src=x></iframe></p>", "<p>a</p>\n"),
        ('<p onclick="x" style="y" class="z">a</p>', "<p>a</p>\n"),
        ('<a href="javascript:x">a</a>', "<p>a</p>\n"),
        ('<a href="https://a.b">c</a>', '<p><a href="https://a.b" rel="noopener noreferrer nofollow">c</a></p>\n'),
        ('<img src="data:text/html,x" alt="a">', '<p><img src="" alt="a"></p>\n'),
        ("<ul>\n  <li>a</li>\n  <li><input type=checkbox checked> b</li>\n</ul>", None),
        ("<h2>a <b>b</b></h2>text<blockquote>q</blockquote>", None),
        ("<table><thead><tr><th>a</th></tr></thead><tbody><tr><td><p>b</p><p>c</p></td></tr></tbody></table>", None),
    ],
)
def test_html_is_clean_and_reads_back(source: str, clean: str | None) -> None:
    said = html.render(html.parse(source))

    assert clean is None or said == clean
    assert html.render(html.parse(said)) == said


def test_addresses_of_the_document_are_cut_when_it_is_shown() -> None:
    link = {"type": "link", "attrs": {"href": "java\nscript:x"}}
    block = Part("paragraph", content=[inline_text("a", [link])])

    assert "script:" not in html.render([block])
    assert "script:" not in markdown.render([block])


@pytest.mark.parametrize(
    "url", ["javascript:x", " JavaScript:x", "java\tscript:x", "data:x", "vbscript:x", "\x01javascript:x"]
)
def test_addresses_that_run_something_are_not_safe(url: str) -> None:
    assert not is_safe(url)


@pytest.mark.parametrize("url", ["https://a", "/a:b", "a/b:c", "?a:b", "#a:b", "mailto:a@b", "", "a b"])
def test_other_addresses_are(url: str) -> None:
    assert is_safe(url)


@pytest.mark.parametrize(
    ("module", "read", "library"),
    [("markdown_it", markdown.parse, markdown_reader._library), ("nh3", html.parse, html._cleaner)],
)
def test_who_lacks_the_extra_is_told_its_name(
    module: str, read: Any, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    library.cache_clear()

    with pytest.raises(InvalidInput, match=r"pip install 'roomkey\[richtext\]'"):
        read("text")
