"""Storage: one file or folder for each technology, and the table that finds one by its URL."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import Struct

from roomkey.errors import ConfigurationError
from roomkey.ports import (
    CHECKSUMMED_RECORDS,
    Clock,
    DocumentStore,
    OneTimeLimits,
    RecordCodec,
    SessionStorage,
    SharedState,
)

DOCUMENTS_FOLDER: Final = "documents"
"""The folder of the documents in the directory of an LMDB storage."""


def open_storage(url: str, codec: RecordCodec = CHECKSUMMED_RECORDS) -> SessionStorage:
    """
    The storage that ``url`` names; it opens when it is entered as an async context manager.

    ``memory://`` keeps sessions as long as the process lives, ``lmdb:///var/lib/roomkey`` in that directory,
    ``lmdb://data`` in one relative to the current directory. Directories are taken as they are written: there
    is no percent-encoding. What leaves the process goes through ``codec``.

    Raises:
        ConfigurationError: If there is no such storage, or a part of the URL is missing. Never shows the URL,
            which may contain a password.
    """
    backend, rest = _backend_of(url)
    return backend.sessions(rest, codec)


def open_documents(url: str, codec: RecordCodec = CHECKSUMMED_RECORDS) -> DocumentStore:
    """
    The store of documents beside the storage that ``url`` names: of ``lmdb:///var/lib/roomkey`` the directory
    ``documents`` in it.

    Raises:
        ConfigurationError: As ``open_storage``.
    """
    backend, rest = _backend_of(url)
    return backend.documents(rest, codec)


class SharedSettings(Struct, frozen=True, kw_only=True):
    """What ``open_shared`` needs: what tickets and answers may take, and a secret that all nodes have."""

    tickets: OneTimeLimits
    answers: OneTimeLimits
    clock: Clock
    secret: bytes


def open_shared(url: str, settings: SharedSettings) -> SharedState:
    """
    What the nodes on the storage that ``url`` names share besides it.

    Raises:
        ConfigurationError: As ``open_storage``.
        Storage: If its directory cannot be made.
    """
    backend, rest = _backend_of(url)
    return backend.shared(rest, settings)


class _Backend(NamedTuple):
    """What opens the stores of one technology, given what follows the scheme."""

    sessions: Callable[[str, RecordCodec], SessionStorage]
    documents: Callable[[str, RecordCodec], DocumentStore]
    shared: Callable[[str, SharedSettings], SharedState]


def _backend_of(url: str) -> tuple[_Backend, str]:
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ConfigurationError(f"a storage URL has the form scheme://…; {_CHOICE}")
    backend = _BACKENDS.get(scheme.lower())
    if backend is None:
        raise ConfigurationError(f"there is no storage for {_shown(scheme)}; {_CHOICE}")
    return backend, rest


# Each imports its backend itself, so that nobody loads a driver that nobody uses.


def _memory_sessions(rest: str, _codec: RecordCodec) -> SessionStorage:
    from roomkey.backends.memory import MemorySessionStorage  # noqa: PLC0415

    _check_nothing(rest)
    return MemorySessionStorage()


def _memory_documents(rest: str, _codec: RecordCodec) -> DocumentStore:
    from roomkey.backends.memory.documents import MemoryDocumentStore  # noqa: PLC0415

    _check_nothing(rest)
    return MemoryDocumentStore()


def _memory_shared(_rest: str, settings: SharedSettings) -> SharedState:
    from roomkey.backends.memory.shared import MemoryShared  # noqa: PLC0415

    return MemoryShared(tickets=settings.tickets, answers=settings.answers, clock=settings.clock)


def _lmdb_sessions(rest: str, codec: RecordCodec) -> SessionStorage:
    from roomkey.backends.lmdb import FileSystemSessionStorage  # noqa: PLC0415

    return FileSystemSessionStorage(_directory(rest), codec=codec)


def _lmdb_documents(rest: str, codec: RecordCodec) -> DocumentStore:
    from roomkey.backends.lmdb.documents import FileSystemDocumentStore  # noqa: PLC0415

    return FileSystemDocumentStore(_directory(rest) / DOCUMENTS_FOLDER, codec=codec)


def _lmdb_shared(rest: str, settings: SharedSettings) -> SharedState:
    from roomkey.backends.lmdb.shared import FileSystemShared  # noqa: PLC0415

    return FileSystemShared(
        _directory(rest),
        secret=settings.secret,
        own=_memory_shared("", settings),
        tickets=settings.tickets,
        answers=settings.answers,
        clock=settings.clock,
    )


_BACKENDS: Final[Mapping[str, _Backend]] = {
    "memory": _Backend(_memory_sessions, _memory_documents, _memory_shared),
    "lmdb": _Backend(_lmdb_sessions, _lmdb_documents, _lmdb_shared),
}

_CHOICE: Final = "there are " + " and ".join(f"{scheme}://" for scheme in _BACKENDS)


def _check_nothing(rest: str) -> None:
    if rest:
        raise ConfigurationError("memory:// is followed by nothing")


def _directory(rest: str) -> Path:
    if not rest.strip("/"):
        raise ConfigurationError("lmdb:// is followed by a directory: lmdb:///var/lib/roomkey")
    if "\0" in rest:
        raise ConfigurationError("the name of a directory has no zero bytes")
    return Path(rest)


def _shown(scheme: str) -> str:
    """A scheme as far as it can be one: what somebody put in its place may be a secret."""
    plain = scheme.replace("+", "").replace("-", "")
    return f"{scheme}://" if plain.isascii() and plain.isalpha() and len(scheme) <= 24 else "this URL"
