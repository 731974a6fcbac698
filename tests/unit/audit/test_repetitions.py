"""An attacker cannot fill the log, and nothing that is refused goes uncounted."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from roomkey.audit.repetitions import MAX_KINDS, WINDOW, Repetitions
from roomkey.security.events import SecurityEvent, SecurityEventType
from tests.support.audit_trail import NOON

UNKNOWN = SecurityEventType.UNKNOWN_SESSION


def event(seconds: float = 0, **fields: Any) -> SecurityEvent:
    given: dict[str, Any] = {"type": UNKNOWN, "cause": "invalid_token", "address": "192.0.2.1", **fields}
    return SecurityEvent(at=NOON + timedelta(seconds=seconds), **given)


def test_the_first_of_a_source_is_recorded_at_once_and_the_others_once_a_minute() -> None:
    repetitions = Repetitions()

    first = repetitions.note(event())
    others = [repetitions.note(event(second)) for second in range(1, 60)]

    assert first is not None
    assert (first.count, first.address) == (1, "192.0.2.1")
    assert others == [None] * 59
    assert repetitions.over(NOON + WINDOW - timedelta(seconds=1)) == []
    [summary] = repetitions.over(NOON + WINDOW)
    assert (summary.count, summary.until) == (59, NOON + timedelta(seconds=59))
    assert repetitions.note(event(61)) is not None


def test_a_source_that_tried_once_leaves_nothing_behind() -> None:
    repetitions = Repetitions()
    repetitions.note(event())

    assert repetitions.over(NOON + WINDOW) == []
    assert len(repetitions) == 0


def test_addresses_of_one_ipv6_network_are_one_source_and_sessions_are_told_apart() -> None:
    repetitions = Repetitions()
    fields: Sequence[dict[str, Any]] = (
        {"address": "2001:db8::1"},
        {"address": "2001:db8::2"},
        {"address": "2001:db8:0:1::1"},
        {"session": "s1", "address": "2001:db8::1"},
        {"session": "s2", "address": "2001:db8::1"},
        {"cause": "token_rotated", "address": "2001:db8::1"},
    )

    recorded = [repetitions.note(event(**each)) is not None for each in fields]

    assert recorded == [True, False, True, True, True, True]


def test_a_hundred_thousand_addresses_are_a_bounded_number_of_records() -> None:
    repetitions = Repetitions(most=100)
    noted = [repetitions.note(event(address=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")) for n in range(100_000)]

    at_once = [record for record in noted if record is not None]

    assert len(at_once) == 100
    assert len(repetitions) == 101
    [summary] = repetitions.over(NOON + WINDOW)
    assert (summary.count, summary.details, summary.address) == (99_900, {"sources": "many"}, None)


def test_many_kinds_of_refusals_are_bounded_too() -> None:
    repetitions = Repetitions(most=10)

    for number in range(2_000):
        repetitions.note(event(cause=f"cause_{number}"))

    assert len(repetitions) <= 10 + MAX_KINDS + 1
    assert 10 + sum(record.count for record in repetitions.all()) == 2_000


def test_what_was_accomplished_is_recorded_each_time() -> None:
    repetitions = Repetitions()
    rotated = event(type=SecurityEventType.KEY_ROTATED)

    recorded = [repetitions.note(rotated), repetitions.note(rotated), repetitions.note(rotated, hold=True)]

    assert [record is not None for record in recorded] == [True, True, True]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40), st.booleans()), max_size=60),
    st.integers(1, 4),
)
def test_every_event_is_counted_once(steps: list[tuple[int, int, bool]], most: int) -> None:
    repetitions, now, counted = Repetitions(most=most), 0, 0

    for source, pause, hold in steps:
        now += pause
        counted += sum(record.count for record in repetitions.over(NOON + timedelta(seconds=now)))
        record = repetitions.note(event(now, address=f"192.0.2.{source}"), hold=hold)
        counted += 0 if record is None else record.count

    assert counted + sum(record.count for record in repetitions.all()) == len(steps)
