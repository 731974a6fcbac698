"""Storage: one file or folder for each technology, and the table that finds one by its URL."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from roomkey.errors import ConfigurationError
from roomkey.ports import SessionStorage


def open_storage(url: str) -> SessionStorage:
    """
    The storage that ``url`` names; it opens when it is entered as an async context manager.

    ``memory://`` keeps sessions as long as the process lives, ``lmdb:///var/lib/roomkey`` in that directory,
    ``lmdb://data`` in one relative to the current directory. Directories are taken as they are written: there
    is no percent-encoding.

    Raises:
        ConfigurationError: If there is no such storage, or a part of the URL is missing. Never shows the URL,
            which may contain a password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ConfigurationError(f"a storage URL has the form scheme://…; {_CHOICE}")
    opener = _OPENERS.get(scheme.lower())
    if opener is None:
        raise ConfigurationError(f"there is no storage for {_shown(scheme)}; {_CHOICE}")
    return opener(rest)


# Each imports its backend itself, so that nobody loads a driver that nobody uses.


def _open_memory(rest: str) -> SessionStorage:
    from roomkey.backends.memory import MemorySessionStorage  # noqa: PLC0415

    if rest:
        raise ConfigurationError("memory:// is followed by nothing")
    return MemorySessionStorage()


def _open_lmdb(rest: str) -> SessionStorage:
    from roomkey.backends.lmdb import FileSystemSessionStorage  # noqa: PLC0415

    if not rest.strip("/"):
        raise ConfigurationError("lmdb:// is followed by a directory: lmdb:///var/lib/roomkey")
    if "\0" in rest:
        raise ConfigurationError("the name of a directory has no zero bytes")
    return FileSystemSessionStorage(Path(rest))


_OPENERS: Final[Mapping[str, Callable[[str], SessionStorage]]] = {
    "memory": _open_memory,
    "lmdb": _open_lmdb,
}

_CHOICE: Final = "there are " + " and ".join(f"{scheme}://" for scheme in _OPENERS)


def _shown(scheme: str) -> str:
    """A scheme as far as it can be one: what somebody put in its place may be a secret."""
    plain = scheme.replace("+", "").replace("-", "")
    return f"{scheme}://" if plain.isascii() and plain.isalpha() and len(scheme) <= 24 else "this URL"
