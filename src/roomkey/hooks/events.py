"""What hooks tell: one structure for each type of event, and its form in a webhook."""

from datetime import datetime
from typing import Any, Final, Literal, cast

import msgspec
from msgspec import Struct

from roomkey.domain.session import SessionId

EventType = Literal[
    "document.changed",
    "document.saved",
    "document.entered",
    "document.left",
    "document.created",
    "document.deleted",
    "document.version_kept",
    "session.ended",
]

EVERY_TYPE: Final[tuple[EventType, ...]] = EventType.__args__  # type: ignore[attr-defined]  # of a Literal

ContentForm = Literal["text", "json", "yjs"]
"""How the content of a document comes with an event: its only text or rich text, its roots, a Yjs update (V1)."""

Omission = Literal["too_large", "ambiguous", "gone"]
"""Why there is no content: more bytes than allowed, not exactly one text, or the document is there no more."""


class HookEvent(Struct, frozen=True, kw_only=True, tag_field="type"):
    """
    Something that happened at ``at``, and who caused it: ``user:alice``, ``key:backend``, ``server``, ``system``.

    ``session_id`` and ``user_id`` are those of the session that did it, if one did.
    """

    at: datetime
    actor: str
    session_id: SessionId | None = None
    user_id: str | None = None

    @property
    def type(self) -> EventType:
        """What happened, as in ``document.changed``."""
        return cast("EventType", self.__struct_config__.tag)


class DocumentEvent(HookEvent, frozen=True, kw_only=True):
    """
    Something that happened to a document.

    ``lineage`` is the id of its history: a document that was deleted and made anew has another one. ``version`` counts
    the updates that it was ever given. Both are ``None`` of a document that is not stored. ``content`` comes where it
    was asked for; if it cannot come, ``content_omitted`` says why.
    """

    document: str
    lineage: str | None = None
    version: int | None = None
    content: Any = None
    """Text as ``str``, roots as ``dict``, a Yjs update as ``bytes``."""
    content_omitted: Omission | None = None


class DocumentChanged(DocumentEvent, frozen=True, kw_only=True, tag="document.changed"):
    """
    The document has changed, and the changes are stored. Many changes are one event: it comes when nobody has changed
    the document for ``hooks.debounce``, or ``hooks.max_wait`` after the first. The actor is the last who did.
    """


class DocumentSaved(DocumentEvent, frozen=True, kw_only=True, tag="document.saved"):
    """Changes of the document were stored just now. Comes at once; those that wait are one event."""


class DocumentEntered(DocumentEvent, frozen=True, kw_only=True, tag="document.entered"):
    """A session has opened the document by a socket of this node, and had not before."""


class DocumentLeft(DocumentEvent, frozen=True, kw_only=True, tag="document.left"):
    """The last socket of the session on this node has left the document."""


class DocumentCreated(DocumentEvent, frozen=True, kw_only=True, tag="document.created"):
    """There is a new document."""


class DocumentDeleted(DocumentEvent, frozen=True, kw_only=True, tag="document.deleted"):
    """The document was deleted, with its versions."""


class VersionKept(DocumentEvent, frozen=True, kw_only=True, tag="document.version_kept"):
    """A version of the document was kept. ``label`` is ``None`` for one that was kept automatically."""

    number: int
    label: str | None = None


class SessionEnded(HookEvent, frozen=True, kw_only=True, tag="session.ended"):
    """The session of ``session_id`` has ended; ``actor`` is who ended it, and ``reason`` the one that was given."""

    how: Literal["expired", "invalidated", "evicted", "deleted"]
    reason: str | None = None


AnyHookEvent = (
    DocumentChanged
    | DocumentSaved
    | DocumentEntered
    | DocumentLeft
    | DocumentCreated
    | DocumentDeleted
    | VersionKept
    | SessionEnded
)

STRUCTURES: Final[dict[EventType, type[HookEvent]]] = {
    cast("EventType", kind.__struct_config__.tag): kind for kind in AnyHookEvent.__args__
}
"""The structure of each type of event."""

LATEST_ONLY: Final[frozenset[EventType]] = frozenset({"document.changed", "document.saved"})
"""Of what waits, only the newest for each document is told."""

WITH_CONTENT: Final = frozenset({"document.changed", "document.saved", "document.created", "document.version_kept"})
"""Events with which the content of the document may come."""

_encode: Final = msgspec.json.Encoder().encode


def message(event: AnyHookEvent) -> bytes:
    """The body of a webhook: ``type``, ``timestamp`` and ``data``, as Standard Webhooks says. Bytes are in base64."""
    data: dict[str, Any] = msgspec.to_builtins(event, builtin_types=(bytes, datetime))
    type, timestamp = data.pop("type"), data.pop("at")
    if isinstance(event, DocumentEvent) and event.content is None:
        del data["content"]
        if event.content_omitted is None:
            del data["content_omitted"]
    return _encode({"type": type, "timestamp": timestamp, "data": data})
