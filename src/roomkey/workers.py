"""``roomkey serve --workers N``: what the supervisor is for, and what a worker does; each worker is a node."""

import os
import pickle
import socket
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from roomkey.observability import load_structlog_alone

load_structlog_alone()

import structlog  # noqa: E402

from roomkey import supervisor  # noqa: E402
from roomkey.config import Config  # noqa: E402
from roomkey.errors import ConfigurationError, RoomkeyError  # noqa: E402
from roomkey.listening import address_of, enough_open_files, greet, listening  # noqa: E402
from roomkey.observability import logs  # noqa: E402
from roomkey.supervisor import NeverReady, Refused, Supervisor, SupervisorSettings  # noqa: E402
from roomkey.tls import tls_context  # noqa: E402

_log = structlog.get_logger("roomkey.workers")

MARGIN_SECONDS: Final = 15.0
"""Time for the requests that are left and for storage, beyond that for draining sockets and for requests."""

NOT_STARTED: Final = 2
"""The exit code of a worker that cannot start as configured."""


def serve(config: Config, count: int) -> int:
    """
    Run ``count`` workers on one port until a signal; returns the exit code as ``server.serve``.

    Raises:
        ConfigurationError: If they cannot start as configured; no connection was accepted then.
    """
    if sys.platform == "win32":
        raise ConfigurationError(
            "server.workers: Windows cannot hand one socket to several processes; run one worker, or several servers "
            "with a port each behind a proxy"
        )
    logs.configure(config.log)
    secure = tls_context(config.server) is not None  # whether they can be used is found out before there are workers
    enough_open_files()
    with listening(config.server) as listener:
        address = address_of(config, listener)
        try:
            return Supervisor(
                [sys.executable, "-m", "roomkey.workers"],
                pickle.dumps(config),
                listener=listener,
                settings=SupervisorSettings(workers=count, stop_seconds=_stop_seconds(config), passes_hangup=secure),
                ready=lambda workers: _announce(config, address, workers),
                warn=_log.warning,
            ).run()
        except Refused as refused:
            raise ConfigurationError(*refused.problems) from None
        except NeverReady as error:
            raise RoomkeyError(str(error)) from None


def _stop_seconds(config: Config) -> float:
    """Time that a worker has to end: sockets and requests have ``drain`` each."""
    return 2 * config.server.drain.total_seconds() + MARGIN_SECONDS


def _announce(config: Config, address: str, workers: Sequence[Mapping[str, Any]]) -> None:
    greet(config, address)
    if not all(worker["joined"] for worker in workers):
        _log.warning(
            "workers_not_joined",
            of_each_worker_alone="rooms, presence, awareness and limits",
            advice='[broker] url = "redis://…" joins them',
        )


def main() -> int:
    """Be a worker: serve the socket of the supervisor, whose arguments and input these are."""
    pipe, descriptor = map(int, sys.argv[1:])
    try:
        # S301: from the process that started this one.
        config: Config = pickle.loads(supervisor.read_brief())  # noqa: S301
    except EOFError:
        return supervisor.FORCED
    os.set_inheritable(pipe, False)
    os.set_inheritable(descriptor, False)
    logs.configure(config.log)
    with socket.socket(fileno=descriptor) as listener:
        return _work(config, listener, pipe)


def _work(config: Config, listener: socket.socket, pipe: int) -> int:
    from roomkey import server  # noqa: PLC0415  # the supervisor, which has this module too, does not need it

    def ready(node: server.Node) -> None:
        _log.info("worker_ready", pid=os.getpid())
        supervisor.report_ready(pipe, {"node": node.id, "joined": node.cluster.broker.shared})

    orders = partial(supervisor.hear_orders, orphan_seconds=_stop_seconds(config))
    try:
        return server.work(config, listener, enough_open_files(), ready=ready, orders=orders)
    except ConfigurationError as error:
        supervisor.report_refused(pipe, error.problems)
        return NOT_STARTED
    except RoomkeyError as error:
        _log.error("worker_failed", code=error.code, error=str(error))  # the message says it all
    except Exception:  # noqa: BLE001  # the edge of the process: whatever it was, the supervisor starts another one
        _log.exception("worker_failed")
    return supervisor.FORCED


if __name__ == "__main__":
    sys.exit(main())
