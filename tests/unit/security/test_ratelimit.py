"""Budgets: a burst, then a rate, and nothing is charged to who is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkey.security.ratelimit import Bucket, Rate

NOW = 1_767_355_200.0


def test_a_burst_passes_and_the_next_one_waits() -> None:
    bucket = Bucket(Rate(per_second=10, burst=5))

    waits = [bucket.take(1, NOW) for _ in range(6)]

    assert waits[:5] == [0, 0, 0, 0, 0]
    assert waits[5] == pytest.approx(0.1, abs=1e-5)


def test_who_comes_back_when_told_is_let_through() -> None:
    bucket = Bucket(Rate(per_second=10, burst=1))
    bucket.take(1, NOW)

    wait = bucket.take(1, NOW)

    assert bucket.take(1, NOW + wait + 1e-6) == 0


def test_who_is_refused_is_charged_nothing() -> None:
    bucket = Bucket(Rate(per_second=1, burst=1))
    bucket.take(1, NOW)

    for _ in range(100):
        bucket.take(1, NOW + 0.5)

    assert bucket.take(1, NOW + 1.001) == 0


def test_more_than_a_burst_at_once_passes_only_on_a_full_budget() -> None:
    bucket = Bucket(Rate(per_second=10, burst=5))

    first, second = bucket.take(1000, NOW), bucket.take(1, NOW)

    assert first == 0
    assert second > 0


def test_a_clock_that_is_set_back_locks_nobody_out_for_longer_than_a_burst() -> None:
    bucket = Bucket(Rate(per_second=10, burst=5))
    bucket.take(5, NOW)

    bucket.take(1, NOW - 3600)

    assert bucket.take(1, NOW - 3600 + 0.2) == 0


def test_a_bucket_is_full_again_after_a_pause() -> None:
    bucket = Bucket(Rate(per_second=10, burst=5))
    bucket.take(5, NOW)

    assert not bucket.is_full(NOW + 0.4)
    assert bucket.is_full(NOW + 0.6)


@given(
    rate=st.floats(0.1, 1000),
    burst=st.integers(1, 20),
    pauses=st.lists(st.just(0.0) | st.floats(0, 0.1) | st.floats(0, 10), min_size=5, max_size=50),
)
def test_no_window_lets_more_through_than_burst_and_rate_allow(rate: float, burst: int, pauses: list[float]) -> None:
    bucket = Bucket(Rate(per_second=rate, burst=burst))
    now, passed = NOW, 0

    for pause in pauses:
        now += pause
        passed += bucket.take(1, now) == 0

    assert passed <= burst + (now - NOW) * rate + 0.01
