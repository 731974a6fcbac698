"""``roomkey nodes``: who works together, as the nodes describe themselves."""

import asyncio
import socket
from collections.abc import Sequence
from datetime import datetime, timedelta
from io import StringIO
from typing import Annotated

from cyclopts import Parameter
from msgspec import to_builtins

from roomkey.backends import Stores, urls
from roomkey.cli.outcome import print_json, print_table
from roomkey.cli.serve import Choices, Chosen
from roomkey.config import Config
from roomkey.node import cluster_of
from roomkey.observability.logs import configure_events
from roomkey.observability.settings import LogLevel, LogSettings
from roomkey.ports import NodeStatus
from roomkey.sessions.manager import SystemClock

COLUMNS = ("node", "version", "up", "address", "sockets", "rooms", "lag ms", "state")


def nodes(*, choices: Chosen = None, json: Annotated[bool, Parameter(help="Print JSON.")] = False) -> None:
    """List the nodes that live, as the broker of the configuration knows them. Asks none of them."""
    config = (choices or Choices()).load()
    configure_events(LogSettings(level=LogLevel.ERROR), StringIO())  # what is wrong is said by the command
    clock = SystemClock()
    living = asyncio.run(_living(config, clock))
    now = clock.now()
    if json:
        print_json({"joined": living is not None, "nodes": [_in_json(node, now) for node in living or ()]})
    elif living is None:
        where = "none" if config.broker.url == "none" else urls.shown(config.broker.location_beside(config.storage))
        print(  # noqa: T201  # the answer
            f"Nothing joins nodes here (broker: {where}): every server of this configuration is a node alone.\n"
            '[broker] url = "redis://…" or "postgresql://…" in the settings of all of them joins them.'
        )
    elif not living:
        print("No node lives: no server of this configuration runs, or none reaches the broker.")  # noqa: T201
    else:
        print_table(COLUMNS, [_in_words(node, now) for node in living], numeric=COLUMNS[4:7])


async def _living(config: Config, clock: SystemClock) -> Sequence[NodeStatus] | None:
    """The nodes; ``None`` if nothing joins any."""
    cluster = cluster_of(config, Stores(config.storage.options), node=f"command-{socket.gethostname()}", clock=clock)
    if cluster is None:
        return None
    async with cluster.broker:
        return await cluster.nodes.nodes()


def _in_json(node: NodeStatus, now: datetime) -> object:
    return {**to_builtins(node), "uptime_seconds": round(_uptime(node, now).total_seconds())}


def _in_words(node: NodeStatus, now: datetime) -> Sequence[str]:
    up = timedelta(seconds=round(_uptime(node, now).total_seconds()))
    state = "draining" if node.draining else "serving"
    figures = (f"{node.sockets:,}", f"{node.rooms:,}", f"{node.lag_ms:,}")
    return (node.id, node.version, str(up), node.address or "?", *figures, state)


def _uptime(node: NodeStatus, now: datetime) -> timedelta:
    """Not negative, though the node's clock may be ahead of this one."""
    return max(now - node.started_at, timedelta())
