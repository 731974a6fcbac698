"""Where things are: the settings of storages and of what joins nodes, and what is wrong with them."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from os.path import realpath
from pathlib import Path
from typing import Final

from msgspec import Struct

from roomkey.backends import DOCUMENTS_FOLDER, OBJECTS_FOLDER, StoreOptions, check_url, urls
from roomkey.errors import ConfigurationError
from roomkey.security import masterkey

SERVERS: Final[Mapping[str, str]] = {"redis": "redis_url", "database": "database_url"}
"""Words for storages, and the setting that says where each is."""


class StorageSettings(Struct, frozen=True, kw_only=True):
    """Where sessions and documents are stored."""

    url: str = "file"
    """Storage of sessions: ``memory``, ``file`` (LMDB in ``directory``), ``redis`` (at ``redis_url``), ``database`` (at
    ``database_url``), or a URL such as ``lmdb:///var/lib/roomkey`` or ``redis://localhost``."""
    url_file: Path | None = None
    """File with what ``url`` would say, for URLs with passwords."""
    documents: str = "same"
    """Storage of documents: ``same`` (as sessions), or what ``url`` may be. In LMDB they have a folder of their own."""
    directory: Path = Path("data")
    """Directory of ``file``. The directory of sessions also gets the key file, if no master key is given."""
    redis_url: str | None = None
    """Where the storage called ``redis`` is."""
    database_url: str | None = None
    """Where the storage called ``database`` is."""
    password: str | None = None
    """Password for the storage of sessions, if its URL has none."""
    pool_size: int | None = None
    """Maximum number of connections to a database. Off: what is usual for it."""
    timeout: timedelta | None = None
    """Maximum time that a server takes for one try of what it is asked for. Off: 5s."""
    key_prefix: str | None = None
    """What all keys in Redis begin with. Off: ``roomkey``, or what the URL says."""
    migrate: bool = False
    """Bring the schema of a database up to date at start, as `roomkey migrate` does."""
    wait_replicas: int = 0
    """Number of replicas of Redis that must have a revocation before it is answered."""

    def __repr__(self) -> str:
        return f"StorageSettings(url={urls.shown(self.url)!r}, documents={urls.shown(self.documents)!r})"

    @property
    def location(self) -> str:
        """The URL that ``open_storage`` takes. Raises ``ConfigurationError`` if ``password`` does not go with it."""
        location = self.location_of(self.url)
        return location if self.password is None else urls.with_password(location, self.password)

    @property
    def documents_location(self) -> str:
        """The URL that ``open_documents`` takes."""
        return self.location if self.documents == "same" else self.location_of(self.documents)

    @property
    def folder(self) -> Path | None:
        """The directory on this machine that sessions are stored in, if LMDB does that."""
        return _folder_of(self.location)

    @property
    def is_volatile(self) -> bool:
        """Whether sessions are gone with the process."""
        return self.location.lower().startswith("memory://")

    @property
    def documents_folder(self) -> Path | None:
        """The directory on this machine that documents are stored in, if LMDB does that."""
        folder = _folder_of(self.documents_location)
        return folder and folder / DOCUMENTS_FOLDER

    @property
    def objects_folder(self) -> Path | None:
        """The directory on this machine that objects are stored in, if LMDB does that."""
        return self.folder and self.folder / OBJECTS_FOLDER

    @property
    def key_file(self) -> Path | None:
        """The file that a master key is made in if none is given: beside the sessions, if they are on this machine."""
        folder = urls.folder_of(self.location)
        return folder and folder / masterkey.FILE_NAME

    @property
    def options(self) -> StoreOptions:
        """What stores are opened with."""
        return StoreOptions(
            pool_size=self.pool_size,
            timeout=self.timeout,
            key_prefix=self.key_prefix,
            migrate=self.migrate,
            wait_replicas=self.wait_replicas,
        )

    def location_of(self, name: str) -> str:
        """The URL that a word such as ``file`` stands for."""
        match name:
            case "memory":
                return "memory://"
            case "file":
                return f"lmdb://{_absolute(self.directory).as_posix()}"
            case "redis":
                return self.redis_url or name
            case "database":
                return self.database_url or name
            case url:
                return url


class BrokerSettings(Struct, frozen=True, kw_only=True):
    """What joins nodes, so that people at different ones meet."""

    url: str = "same"
    """What carries messages between nodes: ``same`` (the storage of sessions, if it can), ``none``, ``redis``,
    ``database``, or a URL of Redis or PostgreSQL."""

    def __repr__(self) -> str:
        return f"BrokerSettings(url={urls.shown(self.url)!r})"

    def location_beside(self, storage: StorageSettings) -> str:
        """The URL of the broker."""
        return storage.location if self.url == "same" else storage.location_of(self.url)


class NodesSettings(Struct, frozen=True, kw_only=True):
    """What a node does because others may change sessions, too. Only on a storage that is a server."""

    blind_grace: timedelta = timedelta(seconds=10)
    """Time for which open sockets go on when a node has heard nothing of the others for 2s; 0: not at all."""
    near_cache_sessions: int = 10_000
    """Maximum number of sessions that are remembered for authentication; 0: each request asks the storage."""
    near_cache_age: timedelta = timedelta(seconds=2)
    """Time for which a session is remembered at most; what is heard of it ends that at once."""


def shared_and_not(*, by_broker: bool, by_keys: bool, by_counters: bool) -> tuple[str, str]:
    """
    What the processes on one storage do as one, and what each does alone, in words.

    ``by_broker``: something carries messages between them; ``by_keys``: they have one master key, or the memory of one
    machine; ``by_counters``: something counts for all of them.
    """
    parts = {
        "sessions and documents": True,
        "tickets and idempotency keys": by_keys,
        "rooms, presence, awareness and connections per session": by_broker,
        "handshakes per address": by_counters,
        "messages per session": False,
    }
    joined, alone = ([part for part, is_joined in parts.items() if is_joined is wanted] for wanted in (True, False))
    return "; ".join(joined), "; ".join(alone)


def location_contradictions(storage: StorageSettings, broker: BrokerSettings) -> Iterator[str]:
    """Problems of the places that are named."""
    try:
        location = storage.location
    except ConfigurationError as error:
        yield f"storage.password: {error}"
        return
    problems = list(_location_problems("storage.url", storage.url, location))
    if storage.documents != "same":
        location = storage.documents_location
        problems += _location_problems("storage.documents", storage.documents, location)
    if broker.url not in ("same", "none"):
        problems += _location_problems("broker.url", broker.url, broker.location_beside(storage))
    folder, documents_folder = storage.folder, storage.documents_folder
    # A process may open a directory only once. Unlike Path.resolve, realpath never raises.
    if not problems and folder and documents_folder and realpath(folder) == realpath(documents_folder):
        problems.append(f"storage.documents: documents would be stored in {folder}, as sessions are")
    yield from problems


def _location_problems(setting: str, name: str, location: str) -> Iterator[str]:
    if name in SERVERS and location == name:
        yield f"{setting}: {name} is where storage.{SERVERS[name]} ({SERVERS[name].upper()}) says, which is not set"
    elif "://" not in location:
        yield f"{setting}: {location!r} is not memory, file, redis, database or a URL such as lmdb:///var/lib/roomkey"
    else:
        try:
            check_url(location)
        except ConfigurationError as error:
            yield f"{setting}: {error}"


def _absolute(folder: Path) -> Path:
    try:
        return folder.absolute()
    except OSError as error:
        raise ConfigurationError("the working directory does not exist any more; change to another one") from error


def _folder_of(location: str) -> Path | None:
    return urls.folder_of(location) if location.lower().startswith("lmdb://") else None
