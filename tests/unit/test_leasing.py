"""What must be done once is done by one node, and by another when that one dies."""

import asyncio
from datetime import timedelta

import pytest

from roomkey.backends.memory.leases import MemoryLeases
from roomkey.errors import LeaseLost, NotFound, Storage
from roomkey.leasing import LIFETIME, Chore
from roomkey.testing.clock import ManualClock
from tests.support.loops import in_no_time
from tests.support.sessions import NOON


class Away(MemoryLeases):
    """Leases that cannot be renewed."""

    async def renew(self, name: str, token: int, lifetime: timedelta) -> bool:
        del name, token, lifetime
        raise Storage("away")


class Taken(MemoryLeases):
    """Leases that somebody else has when they are to be renewed."""

    async def renew(self, name: str, token: int, lifetime: timedelta) -> bool:
        del name, token, lifetime
        return False


async def token_of(token: int) -> int:
    return token


async def forever(_: int) -> None:
    await asyncio.Event().wait()


async def test_while_one_node_is_at_it_others_are_not_and_then_they_are_with_a_higher_token() -> None:
    leases = MemoryLeases(ManualClock(NOON))
    one, other = Chore(leases, "sweep", "one"), Chore(leases, "sweep", "other")

    async def work(token: int) -> tuple[int, int | None]:
        return token, await other.attempt(token_of)

    done = await one.attempt(work)
    later = await other.attempt(token_of)

    assert done is not None
    assert done[1] is None
    assert later is not None
    assert later > done[0]


async def test_a_lease_that_is_kept_goes_over_when_its_node_dies_or_lets_go() -> None:
    clock = ManualClock(NOON)
    leases = MemoryLeases(clock)
    one, other = (Chore(leases, "sweep", name, keeps=True) for name in ("one", "other"))

    first, refused, again = [await chore.attempt(token_of) for chore in (one, other, one)]
    clock.advance(LIFETIME)
    after_death = await other.attempt(token_of)
    await other.release()
    after_release = await one.attempt(token_of)

    assert refused is None
    tokens = [token for token in (first, again, after_death, after_release) if token is not None]
    assert len(tokens) == 4
    assert tokens == sorted(tokens)
    assert (one.is_ours, other.is_ours) == (True, False)


@pytest.mark.parametrize("kind", [Away, Taken])
@in_no_time
async def test_work_whose_lease_is_lost_is_cancelled(kind: type[MemoryLeases]) -> None:
    chore = Chore(kind(ManualClock(NOON)), "sweep", "one")

    with pytest.raises(LeaseLost):
        await chore.attempt(forever)

    assert not chore.is_ours


async def test_what_the_work_raises_arrives_as_it_is_and_the_lease_is_free() -> None:
    leases = MemoryLeases(ManualClock(NOON))

    async def work(_: int) -> None:
        raise NotFound("no broom")

    with pytest.raises(NotFound):
        await Chore(leases, "sweep", "one").attempt(work)

    assert await Chore(leases, "sweep", "other").attempt(token_of) is not None


@in_no_time
async def test_work_that_takes_longer_than_a_lease_lasts_goes_on_while_it_is_renewed() -> None:
    chore = Chore(MemoryLeases(ManualClock(NOON)), "sweep", "one")

    async def work(_: int) -> str:
        await asyncio.sleep(10 * LIFETIME.total_seconds())
        return "clean"

    assert await chore.attempt(work) == "clean"
