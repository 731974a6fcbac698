"""URLs of storages as texts: what may be shown of them, and the password that stands elsewhere."""

from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote

from roomkey.errors import ConfigurationError
from roomkey.security.networks import is_loopback

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


def crosses_network(url: str) -> bool:
    """Whether what is said to the server leaves this machine."""
    if not is_remote(url):
        return False
    # Where no host is named it is this machine's, or the socket of a file.
    authority = url.partition("://")[2].partition("?")[0].partition("/")[0]
    hosts = authority.rpartition("@")[2].split(",")
    return not all(is_loopback(_without_port(host) or "localhost") for host in hosts)


def _without_port(host: str) -> str:
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def demands_tls(url: str) -> bool:
    """Whether a server is not talked to without TLS; ``sslmode=prefer`` would go on without."""
    if _mode_of_tls(url) in ("require", "verify-ca", "verify-full"):
        return True
    scheme, _, rest = url.lower().partition("://")
    return scheme.startswith("rediss") or (
        scheme.startswith("redis") and dict(parse_qsl(rest.partition("?")[2])).get("tls", "0") != "0"
    )


def verifies_server(url: str) -> bool:
    """Whether a server must show a certificate of an authority that is believed, where TLS is demanded."""
    return _mode_of_tls(url) != "require" or "sslrootcert=" in url


def _mode_of_tls(url: str) -> str:
    """The ``sslmode`` of a database, said or not; empty for none."""
    parameters = dict(parse_qsl(url.partition("?")[2]))
    return parameters.get("sslmode", "verify-full" if "sslrootcert" in parameters else "")


def joins_nodes(url: str) -> bool:
    """Whether the server carries messages between nodes."""
    return url.lower().startswith(("redis", "postgres"))


def counts_for_nodes(url: str) -> bool:
    """Whether budgets of all nodes are counted there."""
    return url.lower().startswith("redis")


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
