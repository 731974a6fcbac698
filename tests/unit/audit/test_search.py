"""What is asked for is found, whatever is indexed by then, and no page takes longer than another."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roomkey.audit.index import BLOCK, SearchIndex
from roomkey.audit.records import AuditRecord
from roomkey.audit.sealing import SEALED_AT_ONCE
from roomkey.audit.search import MAX_BLOCKS, Search, Wanted
from roomkey.errors import NotFound
from tests.support.audit import new_log
from tests.support.audit_trail import NOON, Office
from tests.support.loops import run_in_no_time

SIZE = 3 * BLOCK + 10


class Archive(Office):
    """A log with records of a few users, one a minute."""

    def __init__(self) -> None:
        super().__init__()
        self.index = SearchIndex(self.log, self.objects, self.naming)
        self.search = Search(self.log, self.index, self.sealer)
        self.records: list[AuditRecord] = []

    async def fill(self, size: int = SIZE) -> None:
        self.records = [
            AuditRecord(
                type=f"{'view' if number % 7 else 'command'}.x",
                at=NOON + timedelta(minutes=number),
                actor="key:ops" if number % 5 else "user:bob",
                user=("alice", "bob", "carol")[number % 3],
                session=f"s{number % 11}",
            )
            for number in range(size)
        ]
        for start in range(0, size, SEALED_AT_ONCE):
            await self.log.append(await self.sealer.seal(self.records[start : start + SEALED_AT_ONCE]))

    def expected(self, wanted: Wanted) -> list[int]:
        return [number for number, record in enumerate(self.records) if matches(record, wanted)]

    async def all_newest(self, wanted: Wanted, limit: int) -> list[int]:
        found: list[int] = []
        below: int | None = len(self.records)
        while below:
            page = await self.search.newest(wanted, below=below, limit=limit)
            assert len(page.entries) <= limit
            assert page.next is None or page.next < below
            found += [entry.number for entry in page.entries]
            below = page.next
        return found

    async def all_oldest(self, wanted: Wanted, limit: int) -> list[int]:
        found: list[int] = []
        first = 0
        while first < len(self.records):
            page = await self.search.oldest(wanted, first=first, limit=limit)
            assert page.next is not None
            found += [entry.number for entry in page.entries]
            first = page.next
        return found


def matches(record: AuditRecord, wanted: Wanted) -> bool:
    users = {record.user, record.actor.removeprefix("user:") if record.actor.startswith("user:") else None}
    return (
        (wanted.type is None or wanted.type in (record.type, record.type.partition(".")[0]))
        and (wanted.user is None or wanted.user in users)
        and (wanted.session is None or record.session == wanted.session)
        and (wanted.actor is None or record.actor == wanted.actor)
        and (wanted.since is None or record.at >= wanted.since)
        and (wanted.until is None or record.at < wanted.until)
    )


MOMENTS = st.none() | st.integers(-5, SIZE + 5).map(lambda minutes: NOON + timedelta(minutes=minutes))
CONDITIONS = st.builds(
    Wanted,
    type=st.sampled_from([None, None, "view", "command.x", "nothing"]),
    user=st.sampled_from([None, None, "alice", "bob", "dave"]),
    session=st.sampled_from([None, None, "s3", "s99"]),
    actor=st.sampled_from([None, None, "key:ops", "user:bob"]),
    since=MOMENTS,
    until=MOMENTS,
)


@settings(max_examples=8)
@given(st.lists(CONDITIONS, min_size=4, max_size=4), st.integers(0, 4), st.integers(20, 120))
def test_every_search_finds_exactly_what_there_is(wanted: Sequence[Wanted], indexed: int, limit: int) -> None:
    async def work() -> None:
        archive = Archive()
        await archive.fill()
        for _ in range(indexed):
            await archive.index.build()
        for each in wanted:
            if each.actor == "user:bob" and each.user not in (None, "bob"):
                continue  # that bob acted there is known of the sealed part only
            expected = archive.expected(each)
            newest = await archive.all_newest(each, limit)
            if each.actor != "user:bob":
                assert newest == expected[::-1]
                assert await archive.all_oldest(each, limit) == expected
            else:
                assert set(newest) >= set(expected)

    run_in_no_time(work())


async def test_a_search_for_somebody_reads_only_blocks_in_which_there_is_something() -> None:
    archive = Archive()
    await archive.fill()
    archive.log.recorded[5:6] = await archive.sealed(AuditRecord(type="view.x", at=NOON, user="eve"))
    while await archive.index.build():
        pass
    archive.log.reads = 0

    page = await archive.search.newest(Wanted(user="eve"), below=3 * BLOCK, limit=10)

    assert [entry.number for entry in page.entries] == [5]
    assert archive.log.reads == 1


async def test_a_block_that_is_not_full_is_not_read_again_and_again() -> None:
    archive = Archive()
    await archive.fill()
    while await archive.index.build():
        pass
    archive.log.reads = 0

    for _ in range(10):
        assert await archive.index.build() == 0

    assert len(archive.log.recorded) % BLOCK
    assert archive.log.reads == 0


async def test_a_page_that_finds_nothing_ends_and_says_where_to_go_on() -> None:
    archive = Archive()
    archive.log.recorded = [b"none of ours"] * ((MAX_BLOCKS + 2) * BLOCK)

    first = await archive.search.newest(Wanted(type="view"), below=len(archive.log.recorded), limit=10)
    last = await archive.search.newest(Wanted(type="view"), below=first.next or 0, limit=10)

    assert (first.entries, first.next) == ([], 2 * BLOCK)
    assert (last.entries, last.next) == ([], None)


async def test_the_index_goes_on_with_what_is_shown_when_the_rest_is_not_any_more() -> None:
    archive = Archive()
    await archive.fill()
    log = new_log()
    for start in range(0, SIZE, 250):
        await log.append(archive.log.recorded[start : start + 250])
    await log.integrate()
    await log.retain(BLOCK + 5)
    index = SearchIndex(log, archive.objects, archive.naming)

    await index.build()

    assert await index.blocks() == 3
    assert [found.block async for found in index.about(index.of_user("alice"), 3)] == [2]


async def test_the_index_shows_nothing_of_whom_it_is_about() -> None:
    archive = Archive()
    await archive.fill()

    await archive.index.build()

    names = [row.name for row in await archive.objects.list("audit-index", limit=1_000)]
    assert len(names) > 20
    assert not [name for name in names if "alice" in name or "s3" in name or "ops" in name]


async def test_who_was_erased_is_found_and_not_shown() -> None:
    archive = Archive()
    await archive.fill()
    await archive.index.build()

    await archive.erase("alice")

    page = await archive.search.newest(Wanted(user="alice"), below=SIZE, limit=5)
    assert len(page.entries) == 5
    assert {entry.personality for entry in page.entries} == {"erased"}


async def test_an_entry_that_does_not_exist_is_not_found() -> None:
    with pytest.raises(NotFound):
        await Archive().search.one(0, show=True)
