"""What documents may cost, how often they are saved and tidied up, and how long things are waited for."""

from datetime import timedelta

from msgspec import Struct


class DocumentSettings(Struct, frozen=True, kw_only=True):
    """The bounds of documents and of the sockets that edit them. Sizes are bytes of Yjs updates."""

    path: str = "/yjs"
    """Where y-websocket clients connect: the document's name follows, percent-encoded."""
    hocuspocus_path: str = "/hocuspocus"

    # --- what one client may send ---------------------------------------------------------------------
    max_update_bytes: int = 1024 * 1024
    """Longer messages are not even buffered: 1009. What is larger comes in over REST."""
    messages_per_second: float = 1_000.0
    """Of one session, over all its sockets of documents; as the three that follow. Beyond it: 1013."""
    message_burst: int = 2_000
    traffic_per_second_bytes: int = 2 * 1024 * 1024
    traffic_burst_bytes: int = 16 * 1024 * 1024
    max_documents_per_socket: int = 100
    """Only Hocuspocus has more than one."""

    # --- before it is known who it is -----------------------------------------------------------------
    max_unauthenticated_bytes: int = 5 * 1024 * 1024
    """Messages that may wait for a token, on one socket, as the two that follow. Only Hocuspocus has them."""
    max_unauthenticated_messages: int = 1_000
    authentication_deadline: timedelta = timedelta(seconds=60)
    """How long a Hocuspocus socket may be open before it has opened a document. Traffic does not move it."""
    max_unauthenticated_sockets: int = 1_000
    """Sockets of which it is not known yet whose they are."""

    # --- who is here ----------------------------------------------------------------------------------
    max_awareness_bytes: int = 16 * 1024
    """What one Yjs client may show of itself."""
    max_clients_per_socket: int = 32
    """Yjs clients that one connection may show in one document."""
    max_document_awareness_bytes: int = 2 * 1024 * 1024
    keep_alive: timedelta = timedelta(seconds=20)
    """So long nothing is said in a document, then something is: clients hang up after 30 s of silence."""

    # --- what a document may be -----------------------------------------------------------------------
    max_document_bytes: int = 64 * 1024 * 1024
    max_unsaved_bytes: int = 16 * 1024 * 1024
    """Of one document: when so much waits for storage, writes are refused until it answers again."""
    max_unsaved_age: timedelta = timedelta(minutes=5)
    """The same, for the oldest change that waits."""
    load_timeout: timedelta = timedelta(seconds=20)

    # --- what is kept in memory -----------------------------------------------------------------------
    max_open_documents: int = 20_000
    max_idle_bytes: int = 64 * 1024 * 1024
    """Documents that nobody uses and that are saved stay so long as they have room, the latest used longest."""
    idle_timeout: timedelta = timedelta(minutes=5)

    # --- what is kept in storage ----------------------------------------------------------------------
    save_interval: timedelta = timedelta(milliseconds=25)
    """Between two writes of one document, while it changes all the time; 0 writes as often as storage can."""
    sweep_interval: timedelta = timedelta(seconds=5)
    compact_updates: int = 5_000
    """A log longer than this is merged into the snapshot, as is one with more bytes than the next."""
    compact_bytes: int = 2 * 1024 * 1024
    version_interval: timedelta = timedelta(minutes=10)
    """While a document changes, a version of it is kept so often, and one when everybody has gone."""
    max_automatic_versions: int = 100
    """Of one document; the oldest go first. Those with a label stay."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, int | float) and value <= 0:
                raise ValueError(f"{name} must be more than 0")
            if isinstance(value, timedelta) and value <= timedelta() and name != "save_interval":
                raise ValueError(f"{name} must be longer than 0s")
        for name in ("path", "hocuspocus_path"):
            path: str = getattr(self, name)
            if not path.startswith("/") or path.endswith("/"):
                raise ValueError(f"{name} must begin with / and not end with it")
