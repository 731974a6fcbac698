"""
Nodes that have nothing to do, in a process of their own: they are listed as living, and hold the connections of a node.

``idle_nodes URL COUNT`` prints ``ready`` when so many nodes live on that store, and leaves with all of them when
standard input ends.
"""

import asyncio
import subprocess
import sys
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from typing import Final

import uvloop

from benchmarks.httpload import Unexpected
from benchmarks.processes import LOAD_CORE, STOP_SECONDS, run_on
from roomkey.backends import ClusterSettings, StoreOptions, Stores
from roomkey.ports import NodeStatus
from roomkey.realtime.settings import RealtimeSettings
from roomkey.sessions.manager import SystemClock

LIFETIME: Final = timedelta(minutes=10)
"""Longer than they are needed, so that nothing has to be renewed while somebody measures."""


@contextmanager
def idle_nodes(url: str, count: int) -> Generator[None]:
    """So many more nodes on this store until the block is left."""
    command = [sys.executable, "-m", "benchmarks.idle_nodes", url, str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != b"ready\n":
            raise Unexpected("the idle nodes have gone: see above")
        yield
    finally:
        process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


async def _live(url: str, count: int) -> None:
    clock, realtime = SystemClock(), RealtimeSettings()
    async with AsyncExitStack() as stack:
        for number in range(count):
            id = f"idle-{number}"
            settings = ClusterSettings(
                node=id,
                clock=clock,
                history_publications=realtime.history_publications,
                history_age=realtime.history_age,
                history_bytes=realtime.history_bytes,
                repeat_window=realtime.repeat_window,
            )
            # Connections of its own for each, as if it were another process.
            cluster = Stores(StoreOptions(pool_size=1)).cluster(url, settings)
            if cluster is None:
                raise SystemExit(f"nothing joins nodes at {url}")
            await stack.enter_async_context(cluster.broker)
            await cluster.nodes.renew(NodeStatus(id=id, version="0", started_at=clock.now()), LIFETIME)
            stack.push_async_callback(cluster.nodes.leave, id)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    run_on(LOAD_CORE)
    uvloop.run(_live(sys.argv[1], int(sys.argv[2])))
