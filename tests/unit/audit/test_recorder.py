"""Nothing that is recorded is lost while the store is away, nobody waits for it, and it is said when it is too much."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

import structlog

from roomkey.audit.recorder import MAX_BATCH, MAX_PORTION_BYTES, Recorder, portion
from roomkey.audit.records import AuditRecord
from roomkey.security.events import SecurityEvent, SecurityEventType
from tests.support.audit_trail import NOON, Office
from tests.support.loops import in_no_time

BOUND = 5
PATIENCE = timedelta(seconds=30)


class Writing(Office):
    def __init__(self) -> None:
        super().__init__()
        self.recorder = Recorder(self.sealer, self.log, self.clock, node="n-1", bound=BOUND, patience=PATIENCE)

    def record(self, *types: str) -> None:
        for type in types:
            self.recorder.record(AuditRecord(type=type, at=NOON))

    @property
    def types(self) -> list[str]:
        return [line.type for line in self.log.lines]


@asynccontextmanager
async def writing() -> AsyncGenerator[Writing]:
    office = Writing()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(office.recorder.run())
        yield office
        running.cancel()


def refusal(address: str) -> SecurityEvent:
    kind = SecurityEventType.UNKNOWN_SESSION
    return SecurityEvent(type=kind, at=NOON, cause="invalid_token", address=address)


async def test_what_is_recorded_stands_in_the_log_in_its_order_with_the_name_of_the_node() -> None:
    office = Writing()
    office.record("a.1", "a.2", "a.3")

    assert await office.recorder.flush()

    assert office.types == ["a.1", "a.2", "a.3"]
    assert {line.node for line in office.log.lines} == {"n-1"}
    assert office.recorder.statistics().recorded == 3


@in_no_time
async def test_records_that_come_together_are_one_batch() -> None:
    async with writing() as office:
        office.record("a.1", "a.2", "a.3")
        await asyncio.sleep(1)

    assert office.log.batches == [3]


@in_no_time
async def test_while_the_store_is_away_everything_waits_and_then_it_is_there_once() -> None:
    async with writing() as office:
        office.objects.is_away = True
        office.record("a.1")
        await asyncio.sleep(1)
        office.record("a.2")
        await asyncio.sleep(60)
        assert (office.types, office.recorder.statistics().queued) == ([], 2)

        office.objects.is_away = False
        await asyncio.sleep(10)

    assert office.types == ["a.1", "a.2"]


@in_no_time
async def test_a_store_that_is_away_is_reported_once() -> None:
    with structlog.testing.capture_logs() as log:
        async with writing() as office:
            office.objects.is_away = True
            office.record("a.1")
            await asyncio.sleep(60)

    assert [line["event"] for line in log] == ["audit_not_recorded"]


async def test_what_is_tried_again_is_the_same_entry_so_that_a_repetition_can_be_told() -> None:
    office = Writing()
    office.record("a.1")
    office.objects.lost_answers = 1
    office.log.remembers_lost_ones = True

    assert not await office.recorder.flush()
    assert await office.recorder.flush()

    first, second = office.log.recorded
    assert first == second


async def test_it_is_behind_when_too_many_wait() -> None:
    office = Writing()
    office.objects.is_away = True
    office.record(*["a.1"] * (BOUND - 1))
    before = office.recorder.is_behind

    office.record("a.2")

    assert (before, office.recorder.is_behind) == (False, True)


async def test_it_is_behind_when_one_waits_for_too_long_and_not_any_more_when_it_is_written() -> None:
    office = Writing()
    office.record("a.1")
    office.clock.advance(PATIENCE - timedelta(microseconds=1))
    before = office.recorder.is_behind
    office.clock.advance(microseconds=1)
    then = office.recorder.is_behind

    await office.recorder.flush()

    assert (before, then, office.recorder.is_behind) == (False, True, False)


async def test_while_it_is_behind_refusals_take_no_place_and_none_goes_uncounted() -> None:
    office = Writing()
    office.objects.is_away = True
    office.record(*["a.1"] * BOUND)

    for number in range(1_000):
        office.recorder.note(refusal(f"192.0.2.{number % 3}"))

    assert office.recorder.statistics().queued == BOUND
    office.objects.is_away = False
    assert await office.recorder.close(timedelta(seconds=1))
    counts = [line.count for line in office.log.lines if line.type == "security.unknown_session"]
    assert sum(counts) == 1_000
    assert len(counts) == 3


async def test_whoever_waits_for_a_record_is_told_where_it_is() -> None:
    async with writing() as office:
        office.record("a.1", "a.2")

        number = await office.recorder.recorded(AuditRecord(type="a.3", at=NOON))

    assert office.types[number] == "a.3"


@in_no_time
async def test_at_the_end_what_waits_is_written_and_counts_too() -> None:
    office = Writing()
    office.recorder.note(refusal("192.0.2.1"))
    office.recorder.note(refusal("192.0.2.1"))
    office.recorder.note(refusal("192.0.2.1"))

    assert await office.recorder.close(timedelta(seconds=5))

    assert [line.count for line in office.log.lines] == [1, 2]


@in_no_time
async def test_at_the_end_a_store_that_is_away_is_waited_for_and_no_longer_than_that() -> None:
    office = Writing()
    office.record("a.1")
    office.objects.is_away = True
    begun = asyncio.get_running_loop().time()

    with structlog.testing.capture_logs() as log:
        assert not await office.recorder.close(timedelta(seconds=5))

    assert 5 <= asyncio.get_running_loop().time() - begun < 6
    assert log[-1]["event"] == "audit_records_lost"


def test_what_is_given_to_the_log_at_once_is_bounded_and_never_nothing() -> None:
    large = bytes(MAX_PORTION_BYTES // 2)

    assert portion([large, large, b"x"]) == [large, large]
    assert portion([large + large + b"x", b"x"]) == [large + large + b"x"]
    assert portion([]) == []


async def test_more_than_a_batch_is_several() -> None:
    office = Writing()
    office.record(*["a.1"] * (MAX_BATCH + 1))

    assert await office.recorder.flush()

    assert office.log.batches == [MAX_BATCH, 1]
