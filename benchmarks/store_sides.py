"""The backends that are compared: each opened, by its URL, with a server of its own where it needs one, and filled."""

import tempfile
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

from benchmarks import databases
from benchmarks.databases import Database
from benchmarks.node import Missing
from roomkey import SessionManager, SessionPolicy, open_documents, open_storage
from roomkey.backends.redis import RedisServer, RedisSessionStorage
from roomkey.backends.redis.documents import RedisDocumentStore
from roomkey.backends.sql import DatabaseSessionStorage
from roomkey.backends.sql.database import Database as SqlDatabase
from roomkey.backends.sql.database import DatabaseSettings
from roomkey.backends.sql.documents import DatabaseDocumentStore
from roomkey.domain.session import SessionFilter, SessionId
from roomkey.errors import ConfigurationError
from roomkey.ports import DocumentStore, Page, SessionStorage
from roomkey.sessions.issuing import SessionRequest

MEMORY: Final = "memory"
LMDB: Final = "LMDB"
SQLITE: Final = "SQLite"
POSTGRESQL: Final = "PostgreSQL"
MARIADB: Final = "MariaDB"
REDIS: Final = "Redis"

SESSIONS_PER_USER: Final = 4
GROUP: Final = 500
"""So many are created at a time while a storage is filled."""

SAMPLE: Final = 10_000
"""So many of the sessions are read and changed, from everywhere."""

POLICY: Final = SessionPolicy(activation_timeout=timedelta(hours=24))
"""So that nothing becomes overdue while it is measured."""

PAGE: Final = 50
LONGEST_PAGE: Final = 500


class Side:
    """A backend that is open and filled. ``tokens`` and ``ids`` are those of the sample."""

    def __init__(
        self, name: str, url: str, database: Database | None, storage: SessionStorage, documents: DocumentStore
    ) -> None:
        self.name = name
        self.url = url
        self.database = database
        self.storage = storage
        self.documents = documents
        self.sessions = SessionManager(storage, policy=POLICY)
        self.ids: list[SessionId] = []
        self.tokens: list[str] = []
        self.last_page = Page(limit=PAGE)

    async def fill(self, count: int) -> None:
        """Create sessions, and find out where the last page of their list begins."""
        step = max(count // SAMPLE, 1)
        for first in range(0, count, GROUP):
            numbers = range(first, min(first + GROUP, count))
            issued = await self.sessions.create_sessions([SessionRequest(user_id=user(number)) for number in numbers])
            sample = [one for number, one in zip(numbers, issued, strict=True) if number % step == 0]
            self.ids += [one.id for one in sample]
            self.tokens += [one.token for one in sample]
        self.last_page = await self._find_last_page()

    async def _find_last_page(self) -> Page:
        """In long strides to the last of these, and then in short ones."""
        begin: str | None = None
        for limit in (LONGEST_PAGE, PAGE):
            page = Page(cursor=begin, limit=limit)
            while (following := (await self.storage.list(SessionFilter(), page)).next_cursor) is not None:
                begin = page.cursor
                page = Page(cursor=following, limit=limit)
            begin = page.cursor if limit == PAGE else begin
        return Page(cursor=begin, limit=PAGE)


def user(number: int) -> str:
    """Whose session it is."""
    return f"user-{number // SESSIONS_PER_USER:012d}"


# --- which there are, and how they are opened -----------------------------------------------------------

_Place = Callable[[Path], AbstractContextManager[Database | Missing]]

_SERVERS: Final[Mapping[str, _Place]] = {
    POSTGRESQL: databases.postgresql,
    MARIADB: databases.mariadb,
    REDIS: databases.redis,
}

_URLS: Final[Mapping[str, Callable[[Path], str]]] = {
    MEMORY: lambda _folder: "memory://",
    LMDB: lambda folder: f"lmdb://{folder}",
    SQLITE: lambda folder: f"sqlite:///{folder}/roomkey.sqlite",
}

NAMES: Final = (*_URLS, *_SERVERS)


Places = Mapping[str, str | Database | Missing]
"""Where each backend may keep its data, as a URL or a server that runs; or why it cannot."""


@contextmanager
def places() -> Generator[Places]:
    """All of them, gone when the block is left."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="roomkey-benchmark-")))
        found: dict[str, str | Database | Missing] = {}
        for name in NAMES:
            own = folder / name
            own.mkdir()
            url = _URLS.get(name)
            found[name] = stack.enter_context(_SERVERS[name](own)) if url is None else url(own)
        yield found


@asynccontextmanager
async def opened(places: Places, count: int) -> AsyncGenerator[dict[str, Side | Missing]]:
    """The backends at these places, open and with so many sessions each; or why one cannot take part."""
    async with AsyncExitStack() as stack:
        sides: dict[str, Side | Missing] = {}
        for name, place in places.items():
            sides[name] = place if isinstance(place, Missing) else await _open(stack, name, place)
        for side in sides.values():
            if isinstance(side, Side):
                await side.fill(count)
        yield sides


async def _open(stack: AsyncExitStack, name: str, place: str | Database) -> Side | Missing:
    url = place if isinstance(place, str) else place.url
    try:
        storage, documents = _stores(name, url)
        storage = await stack.enter_async_context(storage)
        documents = await stack.enter_async_context(documents)
    except ConfigurationError as error:
        return Missing(str(error))
    return Side(name, url, None if isinstance(place, str) else place, storage, documents)


def _stores(name: str, url: str) -> tuple[SessionStorage, DocumentStore]:
    """Sessions and documents, which share the connections to their server as in a node."""
    if name == REDIS:
        server = RedisServer(url)
        return RedisSessionStorage(server), RedisDocumentStore(server)
    if name in (SQLITE, POSTGRESQL, MARIADB):
        database = SqlDatabase(url, DatabaseSettings(migrate=True))
        return DatabaseSessionStorage(database), DatabaseDocumentStore(database)
    return open_storage(url), open_documents(url)
