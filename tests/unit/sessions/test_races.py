"""What was overtaken starts over, in turn, and not for ever."""

import asyncio

import pytest

from roomkey.errors import Conflict, VersionMismatch
from roomkey.sessions.races import ATTEMPTS, Races
from tests.support.sessions import ALICE


class Attempt:
    """Loses so many races, then wins; ``end`` is raised instead of winning."""

    def __init__(self, losses: int, end: Exception | None = None) -> None:
        self._losses = losses
        self._end = end
        self.made = 0

    async def __call__(self) -> str:
        self.made += 1
        await asyncio.sleep(0)
        if self.made <= self._losses:
            raise Conflict("someone was faster")
        if self._end is not None:
            raise self._end
        return "won"


async def test_what_loses_a_race_is_tried_again() -> None:
    attempt = Attempt(losses=2)

    assert await Races().persist(ALICE, attempt) == "won"
    assert attempt.made == 3


async def test_there_is_an_end_to_starting_over() -> None:
    attempt = Attempt(losses=1_000)

    with pytest.raises(Conflict):
        await Races().persist(ALICE, attempt)

    assert attempt.made == ATTEMPTS


@pytest.mark.parametrize("losses", [0, 1])
async def test_a_version_that_was_asked_for_and_is_gone_does_not_come_back_by_trying(losses: int) -> None:
    attempt = Attempt(losses, VersionMismatch("the session has moved on"))

    with pytest.raises(VersionMismatch):
        await Races().persist(ALICE, attempt)

    assert attempt.made == losses + 1


async def test_nothing_is_left_of_a_race_that_is_over() -> None:
    races = Races()

    await asyncio.gather(*(races.persist(ALICE, Attempt(losses=1)) for _ in range(5)))

    assert vars(races) == {"_locks": {}}


async def test_who_starts_over_waits_for_its_turn() -> None:
    races, at_once, most = Races(), 0, 0

    def contestant() -> Attempt:
        class Contestant(Attempt):
            async def __call__(self) -> str:
                nonlocal at_once, most
                again = self.made > 0
                at_once += again
                most = max(most, at_once)
                try:
                    return await super().__call__()
                finally:
                    at_once -= again

        return Contestant(losses=1)

    await asyncio.gather(*(races.persist(ALICE, contestant()) for _ in range(5)))

    assert most == 1
