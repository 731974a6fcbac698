"""State, index, counters and events change together or not at all, and nothing comes back that is gone."""
# ruff: noqa: S101, D102  # these are tests, and their names are sentences

from datetime import timedelta

import pytest
from msgspec.structs import replace

from roomkey.domain.access import MAX_GRANTS, Access, Grant
from roomkey.domain.lifecycle import apply
from roomkey.domain.session import (
    MAX_USER_ID_BYTES,
    Activated,
    Deleted,
    Extended,
    Invalidated,
    SessionFilter,
    SessionId,
    SessionState,
    Suspended,
    TokenRotated,
)
from roomkey.domain.token_uses import Place, TokenUse
from roomkey.errors import Conflict, InvalidInput, NotFound
from roomkey.ports import Secret
from roomkey.testing.requirements import needs
from roomkey.testing.storage.suite import (
    MINUTE,
    NOON,
    ROOMY,
    SECOND,
    StorageSuite,
    change,
    disagreements,
    everything,
    fact,
    found,
    history,
    issue,
    rich,
    store,
    whole_log,
)

USERS = (
    "a",
    "Alice",
    "alice",
    "ALICE",
    "alice ",
    "alice@example.org",
    "\N{PILE OF POO}\N{ZERO WIDTH JOINER}\N{GRINNING FACE}",
    "\N{LATIN SMALL LETTER E WITH ACUTE}",
    "e\N{COMBINING ACUTE ACCENT}",
    "\N{HEBREW LETTER ALEF}\N{HEBREW LETTER BET}",
    "x" * MAX_USER_ID_BYTES,
    "\N{GRINNING FACE}" * (MAX_USER_ID_BYTES // 4),
)
"""Different users all of them: ids are compared as they are."""

PLACE = Place("Firefox Linux", "192.0.2.7")


class CommitConformance(StorageSuite):
    """Create, update, delete, touch."""

    async def test_a_created_session_is_read_as_it_was_given(self) -> None:
        new = rich()

        async with self.open() as storage:
            evicted = await storage.create([new], ROOMY, NOON)

            assert evicted == []
            assert await storage.get(new.session.id) == new.session
            assert await storage.get_with_secret(new.session.id) == (new.session, new.secret)
            assert await history(storage, new.session.id) == [new.event]
            assert await disagreements(storage) == []

    async def test_sessions_of_any_user_are_kept_apart(self) -> None:
        async with self.open() as storage:
            users = [user for user in USERS if len(user.encode()) <= self.longest_user_id]
            mine = {user: (await store(storage, user)).id for user in users}

            for user in users:
                assert [session.id for session in await everything(storage, SessionFilter(user_id=user))] == [
                    mine[user]
                ]
                assert (await found(storage, mine[user])).user_id == user

    async def test_long_and_short_durations_are_kept_to_the_microsecond(self) -> None:
        policies = [
            replace(ROOMY, lifetime=timedelta(days=14), idle_timeout=timedelta(days=14, microseconds=1)),
            replace(ROOMY, lifetime=timedelta(days=3653), idle_timeout=timedelta(days=3653)),
            replace(ROOMY, lifetime=timedelta(microseconds=1), activation_timeout=timedelta(microseconds=1)),
            replace(ROOMY, idle_timeout=None),
        ]
        at = NOON + timedelta(microseconds=123_457)

        async with self.open() as storage:
            for policy in policies:
                new = issue(at=at, policy=policy)
                await storage.create([new], policy, at)

                assert await storage.get(new.session.id) == new.session

            assert await disagreements(storage) == []

    async def test_many_grants_and_large_metadata_are_kept(self) -> None:
        grants = tuple(Grant(f"{'d' * 1000}/{number}", Access.WRITE) for number in range(MAX_GRANTS))
        new = issue(grants=grants, metadata={f"key {number}": "\N{ROCKET}" * 200 for number in range(100)})

        async with self.open() as storage:
            await storage.create([new], ROOMY, NOON)

            assert await storage.get(new.session.id) == new.session
            assert await history(storage, new.session.id) == [new.event]

    @pytest.mark.parametrize("value", [2**64, -(2**70), 10**300, 1e300, 0.1, -0.0])
    async def test_a_number_is_kept_exactly_or_refused(self, value: float) -> None:
        new = issue(metadata={"number": value})

        async with self.open() as storage:
            try:
                await storage.create([new], ROOMY, NOON)
            except InvalidInput:
                assert await storage.get(new.session.id) is None
            else:
                assert await storage.get(new.session.id) == new.session
            assert await disagreements(storage) == []

    async def test_an_id_that_exists_is_not_created_again(self) -> None:
        async with self.open() as storage:
            session = await store(storage, active=True)
            again = issue()
            event = replace(again.event, session=session.id)
            twin = replace(again, event=event, session=replace(again.session, id=session.id))

            with pytest.raises(Conflict):
                await storage.create([twin], ROOMY, NOON)

            assert await storage.get(session.id) == session
            assert len(await history(storage, session.id)) == 2
            assert await disagreements(storage) == []

    async def test_a_batch_of_one_user_is_stored_together_or_not_at_all(self) -> None:
        async with self.open() as storage:
            session = await store(storage)
            batch = [issue() for _ in range(3)]
            twin = replace(batch[1], session=replace(batch[1].session, id=session.id))

            with pytest.raises(Conflict):
                await storage.create([batch[0], twin, batch[2]], ROOMY, NOON)
            await storage.create(batch, ROOMY, NOON)

            assert await storage.count(SessionFilter(user_id="alice")) == 4
            assert await disagreements(storage) == []

    async def test_a_batch_may_have_many_users(self) -> None:
        batch = [issue(f"user-{number % 10}", NOON + number * SECOND) for number in range(50)]

        async with self.open() as storage:
            await storage.create(batch, ROOMY, NOON)

            assert await storage.get_many([new.session.id for new in batch]) == [new.session for new in batch]
            assert await disagreements(storage) == []

    async def test_a_step_is_committed_with_its_event(self) -> None:
        async with self.open() as storage:
            session = await store(storage)

            after = await change(storage, session, Activated, NOON + SECOND, actor="user:alice", reason="login")

            assert await storage.get(session.id) == after
            assert (await history(storage, session.id))[1] == fact(
                session, Activated, NOON + SECOND, actor="user:alice", reason="login"
            )
            assert await disagreements(storage) == []

    async def test_a_lost_race_changes_nothing(self) -> None:
        async with self.open() as storage:
            session = await store(storage, active=True)
            winner = await change(storage, session, Suspended, NOON)

            with pytest.raises(Conflict):
                await change(storage, session, Invalidated, NOON)

            assert await storage.get(session.id) == winner
            assert await disagreements(storage) == []

    async def test_a_version_ahead_of_time_is_a_lost_race_too(self) -> None:
        async with self.open() as storage:
            session = await store(storage)

            with pytest.raises(Conflict):
                await change(storage, replace(session, version=2), Activated, NOON)

            assert await storage.get(session.id) == session

    async def test_a_write_to_what_is_gone_does_not_bring_it_back(self) -> None:
        async with self.open() as storage:
            session = await store(storage, active=True)
            await storage.delete(fact(session, Deleted, NOON))

            with pytest.raises(NotFound):
                await change(storage, session, Suspended, NOON)
            await storage.touch(session.id, NOON + MINUTE)

            assert await storage.get(session.id) is None
            assert await everything(storage, SessionFilter(user_id="alice")) == []
            assert len(await history(storage, session.id)) == 3
            assert await disagreements(storage) == []

    async def test_what_never_was_cannot_be_changed(self) -> None:
        session = issue().session

        async with self.open() as storage:
            with pytest.raises(NotFound):
                await change(storage, session, Activated, NOON)

            assert await storage.get(session.id) is None
            assert await whole_log(storage) == []

    async def test_the_secret_is_replaced_only_if_another_is_given(self) -> None:
        new = issue()
        rotated = Secret(current=b"n" * 32, generation=3, previous=new.secret.current, rotated_at=NOON + SECOND)

        async with self.open() as storage:
            await storage.create([new], ROOMY, NOON)
            active = await change(storage, new.session, Activated, NOON)
            kept = await storage.get_with_secret(active.id)
            event = fact(active, TokenRotated, NOON + SECOND)
            await storage.update(apply(active, event), event, secret=rotated)

            assert kept == (active, new.secret)
            assert await storage.get_with_secret(active.id) == (apply(active, event), rotated)

    async def test_many_changes_report_one_by_one(self) -> None:
        async with self.open() as storage:
            good = [await store(storage, f"user-{number}", active=True) for number in range(3)]
            stale = await store(storage, active=True)
            await change(storage, stale, Suspended, NOON)
            missing = issue().session
            events = [fact(session, Invalidated, NOON) for session in (good[0], stale, good[1], missing, good[2])]
            changes = [
                (replace(session, state=SessionState.INVALIDATED, version=session.version + 1), event)
                for session, event in zip((good[0], stale, good[1], missing, good[2]), events, strict=True)
            ]

            outcomes = await storage.update_many(changes)

            assert outcomes == [True, False, True, False, True]
            assert (await found(storage, stale.id)).state is SessionState.SUSPENDED
            assert await storage.count(SessionFilter(state=SessionState.INVALIDATED)) == 3
            assert await disagreements(storage) == []

    async def test_the_same_session_changes_once_in_a_batch(self) -> None:
        async with self.open() as storage:
            session = await store(storage)
            event = fact(session, Activated, NOON)

            outcomes = await storage.update_many([(apply(session, event), event)] * 2)

            assert outcomes == [True, False]
            assert await disagreements(storage) == []

    async def test_deleting_leaves_the_history(self) -> None:
        async with self.open() as storage:
            session = await store(storage)
            event = fact(session, Deleted, NOON + SECOND, actor="key:backend")

            deleted = await storage.delete(event)

            assert deleted
            assert await storage.get(session.id) is None
            assert (await history(storage, session.id))[-1] == event
            assert await storage.count(SessionFilter()) == 0
            assert await disagreements(storage) == []

    async def test_deleting_what_is_not_there_is_no_event(self) -> None:
        session = issue().session

        async with self.open() as storage:
            deleted = await storage.delete(fact(session, Deleted, NOON))

            assert not deleted
            assert await whole_log(storage) == []

    async def test_deleting_can_lose_a_race(self) -> None:
        async with self.open() as storage:
            session = await store(storage)
            after = await change(storage, session, Activated, NOON)

            with pytest.raises(Conflict):
                await storage.delete(fact(session, Deleted, NOON))

            assert await storage.get(session.id) == after
            assert await disagreements(storage) == []

    async def test_a_touch_only_moves_forward(self) -> None:
        async with self.open() as storage:
            session = await store(storage, active=True)

            await storage.touch(session.id, NOON + MINUTE)
            await storage.touch(session.id, NOON + SECOND)

            assert await storage.get(session.id) == replace(session, last_seen_at=NOON + MINUTE)
            assert len(await history(storage, session.id)) == 2

    async def test_a_touch_is_not_undone_by_a_change_that_did_not_see_it(self) -> None:
        async with self.open() as storage:
            session = await store(storage, active=True)
            await storage.touch(session.id, NOON + MINUTE)

            await change(storage, session, Suspended, NOON + SECOND)

            now = await found(storage, session.id)
            assert now.last_seen_at == NOON + MINUTE
            assert now.state is SessionState.SUSPENDED

    @needs("durable")
    async def test_a_touch_that_is_on_disk_is_not_undone_either(self) -> None:
        async with self.open() as storage:
            session = await store(storage, active=True)
            await storage.touch(session.id, NOON + MINUTE)

        async with self.open() as storage:
            await change(storage, session, Suspended, NOON + SECOND)

            assert (await found(storage, session.id)).last_seen_at == NOON + MINUTE

    @pytest.mark.parametrize("end", [Invalidated, Deleted])
    async def test_a_touch_revives_nobody(self, end: type[Invalidated] | type[Deleted]) -> None:
        async with self.open() as storage:
            session = await store(storage, active=True)
            if end is Deleted:
                await storage.delete(fact(session, Deleted, NOON))
            else:
                await change(storage, session, Invalidated, NOON)
            before = await storage.get(session.id)

            await storage.touch(session.id, NOON + MINUTE)

            assert await storage.get(session.id) == before
            assert await disagreements(storage) == []

    async def test_a_use_of_a_token_is_kept_with_its_secret_and_is_no_event(self) -> None:
        first, again = (TokenUse(PLACE, is_current=True, first_at=at, last_at=at) for at in (NOON, NOON + SECOND))
        async with self.open() as storage:
            session = await store(storage, active=True)

            await storage.note_use(session.id, first, generation=0, window=MINUTE)
            await storage.note_use(session.id, again, generation=0, window=MINUTE)

            kept = await storage.get_with_secret(session.id)
            assert kept is not None
            assert kept[0] == session
            assert kept[1].uses == (replace(first, last_at=NOON + SECOND),)
            assert len(await history(storage, session.id)) == 2

    async def test_a_use_is_not_forgotten_by_a_change_of_the_session(self) -> None:
        use = TokenUse(PLACE, is_current=False, first_at=NOON, last_at=NOON)
        async with self.open() as storage:
            session = await store(storage, active=True)
            await storage.note_use(session.id, use, generation=0, window=MINUTE)

            await change(storage, session, Suspended, NOON + SECOND)

            kept = await storage.get_with_secret(session.id)
            assert kept is not None
            assert kept[1].uses == (use,)

    async def test_a_use_of_another_generation_of_tokens_is_not_kept(self) -> None:
        use = TokenUse(PLACE, is_current=True, first_at=NOON, last_at=NOON)
        async with self.open() as storage:
            session = await store(storage, active=True)

            await storage.note_use(session.id, use, generation=1, window=MINUTE)

            kept = await storage.get_with_secret(session.id)
            assert kept is not None
            assert kept[1].uses == ()

    @pytest.mark.parametrize("end", [Invalidated, Deleted])
    async def test_a_use_revives_nobody(self, end: type[Invalidated] | type[Deleted]) -> None:
        use = TokenUse(PLACE, is_current=True, first_at=NOON, last_at=NOON)
        async with self.open() as storage:
            session = await store(storage, active=True)
            if end is Deleted:
                await storage.delete(fact(session, Deleted, NOON))
            else:
                await change(storage, session, Invalidated, NOON)
            before = await storage.get_with_secret(session.id)

            await storage.note_use(session.id, use, generation=0, window=MINUTE)

            assert await storage.get_with_secret(session.id) == before
            assert await disagreements(storage) == []

    async def test_a_touch_of_nobody_is_nothing(self) -> None:
        async with self.open() as storage:
            await storage.touch(issue().session.id, NOON)

            assert await everything(storage) == []

    @pytest.mark.parametrize(
        "id", ["", "x", "zz", "\N{ROCKET}", "\ud800", "\0", "3a" + "a" * 25, "3a" + "A" * 26, "a" * 10_000]
    )
    async def test_an_id_that_is_none_of_ours_is_nobody(self, id: str) -> None:
        async with self.open() as storage:
            await store(storage)

            assert await storage.get(SessionId(id)) is None
            assert await storage.get_with_secret(SessionId(id)) is None
            assert await storage.get_many([SessionId(id)]) == [None]
            await storage.touch(SessionId(id), NOON)

    async def test_many_are_read_in_the_order_asked_for(self) -> None:
        async with self.open() as storage:
            first, second = await store(storage, "alice"), await store(storage, "bob")
            missing = issue().session.id

            sessions = await storage.get_many([second.id, missing, first.id, second.id])

            assert sessions == [second, None, first, second]

    async def test_a_storage_that_is_open_answers(self) -> None:
        async with self.open() as storage:
            await storage.ping()

            assert await storage.statistics(NOON) == await storage.statistics(NOON)

    async def test_statistics_count_what_was_and_what_is(self) -> None:
        async with self.open() as storage:
            await store(storage, "early", NOON - timedelta(days=1))
            await store(storage, "alice")
            ended = await store(storage, "bob", active=True)
            await change(storage, ended, Invalidated, NOON + MINUTE)
            gone = await store(storage, "carol", active=True)
            await storage.delete(fact(gone, Deleted, NOON))

            today = await storage.statistics(NOON + MINUTE)
            tomorrow = await storage.statistics(NOON + timedelta(days=1))

            assert {state: number for state, number in today.states.items() if number} == {
                SessionState.PENDING: 2,
                SessionState.INVALIDATED: 1,
            }
            assert today.created_today == 3
            assert tomorrow.created_today == 0
            assert today.ended == 1
            assert today.ended_duration == MINUTE

    async def test_a_session_ends_once_in_the_statistics(self) -> None:
        async with self.open() as storage:
            session = await store(storage, active=True)
            extended = await change(storage, session, Extended, NOON, expires_at=NOON + timedelta(days=2))
            over = await change(storage, extended, Invalidated, NOON + MINUTE)
            await storage.delete(fact(over, Deleted, NOON + 2 * MINUTE))

            statistics = await storage.statistics(NOON)

            assert (statistics.ended, statistics.ended_duration) == (1, MINUTE)

    @needs("durable")
    async def test_what_was_committed_is_there_after_opening_again(self) -> None:
        async with self.open() as storage:
            session = await store(storage, active=True)
            await storage.touch(session.id, NOON + MINUTE)
            revocation = await storage.revoke_user("bob", NOON, actor="system", reason=None, except_session=None)
            before = await storage.get_with_secret(session.id), await whole_log(storage), await storage.heads()
            statistics = await storage.statistics(NOON)

        async with self.open() as storage:
            assert (
                await storage.get_with_secret(session.id),
                await whole_log(storage),
                await storage.heads(),
            ) == before
            assert await storage.statistics(NOON) == statistics
            again = await storage.revoke_user("bob", NOON, actor="system", reason=None, except_session=None)
            assert again.epoch == revocation.epoch + 1
            assert await disagreements(storage) == []
