"""Security events reach everyone who listens, and do no harm to whoever reports them."""

from datetime import UTC, datetime

from roomkey import errors
from roomkey.security.events import SecurityEvent, SecurityEvents, SecurityEventType
from roomkey.testing.clock import ManualClock

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def test_everyone_who_listens_is_told_in_turn_and_nobody_after_it_has_stopped() -> None:
    events = SecurityEvents(ManualClock(NOON))
    first: list[SecurityEvent] = []
    second: list[SecurityEvent] = []
    events.listen(first.append)
    stop = events.listen(second.append)

    events.report(SecurityEventType.INVALID_INPUT, "invalid_input", address="192.0.2.1")
    stop()
    events.report(SecurityEventType.CAP_REACHED, "cap_reached")

    assert [event.cause for event in first] == ["invalid_input", "cap_reached"]
    assert second == first[:1]
    assert (first[0].at, first[0].address, first[0].actor) == (NOON, "192.0.2.1", "anonymous")


def test_a_listener_that_fails_keeps_nothing_from_the_others_or_from_whoever_reports() -> None:
    events = SecurityEvents(ManualClock(NOON))
    told: list[SecurityEvent] = []

    def fail(_: SecurityEvent) -> None:
        raise LookupError

    events.listen(fail)
    events.listen(told.append)

    events.report(SecurityEventType.INVALID_INPUT, "invalid_input")

    assert len(told) == 1


def test_a_refusal_is_reported_as_the_kind_of_event_that_its_code_stands_for() -> None:
    events = SecurityEvents(ManualClock(NOON))
    told: list[SecurityEvent] = []
    events.listen(told.append)

    events.refused(errors.InvalidToken.code)
    events.refused(errors.OriginRejected.code)
    events.refused(errors.NotFound.code)

    assert [event.type for event in told] == [SecurityEventType.UNKNOWN_SESSION, SecurityEventType.ORIGIN_REJECTED]
