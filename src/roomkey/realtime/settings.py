"""What the operator can set about sockets, and the numbers if he sets nothing."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from msgspec import Struct


class RealtimeSettings(Struct, frozen=True, kw_only=True):
    """The bounds of every queue, table and patience on ``/ws``. Sizes are bytes of JSON, before compression."""

    path: str = "/ws"

    # --- who is let in --------------------------------------------------------------------------------
    allowed_origins: tuple[str, ...] = ()
    """Origins whose pages may connect, besides our own. If there are any, they count for every credential;
    cookies are taken from no other page in any case."""
    query_tokens: bool = False
    """Whether ``?token=`` is a credential. Addresses reach logs, so tickets are the better way."""
    max_connections: int = 25_000
    max_connections_per_session: int = 16
    handshakes_per_second: float = 200.0
    """From one address; behind a NAT or a proxy many people share one."""
    handshake_burst: int = 2_000
    authentication_timeout: timedelta = timedelta(seconds=5)
    opening_timeout: timedelta = timedelta(seconds=10)
    """How long an accepted handshake may take to become a socket before its place is given away."""

    # --- what one client may send ---------------------------------------------------------------------
    max_message_bytes: int = 10 * 1024
    """Longer messages are answered with MESSAGE_TOO_LARGE."""
    max_frame_bytes: int = 64 * 1024
    """Longer messages are not even buffered: 1009."""
    max_depth: int = 32
    """How deep objects and arrays may nest in a payload."""
    messages_per_second: float = 200.0
    """Of one session, over all its connections; as the three that follow."""
    message_burst: int = 400
    traffic_per_second_bytes: int = 512 * 1024
    traffic_burst_bytes: int = 1024 * 1024
    rate_patience: int = 50
    """So many messages are refused in a row, one per second forgiven, before 4429."""
    malformed_patience: int = 10
    """So many malformed messages, one per ten seconds forgiven, before 4400."""
    forbidden_patience: int = 100
    """So many messages without the right to send them, one per second forgiven, before 4403."""
    max_subscriptions: int = 100
    """Documents that one connection follows at a time."""
    message_types: Mapping[str, Mapping[str, Any]] = {}
    """Messages of the application: their names, and the JSON Schemas of their payloads (see ``vocabulary``)."""

    # --- what waits for one client --------------------------------------------------------------------
    max_outbox_bytes: int = 1024 * 1024
    """What may wait for a slow reader, beyond what the transport holds, before 1013."""
    max_held_messages: int = 1_000
    """Messages of a client that wait while storage is asked whether its session still holds."""
    max_held_bytes: int = 5 * 1024 * 1024
    """The same, of all of them together."""

    max_questions: int = 10_000
    """Checks of sessions that may wait for storage, of all connections; beyond it they fail at once."""

    # --- what is kept ---------------------------------------------------------------------------------
    history_publications: int = 1_000
    """Per document, as the two that follow: what a returning subscriber can be given without a reload."""
    history_age: timedelta = timedelta(minutes=5)
    history_bytes: int = 1024 * 1024
    max_history_bytes: int = 64 * 1024 * 1024
    """Of all documents together. Those that nobody is in are forgotten first, the stalest before others."""
    max_documents: int = 10_000
    """Documents without listeners whose position is remembered."""
    max_recovery_bytes: int = 512 * 1024
    """A subscriber that missed more than this is told to reload."""
    repeat_window: timedelta = timedelta(minutes=2)
    """How long a message id is remembered: the same one again is acknowledged, not published again."""
    max_repeats_per_session: int = 10_000
    max_repeats: int = 100_000
    """Remembered ids of all sessions; beyond it each session keeps only its latest 64."""

    # --- who is here ----------------------------------------------------------------------------------
    presence_lease: timedelta = timedelta(seconds=60)
    max_presence_bytes: int = 1024
    """Of one session in one document."""
    max_document_presence_bytes: int = 256 * 1024
    """Of everybody in one document."""

    # --- time -----------------------------------------------------------------------------------------
    tick: timedelta = timedelta(milliseconds=250)
    """How often deadlines are looked at on sockets that are silent. A frame is checked to the moment."""
    expiry_notice: timedelta = timedelta(seconds=60)
    activity_interval: timedelta = timedelta(seconds=5)
    """How precisely activity is recorded; never coarser than a twentieth of the idle timeout."""
    position_interval: timedelta = timedelta(seconds=40)
    """How often subscribers learn where their documents stand, if these moved."""
    heartbeat: timedelta = timedelta(seconds=25)
    """What clients are advised to send heartbeats at, for their own sake: browsers cannot see our pings."""
    heartbeat_timeout: timedelta | None = None
    """Whoever sends no message at all for so long is closed with 4408. Off: the transport's pings already find
    dead peers, and a page that only listens is not dead."""
    reconnect_after: timedelta = timedelta(seconds=5)
    """The longest that a drained client is asked to wait before it comes back; jitter below it."""

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
