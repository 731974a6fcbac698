"""The audit log on one node and on several: recording, integrating, reading, receipts, retention."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

import pytest
from msgspec.structs import replace

from roomkey.audit import proofs
from roomkey.audit.log import MAX_ENTRIES, Alarm, aged
from roomkey.audit.sources import StoredSource
from roomkey.audit.stored import PART_BYTES, SPACE, Retained
from roomkey.audit.tiles import MAX_ENTRY_BYTES, bundle_of
from roomkey.audit.verification import Expectation, verify
from roomkey.backends.memory.leases import MemoryLeases
from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.errors import (
    AuditLogDamaged,
    Conflict,
    InvalidInput,
    NotFound,
    NotProven,
    NotPublished,
    NotRetained,
    OutcomeUnknown,
)
from roomkey.ports import NamedObject
from roomkey.ports.objects import NOTHING_EXPECTED, Changes
from roomkey.testing.clock import ManualClock
from tests.support.audit import LOG_KEY, NOON, ORIGIN, SETTINGS, copied, entry, filled_log, naive_root, new_log

KEYS = [LOG_KEY]


class FailingAnswers(MemoryObjectStore):
    """Loses the answers to some commits, which were done, or not."""

    def __init__(self) -> None:
        super().__init__()
        self.lost_before = self.lost_after = 0

    async def commit(self, space: str, changes: Changes, *, expected: Mapping[str, int] = NOTHING_EXPECTED) -> None:
        if self.lost_before:
            self.lost_before -= 1
            raise OutcomeUnknown("the connection broke")
        await super().commit(space, changes, expected=expected)
        if self.lost_after:
            self.lost_after -= 1
            raise OutcomeUnknown("the connection broke")


def alarm_to(alarms: asyncio.Queue[str]) -> Alarm:
    def alarm(code: str, details: Mapping[str, str]) -> None:
        assert details["reason"]
        alarms.put_nowait(code)

    return alarm


class CountedObjects(MemoryObjectStore):
    """Objects that know how many were listed."""

    listed = 0

    async def list(self, space: str, *, prefix: str = "", after: str = "", limit: int = 100) -> Sequence[NamedObject]:
        found = await super().list(space, prefix=prefix, after=after, limit=limit)
        self.listed += len(found)
        return found


# --- recording ----------------------------------------------------------------------------------------


async def test_entries_are_numbered_in_the_order_in_which_they_were_recorded() -> None:
    log = new_log()

    assert await log.append([b"a", b"b"]) == 0
    assert await log.append([b"c"]) == 2
    assert await log.entries(0, 10) == [b"a", b"b", b"c"]
    assert await log.entries(1, 1) == [b"b"]
    assert await log.entries(3, 10) == []


async def test_recorded_integrated_and_published_are_three_things() -> None:
    log = new_log()
    await log.append([b"a", b"b"])

    status = await log.status()

    assert (status.recorded, status.integrated, status.published) == (2, 0, 0)
    assert await log.integrate()
    status = await log.status()
    assert (status.recorded, status.integrated, status.published) == (2, 2, 2)


async def test_the_published_root_is_that_of_the_entries() -> None:
    log = await filled_log(700)

    text = (await log.checkpoint()).text

    assert text.split("\n")[:2] == [ORIGIN, "700"]
    report = await verify(await copied(log), Expectation(keys=KEYS))
    assert report.is_sound
    assert report.head is not None
    assert report.head.root == naive_root([entry(number) for number in range(700)])


async def test_an_empty_log_is_published_too() -> None:
    log = new_log()

    await log.integrate()

    assert (await log.checkpoint()).text.split("\n")[1] == "0"
    assert (await verify(await copied(log), Expectation(keys=KEYS))).is_sound


async def test_nodes_that_record_at_once_get_different_numbers() -> None:
    objects = MemoryObjectStore()
    logs = [new_log(objects, node=f"node {number}") for number in range(5)]

    async def record(number: int) -> list[int]:
        return [await logs[number].append([b"%d %d" % (number, at)]) for at in range(20)]

    firsts = await asyncio.gather(*map(record, range(5)))

    assert sorted(first for each in firsts for first in each) == list(range(100))
    for number, each in enumerate(firsts):
        assert [await logs[0].entries(first, 1) for first in each] == [[b"%d %d" % (number, at)] for at in range(20)]


@pytest.mark.parametrize("when", ["lost_before", "lost_after"])
async def test_entries_are_recorded_once_though_the_answer_was_lost(when: str) -> None:
    objects = FailingAnswers()
    log = new_log(objects)
    await log.append([b"before"])

    setattr(objects, when, 2)
    first = await log.append([b"x", b"y"])

    assert first == 1
    assert await log.entries(0, 10) == [b"before", b"x", b"y"]


async def test_whoever_never_gets_an_answer_is_told_so() -> None:
    objects = FailingAnswers()
    objects.lost_before = 10**6

    with pytest.raises(OutcomeUnknown):
        await new_log(objects).append([b"x"])


@pytest.mark.parametrize(
    "entries", [[], [bytes(MAX_ENTRY_BYTES + 1)], [b""] * (MAX_ENTRIES + 1), [bytes(60_000)] * 150]
)
async def test_what_is_too_much_is_not_recorded(entries: list[bytes]) -> None:
    log = new_log()

    with pytest.raises(InvalidInput):
        await log.append(entries)

    assert await log.entries(0, 1) == []


async def test_large_entries_are_kept_in_bounded_objects() -> None:
    objects = MemoryObjectStore()
    log = new_log(objects)
    entries = [bytes([number]) * 60_000 for number in range(100)]
    for start in range(0, 100, 20):
        await log.append(entries[start : start + 20])
        await log.integrate()

    sizes = [len(found.value) for found in await objects.list(SPACE, limit=1000)]

    assert max(sizes) < PART_BYTES + MAX_ENTRY_BYTES + 2
    assert await log.entries(0, 100) == entries
    assert await log.bundle(0, 100) == bundle_of(entries)
    assert (await verify(await copied(log), Expectation(keys=KEYS))).is_sound


async def test_entries_are_read_while_some_are_integrated_and_some_are_not() -> None:
    log = await filled_log(300)
    await log.append([entry(number) for number in range(300, 310)])
    await log.append([entry(number) for number in range(310, 320)])

    for first, count in ((0, 1000), (250, 60), (299, 2), (300, 5), (305, 10), (312, 3), (319, 5)):
        expected = [entry(number) for number in range(first, min(first + count, 320))]
        assert await log.entries(first, count) == expected


# --- nodes --------------------------------------------------------------------------------------------


async def test_readers_of_what_is_not_integrated_go_on_where_they_were() -> None:
    objects = CountedObjects()
    log = new_log(objects)
    for number in range(1_000):
        await log.append([entry(number)])

    objects.listed = 0
    found: list[list[bytes]] = [[], []]
    for _ in range(50):
        for each in found:
            each.extend(await log.entries(len(each), 20))

    assert found == [[entry(number) for number in range(1_000)]] * 2
    assert objects.listed < 20_000  # not the half million of who begins anew each time


async def test_one_node_integrates_while_it_has_the_lease() -> None:
    objects, clock = MemoryObjectStore(), ManualClock(NOON)
    leases = MemoryLeases(clock)
    one, other = (new_log(objects, clock=clock, leases=leases, node=name) for name in ("one", "other"))
    await one.append([b"a"])
    assert await one.integrate()
    await other.append([b"b"])

    assert not await other.integrate()

    assert (await other.status()).published == 1
    clock.advance(minutes=1)
    assert await other.integrate()
    assert (await other.status()).published == 2


async def test_of_two_that_both_believe_to_have_the_lease_one_changes_the_tree() -> None:
    objects = MemoryObjectStore()
    one, other = new_log(objects, node="one"), new_log(objects, node="other")  # each with leases of its own
    await one.append([entry(number) for number in range(100)])

    outcomes = await asyncio.gather(one.integrate(), other.integrate(), return_exceptions=True)

    assert all(outcome is True or isinstance(outcome, Conflict) for outcome in outcomes)
    await one.integrate()
    assert (await verify(await copied(other), Expectation(keys=KEYS))).is_sound


class Overtaken(MemoryObjectStore):
    """Lets another node act before the next change of the tree."""

    def __init__(self) -> None:
        super().__init__()
        self.before_tree = self._nothing

    async def _nothing(self) -> None:
        pass

    async def commit(self, space: str, changes: Changes, *, expected: Mapping[str, int] = NOTHING_EXPECTED) -> None:
        if "log/tree" in changes:
            before, self.before_tree = self.before_tree, self._nothing
            await before()
        await super().commit(space, changes, expected=expected)


async def test_a_node_that_slept_through_its_lease_changes_nothing() -> None:
    objects = Overtaken()
    sleeper, other = new_log(objects, node="sleeper"), new_log(objects, node="other")
    await sleeper.append([b"a", b"b"])

    async def others_act() -> None:
        await other.integrate()
        await other.append([b"c"])
        await other.integrate()

    objects.before_tree = others_act
    with pytest.raises(Conflict):
        await sleeper.integrate()

    assert await other.entries(0, 10) == [b"a", b"b", b"c"]
    assert (await other.status()).published == 3
    assert (await verify(await copied(other), Expectation(keys=KEYS))).is_sound


async def test_in_the_background_the_log_is_published_and_trouble_is_said() -> None:
    objects = MemoryObjectStore()
    alarms: asyncio.Queue[str] = asyncio.Queue()
    settings = replace(SETTINGS, publish_interval=timedelta(milliseconds=1))
    log = new_log(objects, settings=settings, alarm=alarm_to(alarms))
    running = asyncio.create_task(log.run())

    first = await log.append([b"a"])
    await log.receipt(first, within=timedelta(seconds=5))
    assert log.degradations() == {}
    await objects.commit(SPACE, {"log/tile/0/0000000000000000000": bytes(32)})
    await log.append([b"b"])
    alarm = await alarms.get()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert (alarm, alarms.empty()) == ("audit_log_damaged", True)
    assert "were changed or lost" in log.degradations()["audit log"]
    assert log.seen.published == 1


# --- files and receipts -------------------------------------------------------------------------------


async def test_every_partial_tile_of_the_past_is_still_served() -> None:
    log = await filled_log(300)
    full, partial = await log.tile(0, 0), await log.tile(0, 1, 44)

    assert [await log.tile(0, 0, width) for width in (1, 100, 255)] == [full[: width * 32] for width in (1, 100, 255)]
    assert await log.tile(0, 1, 7) == partial[: 7 * 32]
    assert await log.bundle(0, 3) == bundle_of([entry(0), entry(1), entry(2)])
    for level, number, width in ((0, 1, 45), (0, 1, 256), (0, 2, 1), (1, 0, 2), (1, 1, 1), (2, 0, 1), (7, 0, 1)):
        with pytest.raises(NotFound):
            await log.tile(level, number, width)
    for number, width in ((1, 45), (1, 256), (2, 1)):
        with pytest.raises(NotFound):
            await log.bundle(number, width)


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 600])
async def test_every_entry_has_a_receipt_that_proves_it(size: int) -> None:
    log = await filled_log(size)

    for index in {0, size // 3, size // 2, size - 1}:
        content = str(await log.receipt(index)).encode()
        proven = proofs.verify(proofs.receipt(content), keys=KEYS)
        assert (proven.index, proven.entry, proven.head.size) == (index, entry(index), size)


async def test_an_entry_that_is_only_recorded_has_no_receipt_yet() -> None:
    log = await filled_log(3)
    await log.append([b"new"])

    with pytest.raises(NotPublished):
        await log.receipt(3)

    await log.integrate()
    assert (await log.receipt(3)).entry == b"new"


async def test_a_receipt_without_its_entry_proves_the_one_that_is_shown_beside_it() -> None:
    log = await filled_log(5)
    receipt = await log.receipt(2, with_entry=False)

    assert proofs.verify(receipt, keys=KEYS, entry=entry(2)).index == 2
    for given, words in ((None, "must be given"), (entry(3), "do not lead")):
        with pytest.raises(NotProven, match=words):
            proofs.verify(receipt, keys=KEYS, entry=given)


async def test_no_receipt_is_given_for_what_was_changed_in_storage() -> None:
    objects = MemoryObjectStore()
    log = await filled_log(5, objects)
    await objects.commit(SPACE, {"log/entries/0000000000000000000": bundle_of([b"x"] * 5)})

    with pytest.raises(AuditLogDamaged, match="entry 2"):
        await log.receipt(2)


async def test_an_entry_that_was_lost_before_it_was_integrated_is_named() -> None:
    objects = MemoryObjectStore()
    log = await filled_log(5, objects)
    await log.append([b"x"])
    await log.append([b"y"])
    await objects.commit(SPACE, {"log/batch/0000000000000000005": None})

    with pytest.raises(AuditLogDamaged, match="entry 5"):
        await log.integrate()

    assert (await log.status()).integrated == 5


# --- retention ----------------------------------------------------------------------------------------


async def test_a_reader_behind_what_is_shown_is_told_where_to_go_on() -> None:
    log = await filled_log(700)
    await log.retain(300)

    with pytest.raises(NotRetained, match="below number 300") as told:
        await log.entries(0, 10)

    assert await log.entries(told.value.first, 1) == [entry(300)]


async def test_old_entries_are_denied_and_their_proofs_stay() -> None:
    log = await filled_log(600)

    await log.retain(300)

    for denied in (log.entries(299, 5), log.bundle(0), log.bundle(0, 10)):
        with pytest.raises(NotRetained):
            await denied
    assert await log.entries(300, 1) == [entry(300)]
    assert (await log.bundle(1)).startswith(bundle_of([entry(256)]))
    receipt = await log.receipt(10)
    assert receipt.entry is None
    assert proofs.verify(receipt, keys=KEYS, entry=entry(10)).index == 10
    report = await verify(StoredSource(log), Expectation(keys=KEYS))
    assert (report.is_sound, report.not_shown, report.entries) == (True, 256, 344)


async def test_what_was_denied_by_mistake_is_shown_again() -> None:
    log = await filled_log(10)
    await log.retain(5)

    await log.retain(0)

    assert await log.entries(0, 1) == [entry(0)]


async def test_only_what_is_published_can_be_denied() -> None:
    log = await filled_log(10)
    await log.append([b"new"])

    for first in (-1, 11):
        with pytest.raises(InvalidInput):
            await log.retain(first)


async def test_entries_are_denied_when_they_are_as_old_as_is_said() -> None:
    clock = ManualClock(NOON)
    log = new_log(settings=replace(SETTINGS, retention=timedelta(days=2)), clock=clock)
    for day in range(4):
        await log.append([b"day %d" % day])
        await log.integrate()
        clock.advance(days=1)
    await log.append([b"day 4"])
    await log.integrate()

    with pytest.raises(NotRetained):
        await log.entries(2, 1)
    assert await log.entries(3, 5) == [b"day 3", b"day 4"]


def test_a_day_is_noted_once_and_forgotten_when_it_is_over() -> None:
    first = aged(Retained(), 100, 7, timedelta(days=2))
    again = aged(first, 100, 9, timedelta(days=2))
    later = aged(aged(again, 101, 20, timedelta(days=2)), 102, 30, timedelta(days=2))

    assert first == again == Retained(0, ((100, 7),))
    assert later == Retained(7, ((101, 20), (102, 30)))
    assert aged(Retained(50, ((100, 7),)), 110, 60, timedelta(hours=1)).first == 50
