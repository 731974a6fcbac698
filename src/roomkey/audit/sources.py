"""Where the files of a log come from that is verified: a server, a directory, or the log itself."""

import asyncio
from pathlib import Path
from typing import Final, Protocol

from roomkey.audit.log import AuditLog
from roomkey.audit.notes import MAX_NOTE_BYTES
from roomkey.audit.tiles import LENGTH_BYTES, MAX_ENTRY_BYTES, TILE_BYTES, WIDTH, file_at
from roomkey.errors import Forbidden, NotFound, NotRetained, Storage

CHECKPOINT: Final = "checkpoint"

MAX_BUNDLE_BYTES: Final = WIDTH * (MAX_ENTRY_BYTES + LENGTH_BYTES)


class Source(Protocol):
    """The files of a log by their paths below its prefix."""

    async def read(self, path: str) -> bytes | None:
        """
        The file; ``None`` if there is none.

        Raises:
            NotRetained: If it has only entries that are not shown any more.
            Forbidden: If whoever asks may not read it.
            Storage: If it cannot be read now.
        """
        ...


class StoredSource:
    """The log as it is stored here."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    async def read(self, path: str) -> bytes | None:
        """See ``Source``."""
        file = file_at(path)
        try:
            if path == CHECKPOINT:
                return str(await self._log.checkpoint()).encode()
            if file is None:
                return None
            if file.has_entries:
                return await self._log.bundle(file.tile.number, file.width)
            return await self._log.tile(*file.tile, file.width)
        except NotRetained:
            raise
        except NotFound:
            return None


class DirectorySource:
    """A copy of a log in a directory, laid out as a server serves it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def read(self, path: str) -> bytes | None:
        """See ``Source``."""
        return await asyncio.to_thread(self._read, path)

    def _read(self, path: str) -> bytes | None:
        try:
            with (self._directory / path).open("rb") as file:
                return file.read(_most(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Storage(f"{self._directory / path} cannot be read: {error.strerror}") from None


class Fetch(Protocol):
    """What a server is asked with."""

    async def __call__(self, path: str, most: int) -> tuple[int, bytes]:
        """
        Status and body of the answer to a GET.

        Raises:
            Storage: If there is none, or its body has more than ``most`` bytes.
        """
        ...


class ServedSource:
    """A log that a server serves below ``prefix``."""

    def __init__(self, fetch: Fetch, prefix: str) -> None:
        """With the credential of an auditor ``fetch`` reads entries, too."""
        self._fetch = fetch
        self._prefix = prefix.rstrip("/")

    async def read(self, path: str) -> bytes | None:
        """See ``Source``."""
        status, content = await self._fetch(f"{self._prefix}/{path}", _most(path))
        match status:
            case 200:
                return content
            case 401 | 403:
                raise Forbidden(f"{path} may not be read with this credential")
            case 404 | 410:
                if NotRetained.code.encode() in content:
                    raise NotRetained(path)
                return None
            case status:
                raise Storage(f"{path} was answered with {status}")


def _most(path: str) -> int:
    """How long the file can be."""
    file = file_at(path)
    if file is None:
        return MAX_NOTE_BYTES
    return MAX_BUNDLE_BYTES if file.has_entries else TILE_BYTES
