"""The log of security events: who and what, once per minute, and how often."""

from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from roomkey.security.event_log import OTHERS, SecurityEventLog
from roomkey.security.events import SecurityEvents
from roomkey.testing.clock import ManualClock
from tests.support.sessions import NOON

SECOND = timedelta(seconds=1)


class Desk:
    """Where events are reported, and the lines that come of it."""

    def __init__(self, max_sources: int = 200) -> None:
        self.clock = ManualClock(NOON)
        self.lines: list[dict[str, Any]] = []
        self.log = SecurityEventLog(self._say, max_sources=max_sources)
        self.events = SecurityEvents(self.clock)
        self.events.listen(self.log)

    def _say(self, level: int, event: str, **fields: Any) -> None:
        self.lines.append({"level": level, "event": event, **fields})

    def report(self, times: int, address: str | None = "192.0.2.7", cause: str = "invalid_token") -> None:
        for _ in range(times):
            self.events.refused(cause, address=address, actor="key:backend")

    def later(self, seconds: float = 60) -> None:
        self.clock.advance(SECOND * seconds)
        self.log.tick(self.clock.now())

    @property
    def counted(self) -> list[tuple[str, str, int]]:
        return [(line["cause"], line["source"], line["count"]) for line in self.lines]


def test_the_first_one_is_logged_at_once_and_the_others_once_a_minute() -> None:
    desk = Desk()

    desk.report(1_000)
    assert desk.counted == [("invalid_token", "192.0.2.7", 1)]
    desk.later()
    desk.report(10)
    desk.later(59)
    assert desk.counted[1:] == [("invalid_token", "192.0.2.7", 999)]
    desk.later(1)

    assert desk.counted[2:] == [("invalid_token", "192.0.2.7", 10)]


def test_a_line_says_who_and_where() -> None:
    desk = Desk()

    desk.events.refused("token_rotated", address="2001:db8::5", actor="session:x", user="alice", place="get_mine")

    (line,) = desk.lines
    assert line == {
        "level": 30,
        "event": "security_event",
        "type": "token_reuse",
        "cause": "token_rotated",
        "source": "2001:db8::/64",
        "count": 1,
        "actor": "session:x",
        "user": "alice",
        "address": "2001:db8::5",
        "place": "get_mine",
    }


def test_kinds_and_sources_are_counted_apart() -> None:
    desk = Desk()

    for address in ("192.0.2.7", "192.0.2.8", None):
        desk.report(3, address)
        desk.report(3, address, "forbidden")
    desk.later()

    sources = ("192.0.2.7", "192.0.2.8", "key:backend")
    assert sorted(desk.counted) == sorted(
        (cause, source, count) for cause in ("invalid_token", "forbidden") for source in sources for count in (1, 2)
    )


def test_a_hundred_thousand_sources_are_some_lines_and_one() -> None:
    desk = Desk(max_sources=10)

    for number in range(1_000):
        desk.report(1, f"10.0.{number >> 8}.{number & 255}")
    desk.later()

    assert len(desk.lines) == 12
    assert desk.counted[-1] == ("invalid_token", OTHERS, 989)
    assert "address" not in desk.lines[-1]


def test_who_is_quiet_is_forgotten_and_begins_anew() -> None:
    desk = Desk()
    desk.report(2)
    desk.later()
    desk.later()

    desk.report(1)

    assert [count for _, _, count in desk.counted] == [1, 1, 1]


def test_at_the_end_what_was_counted_is_said() -> None:
    desk = Desk()
    desk.report(5)

    desk.log.flush()
    desk.log.flush()

    assert [count for _, _, count in desk.counted] == [1, 4]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 50))))
def test_no_event_is_lost(reports: list[tuple[str, int]]) -> None:
    desk = Desk(max_sources=3)

    for source, pause in reports:
        desk.report(1, source)
        desk.later(pause)
    desk.log.flush()

    assert sum(count for _, _, count in desk.counted) == len(reports)
