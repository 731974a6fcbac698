"""Settings of documents and of the sockets that edit them, with their defaults."""

from datetime import timedelta

from msgspec import Struct


class DocumentSettings(Struct, frozen=True, kw_only=True):
    """Bounds and intervals of documents and of the sockets that edit them. Sizes are bytes of Yjs updates."""

    path: str = "/yjs"
    """Path at which y-websocket clients connect; the document's name follows it, percent-encoded."""
    hocuspocus_path: str = "/hocuspocus"
    """Path at which Hocuspocus clients connect."""

    # --- what one client may send ---------------------------------------------------------------------
    max_update_bytes: int = 1024 * 1024
    """Maximum size of an update over a socket; a longer one closes it with 1009. REST takes larger ones."""
    messages_per_second: float = 1_000.0
    """Messages per second of one session, over all its document sockets; beyond it: 1013."""
    message_burst: int = 2_000
    """Messages that one session may send at once, over all its document sockets."""
    traffic_per_second_bytes: int = 2 * 1024 * 1024
    """Bytes per second of one session, over all its document sockets."""
    traffic_burst_bytes: int = 16 * 1024 * 1024
    """Bytes that one session may send at once, over all its document sockets."""
    max_documents_per_socket: int = 100
    """Maximum number of documents on one Hocuspocus socket."""

    # --- before authentication ------------------------------------------------------------------------
    max_unauthenticated_bytes: int = 5 * 1024 * 1024
    """Bytes that may wait for a token on one Hocuspocus socket."""
    max_unauthenticated_messages: int = 1_000
    """Messages that may wait for a token on one Hocuspocus socket."""
    authentication_deadline: timedelta = timedelta(seconds=60)
    """Maximum time until a Hocuspocus socket has shown a valid token. Traffic does not extend it."""
    max_unauthenticated_sockets: int = 1_000
    """Maximum number of Hocuspocus sockets that have not shown a valid token."""

    # --- who is here ----------------------------------------------------------------------------------
    max_awareness_bytes: int = 16 * 1024
    """Maximum size of the awareness state of one Yjs client."""
    max_clients_per_socket: int = 32
    """Maximum number of Yjs clients that one connection may show in one document."""
    max_document_awareness_bytes: int = 2 * 1024 * 1024
    """Maximum size of the awareness of one document. One user fills at most a quarter of it."""
    keep_alive: timedelta = timedelta(seconds=20)
    """Idle time of a document after which a keep-alive is sent; clients disconnect after 30 s of silence."""

    # --- what a document may be -----------------------------------------------------------------------
    max_document_bytes: int = 64 * 1024 * 1024
    """Maximum size of a document."""
    max_unsaved_bytes: int = 16 * 1024 * 1024
    """Bytes of one document that may wait for storage; beyond it writes are refused."""
    max_unsaved_age: timedelta = timedelta(minutes=5)
    """Age of the oldest change that waits for storage beyond which writes are refused."""
    load_timeout: timedelta = timedelta(seconds=20)
    """Maximum time to load a document, or to wait for a change to be stored."""

    # --- what is kept in memory -----------------------------------------------------------------------
    max_open_documents: int = 20_000
    """Maximum number of documents in memory."""
    max_idle_bytes: int = 64 * 1024 * 1024
    """Memory for saved documents that nobody uses; the least recently used are evicted first."""
    idle_timeout: timedelta = timedelta(minutes=5)
    """How long a saved document that nobody uses stays in memory."""

    # --- what is kept in storage ----------------------------------------------------------------------
    save_interval: timedelta = timedelta(milliseconds=50)
    """
    Minimum time between two commits, each of which stores what all documents of the node have waiting; what is
    written over HTTP does not wait for it. 0 commits as often as storage can.
    """
    share_interval: timedelta = timedelta(milliseconds=5)
    """The same where nodes are joined by a broker: others are shown a change when it is stored."""
    sweep_interval: timedelta = timedelta(seconds=5)
    """How often maintenance runs: compaction, versions, eviction."""
    compact_updates: int = 5_000
    """Number of updates in a log above which it is merged into the snapshot."""
    compact_bytes: int = 2 * 1024 * 1024
    """Size of a log above which it is merged into the snapshot."""
    version_interval: timedelta = timedelta(minutes=10)
    """How often a version is kept of a document that changes; another one is kept when everybody has left."""
    max_automatic_versions: int = 100
    """Maximum number of automatic versions per document; the oldest are forgotten first, labelled ones stay."""

    def __post_init__(self) -> None:
        may_be_zero = ("save_interval", "share_interval")
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, int | float) and value <= 0:
                raise ValueError(f"{name} must be more than 0")
            if isinstance(value, timedelta) and value <= timedelta() and name not in may_be_zero:
                raise ValueError(f"{name} must be longer than 0s")
        for name in ("path", "hocuspocus_path"):
            path: str = getattr(self, name)
            if not path.startswith("/") or path.endswith("/"):
                raise ValueError(f"{name} must begin with / and not end with it")
