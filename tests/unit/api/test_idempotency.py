"""Requests that are sent again are not done again."""

from datetime import timedelta

import pytest

from roomkey.api.http_messages import Reply
from roomkey.api.idempotency import ENTRY_OVERHEAD_BYTES, Idempotency
from roomkey.errors import IdempotencyKeyReused, MalformedRequest, RequestInProgress
from roomkey.testing.clock import ManualClock
from tests.support.rest import START

DAY = timedelta(days=1)


def store(max_bytes: int = 1 << 20) -> tuple[Idempotency, ManualClock]:
    clock = ManualClock(START)
    return Idempotency(clock, window=DAY, max_bytes=max_bytes), clock


def ask(kept: Idempotency, key: str, request: bytes = b"body", *, caller: str = "key:a", answer: bytes = b"1") -> bytes:
    """Do ``request`` if it was not done yet, and return what is answered."""
    with kept.attempt(caller, key, request) as attempt:
        if attempt.earlier is not None:
            return attempt.earlier.body
        attempt.reply = Reply(201, answer, [])
        return answer


def test_the_second_request_gets_the_answer_of_the_first() -> None:
    kept, _ = store()

    answers = [ask(kept, "k", answer=b"first"), ask(kept, "k", answer=b"second")]

    assert answers == [b"first", b"first"]


def test_an_answer_from_earlier_says_so() -> None:
    kept, _ = store()
    ask(kept, "k")

    with kept.attempt("key:a", "k", b"body") as attempt:
        earlier = attempt.earlier

    assert earlier is not None
    assert (b"idempotent-replayed", b"true") in earlier.headers
    assert earlier.status == 201


def test_a_key_belongs_to_one_request() -> None:
    kept, _ = store()
    ask(kept, "k", b"one")

    with pytest.raises(IdempotencyKeyReused):
        ask(kept, "k", b"other")


def test_callers_do_not_see_each_others_answers() -> None:
    kept, _ = store()
    ask(kept, "k", answer=b"for a")

    answer = ask(kept, "k", caller="key:b", answer=b"for b")

    assert answer == b"for b"


def test_while_the_first_is_being_answered_the_second_is_told_to_wait() -> None:
    kept, _ = store()

    with kept.attempt("key:a", "k", b"body"), pytest.raises(RequestInProgress):
        ask(kept, "k")


def test_what_failed_may_be_sent_again() -> None:
    kept, _ = store()
    with pytest.raises(ValueError, match="no"), kept.attempt("key:a", "k", b"wrong"):
        raise ValueError("no")
    with kept.attempt("key:a", "k", b"also wrong") as attempt:
        attempt.reply = Reply(409, b"", [])

    answer = ask(kept, "k", b"right", answer=b"done")

    assert answer == b"done"
    assert kept.size == ENTRY_OVERHEAD_BYTES + 4


def test_answers_are_forgotten_after_a_day() -> None:
    kept, clock = store()
    ask(kept, "k", answer=b"first")
    clock.advance(DAY - timedelta(seconds=1))
    still = ask(kept, "k", answer=b"second")
    clock.advance(timedelta(seconds=1))

    answer = ask(kept, "other")

    assert still == b"first"
    assert answer == b"1"
    assert kept.size == ENTRY_OVERHEAD_BYTES + 1  # the day's tokens are gone from memory, asked for or not
    assert ask(kept, "k", answer=b"third") == b"third"


def test_memory_is_bounded_and_the_oldest_go_first() -> None:
    kept, _ = store(max_bytes=3 * (ENTRY_OVERHEAD_BYTES + 100))

    for number in range(50):
        ask(kept, f"k{number}", answer=bytes(100))

    assert kept.size == 3 * (ENTRY_OVERHEAD_BYTES + 100)
    assert ask(kept, "k47", answer=b"new") == bytes(100)
    assert ask(kept, "k46", answer=b"new") == b"new"


def test_what_is_being_answered_is_not_pushed_out() -> None:
    kept, _ = store(max_bytes=1)

    with kept.attempt("key:a", "slow", b"body") as attempt:
        for number in range(10):
            ask(kept, f"k{number}")
        with pytest.raises(RequestInProgress):
            ask(kept, "slow")
        attempt.reply = Reply(201, b"", [])

    assert kept.size == 0


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é", "a\tb", "\x7f"])
def test_a_key_is_visible_ascii(key: str) -> None:
    kept, _ = store()

    with pytest.raises(MalformedRequest):
        ask(kept, key)


@pytest.mark.parametrize("key", ["!", "x" * 255, '"8e03978e-40d5"', "~"])
def test_any_visible_key_will_do(key: str) -> None:
    kept, _ = store()

    assert ask(kept, key) == b"1"
