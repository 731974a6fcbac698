"""What follows from the failure of a server: retries, a breaker, and what callers, health and logs are told."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from roomkey.backends.recovery import BREAKING, PASSING, Breaker, Failure, Kind, Recovery, RecoverySettings
from roomkey.errors import Conflict, OutcomeUnknown, Storage
from tests.support.effort import examples

SETTINGS = RecoverySettings(
    timeout=60, tries=3, first_pause=0, longest_pause=0, breaks_after=3, rest=1, longest_rest=4, settles_after=2
)

AWAY = Failure(Kind.AWAY, "connection refused")
FULL = Failure(Kind.FULL, "no space")

NOT_BREAKING = sorted(set(Kind) - BREAKING)


class Failed(Exception):
    """What a driver raises."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure


def classify(error: BaseException) -> Failure | None:
    return error.failure if isinstance(error, Failed) else None


class Seconds:
    """A clock in the hands of the test."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def a_breaker() -> tuple[Breaker, Seconds]:
    clock = Seconds()
    return Breaker("redis on example", SETTINGS, now=clock), clock


def broken(breaker: Breaker) -> Breaker:
    for _ in range(SETTINGS.breaks_after):
        breaker.failed(AWAY, is_probe=breaker.check())
    return breaker


def is_refused(breaker: Breaker) -> bool:
    try:
        is_probe = breaker.check()
    except Storage:
        return True
    breaker.abandoned(is_probe=is_probe)
    return False


def recovery(settings: RecoverySettings = SETTINGS) -> Recovery:
    return Recovery("redis on example", classify, settings)


class Operation:
    """Does one thing after the other: raises, or returns."""

    def __init__(self, *outcomes: Any) -> None:
        self._outcomes = list(outcomes)
        self.calls = 0

    async def __call__(self) -> Any:
        self.calls += 1
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, Failure):
            raise Failed(outcome)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


async def never() -> None:
    await asyncio.Event().wait()


# --- the breaker --------------------------------------------------------------------------------------


def test_a_breaker_opens_after_so_many_failures_in_a_row_and_not_before() -> None:
    breaker, _ = a_breaker()

    for _ in range(SETTINGS.breaks_after - 1):
        breaker.failed(AWAY, is_probe=breaker.check())
    before = is_refused(breaker)
    breaker.failed(AWAY, is_probe=breaker.check())

    assert (before, is_refused(breaker)) == (False, True)


def test_an_answer_in_between_begins_the_count_anew() -> None:
    breaker, _ = a_breaker()

    for _ in range(SETTINGS.breaks_after - 1):
        breaker.failed(AWAY, is_probe=False, is_final=False)
    breaker.succeeded()
    breaker.failed(AWAY, is_probe=False)

    assert not is_refused(breaker)


@pytest.mark.parametrize("kind", NOT_BREAKING)
def test_a_server_that_answers_with_a_refusal_is_asked_again_at_once(kind: Kind) -> None:
    breaker, _ = a_breaker()

    for _ in range(2 * SETTINGS.breaks_after):
        breaker.failed(Failure(kind, "no"), is_probe=breaker.check())

    assert not is_refused(breaker)


def test_a_refusal_says_what_is_wrong_with_which_server() -> None:
    breaker, _ = a_breaker()
    broken(breaker)

    with pytest.raises(Storage, match=r"^redis on example is away: connection refused$"):
        breaker.check()


def test_after_its_rest_one_call_may_try_and_no_other_until_it_has_ended() -> None:
    breaker, clock = a_breaker()
    broken(breaker)

    clock.now += SETTINGS.rest - 0.01
    early = is_refused(breaker)
    clock.now += 0.01
    is_probe = breaker.check()

    assert (early, is_probe, is_refused(breaker)) == (True, True, True)


def test_a_probe_that_succeeds_lets_everybody_in_again() -> None:
    breaker, clock = a_breaker()
    broken(breaker)
    clock.now += SETTINGS.rest

    breaker.check()
    breaker.succeeded()

    assert [breaker.check(), breaker.check()] == [False, False]
    assert breaker.degradations() == {}


def test_a_probe_that_fails_makes_the_rest_longer_up_to_a_limit() -> None:
    breaker, clock = a_breaker()
    broken(breaker)
    rests: list[float] = []

    for _ in range(5):
        begun = clock.now
        while is_refused(breaker):
            clock.now += 0.25
        rests.append(clock.now - begun)
        breaker.failed(AWAY, is_probe=breaker.check())

    assert rests == [1, 2, 4, 4, 4]


def test_a_probe_that_is_cancelled_leaves_its_place_to_another() -> None:
    breaker, clock = a_breaker()
    broken(breaker)
    clock.now += SETTINGS.rest

    breaker.abandoned(is_probe=breaker.check())

    assert breaker.check()


def test_calls_from_before_it_opened_neither_prolong_the_rest_nor_let_in_a_second_probe() -> None:
    breaker, clock = a_breaker()
    early = [breaker.check() for _ in range(20)]
    broken(breaker)

    for is_probe in early[:10]:
        breaker.failed(AWAY, is_probe=is_probe)
    clock.now += SETTINGS.rest
    probe = breaker.check()
    for is_probe in early[10:]:
        breaker.failed(AWAY, is_probe=is_probe)
        breaker.abandoned(is_probe=is_probe)

    assert (probe, is_refused(breaker)) == (True, True)


def test_a_call_from_before_it_opened_that_is_answered_closes_it() -> None:
    breaker, _ = a_breaker()
    broken(breaker)

    breaker.succeeded()

    assert not is_refused(breaker)


def test_the_rest_is_short_again_after_the_server_has_answered_with_a_refusal() -> None:
    breaker, clock = a_breaker()
    broken(breaker)
    for _ in range(3):
        clock.now += SETTINGS.longest_rest
        breaker.failed(AWAY, is_probe=breaker.check())
    clock.now += SETTINGS.longest_rest
    breaker.failed(FULL, is_probe=breaker.check())

    broken(breaker)
    clock.now += SETTINGS.rest

    assert not is_refused(breaker)


# --- health and logs ----------------------------------------------------------------------------------


def events(logs: Iterable[Any]) -> list[str]:
    return [f"{log['event']} {log.get('kind', '')}".strip() for log in logs]


def test_a_server_that_is_away_is_logged_once_and_its_return_once() -> None:
    breaker, clock = a_breaker()

    with capture_logs() as logs:
        broken(breaker)
        for _ in range(10):
            clock.now += SETTINGS.longest_rest
            breaker.failed(AWAY, is_probe=breaker.check())
        clock.now += SETTINGS.longest_rest
        breaker.check()
        for _ in range(10):
            breaker.succeeded()

    assert events(logs) == ["storage_server_failed away", "storage_server_recovered"]


def test_a_server_that_fails_in_two_ways_by_turns_is_logged_once_for_each() -> None:
    breaker, _ = a_breaker()

    with capture_logs() as logs:
        for _ in range(10):
            breaker.failed(FULL, is_probe=False)
            breaker.failed(Failure(Kind.READ_ONLY, "a replica"), is_probe=False)

    assert events(logs) == ["storage_server_failed full", "storage_server_failed read-only"]


def test_reads_that_succeed_between_writes_that_fail_are_no_recovery() -> None:
    breaker, clock = a_breaker()

    with capture_logs() as logs:
        for _ in range(10):
            breaker.failed(FULL, is_probe=False)
            clock.now += SETTINGS.settles_after / 2
            breaker.succeeded()
        meanwhile = breaker.degradations()
        clock.now += SETTINGS.settles_after / 2
        breaker.succeeded()

    assert meanwhile == {"redis on example": "full: no space"}
    assert breaker.degradations() == {}
    assert events(logs) == ["storage_server_failed full", "storage_server_recovered"]


def test_a_failure_that_the_next_try_repairs_is_neither_logged_nor_shown() -> None:
    breaker, _ = a_breaker()

    with capture_logs() as logs:
        breaker.failed(AWAY, is_probe=False, is_final=False)
        shown = breaker.degradations()
        breaker.succeeded()

    assert (shown, events(logs)) == ({}, [])


def test_a_breaker_that_opens_is_logged_though_no_caller_was_told_yet() -> None:
    breaker, _ = a_breaker()

    for _ in range(SETTINGS.breaks_after):
        breaker.failed(AWAY, is_probe=breaker.check(), is_final=False)

    assert breaker.degradations() == {"redis on example": "away: connection refused"}


# --- calls --------------------------------------------------------------------------------------------


async def test_what_may_be_repeated_is_tried_until_it_succeeds() -> None:
    operation = Operation(AWAY, Failure(Kind.BUSY, "loading"), "done")

    assert await recovery().call(operation, may_repeat=True) == "done"


async def test_so_many_tries_and_no_more() -> None:
    operation = Operation(*[Failure(Kind.BUSY, "loading")] * 9)

    with pytest.raises(Storage, match=r"^redis on example is busy: loading$"):
        await recovery().call(operation, may_repeat=True)

    assert operation.calls == SETTINGS.tries


@pytest.mark.parametrize("kind", sorted(Kind))
async def test_what_may_not_be_repeated_is_repeated_only_if_it_was_not_done(kind: Kind) -> None:
    silent = Operation(Failure(kind, "?"), "done")
    undone = Operation(Failure(kind, "?", is_undone=True), "done")

    outcomes = [await outcome(recovery(), each, may_repeat=False) for each in (silent, undone)]

    expected = "done" if kind in PASSING else Storage
    assert outcomes == [OutcomeUnknown if kind in BREAKING else expected, expected]


async def test_an_answer_that_takes_too_long_is_an_unknown_outcome_for_a_write_and_a_failure_for_a_read() -> None:
    hasty = RecoverySettings(timeout=0.001, tries=1)

    write = await outcome(recovery(hasty), never, may_repeat=False)
    read = await outcome(recovery(hasty), never, may_repeat=True)

    assert (write, read) == (OutcomeUnknown, Storage)


async def test_an_error_of_ours_is_passed_on_and_shows_that_the_server_answers() -> None:
    server = recovery()
    for _ in range(SETTINGS.breaks_after - 1):
        server.breaker.failed(AWAY, is_probe=False)

    with pytest.raises(Conflict):
        await server.call(Operation(Conflict("version 3")), may_repeat=True)

    assert server.breaker.degradations() == {}


async def test_a_mistake_in_the_code_is_passed_on_and_says_nothing_of_the_server() -> None:
    server = recovery(RecoverySettings(breaks_after=1, rest=0))
    server.breaker.failed(AWAY, is_probe=False)

    with pytest.raises(TypeError):
        await server.call(Operation(TypeError("None has no length")), may_repeat=True)

    assert server.breaker.degradations() == {"redis on example": "away: connection refused"}
    assert await server.call(Operation("done"), may_repeat=True) == "done"


async def test_a_call_that_is_cancelled_as_the_probe_does_not_lock_others_out() -> None:
    server = recovery(RecoverySettings(breaks_after=1, rest=0))
    server.breaker.failed(AWAY, is_probe=False)

    async with asyncio.TaskGroup() as group:
        probe = group.create_task(server.call(never, may_repeat=True))
        await asyncio.sleep(0)
        with pytest.raises(Storage):
            await server.call(Operation("refused"), may_repeat=True)
        probe.cancel()

    assert probe.cancelled()
    assert await server.call(Operation("done"), may_repeat=True) == "done"


async def test_a_call_that_is_cancelled_is_not_tried_again() -> None:
    operation = Operation(asyncio.CancelledError(), "done")

    with pytest.raises(asyncio.CancelledError):
        await recovery().call(operation, may_repeat=True)

    assert operation.calls == 1


async def test_a_broken_server_is_not_asked() -> None:
    server = recovery()
    broken(server.breaker)
    operation = Operation("done")

    with pytest.raises(Storage):
        await server.call(operation, may_repeat=True)

    assert operation.calls == 0


@given(
    number=st.integers(1, 60),
    first=st.floats(0.001, 1),
    longest=st.floats(0.001, 5),
)
def test_a_pause_is_between_nothing_and_what_doubles_with_each_try(number: int, first: float, longest: float) -> None:
    server = recovery(RecoverySettings(first_pause=first, longest_pause=longest))

    pauses = [server.pause(number) for _ in range(examples(20))]

    assert 0 <= min(pauses) <= max(pauses) <= min(longest, first * 2 ** (number - 1))


def test_pauses_are_spread_over_all_of_their_range() -> None:
    server = recovery(RecoverySettings(first_pause=1, longest_pause=1))

    pauses = [server.pause(1) for _ in range(1000)]

    assert min(pauses) < 0.1
    assert max(pauses) > 0.9


async def outcome(server: Recovery, operation: Callable[[], Awaitable[Any]], *, may_repeat: bool) -> Any:
    """What the call returns, or the type of what it raises."""
    try:
        return await server.call(operation, may_repeat=may_repeat)
    except Storage as error:
        return type(error)
