"""A hundred tasks on one session, and on one user: whatever the order, the promises hold."""

import asyncio
import random
from pathlib import Path

import pytest

from roomkey import errors
from roomkey.domain.lifecycle import replay
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import IssuedSession, SessionFilter, SessionState
from tests.support.sessions import Desk
from tests.support.storages import STORAGES

EXPECTED = (errors.InvalidState, errors.NotFound, errors.InvalidToken)


@pytest.mark.parametrize("kind", STORAGES)
async def test_a_hundred_tasks_on_one_session_leave_one_consistent_history(kind: str, tmp_path: Path) -> None:
    async with STORAGES[kind](tmp_path / "data") as storage:
        desk = Desk(storage)
        issued = await desk.sessions.create_session("alice")
        await desk.sessions.activate_session(issued.id)
        chance = random.Random(7)

        async def one(command: str) -> str | None:
            await asyncio.sleep(chance.random() / 100)
            try:
                await getattr(desk.sessions, command)(issued.id)
            except EXPECTED:
                return None
            return command

        commands = ["suspend_session", "resume_session", "rotate_token", "touch", "extend_session"] * 20
        done = await asyncio.gather(*[one(command) for command in commands])
        session = await desk.sessions.get_session(issued.id)

        assert session is not None
        history = await desk.history(session)
        assert done.count("rotate_token") == 20
        assert [event.version for event in history] == list(range(1, session.version + 1))
        assert replay(history) is not None  # raises if a transition was not legal


@pytest.mark.parametrize("kind", STORAGES)
async def test_no_interleaving_undoes_a_logout(kind: str, tmp_path: Path) -> None:
    async with STORAGES[kind](tmp_path / "data") as storage:
        desk = Desk(storage)
        issued = await desk.sessions.create_session("alice")
        await desk.sessions.activate_session(issued.id)

        async def contend(command: str) -> None:
            try:
                await getattr(desk.sessions, command)(issued.id)
            except EXPECTED:
                return

        async def revoke() -> SessionState:
            await desk.sessions.invalidate_session(issued.id)
            session = await desk.sessions.get_session(issued.id)
            assert session is not None
            return session.state

        rivals = ["suspend_session", "resume_session", "activate_session", "rotate_token", "touch"]
        tasks = [contend(command) for command in rivals * 20]
        state, *_ = await asyncio.gather(revoke(), *tasks)
        last = await desk.sessions.get_session(issued.id)

        assert state is SessionState.INVALIDATED
        assert last is not None
        assert last.state is SessionState.INVALIDATED
        with pytest.raises(errors.SessionError):
            await desk.sessions.authenticate(issued.token)


@pytest.mark.parametrize("kind", STORAGES)
async def test_a_hundred_sign_ins_at_once_never_pass_the_cap(kind: str, tmp_path: Path) -> None:
    async with STORAGES[kind](tmp_path / "data") as storage:
        desk = Desk(storage, SessionPolicy(cap=5))

        issued = await asyncio.gather(*[desk.sessions.create_session("alice") for _ in range(100)])
        live = await desk.sessions.count_sessions(SessionFilter(user_id="alice", state=SessionState.PENDING))

        assert len({each.id for each in issued}) == 100
        assert live == 5


@pytest.mark.parametrize("kind", STORAGES)
async def test_everyone_who_rotates_at_the_same_moment_ends_up_with_one_token(kind: str, tmp_path: Path) -> None:
    async with STORAGES[kind](tmp_path / "data") as storage:
        desk = Desk(storage)
        first = await desk.sessions.create_session("alice")

        rotated: list[IssuedSession] = await asyncio.gather(
            *[desk.sessions.rotate_token(first.id, first.token) for _ in range(100)]
        )

        assert len({each.token for each in rotated}) == 1
        assert (await desk.sessions.authenticate(rotated[0].token)).id == first.id
