"""
Any interleaving of commands, time and restarts keeps the promises about sessions.

The model knows what each session may still become; the manager and its storage must agree with it.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Coroutine
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from roomkey import errors
from roomkey.domain.access import Access, Grant, Grants
from roomkey.domain.lifecycle import ALREADY, NEXT_STATE, apply, deadline, overdue, replay
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import (
    Activated,
    Client,
    Expired,
    Invalidated,
    IssuedSession,
    Resumed,
    Session,
    SessionEvent,
    SessionFilter,
    SessionId,
    SessionState,
    Suspended,
)
from roomkey.security import tokens
from roomkey.sessions.janitor import Janitor
from tests.support.effort import examples
from tests.support.sessions import Desk
from tests.support.storages import STORAGES

T = TypeVar("T")
CAP = 3
CLIENTS = [Client("192.0.2.1", "curl/8"), Client("192.0.2.2", "curl/8"), Client("192.0.2.1", "node"), Client()]
USERS = st.sampled_from(["alice", "bob"])
GRANTS: list[Grants] = [(), (Grant("a/*", Access.READ),), (Grant("a/*", Access.READ), Grant("**", Access.WRITE))]
COMMANDS: dict[str, type[SessionEvent]] = {
    "activate_session": Activated,
    "suspend_session": Suspended,
    "resume_session": Resumed,
    "expire_session": Expired,
    "invalidate_session": Invalidated,
}
DRAWN = [*COMMANDS, *("activate_session", "suspend_session", "resume_session") * 2]
FINAL = {
    SessionState.EXPIRED: {SessionState.EXPIRED, SessionState.INVALIDATED},
    SessionState.INVALIDATED: {SessionState.INVALIDATED},
}


class SessionMachine(RuleBasedStateMachine):
    kind = "memory"
    issued = Bundle("issued")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.states: dict[SessionId, SessionState] = {}
        self.deleted: set[SessionId] = set()
        self.logged_out: set[SessionId] = set()
        self.granted: dict[SessionId, Grants] = {}
        self.newest: dict[SessionId, str] = {}

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        storage = STORAGES[self.kind](Path(self.folder.name))
        self.do(storage.__aenter__())
        self.desk = Desk(storage, SessionPolicy(cap=CAP))
        self.sessions = self.desk.sessions

    def teardown(self) -> None:
        if hasattr(self, "desk"):
            self.do(self.desk.storage.__aexit__(None, None, None))
        self.runner.close()
        self.folder.cleanup()

    @rule(target=issued, user=USERS)
    def create(self, user: str) -> IssuedSession:
        return self.do(self.sessions.create_session(user))

    @rule(session=issued, commands=st.lists(st.sampled_from(DRAWN), min_size=1, max_size=4))
    def commands(self, session: IssuedSession, commands: list[str]) -> None:
        # Several to one session: drawn one by one, hardly any session would be activated, suspended and resumed.
        for command in commands:
            self.command(session, command)

    def command(self, session: IssuedSession, command: str) -> None:
        fact = COMMANDS[command]
        before = self.due_state(session)
        try:
            self.do(getattr(self.sessions, command)(session.id))
        except errors.NotFound:
            assert before is None
        except errors.InvalidState:
            assert before is not None
            assert fact not in NEXT_STATE[before]
            assert ALREADY[fact] is not before
        else:
            assert before is not None
            assert fact in NEXT_STATE[before] or ALREADY[fact] is before
            if command in {"expire_session", "invalidate_session"}:
                self.logged_out.add(session.id)

    def due_state(self, session: IssuedSession) -> SessionState | None:
        """What the session is by now, whether or not anybody has written it down; ``None`` if it was deleted."""
        stored = self.do(self.sessions.get_session(session.id))
        if stored is None or stored.id in self.deleted:
            assert stored is None
            assert session.id in self.deleted
            return None
        ended = overdue(stored, self.desk.clock.now())
        return stored.state if ended is None else apply(stored, ended).state

    @rule(session=issued)
    def delete(self, session: IssuedSession) -> None:
        deleted = self.do(self.sessions.delete_session(session.id))
        assert deleted is (session.id not in self.deleted)
        self.deleted.add(session.id)

    @rule(session=issued)
    def use(self, session: IssuedSession) -> None:
        try:
            found = self.do(self.sessions.authenticate(session.token))
        except errors.SessionError:
            return
        assert found.id == session.id
        assert found.id not in self.deleted | self.logged_out
        due = deadline(found)
        assert due is not None
        assert self.desk.clock.now() < due or found.state is SessionState.PENDING

    @rule(session=issued, client=st.sampled_from(CLIENTS), at_once=st.booleans())
    def rotate(self, session: IssuedSession, client: Client, *, at_once: bool) -> None:
        token = self.newest.get(session.id, session.token)
        try:
            rotated = self.do(self.sessions.rotate_token(session.id, token, client=client))
        except errors.NotFound:
            assert session.id in self.deleted
        except errors.InvalidState:
            pass
        except errors.TokenReused:
            self.logged_out.add(session.id)
        else:
            self.newest[session.id] = rotated.token
        if not at_once:
            self.desk.clock.advance(self.sessions.policy.rotation_grace)

    @rule(session=issued, client=st.sampled_from(CLIENTS), newest=st.booleans())
    def present(self, session: IssuedSession, client: Client, *, newest: bool) -> None:
        token = self.newest.get(session.id, session.token) if newest else session.token
        before = self.due_state(session)
        kept = self.do(self.desk.storage.get_with_secret(session.id))
        try:
            self.do(self.sessions.authenticate(token, client=client))
        except errors.TokenReused:
            self.logged_out.add(session.id)
        except errors.TokenRotated:
            assert not newest
            assert self.due_state(session) is before  # it ends nothing
        except errors.SessionError:
            return
        else:
            # What opened the session is its token, or the one before, for the grace.
            assert kept is not None
            assert tokens.digest(token) in {kept[1].current, kept[1].previous}

    @rule(session=issued)
    def extend(self, session: IssuedSession) -> None:
        with contextlib.suppress(errors.NotFound, errors.InvalidState):
            self.do(self.sessions.extend_session(session.id))

    @rule(session=issued, grants=st.sampled_from(GRANTS))
    def change_grants(self, session: IssuedSession, grants: Grants) -> None:
        before = self.do(self.sessions.get_session(session.id))
        try:
            after = self.do(self.sessions.change_grants(session.id, grants))
        except errors.NotFound:
            assert session.id in self.deleted
        except errors.InvalidState:
            assert before is not None
            assert not before.state.is_live
        else:
            assert before is not None
            assert after.version - before.version == (before.grants != grants)
            self.granted[session.id] = grants

    @rule(user=USERS, keep=st.none() | issued)
    def revoke(self, user: str, keep: IssuedSession | None) -> None:
        before = self.everyone()
        self.do(self.sessions.revoke_user(user, except_session=keep.id if keep else None))
        for session in before:
            if session.user_id == user and (keep is None or session.id != keep.id):
                self.logged_out.add(session.id)

    @rule(minutes=st.sampled_from([0.1, 5, 11, 61, 60 * 25]))
    def wait(self, minutes: float) -> None:
        self.desk.clock.advance(timedelta(minutes=minutes))

    @rule()
    def sweep(self) -> None:
        self.do(Janitor(self.sessions).sweep())
        now = self.desk.clock.now()
        assert not [session for session in self.everyone() if (due := deadline(session)) and due <= now]

    @precondition(lambda self: self.kind == "lmdb")
    @rule()
    def restart(self) -> None:
        before = sorted(self.everyone(), key=lambda session: session.id)
        self.do(self.desk.storage.__aexit__(None, None, None))
        clock = self.desk.clock
        storage = STORAGES[self.kind](Path(self.folder.name))
        self.do(storage.__aenter__())
        self.desk = Desk(storage, SessionPolicy(cap=CAP))
        self.desk.clock.advance(clock.now() - self.desk.clock.now())
        self.sessions = self.desk.sessions
        assert sorted(self.everyone(), key=lambda session: session.id) == before

    def everyone(self) -> list[Session]:
        return list(self.do(self.sessions.list_sessions()))

    @invariant()
    def promises_hold(self) -> None:
        if not hasattr(self, "desk"):
            return
        now = self.desk.clock.now()
        everyone = self.everyone()
        for session in everyone:
            self.never_comes_back(session)
            self.history_is_the_state(session)
            assert session.grants == self.granted.get(session.id, ())
        for user in ("alice", "bob"):
            assert sum(live(session, now) for session in everyone if session.user_id == user) <= CAP
            mine = [session for session in everyone if session.user_id == user]
            assert list(self.do(self.sessions.list_sessions(SessionFilter(user_id=user)))) == sorted(
                mine, key=lambda session: (session.created_at, session.id)
            )
        assert self.deleted.isdisjoint({session.id for session in everyone})
        for state in SessionState:
            counted = self.do(self.sessions.count_sessions(SessionFilter(state=state)))
            assert counted == sum(session.state is state for session in everyone)

    def never_comes_back(self, session: Session) -> None:
        before = self.states.get(session.id)
        if before is not None and before in FINAL:
            assert session.state in FINAL[before]
        if session.id in self.logged_out:
            assert not session.state.is_live
        self.states[session.id] = session.state

    def history_is_the_state(self, session: Session) -> None:
        history = self.do(self.desk.history(session))
        assert [event.version for event in history] == list(range(1, session.version + 1))
        replayed = replay(history)
        assert replayed is not None
        assert replayed.last_seen_at <= session.last_seen_at
        assert forget_activity(replayed) == forget_activity(session)


def live(session: Session, now: datetime) -> bool:
    due = deadline(session)
    return due is not None and now < due


def forget_activity(session: Session) -> tuple[object, ...]:
    return tuple(getattr(session, name) for name in session.__struct_fields__ if name != "last_seen_at")


@pytest.mark.parametrize("kind", STORAGES)
def test_sessions_keep_their_promises(kind: str) -> None:
    machine = type(f"{kind}_machine", (SessionMachine,), {"kind": kind})

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples(60 if kind == "memory" else 15),
            stateful_step_count=40,
        ),
    )
