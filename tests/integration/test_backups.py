"""Backups as docs/stores.md makes them, of stores that are in use, restored as it says: what was stored is there."""

import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from roomkey import SessionFilter, SessionManager, open_documents, open_storage
from roomkey.backends.redis import RedisServer, RedisSessionStorage
from roomkey.backends.redis.documents import RedisDocumentStore
from roomkey.backends.sql import DatabaseSessionStorage
from roomkey.backends.sql.database import Database, DatabaseSettings
from roomkey.backends.sql.documents import DatabaseDocumentStore
from roomkey.errors import InvalidToken
from roomkey.ports import Author, DocumentStore, DocumentUpdate, NewVersion, Page, SessionStorage
from tests.support.pages import ROOT, blocks
from tests.support.store_servers import ServerProcess, is_there, mariadb, missing, postgresql, redis
from tests.support.store_servers.process import find

PAGE: Final = ROOT / "docs" / "stores.md"

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
AUTHOR: Final = Author(actor="user:alice", user="alice")


class Stores(NamedTuple):
    sessions: SessionStorage
    documents: DocumentStore


@asynccontextmanager
async def lmdb_stores(url: str) -> AsyncGenerator[Stores]:
    async with open_storage(url) as sessions, open_documents(url) as documents:
        yield Stores(sessions, documents)


@asynccontextmanager
async def sql_stores(url: str) -> AsyncGenerator[Stores]:
    database = Database(url, DatabaseSettings(migrate=True))
    async with DatabaseSessionStorage(database) as sessions, DatabaseDocumentStore(database) as documents:
        yield Stores(sessions, documents)


@asynccontextmanager
async def redis_stores(url: str) -> AsyncGenerator[Stores]:
    server = RedisServer(url)
    async with RedisSessionStorage(server) as sessions, RedisDocumentStore(server) as documents:
        yield Stores(sessions, documents)


# --- what is stored, and must be there again ------------------------------------------------------------


async def filled(stores: Stores) -> str:
    """Sessions in several states, a user who was revoked, and a document; the token of a session that is live."""
    sessions = SessionManager(stores.sessions)
    issued = [await sessions.create_session(f"user-{number % 5}", activate=True) for number in range(20)]
    await sessions.suspend_session(issued[1].id, reason="a reason")
    await sessions.revoke_user("user-4")
    record = await stores.documents.create("notes/ä", "lineage", NOW)
    updates = [DocumentUpdate(bytes([number]) * 50, AUTHOR, NOW) for number in range(10)]
    await stores.documents.append("notes/ä", record.lineage, updates)
    await stores.documents.compact("notes/ä", record.lineage, snapshot=b"s" * 300_000, upto=4, authorship=b"a")
    version = NewVersion(at=NOW, author=AUTHOR, label="first", sequence=4, content=b"c" * 10_000)
    await stores.documents.keep_version("notes/ä", record.lineage, version)
    return issued[0].token


async def everything(stores: Stores) -> dict[str, object]:
    """All that the ports show."""
    found = await stores.sessions.list(SessionFilter(), Page(limit=500))
    heads = await stores.sessions.heads()
    return {
        "sessions": sorted(found.sessions, key=lambda session: session.id),
        "secrets": [await stores.sessions.get_with_secret(id) for id in sorted(each.id for each in found.sessions)],
        "log": {partition: list(await stores.sessions.events(partition)) for partition in sorted(heads)},
        "statistics": await stores.sessions.statistics(NOW),
        "document": await stores.documents.load("notes/ä"),
        "version": await stores.documents.version("notes/ä", 1),
    }


async def goes_on(stores: Stores, token: str) -> None:
    """A restored store is one to work with: tokens open, epochs hold, what is new is numbered on."""
    sessions = SessionManager(stores.sessions)
    assert (await sessions.authenticate(token)).user_id == "user-0"
    with pytest.raises(InvalidToken):
        await sessions.authenticate(f"{token[:-1]}{'a' if token[-1] != 'a' else 'b'}")
    assert (await sessions.revoke_user("user-4")).epoch == 2
    lineage = (await stores.documents.create("notes/ä", "another", NOW)).lineage
    assert await stores.documents.append("notes/ä", lineage, [DocumentUpdate(b"new", AUTHOR, NOW)]) == 11


# --- the commands of the page ---------------------------------------------------------------------------


def documented(beginning: str) -> str:
    """The only command on the page that begins so."""
    lines = [line for block in blocks(PAGE) if block.language == "shell" for line in block.text.splitlines()]
    [found] = [line for line in lines if line.startswith(beginning)]
    return found


def do(beginning: str, places: Mapping[str, str]) -> str:
    """Type the command with what the page calls otherwise here; returns what it says."""
    command = documented(beginning)
    for shown, here in places.items():
        assert shown in command, f"{command} does not mention {shown}"
        command = command.replace(shown, here)
    words = shlex.split(command)
    program = sys.executable if words[0] == "python" else find(words[0])
    if program is None:
        pytest.skip(f"there is no {words[0]} on this machine")
    done = subprocess.run([program, *words[1:]], check=False, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


def said(program: str, *arguments: str) -> str:
    """What a program writes, whether it succeeds or not."""
    path = find(program)
    assert path is not None
    done = subprocess.run([path, *arguments], check=False, capture_output=True, text=True, timeout=20)
    return done.stdout + done.stderr


# --- each of them ---------------------------------------------------------------------------------------


async def test_a_copy_of_lmdb_in_use_is_a_storage(tmp_path: Path) -> None:
    place, backup = tmp_path / "var", tmp_path / "backup"
    async with lmdb_stores(f"lmdb://{place}") as stores:
        token = await filled(stores)
        before = await everything(stores)

        do(
            "python -m lmdb copy --env /var/lib/roomkey backup",
            {"/var/lib/roomkey": str(place), " backup": f" {backup}"},
        )
        documents = {"/var/lib/roomkey": str(place), " backup/": f" {backup}/"}
        do("python -m lmdb copy --env /var/lib/roomkey/documents", documents)

    async with lmdb_stores(f"lmdb://{backup}") as restored:
        assert await everything(restored) == before
        await goes_on(restored, token)


async def test_a_copy_of_sqlite_in_use_is_a_storage(tmp_path: Path) -> None:
    place, backup = tmp_path / "roomkey.db", tmp_path / "backup.db"
    async with sql_stores(f"sqlite:///{place}") as stores:
        token = await filled(stores)
        before = await everything(stores)

        # The program of this name is not everywhere; Python has the library.
        _, _, statement = shlex.split(documented("sqlite3"))
        with closing(sqlite3.connect(place)) as database:
            database.execute(statement.replace("backup.db", str(backup)))

    async with sql_stores(f"sqlite:///{backup}") as restored:
        assert await everything(restored) == before
        await goes_on(restored, token)


@pytest.mark.skipif(not is_there("postgresql"), reason=missing("postgresql"))
async def test_a_dump_of_postgresql_is_restored_into_an_empty_database(tmp_path: Path) -> None:
    with postgresql(tmp_path) as running:
        url, dump = running.url, str(tmp_path / "roomkey.sql")
        async with sql_stores(url) as stores:
            token = await filled(stores)
            before = await everything(stores)
            shown = "postgresql://roomkey@db.example.com"

            do("pg_dump", {f"{shown}/roomkey": url, "roomkey.sql": dump})

        restored_url = f"{url.rpartition('/')[0]}/restored"
        said("psql", url, "-qc", "CREATE DATABASE restored")
        do("psql", {f"{shown}/restored": restored_url, "roomkey.sql": dump})
        async with sql_stores(restored_url) as restored:
            assert await everything(restored) == before
            await goes_on(restored, token)


@pytest.mark.skipif(not is_there("mariadb"), reason=missing("mariadb"))
@pytest.mark.skipif(find("mariadb-dump") is None, reason="there is no mariadb-dump on this machine")
async def test_a_dump_of_mariadb_is_restored_into_an_empty_database(tmp_path: Path) -> None:
    with mariadb(tmp_path) as running:
        dump = str(tmp_path / "roomkey.sql")
        places = {"--host=db.example.com --user=roomkey": f"--no-defaults -h 127.0.0.1 -P {running.port} -u root"}
        async with sql_stores(running.url) as stores:
            token = await filled(stores)
            before = await everything(stores)

            do("mariadb-dump", {**places, "roomkey.sql": dump})

        address = ("--no-defaults", "-h", "127.0.0.1", "-P", str(running.port), "-u", "root")
        said("mariadb", *address, "-e", "CREATE DATABASE restored")
        do("mariadb --host", {**places, "roomkey.sql": dump})
        async with sql_stores(f"{running.url.rpartition('/')[0]}/restored") as restored:
            assert await everything(restored) == before
            await goes_on(restored, token)


@pytest.mark.skipif(not is_there("redis"), reason=missing("redis"))
async def test_a_snapshot_of_a_redis_in_use_is_loaded_by_an_empty_one(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    snapshot = str(tmp_path / "roomkey.rdb")
    with redis(old) as running:
        async with redis_stores(running.url) as stores:
            token = await filled(stores)
            before = await everything(stores)

            do("redis-cli -h redis.example.com --rdb", {**at(running), "roomkey.rdb": snapshot})

    do("cp roomkey.rdb", {"roomkey.rdb": snapshot, "/var/lib/redis": str(new)})
    assert "--appendonly no" in documented("redis-server")
    with redis(new, "--appendonly", "no") as restarted:
        do("redis-cli -h redis.example.com CONFIG SET appendonly yes", at(restarted))
        wait_until_rewritten(restarted)
        async with redis_stores(restarted.url) as restored:
            assert await everything(restored) == before
            await goes_on(restored, token)
            after = await everything(restored)

        restarted.kill()
    with redis(new) as again:  # with its append-only file, as before
        async with redis_stores(again.url) as stores:
            assert await everything(stores) == after


@pytest.mark.skipif(not is_there("redis"), reason=missing("redis"))
async def test_a_copy_of_the_append_only_file_is_loaded_by_an_empty_redis(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    with redis(old) as running:
        async with redis_stores(running.url) as stores:
            token = await filled(stores)
            before = await everything(stores)

            setting = "redis-cli -h redis.example.com CONFIG SET auto-aof-rewrite-percentage"
            do(f"{setting} 0", at(running))
            assert "aof_rewrite_in_progress:0" in do("redis-cli -h redis.example.com INFO", at(running))
            do("cp --recursive", {"/var/lib/redis": str(old), " backup": f" {new}/appendonlydir"})
            do(f"{setting} 100", at(running))

    with redis(new) as restarted:
        async with redis_stores(restarted.url) as restored:
            assert await everything(restored) == before
            await goes_on(restored, token)


def at(running: ServerProcess) -> Mapping[str, str]:
    return {"-h redis.example.com": f"-h 127.0.0.1 -p {running.port}"}


def wait_until_rewritten(running: ServerProcess) -> None:
    deadline = time.monotonic() + 20
    while "aof_rewrite_in_progress:0" not in do("redis-cli -h redis.example.com INFO", at(running)):
        assert time.monotonic() < deadline


# --- rights ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(not is_there("redis"), reason=missing("redis"))
async def test_the_documented_rights_are_enough_and_no_more(tmp_path: Path) -> None:
    [block] = [block for block in blocks(PAGE) if block.language == "conf"]
    [line] = [line for line in block.text.splitlines() if line.startswith("user roomkey")]
    with redis(tmp_path) as running:
        port = str(running.port)
        assert said("redis-cli", "-p", port, "ACL", "SETUSER", *line.split()[1:]) == "OK\n"
        assert said("redis-cli", "-p", port, "ACL", "SETUSER", "default", "off") == "OK\n"
        url = running.url.replace("redis://", "redis://roomkey:a-long-password@")

        async with redis_stores(url) as stores:
            await filled(stores)
            await everything(stores)
            await stores.sessions.ping()
            await stores.documents.ping()
            await stores.documents.delete("notes/ä", "lineage", NOW)

        for command in ("KEYS *", "FLUSHALL", "MONITOR", "SUBSCRIBE a", "GET other", "CONFIG SET appendonly no"):
            login = ("-p", port, "--user", "roomkey", "--pass", "a-long-password", "--no-auth-warning")
            assert "NOPERM" in said("redis-cli", *login, *command.split()), command
