"""What settings may be beyond their types: bounds of numbers, sizes and durations, and the forms of addresses."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from roomkey.access.settings import check_secret
from roomkey.access.settings import check_url as check_hook_url
from roomkey.errors import ConfigurationError
from roomkey.security import masterkey
from roomkey.security.credentials import check_origin
from roomkey.security.networks import check_network
from roomkey.transports.hosts import check_host, is_host_name

SHORTEST: Final = timedelta(milliseconds=1)
LONGEST: Final = timedelta(days=36_525)
"""A hundred years: a moment so far from now still is one for every clock and store."""

MOST: Final = 2**31 - 1
MOST_BYTES: Final = 2**40
"""More memory or disk than one thing of ours may take; what is beyond is a slip of the keyboard."""

MOST_WORKERS: Final = 256
"""More processes than a machine has cores to give to."""

MAY_BE_ZERO: Final = frozenset(
    {
        "access.stale_if_error",
        "server.drain",
        "sessions.rotation_grace",
        "sessions.max_metadata_bytes",
        "api.idempotency_window",
        "api.idempotency_max_bytes",
        "audit.quorum",
        "documents.save_interval",
        "documents.share_interval",
        "janitor.keep_ended",
        "nodes.blind_grace",
        "nodes.near_cache_sessions",
        "storage.wait_replicas",
    }
)
"""Where nought means at once, nothing kept, or none allowed. Everywhere else it would stop what it limits."""

_PATH: Final = re.compile(r"(/[A-Za-z0-9._~!$&'()+,;=:@-]+)+")
"""RFC 3986, 3.3, without percent-encoding and what a pattern could be meant by."""


def check(setting: str, value: Any) -> None:
    """
    Raise unless ``value``, which is of the right type, can be that of ``setting``.

    Raises:
        ValueError: If it cannot; the message is to stand behind the name of the setting.
    """
    form = FORMS.get(setting)
    if form is not None and value is not None:
        form(value)
    elif isinstance(value, timedelta):
        _check_duration(setting, value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(setting, value)


def _check_duration(setting: str, value: timedelta) -> None:
    if not value and setting in MAY_BE_ZERO:
        return
    if value < SHORTEST:
        raise ValueError("must be at least 1ms")
    if value > LONGEST:
        raise ValueError(f"must be at most {LONGEST.days}d, a hundred years")


def _check_number(setting: str, value: float) -> None:
    least, most = 0 if setting in MAY_BE_ZERO else 1, MOST_BYTES if setting.endswith("_bytes") else MOST
    if isinstance(value, float):
        if not 0 < value <= most:  # not a number is neither
            raise ValueError(f"must be more than 0 and at most {most}, not {value:g}")
    elif value < least:
        raise ValueError(f"must be at least {least}, not {value}")
    elif value > most:
        raise ValueError(f"must be at most {most}, not {value}")


def _check_port(port: int) -> None:
    if not 0 <= port <= 65535:
        raise ValueError(f"{port} is not a port (0 to 65535)")


def _check_workers(workers: int | str) -> None:
    if workers != "auto" and not (isinstance(workers, int) and 1 <= workers <= MOST_WORKERS):
        raise ValueError(f"must be auto, or 1 to {MOST_WORKERS}, not {workers}")


def _check_address(host: str) -> None:
    """An address of this machine to listen on."""
    try:
        ip_address(host)
    except ValueError:
        if not is_host_name(host):
            hint = ", without scheme, port and brackets" if set(host) & set("/:[]") else ""
            raise ValueError(f"{host!r} is not an address or a host name{hint}") from None


def _check_proxy(text: str) -> None:
    try:
        if text != "*":
            ip_network(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is not an address such as 10.0.0.7, a network such as 10.0.0.0/8, or * for every peer"
        ) from None


def _check_url(url: str) -> None:
    """The address under which browsers find us."""
    example = "such as https://rooms.example.com"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"{url!r} is not a URL {example}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(f"{url!r} is not a URL {example}")
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise ValueError("a public URL has no user, query or fragment")
    _check_address(parts.hostname)
    if parts.path not in ("", "/") and not _PATH.fullmatch(parts.path.rstrip("/")):
        raise ValueError(f"{parts.path!r} is not a path such as /rooms")


def _check_path(path: str) -> None:
    if not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise ValueError(f"{path!r} is not a path such as /ws: it begins with a slash and does not end with one")


def _check_origin_of_log(name: str) -> None:
    if not name.isprintable() or not name or not set(name).isdisjoint(" +"):
        raise ValueError(f"{name!r} is not the name of a log: it is printable, and has neither spaces nor a plus sign")


def _check_key_numbers(numbers: Iterable[int]) -> None:
    for number in numbers:
        _check_number("audit.keys", number)


def _check_master_key(key: str) -> None:
    try:
        masterkey.check(key)
    except ConfigurationError as error:
        raise ValueError(str(error)) from None


def _check_node(name: str) -> None:
    """It stands in a header of every answer."""
    if not _NODE.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a node: 1 to 40 letters, digits and hyphens")


_NODE: Final = re.compile("[A-Za-z0-9-]{1,40}")


def _check_file(path: Path) -> None:
    if not str(path).isprintable():
        raise ValueError("a path has no control characters")


def _check_server(*schemes: str) -> Callable[[str], None]:
    """The URL of a server, which may have a password in it and is not shown."""

    def check(url: str) -> None:
        scheme, separator, rest = url.partition("://")
        if not separator or not rest.isprintable() or scheme.lower().partition("+")[0] not in schemes:
            raise ValueError(f"is not a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")

    return check


def _check_password(password: str) -> None:
    if not password.isprintable():
        raise ValueError("a password has no control characters")


def _check_shown(text: str) -> None:
    if not text.isprintable() or not text:
        raise ValueError("must be text without control characters")


def _check_location(url: str) -> None:
    """``same``, or where a storage is; not shown, for there may be a password in it."""
    if not url.isprintable() or not (url == "same" or "://" in url or url in ("file", "memory", "redis", "database")):
        raise ValueError("is neither same nor the URL of a storage")


def _check_key_prefix(prefix: str) -> None:
    if not prefix.isprintable() or set(prefix) & set("{}") or len(prefix.encode()) > 64:
        raise ValueError(f"{prefix!r} is not a prefix of keys: at most 64 bytes, and no braces")


def _each(check: Callable[[str], object]) -> Callable[[Iterable[str]], None]:
    def check_all(values: Iterable[str]) -> None:
        for value in values:
            check(value)

    return check_all


FORMS: Final[Mapping[str, Callable[[Any], object]]] = {
    "access.url": check_hook_url,
    "access.secret": check_secret,
    "server.host": _check_address,
    "server.port": _check_port,
    "server.workers": _check_workers,
    "server.node": _check_node,
    "server.allowed_hosts": _each(check_host),
    "server.trusted_proxies": _each(_check_proxy),
    "audit.origin": _check_origin_of_log,
    "audit.keys": _check_key_numbers,
    "audit.remembered_head": _check_file,
    "server.tls_cert": _check_file,
    "server.tls_key": _check_file,
    "server.tls_client_ca": _check_file,
    "storage.directory": _check_file,
    "storage.url_file": _check_file,
    "storage.redis_url": _check_server("redis", "rediss"),
    "storage.database_url": _check_server("postgresql", "postgres", "mysql", "mariadb", "sqlite"),
    "storage.password": _check_password,
    "storage.key_prefix": _check_key_prefix,
    "security.master_key": _check_master_key,
    "security.master_key_file": _check_file,
    "security.allowed_origins": _each(check_origin),
    "audit.url": _check_location,
    "encryption.command": _each(_check_shown),
    "encryption.command_key": _check_shown,
    "limits.exempt_keys": _each(_check_shown),
    "limits.exempt_networks": _each(check_network),
    "api.public_url": _check_url,
    "realtime.path": _check_path,
    "documents.path": _check_path,
    "documents.hocuspocus_path": _check_path,
}
"""What is neither a number nor a duration."""


def clashes(paths: Mapping[str, str]) -> Iterator[str]:
    """Settings of paths that say the same."""
    names: dict[str, str] = {}
    for setting, path in paths.items():
        if (other := names.setdefault(path, setting)) != setting:
            yield f"{setting}: {path} is {other} already"
