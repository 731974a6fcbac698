"""The URL of a Redis: one server, those that Sentinel watches, or a cluster. Errors never show any of it."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote

from msgspec import Struct

from roomkey.errors import ConfigurationError

DEFAULT_PREFIX: Final = "roomkey"


class Deployment(StrEnum):
    """How servers work together."""

    STANDALONE = "standalone"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


class Address(NamedTuple):
    """Where a server listens: a host and a port, or the path of a Unix socket, with port 0."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host


class Login(Struct, frozen=True):
    """Who asks. Without a user, the password is that of the default one."""

    user: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return "Login(<hidden>)"


class Certificates(Struct, frozen=True):
    """Files for TLS: the authorities that are trusted instead of those of the system, and what the client shows."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


class RedisUrl(Struct, frozen=True, kw_only=True):
    """What a URL says. ``tls`` is ``None`` without TLS; ``master`` is the name that Sentinel has for the servers."""

    deployment: Deployment
    addresses: tuple[Address, ...]
    login: Login = Login()
    sentinel_login: Login = Login()
    master: str = ""
    database: int = 0
    tls: Certificates | None = None
    prefix: str = DEFAULT_PREFIX

    @classmethod
    def parse(cls, url: str) -> "RedisUrl":
        """
        Read ``redis://user:password@host:port/0?prefix=roomkey`` and its relatives.

        ``redis+sentinel://host,host/NAME/0``, ``redis+cluster://host,host``, ``redis+unix:///path``; ``rediss`` instead
        of ``redis``, or ``?tls=1``, is with TLS. What is special in a user or a password is percent-encoded.

        Raises:
            ConfigurationError: If it is none of them.
        """
        scheme, _, rest = url.partition("://")
        family, _, kind = scheme.lower().partition("+")
        if family not in {"redis", "rediss"} or kind not in _KINDS:
            raise ConfigurationError("the URL of a Redis begins with redis://, redis+sentinel:// or redis+cluster://")
        place, _, query = rest.partition("?")
        options = _options(query)
        authority, _, path = place.partition("/")
        credentials, _, hosts = authority.rpartition("@")
        deployment = _KINDS[kind]
        master, database = _path(deployment, path) if kind != _UNIX else ("", _number(options.get("db", "0")))
        return cls(
            deployment=deployment,
            addresses=(Address(f"/{unquote(path)}", 0),) if kind == _UNIX else _addresses(hosts, deployment),
            login=_login(credentials),
            sentinel_login=Login(options.get("sentinel_user"), options.get("sentinel_password")),
            master=master,
            database=database,
            tls=_tls(family, options),
            prefix=check_prefix(options.get("prefix", DEFAULT_PREFIX)),
        )


def check_prefix(prefix: str) -> str:
    """
    Return ``prefix`` if keys may begin with it.

    Raises:
        ConfigurationError: If it is empty, long, or has braces, by which Redis Cluster finds the slot of a key.
    """
    if not 0 < len(prefix.encode()) <= 64 or set(prefix) & set("{}"):
        raise ConfigurationError("a key prefix has 1 to 64 bytes, and no braces")
    return prefix


_UNIX: Final = "unix"

_KINDS: Final[Mapping[str, Deployment]] = {
    "": Deployment.STANDALONE,
    _UNIX: Deployment.STANDALONE,
    "sentinel": Deployment.SENTINEL,
    "cluster": Deployment.CLUSTER,
}

_PORTS: Final[Mapping[Deployment, int]] = {
    Deployment.STANDALONE: 6379,
    Deployment.SENTINEL: 26379,
    Deployment.CLUSTER: 6379,
}

_OPTIONS: Final = ("prefix", "tls", "ca", "cert", "key", "sentinel_user", "sentinel_password", "db")

_HOST: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?", re.ASCII)


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not options.keys() <= set(_OPTIONS):
        raise ConfigurationError(f"behind the question mark of a Redis URL stand: {', '.join(_OPTIONS)}")
    return options


def _login(credentials: str) -> Login:
    user, _, password = credentials.partition(":")
    return Login(unquote(user) or None, unquote(password) or None)


def _addresses(hosts: str, deployment: Deployment) -> tuple[Address, ...]:
    matches = [_HOST.fullmatch(host) for host in hosts.split(",")] if hosts else []
    found = [Address(match["host"].strip("[]"), int(match["port"] or _PORTS[deployment])) for match in matches if match]
    if not matches or len(found) != len(matches) or not all(0 < address.port < 2**16 for address in found):
        raise ConfigurationError("in the URL of a Redis the host stands behind //, as in redis://localhost:6379/0")
    if deployment is Deployment.STANDALONE and len(found) > 1:
        raise ConfigurationError("several hosts are a redis+sentinel:// or a redis+cluster://")
    return tuple(found)


def _path(deployment: Deployment, path: str) -> tuple[str, int]:
    """The name of the master, and the number of the database."""
    if deployment is Deployment.CLUSTER:
        if path not in {"", "0"}:
            raise ConfigurationError("a Redis Cluster has one database only, so that its URL ends behind the hosts")
        return "", 0
    if deployment is Deployment.STANDALONE:
        return "", _number(path or "0")
    name, _, database = path.partition("/")
    if not name:
        raise ConfigurationError("behind the hosts of redis+sentinel:// stands the name of the master")
    return unquote(name), _number(database or "0")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5):
        raise ConfigurationError("a database of Redis has a number, as in redis://localhost:6379/0")
    return int(text)


def _tls(family: str, options: Mapping[str, str]) -> Certificates | None:
    files = Certificates(options.get("ca"), options.get("cert"), options.get("key"))
    if family == "rediss" or options.get("tls", "0") not in {"", "0"}:
        return files
    if files != Certificates():
        raise ConfigurationError("ca, cert and key are for rediss:// and for tls=1")
    return None
