"""A storage is found by its URL, and what cannot be is said without showing the URL."""

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from roomkey.backends import StoreOptions, Stores, open_documents, open_storage, urls
from roomkey.backends.lmdb import FileSystemSessionStorage
from roomkey.backends.memory import MemorySessionStorage
from roomkey.errors import ConfigurationError


def names_in(directory: Path) -> list[str]:
    return [entry.name for entry in directory.iterdir()]


def test_memory_is_memory() -> None:
    assert isinstance(open_storage("memory://"), MemorySessionStorage)


async def test_a_directory_is_made_when_the_storage_opens(tmp_path: Path) -> None:
    storage = open_storage(f"lmdb://{tmp_path}/var/lib/room key #1")
    before = names_in(tmp_path)

    async with storage:
        pass

    assert isinstance(storage, FileSystemSessionStorage)
    assert before == []
    assert (tmp_path / "var/lib/room key #1/data.mdb").is_file()


async def test_a_relative_directory_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async with open_storage("lmdb://some/data"):
        pass

    assert (tmp_path / "some/data/data.mdb").is_file()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "scheme://"),
        ("memory", "scheme://"),
        ("/var/lib/roomkey", "scheme://"),
        ("memory://x", "followed by nothing"),
        ("lmdb://", "followed by a directory"),
        ("lmdb:///", "followed by a directory"),
        ("lmdb://a\0b", "zero bytes"),
        ("cloud://localhost", "no storage for cloud://; there are memory://, lmdb://, redis://"),
        ("redis+ring://localhost", "no storage for redis+ring://"),
        ("postgresql://localhost", "name of a database"),
        ("sqlite://", "followed by a file"),
    ],
)
def test_what_cannot_be_is_said(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_storage(url)

    assert says in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://root:s3cret@db",
        "redis://:s3cret@cache/no-number",
        "s3cret",
        "s3cret://",
        "memory://:s3cret@",
        "user:s3cret@db://",
    ],
)
def test_an_error_never_shows_a_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_storage(url)

    assert "s3cret" not in str(caught.value)


DRIVERS = [
    ("redis://cache", "redis", "pip install 'roomkey[redis]'"),
    ("rediss+cluster://cache", "hiredis", "pip install 'roomkey[redis]'"),
    ("sqlite:///a.db", "aiosqlite", "pip install 'roomkey[sqlite]'"),
    ("postgresql://db/x", "asyncpg", "pip install 'roomkey[postgresql]'"),
    ("postgres://db/x", "sqlalchemy", "pip install 'roomkey[postgresql]'"),
    ("mysql://db/x", "asyncmy", "pip install 'roomkey[mysql]'"),
    ("mariadb://db/x", "asyncmy", "pip install 'roomkey[mysql]'"),
]


@pytest.mark.parametrize(("url", "driver", "advice"), DRIVERS)
@pytest.mark.parametrize("opener", [open_storage, open_documents])
def test_a_driver_that_is_not_installed_is_named_with_what_to_install(
    opener: Callable[[str], object], url: str, driver: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, driver, None)  # how the import system is told that there is none

    with pytest.raises(ConfigurationError) as caught:
        opener(url)

    assert driver in str(caught.value)
    assert advice in str(caught.value)


@pytest.mark.parametrize("url", [url for url, *_ in DRIVERS])
def test_stores_of_one_url_share_their_connections(url: str) -> None:
    stores = Stores()
    stores.documents(url)
    stores.documents(url)

    assert len(vars(stores)["_places"]) == 1


def test_options_reach_the_server() -> None:
    options = StoreOptions(pool_size=7, timeout=timedelta(seconds=2), key_prefix="rooms", migrate=True, wait_replicas=1)
    stores = Stores(options)
    stores.documents("redis://cache")
    stores.documents("postgresql://db/x")

    redis, database = vars(stores)["_places"].values()
    assert (redis.prefix, redis.settings.wait_replicas, redis.settings.recovery.timeout) == (b"rooms", 1, 2.0)
    assert (database.settings.pool_size, database.settings.migrate) == (7, True)
    assert database.settings.recovery.timeout == 2.0


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("lmdb:///srv/a:b@c", "lmdb:///srv/a:b@c"),
        ("file", "file"),
        ("redis://cache:6379/0?prefix=x", "redis://cache:6379/0?prefix=x"),
        ("redis://:s3cret@cache", "redis://:<hidden>@cache"),
        ("redis+sentinel://me:s3cret@a,b/m?sentinel_password=s3cret", "redis+sentinel://me:<hidden>@a,b/m?sentinel_password=<hidden>"),
        ("postgresql://me:s3/cr@et@db/x?sslmode=require", "postgresql://me:<hidden>@db/x?sslmode=require"),
        ("postgresql://me:s3?cr@db/x", "postgresql://<hidden>"),
    ],
)  # fmt: skip
def test_a_url_is_shown_without_its_passwords(url: str, shown: str) -> None:
    assert urls.shown(url) == shown


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache", "redis://:s%40%2F@cache"),
        ("rediss://me@cache:1/0?prefix=x", "rediss://me:s%40%2F@cache:1/0?prefix=x"),
        ("postgresql://me@db/x", "postgresql://me:s%40%2F@db/x"),
    ],
)
def test_a_password_may_stand_apart_from_the_url(url: str, expected: str) -> None:
    assert urls.with_password(url, "s@/") == expected


@pytest.mark.parametrize("url", ["redis://:a@cache", "postgresql://me:a@db/x", "memory://", "lmdb:///x", "sqlite:///x"])
def test_a_second_password_or_one_for_nothing_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        urls.with_password(url, "b")


def test_nobody_loads_a_driver_that_nobody_uses() -> None:
    code = (
        "import sys; from roomkey.backends import open_storage; open_storage('memory://'); print('lmdb' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
