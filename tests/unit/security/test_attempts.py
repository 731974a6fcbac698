"""Whoever is wrong too often waits, longer each time; nobody else does."""

from datetime import timedelta

import pytest

from roomkey.errors import RateLimited
from roomkey.security.attempts import Attempts
from roomkey.security.limits import LimitSettings

HERE, ELSEWHERE = "192.0.2.7", "198.51.100.9"
RIGHT = "ab12.right"


class Door:
    """A door at which wrong tokens are shown, and a time that goes on when it is told to."""

    def __init__(self, capacity: int = 1_000, **settings: object) -> None:
        self.time = 1_000.0
        limits = {"failure_burst": 5, "failures_per_second": 1.0, "session_failure_burst": 3, **settings}
        self.attempts = Attempts(LimitSettings(**limits), capacity=capacity, now=lambda: self.time)  # pyright: ignore[reportArgumentType]

    def wait(self, address: str | None = HERE, token: str = "wrong") -> float:
        """How long a token must wait before it is looked at."""
        try:
            self.attempts.check(address, token)
        except RateLimited as refusal:
            return refusal.wait
        return 0.0

    def fail(self, times: int, address: str | None = HERE, token: str = "wrong") -> None:
        for _ in range(times):
            self.attempts.failed(address, token)


def test_some_wrong_tokens_are_nothing_to_wait_for() -> None:
    door = Door()

    door.fail(5)

    assert door.wait() == 0


def test_the_delay_doubles_with_each_failure_up_to_its_bound() -> None:
    door = Door(max_failure_delay=timedelta(seconds=10))
    door.fail(5)

    waits: list[float] = []
    for _ in range(6):
        door.fail(1)
        waits.append(door.wait())
        door.time += waits[-1]
        assert door.wait() == 0

    assert waits == pytest.approx([1, 2, 4, 8, 10, 10])


def test_who_behaves_well_for_a_while_begins_anew() -> None:
    door = Door()
    door.fail(8)

    door.time += door.wait() + 5.1
    door.fail(5)

    assert door.wait() == 0
    door.fail(1)
    assert door.wait() == pytest.approx(1)


def test_other_networks_do_not_wait() -> None:
    door = Door()

    door.fail(10)
    door.fail(10, "2001:db8::1")

    assert door.wait(ELSEWHERE) == 0
    assert door.wait("2001:db8:0:1::1") == 0
    assert door.wait("2001:db8::2") > 0
    assert door.wait("::ffff:192.0.2.7") > 0


def test_a_token_that_was_right_is_looked_at_all_the_same() -> None:
    door = Door()
    door.attempts.succeeded(RIGHT)

    door.fail(10)

    assert door.wait(token=RIGHT) == 0
    assert door.wait(token="ab12.right?") > 0


def test_a_token_that_was_right_and_is_wrong_now_is_like_any_other() -> None:
    door = Door()
    door.attempts.succeeded(RIGHT)

    door.fail(10, token=RIGHT)

    assert door.wait(token=RIGHT) > 0


def test_one_session_is_guessed_at_from_one_network_only_a_few_times_and_others_are_not_kept_out() -> None:
    door = Door(failure_burst=1_000)

    door.fail(4, token="ab12.guess")

    assert door.wait(token="ab12.another") > 0
    assert door.wait(token="cd34.another") == 0
    assert door.wait(ELSEWHERE, "ab12.another") == 0


def test_who_is_exempt_or_has_no_address_never_waits() -> None:
    door = Door(exempt_networks=("192.0.2.0/24",))

    door.fail(100)
    door.fail(100, None)

    assert door.wait() == 0
    assert door.wait(None) == 0


def test_a_million_failures_of_many_are_held_in_bounded_memory() -> None:
    door = Door(capacity=100)

    for number in range(10_000):
        door.fail(1, f"10.0.{number >> 8}.{number & 255}", f"{number:08x}.x")
        door.attempts.succeeded(f"{number:08x}.y")

    assert len(door.attempts) == 300


def test_who_has_failed_last_is_not_forgotten_for_those_before() -> None:
    door = Door(capacity=2)
    door.fail(10, "192.0.2.1")
    door.fail(10, "192.0.2.2")
    door.fail(1, "192.0.2.1")
    door.fail(10, "192.0.2.3")

    assert door.wait("192.0.2.1") > 0
    assert door.wait("192.0.2.3") > 0
    assert door.wait("192.0.2.2") == 0
