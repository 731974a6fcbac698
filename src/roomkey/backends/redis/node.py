"""One server of a Redis: its connections, opened when they are needed and shared by all callers, and its breaker."""

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import time
from typing import Any, Final, Protocol, TypeVar, overload

import structlog

from roomkey.backends.recovery import Failure, Kind, Recovery
from roomkey.backends.redis.connection import Command, Connection
from roomkey.backends.redis.failures import Broken, ReplyError, classify, unreachable
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.settings import MAX_CLOCK_DIFFERENCE, RedisSettings
from roomkey.backends.redis.url import Address, Certificates, Login

_log = structlog.get_logger("roomkey.storage")

Locate = Callable[[], Awaitable[Address]]
"""Says where the server listens now: Sentinel may name another one than before."""

AnyConnection = TypeVar("AnyConnection", bound=Connection)
Made_co = TypeVar("Made_co", bound=Connection, covariant=True)


class Make(Protocol[Made_co]):
    """Makes a connection of some kind."""

    def __call__(self, *, timeout: float, max_in_flight: int, max_bytes: int) -> Made_co: ...


class Dialer:
    """Opens connections that are logged in."""

    def __init__(self, settings: RedisSettings, login: Login, tls: Certificates | None, database: int = 0) -> None:
        self.timeout: Final = settings.recovery.timeout
        self._settings = settings
        self._login = login
        self._database = database
        self._tls = None if tls is None else _context(tls)

    @overload
    async def dial(self, address: Address, *, is_master: bool = True) -> Connection: ...

    @overload
    async def dial(self, address: Address, *, is_master: bool = True, make: Make[AnyConnection]) -> AnyConnection: ...

    async def dial(self, address: Address, *, is_master: bool = True, make: Make[Any] = Connection) -> Connection:
        """
        A connection to the server at ``address``, of the kind that ``make`` makes.

        Raises:
            Broken: If it is not there, does not let us in, or is a replica though ``is_master``.
        """
        connection: Connection | None = None
        try:
            async with asyncio.timeout(self.timeout):
                connection = await self._connect(address, make)
                await self._greet(connection, is_master=is_master)
        except BaseException as error:
            if connection is not None:
                connection.close(Failure(Kind.AWAY, "it did not let us in"))
            failure = unreachable(error, self.timeout)
            if failure is None:
                raise
            raise Broken(failure) from error
        return connection

    async def _connect(self, address: Address, make: Make[Connection]) -> Connection:
        settings = self._settings
        loop = asyncio.get_running_loop()

        def begin() -> Connection:
            return make(timeout=self.timeout, max_in_flight=settings.max_in_flight, max_bytes=settings.max_bytes)

        if address.port == 0:
            _, connection = await loop.create_unix_connection(begin, address.host)
        else:
            name = address.host if self._tls is not None else None
            _, connection = await loop.create_connection(
                begin, address.host, address.port, ssl=self._tls, server_hostname=name
            )
        return connection

    async def _greet(self, connection: Connection, *, is_master: bool) -> None:
        login = self._login
        words: list[bytes | int | str] = [b"HELLO", 3]
        if login.password is not None:
            words += [b"AUTH", login.user or "default", login.password]
        # All at once: a server that is loading its data listens but a few times per second.
        greeting = connection.send((*words, b"SETNAME", b"roomkey"))
        chosen = connection.send((b"SELECT", self._database)) if self._database else None
        before = time()
        told = connection.send((b"TIME",))
        described = connection.send((b"INFO", b"server"))
        for future in (chosen, told, described):
            if future is not None:
                future.add_done_callback(_seen)
        try:
            found: Mapping[bytes, Any] = await greeting
        except ReplyError as error:
            if error.code == "ERR" and "unknown command" in error.rest:
                raise Broken(Failure(Kind.WRONG, "it is older than Redis 6")) from error
            raise
        if is_master and found.get(b"role") not in {b"master", None}:
            raise Broken(Failure(Kind.READ_ONLY, "it is a replica"))
        if chosen is not None:
            await chosen
        connection.version = _version(found.get(b"version", b""))
        connection.clock_difference = await _difference(told, before)
        connection.run = await _run(described)


async def _difference(told: "asyncio.Future[Any]", before: float) -> float:
    """Seconds by which the clock of a server differs from this machine's, which was ``before`` when it was asked."""
    try:
        seconds, micros = await told
    except ReplyError:
        return 0.0  # it may be forbidden, and is not needed for anything else
    there = int(seconds) + int(micros) / 1_000_000
    return max(before - there, there - time(), 0.0)


async def _run(described: "asyncio.Future[Any]") -> bytes:
    """What names the process of a server, if it says."""
    try:
        info = await described
    except ReplyError:
        return b""  # it may be forbidden
    text = info if isinstance(info, bytes) else b""
    match = _RUN.search(text)
    return b"" if match is None else match[1]


_RUN: Final = re.compile(rb"^run_id:([0-9a-f]+)", re.MULTILINE)


def _version(said: bytes) -> tuple[int, ...]:
    return tuple(int(part) for part in said.split(b".") if part.isdigit())


def _seen(future: "asyncio.Future[Any]") -> None:
    """Should nobody wait for it any more."""
    if not future.cancelled():
        future.exception()


class Node:
    """
    A server, as all callers share it.

    Whoever needs a connection opens it, one at a time; the others wait for that one, and fail with it.
    """

    def __init__(self, name: str, locate: Locate, dialer: Dialer, settings: RedisSettings) -> None:
        self.recovery = Recovery(name, classify, settings.recovery)
        self.clock_difference = 0.0
        self.address = Address("", 0)
        """Where it listens, once that is known."""
        self._locate = locate
        self._dialer = dialer
        self.connection: Connection | None = None
        self._opening = asyncio.Lock()
        self._attempts: int = 0
        self._failed: Failure | None = None
        self._loading: dict[bytes, asyncio.Future[Any]] = {}

    async def connected(self) -> Connection:
        """
        A connection that has room.

        Raises:
            Broken: If none can be had.
        """
        connection = self.connection
        if connection is None or connection.is_closed:
            connection = await self._opened()
        if connection.is_crowded:
            await connection.room()
        return connection

    async def _opened(self) -> Connection:
        attempts = self._attempts
        async with self._opening:
            if self.connection is not None and not self.connection.is_closed:
                return self.connection
            if self._failed is not None and self._attempts != attempts:
                raise Broken(self._failed)  # for the one that went before us, while we waited
            self._failed = None
            self._attempts += 1
            try:
                self.address = await self._locate()
                self.connection = await self._dialer.dial(self.address)
            except Broken as error:
                self._failed = error.failure
                raise
            self._note_clock(self.connection.clock_difference)
            return self.connection

    def _note_clock(self, difference: float) -> None:
        self.clock_difference = difference
        if difference >= MAX_CLOCK_DIFFERENCE:
            _log.warning("storage_clock_differs", server=self.recovery.breaker.name, seconds=round(difference, 3))

    async def load(self, script: Script) -> None:
        """Teach the server a script; of those who miss it at once, one does."""
        loading = self._loading.get(script.digest)
        if loading is None:
            connection = await self.connected()
            loading = connection.send((b"SCRIPT", b"LOAD", script.source))
            self._loading[script.digest] = loading
            loading.add_done_callback(lambda _: self._loading.pop(script.digest, None))
        await asyncio.shield(loading)

    async def alone(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to ``commands`` on a connection of their own, where they make nobody wait."""
        connection = await self._dialer.dial(await self._locate())
        try:
            return await connection.send_batch(commands)
        finally:
            connection.close(Failure(Kind.AWAY, "closed"))

    async def another(self, make: Make[AnyConnection]) -> tuple[Address, AnyConnection]:
        """
        A connection of its own kind, which belongs to whoever asks, and where it leads.

        Raises:
            Broken: If none can be had.
        """
        address = await self._locate()
        return address, await self._dialer.dial(address, make=make)

    def drop(self, why: Failure) -> None:
        """Give the connection up, so that the next caller opens one, perhaps to another server."""
        if self.connection is not None:
            self.connection.close(why)
            self.connection = None

    async def close(self) -> None:
        """Close for good, at the end of everything."""
        connection = self.connection
        if connection is not None:
            self.drop(Failure(Kind.AWAY, "the storage is closed", is_undone=True))
            await connection.wait_closed()

    def degradations(self) -> dict[str, str]:
        """What is wrong with it, by its name."""
        found = dict(self.recovery.breaker.degradations())
        if self.clock_difference >= MAX_CLOCK_DIFFERENCE:
            name = self.recovery.breaker.name
            found.setdefault(name, f"its clock differs by {self.clock_difference:.1f} s from this machine's")
        return found


def _context(files: Certificates) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files.cert is not None:
        context.load_cert_chain(files.cert, files.key)
    return context
