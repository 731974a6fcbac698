"""
The payloads of the built-in messages of ``/ws``, by who sends them; ``spec/ws.json`` is made of them.

``FROM_CLIENTS`` and ``FROM_SERVER`` are the whole vocabulary. A payload may have more fields than its structure: what a
client adds is relayed, and a client ignores what it does not know.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from roomkey.domain.access import Access
from roomkey.domain.session import SessionId
from roomkey.ports import Position
from roomkey.realtime.protocol.json_messages import (
    DocumentName,
    Failure,
    MessageType,
    Moment,
    Renewal,
    SessionInfo,
    Status,
    Subscription,
)
from roomkey.wire.close import CloseReason

# --- what clients send --------------------------------------------------------------------------------


class Heartbeat(Struct, frozen=True):
    """Shows that the client lives. Answered by `heartbeat_ack`."""


class Unsubscription(Struct, frozen=True):
    """Leaves the document. Answered by `unsubscribed`, also if the client was not in it."""

    document: DocumentName


class Edit(Struct, frozen=True):
    """
    Tells everyone else in the document of a change, and is kept in its history. Answered by `ack`.

    All other fields are the client's. It needs a grant that allows to write.
    """

    document: DocumentName


class Pointing(Struct, frozen=True):
    """Tells everyone else in the document where the user points. Not answered and not kept; other fields are free."""

    document: DocumentName


class Announcement(Struct, frozen=True):
    """Shows the user's status to everyone in the document, and to who comes later. Other fields are free."""

    document: DocumentName
    status: Status


# --- what the server sends ----------------------------------------------------------------------------


class HeartbeatTimes(Struct, frozen=True):
    """How often the client should send something, and after what silence it is closed with 4408, if at all."""

    interval_ms: int
    timeout_ms: int | None


class ConnectionLimits(Struct, frozen=True):
    """What the client may send: sizes in bytes, and how much per second and session."""

    message_bytes: int
    messages_per_second: float
    message_burst: int
    bytes_per_second: int
    subscriptions: int
    presence_bytes: int


class SessionConnected(Struct, frozen=True):
    """The first message: whose socket this is, and what it may do."""

    session_id: SessionId
    expires_at: Moment
    idle_expires_at: Moment | None
    user_id: str
    heartbeat: HeartbeatTimes
    limits: ConnectionLimits
    node: Annotated[str | UnsetType, Meta(description="The process that serves the socket.")] = UNSET


class HeartbeatAnswer(Struct, frozen=True):
    """Answers `heartbeat`."""

    server_time: Moment


class Relayed(Struct, frozen=True):
    """What another client in the document sent, with all its fields, and who it was."""

    document: str
    session_info: SessionInfo


class RelayedEdit(Relayed, frozen=True):
    """An edit of another client in the document, with all its fields, who it was and where it stands."""

    position: Position


class RelayedStatus(Relayed, frozen=True):
    """The status of another session in the document; `offline` when it is gone. Other fields are the client's."""

    status: str
    via: Annotated[
        str | UnsetType,
        Meta(description="`yjs` for who edits it through a Yjs socket and said nothing."),
    ] = UNSET


class KeptMessage(Struct, frozen=True):
    """A message of the history, as it was sent to those who were there: an edit, or one of the application."""

    id: str
    message_type: str
    timestamp: Moment
    payload: RelayedEdit


class Subscribed(Struct, frozen=True):
    """Answers `subscribe`."""

    document: str
    position: Position
    recovered: Annotated[bool, Meta(description="Whether `publications` is everything since `since`.")]
    publications: Annotated[Sequence[Raw], Meta(extra_json_schema={"items": {"$ref": "#/$defs/KeptMessage"}})]
    presence: Annotated[
        Sequence[Raw],
        Meta(
            description="Who is shown in the document: what `user_presence` said last of each session.",
            extra_json_schema={"items": {"$ref": "#/$defs/RelayedStatus"}},
        ),
    ]
    access: Annotated[Access, Meta(description="What the session may do in the document, until `access_changed`.")]


class Unsubscribed(Struct, frozen=True):
    """The client is not in the document any more: it asked for that, or `error` says why."""

    document: str
    error: Failure | None


class AccessChanged(Struct, frozen=True):
    """The client may do more, or less, in a document that it is in: its grants, or the application, say so now."""

    document: str
    access: Access


class Acknowledged(Struct, frozen=True):
    """Answers what was published, the first time and every other time."""

    document: str
    position: Annotated[Position | None, Meta(description="`null` if messages of this type are not kept.")]


class Standing(Struct, frozen=True):
    """Where the document stands. A client that is not there yet missed something, and subscribes again."""

    document: str
    position: Position
    recovered: Annotated[bool | UnsetType, Meta(description="`false`: messages were lost. Load the document.")] = UNSET


class SessionRefreshed(Struct, frozen=True):
    """Answers `session_refresh`: the new token is accepted."""

    session_id: SessionId
    expires_at: Moment
    idle_expires_at: Moment | None


class SessionExpiring(Struct, frozen=True):
    """The session expires soon, unless it is refreshed or, if it is idle, used."""

    expires_at: Moment
    reason: Annotated[str, Meta(description="`idle` or `lifetime`.")]


class SessionDisconnected(Struct, frozen=True):
    """The last message before the socket is closed with `close_code`."""

    close_code: int
    code: Annotated[CloseReason, Meta(description="The stable word for why.")]
    reason: Annotated[str | None, Meta(description="What somebody gave as the reason.")]
    refresh: Annotated[bool, Meta(description="Whether a new token helps.")]
    retry: Annotated[bool, Meta(description="Whether the client may simply come back later.")]


class SessionSuspended(Struct, frozen=True):
    """The last message before the socket is closed with 4423: the client may come back when it is resumed."""

    reason: Annotated[str | None, Meta(description="What somebody gave as the reason.")]


class SessionInvalidated(Struct, frozen=True):
    """The last message before the socket is closed with 4401: the session was ended on purpose."""

    how: Annotated[str, Meta(description="What happened, `invalidated` for example.")]
    reason: Annotated[str | None, Meta(description="What somebody gave as the reason.")]


class Draining(Struct, frozen=True):
    """The last message before the socket is closed with 1012: the client reconnects after this time."""

    reconnect_after_ms: int


class ServiceRestored(Struct, frozen=True):
    """What the nodes share is back, which an `error` with `details.degraded` said was away."""


FROM_CLIENTS: Final[Mapping[MessageType, type[Struct]]] = {
    MessageType.HEARTBEAT: Heartbeat,
    MessageType.SUBSCRIBE: Subscription,
    MessageType.UNSUBSCRIBE: Unsubscription,
    MessageType.REALTIME_EDIT: Edit,
    MessageType.CURSOR_POSITION: Pointing,
    MessageType.USER_PRESENCE: Announcement,
    MessageType.SESSION_REFRESH: Renewal,
}

FROM_SERVER: Final[Mapping[MessageType, type[Struct]]] = {
    MessageType.SESSION_CONNECTED: SessionConnected,
    MessageType.HEARTBEAT_ACK: HeartbeatAnswer,
    MessageType.SUBSCRIBED: Subscribed,
    MessageType.UNSUBSCRIBED: Unsubscribed,
    MessageType.ACCESS_CHANGED: AccessChanged,
    MessageType.REALTIME_EDIT: RelayedEdit,
    MessageType.ACK: Acknowledged,
    MessageType.POSITION: Standing,
    MessageType.CURSOR_POSITION: Relayed,
    MessageType.USER_PRESENCE: RelayedStatus,
    MessageType.SESSION_REFRESHED: SessionRefreshed,
    MessageType.SESSION_EXPIRING: SessionExpiring,
    MessageType.SESSION_SUSPENDED: SessionSuspended,
    MessageType.SESSION_INVALIDATED: SessionInvalidated,
    MessageType.SESSION_DISCONNECTED: SessionDisconnected,
    MessageType.DRAINING: Draining,
    MessageType.SERVICE_RESTORED: ServiceRestored,
    MessageType.ERROR: Failure,
}
