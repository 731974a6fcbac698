"""The head that was signed last, remembered outside the storage: what a restored backup does not know of."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Final

from roomkey.audit.checkpoints import Checkpoint, checkpoint
from roomkey.audit.notes import MAX_NOTE_BYTES, Note, note
from roomkey.errors import ConfigurationError, InvalidInput, Storage, explain

REMEMBERED_HEAD: Final = "audit.head"
"""What the file is called beside an embedded storage."""


class RememberedHead:
    """
    A file with the largest head of a log that this node has seen signed; without a ``path`` nothing is remembered.

    It is written before a signature leaves, so that it is never behind what outsiders may have.
    """

    def __init__(self, path: Path | None, origin: str) -> None:
        self._path = path
        self._origin = origin
        self._head: Checkpoint | None = None

    async def head(self) -> Checkpoint | None:
        """
        The head that is remembered; ``None`` if none is, or that of another log.

        Raises:
            ConfigurationError: If the file is there and cannot be read, or is something else.
        """
        if self._head is None and self._path is not None:
            self._head = await asyncio.to_thread(self._read, self._path)
        return self._head

    async def keep(self, head: Checkpoint, signed: Note) -> None:
        """
        Remember ``head``, if it is larger than the one before.

        Raises:
            Storage: If it cannot be written.
        """
        known = await self.head()
        if self._path is None or (known is not None and known.size >= head.size):
            return
        await asyncio.to_thread(_write, self._path, str(signed).encode())
        self._head = head

    def _read(self, path: Path) -> Checkpoint | None:
        try:
            with path.open("rb") as file:
                found = checkpoint(note(file.read(MAX_NOTE_BYTES)).text)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"audit.remembered_head: {path} cannot be read: {explain(error)}") from None
        except InvalidInput as error:
            raise ConfigurationError(f"audit.remembered_head: {path} is no checkpoint: {error}") from None
        return found if found.origin == self._origin else None


def _write(path: Path, content: bytes) -> None:
    """Replace the file, so that it is the old one or the new one after a crash."""
    draft = path.with_name(f".{path.name}.{token_hex(4)}")
    try:
        try:
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            with suppress(FileNotFoundError):
                draft.unlink()
    except OSError as error:
        raise Storage(f"audit.remembered_head: {path} cannot be written: {explain(error)}") from None
