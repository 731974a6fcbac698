"""What is said about documents in JSON: parameters and patches on the way in, what is known of them on the way out."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from roomkey.api.schemas import Cursor, Limit, Moment, Reason, SessionIdText, check_shown
from roomkey.documents.interface import MAX_EDITS, MAX_OPERATIONS, BlameRange, rich_edits
from roomkey.domain.access import Access
from roomkey.ports import Author, DocumentRecord, DocumentVersion
from roomkey.realtime.attendance import ConnectedSession
from roomkey.realtime.clients.client import ProtocolName
from roomkey.realtime.roll_call import ConnectedPage, Disconnected
from roomkey.security.inspection import MAX_DOCUMENT_NAME_BYTES

MAX_ROOT_CHARS: Final = 256
MAX_FOUND_CHARS: Final = 10_000
MAX_ANCHORED_EDITS: Final = rich_edits.MAX_EDITS

_DOT_SEGMENT: Final = r"(^|/)\.{1,2}(/|$)"

DocumentName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_DOCUMENT_NAME_BYTES,
        description=(
            f"Printable text of at most {MAX_DOCUMENT_NAME_BYTES} bytes in UTF-8, in one segment of the path: slashes "
            "in it are sent as `%2F`. `.` and `..` may not stand between slashes."
        ),
        examples=["notes/today"],
        # Other letters are accepted, too; JSON Schema cannot count their bytes.
        extra_json_schema={"pattern": "^[ -~]+$", "not": {"pattern": _DOT_SEGMENT}},
    ),
]
VersionNumber = Annotated[int, Meta(ge=1, lt=1 << 53, description="The number of a version.", examples=[1])]
RootName = Annotated[
    str, Meta(max_length=MAX_ROOT_CHARS, description="One of the shared types of the document.", examples=["content"])
]
StateVector = Annotated[
    str,
    Meta(
        max_length=32 * 1024,  # of the 64 KiB that servers accept as the head of a request
        pattern="^[A-Za-z0-9_-]*={0,2}$",
        description="For Yjs: what the caller has, as a state vector in base64url. The answer is what it lacks.",
    ),
]
AnotherVersion = Annotated[
    str,
    Meta(
        pattern="^(current|[1-9][0-9]{0,14})$",
        description="What it is compared with: the number of a version, or `current`.",
        examples=["current"],
    ),
]
Size = Annotated[int, Meta(ge=0, description="Bytes in storage.")]


# --- in -----------------------------------------------------------------------------------------------


class DocumentListing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which documents, and which part of the list."""

    prefix: Annotated[str, Meta(max_length=MAX_DOCUMENT_NAME_BYTES, description="Names begin with it.")] = ""
    cursor: Cursor | None = None
    limit: Limit = 50


class VersionListing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which part of the list of versions."""

    cursor: Cursor | None = None
    limit: Limit = 50


class ConnectedListing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which part of the list of those who are connected."""

    cursor: Cursor | None = None
    limit: Limit = 50


class DisconnectionQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why. The reason is told to whoever is disconnected."""

    reason: Reason | None = None

    def __post_init__(self) -> None:
        check_shown("reason", self.reason)


class RootQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which text is meant; left out, the only one that the document has."""

    root: RootName | None = None


class WritingQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Which text or rich text is meant; left out, the only one that the document has.

    `schema` says whose names rich text gets in a document in which nothing says it yet; the page has to know them.
    """

    root: RootName | None = None
    schema: Literal["tiptap", "prosemirror", "blocknote"] = "tiptap"


class ReadingQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For texts and rich text the one that is meant, for Yjs what the caller has already."""

    root: RootName | None = None
    since: StateVector | None = None


class DifferenceQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With what a version is compared."""

    against: AnotherVersion = "current"


class RestoreQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Who makes the changes.

    `caller` is for editors: they apply the update that they are given as a step of their user, who can undo it.
    """

    by: Literal["server", "caller"] = "server"


class NewVersionLabel(Struct, frozen=True, forbid_unknown_fields=True):
    """What the version is called; one that has a label is kept until the document is deleted."""

    label: Reason | None = None

    def __post_init__(self) -> None:
        check_shown("label", self.label)


Roots = dict[RootName, str | list[Any] | dict[str, Any]]
"""What shared types are to say: texts as strings, arrays as lists, maps as objects."""

MergePatch = dict[RootName, Any]
"""RFC 7396."""


class PatchOperation(Struct, frozen=True, rename={"source": "from"}):
    """One operation of a JSON patch (RFC 6902)."""

    op: Literal["add", "remove", "replace", "move", "copy", "test"]
    path: Annotated[str, Meta(pattern="^(/.*)?$", description="RFC 6901.", examples=["/settings/title"])]
    source: Annotated[str, Meta(pattern="^(/.*)?$")] | UnsetType = UNSET
    value: Any = UNSET


JsonPatch = Annotated[list[PatchOperation], Meta(max_length=MAX_OPERATIONS)]


class TextEdit(Struct, frozen=True, forbid_unknown_fields=True):
    """Remove `delete` code points at `index` of a text, and put `insert` there."""

    root: RootName
    index: Annotated[int, Meta(ge=0)]
    delete: Annotated[int, Meta(ge=0)] = 0
    insert: str = ""


class TextEdits(Struct, frozen=True, forbid_unknown_fields=True):
    """Edits of texts, done together or not at all. Each sees what those before it did."""

    edits: Annotated[list[TextEdit], Meta(max_length=MAX_EDITS)]


class AnchoredEdit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    An edit at a piece of text, `find`, that the document says within one block, or `at` the start or end of it all.

    If it says it several times, `occurrence` tells which is meant, from 1. One of `replace`, `insert_before` and
    `insert_after` says what to do there. As `text` it goes into the line, formatted as what is beside it; in another
    `format` it is blocks, and what counts is the whole block at the top of the document in which the anchor is.
    """

    find: Annotated[str, Meta(min_length=1, max_length=MAX_FOUND_CHARS)] | UnsetType = UNSET
    occurrence: Annotated[int, Meta(ge=1, le=1_000_000)] | UnsetType = UNSET
    at: Literal["start", "end"] | UnsetType = UNSET
    replace: str | list[dict[str, Any]] | UnsetType = UNSET
    insert_before: str | list[dict[str, Any]] | UnsetType = UNSET
    insert_after: str | list[dict[str, Any]] | UnsetType = UNSET
    format: Literal["text", "markdown", "html", "prosemirror"] = "text"


class AnchoredEdits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Edits of one rich text, or of one text, done together or not at all. Each sees what those before it did.

    With `expected_revision`, the `ETag` of what was read or its `Roomkey-Sequence`, they are done only to that; else
    the answer has the document as it is now.
    """

    edits: Annotated[list[AnchoredEdit], Meta(max_length=MAX_ANCHORED_EDITS)]
    expected_revision: Annotated[str, Meta(max_length=200)] | Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    root: RootName | UnsetType = UNSET
    schema: Literal["tiptap", "prosemirror", "blocknote"] = "tiptap"


# --- out ----------------------------------------------------------------------------------------------


class DocumentBody(Struct, frozen=True, kw_only=True, gc=False):
    """
    What is known of a document. A document that was deleted and made anew has another lineage.

    `sequence` counts the updates that it was ever given.
    """

    name: str
    lineage: str
    sequence: Annotated[int, Meta(ge=0)]
    created_at: Moment
    updated_at: Moment
    bytes: Size


class DocumentPageBody(Struct, frozen=True):
    """
    One part of a list of documents, in the order of their names.

    It may be shorter than asked for, even empty, when few of those that were looked at may be seen.
    """

    documents: list[DocumentBody]
    next_cursor: str | None


class AuthorBody(Struct, frozen=True, gc=False):
    """Who did it; API keys and the server itself have no session."""

    actor: Annotated[str, Meta(examples=["user:alice"])]
    session_id: SessionIdText | None
    user_id: str | None


class VersionBody(Struct, frozen=True, kw_only=True, gc=False):
    """
    A state of a document that is kept. Without a label it was kept automatically, and may go when there are many.

    `restored` is the number of the version that the author restored at this moment: this one is what was there before.
    """

    number: VersionNumber
    at: Moment
    label: str | None
    author: AuthorBody
    sequence: Annotated[int, Meta(ge=0, description="How many updates are in it.")]
    bytes: Size
    restored: VersionNumber | None


class ConnectionBody(Struct, frozen=True, kw_only=True, gc=False):
    """One socket that is in the document: by which protocol, since when, and which process serves it."""

    protocol: ProtocolName
    since: Moment
    node: str


class ConnectedBody(Struct, frozen=True, kw_only=True):
    """A session that is connected to the document, and what it may do there."""

    id: SessionIdText
    user_id: str
    access: Access | None
    since: Moment
    connections: list[ConnectionBody]


class ConnectedPageBody(Struct, frozen=True, kw_only=True):
    """
    One part of the list of who is connected, in the order of the ids of sessions.

    `silent_nodes` have not answered in time: who is connected there only is missing.
    """

    sessions: list[ConnectedBody]
    next_cursor: str | None
    silent_nodes: list[str]


class DisconnectedBody(Struct, frozen=True, kw_only=True):
    """
    How many connections were ended or put out of the document. They may come back, until rights are taken.

    `silent_nodes` have not answered in time: what they did is not known. Repeating the request does no harm.
    """

    disconnected: Annotated[int, Meta(ge=0)]
    silent_nodes: list[str]


class VersionPageBody(Struct, frozen=True):
    """One part of the list of versions, the newest first."""

    versions: list[VersionBody]
    next_cursor: str | None


class DifferenceBody(Struct, frozen=True):
    """
    What changed, by root; those that did not change are left out.

    Of texts: runs that are `equal`, `delete` or `insert`. Of everything else: a JSON patch.
    """

    roots: dict[str, list[dict[str, Any]]]


class RangeBody(Struct, frozen=True, kw_only=True, gc=False):
    """
    A part of a text, in code points, and who wrote it in the minute `at`; null where nobody knows.

    `path` is a JSON pointer into the ProseMirror JSON of rich text, to the node in which all of it is.
    """

    start: Annotated[int, Meta(ge=0)]
    end: Annotated[int, Meta(ge=0)]
    actor: str | None
    session_id: SessionIdText | None
    user_id: str | None
    at: Annotated[datetime, Meta(tz=True)] | None
    path: str | None


class BlameBody(Struct, frozen=True):
    """Who wrote what, from the beginning to the end of the text."""

    ranges: list[RangeBody]


def document_body(record: DocumentRecord) -> DocumentBody:
    """``record`` as outsiders see it."""
    return DocumentBody(
        name=record.name,
        lineage=record.lineage,
        sequence=record.sequence,
        created_at=record.created_at,
        updated_at=record.updated_at,
        bytes=record.snapshot_bytes + record.log_bytes,
    )


def connected_page_body(page: ConnectedPage) -> ConnectedPageBody:
    """``page`` as outsiders see it."""
    return ConnectedPageBody(
        sessions=[_connected_body(each) for each in page.sessions],
        next_cursor=page.next_cursor,
        silent_nodes=list(page.silent_nodes),
    )


def _connected_body(connected: ConnectedSession) -> ConnectedBody:
    return ConnectedBody(
        id=connected.id,
        user_id=connected.user_id,
        access=connected.access,
        since=connected.since,
        connections=[
            ConnectionBody(protocol=each.protocol, since=each.since, node=each.node) for each in connected.connections
        ],
    )


def disconnected_body(disconnected: Disconnected) -> DisconnectedBody:
    """``disconnected`` as outsiders see it."""
    return DisconnectedBody(disconnected=disconnected.disconnected, silent_nodes=list(disconnected.silent_nodes))


def version_body(version: DocumentVersion) -> VersionBody:
    """``version`` as outsiders see it."""
    return VersionBody(
        number=version.number,
        at=version.at,
        label=version.label,
        author=_author_body(version.author),
        sequence=version.sequence,
        bytes=version.size,
        restored=version.restored,
    )


def range_body(part: BlameRange) -> RangeBody:
    """``part`` as outsiders see it."""
    author = part.author
    return RangeBody(
        start=part.start,
        end=part.end,
        actor=None if author is None else author.actor,
        session_id=None if author is None else author.session,
        user_id=None if author is None else author.user,
        at=part.at,
        path=part.path,
    )


def _author_body(author: Author) -> AuthorBody:
    return AuthorBody(author.actor, author.session, author.user)
