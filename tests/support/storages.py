"""Every kind of session storage that tests can open without a server."""

from collections.abc import Callable
from pathlib import Path

from roomkey.backends.lmdb import FileSystemSessionStorage, FileSystemSettings
from roomkey.backends.memory import MemorySessionStorage
from roomkey.ports import SessionStorage

STORAGES: dict[str, Callable[[Path], SessionStorage]] = {
    "memory": lambda _: MemorySessionStorage(),
    # Not forced to the disk: that is for the tests that kill it.
    "lmdb": lambda folder: FileSystemSessionStorage(folder, FileSystemSettings(durable=False)),
}
