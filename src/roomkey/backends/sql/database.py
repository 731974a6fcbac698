"""
The database that several stores share: its connections, and how transactions begin, end, fail and are tried again.

Isolation is READ COMMITTED. Nobody awaits a second connection while holding one, so a pool of one is enough.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.resources.abc import Traversable
from time import monotonic, time
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import structlog
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from roomkey.backends.recovery import Kind, Recovery, RecoverySettings
from roomkey.backends.sql import migrations
from roomkey.backends.sql.dialects import (
    DRIVERS,
    Dialect,
    Place,
    TimeLimits,
    abandon,
    connect,
    driver_of,
    is_visibly_closed,
    parse,
)
from roomkey.backends.sql.failures import Undone, classify
from roomkey.backends.sql.statements import driver_connection, execute, say
from roomkey.errors import ConfigurationError, RoomkeyError, Storage

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]
"""What is done with a connection. It may be done again, so it changes nothing but the database."""

Check = Callable[["Database", AsyncConnection], Awaitable[None]]
"""What is looked at when the database is opened; it raises ``ConfigurationError`` if the server will not do."""

MAX_CLOCK_DIFFERENCE: Final = 0.5
"""Seconds by which the server's clock may differ from ours before health says so."""

WORK_SHARE: Final = 0.9
"""Part of the time limit of a try after which a transaction is given up that COMMIT was not asked of."""

_BEGIN: Final[Mapping[Dialect, str]] = {
    Dialect.POSTGRESQL: "BEGIN",
    Dialect.MYSQL: "START TRANSACTION",
    Dialect.SQLITE: "BEGIN IMMEDIATE",
}
_BEGIN_SNAPSHOT: Final[Mapping[Dialect, Sequence[str]]] = {
    Dialect.POSTGRESQL: ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",),
    # Under READ COMMITTED the second would be taken without a word, and each statement would see another moment.
    Dialect.MYSQL: (
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    ),
    Dialect.SQLITE: ("BEGIN",),
}
_CLOCK: Final[Mapping[Dialect, str]] = {
    Dialect.POSTGRESQL: "SELECT extract(epoch FROM clock_timestamp())",
    Dialect.MYSQL: "SELECT unix_timestamp(sysdate(6))",
}

_DURABILITY: Final[Mapping[Dialect, str]] = {
    Dialect.POSTGRESQL: "SHOW synchronous_commit",
    Dialect.MYSQL: "SELECT @@innodb_flush_log_at_trx_commit",
}
_NOT_DURABLE: Final = frozenset({"off", "0", "2"})
"""Values with which a power failure of the server loses what was acknowledged a moment before."""

_log = structlog.get_logger("roomkey.storage")


class DatabaseSettings(Struct, frozen=True, kw_only=True):
    """Connections, time limits and schema. Times in seconds."""

    pool_size: int = 4
    """Maximum number of connections. SQLite has one more, which writes."""
    pool_timeout: float = 4.0
    """Maximum time to wait for a free connection."""
    connect_timeout: float = 3.0
    lock_timeout: float = 3.0
    idle_in_transaction_timeout: float = 10.0
    """Time after which the server ends a transaction of a node that stands still; whole seconds with MariaDB."""
    migrate: bool = False
    """Whether to bring the schema up to date when it is opened. With SQLite, that is always done."""
    flush_interval: float = 5.0
    """Maximum time until the activity of sessions is written down."""
    max_batch: int = 512
    """Maximum number of changes of sessions in one transaction."""
    max_waiting: int = 10_000
    """Maximum number of changes that wait; further callers wait for room."""
    recovery: RecoverySettings = RecoverySettings()


class Database:
    """
    A pool of connections to one database. Entered by each store that uses it, it closes when the last one leaves.

    It belongs to one event loop.
    """

    def __init__(self, url: str, settings: DatabaseSettings | None = None) -> None:
        self.settings = settings or DatabaseSettings()
        self.place: Final[Place] = parse(url)
        self.dialect: Final = self.place.dialect
        self._recovery = Recovery(str(self.place), classify, self.settings.recovery)
        self._users = 0
        self._opening = asyncio.Lock()
        self._readers: AsyncEngine | None = None
        self._writers: AsyncEngine | None = None
        self._clock_difference = 0.0
        self._checks: list[Check] = []

    @property
    def pause(self) -> Callable[[int], float]:
        """Seconds before another try of what has failed that many times."""
        return self._recovery.pause

    # --- opening --------------------------------------------------------------------------------------

    def add_check(self, check: Check) -> None:
        """Let ``check`` look at the server when it is opened. For stores, before they enter."""
        self._checks.append(check)

    async def __aenter__(self) -> Self:
        async with self._opening:
            if self._users == 0:
                await self._open()
            self._users += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with self._opening:
            self._users -= 1
            if self._users == 0:
                await self._close()

    @asynccontextmanager
    async def unchecked(self) -> AsyncGenerator[Self]:
        """Open it without a look at what is there: for ``migrate`` and ``pending_migrations``."""
        self._connect()
        try:
            yield self
        finally:
            await self._close()

    def _connect(self) -> None:
        driver_of(self.dialect)
        self._readers = self._engine(self.settings.pool_size)
        # SQLite has one writer at a time. Those who wait for it in line are served in their order.
        self._writers = self._engine(1) if self.dialect is Dialect.SQLITE else self._readers

    async def _open(self) -> None:
        self._connect()
        try:
            if self.settings.migrate or self.dialect is Dialect.SQLITE:
                await self.migrate()
            else:
                await self._check_schema()
            await self._measure_clock()
            await self._look_at_durability()
            for check in self._checks:
                await self.read(partial(check, self))
        except BaseException:
            await self._close()
            raise

    async def _close(self) -> None:
        engines = [engine for engine in dict.fromkeys((self._readers, self._writers)) if engine is not None]
        self._readers = self._writers = None
        for engine in engines:
            with suppress(TimeoutError):  # whoever stands still is not waited for
                async with asyncio.timeout(self.settings.recovery.timeout):
                    await engine.dispose()

    async def connect(self) -> Any:
        """A connection of the driver beside the pool, for what stays on one. Whoever asks for it closes it."""
        settings = self.settings
        limits = TimeLimits(
            statement=settings.recovery.timeout,
            lock=settings.lock_timeout,
            idle_in_transaction=settings.idle_in_transaction_timeout,
            connect=settings.connect_timeout,
        )
        return await connect(self.place, limits)

    def _engine(self, size: int) -> AsyncEngine:
        return create_async_engine(
            f"{self.dialect.value}+{DRIVERS[self.dialect]}://",
            async_creator=self.connect,
            isolation_level="AUTOCOMMIT",
            poolclass=AsyncAdaptedQueuePool,
            pool_size=size,
            max_overflow=0,
            pool_timeout=self.settings.pool_timeout,
            pool_reset_on_return=None,  # each transaction is ended where it began, or its connection is thrown away
            pool_recycle=3600,  # below the eight hours after which MariaDB ends a connection that does nothing
        )

    async def migrate(self, steps: Traversable | None = None) -> list[str]:
        """
        Bring the schema up to date; the names of the migrations that were made. Safe from several nodes at once.

        ``steps`` is a folder with other files than those that are shipped.
        """
        try:
            # No time limit: a step may rewrite a large table.
            async with self._connection(self._writers) as connection:
                return await migrations.apply(connection, self.dialect, steps)
        except Exception as error:
            failure = self._recovery.failure_of(error)
            if failure is None:
                raise
            # A step that was made is not made again.
            raise self._recovery.error(failure, may_repeat=True) from error

    async def pending_migrations(self) -> list[str]:
        """The names of the migrations that the schema lacks."""
        return await self.read(partial(migrations.pending, dialect=self.dialect))

    async def _check_schema(self) -> None:
        pending = await self.pending_migrations()
        if pending:
            raise ConfigurationError(
                f"the schema of {self.place} is too old: it lacks {', '.join(pending)}; run `roomkey migrate`"
            )

    async def _measure_clock(self) -> None:
        statement = _CLOCK.get(self.dialect)
        if statement is None:
            return
        began = monotonic()
        ((theirs,),) = await self.read(lambda connection: execute(connection, self.dialect, statement, ()))
        ours = time() - (monotonic() - began) / 2
        self._clock_difference = float(theirs) - ours
        if abs(self._clock_difference) >= MAX_CLOCK_DIFFERENCE:
            _log.warning("storage_clock_differs", server=str(self.place), seconds=round(self._clock_difference, 3))

    async def _look_at_durability(self) -> None:
        statement = _DURABILITY.get(self.dialect)
        if statement is None:
            return
        ((setting,),) = await self.read(lambda connection: execute(connection, self.dialect, statement, ()))
        if str(setting) in _NOT_DURABLE:
            _log.warning("storage_not_durable", server=str(self.place), setting=statement, value=str(setting))

    def degradations(self) -> Mapping[str, str]:
        """What is wrong, for health; empty while all is well."""
        found = dict(self._recovery.breaker.degradations())
        if abs(self._clock_difference) >= MAX_CLOCK_DIFFERENCE and str(self.place) not in found:
            found[str(self.place)] = f"its clock is {self._clock_difference:+.1f} s off"
        return found

    # --- using ----------------------------------------------------------------------------------------

    async def read(self, work: Work[T], *, snapshot: bool = False) -> T:
        """
        What ``work`` returns, which only reads. With ``snapshot`` all its statements see the same moment.

        Raises:
            Storage: If the server failed.
        """

        async def once() -> T:
            async with self._connection(self._readers) as connection:
                if not snapshot:
                    return await work(connection)
                for statement in _BEGIN_SNAPSHOT[self.dialect]:
                    await self._say(connection, statement)
                try:
                    return await work(connection)
                finally:
                    await self._say(connection, "ROLLBACK")

        # Nothing is changed by it.
        return await self._recovery.call(once, may_repeat=True)

    async def write(self, work: Work[T], *, may_repeat: bool) -> T:
        """
        What ``work`` returns, once all that it wrote is committed: one transaction, all or nothing.

        It is tried again after a deadlock and the like, which undo all. Whoever says ``may_repeat`` says why in a
        comment: then it is tried again, too, after a connection broke while COMMIT was on its way.

        Raises:
            Storage: If the server failed; nothing was written, or ``may_repeat`` was said.
            OutcomeUnknown: If it is not known whether it was committed.
        """
        return await self._recovery.call(partial(self._transaction, work), may_repeat=may_repeat)

    async def write_at_once(self, work: Work[T], *, may_repeat: bool) -> T:
        """
        What ``work`` returns, a single statement that is a transaction of its own: no lock is held between two.

        ``may_repeat`` is as with ``write``.

        Raises:
            Storage: As ``write``.
            OutcomeUnknown: As ``write``.
        """

        async def once() -> T:
            async with self._connection(self._writers) as connection:
                return await work(connection)

        return await self._recovery.call(once, may_repeat=may_repeat)

    async def _transaction(self, work: Work[T]) -> T:
        committing = False
        try:
            async with self._connection(self._writers) as connection:
                try:
                    async with asyncio.timeout(WORK_SHARE * self.settings.recovery.timeout):
                        await self._say(connection, _BEGIN[self.dialect])
                        found = await work(connection)
                except RoomkeyError:
                    await self._say(connection, "ROLLBACK")
                    raise
                committing = True
                await self._say(connection, "COMMIT")
                return found
        except RoomkeyError:
            raise
        except Exception as error:
            if committing or self._recovery.failure_of(error) is None:
                raise
            raise Undone from error

    async def _say(self, connection: AsyncConnection, statement: str) -> None:
        await say(connection, self.dialect, statement)

    @asynccontextmanager
    async def _connection(self, engine: AsyncEngine | None) -> AsyncGenerator[AsyncConnection]:
        """A connection of the pool. It goes back only if what was done with it ended well, or is known to be undone."""
        if engine is None:
            raise Storage("the storage is not open")
        async with self._fresh(engine) as connection:
            try:
                yield connection
            except RoomkeyError:
                raise
            except BaseException as error:
                await self._clean_up(connection, error)
                raise

    @asynccontextmanager
    async def _fresh(self, engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
        while True:
            async with engine.connect() as connection:
                if not is_visibly_closed(self.dialect, driver_connection(connection)):
                    yield connection
                    return
                await connection.invalidate()

    async def _clean_up(self, connection: AsyncConnection, error: BaseException) -> None:
        """End the transaction after ``error``, or the connection if it is not known in which state that is."""
        failure = classify(error) if isinstance(error, Exception) else None
        if failure is not None and failure.kind not in {Kind.AWAY, Kind.SLOW}:
            try:
                await self._roll_back(connection)
            except Exception:  # noqa: BLE001  # it does not matter why: the connection is not used any more
                failure = None
            else:
                return
        abandon(self.dialect, driver_connection(connection))
        await connection.invalidate()

    async def _roll_back(self, connection: AsyncConnection) -> None:
        if self.dialect is Dialect.SQLITE and not driver_connection(connection).in_transaction:
            return
        async with asyncio.timeout(1):
            await self._say(connection, "ROLLBACK")


def opened(database: "str | Database", settings: DatabaseSettings | None) -> Database:
    """The database that a store was given, or one of its own."""
    return database if isinstance(database, Database) else Database(database, settings)
