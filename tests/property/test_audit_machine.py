"""
Any history of nodes that record, integrate, crash and lose answers, over storages that are set back to a backup: what
was recorded is there under its number, and no two heads that were shown to anybody contradict each other.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import uvloop
from hypothesis import given, settings

from roomkey.audit.checkpoints import checkpoint
from roomkey.audit.log import AuditLog
from roomkey.audit.stored import SPACE
from roomkey.audit.verification import Expectation, verify
from roomkey.audit.witness import submission
from roomkey.backends.memory.leases import MemoryLeases
from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.errors import Conflict, ContradictingHead, NotPublished, OutcomeUnknown, RoomkeyError, Storage
from roomkey.ports.objects import NOTHING_EXPECTED, Changes
from roomkey.testing.clock import ManualClock
from tests.support.audit import (
    LOG_KEY,
    NOON,
    WitnessesInProcess,
    WitnessInProcess,
    copied,
    naive_root,
    new_log,
    witnessed,
)
from tests.support.effort import examples
from tests.support.steps import History, Pick, histories, live

NODES = ("one", "two", "three")
FAILURES = (Conflict("others"), OutcomeUnknown("before"), OutcomeUnknown("after"), Storage("away"))


class FailingStore(MemoryObjectStore):
    """Fails the next commits as it is told; ``after`` is done all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[RoomkeyError] = []

    async def commit(self, space: str, changes: Changes, *, expected: Mapping[str, int] = NOTHING_EXPECTED) -> None:
        await asyncio.sleep(0)  # others get their turn between reading and writing
        failure = self.failures.pop(0) if self.failures else None
        if failure is None or str(failure) == "after":
            await super().commit(space, changes, expected=expected)
        if failure is not None:
            raise failure


class AuditWorld:
    """Nodes on one storage, a witness, and everything that was promised or shown to anybody."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._clock = ManualClock(NOON)
        self._leases = MemoryLeases(self._clock)
        self._objects = FailingStore()
        self._witness = WitnessInProcess("w.example", [LOG_KEY])
        self._nodes = {name: self._started(name) for name in NODES}
        self._count = 0
        self._promised: dict[int, bytes] = {}
        self._shown: list[bytes] = []
        """The entries of the largest head that was shown."""
        self._last_shown = ""
        self._backup: tuple[dict[str, bytes], dict[int, bytes]] | None = None
        self.refused = 0

    def _started(self, name: str) -> AuditLog:
        return new_log(
            self._objects,
            settings=witnessed(self._witness, quorum=1),
            node=name,
            clock=self._clock,
            leases=self._leases,
            transport=WitnessesInProcess(self._witness),
        )

    # --- what happens -------------------------------------------------------------------------------------

    def record(self, pick: Pick) -> None:
        names = {pick(NODES) for _ in range(pick((1, 1, 2)))}
        self._runner.run(self._record([(self._nodes[name], pick((1, 2, 40, 270))) for name in sorted(names)]))

    async def _record(self, wanted: list[tuple[AuditLog, int]]) -> None:
        await asyncio.gather(*(self._record_some(log, count) for log, count in wanted))

    async def _record_some(self, log: AuditLog, count: int) -> None:
        entries = [b"%d" % number for number in range(self._count, self._count + count)]
        self._count += count
        with suppress(Conflict, OutcomeUnknown, Storage):
            first = await log.append(entries)
            for number, entry in enumerate(entries, first):
                assert number not in self._promised
                self._promised[number] = entry

    def integrate(self, pick: Pick) -> None:
        names = {pick(NODES) for _ in range(pick((1, 2)))}
        self._runner.run(self._integrate([self._nodes[name] for name in sorted(names)]))

    async def _integrate(self, logs: list[AuditLog]) -> None:
        for outcome in await asyncio.gather(*(log.integrate() for log in logs), return_exceptions=True):
            assert isinstance(outcome, bool | Conflict | Storage), outcome
            self.refused += isinstance(outcome, ContradictingHead)

    def fail(self, pick: Pick) -> None:
        self._objects.failures = [pick(FAILURES) for _ in range(pick((1, 2, 3)))]

    def crash(self, pick: Pick) -> None:
        name = pick(NODES)
        self._nodes[name] = self._started(name)

    def wait(self, _pick: Pick) -> None:
        self._clock.advance(minutes=1)

    def lose_witness(self, pick: Pick) -> None:
        self._witness.is_away = pick((True, False))

    def back_up(self, _pick: Pick) -> None:
        found = self._runner.run(self._all())
        self._backup = found, dict(self._promised)

    async def _all(self) -> dict[str, bytes]:
        return {each.name: each.value for each in await self._objects.list(SPACE, limit=1000)}

    def restore(self, _pick: Pick) -> None:
        if self._backup is None:
            return
        kept, self._promised = self._backup[0], dict(self._backup[1])
        self._objects = FailingStore()
        self._runner.run(self._objects.commit(SPACE, dict(kept)))
        self._nodes = {name: self._started(name) for name in NODES}

    # --- what must hold -----------------------------------------------------------------------------------

    def check(self) -> None:
        self._objects.failures, failures = [], self._objects.failures
        self._runner.run(self._check())
        self._objects.failures = failures

    async def _check(self) -> None:
        log = self._nodes["one"]
        entries: list[bytes] = []
        while some := await log.entries(len(entries), 1000):
            entries += some
        assert {number: entries[number] for number in self._promised} == self._promised
        for body in self._witness.asked:
            self._show(submission(body).head.text, entries)
        self._witness.asked.clear()
        with suppress(NotPublished):
            self._show((await log.checkpoint()).text, entries)

    def _show(self, text: str, entries: list[bytes]) -> None:
        """A head was shown to somebody: it is that of what there is, and continues or begins what was shown before."""
        if text == self._last_shown:
            return
        self._last_shown = text
        head = checkpoint(text)
        assert head.root == naive_root(entries[: head.size])
        shown = entries[: head.size]
        both = min(len(shown), len(self._shown))
        assert shown[:both] == self._shown[:both]
        self._shown = max(shown, self._shown, key=len)

    def settle(self) -> None:
        """In the end everything is published, unless something was shown that the storage has lost."""
        self._objects.failures, self._witness.is_away = [], False
        self._clock.advance(minutes=1)
        self._runner.run(self._settle())
        self.check()

    async def _settle(self) -> None:
        log = self._started("last")
        self._nodes["one"] = log
        with suppress(ContradictingHead):
            assert await log.integrate()
            status = await log.status()
            assert status.recorded == status.integrated == status.published
            assert (await verify(await copied(log), Expectation(keys=[LOG_KEY], quorum=0))).is_sound
            return
        assert self._backup is not None


HISTORIES = histories(
    "record", "record", "integrate", "integrate", "integrate", "fail", "crash", "wait", "lose_witness", max_size=30
)
WITH_BACKUPS = histories(
    "record", "record", "integrate", "integrate", "fail", "crash", "wait", "back_up", "restore", max_size=30
)


def lived(history: History) -> AuditWorld:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        world = AuditWorld(runner)
        live(world, history)
        world.settle()
        return world


@settings(max_examples=examples(15))
@given(HISTORIES)
def test_nothing_recorded_is_lost_and_everything_is_published_in_the_end(history: History) -> None:
    assert lived(history).refused == 0


@settings(max_examples=examples(15))
@given(WITH_BACKUPS)
def test_no_backup_makes_the_log_contradict_what_it_has_shown(history: History) -> None:
    lived(history)


def test_a_restored_backup_is_noticed() -> None:
    history = [("record", 0), ("integrate", 0), ("back_up", 0), ("record", 0), ("wait", 0), ("integrate", 0)]

    assert lived([*history, ("restore", 0), ("wait", 0), ("record", 0), ("integrate", 0)]).refused > 0
