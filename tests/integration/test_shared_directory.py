"""Several processes of one machine work on one directory, and each sees what the others commit."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from roomkey.backends.lmdb import FileSystemSessionStorage, FileSystemSettings
from roomkey.backends.lmdb.documents import FileSystemDocumentStore
from roomkey.domain.session import SessionFilter, SessionId, SessionState
from roomkey.errors import Overtaken
from roomkey.ports import Author, DocumentHead, DocumentUpdate
from roomkey.testing.storage import disagreements, issue
from roomkey.testing.storage.suite import NOON, ROOMY, found, store
from tests.support.lmdb_file import index_faults

SMALL = FileSystemSettings(map_size=128 * 1024, durable=False)

Ask = Callable[[str], Coroutine[Any, Any, str]]


@asynccontextmanager
async def neighbour(directory: Path) -> AsyncGenerator[Ask]:
    """Another process on ``directory``; what is yielded sends it a command and returns the answer."""
    command = [sys.executable, "-m", "tests.support.neighbour", str(directory)]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], limit=2**20
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    async def ask(line: str) -> str:
        stdin.write(f"{line}\n".encode())
        return (await stdout.readline()).decode().strip()

    try:
        yield ask
    finally:
        stdin.close()
        async with asyncio.timeout(20):
            assert await process.wait() == 0


async def test_commits_are_seen_by_the_others_at_once(tmp_path: Path) -> None:
    async with neighbour(tmp_path) as ask, FileSystemSessionStorage(tmp_path, SMALL) as storage:
        mine = await store(storage, "alice", active=True)
        theirs = SessionId(await ask("create bob 1"))

        assert await ask(f"state {mine.id}") == "active"
        assert (await found(storage, theirs)).user_id == "bob"
        assert await ask("revoke alice") == "1"
        assert (await found(storage, mine.id)).state is SessionState.INVALIDATED
        assert await disagreements(storage) == []


async def test_writers_of_several_processes_do_not_disturb_one_another(tmp_path: Path) -> None:
    async with (
        neighbour(tmp_path) as ask,
        neighbour(tmp_path) as ask_another,
        FileSystemSessionStorage(tmp_path, SMALL) as storage,
    ):
        # Each of the three makes its map larger now and then, and the others have to follow.
        for _ in range(4):
            async with asyncio.TaskGroup() as group:
                group.create_task(ask("create bob 200"))
                group.create_task(ask_another("create carol 200"))
                for _ in range(200):
                    group.create_task(storage.create([issue("alice")], ROOMY, NOON))

        for user in ("alice", "bob", "carol"):
            assert await storage.count(SessionFilter(user_id=user)) == 800
        assert await storage.count(SessionFilter()) == 2400
        assert await disagreements(storage) == []
    assert index_faults(tmp_path) == []


async def test_a_reader_follows_a_file_that_others_made_larger(tmp_path: Path) -> None:
    async with FileSystemSessionStorage(tmp_path, SMALL) as storage, neighbour(tmp_path) as ask:
        ids = (await ask("create bob 2000")).split()

        sessions = await storage.get_many([SessionId(id) for id in ids])

        assert all(session is not None for session in sessions)


async def test_a_process_that_died_does_not_block_the_others(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "tests.support.neighbour", str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"create bob 5\n")
    await process.stdout.readline()

    process.kill()
    await process.wait()

    async with FileSystemSessionStorage(tmp_path, SMALL) as storage:
        await store(storage, "alice")
        assert await storage.count(SessionFilter()) == 6
        assert await disagreements(storage) == []


OTHER_WRITER = """
import asyncio, sys
from datetime import datetime, UTC
from roomkey.backends.lmdb.documents import FileSystemDocumentStore
from roomkey.errors import Overtaken
from roomkey.ports import Author, DocumentUpdate

async def main():
    now = datetime(2026, 1, 2, 12, tzinfo=UTC)
    async with FileSystemDocumentStore(sys.argv[1]) as store:
        await store.create("d", "l", now)
        for line in sys.stdin:
            update = DocumentUpdate(line.strip().encode(), Author("user:bob"), now)
            try:
                print(await store.append("d", "l", [update], after=int(line)), flush=True)
            except Overtaken:
                print("overtaken", flush=True)

asyncio.run(main())
"""


@asynccontextmanager
async def other_writer(directory: Path) -> AsyncGenerator[Ask]:
    """Another process with the document ``d``; asked with a number, it appends behind that."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OTHER_WRITER, str(directory)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    async def ask(line: str) -> str:
        stdin.write(f"{line}\n".encode())
        return (await stdout.readline()).decode().strip()

    try:
        yield ask
    finally:
        stdin.close()
        async with asyncio.timeout(20):
            assert await process.wait() == 0


async def test_only_what_other_processes_commit_to_documents_counts_as_changes(tmp_path: Path) -> None:
    async with other_writer(tmp_path) as ask, FileSystemDocumentStore(tmp_path) as store:
        await ask("0")
        mine = DocumentUpdate(b"mine", Author("user:alice"), NOON)
        before = await store.changes()

        await store.append("d", "l", [mine])
        await store.append("d", "l", [mine])
        after_mine = await store.changes()
        await ask("3")
        after_theirs = await store.changes()
        await store.append("d", "l", [mine])

        assert after_mine == before
        assert after_theirs == await store.changes() == before + 1
        assert await store.heads(["d"]) == [DocumentHead("l", 5)]


async def test_what_others_commit_counts_after_a_write_of_ours_that_was_not_made(tmp_path: Path) -> None:
    async with other_writer(tmp_path) as ask, FileSystemDocumentStore(tmp_path) as store:
        await ask("0")
        before = await store.changes()
        with pytest.raises(Overtaken):
            await store.append("d", "l", [DocumentUpdate(b"mine", Author("user:alice"), NOON)], after=0)

        await ask("1")

        assert await store.changes() == before + 1


async def test_of_two_processes_that_append_behind_the_same_number_one_does(tmp_path: Path) -> None:
    async with other_writer(tmp_path) as ask, FileSystemDocumentStore(tmp_path) as store:
        mine = DocumentUpdate(b"mine", Author("user:alice"), NOON)
        await ask("0")
        for number in range(1, 20):
            outcomes = await asyncio.gather(
                store.append("d", "l", [mine], after=number), ask(str(number)), return_exceptions=True
            )

            assert sorted(map(type, outcomes), key=str) in ([Overtaken, str], [int, str])
            assert (outcomes[0] == number + 1) != (outcomes[1] == str(number + 1))
