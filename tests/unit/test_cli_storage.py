"""``roomkey storage …``: a storage is taken elsewhere, and what is wrong with one is named."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from roomkey.backends.lmdb import FileSystemSessionStorage, FileSystemSettings
from roomkey.backends.lmdb.documents import FileSystemDocumentStore
from roomkey.cli import main
from roomkey.cli.outcome import Exit
from roomkey.domain.session import SessionId, partition_of
from roomkey.ports import Gone
from roomkey.testing.storage import disagreements
from roomkey.testing.storage.suite import store, whole_log
from tests.support.databases import empty_database
from tests.support.histories import furnish

Capture = pytest.CaptureFixture[str]

QUICK = FileSystemSettings(durable=False)
USERS = 300
MANY = 20
"""How many partitions are there when the copy is killed."""


@pytest.fixture(autouse=True)
def _a_place_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SESSION_STORAGE", "REDIS_URL", "DATABASE_URL", "ROOMKEY_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def full(tmp_path: Path) -> str:
    """A storage that has everything in it."""
    asyncio.run(_furnish(tmp_path / "full"))
    return f"lmdb://{tmp_path / 'full'}"


async def _furnish(folder: Path) -> None:
    async with (
        FileSystemSessionStorage(folder, QUICK) as sessions,
        FileSystemDocumentStore(folder / "documents", QUICK) as documents,
    ):
        await furnish(sessions, documents)


def run(*arguments: str) -> int:
    return main(("storage", *arguments))


def printed(capsys: Capture) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_storage_is_copied_and_the_copy_is_sound(full: str, tmp_path: Path, capsys: Capture) -> None:
    copy = f"lmdb://{tmp_path / 'copy'}"

    assert run("copy", full, copy, "--json") == Exit.DONE
    report = printed(capsys)
    assert run("verify", copy, "--json") == Exit.DONE
    examination = printed(capsys)

    assert report["identical"]
    assert report["records"]["sessions"]["source"] == report["records"]["sessions"]["target"]
    assert report["records"]["sessions"]["written"] == examination["counts"]["sessions"] > 20
    assert examination == {**examination, "sound": True, "wrong": 0, "problems": []}


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "mariadb"])
def test_a_storage_is_copied_to_a_database_and_back(
    dialect: str, full: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: Capture
) -> None:
    url = empty_database(dialect, tmp_path, request)
    assert main(("migrate", url)) == Exit.DONE
    capsys.readouterr()

    reports: list[Any] = []
    for source, target in ((full, url), (url, "lmdb://back")):
        assert run("copy", source, target, "--json") == Exit.DONE
        reports.append(printed(capsys))
        assert run("verify", target, "--json") == Exit.DONE
        assert printed(capsys)["sound"]

    there, back = reports
    assert there["identical"]
    assert back["identical"]
    assert {name: each["source"] for name, each in there["records"].items()} == {
        name: each["target"] for name, each in back["records"].items()
    }


def test_a_storage_goes_to_a_server_and_comes_back(full: str, redis_url: str, capsys: Capture) -> None:
    assert run("copy", full, redis_url, "--json") == Exit.DONE
    there = printed(capsys)["records"]
    assert run("verify", redis_url, "--json") == Exit.DONE
    examination = printed(capsys)
    assert run("copy", redis_url, "lmdb://back", "--json") == Exit.DONE
    back = printed(capsys)["records"]

    assert examination == {**examination, "sound": True, "wrong": 0, "problems": []}
    assert {name: each["target"] for name, each in back.items()} == {
        name: each["source"] for name, each in there.items()
    }


def test_people_get_a_table(full: str, capsys: Capture) -> None:
    code = run("copy", full, "lmdb://copy")

    assert code == Exit.DONE
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:2]] == ["records", "sessions"]


def test_documents_may_come_from_and_go_to_another_place(full: str, capsys: Capture) -> None:
    assert run("copy", full, "lmdb://sessions", "--documents-to", "lmdb://notes") == Exit.DONE
    assert run("copy", "lmdb://sessions", "lmdb://both", "--documents-from", "lmdb://notes", "--json") == Exit.DONE

    capsys.readouterr()
    assert run("verify", "lmdb://sessions", "--documents", "lmdb://notes", "--json") == Exit.DONE
    assert printed(capsys)["counts"]["documents"] > 2


def test_without_a_url_the_storage_that_is_configured_is_looked_at(
    full: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("SESSION_STORAGE", full)

    assert run("verify", "--json") == Exit.DONE
    assert printed(capsys)["counts"]["sessions"] > 20


def test_the_master_key_does_not_come_along_and_that_is_said(full: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "full" / "master.key").write_text("k" * 40)

    run("copy", full, "lmdb://copy")

    assert str(tmp_path / "full" / "master.key") in capsys.readouterr().err
    assert not (tmp_path / "copy" / "master.key").exists()


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("memory", "lmdb://copy", "as long as a process"),
        ("{full}", "memory", "as long as a process"),
        ("{full}", "{full}", "the same storage"),
        ("lmdb://nowhere", "lmdb://copy", "no storage in nowhere"),
        ("cloud://x", "lmdb://copy", "no storage for cloud://"),
        ("redis", "lmdb://copy", "REDIS_URL"),
    ],
)
def test_what_cannot_be_copied_is_refused_and_leaves_nothing_behind(
    source: str, target: str, says: str, full: str, tmp_path: Path, capsys: Capture
) -> None:
    code = run("copy", source.format(full=full), target.format(full=full))

    assert code == Exit.USAGE
    assert says in capsys.readouterr().err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["full"]


def test_a_target_with_something_of_its_own_is_refused(full: str, tmp_path: Path, capsys: Capture) -> None:
    asyncio.run(_furnish(tmp_path / "other"))

    code = run("copy", full, "lmdb://other")

    assert code == Exit.FAILED
    assert "neither empty nor a copy" in capsys.readouterr().err


def test_what_is_wrong_with_a_copy_is_named(full: str, tmp_path: Path, capsys: Capture) -> None:
    run("copy", full, "lmdb://copy")
    id = asyncio.run(_tamper(tmp_path / "copy"))
    capsys.readouterr()

    code = run("verify", "lmdb://copy")

    assert code == Exit.FAILED
    assert id in capsys.readouterr().err


async def _tamper(folder: Path) -> SessionId:
    async with FileSystemSessionStorage(folder, QUICK) as storage:
        session = await store(storage, "zoe")
        await storage.take_in(partition_of("zoe"), [Gone(session.id)])
        return session.id


async def test_a_copy_that_was_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    async with (
        FileSystemSessionStorage(tmp_path / "from", QUICK) as source,
        FileSystemDocumentStore(tmp_path / "from" / "documents", QUICK),
    ):
        for number in range(USERS):
            await store(source, f"user-{number}", active=True)
        expected = await whole_log(source)
        # The source is open here, and copied all the same.
        command = [sys.executable, "-m", "roomkey", "storage", "copy", "lmdb://from", "lmdb://to", "--json"]
        child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, cwd=tmp_path)
        async with FileSystemSessionStorage(tmp_path / "to", QUICK) as target:
            while len(await target.heads()) < MANY:  # noqa: ASYNC110  # it tells nobody how far it is
                await asyncio.sleep(0.01)
            child.kill()
        killed = await child.wait()
        async with FileSystemSessionStorage(tmp_path / "to", QUICK) as target:
            half = await whole_log(target)

        finished = await asyncio.to_thread(subprocess.run, command, capture_output=True, cwd=tmp_path, check=True)

        report = json.loads(finished.stdout)
        async with FileSystemSessionStorage(tmp_path / "to", QUICK) as target:
            assert await whole_log(target) == expected
            assert await disagreements(target) == []
    assert killed == -signal.SIGKILL
    assert MANY <= len(half) < len(expected)
    assert report["identical"]
    assert report["records"]["sessions"]["written"] < USERS
