"""URLs of storages as texts: what may be shown of them, and the password that stands elsewhere."""

from pathlib import Path
from typing import Final
from urllib.parse import quote

from roomkey.errors import ConfigurationError

HIDDEN: Final = "<hidden>"

LOCAL: Final = frozenset({"memory", "lmdb", "sqlite"})
"""Schemes of storages on this machine."""

SERVERS: Final = ("redis", "postgres", "mysql", "mariadb")
"""What the schemes of storages on a server begin with."""


def shown(url: str) -> str:
    """``url`` without what only those may know who use it."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() in LOCAL:
        return url
    place, question, query = rest.partition("?")
    if "@" in query:
        return f"{scheme}://{HIDDEN}"  # somebody has not encoded what is special in a password
    credentials, at, hosts = place.rpartition("@")
    user, colon, _ = credentials.partition(":")
    parameters = "&".join(map(_shown_parameter, query.split("&")))
    return f"{scheme}://{user}{colon and ':' + HIDDEN}{at}{hosts}{question}{parameters}"


def _shown_parameter(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    return f"{name}={HIDDEN}" if equals and "pass" in name.lower() else parameter


def with_password(url: str, password: str) -> str:
    """
    ``url`` with a password that was said apart from it.

    Raises:
        ConfigurationError: If it has one already, or is of a storage that has none.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() in LOCAL:
        raise ConfigurationError("a storage on this machine has no password")
    authority, slash, path = rest.partition("/")
    credentials, _, hosts = authority.rpartition("@")
    if ":" in credentials:
        raise ConfigurationError("the URL has a password already")
    return f"{scheme}://{credentials}:{quote(password, safe='')}@{hosts}{slash}{path}"


def is_remote(url: str) -> bool:
    """Whether the storage is a server that others on other machines may use, too."""
    return url.lower().startswith(SERVERS)


def database_file_of(url: str) -> Path | None:
    """The file of a database on this machine."""
    scheme, _, place = url.partition("://")
    return Path(place.removeprefix("/").partition("?")[0]) if scheme.lower() == "sqlite" else None


def folder_of(url: str) -> Path | None:
    """The directory of this machine that the storage's files are in, if it is one."""
    scheme, _, place = url.partition("://")
    if scheme.lower() == "lmdb":
        return Path(place)
    file = database_file_of(url)
    return file and file.parent
