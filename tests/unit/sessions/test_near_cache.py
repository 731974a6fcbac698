"""Requests are authenticated without storage for a moment, and never with what is known to be over."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import pytest

from roomkey import errors
from roomkey.backends.memory import MemorySessionStorage
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import Client, IssuedSession, Session, SessionId
from roomkey.domain.token_uses import TokenUse
from roomkey.errors import InvalidToken, RoomkeyError
from roomkey.ports import Secret
from roomkey.sessions.manager import SessionManager
from roomkey.sessions.near_cache import MAX_AGE, NearCache
from roomkey.testing.clock import ManualClock
from tests.support.sessions import NOON

LAPTOP = Client("192.0.2.1", "curl/8")


class CountingStorage(MemorySessionStorage):
    """Counts what it is asked and told; ``reading`` is called while an answer is on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.touched = 0
        self.noted = 0
        self.reading: Callable[[], Awaitable[object]] | None = None

    async def get_with_secret(self, id: SessionId) -> tuple[Session, Secret] | None:
        self.asked += 1
        found = await super().get_with_secret(id)
        hook, self.reading = self.reading, None
        if hook is not None:
            await hook()
        return found

    async def touch(self, id: SessionId, at: datetime) -> None:
        self.touched += 1
        await super().touch(id, at)

    async def note_use(self, id: SessionId, use: TokenUse, *, generation: int, window: timedelta) -> None:
        self.noted += 1
        await super().note_use(id, use, generation=generation, window=window)


class Desk:
    """A node with a near-cache, and another one on the same storage."""

    def __init__(self, capacity: int = 10) -> None:
        self.clock = ManualClock(NOON)
        self.storage = CountingStorage()
        self.cache = NearCache(self.storage, capacity=capacity, now=lambda: self.clock.now().timestamp())
        self.here = self.manager(self.cache)
        self.elsewhere = self.manager(None)

    def manager(self, cache: NearCache | None) -> SessionManager:
        policy = SessionPolicy(rotation_grace=timedelta(seconds=30))
        return SessionManager(self.storage, policy=policy, clock=self.clock, rotation_key=b"k" * 32, cache=cache)

    async def known(self, user: str = "alice") -> IssuedSession:
        """An active session that the node has authenticated."""
        issued = await self.elsewhere.create_session(user, activate=True)
        await self.here.authenticate(issued.token)
        return issued

    @asynccontextmanager
    async def asking(self, times: int) -> AsyncGenerator[None]:
        before = self.storage.asked
        yield
        assert self.storage.asked - before == times


async def test_the_second_request_within_two_seconds_does_not_ask_storage() -> None:
    desk = Desk()
    issued = await desk.known()

    async with desk.asking(0):
        session = await desk.here.authenticate(issued.token)
    desk.clock.advance(MAX_AGE)
    async with desk.asking(1):
        await desk.here.authenticate(issued.token)

    assert session.id == issued.id
    assert (desk.cache.statistics().hits, desk.cache.statistics().misses) == (1, 2)
    assert desk.cache.observations() == {"near cache": "33% of 3 reads answered here"}


@pytest.mark.parametrize("command", ["suspend_session", "expire_session", "invalidate_session", "delete_session"])
async def test_a_command_of_this_node_holds_when_it_returns(command: str) -> None:
    desk = Desk()
    issued = await desk.known()

    await getattr(desk.here, command)(issued.id)

    with pytest.raises(RoomkeyError):
        await desk.here.authenticate(issued.token)


async def test_a_revoked_user_is_out_when_that_returns_and_another_is_not() -> None:
    desk = Desk()
    alice, bob = await desk.known("alice"), await desk.known("bob")

    await desk.here.revoke_user("alice")

    with pytest.raises(errors.Invalidated):
        await desk.here.authenticate(alice.token)
    async with desk.asking(0):
        await desk.here.authenticate(bob.token)


async def test_what_is_heard_of_holds_at_once_and_what_is_heard_again_costs_nothing() -> None:
    desk = Desk()
    issued = await desk.known()
    heard = desk.elsewhere.on_events(desk.cache.forget)
    await desk.elsewhere.change_grants(issued.id, [])
    await desk.elsewhere.suspend_session(issued.id)
    heard()

    with pytest.raises(errors.Suspended):
        await desk.here.authenticate(issued.token)
    await desk.elsewhere.resume_session(issued.id)
    await desk.here.authenticate(issued.token)
    desk.cache.forget([event.event for event in await desk.storage.events(int(issued.id[:2], 16))])

    async with desk.asking(0):
        await desk.here.authenticate(issued.token)


async def test_what_was_read_before_it_was_heard_of_does_not_enter_after_it() -> None:
    desk = Desk()
    issued = await desk.elsewhere.create_session("alice", activate=True)
    desk.elsewhere.on_events(desk.cache.forget)
    desk.storage.reading = lambda: desk.elsewhere.invalidate_session(issued.id)

    await desk.here.authenticate(issued.token)  # storage was asked before that

    with pytest.raises(errors.Invalidated):
        await desk.here.authenticate(issued.token)


async def test_whoever_is_refused_was_looked_up() -> None:
    desk = Desk()
    issued = await desk.known()

    for _ in range(2):
        async with desk.asking(1):
            with pytest.raises(InvalidToken):
                await desk.here.authenticate(f"{issued.id}.{'x' * 43}")
    async with desk.asking(2):
        for _ in range(2):
            with pytest.raises(InvalidToken):
                await desk.here.authenticate(f"3a{'b' * 26}.{'x' * 43}")


async def test_a_replaced_token_is_never_answered_from_memory() -> None:
    desk = Desk()
    issued = await desk.known()
    rotated = await desk.here.rotate_token(issued.id, issued.token)

    async with desk.asking(3):
        await desk.here.authenticate(rotated.token)
        await desk.here.authenticate(issued.token)  # in the grace
        await desk.here.authenticate(issued.token)
    desk.clock.advance(timedelta(seconds=31))

    with pytest.raises(errors.TokenRotated):
        await desk.here.authenticate(issued.token)


async def test_where_a_rotated_token_is_used_is_noted_once() -> None:
    desk = Desk()
    issued = await desk.known()
    rotated = await desk.here.rotate_token(issued.id, issued.token, client=LAPTOP)
    elsewhere = Client("198.51.100.7", "node")

    for _ in range(5):
        await desk.here.authenticate(rotated.token, client=elsewhere)

    assert desk.storage.noted == 1


async def test_activity_is_written_once_and_not_with_each_request_that_is_answered_from_memory() -> None:
    desk = Desk()
    issued = await desk.known()
    desk.clock.advance(timedelta(minutes=10))

    for _ in range(5):
        await desk.here.authenticate(issued.token)

    assert desk.storage.touched == 1


@pytest.mark.parametrize("later", [1.5, 2.5])
async def test_nobodys_idle_time_is_over_before_storage_says_so(later: float) -> None:
    desk = Desk()
    issued = await desk.elsewhere.create_session("alice", activate=True)
    desk.clock.advance(timedelta(minutes=59, seconds=58))
    await desk.here.authenticate(issued.token, is_activity=False)
    await desk.elsewhere.touch(issued.id)
    desk.clock.advance(seconds=later)

    session = await desk.here.authenticate(issued.token, is_activity=False)

    assert session.last_seen_at == NOON + timedelta(minutes=59, seconds=58)


async def test_the_oldest_entry_goes_where_there_is_no_room() -> None:
    desk = Desk(capacity=2)
    first, *others = [await desk.known() for _ in range(3)]

    async with desk.asking(0):
        for issued in others:
            await desk.here.authenticate(issued.token)
    async with desk.asking(1):
        await desk.here.authenticate(first.token)


async def test_a_blind_node_answers_nothing_from_memory_and_is_warm_when_it_sees() -> None:
    desk = Desk()
    issued = await desk.known()

    desk.cache.turn_blind()
    async with desk.asking(2):
        await desk.here.authenticate(issued.token)
        await desk.here.authenticate(issued.token)
    desk.cache.see()
    await desk.cache.warm([issued.id])

    async with desk.asking(0):
        await desk.here.authenticate(issued.token)
