"""The commands on sessions, one promise at a time."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from roomkey import errors
from roomkey.backends.lmdb import FileSystemSessionStorage
from roomkey.backends.memory import MemorySessionStorage
from roomkey.domain.access import Access, Grant
from roomkey.domain.lifecycle import OnIdle
from roomkey.domain.policy import OnCap, OnReuse, SessionPolicy
from roomkey.domain.session import (
    AnyEvent,
    Client,
    Session,
    SessionEvent,
    SessionFilter,
    SessionId,
    SessionState,
    UserRevoked,
)
from roomkey.ports import Page, Secret
from roomkey.security import tokens
from roomkey.sessions.issuing import SessionRequest
from roomkey.sessions.manager import SessionManager
from roomkey.testing.clock import ManualClock
from tests.support.sessions import NOON, Desk

HOUR = timedelta(hours=1)
NOBODY = tokens.mint_id(0)


def tags(events: Sequence[AnyEvent]) -> list[str]:
    return [event.tag() for event in events]


# --- issue --------------------------------------------------------------------------------------------


async def test_a_new_session_is_pending_for_its_user_and_lives_a_day() -> None:
    desk = Desk()

    issued = await desk.sessions.create_session("alice")

    assert (issued.user_id, issued.state, issued.version) == ("alice", "pending", 1)
    assert issued.expires_at == NOON + timedelta(hours=24)
    assert await desk.sessions.get_session(issued.id) == issued.session


async def test_a_session_keeps_what_its_creator_said_about_it() -> None:
    desk = Desk()
    metadata = {"tab": {"n": 1}}

    issued = await desk.sessions.create_session(
        "alice",
        client=Client(ip="192.0.2.1", device="laptop"),
        grants=[Grant("team/*", Access.WRITE)],
        lifetime=HOUR,
        metadata=metadata,
    )
    metadata["tab"]["n"] = 2
    stored = await desk.sessions.get_session(issued.id)

    assert stored is not None
    assert (stored.expires_at, stored.grants) == (NOON + HOUR, (Grant("team/*", Access.WRITE),))
    assert stored.client == Client(ip="192.0.2.1", device="laptop")
    assert stored.metadata == {"tab": {"n": 1}}


@pytest.mark.parametrize("lifetime", [timedelta(), timedelta(seconds=-1), timedelta(hours=24, microseconds=1)])
async def test_a_lifetime_beyond_the_policy_is_refused(lifetime: timedelta) -> None:
    desk = Desk()

    with pytest.raises(errors.InvalidInput):
        await desk.sessions.create_session("alice", lifetime=lifetime)

    assert await desk.sessions.count_sessions() == 0


@pytest.mark.parametrize("metadata", [{"x": "y" * 4096}, {"x": object()}, {1: {2: b"\xff" * 5000}}, {"n": 2**64}])
async def test_metadata_must_be_small_plain_json(metadata: dict[str, object]) -> None:
    desk = Desk()

    with pytest.raises(errors.InvalidInput):
        await desk.sessions.create_session("alice", metadata=metadata)


async def test_fourteen_days_are_fourteen_days() -> None:
    desk = Desk(policy=SessionPolicy(lifetime=timedelta(days=30), idle_timeout=None))

    issued = await desk.sessions.create_session("alice", lifetime=timedelta(days=14))
    await desk.sessions.activate_session(issued.id)
    desk.clock.advance(timedelta(days=14) - timedelta(seconds=1))

    assert await desk.sessions.validate_session(issued.id)
    desk.clock.advance(timedelta(seconds=1))
    assert not await desk.sessions.validate_session(issued.id)


async def test_the_oldest_session_makes_room_for_one_too_many() -> None:
    desk = Desk(policy=SessionPolicy(cap=2))
    first = await desk.active()
    desk.clock.advance(timedelta(seconds=1))
    second = await desk.active()

    await desk.sessions.create_session("alice")

    assert not await desk.sessions.validate_session(first.id)
    assert await desk.sessions.validate_session(second.id)
    assert tags(desk.announced)[-2:] == ["created", "evicted"]


async def test_one_session_too_many_is_refused_when_the_policy_says_so() -> None:
    desk = Desk(policy=SessionPolicy(cap=1, on_cap=OnCap.REFUSE))
    first = await desk.active()

    with pytest.raises(errors.CapReached):
        await desk.sessions.create_session("alice")

    assert await desk.sessions.validate_session(first.id)
    assert await desk.sessions.count_sessions() == 1


async def test_a_session_that_is_over_makes_room_without_a_victim() -> None:
    desk = Desk(policy=SessionPolicy(cap=1, on_cap=OnCap.REFUSE))
    await desk.active()
    desk.clock.advance(HOUR)

    await desk.sessions.create_session("alice")

    assert "evicted" not in tags(desk.announced)


async def test_a_batch_is_issued_in_order_and_the_sessions_of_a_user_come_together() -> None:
    desk = Desk(policy=SessionPolicy(cap=2, on_cap=OnCap.REFUSE))

    issued = await desk.sessions.create_sessions([SessionRequest(user_id=name) for name in ("a", "b", "a")])
    with pytest.raises(errors.CapReached):
        await desk.sessions.create_sessions([SessionRequest(user_id="b"), SessionRequest(user_id="b")])

    assert [each.user_id for each in issued] == ["a", "b", "a"]
    assert await desk.sessions.count_sessions(SessionFilter(user_id="b")) == 1
    assert len({each.token for each in issued}) == 3
    assert await desk.sessions.create_sessions([]) == []


# --- check --------------------------------------------------------------------------------------------


async def test_a_token_opens_its_session_and_only_that() -> None:
    desk = Desk()
    alice = await desk.sessions.create_session("alice")
    mallory = await desk.sessions.create_session("mallory")

    session = await desk.sessions.authenticate(alice.token)

    assert session.id == alice.id
    with pytest.raises(errors.InvalidToken):
        await desk.sessions.authenticate(alice.id + mallory.token[28:])


@pytest.mark.parametrize("token", ["", "nonsense", tokens.mint(NOBODY)], ids=["empty", "nonsense", "of somebody else"])
async def test_a_token_that_we_did_not_issue_is_never_adopted(token: str) -> None:
    desk = Desk()

    with pytest.raises(errors.InvalidToken):
        await desk.sessions.authenticate(token)

    assert await desk.sessions.count_sessions() == 0
    assert desk.announced == []


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        ("invalidate_session", errors.Invalidated),
        ("expire_session", errors.Expired),
        ("suspend_session", errors.Suspended),
        ("delete_session", errors.InvalidToken),
    ],
)
async def test_the_token_of_a_session_that_is_not_usable_says_why(command: str, refusal: type[Exception]) -> None:
    desk = Desk()
    issued = await desk.sessions.create_session("alice")
    await desk.sessions.activate_session(issued.id)

    await getattr(desk.sessions, command)(issued.id)

    with pytest.raises(refusal):
        await desk.sessions.authenticate(issued.token)
    assert not await desk.sessions.validate_session(issued.id)


async def test_an_overdue_session_is_expired_by_whoever_reads_it_and_once_only() -> None:
    desk = Desk()
    session = await desk.active()
    desk.clock.advance(HOUR)

    read = await desk.sessions.get_session(session.id)
    await desk.sessions.get_sessions([session.id])

    assert read is not None
    assert read.state is SessionState.EXPIRED
    assert tags(await desk.history(session)) == ["created", "activated", "expired"]


async def test_use_keeps_a_session_alive_until_its_absolute_deadline() -> None:
    desk = Desk()
    issued = await desk.sessions.create_session("alice")
    await desk.sessions.activate_session(issued.id)

    for _ in range(47):
        desk.clock.advance(timedelta(minutes=30))
        await desk.sessions.authenticate(issued.token)
    desk.clock.advance(timedelta(minutes=30))

    with pytest.raises(errors.Expired):
        await desk.sessions.authenticate(issued.token)


async def test_a_token_that_a_program_presents_by_itself_is_no_activity() -> None:
    desk = Desk()
    issued = await desk.sessions.create_session("alice")
    await desk.sessions.activate_session(issued.id)
    desk.clock.advance(HOUR * 0.5)

    unattended = await desk.sessions.authenticate(issued.token, is_activity=False)
    before = await desk.sessions.get_session(issued.id)
    await desk.sessions.authenticate(issued.token)
    after = await desk.sessions.get_session(issued.id)

    assert before is not None
    assert after is not None
    assert unattended.last_seen_at == before.last_seen_at == NOON
    assert after.last_seen_at == NOON + HOUR * 0.5


async def test_activity_is_written_once_per_tenth_of_the_idle_limit() -> None:
    desk = Desk()
    session = await desk.active()

    desk.clock.advance(HOUR * 0.06)
    await desk.sessions.touch(session.id)
    early = await desk.sessions.get_session(session.id)
    desk.clock.advance(HOUR * 0.04)
    await desk.sessions.touch(session.id)
    late = await desk.sessions.get_session(session.id)

    assert early is not None
    assert late is not None
    assert (early.last_seen_at, late.last_seen_at) == (NOON, NOON + HOUR * 0.1)
    assert late.version == session.version


async def test_touching_what_is_not_there_does_nothing() -> None:
    desk = Desk()

    await desk.sessions.touch(NOBODY)

    assert await desk.sessions.get_session(NOBODY) is None


async def test_idleness_suspends_when_the_policy_says_so() -> None:
    desk = Desk(policy=SessionPolicy(on_idle=OnIdle.SUSPEND))
    session = await desk.active()
    desk.clock.advance(HOUR)

    idle = await desk.sessions.get_session(session.id)
    resumed = await desk.sessions.resume_session(session.id)

    assert idle is not None
    assert idle.state is SessionState.SUSPENDED
    assert resumed.state is SessionState.ACTIVE
    assert await desk.sessions.validate_session(session.id)


async def test_an_address_that_is_wrong_too_often_is_not_even_looked_at() -> None:
    desk = Desk()
    client = Client(ip="192.0.2.7")
    issued = await desk.sessions.create_session("alice", activate=True)
    newcomer = await desk.sessions.create_session("bob", activate=True)
    await desk.sessions.authenticate(issued.token, client=client)

    for _ in range(1_001):
        with pytest.raises(errors.InvalidToken):
            await desk.sessions.authenticate("no token", client=client)

    for token in ("no token", newcomer.token):
        with pytest.raises(errors.RateLimited):
            await desk.sessions.authenticate(token, client=client)
    assert (await desk.sessions.authenticate(issued.token, client=client)).user_id == "alice"
    assert (await desk.sessions.authenticate(newcomer.token, client=Client(ip="192.0.2.8"))).user_id == "bob"


# --- change -------------------------------------------------------------------------------------------

COMMANDS = ["activate_session", "suspend_session", "resume_session", "expire_session", "invalidate_session"]


@pytest.mark.parametrize("command", [*COMMANDS, "extend_session", "rotate_token"])
async def test_a_command_on_a_missing_session_says_so_and_creates_nothing(command: str) -> None:
    desk = Desk()

    with pytest.raises(errors.NotFound):
        await getattr(desk.sessions, command)(NOBODY)

    assert await desk.sessions.count_sessions() == 0


async def test_reads_and_deletes_of_a_missing_session_are_no_errors() -> None:
    desk = Desk()

    assert await desk.sessions.get_session(SessionId("?")) is None
    assert await desk.sessions.get_sessions([NOBODY]) == [None]
    assert not await desk.sessions.validate_session(NOBODY)
    assert not await desk.sessions.delete_session(NOBODY)
    assert await desk.sessions.invalidate_sessions([NOBODY]) == [False]


@pytest.mark.parametrize("command", ["activate_session", "invalidate_session"])
async def test_asking_twice_is_no_error_and_no_event(command: str) -> None:
    desk = Desk()
    issued = await desk.sessions.create_session("alice")

    first = await getattr(desk.sessions, command)(issued.id)
    second = await getattr(desk.sessions, command)(issued.id)

    assert first == second
    assert len(desk.announced) == 2


async def test_an_illegal_transition_changes_nothing() -> None:
    desk = Desk()
    session = await desk.active()
    await desk.sessions.invalidate_session(session.id)

    with pytest.raises(errors.InvalidState):
        await desk.sessions.activate_session(session.id)

    assert tags(await desk.history(session)) == ["created", "activated", "invalidated"]


async def test_a_command_says_who_and_why_in_the_log() -> None:
    desk = Desk()
    session = await desk.active()

    await desk.sessions.suspend_session(session.id, actor="key:backend", reason="payment")

    last = (await desk.history(session))[-1]
    assert (last.actor, last.reason, last.at) == ("key:backend", "payment", NOON)


async def test_a_command_for_a_version_that_has_passed_is_refused() -> None:
    desk = Desk()
    session = await desk.active()

    with pytest.raises(errors.VersionMismatch):
        await desk.sessions.suspend_session(session.id, if_version=1)
    with pytest.raises(errors.VersionMismatch):
        await desk.sessions.delete_session(session.id, if_version=1)
    suspended = await desk.sessions.suspend_session(session.id, if_version=2)

    assert suspended.state is SessionState.SUSPENDED


async def test_extending_moves_the_deadline_later_and_never_closer() -> None:
    desk = Desk()
    session = await desk.active()
    desk.clock.advance(timedelta(minutes=30))

    later = await desk.sessions.extend_session(session.id)
    same = await desk.sessions.extend_session(session.id, HOUR)

    assert later.expires_at == NOON + timedelta(hours=24, minutes=30)
    assert same == later


async def test_changed_grants_take_the_place_of_the_former_ones() -> None:
    desk = Desk()
    issued = await desk.sessions.create_session("alice", grants=[Grant("**", Access.ADMIN)])

    changed = await desk.sessions.change_grants(issued.id, [Grant("notes/*", Access.READ)], actor="key:backend")
    last = (await desk.history(changed))[-1]

    assert changed == replace(issued.session, grants=(Grant("notes/*", Access.READ),), version=2)
    assert await desk.sessions.get_session(issued.id) == changed
    assert (last.tag(), last.actor, desk.announced[-1]) == ("grants_changed", "key:backend", last)


async def test_the_same_grants_are_no_event_and_their_order_counts() -> None:
    desk = Desk()
    grants = [Grant("a", Access.READ), Grant("*", Access.WRITE)]
    issued = await desk.sessions.create_session("alice", grants=grants)

    same = await desk.sessions.change_grants(issued.id, grants)
    other = await desk.sessions.change_grants(issued.id, grants[::-1])

    assert same == issued.session
    assert (other.version, other.grants) == (2, tuple(grants[::-1]))
    assert tags(desk.announced) == ["created", "grants_changed"]


@pytest.mark.parametrize("grants", [(), (Grant("a", Access.READ),)], ids=["the same", "others"])
@pytest.mark.parametrize("command", ["expire_session", "invalidate_session"])
async def test_an_ended_session_gets_no_other_grants(command: str, grants: tuple[Grant, ...]) -> None:
    desk = Desk()
    session = await desk.active()
    await getattr(desk.sessions, command)(session.id)

    with pytest.raises(errors.InvalidState, match="grants_changed"):
        await desk.sessions.change_grants(session.id, grants)

    assert tags(await desk.history(session))[-1] != "grants_changed"


@pytest.mark.parametrize(
    "grants",
    [[Grant("a", Access.READ)] * 257, [Grant("", Access.READ)], [Grant("a\n", Access.READ)]],
    ids=["too many", "empty", "control"],
)
async def test_grants_beyond_their_limits_change_nothing(grants: list[Grant]) -> None:
    desk = Desk()
    session = await desk.active()

    with pytest.raises(errors.InvalidInput):
        await desk.sessions.change_grants(session.id, grants)

    assert await desk.sessions.get_session(session.id) == session


async def test_grants_are_changed_at_the_version_that_is_expected_only() -> None:
    desk = Desk()
    session = await desk.active()

    with pytest.raises(errors.VersionMismatch):
        await desk.sessions.change_grants(session.id, [Grant("a", Access.READ)], if_version=1)
    changed = await desk.sessions.change_grants(session.id, [Grant("a", Access.READ)], if_version=2)

    assert changed.version == 3


async def test_grants_of_a_missing_session_cannot_be_changed() -> None:
    desk = Desk()

    with pytest.raises(errors.NotFound):
        await desk.sessions.change_grants(NOBODY, [])

    assert await desk.sessions.count_sessions() == 0


async def test_an_ended_session_cannot_be_extended() -> None:
    desk = Desk()
    session = await desk.active()
    await desk.sessions.expire_session(session.id)

    with pytest.raises(errors.InvalidState):
        await desk.sessions.extend_session(session.id, timedelta(minutes=1))


async def test_a_violation_is_counted_with_its_cause() -> None:
    desk = Desk()
    session = await desk.active()

    after = await desk.sessions.record_violation(session.id, "flood")

    assert after.violations == 1
    assert (await desk.history(session))[-1].reason == "flood"


async def test_many_sessions_are_invalidated_at_once() -> None:
    desk = Desk()
    sessions = [await desk.active(name) for name in ("a", "b", "c")]
    ids = [session.id for session in sessions]
    await desk.sessions.expire_session(ids[1])
    await desk.sessions.invalidate_session(ids[2])

    done = await desk.sessions.invalidate_sessions([*ids, NOBODY, ids[0]])

    states = {session.state for session in await desk.sessions.get_sessions(ids) if session}
    assert done == [True, True, True, False, True]
    assert states == {SessionState.INVALIDATED}
    assert tags(await desk.history(sessions[0])) == ["created", "activated", "invalidated"]


async def test_a_deleted_session_is_gone_and_its_history_stays() -> None:
    desk = Desk()
    session = await desk.active()

    assert await desk.sessions.delete_session(session.id, actor="user:alice")

    assert await desk.sessions.get_session(session.id) is None
    assert tags(await desk.history(session)) == ["created", "activated", "deleted"]


async def test_revoking_a_user_ends_all_but_the_session_that_is_kept() -> None:
    desk = Desk()
    mine, other, strangers = await desk.active(), await desk.active(), await desk.active("bob")

    done = await desk.sessions.revoke_user("alice", except_session=mine.id, reason="password")

    assert (done.epoch, done.revoked) == (1, 1)
    assert await desk.sessions.validate_session(mine.id)
    assert await desk.sessions.validate_session(strangers.id)
    assert not await desk.sessions.validate_session(other.id)
    assert [type(event) for event in desk.announced].count(UserRevoked) == 1


async def test_a_session_of_someone_else_cannot_be_kept() -> None:
    desk = Desk()
    mine, strangers = await desk.active(), await desk.active("bob")

    await desk.sessions.revoke_user("alice", except_session=strangers.id)
    await desk.sessions.revoke_user("bob")

    assert not await desk.sessions.validate_session(mine.id)
    assert not await desk.sessions.validate_session(strangers.id)


async def test_who_signs_in_after_a_revocation_is_in() -> None:
    desk = Desk()
    await desk.active()
    await desk.sessions.revoke_user("alice")

    later = await desk.active()

    assert await desk.sessions.validate_session(later.id)


# --- rotate -------------------------------------------------------------------------------------------


async def test_a_rotated_token_replaces_the_one_before() -> None:
    desk = Desk()
    first = await desk.sessions.create_session("alice")

    second = await desk.sessions.rotate_token(first.id, first.token)

    assert second.token != first.token
    assert (await desk.sessions.authenticate(second.token)).id == first.id
    assert second.version == 2


async def test_everyone_who_rotates_within_the_grace_gets_the_same_successor() -> None:
    desk = Desk()
    first = await desk.sessions.create_session("alice")
    winner = await desk.sessions.rotate_token(first.id, first.token)
    desk.clock.advance(timedelta(seconds=29))

    racer = await desk.sessions.rotate_token(first.id, first.token)
    still_in = await desk.sessions.authenticate(first.token)

    assert racer.token == winner.token
    assert still_in.id == first.id
    assert tags(await desk.history(first.session)) == ["created", "token_rotated"]


async def test_a_made_up_secret_cannot_end_a_session() -> None:
    desk = Desk()
    first = await desk.sessions.create_session("alice")
    await desk.sessions.rotate_token(first.id, first.token)

    with pytest.raises(errors.InvalidToken):
        await desk.sessions.authenticate(tokens.mint(first.id))

    session = await desk.sessions.get_session(first.id)
    assert session is not None
    assert session.state is SessionState.PENDING


async def test_an_operator_rotates_to_a_random_token() -> None:
    desk = Desk()
    first = await desk.sessions.create_session("alice")

    second = await desk.sessions.rotate_token(first.id)

    assert (await desk.sessions.authenticate(second.token)).id == first.id
    with pytest.raises(errors.InvalidToken):
        await desk.sessions.rotate_token(first.id, first.token)


async def test_a_token_rotates_only_its_own_session() -> None:
    desk = Desk()
    mine, other = await desk.sessions.create_session("alice"), await desk.sessions.create_session("bob")

    with pytest.raises(errors.InvalidToken):
        await desk.sessions.rotate_token(other.id, mine.token)


async def test_an_ended_session_does_not_rotate() -> None:
    desk = Desk()
    first = await desk.sessions.create_session("alice")
    second = await desk.sessions.rotate_token(first.id, first.token)
    await desk.sessions.invalidate_session(first.id)

    for presented in (first.token, second.token, None):
        with pytest.raises(errors.InvalidState):
            await desk.sessions.rotate_token(first.id, presented)


# --- races --------------------------------------------------------------------------------------------


class ContestedStorage(MemorySessionStorage):
    """Someone else is faster: before each of the first updates, a rival changes the session."""

    def __init__(self) -> None:
        super().__init__()
        self.rival = SessionManager(self, clock=ManualClock(NOON))
        self.plans: list[str] = []

    async def update(self, session: Session, event: SessionEvent, *, secret: Secret | None = None) -> None:
        plans, self.plans = self.plans, []  # nobody is faster than the rival
        if plans:
            await getattr(self.rival, plans.pop())(session.id)
        self.plans = plans
        await super().update(session, event, secret=secret)


async def test_the_loser_of_a_race_decides_again_on_fresh_state() -> None:
    storage = ContestedStorage()
    desk = Desk(storage)
    session = await desk.active()
    storage.plans = ["invalidate_session"]

    with pytest.raises(errors.InvalidState):
        await desk.sessions.suspend_session(session.id)

    assert tags(await desk.history(session)) == ["created", "activated", "invalidated"]


async def test_a_session_that_vanishes_in_the_middle_of_a_command_is_not_recreated() -> None:
    storage = ContestedStorage()
    desk = Desk(storage)
    session = await desk.active()
    storage.plans = ["delete_session"]

    with pytest.raises(errors.NotFound):
        await desk.sessions.suspend_session(session.id)

    assert await desk.sessions.count_sessions() == 0


async def test_a_theft_that_is_noticed_in_the_middle_of_a_race_ends_the_session() -> None:
    storage = ContestedStorage()
    desk = Desk(storage, SessionPolicy(rotation_grace=timedelta(), on_reuse=OnReuse.REVOKE))
    stolen = await desk.sessions.create_session("alice")
    # The rotation loses against one, so its token is an old one when it tries again; the revocation loses, too.
    storage.plans = ["activate_session", "rotate_token"]

    with pytest.raises(errors.TokenReused):
        async with asyncio.timeout(30):
            await desk.sessions.rotate_token(stolen.id, stolen.token)

    assert tags(await desk.history(stolen.session)) == ["created", "token_rotated", "activated", "invalidated"]


# --- listen -------------------------------------------------------------------------------------------


async def test_a_listener_that_was_taken_off_hears_nothing_more_and_others_do() -> None:
    desk = Desk()
    heard: list[AnyEvent] = []
    unsubscribe = desk.sessions.on_events(heard.extend)
    issued = await desk.sessions.create_session("alice")

    unsubscribe()
    await desk.sessions.activate_session(issued.id)

    assert [event.tag() for event in heard] == ["created"]
    assert [event.tag() for event in desk.announced] == ["created", "activated"]


# --- ask ----------------------------------------------------------------------------------------------


async def test_figures_count_what_happened() -> None:
    desk = Desk()
    ended, _kept = await desk.active(), await desk.active("bob")
    desk.clock.advance(timedelta(minutes=30))
    await desk.sessions.expire_session(ended.id)

    figures = await desk.sessions.metrics()

    assert (figures.total_sessions, figures.active_sessions, figures.expired_sessions) == (2, 1, 1)
    assert figures.sessions_created_today == 2
    assert figures.average_session_duration == timedelta(minutes=30)
    assert figures.calculated_at == desk.clock.now()
    desk.clock.advance(timedelta(days=1))
    assert (await desk.sessions.metrics()).sessions_created_today == 0


class BrokenStorage(MemorySessionStorage):
    async def ping(self) -> None:
        raise errors.Storage("the disk is full")


async def test_health_says_what_is_wrong() -> None:
    well = SessionManager(MemorySessionStorage())
    crowded = SessionManager(MemorySessionStorage(), degraded_from=1)
    await crowded.create_session("alice")

    statuses = [await each.health_check() for each in (well, crowded, SessionManager(BrokenStorage()))]

    assert [each.status for each in statuses] == ["healthy", "degraded", "unhealthy"]
    assert statuses[0].checks == {"storage": "ok"}
    assert statuses[0].memory_usage > 1_000_000
    assert statuses[2].checks == {"storage": "the disk is full"}


@pytest.mark.parametrize("limit", [0, -1, 501])
async def test_a_page_has_a_sensible_size(limit: int) -> None:
    with pytest.raises(errors.InvalidInput):
        await Desk().sessions.list_sessions(page=Page(limit=limit))


async def test_listing_follows_the_filter() -> None:
    desk = Desk()
    await desk.active("bob")
    desk.clock.advance(timedelta(minutes=1))
    session = await desk.active()
    await desk.sessions.create_session("alice")

    found = await desk.sessions.list_sessions(
        SessionFilter(user_id="alice", state=SessionState.ACTIVE, created_after=NOON)
    )

    assert list(found) == [replace(session)]


async def test_all_sessions_are_there_once_however_many_pages_they_make() -> None:
    desk = Desk(policy=SessionPolicy(cap=200))
    ids = {(await desk.sessions.create_session("alice")).id for _ in range(120)}
    await desk.sessions.create_session("bob")

    found = [session.id async for session in desk.sessions.iterate_sessions(SessionFilter(user_id="alice"))]

    assert len(found) == 120
    assert set(found) == ids


async def test_sessions_work_on_a_machine_whose_clock_begins_in_1970(tmp_path: Path) -> None:
    clock = ManualClock(datetime(1970, 1, 1, tzinfo=UTC))
    async with FileSystemSessionStorage(tmp_path) as storage:
        sessions = SessionManager(storage, clock=clock, rotation_key=b"k" * 32)
        issued = await sessions.create_session("alice")
        await sessions.activate_session(issued.id)
        rotated = await sessions.rotate_token(issued.id, issued.token)
        valid = await sessions.authenticate(rotated.token)

        # Then the network is there, and with it the time: what is 56 years old has expired.
        clock.advance(days=56 * 365)
        with pytest.raises(errors.Expired):
            await sessions.authenticate(rotated.token)

    assert valid.state is SessionState.ACTIVE
