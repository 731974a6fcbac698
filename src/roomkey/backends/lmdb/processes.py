"""Which processes serve a directory: each holds a lock, which the system takes from it however it ends."""

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from roomkey.backends.lmdb.file import clear_errors

try:
    import fcntl
except ImportError:  # on Windows, where processes do not get to know of each other
    fcntl = None

FOLDER: Final = "processes"
_DOOR: Final = "door"


class Processes:
    """
    The servers of ``directory``. Each has a file there with its name, which says which process it is.

    Commands that only visit the storage do not count.
    """

    def __init__(self, directory: Path) -> None:
        self._folder = directory / FOLDER
        self._own: IO[str] | None = None
        self._name = ""

    def join(self, name: str) -> None:
        """
        Be one of them, until ``leave``, or the end of this process.

        Raises:
            Storage: If the directory cannot be used.
        """
        if fcntl is None:
            return
        with clear_errors(self._folder):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._door():
                for _ in self._living(tidy=True):
                    pass
                self._own = (self._folder / name).open("w", encoding="ascii")
                self._name = name
                self._own.write(str(os.getpid()))
                self._own.flush()
                fcntl.flock(self._own, fcntl.LOCK_EX)

    def leave(self) -> bool:
        """Be none of them any more; whether no other one is left."""
        if self._own is None:
            return False
        own, self._own = self._own, None
        with own, suppress(OSError), self._door():
            (self._folder / self._name).unlink(missing_ok=True)
            return not any(self._living(tidy=True))
        return False

    def others(self) -> list[str]:
        """The others that live, each as its name and the number of its process. Changes nothing."""
        if fcntl is None or not self._folder.is_dir():
            return []
        with clear_errors(self._folder):
            return sorted(self._living(tidy=False))

    def _living(self, *, tidy: bool) -> Iterator[str]:
        for path in self._folder.iterdir():
            if path.name in (self._name, _DOOR):
                continue
            try:
                file = path.open("r+", encoding="ascii")
            except FileNotFoundError:
                continue
            with file:
                if not _lock_if_free(file):
                    yield f"{path.name} (process {file.read() or 'unknown'})"
                elif tidy:
                    path.unlink(missing_ok=True)

    @contextmanager
    def _door(self) -> Generator[None]:
        """One at a time: a file that is made and not locked yet must not be taken for that of a dead process."""
        with (self._folder / _DOOR).open("w") as door:
            assert fcntl is not None  # noqa: S101  # whoever comes here has it
            fcntl.flock(door, fcntl.LOCK_EX)
            yield


def _lock_if_free(file: IO[str]) -> bool:
    assert fcntl is not None  # noqa: S101  # whoever comes here has it
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
