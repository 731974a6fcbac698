"""What nodes share in Redis: a call whose answer is lost is not done twice, and nobody reads tickets there."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import pytest

from roomkey.backends.memory.shared import MemoryShared
from roomkey.backends.redis.counters import RedisCounters
from roomkey.backends.redis.leases import RedisLeases
from roomkey.backends.redis.one_time import RedisOneTime
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import RedisServer
from roomkey.backends.redis.shared import RedisShared
from roomkey.backends.sealing import Seal
from roomkey.errors import OutcomeUnknown, Serialization
from roomkey.ports import OneTimeLimits, Rate, SystemClock
from tests.support.cutting_proxy import Cut, CuttingProxy, cutting_proxy
from tests.support.rawsocket import until
from tests.support.store_servers import RedisProcess

MINUTE: Final = timedelta(minutes=1)
UNLIMITED: Final = OneTimeLimits()


@asynccontextmanager
async def behind_a_proxy(
    redis_url: str, redis_server: RedisProcess
) -> AsyncGenerator[tuple[RedisServer, CuttingProxy]]:
    async with cutting_proxy(redis_server.port) as proxy, RedisServer(proxy.through(redis_url)) as server:
        yield server, proxy


def tickets(server: RedisServer, secret: bytes = b"secret") -> RedisOneTime:
    return RedisOneTime(server, "tickets", UNLIMITED, Seal(secret, "tickets"))


cuts = pytest.mark.parametrize("where", Cut)


# --- done once --------------------------------------------------------------------------------------------


@cuts
async def test_who_adds_is_told_that_nothing_was_there(redis_url: str, redis_server: RedisProcess, where: Cut) -> None:
    async with behind_a_proxy(redis_url, redis_server) as (server, proxy):
        values = tickets(server)
        await values.add("known", b"value", MINUTE)
        proxy.cut(where, containing=Script("one_time_add").digest)

        present = await values.add("k", b"value", MINUTE)

        assert (proxy.cuts, present) == (1, None)
        assert await values.add("k", b"value", MINUTE) == b"value"
        assert await values.take("k") == b"value"


@cuts
async def test_who_replaces_is_told_that_it_did(redis_url: str, redis_server: RedisProcess, where: Cut) -> None:
    async with behind_a_proxy(redis_url, redis_server) as (server, proxy):
        values = tickets(server)
        for key in ("known", "k"):
            await values.add(key, b"claim", MINUTE)
        await values.replace("known", b"claim", b"answer", MINUTE)
        proxy.cut(where, containing=Script("one_time_replace").digest)

        done = await values.replace("k", b"claim", b"answer", MINUTE)

        assert (proxy.cuts, done) == (1, True)
        assert not await values.replace("k", b"claim", b"answer", MINUTE)
        assert await values.take("k") == b"answer"


async def test_whether_a_value_was_taken_is_not_known_without_an_answer(
    redis_url: str, redis_server: RedisProcess
) -> None:
    async with behind_a_proxy(redis_url, redis_server) as (server, proxy):
        values = tickets(server)
        await values.add("k", b"value", MINUTE)
        await values.take("known")
        proxy.cut(Cut.BEFORE_ANSWER, containing=Script("one_time_take").digest)

        with pytest.raises(OutcomeUnknown):
            await values.take("k")

        assert await values.take("k") is None


async def test_nobody_is_charged_twice(redis_url: str, redis_server: RedisProcess) -> None:
    async with behind_a_proxy(redis_url, redis_server) as (server, proxy):
        counters = RedisCounters(server, "addresses")
        rate = Rate(per_second=0.001, burst=2)
        await counters.take("known", rate)
        proxy.cut(Cut.BEFORE_ANSWER, containing=Script("counter_take").digest)

        with pytest.raises(OutcomeUnknown):
            await counters.take("k", rate)

        assert await counters.take("k", rate) == 0
        assert await counters.take("k", rate) > 0


@cuts
async def test_a_holder_gets_a_token_that_holds(redis_url: str, redis_server: RedisProcess, where: Cut) -> None:
    async with behind_a_proxy(redis_url, redis_server) as (server, proxy):
        leases = RedisLeases(server)
        await leases.acquire("known", "a", MINUTE)
        proxy.cut(where, containing=Script("lease_acquire").digest)

        token = await leases.acquire("janitor", "a", MINUTE)

        assert proxy.cuts == 1
        assert token is not None
        assert await leases.renew("janitor", token, MINUTE)


# --- what lies there --------------------------------------------------------------------------------------


async def everything_in(server: RedisServer) -> bytes:
    """All that is stored, as it lies there."""
    keys = await server.ask("KEYS", b"*%s:*" % server.prefix)
    return b"".join([key + await server.ask("DUMP", key) for key in keys])


async def test_values_and_their_keys_are_not_to_be_seen(redis_url: str) -> None:
    async with RedisServer(redis_url) as server:
        await tickets(server).add("the key", b"the value", MINUTE, owner="the owner")

        stored = await everything_in(server)

        assert len(stored) > 100
        for plain in (b"the key", b"the value", b"the owner"):
            assert plain not in stored


async def test_a_value_of_another_secret_is_not_taken_for_one(redis_url: str) -> None:
    async with RedisServer(redis_url) as server:
        await tickets(server).add("k", b"value", MINUTE)

        with pytest.raises(Serialization):
            await tickets(server, b"another").add("k", b"value", MINUTE)


async def test_everything_goes_by_itself_in_the_end(redis_url: str) -> None:
    async with RedisServer(redis_url) as server:
        values = tickets(server)
        for owner in ("alice", "bob", None):
            await values.add(f"long {owner}", b"value", MINUTE, owner=owner)
            await values.add(f"short {owner}", b"value", MINUTE / 2, owner=owner)
        await RedisCounters(server, "addresses").take("k", Rate(per_second=1, burst=1))

        lifetimes = [await server.ask("PTTL", key) for key in await server.ask("KEYS", b"*%s:*" % server.prefix)]

        assert len(lifetimes) == 7
        assert all(0 < lifetime <= 60_000 for lifetime in lifetimes)


async def test_of_leases_that_are_over_nothing_is_left_but_the_last_tokens(redis_url: str) -> None:
    async with RedisServer(redis_url) as server:
        leases = RedisLeases(server)
        for number in range(1000):
            token = await leases.acquire(f"document {number}", "a", MINUTE)
            assert token is not None
            await leases.release(f"document {number}", token)

        assert len(await server.ask("KEYS", b"*%s:*" % server.prefix)) == 64


# --- nodes ------------------------------------------------------------------------------------------------


def shared(server: RedisServer, secret: bytes = b"secret", *, lifetime: timedelta = MINUTE) -> RedisShared:
    own = MemoryShared(tickets=UNLIMITED, answers=UNLIMITED, clock=SystemClock())
    return RedisShared(server, secret=secret, own=own, tickets=UNLIMITED, answers=UNLIMITED, node_lifetime=lifetime)


@asynccontextmanager
async def among(
    server: RedisServer, node: str, secret: bytes = b"secret", *, lifetime: timedelta = MINUTE
) -> AsyncGenerator[RedisShared]:
    state = shared(server, secret, lifetime=lifetime)
    await state.join(node)
    try:
        yield state
    finally:
        await state.leave()


async def test_nodes_know_those_that_came_before(redis_url: str) -> None:
    async with RedisServer(redis_url) as server:
        async with among(server, "a") as first, among(server, "b") as second:
            known = first.others(), second.others()
        async with among(server, "c") as third:
            alone = third.others()

    assert known == ([], ["a"])
    assert alone == []


async def test_nodes_get_to_know_those_that_come_and_forget_those_that_died(redis_url: str) -> None:
    lifetime = timedelta(milliseconds=90)

    async with RedisServer(redis_url) as server, among(server, "a", lifetime=lifetime) as first:
        await server.run(Script("nodes_renew"), [b"%s:nodes" % server.prefix], [b"dead", 200])

        await until(lambda: first.others() == ["dead"])
        await until(lambda: first.others() == [])


async def test_tickets_are_those_of_all_nodes(redis_url: str) -> None:
    async with RedisServer(redis_url) as server, among(server, "a") as first, among(server, "b") as second:
        await first.tickets.add("k", b"value", MINUTE)
        taken = await second.tickets.take("k")

        assert taken == b"value"
        assert await second.answers.take("k") is None
        assert first.is_complete


async def test_without_a_secret_each_node_has_its_own(redis_url: str) -> None:
    async with RedisServer(redis_url) as server, among(server, "a", b"") as first, among(server, "b", b"") as second:
        await first.tickets.add("k", b"value", MINUTE)

        assert not first.is_complete
        assert await second.tickets.take("k") is None
