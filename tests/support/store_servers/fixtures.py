"""The servers as fixtures: each is started when a test first asks for it, and ended with the run."""

import os
from collections.abc import Generator
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from tests.support.store_servers.folders import RUN_FOLDER_VARIABLE, begin_run, end_run, run_folder
from tests.support.store_servers.mariadb import MariaDBProcess, mariadb
from tests.support.store_servers.postgresql import PostgreSQLProcess, postgresql
from tests.support.store_servers.process import is_there, missing
from tests.support.store_servers.redis import RedisProcess, redis
from tests.support.store_servers.redis_cluster import ClusterServers, redis_cluster
from tests.support.store_servers.redis_sentinel import SentinelServers, redis_sentinel

_NUMBERS: Final = count(1)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Make the folder of the run, before it is distributed among processes."""
    if RUN_FOLDER_VARIABLE not in os.environ and not hasattr(config, "workerinput"):
        begin_run()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove it with all that servers have left in it."""
    if not hasattr(config, "workerinput"):
        end_run()


def server_folder() -> Path:
    """A new folder for a server, which is removed at the end of the run; its path is short, as sockets need it."""
    folder = run_folder() / f"{os.getpid()}-{next(_NUMBERS)}"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def redis_server() -> Generator[RedisProcess]:
    """A Redis server of this process."""
    needs("redis")
    with redis(server_folder()) as server:
        yield server


@pytest.fixture(scope="session")
def sentinel_servers() -> Generator[SentinelServers]:
    """Redis with Sentinel."""
    needs("redis")
    with redis_sentinel(server_folder()) as servers:
        yield servers


@pytest.fixture(scope="session")
def cluster_servers() -> Generator[ClusterServers]:
    """A Redis Cluster."""
    needs("redis")
    with redis_cluster(server_folder()) as servers:
        yield servers


@pytest.fixture(scope="session")
def postgresql_server() -> Generator[PostgreSQLProcess]:
    """A PostgreSQL server of this process."""
    needs("postgresql")
    with postgresql(server_folder()) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Generator[MariaDBProcess]:
    """A MariaDB server of this process."""
    needs("mariadb")
    with mariadb(server_folder()) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisProcess) -> str:
    """A Redis storage with nothing in it."""
    return with_prefix(redis_server.url)


@pytest.fixture
def sentinel_url(sentinel_servers: SentinelServers) -> str:
    """The same with Sentinel."""
    return with_prefix(sentinel_servers.url)


@pytest.fixture
def cluster_url(cluster_servers: ClusterServers) -> str:
    """The same on a Cluster."""
    return with_prefix(cluster_servers.url)


@pytest.fixture
def postgresql_url(postgresql_server: PostgreSQLProcess) -> Generator[str]:
    """An empty PostgreSQL database."""
    with postgresql_server.database() as name:
        yield postgresql_server.url_of(name)


@pytest.fixture
def mariadb_url(mariadb_server: MariaDBProcess) -> Generator[str]:
    """An empty MariaDB database."""
    with mariadb_server.database() as name:
        yield mariadb_server.url_of(name)


def with_prefix(url: str) -> str:
    """The URL with a prefix of keys that nobody else has."""
    return f"{url}{'&' if '?' in url else '?'}prefix=test-{next(_NUMBERS)}"


def needs(kind: str) -> None:
    """Skip the test if there can be no such server."""
    if not is_there(kind):
        pytest.skip(missing(kind))
