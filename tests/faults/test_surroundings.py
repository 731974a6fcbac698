"""What is wrong around a store: certificates, clocks, disks, locks, and too few connections."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace

from roomkey.backends.sql import DatabaseSessionStorage
from roomkey.backends.sql.database import Database
from roomkey.domain.lifecycle import apply
from roomkey.domain.session import Activated
from roomkey.errors import Storage
from roomkey.testing.storage import disagreements, issue
from roomkey.testing.storage.suite import NOON, ROOMY, fact, store
from tests.support.certificates import make_certificates
from tests.support.deployments import PASSWORD, USER, OnDatabase, deployed, until
from tests.support.disks import fill, small_disk
from tests.support.ledgers import SessionLedger, load, some_writes
from tests.support.store_servers import (
    MariaDBProcess,
    PostgreSQLProcess,
    RedisProcess,
    ServerProcess,
    mariadb,
    postgresql,
    redis,
)
from tests.support.store_servers.fixtures import needs, server_folder

START: Final[dict[str, Callable[..., AbstractContextManager[Any]]]] = {
    "redis": redis,
    "postgresql": postgresql,
    "mariadb": mariadb,
}

CALLERS: Final = 100


@pytest.fixture(params=["postgresql", "mariadb"])
def database(request: pytest.FixtureRequest) -> Generator[OnDatabase]:
    with deployed(request.getfixturevalue(f"{request.param}_server")) as made:
        assert isinstance(made, OnDatabase)
        yield made


# --- databases ----------------------------------------------------------------------------------------


async def test_a_pool_of_one_serves_a_hundred_callers(database: OnDatabase) -> None:
    settings = replace(database.settings, pool_size=1)
    async with DatabaseSessionStorage(database.url, settings) as storage, asyncio.timeout(30):

        async def live(number: int) -> None:
            session = await store(storage, f"user-{number}", active=True)
            await storage.get(session.id)
            if number % 2:
                await storage.revoke_user(session.user_id, NOON, actor="system", reason=None, except_session=None)

        await asyncio.gather(*(live(number) for number in range(CALLERS)))

        assert await disagreements(storage) == []


async def test_changes_of_many_in_every_order_do_not_get_into_each_other_s_way(database: OnDatabase) -> None:
    async with database.sessions() as one, database.sessions() as another:
        for _ in range(5):
            new = [issue(f"user-{number}") for number in range(30)]
            await one.create(new, ROOMY, NOON)
            changes = [
                (apply(each.session, event), event) for each in new for event in [fact(each.session, Activated, NOON)]
            ]
            forwards, backwards = await asyncio.gather(
                one.update_many(changes), another.update_many(list(reversed(changes)))
            )

            assert [a + b for a, b in zip(forwards, reversed(backwards), strict=True)] == [1] * len(new)
        assert await disagreements(one) == []


async def test_locks_that_somebody_holds_for_a_while_are_waited_for(database: OnDatabase) -> None:
    is_mysql = isinstance(database.server, MariaDBProcess)
    server: Any = database.server
    async with database.sessions() as storage, load(ledger := SessionLedger(storage)):
        await some_writes(ledger)
        table = "roomkey_partitions"
        name = database.url.rpartition("/")[2]
        lock = f"LOCK TABLES {table} WRITE" if is_mysql else f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"
        wait = "DO SLEEP(2)" if is_mysql else "SELECT pg_sleep(2)"
        script = f"{lock}; {wait}" if is_mysql else f"BEGIN; {lock}; {wait}; COMMIT"
        await asyncio.to_thread(partial(server.ask, script, database=name))
        await some_writes(ledger)
        await until(lambda: not ledger.degradations(), "the recovery")
    # The storage is closed: another one looks.
    async with database.sessions() as storage:
        assert await disagreements(storage) == []


async def test_two_migrations_at_once_are_one(database: OnDatabase) -> None:
    nodes = [Database(database.url, database.settings) for _ in range(4)]

    async def open_and_close(node: Database) -> list[str]:
        async with node:
            return await node.pending_migrations()

    assert await asyncio.gather(*(open_and_close(node) for node in nodes)) == [[]] * 4


# --- disks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "size"), [("redis", "8m"), ("postgresql", "150m"), ("mariadb", "250m")])
async def test_a_server_whose_disk_is_full_loses_nothing_that_it_has_acknowledged(kind: str, size: str) -> None:
    needs(kind)
    folder = server_folder()
    with small_disk(folder, size):
        folder.chmod(0o755)
        with START[kind](folder) as server, deployed(server) as deployment:
            async with deployment.sessions() as storage:
                ledger = SessionLedger(storage)
                async with load(ledger):
                    await some_writes(ledger)
                    await asyncio.to_thread(fill, folder / "ballast")
                    await until(ledger.degradations, "a word about the disk")
                    (folder / "ballast").unlink()
                    if not server.is_running:
                        await asyncio.to_thread(server.start)
                    await some_writes(ledger)
                    await until(lambda: not ledger.degradations(), "the recovery")
                assert await ledger.contradictions() == []


# --- clocks -------------------------------------------------------------------------------------------


def other_clock() -> dict[str, str]:
    """What lets a process believe that it is five seconds later."""
    libraries = [path for folder in ("/usr/lib", "/usr/local/lib") for path in Path(folder).rglob("libfaketime.so.1")]
    if not libraries:
        pytest.skip("there is no libfaketime on this machine; script/test installs it with apt when root")
    return {"LD_PRELOAD": str(libraries[0]), "FAKETIME": "+5s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
async def test_a_server_whose_clock_is_five_seconds_off_is_named_by_health(kind: str) -> None:
    needs(kind)
    with START[kind](server_folder(), variables=other_clock()) as server, deployed(server) as deployment:
        async with deployment.sessions() as storage:
            session = await store(storage, active=True)

            assert any("clock" in why and "5.0 s" in why for why in storage.degradations().values())
            assert await storage.get(session.id) == session
            assert await disagreements(storage) == []


OPEN_ELSEWHERE: Final = """
import asyncio, sys
from roomkey.backends.redis import RedisSessionStorage

async def main():
    async with RedisSessionStorage(sys.argv[1]) as storage:
        print(*storage.degradations().values())

asyncio.run(main())
"""


async def test_a_redis_whose_clock_is_five_seconds_off_is_named_by_health(redis_url: str) -> None:
    # The other way round: Redis' allocator asks for the time before libfaketime can say it.
    command = (sys.executable, "-c", OPEN_ELSEWHERE, redis_url)
    child = await asyncio.create_subprocess_exec(*command, env={**os.environ, **other_clock()}, stdout=PIPE)
    output, _ = await child.communicate()

    assert "clock" in output.decode()
    assert "5.0 s" in output.decode()


# --- certificates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", START)
async def test_a_certificate_that_has_expired_is_named_by_health_until_it_is_renewed(kind: str, tmp_path: Path) -> None:
    needs(kind)
    certificates = make_certificates(tmp_path)
    valid, expired = (
        certificates.certificate.read_bytes(),
        certificates.certificate.with_suffix(".expired").read_bytes(),
    )
    with START[kind](server_folder(), tls=certificates) as server, deployed(server) as deployment:
        url = deployment.url if kind != "redis" else server.url.replace("://", f"://{USER}:{PASSWORD}@")
        async with deployment.sessions(url) as storage:
            session = await store(storage)
            show(server, certificates.certificate, expired)
            await until_refused(storage.ping)
            assert any("certificate" in why.lower() for why in storage.degradations().values())
            show(server, certificates.certificate, valid)
            await until_answered(storage.ping)

            assert await storage.get(session.id) == session


def show(server: ServerProcess, place: Path, certificate: bytes) -> None:
    """Let the server show this certificate to those who come, and hang up on everybody."""
    place.write_bytes(certificate)
    match server:
        case RedisProcess():
            server.ask("CONFIG", "SET", "tls-cert-file", str(place))
            server.ask("CLIENT", "KILL", "USER", USER)
        case PostgreSQLProcess():
            (server.data / "server.crt").write_bytes(certificate)
            server.ask("SELECT pg_reload_conf()", "SELECT pg_sleep(0.2)")
            server.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'app_%'")
        case MariaDBProcess():
            server.ask("FLUSH SSL")
            for user in server.ask("SELECT user FROM mysql.user WHERE user LIKE 'app_%'").splitlines():
                server.ask(f"KILL USER {user}@'%'")
        case _:
            raise AssertionError


async def until_refused(ping: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        with suppress(Storage):
            while True:
                await ping()


async def until_answered(ping: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while True:
            with suppress(Storage):
                await ping()
                return
            await asyncio.sleep(0.05)
