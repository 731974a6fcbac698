"""What a server needs before it can serve: its socket, open files; and what it says when it can."""

import os
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Final

import structlog

from roomkey.config import Config, ServerSettings
from roomkey.errors import ConfigurationError

_log = structlog.get_logger("roomkey.server")

RESERVED_FILES: Final = 64
"""Number of open files kept free for everything but connections: storage, logs, listening sockets."""


@contextmanager
def listening(settings: ServerSettings) -> Generator[socket.socket]:
    """
    A socket that listens on the address and port of ``settings``.

    Raises:
        ConfigurationError: If the address is not one of this machine or the port is taken.
    """
    address = (settings.host, settings.port)
    try:
        family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
        everywhere = settings.host == "::" and socket.has_dualstack_ipv6()
        listener = socket.create_server(address, family=family, backlog=settings.backlog, dualstack_ipv6=everywhere)
    except OSError as error:
        # The standard library adds the address to the system's words, which have it already here.
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise ConfigurationError(f"cannot listen on {settings.host} port {settings.port}: {reason}") from error
    except ValueError as error:  # of which UnicodeError is one, for names that are too long
        raise ConfigurationError(f"cannot listen on {settings.host!r}: it is not the name of a machine") from error
    with listener:
        yield listener


def enough_open_files() -> int | None:
    """
    How many files may be open, which is as many as the system allows; ``None`` if there is no limit.

    Raises:
        ConfigurationError: If they are too few for a server.
    """
    open_files = raise_file_limit()
    if open_files is not None and open_files <= RESERVED_FILES:
        raise ConfigurationError(
            f"only {open_files} files may be open, and the server needs more than {RESERVED_FILES}: "
            "raise the limit, as in `ulimit -n 4096`"
        )
    return open_files


def raise_file_limit() -> int | None:
    """Raise the limit on open files as far as the system allows, and return it; ``None`` if there is none."""
    try:
        import resource  # noqa: PLC0415  # does not exist on Windows
    except ImportError:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return None if hard == resource.RLIM_INFINITY else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        # macOS says that there is no limit, and refuses to do without one.
        return soft
    return None if hard == resource.RLIM_INFINITY else hard


def address_of(config: Config, listener: socket.socket) -> str:
    """The URL of what listens there."""
    host, port = listener.getsockname()[:2]
    return _url(config, host, port)


def address_for_others(config: Config, listener: socket.socket) -> str:
    """The same for other machines: what listens everywhere is found by the name of this one."""
    host, port = listener.getsockname()[:2]
    return _url(config, socket.gethostname() if ip_address(host.partition("%")[0]).is_unspecified else host, port)


def _url(config: Config, host: str, port: int) -> str:
    scheme = "http" if config.server.tls_cert is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def greet(config: Config, address: str) -> None:
    """Say where the server listens, and what its operator should know."""
    # The first line is for programs that wait for it.
    lines = [f"Roomkey listening on {address}"]
    if config.server.dev:
        socket_address = f"ws{address.removeprefix('http')}{config.realtime.path}"
        lines += [f"  The demo    {address}/demo", f"  The API     {address}/docs", f"  WebSockets  {socket_address}"]
    # Whoever started the server may have stopped reading, and it serves all the same.
    with suppress(OSError):
        print("\n".join(lines), flush=True)  # noqa: T201
    if config.server.dev:
        _warn_of_development()
    elif not config.security.api_keys:
        nobody = "nobody can end sessions of others" if config.security.issuers else "nobody can create sessions"
        _log.warning("no_api_keys", advice=f"{nobody}: `roomkey keys generate` makes a key")


def _warn_of_development() -> None:
    red, plain = ("\033[1;31m", "\033[0m") if sys.stderr.isatty() else ("", "")
    text = (
        "--dev: everyone who can connect may create, read and revoke every session, and sessions may write "
        "everywhere. Not for production."
    )
    with suppress(OSError):
        print(f"{red}{text}{plain}", file=sys.stderr, flush=True)  # noqa: T201  # must be seen whatever is logged
