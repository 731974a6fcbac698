"""Every implementation of what nodes share keeps the promises of its port."""

from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from roomkey.backends.lmdb import FileSystemSettings
from roomkey.backends.lmdb.leases import FileSystemLeases
from roomkey.backends.lmdb.one_time import FileSystemOneTime
from roomkey.backends.memory.checkpoints import MemoryCheckpoints
from roomkey.backends.memory.counters import MemoryCounters
from roomkey.backends.memory.leases import MemoryLeases
from roomkey.backends.memory.one_time import MemoryOneTime
from roomkey.ports import Checkpoints, Counters, Leases, OneTime, OneTimeLimits
from roomkey.testing.clock import ManualClock
from roomkey.testing.shared import (
    CheckpointsConformance,
    CountersConformance,
    DurableLeasesConformance,
    LeasesConformance,
    OneTimeConformance,
)

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class InTheHandsOfTheTest:
    """Time passes when the test says so."""

    @pytest.fixture(autouse=True)
    def _clock(self) -> None:
        self.clock = ManualClock(NOON)

    async def pass_time(self, by: timedelta) -> None:
        self.clock.advance(by)


class TestMemoryOneTime(InTheHandsOfTheTest, OneTimeConformance):
    def open(self, limits: OneTimeLimits) -> AbstractAsyncContextManager[OneTime]:
        return nullcontext(MemoryOneTime(self.clock, limits))


class TestFileSystemOneTime(InTheHandsOfTheTest, OneTimeConformance):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "values"

    def open(self, limits: OneTimeLimits) -> AbstractAsyncContextManager[OneTime]:
        return FileSystemOneTime(self.path, limits, clock=self.clock)


class TestMemoryCounters(InTheHandsOfTheTest, CountersConformance):
    def open(self) -> AbstractAsyncContextManager[Counters]:
        return nullcontext(MemoryCounters(self.clock))


class TestMemoryLeases(InTheHandsOfTheTest, LeasesConformance):
    def open(self) -> AbstractAsyncContextManager[Leases]:
        return nullcontext(MemoryLeases(self.clock))


class TestFileSystemLeases(InTheHandsOfTheTest, DurableLeasesConformance):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "leases"

    def open(self) -> AbstractAsyncContextManager[Leases]:
        settings = FileSystemSettings(map_size=1024 * 1024, durable=False)
        return FileSystemLeases(self.path, clock=self.clock, settings=settings)


class TestMemoryCheckpoints(CheckpointsConformance):
    def open(self) -> AbstractAsyncContextManager[Checkpoints]:
        return nullcontext(MemoryCheckpoints())
