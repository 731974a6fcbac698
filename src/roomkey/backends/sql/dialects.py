"""
PostgreSQL, MariaDB and MySQL, SQLite: what a URL says of a database, and how to connect to it.

A connection is always in autocommit mode: what is a transaction begins and ends in so many words, so that it is known
at each moment whether COMMIT was asked for.
"""

import ssl
from collections.abc import Mapping
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct

from roomkey.errors import ConfigurationError


class Dialect(StrEnum):
    """A kind of SQL. MariaDB and MySQL are one."""

    POSTGRESQL = "postgresql"
    MYSQL = "mysql"
    SQLITE = "sqlite"


SCHEMES: Final[Mapping[str, Dialect]] = {
    "postgresql": Dialect.POSTGRESQL,
    "postgres": Dialect.POSTGRESQL,
    "mysql": Dialect.MYSQL,
    "mariadb": Dialect.MYSQL,
    "sqlite": Dialect.SQLITE,
}

DRIVERS: Final[Mapping[Dialect, str]] = {
    Dialect.POSTGRESQL: "asyncpg",
    Dialect.MYSQL: "asyncmy",
    Dialect.SQLITE: "aiosqlite",
}
"""The module of each driver. The name of the extra that brings it is that of the dialect."""

PORTS: Final[Mapping[Dialect, int]] = {Dialect.POSTGRESQL: 5432, Dialect.MYSQL: 3306, Dialect.SQLITE: 0}

TLS_MODES: Final = ("disable", "prefer", "require", "verify-ca", "verify-full")
"""As libpq names them. ``prefer`` is PostgreSQL's default, and elsewhere the same as ``disable``."""

TLS_PARAMETERS: Final = frozenset({"sslmode", "sslrootcert", "sslcert", "sslkey"})


class Place(Struct, frozen=True, kw_only=True):
    """Where a database is, and how to get in. ``str`` shows no secret."""

    dialect: Dialect
    host: str = ""
    port: int = 0
    user: str | None = None
    password: str | None = None
    database: str = ""
    """The name of a database; of SQLite, the path of a file."""
    schema: str | None = None
    """A schema of PostgreSQL, if it is not the user's default."""
    tls: Mapping[str, str] = {}

    def __str__(self) -> str:
        if self.dialect is Dialect.SQLITE:
            return f"SQLite at {self.database}"
        name = "PostgreSQL" if self.dialect is Dialect.POSTGRESQL else "MariaDB"
        return f"{name} at {self.host}:{self.port}/{self.database}"

    def __repr__(self) -> str:
        return f"Place({self})"


def parse(url: str) -> Place:
    """
    The place that ``url`` names.

    ``postgresql://user:password@host:5432/database?sslmode=verify-full&sslrootcert=ca.pem&schema=roomkey``, the same
    with ``mysql://`` or ``mariadb://`` without a schema, ``sqlite:///relative/path``, ``sqlite:////absolute/path``.

    Raises:
        ConfigurationError: If it names none. The message does not show the URL, which may contain a password.
    """
    scheme, separator, rest = url.partition("://")
    dialect = SCHEMES.get(scheme.lower())
    if not separator or dialect is None:
        raise ConfigurationError("a database URL begins with postgresql://, mysql://, mariadb:// or sqlite:///")
    if dialect is Dialect.SQLITE:
        return Place(dialect=dialect, database=_file(rest))
    return _server(dialect, url)


def _file(rest: str) -> str:
    path = rest.removeprefix("/")
    if not rest.startswith("/") or not path.strip("/") or "\0" in path:
        raise ConfigurationError("sqlite:/// is followed by a file: sqlite:////var/lib/roomkey/sessions.db")
    return path


def _server(dialect: Dialect, url: str) -> Place:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "127.0.0.1", parts.port or PORTS[dialect]
    except ValueError:
        raise ConfigurationError("the database URL has no valid host and port") from None
    database = unquote(parts.path.removeprefix("/"))
    if not database or "/" in database:
        raise ConfigurationError("the database URL ends with the name of a database: postgresql://user@host/roomkey")
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    schema = parameters.pop("schema", None) if dialect is Dialect.POSTGRESQL else None
    if unknown := parameters.keys() - TLS_PARAMETERS:
        raise ConfigurationError(f"the database URL has a parameter that is not known: {', '.join(sorted(unknown))}")
    if parameters.get("sslmode", "disable") not in TLS_MODES:
        raise ConfigurationError(f"sslmode is one of {', '.join(TLS_MODES)}")
    return Place(
        dialect=dialect,
        host=host,
        port=port,
        user=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
        database=database,
        schema=schema,
        tls=parameters,
    )


# --- connecting ---------------------------------------------------------------------------------------


class TimeLimits(NamedTuple):
    """How long the server lets a connection of ours do what, in seconds."""

    statement: float
    lock: float
    idle_in_transaction: float
    """A node that stands still in a transaction must not keep others from writing for longer."""
    connect: float


async def connect(place: Place, limits: TimeLimits) -> Any:
    """A connection of the driver, set up as every connection of ours is."""
    match place.dialect:
        case Dialect.POSTGRESQL:
            return await _connect_postgresql(place, limits)
        case Dialect.MYSQL:
            return await _connect_mysql(place, limits)
        case Dialect.SQLITE:
            return await _connect_sqlite(place, limits)


def driver_of(dialect: Dialect) -> Any:
    """
    The driver's module.

    Raises:
        ConfigurationError: If it is not installed.
    """
    try:
        import_module("sqlalchemy.ext.asyncio")
        return import_module(DRIVERS[dialect])
    except ImportError:
        raise ConfigurationError(
            f"the driver of {dialect.value} is not installed: pip install 'roomkey[{dialect.value}]'"
        ) from None


async def _connect_postgresql(place: Place, limits: TimeLimits) -> Any:
    settings = {
        "application_name": "roomkey",
        "default_transaction_isolation": "read committed",
        "statement_timeout": _millis(limits.statement),
        "lock_timeout": _millis(limits.lock),
        "idle_in_transaction_session_timeout": _millis(limits.idle_in_transaction),
        "jit": "off",  # it costs more than it brings where statements take less than a millisecond
        # Pages have an index in their order. Before the first ANALYZE the server expects few rows, and sorts all.
        "enable_sort": "off",
    }
    if place.schema is not None:
        settings["search_path"] = '"' + place.schema.replace('"', '""') + '"'
    return await driver_of(place.dialect).connect(
        host=place.host,
        port=place.port,
        user=place.user,
        password=place.password,
        database=place.database,
        timeout=limits.connect,
        ssl=_tls(place, default="prefer"),
        server_settings=settings,
    )


async def _connect_mysql(place: Place, limits: TimeLimits) -> Any:
    try:
        connection = await driver_of(place.dialect).connect(
            host=place.host,
            port=place.port,
            user=place.user,
            password=place.password or "",
            database=place.database,
            connect_timeout=limits.connect,
            charset="utf8mb4",
            autocommit=True,
            ssl=_tls(place, default="disable"),
        )
    except (RuntimeError, AttributeError) as error:
        # What asyncmy stumbles over when the server hangs up before it has greeted.
        raise ConnectionResetError("the server hung up") from error
    async with connection.cursor() as cursor:
        await cursor.execute("SELECT VERSION()")
        ((version,),) = await cursor.fetchall()
        for statement in _mysql_session("MariaDB" in version, limits):
            await cursor.execute(statement)
    return connection


def _mysql_session(is_mariadb: bool, limits: TimeLimits) -> list[str]:  # noqa: FBT001
    common = [
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO'",
        f"SET SESSION innodb_lock_wait_timeout = {max(1, round(limits.lock))}",
    ]
    if is_mariadb:
        idle = max(1, round(limits.idle_in_transaction))
        return [
            *common,
            f"SET SESSION max_statement_time = {limits.statement:g}, SESSION idle_transaction_timeout = {idle}",
        ]
    return [*common, f"SET SESSION max_execution_time = {_millis(limits.statement)}"]


async def _connect_sqlite(place: Place, limits: TimeLimits) -> Any:
    Path(place.database).parent.mkdir(parents=True, exist_ok=True)
    driver = driver_of(place.dialect)
    connection = driver.connect(place.database, isolation_level=None, check_same_thread=False)
    connection.daemon = True
    await connection
    for pragma in (
        f"busy_timeout = {_millis(limits.lock)}",
        "journal_mode = WAL",
        "synchronous = FULL",  # what was acknowledged is on the disk
        "foreign_keys = OFF",
        "cache_size = -16384",  # KiB
    ):
        await connection.execute_fetchall(f"PRAGMA {pragma}")
    return connection


def _millis(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))


def _tls(place: Place, *, default: str) -> Any:
    """What asyncpg and asyncmy take as ``ssl``."""
    mode = place.tls.get("sslmode", "verify-full" if "sslrootcert" in place.tls else default)
    if mode in {"disable", "prefer"}:
        prefer = mode == "prefer" and place.dialect is Dialect.POSTGRESQL
        return "prefer" if prefer else (False if place.dialect is Dialect.POSTGRESQL else None)
    try:
        context = ssl.create_default_context(cafile=place.tls.get("sslrootcert"))
        if mode != "verify-full":
            context.check_hostname = False
        if mode == "require" and "sslrootcert" not in place.tls:
            context.verify_mode = ssl.CERT_NONE
        if "sslcert" in place.tls:
            context.load_cert_chain(place.tls["sslcert"], place.tls.get("sslkey"))
    except (OSError, ssl.SSLError) as error:
        problem = error.strerror or "not files in PEM that belong together"
        raise ConfigurationError(f"the TLS files of the database URL cannot be used: {problem}") from None
    return context


def is_visibly_closed(dialect: Dialect, driver: Any) -> bool:
    """Whether a connection that lay in the pool was closed by the server, as far as one can see without asking."""
    if dialect is Dialect.POSTGRESQL:
        return bool(driver.is_closed())
    if dialect is Dialect.MYSQL:
        return not driver.connected or bool(driver._stream_broken)  # noqa: SLF001  # there is no other way to see it
    return False


def abandon(dialect: Dialect, driver: Any) -> None:
    """Let go of a connection at once, whatever it is in the middle of. SQLite's ends when its thread gets to it."""
    if dialect is Dialect.POSTGRESQL:
        driver.terminate()
    elif dialect is Dialect.MYSQL:
        driver.close()
