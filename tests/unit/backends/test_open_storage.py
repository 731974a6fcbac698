"""A storage is found by its URL, and what cannot be is said without showing the URL."""

import subprocess
import sys
from pathlib import Path

import pytest

from roomkey.backends import open_storage
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
        ("redis://localhost", "no storage for redis://; there are memory:// and lmdb://"),
        ("postgresql://localhost/x", "no storage for postgresql://; there are memory:// and lmdb://"),
        ("redis+cluster://localhost", "no storage for redis+cluster://"),
    ],
)
def test_what_cannot_be_is_said(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_storage(url)

    assert says in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://root:s3cret@db/x",
        "redis://:s3cret@cache",
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


def test_nobody_loads_a_driver_that_nobody_uses() -> None:
    code = (
        "import sys; from roomkey.backends import open_storage; open_storage('memory://'); print('lmdb' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
