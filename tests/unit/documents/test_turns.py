"""Compaction and versions with several nodes: once per document, and nothing is written by who has lost the turn."""

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from roomkey.backends.memory.leases import MemoryLeases
from roomkey.documents.maintenance import Maintenance
from roomkey.documents.turns import LIFETIME, Turns, lease_name
from roomkey.ports import DocumentVersion, NewVersion, Page, StoredDocument
from roomkey.testing.clock import ManualClock
from tests.support.document_nodes import CountingStore, Nodes
from tests.support.loops import in_no_time
from tests.support.open_documents import ALICE, FaultyStore, House, Writer
from tests.support.sockets import NOON


async def versions(nodes: Nodes) -> list[DocumentVersion]:
    return (await nodes.store.versions("d", Page(limit=100))).versions


@in_no_time
async def test_two_nodes_keep_the_version_of_one_state_once() -> None:
    async with Nodes("a", "b", idle_timeout=timedelta(days=1)) as nodes:
        here, _ = await nodes.documents()
        here.take_update(Writer().type("x"), ALICE, NOON)
        await nodes.settle()
        now = nodes.clock.advance(minutes=11)

        for house in nodes:
            await Maintenance(house.open_documents).sweep(now)

        assert [version.sequence for version in await versions(nodes)] == [1]

        here.take_update(Writer().type("y"), ALICE, now)
        await nodes.settle()
        for house in nodes:
            await Maintenance(house.open_documents).sweep(nodes.clock.advance(minutes=11))
        assert [version.sequence for version in await versions(nodes)] == [2, 1]


@in_no_time
async def test_what_another_node_is_at_is_left_alone() -> None:
    async with Nodes("a", compact_updates=1, idle_timeout=timedelta(days=1)) as nodes:
        document = await nodes["a"].document()
        for letter in "abc":
            document.take_update(Writer().type(letter), ALICE, NOON)
        await nodes.settle()
        assert await nodes.leases.acquire(lease_name("d"), "b", LIFETIME) is not None

        await Maintenance(nodes["a"].open_documents).sweep(NOON + timedelta(minutes=11))
        record = await nodes.store.find("d")
        assert record is not None
        assert (record.log_updates, await versions(nodes)) == (3, [])

        nodes.clock.advance(seconds=LIFETIME.total_seconds() + 1)
        await Maintenance(nodes["a"].open_documents).sweep(NOON + timedelta(minutes=12))
        record = await nodes.store.find("d")
        assert record is not None
        assert (record.log_updates, len(await versions(nodes))) == (0, 1)


class SlowStore(CountingStore):
    """While it is busy for longer than a lease lasts, another node has its turn, and writes under it."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: Nodes

    async def _let_others(self, name: str) -> None:
        self.nodes.clock.advance(seconds=LIFETIME.total_seconds() + 1)
        token = await self.nodes.leases.acquire(lease_name(name), "another", LIFETIME)
        record = await self.find(name)
        assert record is not None
        await self.forget_versions(name, record.lineage, [], fence=token)
        assert await self.nodes.leases.release(lease_name(name), token or 0)

    async def load(self, name: str) -> StoredDocument | None:
        stored = await super().load(name)
        if name == "slow" and stored is not None and len(stored.updates) > 2:
            await self._let_others(name)
        return stored

    async def keep_version(
        self, name: str, lineage: str, version: NewVersion, *, fence: int | None = None
    ) -> DocumentVersion:
        if name == "slow":
            await self._let_others(name)
        return await super().keep_version(name, lineage, version, fence=fence)


@in_no_time
async def test_who_was_too_slow_writes_nothing_and_that_is_no_error() -> None:
    store = SlowStore()
    async with Nodes("a", store=store, compact_updates=2) as nodes:
        store.nodes = nodes
        document = await nodes["a"].document("slow")
        for letter in "abc":
            document.take_update(Writer().type(letter), ALICE, NOON)
            await nodes.settle()

        with capture_logs() as logs:
            await Maintenance(nodes["a"].open_documents).sweep(nodes.clock.advance(minutes=11))

        record = await store.find("slow")
        assert record is not None
        assert (record.log_updates, (await store.versions("slow", Page())).versions) == (3, [])
        assert [log for log in logs if log["event"] == "document_upkeep_failed"] == []


@in_no_time
async def test_a_log_is_merged_under_a_turn_and_the_document_remembers_it() -> None:
    async with Nodes("a", "b", compact_updates=2) as nodes:
        here, _ = await nodes.documents()
        for letter in "abc":
            here.take_update(Writer().type(letter), ALICE, NOON)
            await nodes.settle()

        for house in nodes:
            await Maintenance(house.open_documents).sweep(NOON)

        record = await nodes.store.find("d")
        assert record is not None
        assert (record.log_updates, record.sequence) == (0, 3)
        assert not len(nodes.leases)


@in_no_time
async def test_a_store_of_one_process_needs_no_turns() -> None:
    async with House(FaultyStore(), compact_updates=2) as house:
        document = await house.document()
        for letter in "abc":
            document.take_update(Writer().type(letter), ALICE, NOON)
            await house.settle()

        await Maintenance(house.open_documents).sweep(NOON)

        record = await house.store.find("d")
        assert record is not None
        assert record.log_updates == 0


async def test_a_turn_is_over_when_it_is_left() -> None:
    leases = MemoryLeases(ManualClock(NOON))
    one, other = Turns(leases, "one"), Turns(leases, "other")

    async with one.at("d") as turn:
        assert turn is not None
        async with other.at("d") as none, other.at("e") as another:
            assert (none, another is not None) == (None, True)

    async with other.at("d") as later:
        assert later is not None
        assert (later.fence or 0) > (turn.fence or 0)


@pytest.mark.parametrize("name", ["d", "x" * 491, "x" * 492, "x" * 1024, "\N{GRINNING FACE}" * 256])
def test_the_name_of_a_lease_is_as_long_as_it_may_be(name: str) -> None:
    assert 1 <= len(lease_name(name).encode()) <= 500
    assert lease_name(name) != lease_name(name + "x")
