"""Documents are kept beside the sessions of the same URL."""

from pathlib import Path

import pytest

from roomkey.backends import open_documents, open_storage
from roomkey.backends.lmdb.documents import FileSystemDocumentStore
from roomkey.backends.memory.documents import MemoryDocumentStore
from roomkey.errors import ConfigurationError


def test_memory_is_memory() -> None:
    assert isinstance(open_documents("memory://"), MemoryDocumentStore)


async def test_one_directory_holds_sessions_and_documents(tmp_path: Path) -> None:
    url = f"lmdb://{tmp_path}/data"

    async with open_storage(url), open_documents(url) as documents:
        pass

    assert isinstance(documents, FileSystemDocumentStore)
    assert (tmp_path / "data/data.mdb").is_file()
    assert (tmp_path / "data/documents/data.mdb").is_file()
    assert (tmp_path / "data/documents/data.mdb").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("memory", "scheme://"),
        ("memory://x", "followed by nothing"),
        ("lmdb://", "followed by a directory"),
        ("lmdb://a\0b", "zero bytes"),
        ("cloud://:s3cret@localhost", "no storage for cloud://"),
    ],
)
def test_what_cannot_be_is_said_without_showing_the_url(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_documents(url)

    assert says in str(caught.value)
    assert "s3cret" not in str(caught.value)
