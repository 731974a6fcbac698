"""How many webhooks a node sends per second on one core, and what a killed receiver costs."""

import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import uvloop

from benchmarks.harness import Benchmark, Finding, Goal, Measures, Plan, Row, figures, installed, main, value
from benchmarks.processes import LOAD_CORE, SERVER_CORE, starting_on
from benchmarks.receiving import received
from roomkey.backends import Stores
from roomkey.backends.memory.leases import MemoryLeases
from roomkey.documents.service import DocumentService
from roomkey.hooks.contents import DocumentContents
from roomkey.hooks.events import DocumentChanged
from roomkey.hooks.outbox import Outbox
from roomkey.hooks.posting import Poster
from roomkey.hooks.sending import Sender
from roomkey.hooks.settings import WebhookEndpoint, WebhookSettings
from roomkey.leasing import Chore
from roomkey.ports import SystemClock

WANTED_PER_SECOND: Final = 2_000.0

SECRETS: Final = {
    "v1 (HMAC)": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    "v1a (Ed25519)": "whsk_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
}

BATCH: Final = 200
"""Events at a time, as commits of documents bring them."""

LIMIT_SECONDS: Final = 120.0

KILLED: Final = "the receiver is killed and comes back"


class _Receiver:
    """A receiver in a process of its own, on the core of the load."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.port = 0
        self._process: subprocess.Popen[str]

    def start(self) -> None:
        command = [sys.executable, "-m", "benchmarks.receiving", str(self.port), str(self.file)]
        with starting_on(LOAD_CORE):
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline().rpartition(":")[2])

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()


@contextmanager
def _receiving(folder: Path) -> Generator[_Receiver]:
    receiver = _Receiver(folder / "received")
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.kill()


class _Node:
    """As much of a node as sends webhooks."""

    def __init__(self, outbox: Outbox, sender: Sender) -> None:
        self.outbox = outbox
        self._sender = sender

    async def put_in(self, count: int) -> None:
        """So many changed documents."""
        now = SystemClock().now()
        for number in range(count):
            self.outbox.tell(
                DocumentChanged(document=f"notes/{number}", lineage="lineage", version=7, at=now, actor="user:alice")
            )
            if number % BATCH == BATCH - 1:
                await asyncio.sleep(0)
        await self.outbox.flush()

    async def until_delivered(self, count: int) -> None:
        """Return when so many messages were delivered since it began."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while (found := self._sender.figures) is None or found.delivered < count:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.005)


@asynccontextmanager
async def _sending(folder: Path, port: int, secret: str) -> AsyncGenerator[_Node]:
    clock = SystemClock()
    endpoint = WebhookEndpoint(name="load", url=f"http://127.0.0.1:{port}/", secrets=(secret,), allow_private=True)
    async with Stores().objects(f"lmdb://{folder / 'store'}") as objects:

        def written(_: str) -> None:
            sender.put_in()

        outbox = Outbox(objects, clock, node="node", endpoints=(endpoint,), bound=1_000_000, written=written)
        sender = Sender(
            endpoint,
            WebhookSettings(endpoints=(endpoint,), timeout=timedelta(seconds=10)),
            node="node",
            objects=objects,
            outbox=outbox,
            contents=DocumentContents(_no_documents),
            posting=Poster(endpoint.url, timeout=10, allow_private=True),
            clock=clock,
            chore=Chore(MemoryLeases(clock), "webhook", "node"),
        )
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(outbox.run()), group.create_task(sender.run())]
            yield _Node(outbox, sender)
            for task in tasks:
                task.cancel()


def _no_documents() -> DocumentService:
    raise LookupError("nobody asks for contents")


async def _sent(folder: Path, secret: str, count: int) -> Measures:
    """Put in ``count`` events, and wait until all are delivered and taken out."""
    with _receiving(folder) as receiver:
        async with _sending(folder, receiver.port, secret) as node:
            begun, used = time.perf_counter(), time.process_time()
            await node.put_in(count)
            await node.until_delivered(count)
            seconds, spent = time.perf_counter() - begun, time.process_time() - used
        _check(receiver, count)
    return {"messages": (count / seconds, "/s"), "CPU per message": (1e6 * spent / count, "µs")}


async def _killed(folder: Path, count: int) -> Measures:
    """The same, and the receiver is killed when it has had a third; it is back at once."""
    with _receiving(folder) as receiver:
        async with _sending(folder, receiver.port, SECRETS["v1 (HMAC)"]) as node:
            await node.put_in(count)
            await node.until_delivered(count // 3)
            receiver.kill()
            begun = time.perf_counter()
            receiver.start()
            await node.until_delivered(count)
            seconds = time.perf_counter() - begun
        repeated = len(received(receiver.file)) - count
        _check(receiver, count)
    return {"until everything is delivered": (seconds, "s"), "sent twice": (float(repeated), ""), "lost": (0.0, "")}


def _check(receiver: _Receiver, count: int) -> None:
    if len(set(received(receiver.file))) != count:
        raise RuntimeError(f"{count - len(set(received(receiver.file)))} of {count} messages were lost")


def run(plan: Plan) -> Finding:
    """Rounds of both signatures in turns, then of a receiver that is killed."""
    count = plan.size(10_000, 300)
    rounds: dict[str, list[Measures]] = {name: [] for name in SECRETS}
    killed: list[Measures] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for _ in range(plan.rounds):
            for name, secret in SECRETS.items():
                with tempfile.TemporaryDirectory() as folder:
                    rounds[name].append(runner.run(_sent(Path(folder), secret, count)))
            with tempfile.TemporaryDirectory() as folder:
                killed.append(runner.run(_killed(Path(folder), count)))
    rows = [Row("sent", name, figures(measured), paced=False) for name, measured in rounds.items()]
    rows.append(Row(KILLED, "v1 (HMAC)", figures(killed)))
    goals = [
        Goal(f"webhooks on one core, {name}", value(rows, "sent", name, "messages"), WANTED_PER_SECOND, "/s")
        for name in SECRETS
    ]
    return Finding(rows, goals, [f"{count:,} changed documents.", *NOTES])


NOTES: Final = [
    "An event is written to the outbox (LMDB, with its fsyncs), read, signed, posted, and taken out with its record.",
    "All of that is one process on one core; the receiver has the other one.",
    "A message that was lost would fail the benchmark: the receiver writes each down before it answers.",
]

BENCHMARK: Final = Benchmark(
    name="webhooks",
    title="Webhooks",
    about="Messages per second from the outbox to a receiver, and what a killed receiver costs.",
    run=run,
    versions=installed("cryptography", "httptools", "msgspec", "uvloop"),
    core=SERVER_CORE,
)

if __name__ == "__main__":
    main(BENCHMARK)
