"""Storage: one file or folder for each technology, and the table that finds one by its URL."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from roomkey.errors import ConfigurationError
from roomkey.ports import (
    CHECKSUMMED_RECORDS,
    Clock,
    Cluster,
    DocumentStore,
    ObjectStore,
    OneTimeLimits,
    RecordCodec,
    SealingCodec,
    SessionStorage,
    SharedState,
)
from roomkey.security.possession import PROOF_LIMITS

DOCUMENTS_FOLDER: Final = "documents"
"""The folder of the documents in the directory of an LMDB storage."""

OBJECTS_FOLDER: Final = "objects"
"""The same for objects."""


class StoreOptions(Struct, frozen=True, kw_only=True):
    """What may be said of a server besides its URL; what it does not have is ignored. ``None`` is its default."""

    pool_size: int | None = None
    """Maximum number of connections to a database."""
    timeout: timedelta | None = None
    """Maximum time of one try to do something."""
    key_prefix: str | None = None
    """What all keys in Redis begin with."""
    migrate: bool = False
    """Whether to bring the schema of a database up to date when it is opened."""
    wait_replicas: int = 0
    """Number of replicas of Redis that must have a revocation before it is answered."""


class SharedSettings(Struct, frozen=True, kw_only=True):
    """What ``open_shared`` needs: what tickets, answers and proofs may take, and a secret that all nodes have."""

    tickets: OneTimeLimits
    answers: OneTimeLimits
    clock: Clock
    secret: bytes
    proofs: OneTimeLimits = PROOF_LIMITS


class ClusterSettings(Struct, frozen=True, kw_only=True):
    """
    What ``Stores.cluster`` needs: who this node is, and how much of each room is kept for those who come back.

    ``history_publications``, ``history_age`` and ``history_bytes`` all hold, per room; ids of messages are remembered
    for ``repeat_window``.
    """

    node: str
    clock: Clock
    history_publications: int
    history_age: timedelta
    history_bytes: int
    repeat_window: timedelta


class Stores:
    """
    The stores of one process by their URLs. Those of one URL share its connections.

    Stores open when they are entered as async context managers; connections close when the last one is left.
    """

    def __init__(self, options: StoreOptions | None = None, codec: RecordCodec = CHECKSUMMED_RECORDS) -> None:
        """What leaves the process goes through ``codec``."""
        self._options = options or StoreOptions()
        self._codec = codec
        self._places: dict[str, Any] = {}

    def sessions(self, url: str) -> SessionStorage:
        """
        The storage of sessions that ``url`` names.

        Raises:
            ConfigurationError: As ``open_storage``.
        """
        backend, place = self._found(url)
        return backend.sessions(place, self._codec_of("sessions"))

    def documents(self, url: str) -> DocumentStore:
        """
        The store of documents beside the storage that ``url`` names.

        Raises:
            ConfigurationError: As ``open_storage``.
        """
        backend, place = self._found(url)
        return backend.documents(place, self._codec_of("documents"))

    def shared(self, url: str, settings: SharedSettings) -> SharedState:
        """
        What the nodes on the storage that ``url`` names share besides it.

        Raises:
            ConfigurationError: As ``open_storage``.
            Storage: If its directory cannot be made.
        """
        backend, place = self._found(url)
        return backend.shared(place, settings)

    def objects(self, url: str) -> ObjectStore:
        """
        What is kept besides sessions and documents in the storage that ``url`` names.

        Raises:
            ConfigurationError: As ``open_storage``.
        """
        backend, place = self._found(url)
        return backend.objects(place, self._codec_of("objects"))

    def cluster(self, url: str, settings: ClusterSettings) -> Cluster | None:
        """
        What joins the nodes at ``url``; ``None`` if its technology cannot do that.

        Raises:
            ConfigurationError: As ``open_storage``.
        """
        backend, place = self._found(url)
        return None if backend.cluster is None else backend.cluster(place, settings)

    def _codec_of(self, store: str) -> RecordCodec:
        return self._codec.within(store) if isinstance(self._codec, SealingCodec) else self._codec

    def _found(self, url: str) -> tuple["_Backend", Any]:
        backend = _backend_of(url)
        if url not in self._places:
            self._places[url] = backend.place(url, self._options)
        return backend, self._places[url]


def check_url(url: str) -> None:
    """
    Raise unless ``url`` names a storage. Loads no driver of one on this machine.

    Raises:
        ConfigurationError: As ``open_storage``.
    """
    _backend_of(url).place(url, StoreOptions())


def open_storage(url: str, codec: RecordCodec = CHECKSUMMED_RECORDS) -> SessionStorage:
    """
    The storage that ``url`` names; it opens when it is entered as an async context manager.

    ``memory://`` keeps sessions as long as the process lives, ``lmdb:///var/lib/roomkey`` in that directory,
    ``lmdb://data`` in one relative to the current directory. Directories are taken as they are written: there
    is no percent-encoding. The others are servers, ``redis://``, ``redis+sentinel://``, ``redis+cluster://``,
    ``postgresql://``, ``mysql://``, ``mariadb://``, and ``sqlite:///``. What leaves the process goes through ``codec``.

    Raises:
        ConfigurationError: If there is no such storage, a part of the URL is missing, or its driver is not installed.
            Never shows the URL, which may contain a password.
    """
    return Stores(codec=codec).sessions(url)


def open_documents(url: str, codec: RecordCodec = CHECKSUMMED_RECORDS) -> DocumentStore:
    """
    The store of documents beside the storage that ``url`` names: of ``lmdb:///var/lib/roomkey`` the directory
    ``documents`` in it.

    Raises:
        ConfigurationError: As ``open_storage``.
    """
    return Stores(codec=codec).documents(url)


def open_shared(url: str, settings: SharedSettings) -> SharedState:
    """
    What the nodes on the storage that ``url`` names share besides it.

    Raises:
        ConfigurationError: As ``open_storage``.
        Storage: If its directory cannot be made.
    """
    return Stores().shared(url, settings)


class _Backend(NamedTuple):
    """
    What opens the stores of one technology.

    ``place`` makes of a URL what its stores stand on and share: a directory, or the connections to a server.
    """

    place: Callable[[str, StoreOptions], Any]
    sessions: Callable[[Any, RecordCodec], SessionStorage]
    documents: Callable[[Any, RecordCodec], DocumentStore]
    shared: Callable[[Any, SharedSettings], SharedState]
    objects: Callable[[Any, RecordCodec], ObjectStore]
    cluster: Callable[[Any, ClusterSettings], Cluster | None] | None = None
    extra: str | None = None
    drivers: Sequence[str] = ()


def _backend_of(url: str) -> _Backend:
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise ConfigurationError(f"a storage URL has the form scheme://…; {_CHOICE}")
    backend = _BACKENDS.get(scheme.lower())
    if backend is None:
        raise ConfigurationError(f"there is no storage for {_shown(scheme)}; {_CHOICE}")
    missing = [driver for driver in backend.drivers if find_spec(driver) is None]
    if missing:
        raise ConfigurationError(
            f"{_shown(scheme)} needs {' and '.join(missing)}: pip install 'roomkey[{backend.extra}]'"
        )
    return backend


# Each imports its backend itself, so that nobody loads a driver that nobody uses.


def _memory_place(url: str, _options: StoreOptions) -> None:
    if url.partition("://")[2]:
        raise ConfigurationError("memory:// is followed by nothing")


def _memory_sessions(_place: None, _codec: RecordCodec) -> SessionStorage:
    from roomkey.backends.memory import MemorySessionStorage  # noqa: PLC0415

    return MemorySessionStorage()


def _memory_documents(_place: None, _codec: RecordCodec) -> DocumentStore:
    from roomkey.backends.memory.documents import MemoryDocumentStore  # noqa: PLC0415

    return MemoryDocumentStore()


def _memory_shared(_place: None, settings: SharedSettings) -> SharedState:
    from roomkey.backends.memory.shared import MemoryShared  # noqa: PLC0415

    return MemoryShared(
        tickets=settings.tickets, answers=settings.answers, proofs=settings.proofs, clock=settings.clock
    )


def _memory_objects(_place: None, _codec: RecordCodec) -> ObjectStore:
    from roomkey.backends.memory.objects import MemoryObjectStore  # noqa: PLC0415

    return MemoryObjectStore()


def _lmdb_place(url: str, _options: StoreOptions) -> Path:
    rest = url.partition("://")[2]
    if not rest.strip("/"):
        raise ConfigurationError("lmdb:// is followed by a directory: lmdb:///var/lib/roomkey")
    if "\0" in rest:
        raise ConfigurationError("the name of a directory has no zero bytes")
    return Path(rest)


def _lmdb_sessions(directory: Path, codec: RecordCodec) -> SessionStorage:
    from roomkey.backends.lmdb import FileSystemSessionStorage  # noqa: PLC0415

    return FileSystemSessionStorage(directory, codec=codec)


def _lmdb_documents(directory: Path, codec: RecordCodec) -> DocumentStore:
    from roomkey.backends.lmdb.documents import FileSystemDocumentStore  # noqa: PLC0415

    return FileSystemDocumentStore(directory / DOCUMENTS_FOLDER, codec=codec)


def _lmdb_objects(directory: Path, codec: RecordCodec) -> ObjectStore:
    from roomkey.backends.lmdb.objects import FileSystemObjectStore  # noqa: PLC0415

    return FileSystemObjectStore(directory / OBJECTS_FOLDER, codec=codec)


def _lmdb_shared(directory: Path, settings: SharedSettings) -> SharedState:
    from roomkey.backends.lmdb.shared import FileSystemShared  # noqa: PLC0415

    return FileSystemShared(
        directory,
        secret=settings.secret,
        own=_memory_shared(None, settings),
        tickets=settings.tickets,
        answers=settings.answers,
        proofs=settings.proofs,
        clock=settings.clock,
    )


def _redis_place(url: str, options: StoreOptions) -> Any:
    from roomkey.backends.recovery import RecoverySettings  # noqa: PLC0415
    from roomkey.backends.redis.server import RedisServer, RedisSettings  # noqa: PLC0415

    settings = RedisSettings(key_prefix=options.key_prefix, wait_replicas=options.wait_replicas)
    if options.timeout is not None:
        settings = replace(settings, recovery=RecoverySettings(timeout=options.timeout.total_seconds()))
    return RedisServer(url, settings)


def _redis_sessions(server: Any, codec: RecordCodec) -> SessionStorage:
    from roomkey.backends.redis import RedisSessionStorage  # noqa: PLC0415

    return RedisSessionStorage(server, codec=codec)


def _redis_documents(server: Any, codec: RecordCodec) -> DocumentStore:
    from roomkey.backends.redis.documents import RedisDocumentStore  # noqa: PLC0415

    return RedisDocumentStore(server, codec=codec)


def _redis_objects(server: Any, codec: RecordCodec) -> ObjectStore:
    from roomkey.backends.redis.objects import RedisObjectStore  # noqa: PLC0415

    return RedisObjectStore(server, codec=codec)


def _redis_shared(server: Any, settings: SharedSettings) -> SharedState:
    from roomkey.backends.redis.shared import RedisShared  # noqa: PLC0415

    return RedisShared(
        server,
        secret=settings.secret,
        own=_memory_shared(None, settings),
        tickets=settings.tickets,
        answers=settings.answers,
        proofs=settings.proofs,
    )


def _redis_cluster(server: Any, settings: ClusterSettings) -> Cluster:
    from roomkey.backends.redis.cluster import (  # noqa: PLC0415
        Histories,
        RedisBroker,
        RedisNodeRegistry,
        RedisPresenceStore,
    )

    histories = Histories(
        publications=settings.history_publications,
        age=settings.history_age,
        size=settings.history_bytes,
        repeat_window=settings.repeat_window,
    )
    return Cluster(
        RedisBroker(server, settings.node, histories),
        RedisPresenceStore(server, settings.node),
        RedisNodeRegistry(server),
    )


def _sql_place(url: str, options: StoreOptions) -> Any:
    from roomkey.backends.recovery import RecoverySettings  # noqa: PLC0415
    from roomkey.backends.sql.database import Database, DatabaseSettings  # noqa: PLC0415

    settings = DatabaseSettings(migrate=options.migrate)
    if options.pool_size is not None:
        settings = replace(settings, pool_size=options.pool_size)
    if options.timeout is not None:
        settings = replace(settings, recovery=RecoverySettings(timeout=options.timeout.total_seconds()))
    return Database(url, settings)


def _sql_sessions(database: Any, codec: RecordCodec) -> SessionStorage:
    from roomkey.backends.sql import DatabaseSessionStorage  # noqa: PLC0415

    return DatabaseSessionStorage(database, codec=codec)


def _sql_documents(database: Any, codec: RecordCodec) -> DocumentStore:
    from roomkey.backends.sql.documents import DatabaseDocumentStore  # noqa: PLC0415

    return DatabaseDocumentStore(database, codec=codec)


def _sql_objects(database: Any, codec: RecordCodec) -> ObjectStore:
    from roomkey.backends.sql.objects import DatabaseObjectStore  # noqa: PLC0415

    return DatabaseObjectStore(database, codec=codec)


def _sql_shared(database: Any, settings: SharedSettings) -> SharedState:
    from roomkey.backends.sql.shared import DatabaseShared  # noqa: PLC0415

    return DatabaseShared(
        database,
        secret=settings.secret,
        own=_memory_shared(None, settings),
        tickets=settings.tickets,
        answers=settings.answers,
        proofs=settings.proofs,
    )


def _sql_cluster(database: Any, settings: ClusterSettings) -> Cluster | None:
    from roomkey.backends.sql.cluster import Histories, open_cluster  # noqa: PLC0415

    kept = Histories(
        publications=settings.history_publications,
        age=settings.history_age,
        size=settings.history_bytes,
        repeat_window=settings.repeat_window,
    )
    return open_cluster(database, settings.node, kept)


_REDIS: Final = _Backend(
    _redis_place,
    _redis_sessions,
    _redis_documents,
    _redis_shared,
    _redis_objects,
    _redis_cluster,
    extra="redis",
    drivers=("redis", "hiredis"),
)


def _sql(extra: str, driver: str) -> _Backend:
    drivers = ("sqlalchemy", driver)
    return _Backend(
        _sql_place,
        _sql_sessions,
        _sql_documents,
        _sql_shared,
        _sql_objects,
        _sql_cluster,
        extra=extra,
        drivers=drivers,
    )


_BACKENDS: Final[Mapping[str, _Backend]] = {
    "memory": _Backend(_memory_place, _memory_sessions, _memory_documents, _memory_shared, _memory_objects),
    "lmdb": _Backend(_lmdb_place, _lmdb_sessions, _lmdb_documents, _lmdb_shared, _lmdb_objects),
    **{f"{family}{kind}": _REDIS for family in ("redis", "rediss") for kind in ("", "+sentinel", "+cluster", "+unix")},
    "sqlite": _sql("sqlite", "aiosqlite"),
    "postgresql": _sql("postgresql", "asyncpg"),
    "postgres": _sql("postgresql", "asyncpg"),
    "mysql": _sql("mysql", "asyncmy"),
    "mariadb": _sql("mysql", "asyncmy"),
}

_CHOICE: Final = "there are memory://, lmdb://, redis://, sqlite://, postgresql:// and mysql://"


def _shown(scheme: str) -> str:
    """A scheme as far as it can be one: what somebody put in its place may be a secret."""
    plain = scheme.replace("+", "").replace("-", "")
    return f"{scheme}://" if plain.isascii() and plain.isalpha() and len(scheme) <= 24 else "this URL"
