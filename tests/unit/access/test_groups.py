"""Groups: what sessions have by them, on the node that changes one and on every other."""

import asyncio
from collections.abc import Collection, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkey.access.groups import PREFIX, Groups
from roomkey.access.rechecks import NAME, SPACE, Rechecks
from roomkey.access.settings import AccessSettings
from roomkey.access.watch import Subject
from roomkey.backends.memory import MemorySessionStorage
from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.domain.access import (
    MAX_GROUPS_OF_A_SESSION,
    Access,
    Grant,
    Grants,
    access_to,
    check_grants,
    deciding_grant,
    patterns_of,
)
from roomkey.domain.session import Session, SessionId
from roomkey.errors import AccessUnknown, GroupNotFound, InvalidInput, TooManyGroups
from roomkey.node.access import NodeAccess
from roomkey.ports import GrantsAlone
from roomkey.ports.objects import StoredObject
from roomkey.sessions.manager import SessionManager
from roomkey.testing.clock import ManualClock
from tests.support.access import NOON, a_session
from tests.support.audit_trail import FailingObjects

WRITE, READ = Grant("team/**", Access.WRITE), Grant("team/**", Access.READ)
IN_TEAM = (Grant(group="team"),)


class Node:
    """A node with groups; ``changed`` are those of which its sockets were told."""

    def __init__(self, objects: MemoryObjectStore, name: str) -> None:
        self.changed: list[set[str]] = []
        self.has_changed = asyncio.Event()
        self.rechecks = Rechecks(objects, self._hear, node=name)
        self.groups = Groups(objects, self.rechecks, ManualClock(NOON), self._tell)
        self.decisions = GrantsAlone(self.groups)

    def _tell(self, groups: Collection[str]) -> None:
        self.changed.append(set(groups))
        self.has_changed.set()

    async def _hear(self, subjects: Sequence[Subject]) -> None:
        named = [subject.group for subject in subjects if subject.group is not None]
        await self.groups.refresh(named if len(named) == len(subjects) else None)


async def test_a_session_has_what_its_group_has_now() -> None:
    node = Node(MemoryObjectStore(), "a")
    session = a_session(grants=IN_TEAM)
    seen: list[Access | None] = [await node.decisions.decide(session, "team/plan")]

    for grants in ([WRITE], [READ], [Grant("other", Access.READ)]):
        await node.groups.put("team", grants)
        seen.append(node.decisions.access(session, "team/plan"))
    await node.groups.put("team", [WRITE])
    await node.groups.delete("team")
    seen.append(node.decisions.access(session, "team/plan"))

    assert seen == [None, Access.WRITE, Access.READ, None, None]
    assert node.changed == [{"team"}] * 5
    with pytest.raises(GroupNotFound):
        await node.groups.get("team")


async def test_what_changes_nothing_disturbs_nobody() -> None:
    node = Node(MemoryObjectStore(), "a")

    _, is_new = await node.groups.put("team", [WRITE])
    _, is_newer = await node.groups.put("team", [{"documents": "team/**", "access": "write"}], actor="key:ops")

    assert (is_new, is_newer, node.changed) == (True, False, [{"team"}])
    assert (await node.groups.get("team")).changed_by == "key:ops"


async def test_every_other_node_knows_of_a_change_at_its_next_look() -> None:
    objects = MemoryObjectStore()
    one, other = Node(objects, "a"), Node(objects, "b")
    await other.rechecks.read()

    await one.groups.put("team", [WRITE])
    before = other.groups.of("team")
    await other.rechecks.read()

    assert (before, other.groups.of("team"), other.changed) == ((), (WRITE,), [{"team"}])


async def test_of_two_nodes_that_change_a_group_at_once_both_end_with_the_same() -> None:
    objects = MemoryObjectStore()
    nodes = [Node(objects, name) for name in "abc"]
    for node in nodes:
        await node.rechecks.read()

    await asyncio.gather(*(node.groups.put("team", [grant]) for node, grant in zip(nodes, (WRITE, READ), strict=False)))
    for node in nodes:
        await node.rechecks.read()

    assert {node.groups.of("team") for node in nodes} == {nodes[2].groups.of("team")}
    assert nodes[2].groups.of("team") in {(WRITE,), (READ,)}


async def test_a_change_that_could_not_be_read_is_read_when_storage_is_back() -> None:
    objects = FailingObjects()
    one, other = Node(objects, "a"), Node(objects, "b")
    await other.groups.know()
    await one.groups.put("team", [WRITE])

    objects.is_away = True
    await other.groups.refresh(["team"])
    during = other.groups.of("team")
    objects.is_away = False
    going = asyncio.create_task(other.groups.run())
    await other.has_changed.wait()
    going.cancel()

    assert (during, other.groups.of("team")) == ((), (WRITE,))


async def test_a_group_that_was_forgotten_while_nobody_looked_is_forgotten_here_too() -> None:
    objects = MemoryObjectStore()
    one, other = Node(objects, "a"), Node(objects, "b")
    await one.groups.put("team", [WRITE])
    await other.groups.know()

    await one.groups.delete("team")
    await other.groups.refresh()

    assert (other.groups.of("team"), other.changed[-1]) == ((), {"team"})


async def test_a_node_that_has_missed_changes_reads_all_groups() -> None:
    objects, sessions = MemoryObjectStore(), SessionManager(MemorySessionStorage(), clock=ManualClock(NOON))
    one = Node(objects, "a")
    other = NodeAccess(
        AccessSettings(), None, sessions=sessions, sockets=NoSockets, objects=objects, shared=True, node="b"
    )
    rechecks = Rechecks(objects, other.recheck, node="b")
    await one.groups.put("another", [READ])
    await rechecks.read()
    await one.groups.put("team", [WRITE])
    await objects.commit(SPACE, {NAME: b"damaged"})

    await rechecks.read()

    assert other.service.groups.of("team") == (WRITE,)


class NoSockets:
    """No open sockets."""

    def in_use(self) -> Iterator[tuple[Session, Sequence[str]]]:
        return iter(())

    def review(self, id: SessionId, reason: str | None = None) -> None: ...


class Slow(FailingObjects):
    """Objects of which the first reading of several is answered late, with what was there when it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.late: asyncio.Event | None = None

    async def get_many(self, space: str, names: Sequence[str]) -> list[StoredObject | None]:
        late, self.late = self.late, None
        found = await super().get_many(space, names)
        if late is not None:
            await late.wait()
        return found


async def test_an_answer_that_comes_late_undoes_nothing() -> None:
    objects = Slow()
    node, other = Node(objects, "a"), Node(objects, "b")
    await node.groups.put("team", [WRITE])

    late = objects.late = asyncio.Event()
    slow = asyncio.create_task(node.groups.refresh(["team"]))
    await asyncio.sleep(0)
    await other.groups.put("team", [READ])
    await node.groups.refresh(["team"])
    late.set()
    await slow

    assert node.groups.of("team") == (READ,)


def test_a_node_may_run_again_on_another_event_loop() -> None:
    objects = FailingObjects()
    node, other = Node(objects, "a"), Node(objects, "b")

    async def run(grant: Grant) -> None:
        going = asyncio.create_task(node.groups.run())
        await asyncio.sleep(0)
        node.has_changed = asyncio.Event()
        changing = asyncio.create_task(node.has_changed.wait())
        objects.is_away = True
        await node.groups.refresh(["team"])
        objects.is_away = False
        await other.groups.put("team", [grant])
        done, _ = await asyncio.wait([going, changing], return_when=asyncio.FIRST_COMPLETED)
        going.cancel()
        assert (done, node.groups.of("team")) == ({changing}, (grant,))

    for grant in (WRITE, READ, WRITE):
        asyncio.run(run(grant))


async def test_before_groups_are_known_only_sessions_that_need_none_get_in() -> None:
    objects = FailingObjects()
    await Node(objects, "a").groups.put("team", [WRITE])
    objects.is_away, late = True, Node(objects, "b")
    member, other = a_session(grants=IN_TEAM), a_session(grants=[WRITE])

    with pytest.raises(AccessUnknown):
        await late.decisions.decide(member, "team/plan")
    assert await late.decisions.decide(other, "team/plan") is Access.WRITE
    assert (late.decisions.is_fresh(member, "team/plan"), late.decisions.is_fresh(other, "team/plan")) == (False, True)
    assert late.decisions.access(member, "team/plan") is None

    objects.is_away = False
    assert await late.decisions.decide(member, "team/plan") is Access.WRITE


@pytest.mark.parametrize("value", [b"", b"\xc1", b"\x80", b'{"name":"team"}'])
async def test_a_group_that_cannot_be_read_allows_nothing_and_harms_no_other(value: bytes) -> None:
    objects = MemoryObjectStore()
    await Node(objects, "a").groups.put("fine", [WRITE])
    await objects.commit(SPACE, {PREFIX + "team": value})
    node = Node(objects, "b")

    await node.groups.know()

    assert (node.groups.of("team"), node.groups.of("fine")) == ((), (WRITE,))


async def test_a_record_that_was_put_in_the_place_of_another_allows_nothing() -> None:
    objects = MemoryObjectStore()
    await Node(objects, "a").groups.put("admins", [WRITE])
    stored = await objects.get(SPACE, PREFIX + "admins")
    assert stored is not None
    await objects.commit(SPACE, {PREFIX + "guests": stored.value})
    node = Node(objects, "b")

    await node.groups.know()

    assert node.groups.of("guests") == ()


async def test_there_is_an_end_to_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roomkey.access.groups.MAX_GROUPS", 2)
    node = Node(MemoryObjectStore(), "a")
    for name in ("one", "two"):
        await node.groups.put(name, [WRITE])

    with pytest.raises(TooManyGroups):
        await node.groups.put("three", [WRITE])
    await node.groups.put("two", [READ])

    assert [group.name for group in await node.groups.list(after="one")] == ["two"]


@pytest.mark.parametrize("name", ["", "a b", "-team", "te/am", "x" * 129, "té", "a\n"])
async def test_a_group_has_a_name_that_may_stand_in_paths_and_logs(name: str) -> None:
    with pytest.raises(InvalidInput):
        await Node(MemoryObjectStore(), "a").groups.put(name, [WRITE])
    with pytest.raises(InvalidInput):
        check_grants([{"group": name}])


async def test_a_group_is_in_no_other() -> None:
    with pytest.raises(InvalidInput, match="must not name a group"):
        await Node(MemoryObjectStore(), "a").groups.put("team", [{"group": "other"}])


@pytest.mark.parametrize(
    "grant",
    [
        {"group": "team", "documents": "**", "access": "read"},
        {"group": 7},
        {},
        Grant(),
        Grant("**"),
        Grant("**", Access.READ, group="team"),
        Grant("", Access.ADMIN),
    ],
)
def test_a_grant_has_documents_and_access_or_a_group(grant: Grant) -> None:
    with pytest.raises(InvalidInput):
        check_grants([grant])


def test_a_session_names_so_many_groups_and_no_more() -> None:
    groups = [{"group": f"team-{number}"} for number in range(MAX_GROUPS_OF_A_SESSION + 1)]

    assert len(check_grants(groups[1:])) == MAX_GROUPS_OF_A_SESSION
    with pytest.raises(InvalidInput):
        check_grants(groups)


plain = st.builds(Grant, st.sampled_from(["a", "a/*", "a/**", "**", "b/c"]), st.sampled_from(list(Access)))
NAMES = ("red", "blue", "none")
held = st.fixed_dictionaries({name: st.lists(plain, max_size=3).map(tuple) for name in NAMES[:2]})
lists = st.lists(plain | st.sampled_from(NAMES).map(lambda name: Grant(group=name)), max_size=5)


@given(lists, held, st.sampled_from(["a", "a/b", "a/b/c", "b/c", "d"]))
def test_a_group_stands_for_its_grants_in_its_place(grants: list[Grant], groups: dict[str, Grants], name: str) -> None:
    written_out = [
        each for grant in grants for each in ((grant,) if grant.group is None else groups.get(grant.group, ()))
    ]

    def of(group: str) -> Grants:
        return groups.get(group, ())

    assert access_to(name, grants, of) is access_to(name, written_out)
    deciding = deciding_grant(name, grants, of)
    assert (None if deciding is None else deciding.access) is access_to(name, written_out)
    assert sorted(patterns_of(grants, of)) == sorted(grant.documents for grant in written_out)
    assert access_to(name, grants) is access_to(name, [grant for grant in grants if grant.group is None])
