"""The server: listens, says so, and stops in good order."""

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, cast

import structlog
import uvicorn

from roomkey.config import Config, ServerSettings
from roomkey.errors import ConfigurationError, Storage
from roomkey.listening import (
    RESERVED_FILES,
    address_for_others,
    address_of,
    enough_open_files,
    greet,
    listening,
)
from roomkey.node import Node
from roomkey.observability import logs
from roomkey.supervisor import FORCED, Order
from roomkey.tls import tls_context
from roomkey.transports.http import http_protocol
from roomkey.transports.picows import websocket_protocol
from roomkey.transports.proxies import BehindProxies, TrustedProxies
from roomkey.transports.tls_handshakes import TlsEntrance

_log = structlog.get_logger("roomkey.server")


class Ending:
    """The end of a server: first asked for, then forced. To be told on its loop."""

    def __init__(self, *, others_go_on: bool = False) -> None:
        """With ``others_go_on`` there are others who serve the same port when this process alone gets a signal."""
        self.asked = asyncio.Event()
        self.forced = asyncio.Event()
        self.leaves_the_port = False
        self._others_go_on = others_go_on
        self._signals = 0

    def signal(self) -> None:
        """A signal has come: the first one asks, the second forces."""
        self._signals += 1
        if self._signals > 1:
            self.forced.set()
        # What the supervisor has ordered is no signal: systemd sends one to it and to its workers at the same time.
        self.leaves_the_port |= self._others_go_on and not self.asked.is_set()
        self.asked.set()

    def obey(self, order: Order) -> None:
        """The supervisor wants something, or is no more."""
        if order is Order.END:
            self.forced.set()
        self.leaves_the_port |= order is Order.ORPHANED
        self.asked.set()


def serve(config: Config) -> int:
    """
    Run until a signal, and return the exit code: 0 after an orderly end, 1 after one that was forced.

    Raises:
        ConfigurationError: If the server cannot start as configured; no connection was accepted then.
    """
    logs.configure(config.log)
    tls_context(config.server)
    open_files = enough_open_files()
    with listening(config.server) as listener:
        address = address_of(config, listener)
        return work(config, listener, open_files, ready=lambda _: greet(config, address))


def work(
    config: Config,
    listener: socket.socket,
    open_files: int | None,
    *,
    ready: Callable[[Node], None],
    orders: Callable[[Callable[[Order], None]], None] | None = None,
) -> int:
    """
    Serve what ``listener`` accepts, as ``serve`` does; ``ready`` is called when it does.

    ``orders`` is given what is to be called, from any thread, with orders of a supervisor.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_work(config, listener, open_files, ready, orders))


async def _work(
    config: Config,
    listener: socket.socket,
    open_files: int | None,
    ready: Callable[[Node], None],
    orders: Callable[[Callable[[Order], None]], None] | None,
) -> int:
    node = Node(config, address=address_for_others(config, listener))
    logs.configure(config.log, node=node.id)
    server = _Uvicorn(_uvicorn_config(node, open_files), lambda: ready(node))
    made_by: object = server.config.http_protocol_class
    reload = Reload(config.server, made_by if isinstance(made_by, TlsEntrance) else None)
    ending = Ending(others_go_on=orders is not None)

    def obey(order: Order) -> None:
        if order is Order.RELOAD:
            reload.ask()
        else:
            ending.obey(order)

    try:
        async with node.running():
            _calm_the_collector()
            if orders is not None:
                orders(_from_threads(obey))
            return await _until_ended(node, server, listener, ending, reload)
    except Storage as error:
        if server.started:
            raise
        raise ConfigurationError(str(error)) from error


async def _until_ended(
    node: Node, server: uvicorn.Server, listener: socket.socket, ending: Ending, reload: "Reload"
) -> int:
    """
    Serve until the end is asked for: drain sockets and then finish requests; what forces it cuts that short.

    Storage stays open until this returns.
    """

    async def end_well() -> None:
        await ending.asked.wait()
        _log.info("stopping", drain_seconds=node.config.server.drain.total_seconds())
        if ending.leaves_the_port:
            for each in server.servers:
                each.close()
        await node.drain()
        server.should_exit = True

    async def end_at_once(serving: asyncio.Task[None]) -> None:
        await ending.forced.wait()
        serving.cancel()

    with _signals(ending.signal, reload.ask if node.config.server.tls_cert else None):
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(server.serve(sockets=[listener]))
            enders = [group.create_task(work) for work in (end_well(), end_at_once(serving), reload.run())]
            await asyncio.wait([serving])
            for ender in enders:
                ender.cancel()
    return FORCED if ending.forced.is_set() else 0


def _calm_the_collector() -> None:
    """
    Collect reference cycles rarely: requests, frames and sessions make next to none.

    Objects that exist by now are never collected. With the interpreter's own thresholds a full pass over all
    sessions would come with every few thousand requests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  # does not exist on Windows
    except ImportError:
        return None
    return uvloop.new_event_loop


def _uvicorn_config(node: Node, open_files: int | None) -> uvicorn.Config:
    settings = node.config.server
    http = http_protocol(node.config.http, hosts=settings.hosts, report=node.report_connection)
    most = settings.max_connections
    if most is None and open_files is not None:
        most = open_files - RESERVED_FILES
    proxies = TrustedProxies(settings.trusted_proxies, settings.forwarded_header) if settings.trusted_proxies else None
    config = uvicorn.Config(
        node.app if proxies is None else BehindProxies(node.app, proxies),
        lifespan="off",  # the node is running before connections are accepted
        http=http,
        ws=websocket_protocol(node, node.config.websocket, proxies=proxies),
        log_config=None,
        access_log=node.config.log.access,
        server_header=False,
        proxy_headers=False,  # we read them ourselves
        backlog=settings.backlog,
        limit_concurrency=most,
        timeout_keep_alive=max(int(settings.keep_alive.total_seconds()), 1),
        timeout_graceful_shutdown=max(int(settings.drain.total_seconds()), 1),
    )
    config.load()
    context = tls_context(settings)
    if context is not None:
        config.http_protocol_class = cast("Any", TlsEntrance(http, context, settings.tls_handshake_timeout))
    return config


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


class Reload:
    """Certificates that are read anew when asked for, while connections go on with what they began with."""

    def __init__(self, settings: ServerSettings, entrance: TlsEntrance | None) -> None:
        self._settings = settings
        self._entrance = entrance
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Do it, soon."""
        self._asked.set()

    async def run(self) -> None:
        """Do it whenever it is asked for, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            self._reload()

    def _reload(self) -> None:
        try:
            context = tls_context(self._settings)
        except ConfigurationError as error:
            _log.error("certificates_not_reloaded", problems=error.problems, advice="the former ones go on")
            return
        if context is None or self._entrance is None:
            return
        # Another one, not the one in use: authorities cannot be taken out of that, a pair that does not fit breaks it,
        # and clients would resume what they had under certificates that are not accepted any more.
        self._entrance.context = context
        _log.info("certificates_reloaded", certificate=str(self._settings.tls_cert))


def _from_threads(obey: Callable[[Order], None]) -> Callable[[Order], None]:
    """``obey`` for other threads than that of the loop, which may be closed by then."""
    loop = asyncio.get_running_loop()

    def tell(order: Order) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(obey, order)

    return tell


@contextmanager
def _signals(stop: Callable[[], None], reload: Callable[[], None] | None) -> Generator[None]:
    """Call ``stop`` on SIGTERM and SIGINT, and ``reload`` on SIGHUP, until the block is left."""
    loop = asyncio.get_running_loop()
    calls = {signal.SIGTERM: stop, signal.SIGINT: stop}
    if reload is not None and sys.platform != "win32":
        calls[signal.SIGHUP] = reload

    def wake(number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(calls[signal.Signals(number)])

    before = {number: signal.getsignal(number) for number in calls}
    for number in before:
        # Not loop.add_signal_handler, which does not exist on Windows. The loop wakes up for these, too.
        signal.signal(number, wake)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
