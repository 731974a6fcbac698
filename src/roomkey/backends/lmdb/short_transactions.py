"""A file of small things, each change of which is a short transaction of its own, beside the event loop."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from roomkey.backends.lmdb.file import FileSystemSettings, Format, MappedFile, TablesT, Transaction, clear_errors
from roomkey.errors import Storage
from roomkey.ports import PLAIN_RECORDS

T = TypeVar("T")


class ShortTransactions(Generic[TablesT]):
    """
    Changes to the file in ``directory``, which is made; several processes may use it.

    LMDB lets one process write at a time, and what a dead one had begun is undone. So a change sees what all others
    have done, whoever did it, and nothing happens while it is made.
    """

    def __init__(
        self,
        directory: Path,
        settings: FileSystemSettings,
        *,
        names: Sequence[str],
        tables: Callable[..., TablesT],
        format: bytes,
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._names = names
        self._tables = tables
        self._format = format
        self._file: MappedFile[TablesT] | None = None
        # One thread, so that closing comes after what is still under way.
        self._thread = ThreadPoolExecutor(1, "roomkey-lmdb")

    def open(self) -> None:
        """
        Open the file.

        Raises:
            Storage: If that is not possible.
        """
        # Nothing in such a file tells more than its name, or whoever writes it keeps it from others.
        self._file = MappedFile(
            self._directory,
            self._settings,
            PLAIN_RECORDS,
            names=self._names,
            tables=self._tables,
            format=Format(self._format, self._directory.name),
        )

    async def close(self) -> None:
        """Close the file behind what is under way."""
        file, self._file = self._file, None
        if file is not None:
            await self._in_thread(file.close)

    async def change(self, change: Callable[[Transaction, TablesT], T]) -> T:
        """
        The result of ``change``, when it is committed.

        Raises:
            Storage: If it cannot be made; then it is not.
        """
        if self._file is None:
            raise Storage(f"{self._directory} is not open")
        return await self._in_thread(partial(self._commit, self._file, change))

    def _commit(self, file: MappedFile[TablesT], change: Callable[[Transaction, TablesT], T]) -> T:
        with clear_errors(self._directory), file.environment.begin(write=True) as transaction:
            return change(transaction, file.tables)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Do it beside the event loop: the disk, or another process that is writing, may take its time."""
        try:
            async with asyncio.timeout(self._settings.timeout.total_seconds()):
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except TimeoutError:
            raise Storage(f"{self._directory}: another process does not let go of it") from None
