"""The server: listens, says so, and stops in good order."""

import asyncio
import gc
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog
import uvicorn

from roomkey.config import Config, ServerSettings
from roomkey.errors import ConfigurationError, Storage, explain
from roomkey.node import Node
from roomkey.observability import logs
from roomkey.transports.http import http_protocol
from roomkey.transports.picows import websocket_protocol

_log = structlog.get_logger("roomkey.server")

RESERVED_FILES: Final = 64
"""Number of open files kept free for everything but connections: storage, logs, listening sockets."""

FORCED: Final = 1
"""The exit code after a second signal."""


def serve(config: Config) -> int:
    """
    Run until a signal, and return the exit code: 0 after an orderly end, 1 after one that was forced.

    Raises:
        ConfigurationError: If the server cannot start as configured; no connection was accepted then.
    """
    logs.configure(config.log)
    check_tls(config.server)
    open_files = raise_file_limit()
    if open_files is not None and open_files <= RESERVED_FILES:
        raise ConfigurationError(
            f"only {open_files} files may be open, and the server needs more than {RESERVED_FILES}: "
            "raise the limit, as in `ulimit -n 4096`"
        )
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(config, open_files))


async def _serve(config: Config, open_files: int | None) -> int:
    with listening(config.server) as listener:
        node = Node(config)
        server = _Uvicorn(_uvicorn_config(node, open_files), lambda: _greet(config, listener))
        try:
            async with node.running():
                _calm_the_collector()
                return await _until_stopped(node, server, listener)
        except Storage as error:
            if server.started:
                raise
            raise ConfigurationError(str(error)) from error


async def _until_stopped(node: Node, server: uvicorn.Server, listener: socket.socket) -> int:
    """
    Serve until a signal. The first one drains sockets and then finishes requests; the second cuts that short.

    Storage stays open until this returns.
    """
    asked, forced = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (forced if asked.is_set() else asked).set()

    async def end_well() -> None:
        await asked.wait()
        _log.info("stopping", drain_seconds=node.config.server.drain.total_seconds())
        await node.drain()
        server.should_exit = True

    async def end_at_once(serving: asyncio.Task[None]) -> None:
        await forced.wait()
        serving.cancel()

    with _signals(stop):
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(server.serve(sockets=[listener]))
            enders = [group.create_task(end_well()), group.create_task(end_at_once(serving))]
            await asyncio.wait([serving])
            for ender in enders:
                ender.cancel()
    return FORCED if forced.is_set() else 0


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


def check_tls(settings: ServerSettings) -> None:
    """
    Raise ``ConfigurationError`` if the files of ``settings`` for TLS cannot be read, or do not belong together.

    What is in them is read again when the server starts to serve.
    """
    for name in ("tls_cert", "tls_key", "tls_client_ca"):
        file: Path | None = getattr(settings, name)
        try:
            if file is not None:
                file.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"server.{name}: {file} cannot be read: {explain(error)}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    cert, key, authority = settings.tls_cert, settings.tls_key, settings.tls_client_ca
    try:
        if cert is not None:
            context.load_cert_chain(cert, key)
    except ssl.SSLError as error:
        mismatch = error.reason == "KEY_VALUES_MISMATCH"
        problem = "do not belong together" if mismatch else "are not a certificate and a key in PEM"
        raise ConfigurationError(f"server.tls_cert, server.tls_key: {cert} and {key} {problem}") from error
    try:
        if authority is not None:
            context.load_verify_locations(authority)
    except ssl.SSLError as error:
        raise ConfigurationError(f"server.tls_client_ca: {authority} has no certificate in PEM") from error


def _calm_the_collector() -> None:
    """
    Collect reference cycles rarely: requests, frames and sessions make next to none.

    Objects that exist by now are never collected. With the interpreter's own thresholds a full pass over all
    sessions would come with every few thousand requests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


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


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  # does not exist on Windows
    except ImportError:
        return None
    return uvloop.new_event_loop


def _uvicorn_config(node: Node, open_files: int | None) -> uvicorn.Config:
    settings = node.config.server
    most = settings.max_connections
    if most is None and open_files is not None:
        most = open_files - RESERVED_FILES
    config = uvicorn.Config(
        node.app,
        lifespan="off",  # the node is running before connections are accepted
        http=http_protocol(node.config.http, hosts=settings.hosts),
        ws=websocket_protocol(node, node.config.websocket),
        log_config=None,
        access_log=node.config.log.access,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        backlog=settings.backlog,
        limit_concurrency=most,
        timeout_keep_alive=max(int(settings.keep_alive.total_seconds()), 1),
        timeout_graceful_shutdown=max(int(settings.drain.total_seconds()), 1),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        ssl_ca_certs=None if settings.tls_client_ca is None else str(settings.tls_client_ca),
        ssl_cert_reqs=ssl.CERT_NONE if settings.tls_client_ca is None else ssl.CERT_REQUIRED,
    )
    config.load()
    return config


def _greet(config: Config, listener: socket.socket) -> None:
    scheme = "http" if config.server.tls_cert is None else "https"
    host, port = listener.getsockname()[:2]
    address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
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
        _log.warning("no_api_keys", advice="nobody can create sessions: `roomkey keys generate` makes a key")


def _warn_of_development() -> None:
    red, plain = ("\033[1;31m", "\033[0m") if sys.stderr.isatty() else ("", "")
    text = (
        "--dev: everyone who can connect may create, read and revoke every session, and sessions may write "
        "everywhere. Not for production."
    )
    with suppress(OSError):
        print(f"{red}{text}{plain}", file=sys.stderr, flush=True)  # noqa: T201  # must be seen whatever is logged


class _Uvicorn(uvicorn.Server):
    """uvicorn without its own signal handlers and greetings."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Do nothing: uvicorn would raise the signals again at the end, and so never exit with 0."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Call ``ready`` once the server accepts connections."""
        await super().startup(sockets)
        self._ready()


@contextmanager
def _signals(stop: Callable[[], None]) -> Generator[None]:
    """Call ``stop`` on SIGTERM and SIGINT until the block is left."""
    loop = asyncio.get_running_loop()

    def wake(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(stop)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        # Not loop.add_signal_handler, which does not exist on Windows. The loop wakes up for these, too.
        signal.signal(number, wake)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
