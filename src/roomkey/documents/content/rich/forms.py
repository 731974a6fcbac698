"""The forms in which rich text leaves and comes, and which root of a document is meant."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, cast

import msgspec
from pycrdt import Doc

from roomkey.documents.content.rich import html, markdown, plain
from roomkey.documents.content.rich.changes import write
from roomkey.documents.content.rich.checks import checked_document
from roomkey.documents.content.rich.graft import graft
from roomkey.documents.content.rich.parts import KNOWN_MARKS, Part, sign_of
from roomkey.documents.content.rich.source import source
from roomkey.documents.content.rich.tree import DOC, Node, Probe, Root, attrs_of, probe, root_names
from roomkey.documents.content.rich.vocabulary import Maker, Schema, document_of, ids_in, refusal, schema_of
from roomkey.errors import InvalidInput, MalformedRequest


class Form(StrEnum):
    """How rich text is written down."""

    PROSEMIRROR = "prosemirror"
    MARKDOWN = "markdown"
    HTML = "html"
    TEXT = "text"


USUAL_ROOTS: Final[Mapping[Schema, str]] = {
    Schema.TIPTAP: "default",
    Schema.PROSEMIRROR: "prosemirror",
    Schema.BLOCKNOTE: "document-store",
    Schema.LEXICAL: "root",
}
"""Where editors look for their document, if nobody tells them."""


def rich_root(doc: Doc[Any], name: str | None) -> str:
    """
    The root of rich text that is meant: ``name``, or the only one.

    Raises:
        InvalidInput: If there is none, or it is not clear which one is meant.
    """
    found = find_rich_root(doc, name)
    if found is None:
        there = ", ".join(repr(each) for each in root_names(doc)) or "none"
        raise InvalidInput(f"there is no rich text in the document; its roots: {there}")
    return found


def find_rich_root(doc: Doc[Any], name: str | None) -> str | None:
    """
    As ``rich_root``; ``None`` if there is no rich text.

    Raises:
        InvalidInput: If ``name`` is something else, or there are several.
    """
    if name is not None:
        kind = probe(doc, name)
        if kind in (Probe.TEXT, Probe.OTHER):
            raise InvalidInput(f"the root {name!r} is no rich text")
        return name
    found = [each for each in root_names(doc) if probe(doc, each) is Probe.RICH]
    if len(found) > 1:
        raise InvalidInput(f"say with root which rich text is meant: {', '.join(map(repr, found))}")
    return found[0] if found else None


def is_rich_text(doc: Doc[Any], name: str | None) -> bool:
    """Whether a text that is asked for is rich text: the root of this name, or the only one that is rich or a text."""
    if name is not None:
        return probe(doc, name) is Probe.RICH
    kinds = [probe(doc, each) for each in root_names(doc)]
    return kinds.count(Probe.RICH) == 1 and Probe.TEXT not in kinds


def read_tree(doc: Doc[Any], name: str) -> Node:
    """
    All of a root.

    Raises:
        InvalidInput: If it nests too deep.
    """
    with doc.transaction() as transaction:
        return Root(doc, transaction, name).read()


def read(doc: Doc[Any], name: str, form: Form) -> bytes:
    """What a root says in a form. Raises as ``read_tree``."""
    if form is not Form.PROSEMIRROR:
        return said(read_tree(doc, name), form)
    with doc.transaction() as transaction:
        return source(Root(doc, transaction, name))


def said(tree: Node, form: Form) -> bytes:
    """What a tree says in a form."""
    if form is Form.PROSEMIRROR:
        return msgspec.json.encode(tree)
    return _WRITERS[form](document_of(tree).content).encode()


_WRITERS: Final[Mapping[Form, Callable[[Sequence[Part]], str]]] = {
    Form.MARKDOWN: markdown.render,
    Form.HTML: html.render,
    Form.TEXT: plain.render,
}
_READERS: Final[Mapping[Form, Callable[[str], list[Part]]]] = {
    Form.MARKDOWN: markdown.parse,
    Form.HTML: html.parse,
    Form.TEXT: plain.parse,
}


class Content:
    """
    What is to be written, read and checked once, away from any document.

    ``schema`` is for a document in which nothing says whose it is.
    """

    __slots__ = ("_form", "_nodes", "_schema", "_text")

    def __init__(self, form: Form, body: Any, schema: Schema | None) -> None:
        """
        ``body`` is the text of the form, or ProseMirror JSON as a value or its source.

        Raises:
            InvalidInput, BodyTooLarge, MalformedRequest: If it is none, or too much.
        """
        self._form = form
        self._schema = schema
        self._nodes: list[Node] | None = None
        self._text = ""
        if form is Form.PROSEMIRROR:
            self._nodes = checked_document(_decoded(body))
        else:
            self._text = cast("str", body)
            _READERS[form](self._text)

    def write(self, doc: Doc[Any], name: str | None) -> None:
        """
        Make the root ``name`` say it, or the only one; of what this form cannot say, as much as possible stays.

        Raises:
            InvalidInput: If it cannot be said there. The document may be changed by half then.
        """
        root_name = find_rich_root(doc, name) or USUAL_ROOTS[self._schema or Schema.TIPTAP]
        with doc.transaction() as transaction:
            root = Root(doc, transaction, root_name)
            target = self._target(root.read())
            if target is not None:
                write(root, target)

    def _target(self, tree: Node) -> list[Node] | None:
        """The nodes that ``tree`` is to have; ``None``: it says that already."""
        if self._nodes is not None:
            return self._nodes
        document = document_of(tree)
        _keep(document)
        if self._form is Form.TEXT:
            if plain.render(document.content) == self._text:
                return None
            plain.rewrite(document, self._text)
            wanted = document
        else:
            # Read anew each time: what is found in one state of the document is noted in the parts.
            wanted = Part(DOC, content=_READERS[self._form](self._text))
            seen = Part(DOC, content=_READERS[self._form](_WRITERS[self._form](document.content)))
            if sign_of(seen) == sign_of(wanted):
                return None
            self._graft(document, seen, wanted)
            _resolve(wanted, tree, self._form)
        return self._maker(tree).document(wanted)

    def _graft(self, document: Part, seen: Part, wanted: Part) -> None:
        is_markdown = self._form is Form.MARKDOWN
        visible = markdown.is_visible if is_markdown else _always
        graft(document, seen, wanted, visible=visible, marks=KNOWN_MARKS if is_markdown else None)

    def _maker(self, tree: Node) -> Maker:
        return maker_for(tree, self._schema)


def maker_for(tree: Node, schema: Schema | None) -> Maker:
    """What makes nodes that fit into ``tree``; ``schema`` if nothing there says whose it is."""
    return Maker(schema_of(tree) or schema or Schema.TIPTAP, ids_in(tree))


def parts_in(form: Form, text: str, tree: Callable[[], Node]) -> list[Part]:
    """Parts to be put into a document; ``tree`` is asked for what comments of Markdown stand for."""
    document = Part(DOC, content=_READERS[form](text))
    if any(part.unknown for part in _all(document)):
        _resolve(document, tree(), form)
    return document.content


def _always(_: Part) -> bool:
    return True


def _keep(part: Part) -> None:
    part.kept = part.source is not None
    for inner in part.content:
        _keep(inner)


def _resolve(wanted: Part, tree: Node, form: Form) -> None:
    """Find the nodes that comments of Markdown stand for."""
    if form is not Form.MARKDOWN or not any("hash" in part.attrs for part in _all(wanted) if part.unknown):
        return
    known = markdown.nodes_by_hash(tree)
    for part in _all(wanted):
        if not part.unknown or part.kept or "hash" not in part.attrs:
            continue
        node = known.get((part.attrs["hash"], not part.content))
        if node is None:
            raise refusal("#", f"{markdown.comment(part)} stands for a node that is not in the document any more")
        part.source = node
        part.type = node["type"]
        part.attrs = attrs_of(node)
        part.kept = not part.content


def _all(part: Part) -> list[Part]:
    found = [part]
    for inner in part.content:
        found += _all(inner)
    return found


def _decoded(body: Any) -> Any:
    if not isinstance(body, bytes):
        return body
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise MalformedRequest("the body is not JSON (RFC 8259)") from None
    except RecursionError:
        raise MalformedRequest("the body is nested too deep") from None
