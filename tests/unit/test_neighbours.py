"""
Two nodes on one storage and one exchange: what happens to sessions on one is known on the other, in time.

Time is the loop's, and none passes; the line of each node to the storage and to the exchange can be cut.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import pytest

from roomkey import errors
from roomkey.backends.memory import MemorySessionStorage
from roomkey.domain.access import Access, Grant
from roomkey.domain.policy import OnCap, SessionPolicy
from roomkey.domain.session import Client, IssuedSession, SessionId
from roomkey.errors import Storage
from roomkey.neighbours import Neighbours, NeighbourSettings
from roomkey.ports import SessionStorage
from roomkey.realtime.endpoint import SessionWebSocketHandler
from roomkey.realtime.transport import Refused
from roomkey.sessions.manager import SessionManager
from roomkey.sessions.near_cache import NearCache
from roomkey.testing.clock import ManualClock
from tests.support.hint_exchange import Exchange
from tests.support.loops import HastyLoop, in_no_time
from tests.support.sessions import NOON
from tests.support.sockets import READ_ONLY, Caller
from tests.support.sockets import Node as SocketNode

POLICY = SessionPolicy(cap=3, on_cap=OnCap.EVICT_OLDEST, rotation_grace=timedelta(seconds=30))
GRACE = timedelta(seconds=10)


class Line:
    """The way of one node to the storage that both have."""

    shared = True

    def __init__(self, storage: MemorySessionStorage) -> None:
        self._storage = storage
        self.is_cut = False

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **fields: Any) -> Any:
            if self.is_cut:
                raise Storage("the line is cut")
            return await getattr(self._storage, name)(*args, **fields)

        return call


class Node:
    """A node with real services, and sockets in the hands of the test."""

    def __init__(self, name: str, storage: MemorySessionStorage, exchange: Exchange, grace: timedelta) -> None:
        self.clock = ManualClock(NOON)
        self.line = Line(storage)
        self.broker = exchange.broker(name)
        there = cast("SessionStorage", self.line)
        self.cache = NearCache(there, now=lambda: asyncio.get_running_loop().time())
        self.sessions = SessionManager(
            there, policy=POLICY, clock=self.clock, rotation_key=b"k" * 32, default_grants=(), cache=self.cache
        )
        self.sockets = SocketNode()
        self.handler = self.sockets.handler = SessionWebSocketHandler(
            self.sessions,
            clock=self.clock,
            tickets=self.sockets.tickets,
            counters=self.sockets.counters,
            schedule=self.sockets.turns,
        )
        self.neighbours = Neighbours(
            self.sessions,
            self.broker,
            NeighbourSettings(node=name, is_remote=True, grace=grace),
            cache=self.cache,
        )

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        unsubscribe = self.sessions.on_events(self.handler.on_events)
        async with self.neighbours.heard(self.handler) as works:
            tasks = [asyncio.create_task(cast("Any", work())) for work in (*works.values(), self.handler.run)]
            yield
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        unsubscribe()

    def cut(self) -> None:
        """From everything."""
        self.line.is_cut = True
        self.broker.cut()

    def join(self) -> None:
        self.line.is_cut = False
        self.broker.join()

    async def refusal(self, issued: IssuedSession) -> Refused:
        answer = await self.sockets.knock(issued.token)
        assert isinstance(answer, Refused), answer
        return answer


class Pair:
    def __init__(self, grace: timedelta = GRACE) -> None:
        self.storage = MemorySessionStorage()
        self.exchange = Exchange()
        self.a, self.b = (Node(name, self.storage, self.exchange, grace) for name in "ab")

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            for node in (self.a, self.b):
                await stack.enter_async_context(node.at_work())
            await asyncio.sleep(1)
            yield

    async def session(self, user: str = "alice") -> tuple[IssuedSession, Caller]:
        """A session that was made on one node, with a socket on the other."""
        issued = await self.a.sessions.create_session(user, activate=True, grants=READ_ONLY)
        return issued, await self.b.sockets.enter(issued.token)


async def seconds_until(condition: Callable[[], object], *, at_most: float = 60.0) -> float:
    """How long it takes."""
    now = asyncio.get_running_loop().time
    began = now()
    while not condition():
        assert now() - began < at_most
        await asyncio.sleep(0.01)
    return now() - began


# --- what happens on one node -----------------------------------------------------------------------------

Change = Callable[[Node, SessionId], Awaitable[object]]


async def make_room(node: Node, session: SessionId) -> None:
    """Create as many sessions as the user may have, who loses this one by that."""
    del session
    for _ in range(3):
        node.clock.advance(seconds=1)
        await node.sessions.create_session("alice")


CHANGES: dict[str, Change] = {
    "suspended": lambda node, session: node.sessions.suspend_session(session),
    "expired": lambda node, session: node.sessions.expire_session(session),
    "invalidated": lambda node, session: node.sessions.invalidate_session(session),
    "deleted": lambda node, session: node.sessions.delete_session(session),
    "user revoked": lambda node, _: node.sessions.revoke_user("alice"),
    "evicted": make_room,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("hints", "bound"), [(1, 0.05), (3, 0.05), (0, 1.0)], ids=["hint", "thrice", "lost"])
@in_no_time
async def test_what_ends_a_session_on_one_node_ends_its_sockets_on_the_other(
    change: str, hints: int, bound: float
) -> None:
    pair = Pair()
    pair.exchange.repeats = hints
    async with pair.at_work():
        issued, caller = await pair.session()
        _, other = await pair.session("bob")
        await pair.b.sessions.authenticate(issued.token)

        await CHANGES[change](pair.a, issued.id)
        took = await seconds_until(lambda: caller.closed_with)

        assert took <= bound
        assert caller.closed_with is not None
        assert caller.closed_with[0] in (4401, 4423)
        with pytest.raises(errors.RoomkeyError):
            await pair.b.sessions.authenticate(issued.token)
        assert other.closed_with is None


@in_no_time
async def test_grants_that_shrink_on_one_node_shrink_on_the_sockets_of_the_other() -> None:
    pair = Pair()
    async with pair.at_work():
        issued, caller = await pair.session()

        await pair.a.sessions.change_grants(issued.id, [Grant("other", Access.READ)])
        await asyncio.sleep(0.05)
        answer = caller.answer_to(caller.say("subscribe", {"document": "d"}))

        assert answer["payload"]["code"] == "FORBIDDEN"


@in_no_time
async def test_a_token_rotated_on_one_node_is_rotated_on_the_other_and_racers_get_the_same() -> None:
    pair, client = Pair(), Client("192.0.2.1", "curl/8")
    async with pair.at_work():
        issued, caller = await pair.session()
        await pair.b.sessions.authenticate(issued.token, client=client)

        first, second = await asyncio.gather(
            *(node.sessions.rotate_token(issued.id, issued.token, client=client) for node in (pair.a, pair.b))
        )
        await pair.b.sessions.authenticate(first.token, client=client)
        for node in (pair.a, pair.b):
            node.clock.advance(timedelta(seconds=31))
        with pytest.raises(errors.TokenRotated):
            await pair.b.sessions.authenticate(issued.token, client=client)

        assert first.token == second.token
        assert caller.closed_with is None


@in_no_time
async def test_after_a_gap_the_log_is_read_at_once() -> None:
    pair = Pair()
    async with pair.at_work():
        issued, caller = await pair.session()
        pair.b.broker.cut()
        await asyncio.sleep(0.3)
        await pair.a.sessions.invalidate_session(issued.id)
        await asyncio.sleep(0.02)  # the hint goes to nobody

        pair.b.broker.join()
        took = await seconds_until(lambda: caller.closed_with)

        assert took <= 0.02


# --- a node that is cut off -------------------------------------------------------------------------------


@in_no_time
async def test_a_node_that_is_cut_off_lets_nobody_in_and_closes_its_sockets_after_the_grace() -> None:
    pair = Pair()
    async with pair.at_work():
        issued, caller = await pair.session()

        pair.b.cut()
        blind = await seconds_until(lambda: "blind" in pair.b.neighbours.degradations())
        refused = await pair.b.refusal(issued)
        said = pair.b.neighbours.degradations()["blind"]
        alive = caller.closed_with is None
        shut = blind + await seconds_until(lambda: caller.closed_with)

        assert 1.4 <= blind <= 2.3
        assert (refused.status, dict(refused.headers)["retry-after"]) == (503, "1")
        assert b"cannot be known" in refused.body
        assert "look at the network" in said
        assert alive
        assert 11.4 <= shut <= 12.3
        assert caller.closed_with == (1013, "unavailable")
        assert "blind" not in pair.a.neighbours.degradations()


@in_no_time
async def test_without_grace_the_sockets_of_a_blind_node_are_closed_at_once() -> None:
    pair = Pair(grace=timedelta())
    async with pair.at_work():
        _, caller = await pair.session()

        pair.b.cut()
        took = await seconds_until(lambda: caller.closed_with)

        assert took <= 2.3


@in_no_time
async def test_a_node_that_sees_again_has_ended_what_was_ended_meanwhile_and_lets_people_in() -> None:
    pair = Pair()
    async with pair.at_work():
        revoked, gone = await pair.session()
        issued, caller = await pair.session("bob")
        pair.b.cut()
        await asyncio.sleep(5)
        await pair.a.sessions.invalidate_session(revoked.id)

        pair.b.join()
        took = await seconds_until(lambda: gone.closed_with)
        await seconds_until(lambda: not pair.b.neighbours.degradations())
        newcomer = await pair.b.sockets.enter(issued.token)

        assert took <= 1.0
        assert gone.closed_with == (4401, "session_invalidated")
        assert caller.closed_with is None
        assert newcomer.closed_with is None
        assert pair.b.cache.statistics().entries > 0  # warm


@in_no_time
async def test_with_the_broker_alone_a_node_sees_and_says_what_is_missing() -> None:
    pair = Pair()
    async with pair.at_work():
        issued, caller = await pair.session()
        pair.b.line.is_cut = True
        await asyncio.sleep(30)
        said = pair.b.neighbours.degradations()

        await pair.a.sessions.suspend_session(issued.id)
        took = await seconds_until(lambda: caller.closed_with)

        assert set(said) == {"event log"}
        assert took <= 0.05


@in_no_time
async def test_with_the_log_alone_a_node_sees_and_says_what_is_missing() -> None:
    pair = Pair()
    async with pair.at_work():
        issued, caller = await pair.session()
        pair.b.broker.cut()
        await asyncio.sleep(30)
        said = pair.b.neighbours.degradations()

        await pair.a.sessions.suspend_session(issued.id)
        took = await seconds_until(lambda: caller.closed_with)

        assert set(said) == {"hints"}
        assert took <= 1.0


@in_no_time
async def test_hints_that_were_missed_while_the_log_was_away_are_not_taken_for_sight() -> None:
    pair = Pair()
    async with pair.at_work():
        _, caller = await pair.session()
        pair.b.cut()
        await asyncio.sleep(1)
        pair.b.broker.join()  # it hears again, and does not know what it has missed
        took = 1 + await seconds_until(lambda: caller.closed_with)

        assert 11.4 <= took <= 12.3


@in_no_time
async def test_a_process_that_was_asleep_lets_nothing_pass_before_storage_has_answered() -> None:
    pair = Pair()
    async with pair.at_work():
        issued = await pair.a.sessions.create_session("alice", activate=True, grants=[Grant("**", Access.WRITE)])
        caller = await pair.b.sockets.enter(issued.token)
        caller.say("subscribe", {"document": "d"})
        pair.exchange.loses = True
        await pair.a.sessions.invalidate_session(issued.id)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, HastyLoop)
        loop._jumping.jumped += 60  # pyright: ignore[reportPrivateUsage]  # as if it had been stopped
        await asyncio.sleep(0)  # what is due happens first

        caller.edit("too late")
        held = caller.news()
        await seconds_until(lambda: caller.closed_with)

        assert [message["message_type"] for message in held if message["message_type"] == "ack"] == []
        assert caller.closed_with == (4401, "session_invalidated")


# --- clocks that differ -----------------------------------------------------------------------------------


@in_no_time
async def test_a_user_revoked_by_a_node_whose_clock_is_behind_is_out_on_the_other_all_the_same() -> None:
    pair = Pair()
    async with pair.at_work():
        pair.b.clock.advance(seconds=-5)
        issued = await pair.b.sessions.create_session("alice", activate=True)
        ahead = await pair.a.sessions.create_session("alice", activate=True)
        callers = [await pair.a.sockets.enter(each.token) for each in (issued, ahead)]

        await pair.b.sessions.revoke_user("alice")
        took = await seconds_until(lambda: all(caller.closed_with for caller in callers))

        assert took <= 0.05


@in_no_time
async def test_a_deadline_that_has_passed_on_the_node_that_is_ahead_ends_the_socket_on_the_other() -> None:
    pair = Pair()
    async with pair.at_work():
        pair.b.clock.advance(seconds=-5)
        issued = await pair.a.sessions.create_session("alice", activate=True, lifetime=timedelta(minutes=1))
        caller = await pair.b.sockets.enter(issued.token)
        for node in (pair.a, pair.b):
            node.clock.advance(timedelta(minutes=1))
        await asyncio.sleep(1)
        behind = caller.closed_with  # on its own clock there are five seconds left

        await pair.a.sessions.get_session(issued.id)
        await seconds_until(lambda: caller.closed_with)

        assert behind is None
        assert caller.closed_with == (4401, "session_expired")
