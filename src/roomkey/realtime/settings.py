"""Settings of the WebSocket endpoints, with their defaults."""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any

from msgspec import Struct


class RefusalMode(StrEnum):
    """How a handshake is refused because of its session or its rights."""

    AUTO = "auto"
    """With a close code where a page asks, that is, where there is an ``Origin``; everyone else with HTTP."""
    HTTP = "http"
    CLOSE = "close"


class AwarenessIdentity(StrEnum):
    """What is done about the ``user`` that a Yjs client shows of itself."""

    STAMP = "stamp"
    """Its ``id`` and, if the session has one, its ``name`` become the session's."""
    CHECK = "check"
    """A state that says otherwise is refused."""
    OFF = "off"
    """Nothing: a client may say that it is anybody."""


class RealtimeSettings(Struct, frozen=True, kw_only=True):
    """Bounds of every queue, table and tolerance of ``/ws``. Sizes are bytes of JSON, before compression."""

    path: str = "/ws"
    """Path of the socket for rooms. It begins with a slash and does not end with one."""

    # --- who is let in --------------------------------------------------------------------------------
    allowed_origins: tuple[str, ...] = ()
    """Origins whose pages may connect, besides the server's own. If any are listed, the list applies to every
    credential; cookies are only accepted from these pages in any case."""
    query_tokens: bool = False
    """Whether ``?token=`` is accepted as a credential. URLs reach logs, so prefer tickets."""
    max_connections: int = 25_000
    """Maximum number of open sockets of one process; further handshakes get 503."""
    max_connections_per_session: int = 16
    """Maximum number of open sockets of one session; further handshakes get 429."""
    handshakes_per_second: float = 200.0
    """Handshakes per second from one IP address. Behind a NAT or a proxy many people share an address."""
    handshake_burst: int = 2_000
    """Number of handshakes that one IP address may make at once, before they count per second."""
    authentication_timeout: timedelta = timedelta(seconds=5)
    """Maximum time for finding out whose a handshake is; then it gets 503."""
    refuse: RefusalMode = RefusalMode.AUTO
    """How a handshake is refused because of its session or its rights: with ``http``, or by a socket that is closed
    at once (``close``), because browsers hide HTTP from their pages; ``auto`` does that if there is an ``Origin``."""
    refusal_hold: timedelta = timedelta(seconds=1.5)
    """Time for which a client is held that comes back by itself, such as a Yjs provider whose session is suspended."""
    max_refused_sockets: int = 1_000
    """Maximum number of sockets that are only open to be told why they are closed; further ones get HTTP."""
    opening_timeout: timedelta = timedelta(seconds=10)
    """Maximum time between an accepted handshake and its open socket; then the connection is dropped."""

    # --- what one client may send ---------------------------------------------------------------------
    max_message_bytes: int = 10 * 1024
    """Maximum size of a message; a longer one is answered with MESSAGE_TOO_LARGE."""
    max_frame_bytes: int = 64 * 1024
    """Maximum size of a message that is buffered; a longer one closes the socket with 1009."""
    max_depth: int = 32
    """Maximum nesting depth of objects and arrays in a payload."""
    messages_per_second: float = 200.0
    """Messages per second of one session, over all its connections."""
    message_burst: int = 400
    """Messages that one session may send at once, over all its connections."""
    traffic_per_second_bytes: int = 512 * 1024
    """Bytes per second of one session, over all its connections."""
    traffic_burst_bytes: int = 1024 * 1024
    """Bytes that one session may send at once, over all its connections."""
    rate_patience: int = 50
    """Messages refused for their rate before the socket is closed with 4429. One per second is forgiven."""
    malformed_patience: int = 10
    """Malformed messages before the socket is closed with 4400. One per ten seconds is forgiven."""
    forbidden_patience: int = 100
    """Forbidden messages before the socket is closed with 4403. One per second is forgiven."""
    max_subscriptions: int = 100
    """Maximum number of documents that one connection follows."""
    message_types: Mapping[str, Mapping[str, Any]] = {}
    """The application's message types: their names, and the JSON Schemas of their payloads (see ``message_types``)."""

    # --- what waits for one client --------------------------------------------------------------------
    max_outbox_bytes: int = 1024 * 1024
    """Bytes that may wait for a slow reader, besides what the transport holds; beyond it: 1013."""
    max_held_messages: int = 1_000
    """Messages of one client that may wait while storage is asked about its session."""
    max_held_bytes: int = 5 * 1024 * 1024
    """Bytes of one client that may wait while storage is asked about its session."""

    max_questions: int = 10_000
    """Session checks of all connections that may wait for storage; further ones fail at once."""

    # --- what is kept ---------------------------------------------------------------------------------
    history_publications: int = 1_000
    """Publications per document that a returning subscriber can be given without a reload."""
    history_age: timedelta = timedelta(minutes=5)
    """Maximum age of a publication in the history of a document."""
    history_bytes: int = 1024 * 1024
    """Maximum size of the history of one document."""
    max_history_bytes: int = 64 * 1024 * 1024
    """Maximum size of all histories. Those of documents without listeners are forgotten first, oldest first."""
    max_documents: int = 10_000
    """Maximum number of documents without listeners whose position is remembered."""
    max_recovery_bytes: int = 512 * 1024
    """A subscriber that missed more than this many bytes is told to reload."""
    repeat_window: timedelta = timedelta(minutes=2)
    """How long a message id is remembered. A repeated message is acknowledged and not published again."""
    max_repeats_per_session: int = 10_000
    """Maximum number of remembered message ids per session."""
    max_repeats: int = 100_000
    """Maximum number of remembered message ids; beyond it each session keeps only its latest 64."""

    # --- who is here ----------------------------------------------------------------------------------
    awareness_identity: AwarenessIdentity = AwarenessIdentity.STAMP
    """What is done about the `user` in the awareness of Yjs clients: `stamp` puts the session's user id and name into
    it, `check` refuses others, `off` trusts the client."""
    presence_lease: timedelta = timedelta(seconds=60)
    """How long a session is shown after its connection was last known to be alive."""
    max_presence_bytes: int = 1024
    """Maximum size of the presence of one session in one document."""
    max_document_presence_bytes: int = 256 * 1024
    """Maximum size of the presence of all sessions in one document."""

    # --- time -----------------------------------------------------------------------------------------
    tick: timedelta = timedelta(milliseconds=250)
    """How often the deadlines of silent sockets are checked. Each frame is checked when it arrives."""
    expiry_notice: timedelta = timedelta(seconds=60)
    """How long before its end a session is announced as expiring."""
    activity_interval: timedelta = timedelta(seconds=5)
    """Precision with which activity is recorded; at most a twentieth of the idle timeout."""
    position_interval: timedelta = timedelta(seconds=40)
    """How often subscribers are told the position of a document that has moved."""
    heartbeat: timedelta = timedelta(seconds=25)
    """Interval of heartbeats that clients are advised to keep: browsers cannot see the server's pings."""
    heartbeat_timeout: timedelta | None = None
    """A client that sends no message for this long is closed with 4408. Off by default: the transport's pings find
    dead peers, and a page that only listens is alive."""
    reconnect_after: timedelta = timedelta(seconds=5)
    """Maximum time after which a drained client is asked to reconnect; the actual time is drawn below it."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            # Bounds and durations of nothing would shut everybody out, or divide by zero.
            if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
                raise ValueError(f"{name} must be more than 0")
            if isinstance(value, timedelta) and value <= timedelta():
                raise ValueError(f"{name} must be longer than 0s")
        if not self.path.startswith("/"):
            raise ValueError("path must begin with /")
        if self.max_frame_bytes < self.max_message_bytes:
            raise ValueError("max_frame_bytes must not be less than max_message_bytes")
