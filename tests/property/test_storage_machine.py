"""Any sequence of storage calls leads where a simple model leads, on every storage."""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from msgspec.structs import replace

from roomkey.backends.lmdb import FileSystemSessionStorage, FileSystemSettings
from roomkey.backends.memory import MemorySessionStorage
from roomkey.domain.lifecycle import NEXT_STATE, apply, deadline
from roomkey.domain.policy import OnCap, SessionPolicy, evictions
from roomkey.domain.session import (
    Deleted,
    Event,
    Invalidated,
    Session,
    SessionFilter,
    SessionId,
    SessionState,
)
from roomkey.errors import CapReached, Conflict, InvalidState, NotFound
from roomkey.ports import SessionStorage
from roomkey.testing.storage.suite import NOON, details, disagreements, everything, fact, issue, whole_log
from tests.support.effort import examples

USERS = ("a", "ab", "\N{GRINNING FACE}" * 64)
T = TypeVar("T")

kinds = st.sampled_from(sorted({kind for row in NEXT_STATE.values() for kind in row}, key=lambda kind: kind.tag()))
steps = st.sampled_from(
    [timedelta(), timedelta(microseconds=1), timedelta(minutes=7), timedelta(hours=1), timedelta(days=1)]
)


class StorageMachine(RuleBasedStateMachine):
    """The model is a dictionary. Every call is made to both, and both must say the same."""

    ids: Bundle[SessionId] = Bundle("ids")

    def open(self) -> SessionStorage:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.storage: SessionStorage
        self.now = NOON
        self.model: dict[SessionId, Session] = {}
        self.epochs: dict[str, int] = {}
        self.logged = 0

    def run(self, call: Awaitable[T]) -> T:
        async def limited() -> T:
            async with asyncio.timeout(10):
                return await call

        return self.runner.run(limited())

    @initialize()
    def enter(self) -> None:
        self.storage = self.open()
        self.run(self.storage.__aenter__())

    def teardown(self) -> None:
        if hasattr(self, "storage"):
            self.check_everything()
            self.run(self.storage.__aexit__(None, None, None))
        self.runner.close()

    # --- what can be done -----------------------------------------------------------------------------

    @rule(by=steps)
    def time_passes(self, by: timedelta) -> None:
        self.now += by

    @rule(
        target=ids,
        user=st.sampled_from(USERS),
        number=st.integers(1, 3),
        cap=st.integers(1, 4),
        on_cap=st.sampled_from(OnCap),
    )
    def create(self, user: str, number: int, cap: int, on_cap: OnCap) -> Any:
        policy = SessionPolicy(cap=cap, on_cap=on_cap)
        new = [issue(user, self.now, policy=policy) for _ in range(number)]
        try:
            leaving = evictions(self.live(user), number, policy, self.now)
        except CapReached:
            assert isinstance(self.outcome(self.storage.create(new, policy, self.now)), CapReached)
            return multiple()  # pyright: ignore[reportUnknownVariableType]
        evicted = self.run(self.storage.create(new, policy, self.now))
        assert evicted == leaving
        for event in evicted:
            self.model[event.session] = apply(self.model[event.session], event)
        self.model |= {each.session.id: each.session for each in new}
        self.logged += len(new) + len(evicted)
        return multiple(*(each.session.id for each in new))

    @rule(id=ids, kind=kinds, behind=st.integers(-1, 1).map(abs))
    def change(self, id: SessionId, kind: type[Event], behind: int) -> None:
        session = self.model.get(id)
        if session is None:
            ghost = replace(issue().session, id=id)
            event = fact(ghost, Invalidated, self.now)
            assert isinstance(self.outcome(self.storage.update(apply(ghost, event), event)), NotFound)
            return
        event = fact(session, kind, self.now, **details(kind, self.now))  # pyright: ignore[reportArgumentType, reportUnknownVariableType]
        try:
            after = apply(session, event)  # pyright: ignore[reportUnknownArgumentType]
        except InvalidState:
            return
        if behind:
            late = replace(after, version=after.version - 1)
            assert isinstance(self.outcome(self.storage.update(late, event)), Conflict)  # pyright: ignore[reportUnknownArgumentType]
            return
        self.run(self.storage.update(after, event))  # pyright: ignore[reportUnknownArgumentType]
        self.model[id] = after
        self.logged += 1

    @rule(chosen=st.lists(ids, max_size=4))
    def invalidate_many(self, chosen: list[SessionId]) -> None:
        sessions = [self.model.get(id) or replace(issue().session, id=id) for id in chosen]
        sessions = [session for session in sessions if session.state is not SessionState.INVALIDATED]
        changes = [
            (apply(session, event), event) for session in sessions for event in [fact(session, Invalidated, self.now)]
        ]
        expected: list[bool] = []
        for after, _ in changes:
            fits = after.id in self.model and self.model[after.id].version == after.version - 1
            expected.append(fits)
            if fits:
                self.model[after.id] = after

        assert self.run(self.storage.update_many(changes)) == expected
        self.logged += sum(expected)

    @rule(id=ids, by=st.timedeltas(timedelta(hours=-1), timedelta(hours=1)))
    def touch(self, id: SessionId, by: timedelta) -> None:
        at = self.now + by
        self.run(self.storage.touch(id, at))
        session = self.model.get(id)
        if session is not None and session.state.is_live and session.last_seen_at < at:
            self.model[id] = replace(session, last_seen_at=at)

    @rule(id=consumes(ids), stale=st.booleans())
    def delete(self, id: SessionId, *, stale: bool) -> None:
        session = self.model.get(id)
        if session is None:
            assert not self.run(self.storage.delete(fact(replace(issue().session, id=id), Deleted, self.now)))
            return
        if stale:
            event = fact(replace(session, version=session.version + 1), Deleted, self.now)
            assert isinstance(self.outcome(self.storage.delete(event)), Conflict)
        assert self.run(self.storage.delete(fact(session, Deleted, self.now)))
        del self.model[id]
        self.logged += 1

    @rule(user=st.sampled_from(USERS), keep=st.none() | ids)
    def revoke(self, user: str, keep: SessionId | None) -> None:
        kept = self.model.get(keep) if keep is not None else None
        kept_id = kept.id if kept is not None and kept.user_id == user else None
        closing = {session.id for session in self.live(user)} - {kept_id}

        done = self.run(self.storage.revoke_user(user, self.now, actor="test", reason=None, except_session=keep))

        self.epochs[user] = self.epochs.get(user, 0) + 1
        assert done.epoch == self.epochs[user]
        assert {event.session for event in done.events[1:]} == closing
        for event in done.events[1:]:
            assert isinstance(event, Invalidated)
            self.model[event.session] = apply(self.model[event.session], event)
        self.logged += len(done.events)

    @rule()
    def sweep(self) -> None:
        due = {id: when for id, session in self.model.items() if (when := deadline(session)) and when <= self.now}

        overdue = self.run(self.storage.overdue(self.now, 1000))

        assert {session.id for session in overdue} == due.keys()
        times = [due[session.id] for session in overdue]
        assert times == sorted(times)

    @rule()
    def purge(self) -> None:
        ended = self.run(self.storage.ended_before(self.now, 1000))

        assert all(self.model[session.id] == session and not session.state.is_live for session in ended)

    # --- what must hold -------------------------------------------------------------------------------

    def live(self, user: str) -> list[Session]:
        return [session for session in self.model.values() if session.user_id == user and session.state.is_live]

    def outcome(self, call: Awaitable[object]) -> object:
        try:
            return self.run(call)
        except (Conflict, NotFound, CapReached) as error:
            return error

    @invariant()
    def every_session_is_as_the_model_says(self) -> None:
        if hasattr(self, "storage"):
            ids = list(self.model)
            assert self.run(self.storage.get_many(ids)) == [self.model[id] for id in ids]

    @invariant()
    def the_log_has_every_event(self) -> None:
        if hasattr(self, "storage"):
            assert sum(self.run(self.storage.heads()).values()) == self.logged

    def check_everything(self) -> None:
        assert self.run(disagreements(self.storage)) == []
        assert len(self.run(whole_log(self.storage))) == self.logged
        for user in (None, *USERS):
            filter = SessionFilter(user_id=user)
            expected = [session for session in self.model.values() if filter.matches(session)]
            listed = self.run(everything(self.storage, filter, limit=3))
            assert {session.id: session for session in listed} == {session.id: session for session in expected}
            if user is not None:
                assert listed == sorted(expected, key=lambda session: (session.created_at, session.id))


class MemoryMachine(StorageMachine):
    def open(self) -> SessionStorage:
        return MemorySessionStorage(events_per_partition=10_000)


class FileSystemMachine(StorageMachine):
    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="roomkey-machine-"))

    def open(self) -> SessionStorage:
        return FileSystemSessionStorage(self.path, FileSystemSettings(map_size=64 * 1024, durable=False))

    @rule()
    def open_again(self) -> None:
        self.run(self.storage.__aexit__(None, None, None))
        self.enter()

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.path)


MemoryMachine.TestCase.settings = settings(max_examples=examples(60), stateful_step_count=40)
FileSystemMachine.TestCase.settings = settings(max_examples=examples(40), stateful_step_count=40)

TestMemoryMachine = MemoryMachine.TestCase
TestFileSystemMachine = FileSystemMachine.TestCase
