"""Stores on servers of every kind, for tests of what happens when these fail: with short time limits."""

import asyncio
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Final, Protocol

from redis import Redis

from roomkey.backends.recovery import RecoverySettings
from roomkey.backends.redis import RedisSessionStorage
from roomkey.backends.redis.documents import RedisDocumentStore
from roomkey.backends.redis.settings import RedisSettings
from roomkey.backends.sql import DatabaseSessionStorage
from roomkey.backends.sql.database import DatabaseSettings
from roomkey.backends.sql.documents import DatabaseDocumentStore
from roomkey.ports import DocumentStore, SessionStorage
from tests.support.store_servers import MariaDBProcess, PostgreSQLProcess, RedisProcess, ServerProcess
from tests.support.store_servers.redis import APPLICATION

PATIENCE_SECONDS: Final = 20

QUICK: Final = RecoverySettings(
    timeout=1.0, first_pause=0.02, longest_pause=0.2, rest=0.1, longest_rest=0.3, settles_after=0.3
)

USER, PASSWORD = APPLICATION
NEW_PASSWORD: Final = "n3w"

_NUMBERS: Final = count(1)


class Deployment(Protocol):
    """A namespace of its own on a server, the stores in it, and what an operator can do to the server."""

    url: str

    @property
    def server(self) -> ServerProcess:
        """Where it is."""
        ...

    def sessions(self, url: str | None = None) -> SessionStorage:
        """A storage that is not entered yet."""
        ...

    def documents(self, url: str | None = None) -> DocumentStore:
        """The same for documents."""
        ...

    def make_read_only(self) -> None:
        """Let the server take no writes."""
        ...

    def make_writable(self) -> None:
        """Let it take them again."""
        ...

    def set_password(self, password: str) -> None:
        """Let the user have another one, and hang up on everybody."""
        ...

    def refuse_connections(self) -> None:
        """Let no more connections be made than there are operators', and hang up on everybody."""
        ...

    def allow_connections(self) -> None:
        """Let them be made again."""
        ...


class OnRedis:
    """A prefix of keys."""

    settings = RedisSettings(recovery=QUICK)

    def __init__(self, server: RedisProcess) -> None:
        self.server = server
        self._operator: Redis | None = None
        self.set_password(PASSWORD)
        place = server.url.partition("://")[2]
        self.url = f"redis://{USER}:{PASSWORD}@{place}?prefix=fault-{next(_NUMBERS)}"

    def sessions(self, url: str | None = None) -> SessionStorage:
        return RedisSessionStorage(url or self.url, self.settings)

    def documents(self, url: str | None = None) -> DocumentStore:
        return RedisDocumentStore(url or self.url, self.settings)

    def make_read_only(self) -> None:
        self.server.ask("REPLICAOF", "127.0.0.1", 1)

    def make_writable(self) -> None:
        self.server.ask("REPLICAOF", "NO", "ONE")

    def set_password(self, password: str) -> None:
        self.server.ask("ACL", "SETUSER", USER, "on", "resetpass", f">{password}", "~*", "&*", "+@all")
        self._hang_up()

    def refuse_connections(self) -> None:
        self._operator = self.server.operator()  # the one connection that there may be
        self._operator.config_set("maxclients", 1)  # pyright: ignore[reportUnknownMemberType]
        self._operator.client_kill_filter(user=USER)  # pyright: ignore[reportUnknownMemberType]

    def allow_connections(self) -> None:
        assert self._operator is not None
        self._operator.config_set("maxclients", 1000)  # pyright: ignore[reportUnknownMemberType]
        self._operator.close()

    def _hang_up(self) -> None:
        self.server.ask("CLIENT", "KILL", "USER", USER)


class OnDatabase:
    """A database."""

    settings = DatabaseSettings(
        recovery=QUICK, migrate=True, pool_timeout=0.8, connect_timeout=0.8, lock_timeout=0.8, flush_interval=0.05
    )

    def __init__(self, server: PostgreSQLProcess | MariaDBProcess, database: str) -> None:
        self.server = server
        self._database = database
        self.url = server.url_of(database)

    def sessions(self, url: str | None = None) -> SessionStorage:
        return DatabaseSessionStorage(url or self.url, self.settings)

    def documents(self, url: str | None = None) -> DocumentStore:
        return DatabaseDocumentStore(url or self.url, self.settings)


class OnPostgreSQL(OnDatabase):
    """Its user owns the database, and is no superuser."""

    def __init__(self, server: PostgreSQLProcess, database: str) -> None:
        super().__init__(server, database)
        self._ask: Callable[..., str] = server.ask
        self._user = f"{USER}_{database}"
        self._ask(
            f"CREATE ROLE {self._user} LOGIN PASSWORD '{PASSWORD}'", f"ALTER DATABASE {database} OWNER TO {self._user}"
        )
        self.url = self.url.replace("roomkey@", f"{self._user}:{PASSWORD}@")

    def make_read_only(self) -> None:
        self._ask(f"ALTER DATABASE {self._database} SET default_transaction_read_only = on")
        self._hang_up()

    def make_writable(self) -> None:
        self._ask(f"ALTER DATABASE {self._database} RESET default_transaction_read_only")
        self._hang_up()

    def set_password(self, password: str) -> None:
        self._ask(f"ALTER ROLE {self._user} PASSWORD '{password}'")
        self._hang_up()

    def refuse_connections(self) -> None:
        self._ask(f"ALTER ROLE {self._user} CONNECTION LIMIT 0")
        self._hang_up()

    def allow_connections(self) -> None:
        self._ask(f"ALTER ROLE {self._user} CONNECTION LIMIT -1")

    def _hang_up(self) -> None:
        self._ask(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{self._user}'")


class OnMariaDB(OnDatabase):
    """Its user may do everything in the database, and nothing to the server."""

    def __init__(self, server: MariaDBProcess, database: str) -> None:
        super().__init__(server, database)
        self._ask: Callable[..., str] = server.ask
        self._user = f"{USER}_{database}"
        self._ask(
            f"CREATE USER {self._user}@'%' IDENTIFIED BY '{PASSWORD}'", f"GRANT ALL ON {database}.* TO {self._user}@'%'"
        )
        self.url = self.url.replace("root@", f"{self._user}:{PASSWORD}@")

    def make_read_only(self) -> None:
        self._ask("SET GLOBAL read_only = 1")

    def make_writable(self) -> None:
        self._ask("SET GLOBAL read_only = 0")

    def set_password(self, password: str) -> None:
        self._ask(f"ALTER USER {self._user}@'%' IDENTIFIED BY '{password}'")
        self._hang_up()

    def refuse_connections(self) -> None:
        self._ask(
            "SET GLOBAL max_password_errors = 1000000", f"ALTER USER {self._user}@'%' WITH MAX_USER_CONNECTIONS 1"
        )
        self._hang_up()

    def allow_connections(self) -> None:
        self._ask(f"ALTER USER {self._user}@'%' WITH MAX_USER_CONNECTIONS 0")

    def _hang_up(self) -> None:
        self._ask(f"KILL USER {self._user}@'%'")


@contextmanager
def deployed(server: ServerProcess) -> Generator[Deployment]:
    """A deployment on the server, which is whole again afterwards, whatever a test has done to it."""
    try:
        if isinstance(server, RedisProcess):
            yield OnRedis(server)
        elif isinstance(server, PostgreSQLProcess):
            with server.database() as database:
                yield OnPostgreSQL(server, database)
        elif isinstance(server, MariaDBProcess):
            with server.database() as database:
                yield OnMariaDB(server, database)
    finally:
        if server.is_running:
            server.resume()
        else:
            server.start()


async def until(condition: Callable[[], Any], what: str) -> None:
    """Return when ``condition`` holds."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():  # noqa: ASYNC110  # servers tell nobody
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{what} did not come true within {PATIENCE_SECONDS} s") from None


def numbered(prefix: str) -> Iterator[str]:
    """Names that begin so."""
    return (f"{prefix}-{number}" for number in count(1))
