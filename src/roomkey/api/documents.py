"""The operations on documents: they translate between HTTP and the commands, and decide nothing else."""

from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast
from urllib.parse import quote

import structlog
from msgspec import to_builtins
from pycrdt import Doc

from roomkey.api.document_lists import visible_page
from roomkey.api.document_schemas import (
    AnchoredEdits,
    BlameBody,
    DifferenceBody,
    DifferenceQuery,
    DocumentBody,
    DocumentListing,
    DocumentPageBody,
    JsonPatch,
    MergePatch,
    NewVersionLabel,
    ReadingQuery,
    RestoreQuery,
    RootQuery,
    Roots,
    TextEdits,
    VersionBody,
    VersionListing,
    VersionPageBody,
    WritingQuery,
    document_body,
    range_body,
    version_body,
)
from roomkey.api.http_messages import (
    NO_STORE,
    Headers,
    Reply,
    empty_reply,
    expected_tags,
    json_reply,
    matches_etag,
    preferred,
)
from roomkey.api.inspection import inspect_identity, inspect_text
from roomkey.api.operations import Answer, Request, following, operation
from roomkey.api.representations import FORMS, HTML, JSON, MARKDOWN, PROSEMIRROR, RICH_FORMS, TEXT, YJS, render
from roomkey.api.rich_text import edit_anchored, say_text, write_rich
from roomkey.backends.document_keys import name_cursor, name_of
from roomkey.documents.interface import Condition, DocumentRevision, Written, existing, roots
from roomkey.errors import (
    Conflict,
    DocumentNotFound,
    DocumentTooLarge,
    ForgedUpdate,
    InvalidInput,
    NotAcceptable,
    Overtaken,
    RevisionMismatch,
    RoomkeyError,
    UnknownCursor,
    VersionMismatch,
    WritesRefused,
)
from roomkey.ports import Page
from roomkey.security.authorization import Action

MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
TEXT_EDITS: Final = "application/vnd.roomkey.text-edits+json"
ANCHORED_EDITS: Final = "application/vnd.roomkey.anchored-edits+json"
BUNDLE: Final = "application/vnd.roomkey.document"

WRITTEN: Final = Answer("The document is changed, or was like that already.", DocumentBody, revision=True)
MADE: Final = Answer("The document is made.", DocumentBody, revision=True, location=True)
RESTORED: Final = "The document is changed, or was like that already; or the changes, for the caller to make."
REFUSED: Final = (
    InvalidInput,
    ForgedUpdate,
    Conflict,
    Overtaken,
    VersionMismatch,
    DocumentTooLarge,
    WritesRefused,
)

_log = structlog.get_logger("roomkey.api")

_on_document: Final = partial(operation, tag="Documents")
_on_version: Final = partial(operation, tag="Versions")

# --- many ---------------------------------------------------------------------------------------------


@_on_document(
    "List documents",
    action=Action.LIST_DOCUMENTS,
    query=DocumentListing,
    answers={200: Answer("A page of documents.", DocumentPageBody)},
    errors=(UnknownCursor,),
)
async def list_documents(request: Request) -> Reply:
    """
    The documents whose names begin with `prefix`, in the order of their names.

    A session sees those that it may read, a key those that it is narrowed to. Follow `next_cursor` until it is
    null.
    """
    listing, patterns = cast("DocumentListing", request.query), await _seen_patterns(request)
    if patterns is None:
        with following(listing.cursor):
            page = Page(cursor=listing.cursor, limit=listing.limit)
            found = await request.documents.list(listing.prefix, page)
        cursor = found.next_cursor
    else:
        with following(listing.cursor):
            after = None if listing.cursor is None else name_of(listing.cursor)
        found = await visible_page(
            request.documents,
            patterns,
            listing.prefix,
            after=after,
            limit=listing.limit,
            seen=partial(_seen, request),
        )
        cursor = None if found.next_cursor is None else name_cursor(found.next_cursor)
    return json_reply(DocumentPageBody([document_body(record) for record in found.documents], cursor))


async def _seen_patterns(request: Request) -> Sequence[str] | None:
    """The patterns of the documents that the caller may know of; ``None`` if it may know of all."""
    session = request.caller.session
    return request.caller.only.documents if session is None else await request.services.access.patterns(session)


async def _seen(request: Request, names: Sequence[str]) -> Sequence[bool]:
    session = request.caller.session
    if session is None:
        return [True] * len(names)  # a key sees what its patterns say
    return [access is not None for access in await request.services.access.decide_many(session, names)]


# --- one ----------------------------------------------------------------------------------------------

_READING: Final = {
    200: Answer("The document in the form that `Accept` prefers.", media=FORMS, revision=True),
    304: Answer("`If-None-Match` names what it still is.", revision=True),
}


@_on_document(
    "Read a document",
    action=Action.READ_DOCUMENT,
    query=ReadingQuery,
    answers=_READING,
    errors=(NotAcceptable,),
)
async def get_document(request: Request) -> Reply:
    """
    What the document says now.

    As `application/json` an object with its shared types by name: texts are strings, XML its source, bytes in
    base64. As `text/plain` one of its texts. Rich text comes as `text/markdown`, `text/html`, `text/plain` or, with
    everything that is in it, as `application/vnd.roomkey.prosemirror+json`. As `application/x-yjs-update` the whole of
    it in the V1 encoding of Yjs, or what is missing where the state vector is `since`.
    """
    form, query = _form(request), cast("ReadingQuery", request.query)
    if form == YJS and query.since is not None:
        reading = await request.documents.read(_name(request), _state(query.since))
    else:
        reading = await request.documents.read(_name(request))
    headers = _revision_headers(reading.revision)
    if matches_etag(request.headers.get("if-none-match"), _tag(reading.revision)):
        return Reply(304, b"", [*headers, NO_STORE])
    return await _content(request, reading.update, query.root, headers)


@_on_document(
    "Write a document",
    action=Action.WRITE_DOCUMENT,
    query=WritingQuery,
    contents={JSON: Roots, TEXT: str, YJS: bytes, PROSEMIRROR: bytes, MARKDOWN: str, HTML: str},
    answers={200: WRITTEN, 201: MADE},
    errors=REFUSED,
    conditional=True,
)
async def put_document(request: Request) -> Reply:
    """
    Make the document say this, or make one that does.

    `application/json` replaces each shared type that it names and leaves the others. `text/plain` replaces one
    text. Markdown, HTML and ProseMirror JSON replace one rich text; what a form cannot say is kept in blocks that stay.
    All of them change only what differs, as somebody at a keyboard would, so that cursors stay and what others type
    at the same time is kept. `application/x-yjs-update` is merged. Whoever has the document open sees it at once;
    the answer comes when it is durable. `If-None-Match: *` makes a document only if there is none.
    """
    body, condition = request.body, _condition(request)
    query = cast("WritingQuery", request.query)
    if request.media != YJS:
        inspect_text(request, body.decode(errors="replace") if isinstance(body, bytes) else body)
    if request.media == YJS:
        written = await _merge(request, body, condition)
    elif request.media in RICH_FORMS:
        form = RICH_FORMS[request.media]
        written = await write_rich(request, form, body, root=query.root, schema=query.schema, condition=condition)
    elif request.media == TEXT:
        text = cast("str", body)
        change = partial(say_text, root=query.root, text=text)
        written = await _edit(request, change, condition, work=len(text))
    else:
        written = await _edit(request, lambda doc: roots.replace(doc, cast("Roots", body)), condition)
    return await _written(request, written)


async def _merge(request: Request, update: bytes, condition: Condition | None) -> Written:
    caller = request.caller
    try:
        return await request.documents.merge(_name(request), update, caller.author, condition=condition)
    except ForgedUpdate:
        if caller.session is not None:
            with suppress(RoomkeyError):  # the answer is the same, whether or not it can be counted
                await request.sessions.record_violation(caller.session.id, ForgedUpdate.code, actor=caller.actor)
        raise


@_on_document(
    "Change a document",
    action=Action.WRITE_DOCUMENT,
    contents={
        MERGE_PATCH: MergePatch,
        JSON_PATCH: JsonPatch,
        TEXT_EDITS: TextEdits,
        ANCHORED_EDITS: AnchoredEdits,
    },
    answers={200: WRITTEN},
    errors=(DocumentNotFound, RevisionMismatch, *REFUSED),
    conditional=True,
)
async def patch_document(request: Request) -> Reply:
    """
    Change parts of the document: everything that is asked for, or nothing.

    With a merge patch (RFC 7396), a JSON patch (RFC 6902; 409 if a `test` fails), edits of its texts, or edits at an
    anchor, of texts and rich text. What the others do at the same time is kept. An edit at an anchor whose
    `expected_revision` is not the one that the document has is refused with 412, and the answer has `current`: what the
    document says now, in the form that `Accept` prefers among those of rich text, or as plain text.
    """
    if request.media == ANCHORED_EDITS:
        return await _written(request, await edit_anchored(request, request.body, existing(_condition(request))))
    change = _CHANGES[request.media]
    steps = to_builtins(request.body.edits if request.media == TEXT_EDITS else request.body)
    inspect_text(request, steps)
    written = await _edit(request, lambda doc: change(doc, steps), existing(_condition(request)))
    return await _written(request, written)


_CHANGES: Final[Mapping[str, Callable[[Doc[Any], Any], None]]] = {
    MERGE_PATCH: roots.merge_patch,
    JSON_PATCH: roots.json_patch,
    TEXT_EDITS: roots.edit_text,
}


@_on_document(
    "Delete a document",
    action=Action.DELETE_DOCUMENT,
    answers={204: Answer("It is gone, with its versions.")},
    errors=(DocumentNotFound, Conflict, VersionMismatch),
    conditional=True,
)
async def delete_document(request: Request) -> Reply:
    """
    Remove the document with everything that is known of it. Whoever has it open has to leave.

    One that is made anew under its name has another lineage: clients that still have this one cannot bring it back.
    """
    await request.documents.delete(_name(request), request.caller.author, condition=_condition(request))
    _note(request, "document_deleted")
    return empty_reply()


@_on_document(
    "Who wrote what",
    action=Action.READ_DOCUMENT,
    query=RootQuery,
    answers={200: Answer("The parts of the text, with their authors.", BlameBody)},
    errors=(DocumentNotFound, InvalidInput),
)
async def blame_document(request: Request) -> Reply:
    """
    Who wrote which part of a text, and when. Restoring and merging do not change it: who typed it first counts.

    Of rich text: which part of it as `text/plain`, and of which node, by its `path` in the ProseMirror JSON. Of lists
    and maps it cannot be said: 422.
    """
    ranges = await request.documents.blame(_name(request), cast("RootQuery", request.query).root)
    return json_reply(BlameBody([range_body(part) for part in ranges]))


# --- versions -----------------------------------------------------------------------------------------


@_on_version(
    "List versions",
    action=Action.LIST_VERSIONS,
    query=VersionListing,
    answers={200: Answer("A page of versions, the newest first.", VersionPageBody)},
    errors=(DocumentNotFound, UnknownCursor),
)
async def list_versions(request: Request) -> Reply:
    """States of the document that were kept: with a label when somebody asked for it, without automatically."""
    listing = cast("VersionListing", request.query)
    with following(listing.cursor):
        page = await request.documents.versions(_name(request), Page(cursor=listing.cursor, limit=listing.limit))
    return json_reply(VersionPageBody([version_body(version) for version in page.versions], page.next_cursor))


@_on_version(
    "Keep a version",
    action=Action.WRITE_DOCUMENT,
    body=NewVersionLabel,
    body_required=False,
    answers={201: Answer("The version.", VersionBody, location=True)},
    errors=(DocumentNotFound, Conflict),
    idempotent=True,
)
async def keep_version(request: Request) -> Reply:
    """Keep the document as it is now."""
    name, label = _name(request), cast("NewVersionLabel", request.body).label
    inspect_identity(request, (("label", label),))
    version = await request.documents.keep_version(name, label, request.caller.author)
    _note(request, "document_version_kept", number=version.number)
    location = f"{_address(request)}/versions/{version.number}"
    return json_reply(version_body(version), 201, (b"location", location.encode()))


@_on_version(
    "Read a version",
    action=Action.READ_DOCUMENT,
    query=RootQuery,
    answers={200: Answer("The document as it was, in the form that `Accept` prefers.", media=FORMS)},
    errors=(DocumentNotFound, NotAcceptable),
)
async def get_version(request: Request) -> Reply:
    """What the document said then, in the same forms as now."""
    _form(request)  # or nothing is read
    version, update = await request.documents.version(_name(request), _number(request))
    headers: Headers = [(b"roomkey-sequence", b"%d" % version.sequence)]
    return await _content(request, update, cast("RootQuery", request.query).root, headers)


@_on_version(
    "What changed",
    action=Action.READ_DOCUMENT,
    query=DifferenceQuery,
    answers={200: Answer("The differences by root.", DifferenceBody)},
    errors=(DocumentNotFound, InvalidInput),
)
async def get_difference(request: Request) -> Reply:
    """What changed from this version to another one, or to the document as it is now."""
    against = cast("DifferenceQuery", request.query).against
    number = None if against == "current" else int(against)
    return json_reply(DifferenceBody(await request.documents.difference(_name(request), _number(request), number)))


@_on_version(
    "Restore a version",
    action=Action.WRITE_DOCUMENT,
    query=RestoreQuery,
    answers={200: Answer(RESTORED, DocumentBody, media=(YJS,), revision=True)},
    errors=(DocumentNotFound, *REFUSED),
)
async def restore_version(request: Request) -> Reply:
    """
    Make the document what it was, by changes as anybody could make them; nobody has to leave.

    What it is now is kept as a version first. With `by=caller` the server changes nothing: the answer is a Yjs update
    (V1) for an editor that has the document open. What it applies as a step of its user can be undone there.
    """
    name, number, author = _name(request), _number(request), request.caller.author
    if cast("RestoreQuery", request.query).by == "caller":
        changes = await request.documents.restoring(name, number, author)
        _note(request, "document_restoring", number=number)
        return _content_reply(YJS, changes.update, _revision_headers(changes.revision))
    written = await request.documents.restore(name, number, author)
    _note(request, "document_restored", number=number)
    return await _written(request, written)


# --- elsewhere and back -------------------------------------------------------------------------------


@_on_document(
    "Export a document",
    action=Action.READ_DOCUMENT,
    answers={200: Answer("Everything about the document, for import.", media=(BUNDLE,))},
    errors=(DocumentNotFound,),
)
async def export_document(request: Request) -> Reply:
    """The document with its versions and its authors, in one piece (msgpack)."""
    name = _name(request)
    exported = await request.documents.export(name)
    filename = quote(name.rpartition("/")[2], safe="")
    disposition = f"attachment; filename*=UTF-8''{filename}.roomkey".encode()
    return _content_reply(BUNDLE, exported, [(b"content-disposition", disposition)])


@_on_document(
    "Import a document",
    action=Action.IMPORT_DOCUMENT,
    contents={BUNDLE: bytes},
    answers={201: MADE},
    errors=REFUSED,
)
async def import_document(request: Request) -> Reply:
    """
    Make a document of what an export returned, with its history and its lineage; the name may be another one.

    409 if there is a document of this name, or if this very document was deleted here.
    """
    written = await request.documents.import_document(_name(request), request.body, request.caller.author)
    _note(request, "document_imported")
    return await _written(request, written)


# --- shared -------------------------------------------------------------------------------------------


def _name(request: Request) -> str:
    return request.path("name")


def _number(request: Request) -> int:
    text = request.path("number")
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise DocumentNotFound("there is no such version")
    return int(text)


def _address(request: Request) -> str:
    return f"{request.root}/documents/{quote(_name(request), safe='')}"


def _note(request: Request, event: str, **details: Any) -> None:
    session = request.caller.session
    _log.info(
        event,
        document=_name(request),
        actor=request.caller.actor,
        session=None if session is None else session.id,
        **details,
    )


# --- reading ------------------------------------------------------------------------------------------


def _form(request: Request) -> str:
    return preferred(request.headers.get("accept"), FORMS)


async def _content(request: Request, update: bytes, root: str | None, headers: Headers) -> Reply:
    """
    The document in the form that the caller likes best.

    Browsers like HTML best, whatever they open: where there is no rich text, they get what they like next.
    """
    form = _form(request)
    try:
        return _content_reply(form, await render(update, form, root), headers)
    except InvalidInput:
        other = _other_form(request)
        if form not in RICH_FORMS or root is not None or other is None:
            raise
        return _content_reply(other, await render(update, other, None), headers)


def _other_form(request: Request) -> str | None:
    """What the caller likes best of what is not rich text."""
    try:
        return preferred(request.headers.get("accept"), [form for form in FORMS if form not in RICH_FORMS])
    except NotAcceptable:
        return None


def _state(since: str) -> bytes:
    try:
        return urlsafe_b64decode(f"{since}==")
    except ValueError:
        raise InvalidInput("the state vector is not base64url") from None


def _content_reply(form: str, body: bytes, headers: Headers) -> Reply:
    kind = f"{form}; charset=utf-8" if form.startswith("text/") else form
    own: Headers = [_NO_SCRIPTS] if form == HTML else []
    return Reply(200, body, [(b"content-type", kind.encode()), (b"vary", b"accept"), NO_STORE, *own, *headers])


_NO_SCRIPTS: Final = (b"content-security-policy", b"sandbox; default-src 'none'; img-src https:; style-src 'none'")
"""What people have written is shown as a page of its own that may do nothing, should a browser be sent there."""


def _tag(revision: DocumentRevision) -> bytes:
    return f'"{revision.lineage}.{revision.version}"'.encode()


def _revision_headers(revision: DocumentRevision) -> Headers:
    return [
        (b"etag", _tag(revision)),
        (b"roomkey-lineage", revision.lineage.encode()),
        (b"roomkey-sequence", b"%d" % revision.version),
    ]


# --- writing ------------------------------------------------------------------------------------------


def _condition(request: Request) -> Condition | None:
    """What If-Match and If-None-Match ask for (RFC 9110, 13.1)."""
    wanted, unwanted = request.headers.get("if-match"), request.headers.get("if-none-match")
    if wanted is None and unwanted is None:
        return None
    tags = expected_tags(wanted)

    def check(revision: DocumentRevision | None) -> None:
        if revision is None:
            if wanted is not None:
                raise VersionMismatch("there is no such document")
            return
        tag = _tag(revision)
        if tags is not None and tag.decode().strip('"') not in tags:
            raise VersionMismatch(f"the document is at {tag.decode()}")
        if matches_etag(unwanted, tag):
            raise VersionMismatch("there is such a document")

    return check


async def _edit(
    request: Request, change: Callable[[Doc[Any]], None], condition: Condition | None, work: int | None = None
) -> Written:
    return await request.documents.edit(_name(request), change, request.caller.author, condition=condition, work=work)


async def _written(request: Request, written: Written) -> Reply:
    if written.changed:
        _note(request, "document_written", sequence=written.revision.version)
    record = await request.documents.find(_name(request))
    if record is None:
        raise DocumentNotFound("the document was deleted at this moment")
    headers = _revision_headers(written.revision)
    if written.created:
        return json_reply(document_body(record), 201, *headers, (b"location", _address(request).encode()))
    return json_reply(document_body(record), 200, *headers)
