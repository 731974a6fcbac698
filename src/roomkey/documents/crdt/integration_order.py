"""
In which order the blocks of one list or text lie: the rule by which every Yjs client arrives at the same one.

Each block was put between two neighbours, its origins. Where several were put between the same ones without
knowing of each other, those of the smaller client come first, and what was put behind one of them stays with it.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from roomkey.documents.crdt.updates import Block, BlockId, BlockKind
from roomkey.errors import InvalidInput

MAX_STEPS: Final = 2_000_000
"""Maximum number of times that a block is passed in search of another's place: about 1 s. Most blocks pass none."""


class Run:
    """A block or a part of one, at its place: the units of ``block`` from ``clock`` up to ``end``."""

    __slots__ = ("block", "clock", "end", "next")

    def __init__(self, block: Block, clock: int, end: int) -> None:
        self.block = block
        self.clock = clock
        self.end = end
        self.next: Run | None = None

    @property
    def origin(self) -> BlockId | None:
        """The unit it was put behind: within a block that is the one before."""
        block = self.block
        return block.origin if self.clock == block.clock else (block.client, self.clock - 1)


def in_order(blocks: Iterable[Block]) -> Iterator[Run]:
    """
    The blocks of one list, all that were ever in it, as they lie.

    Those of which an origin is not among ``blocks`` are left out.

    Raises:
        InvalidInput: If they are so entangled that it takes more than ``MAX_STEPS``.
    """
    line = _Line()
    for block in _after_their_origins(blocks):
        line.put(block)
    run = line.first.next
    while run is not None:
        yield run
        run = run.next


def _after_their_origins(blocks: Iterable[Block]) -> Iterator[Block]:
    """Each block once what it depends on has been: the units before it of the same client, and its origins."""
    queues: dict[int, list[Block]] = {}
    for block in blocks:
        queues.setdefault(block.client, []).append(block)
    for queue in queues.values():
        queue.sort(key=_clock, reverse=True)
    done = dict.fromkeys(queues, 0)
    for client in queues:
        waiting = [client]
        while waiting:
            queue = queues[waiting[-1]]
            if not queue:
                waiting.pop()
                continue
            missing = _missing(queue[-1], done)
            if missing is None:
                block = queue.pop()
                done[block.client] = block.end
                yield block
                if len(waiting) > 1:
                    waiting.pop()  # perhaps who waits for this client can go on
            elif missing in waiting or not queues.get(missing):
                queue.pop()
            else:
                waiting.append(missing)


def _missing(block: Block, done: Mapping[int, int]) -> int | None:
    for origin in (block.origin, block.right_origin):
        if origin is not None and done.get(origin[0], 0) <= origin[1]:
            return origin[0]
    return None


def _clock(item: Block | Run) -> int:
    return item.clock


class _Line:
    """The blocks that have their place."""

    __slots__ = ("_runs", "_steps", "first")

    def __init__(self) -> None:
        # Something in front of everything, so that there is always something to be put behind.
        self.first = Run(Block(-1, 0, 0, BlockKind.GC), 0, 0)
        self._runs: dict[int, list[Run]] = {}
        self._steps = 0

    def put(self, block: Block) -> None:
        """Give ``block`` its place; its origins have theirs."""
        left = self.first if block.origin is None else self._ending_with(block.origin)
        right = None if block.right_origin is None else self._beginning_with(block.right_origin)
        if left is None or (block.right_origin is not None and right is None):
            return
        run = Run(block, block.clock, block.end)
        if left.next is not right:
            left = self._among_rivals(block, left, right)
        run.next, left.next = left.next, run
        self._runs.setdefault(block.client, []).append(run)

    def _among_rivals(self, block: Block, left: Run, right: Run | None) -> Run:
        """Behind which run ``block`` belongs, where others were put between the same two."""
        passed: set[Run] = set()
        undecided: set[Run] = set()
        rival = left.next
        while rival is not None and rival is not right:
            self._count_step()
            passed.add(rival)
            undecided.add(rival)
            origin = rival.origin
            if origin == block.origin:
                if rival.block.client < block.client:
                    left = rival
                    undecided.clear()
                elif rival.block.right_origin == block.right_origin:
                    break
            else:
                holder = None if origin is None else self._holding(origin)
                if holder not in passed:
                    break
                if holder not in undecided:
                    left = rival
                    undecided.clear()
            rival = rival.next
        return left

    def _count_step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise InvalidInput("the document is too entangled for this")

    def _holding(self, id: BlockId) -> Run | None:
        runs = self._runs.get(id[0], ())
        index = bisect_right(runs, id[1], key=_clock) - 1
        return runs[index] if index >= 0 and id[1] < runs[index].end else None

    def _ending_with(self, id: BlockId) -> Run | None:
        run = self._holding(id)
        if run is not None and id[1] + 1 < run.end:
            self._split(run, id[1] + 1)
        return run

    def _beginning_with(self, id: BlockId) -> Run | None:
        run = self._holding(id)
        return run if run is None or run.clock == id[1] else self._split(run, id[1])

    def _split(self, run: Run, clock: int) -> Run:
        rest = Run(run.block, clock, run.end)
        rest.next, run.next, run.end = run.next, rest, clock
        runs = self._runs[run.block.client]
        runs.insert(bisect_right(runs, run.clock, key=_clock), rest)
        return rest
