"""Writing rich text, for REST and for the application in the same process: away from the loop where it takes long."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET
from pycrdt import Doc

from roomkey.api.document_schemas import AnchoredEdit, AnchoredEdits
from roomkey.api.http_messages import preferred
from roomkey.api.inspection import inspect_text
from roomkey.api.operations import Request
from roomkey.api.representations import HTML, MARKDOWN, PROSEMIRROR, SMALL_BYTES, TEXT, render
from roomkey.documents.interface import (
    Condition,
    DocumentRevision,
    DocumentService,
    Written,
    rich,
    rich_edits,
    roots,
)
from roomkey.errors import (
    CurrentRevision,
    Flaw,
    InvalidInput,
    NotAcceptable,
    RevisionMismatch,
    SchemaViolation,
    VersionMismatch,
)
from roomkey.ports import Author

_CURRENT_FORMS: Final = (TEXT, PROSEMIRROR, MARKDOWN, HTML)
_FORMS: Final = {form.value: form for form in rich.Form}
_HOW: Final = ("replace", "insert_before", "insert_after")


class _Moved(VersionMismatch):
    """The document is not at the revision that was expected."""


def say_text(doc: Doc[Any], *, root: str | None, text: str) -> None:
    """
    Make a text, or rich text, say ``text``.

    Raises:
        InvalidInput: If it is not clear which one is meant.
    """
    kinds = roots.kinds_of(doc)
    rich_root = roots.rich_root(kinds, root)
    if rich_root is not None:
        rich.Content(rich.Form.TEXT, text, None).write(doc, rich_root)
    else:
        roots.replace(doc, {roots.text_root(kinds, root): text}, kinds)


async def write_rich(  # what is written, where, and if what
    request: Request, form: rich.Form, body: Any, *, root: str | None, schema: str, condition: Condition | None
) -> Written:
    """Make a root say ``body``. Raises as ``write_content``."""
    name, author = request.path("name"), request.caller.author
    return await write_content(
        request.documents, name, author, (form, body), root=root, schema=schema, condition=condition
    )


async def write_content(  # as above
    documents: DocumentService,
    name: str,
    author: Author,
    content: tuple[rich.Form, Any],
    *,
    root: str | None,
    schema: str,
    condition: Condition | None,
) -> Written:
    """
    Make a root of rich text say what ``content`` is: a form, and its text, or JSON as a value or its source.

    Raises:
        InvalidInput, BodyTooLarge, MalformedRequest: If that cannot be.
    """
    form, body = content
    size = len(body) if isinstance(body, str | bytes) else SMALL_BYTES + 1

    def read() -> rich.Content:
        return rich.Content(form, body, rich.Schema(schema))

    read_content = await asyncio.to_thread(read) if size > _SMALL_TEXT else read()
    return await documents.edit(
        name, lambda doc: read_content.write(doc, root), author, condition=condition, work=_work(form, size)
    )


_SMALL_TEXT: Final = 2 * 1024
"""Markdown up to this is read in a few milliseconds."""


def _work(form: rich.Form, size: int) -> int:
    # What is read anew for each change takes longer than JSON does.
    return size if form is rich.Form.PROSEMIRROR or size <= _SMALL_TEXT else size + SMALL_BYTES


async def edit_anchored(request: Request, edits: AnchoredEdits, condition: Condition) -> Written:
    """
    Carry out edits at anchors.

    Raises:
        RevisionMismatch: If the document is at another revision than is expected: with what it says now.
    """
    inspect_text(request, [each for edit in edits.edits for each in _contents(edit)])
    expected = None if edits.expected_revision is UNSET else edits.expected_revision
    accept = request.headers.get("accept")
    return await edit_at_anchors(
        request.documents,
        request.path("name"),
        request.caller.author,
        edits.edits,
        root=None if edits.root is UNSET else edits.root,
        schema=edits.schema,
        condition=check_revision(expected, condition),
        current_form=_current_form(accept),
    )


async def edit_at_anchors(  # as above
    documents: DocumentService,
    name: str,
    author: Author,
    edits: Sequence[AnchoredEdit],
    *,
    root: str | None,
    schema: str,
    condition: Condition,
    current_form: str = TEXT,
) -> Written:
    """As ``edit_anchored``."""
    anchors = [_anchor(edit, f"#/edits/{index}") for index, edit in enumerate(edits)]
    size = sum(len(text) for edit in edits for text in _contents(edit) if isinstance(text, str))

    def change(doc: Any) -> None:
        rich_edits.edit(doc, root, anchors, rich.Schema(schema))

    try:
        return await documents.edit(name, change, author, condition=condition, work=size)
    except _Moved as error:
        reading = await documents.read(name)
        content = await render(reading.update, current_form, root)
        said = msgspec.json.decode(content) if current_form == PROSEMIRROR else content.decode()
        current = CurrentRevision(revision=revision_text(reading.revision), format=current_form, content=said)
        raise RevisionMismatch(str(error), current) from None


def check_revision(expected: str | int | None, condition: Condition) -> Condition:
    """``condition``, and that the document is at the revision that is expected: an ETag, or the number in it."""
    if expected is None:
        return condition

    def check(revision: DocumentRevision | None) -> None:
        condition(revision)
        if revision is None:
            return
        tag = revision_text(revision)
        is_same = expected == revision.version if isinstance(expected, int) else expected.strip('"') == tag
        if not is_same:
            raise _Moved(f'the document is at "{tag}"')

    return check


def revision_text(revision: DocumentRevision) -> str:
    """A revision as an ETag has it, without its quotes."""
    return f"{revision.lineage}.{revision.version}"


def _current_form(accept: str | None) -> str:
    try:
        return preferred(accept, _CURRENT_FORMS)
    except NotAcceptable:
        return TEXT


def _contents(edit: AnchoredEdit) -> list[Any]:
    return [value for how in _HOW if (value := getattr(edit, how)) is not UNSET]


def _anchor(edit: AnchoredEdit, path: str) -> rich_edits.Anchor:
    ways = [how for how in _HOW if getattr(edit, how) is not UNSET]
    if len(ways) != 1:
        raise _flaw(path, "an edit has one of replace, insert_before and insert_after")
    if (edit.find is UNSET) == (edit.at is UNSET):
        raise _flaw(path, "an edit has either find or at")
    if edit.find is UNSET and (ways[0] == "replace" or edit.occurrence is not UNSET):
        raise _flaw(path, "at the start or the end something can be inserted only")
    content = getattr(edit, ways[0])
    form = _FORMS[edit.format]
    if isinstance(content, str) != (form is not rich.Form.PROSEMIRROR):
        raise _flaw(f"{path}/{ways[0]}", "text is a string; of the format prosemirror it is a list of nodes")
    if isinstance(content, str):
        _check_unicode(content, f"{path}/{ways[0]}")
    return rich_edits.Anchor(
        ways[0].removeprefix("insert_"),
        content,
        None if edit.find is UNSET else edit.find,
        None if edit.occurrence is UNSET else edit.occurrence,
        None if edit.at is UNSET else edit.at,
        form,
    )


def _check_unicode(text: str, path: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _flaw(path, "a text is not valid Unicode") from None


def _flaw(path: str, detail: str) -> InvalidInput:
    return SchemaViolation(Flaw(detail=detail, pointer=path))
