"""Requests that are sent again are not done again."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from roomkey.api.http_messages import Reply
from roomkey.api.idempotency import CLAIM_LIFETIME, Idempotency
from roomkey.backends.memory.one_time import ENTRY_OVERHEAD_BYTES, MemoryOneTime
from roomkey.errors import IdempotencyKeyReused, MalformedRequest, RequestInProgress, Storage
from roomkey.ports import OneTimeLimits
from roomkey.testing.clock import ManualClock
from tests.support.rest import START

DAY = timedelta(days=1)


class Desk:
    """Answers with what keeps them, and a clock that stands still."""

    def __init__(self, max_bytes: int = 1 << 20) -> None:
        self.clock = ManualClock(START)
        self.store = MemoryOneTime(self.clock, OneTimeLimits(bytes=max_bytes))
        self.kept = Idempotency(self.store, window=DAY)


async def ask(
    kept: Idempotency, key: str, request: bytes = b"body", *, caller: str = "key:a", answer: bytes = b"1"
) -> bytes:
    """Do ``request`` if it was not done yet, and return what is answered."""
    async with kept.attempt(caller, key, request) as attempt:
        if attempt.earlier is not None:
            return attempt.earlier.body
        attempt.reply = Reply(201, answer, [])
        return answer


async def test_the_second_request_gets_the_answer_of_the_first() -> None:
    kept = Desk().kept

    answers = [await ask(kept, "k", answer=b"first"), await ask(kept, "k", answer=b"second")]

    assert answers == [b"first", b"first"]


async def test_an_answer_from_earlier_says_so() -> None:
    kept = Desk().kept
    await ask(kept, "k")

    async with kept.attempt("key:a", "k", b"body") as attempt:
        earlier = attempt.earlier

    assert earlier is not None
    assert (b"idempotent-replayed", b"true") in earlier.headers
    assert earlier.status == 201


async def test_a_key_belongs_to_one_request() -> None:
    kept = Desk().kept
    await ask(kept, "k", b"one")

    with pytest.raises(IdempotencyKeyReused):
        await ask(kept, "k", b"other")


async def test_callers_do_not_see_each_others_answers() -> None:
    kept = Desk().kept
    await ask(kept, "k", answer=b"for a")

    answer = await ask(kept, "k", caller="key:b", answer=b"for b")

    assert answer == b"for b"


async def test_while_the_first_is_being_answered_the_second_is_told_to_wait() -> None:
    kept = Desk().kept

    async with kept.attempt("key:a", "k", b"body"):
        with pytest.raises(RequestInProgress):
            await ask(kept, "k")


async def test_what_failed_may_be_sent_again() -> None:
    desk = Desk()
    kept = desk.kept
    with pytest.raises(ValueError, match="no"):
        async with kept.attempt("key:a", "k", b"wrong"):
            raise ValueError("no")
    async with kept.attempt("key:a", "k", b"also wrong") as attempt:
        attempt.reply = Reply(409, b"", [])

    answer = await ask(kept, "k", b"right", answer=b"done")

    assert answer == b"done"
    assert len(desk.store) == 1


async def test_answers_are_forgotten_after_a_day() -> None:
    desk = Desk()
    kept, clock = desk.kept, desk.clock
    await ask(kept, "k", answer=b"first")
    clock.advance(DAY - timedelta(seconds=1))
    still = await ask(kept, "k", answer=b"second")
    clock.advance(timedelta(seconds=1))

    answer = await ask(kept, "other")

    assert still == b"first"
    assert answer == b"1"
    assert len(desk.store) == 1  # the day's tokens are gone from memory, asked for or not
    assert await ask(kept, "k", answer=b"third") == b"third"


async def test_memory_is_bounded_and_the_oldest_go_first() -> None:
    one = Desk()
    await ask(one.kept, "k", answer=bytes(100))
    desk = Desk(max_bytes=3 * one.store.size)
    kept = desk.kept

    for number in range(50):
        await ask(kept, f"k{number}", answer=bytes(100))

    assert one.store.size > ENTRY_OVERHEAD_BYTES + 100
    assert (len(desk.store), desk.store.size) == (3, 3 * one.store.size)
    assert await ask(kept, "k47", answer=b"new") == bytes(100)
    assert await ask(kept, "k46", answer=b"new") == b"new"


async def test_what_is_being_answered_is_not_pushed_out() -> None:
    desk = Desk(max_bytes=1)
    kept = desk.kept

    async with kept.attempt("key:a", "slow", b"body") as attempt:
        for number in range(10):
            await ask(kept, f"k{number}")
        with pytest.raises(RequestInProgress):
            await ask(kept, "slow")
        attempt.reply = Reply(201, b"", [])

    assert desk.store.size == 0


async def test_an_answer_comes_again_as_it_was() -> None:
    kept = Desk().kept
    headers = [(b"location", b"/sessions/\xe9"), (b"etag", b'"1"')]
    async with kept.attempt("key:a", "k", b"body") as first:
        first.reply = Reply(201, b"\x00\xff", headers)

    async with kept.attempt("key:a", "k", b"body") as second:
        earlier = second.earlier

    assert earlier is not None
    assert (earlier.status, earlier.body) == (201, b"\x00\xff")
    assert earlier.headers == [*headers, (b"idempotent-replayed", b"true")]


async def test_of_many_who_send_it_at_once_one_has_it_done() -> None:
    kept = Desk().kept
    done: list[int] = []

    async def send(number: int) -> bytes | None:
        try:
            async with kept.attempt("key:a", "k", b"body") as attempt:
                if attempt.earlier is not None:
                    return attempt.earlier.body
                await asyncio.sleep(0)
                done.append(number)
                attempt.reply = Reply(201, str(number).encode(), [])
                return attempt.reply.body
        except RequestInProgress:
            return None

    answers = await asyncio.gather(*(send(number) for number in range(10)))

    assert len(done) == 1
    assert set(answers) <= {None, str(done[0]).encode()}


async def test_who_was_too_slow_does_not_take_the_key_from_who_came_after() -> None:
    desk = Desk()
    async with desk.kept.attempt("key:a", "k", b"body") as slow:
        desk.clock.advance(CLAIM_LIFETIME)
        async with desk.kept.attempt("key:a", "k", b"body") as later:
            slow_answer, later.reply = Reply(201, b"slow", []), Reply(201, b"later", [])
        slow.reply = slow_answer

    assert later.earlier is None
    assert await ask(desk.kept, "k") == b"later"


async def test_who_gives_up_too_late_does_not_free_the_key_of_who_came_after() -> None:
    desk = Desk()
    async with AsyncExitStack() as later:
        async with desk.kept.attempt("key:a", "k", b"body"):
            desk.clock.advance(CLAIM_LIFETIME)
            await later.enter_async_context(desk.kept.attempt("key:a", "k", b"body"))

        with pytest.raises(RequestInProgress):
            await ask(desk.kept, "k")


class AwayAfterwards(MemoryOneTime):
    """Loses its connection once it has taken a claim."""

    async def replace(self, key: str, expected: bytes, value: bytes, lifetime: timedelta) -> bool:
        del key, expected, value, lifetime
        raise Storage("the connection is lost")


async def test_what_was_done_is_answered_even_if_the_answer_cannot_be_kept() -> None:
    kept = Idempotency(AwayAfterwards(ManualClock(START), OneTimeLimits()), window=DAY)

    answer = await ask(kept, "k", answer=b"done")

    assert answer == b"done"
    with pytest.raises(RequestInProgress):
        await ask(kept, "k")


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é", "a\tb", "\x7f"])
async def test_a_key_is_visible_ascii(key: str) -> None:
    kept = Desk().kept

    with pytest.raises(MalformedRequest):
        await ask(kept, key)


@pytest.mark.parametrize("key", ["!", "x" * 255, '"8e03978e-40d5"', "~"])
async def test_any_visible_key_will_do(key: str) -> None:
    kept = Desk().kept

    assert await ask(kept, key) == b"1"
