"""
Publishing in order, and once: what is published in rooms of one partition goes one call after the other.

What comes while a call is on its way goes with the next one. Calls have numbers, by which the script knows one that
comes again because its answer was lost, and one that comes late, when its node has given it up.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from roomkey.backends.redis.cluster.layout import Layout, Partition
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import Argument, Call, RedisServer
from roomkey.errors import RoomkeyError, Storage

AT_A_TIME: Final = 64
AT_A_TIME_BYTES: Final = 512 * 1024
"""Publications in one call: well below a millisecond, in which the server does nothing else."""

MAX_WAITING_BYTES: Final = 16 * 2**20
"""Of all publications that wait for their turn."""

OVERHEAD_BYTES: Final = 500

ANSWER_BYTES: Final = 16
"""For each publication."""

REMEMBERED_MILLISECONDS: Final = 600_000
"""The last call of a node: longer than any is tried, or may be on its way."""

_PUBLISH: Final = Script("cluster/publish")


class Letter:
    """A publication that is to be sent, as keys and arguments of the script; ``answer`` is what it says."""

    __slots__ = ("answer", "arguments", "keys", "size")

    def __init__(self, keys: Sequence[bytes], arguments: Sequence[Argument], size: int) -> None:
        self.keys = keys
        self.arguments = arguments
        self.size = size + OVERHEAD_BYTES
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()


class _Lane:
    """What waits in a partition, in order."""

    __slots__ = ("last", "number", "partition", "waiting", "worker")

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.waiting: deque[Letter] = deque()
        self.number = 0
        """Of the last call."""
        self.last: Letter | None = None
        """The youngest, be it on its way or answered."""
        self.worker: asyncio.Task[None] | None = None

    def take(self) -> list[Letter]:
        """What goes next, without what nobody waits for any more."""
        taken: list[Letter] = []
        size = 0
        while self.waiting and len(taken) < AT_A_TIME and (not taken or size + self.waiting[0].size <= AT_A_TIME_BYTES):
            letter = self.waiting.popleft()
            if not letter.answer.done():
                taken.append(letter)
                size += letter.size
        return taken


class Lanes:
    """All partitions."""

    def __init__(
        self, server: RedisServer, layout: Layout, node: str, *, common: Callable[[], Sequence[Any]], window: int
    ) -> None:
        """``common`` are the arguments that all scripts of rooms have; keys are remembered for ``window`` ms."""
        self._server = server
        self._common = common
        self._window = window
        self._node = node.encode()
        self._lanes = {partition: _Lane(partition) for partition in layout.partitions}
        self._tasks: asyncio.TaskGroup | None = None
        self._bytes = 0

    def open(self, tasks: asyncio.TaskGroup) -> None:
        """Work in ``tasks`` from now on."""
        self._tasks = tasks

    def close(self) -> None:
        """Give up what was not answered."""
        self._tasks = None
        for lane in self._lanes.values():
            if lane.worker is not None:
                lane.worker.cancel()

    def post(self, partition: Partition, letter: Letter) -> "asyncio.Future[bytes]":
        """
        Send it when its turn comes.

        Raises:
            Storage: If too much waits already.
        """
        if self._tasks is None:
            raise Storage("the broker is not open")
        if self._bytes + letter.size > MAX_WAITING_BYTES:
            raise Storage("too much waits to be published")
        lane = self._lanes[partition]
        self._bytes += letter.size
        letter.answer.add_done_callback(lambda _: self._answered(letter))
        lane.waiting.append(letter)
        lane.last = letter
        if lane.worker is None:
            lane.worker = self._tasks.create_task(self._work(lane))
        return letter.answer

    async def wait_turn(self, partition: Partition) -> None:
        """Return when all is done that was published in the partition before."""
        last = self._lanes[partition].last
        if last is not None and not last.answer.done():
            await asyncio.wait([last.answer])

    def _answered(self, letter: Letter) -> None:
        self._bytes -= letter.size
        if not letter.answer.cancelled():
            letter.answer.exception()  # should nobody wait for it

    async def _work(self, lane: _Lane) -> None:
        letters: list[Letter] = []
        try:
            while letters := lane.take():
                await self._send(lane, letters)
        finally:
            lane.worker = None
            lane.last = None
            for letter in (*letters, *lane.waiting):  # if this was cancelled
                _fail(letter, Storage("the broker is closed"))
            lane.waiting.clear()

    async def _send(self, lane: _Lane, letters: Sequence[Letter]) -> None:
        lane.number += 1
        keys = [lane.partition.trace(self._node)]
        sharded = 1 if self._server.is_cluster else 0
        arguments: list[Any] = [*self._common(), lane.number, REMEMBERED_MILLISECONDS, sharded, self._window]
        for letter in letters:
            keys += letter.keys
            arguments += letter.arguments
        call = Call(_PUBLISH, keys, arguments, is_numbered=True)
        try:
            # May be repeated: the script knows the call again by its number.
            answers: bytes = await self._server.run_call(call, may_repeat=True)
        except RoomkeyError as error:
            for letter in letters:
                _fail(letter, error)
            return
        for number, letter in enumerate(letters):
            if not letter.answer.done():
                letter.answer.set_result(answers[ANSWER_BYTES * number : ANSWER_BYTES * (number + 1)])


def _fail(letter: Letter, error: RoomkeyError) -> None:
    if not letter.answer.done():
        letter.answer.set_exception(type(error)(str(error)))
