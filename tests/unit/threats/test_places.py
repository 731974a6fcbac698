"""What tells one client from another: networks and programs; and what does not."""

import pytest

from roomkey.domain.session import Client
from roomkey.threats.places import MAX_PLACES, Place, are_apart, changes, place_of, remembered
from roomkey.threats.settings import ThreatSettings
from roomkey.threats.signals import Signal
from tests.support.threats import CHROME, FIREFOX, NEWER_FIREFOX

SETTINGS = ThreatSettings()


def at(ip: str | None = None, agent: str | None = None) -> Place:
    return place_of(Client(ip=ip, user_agent=agent), SETTINGS)


def signals(known: Place, seen: Place) -> set[Signal]:
    return {signal for signal, _ in changes([known], seen)}


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ("203.0.113.7", "203.0.113.250", set[Signal]()),
        ("203.0.113.7", "203.0.112.7", {Signal.NETWORK}),
        ("2001:db8:1::7", "2001:db8:1:ffff::9", set[Signal]()),
        ("2001:db8:1::7", "2001:db8:2::7", {Signal.NETWORK}),
        ("::ffff:203.0.113.7", "203.0.113.9", set[Signal]()),
        ("203.0.113.7", "2001:db8:1::7", set[Signal]()),  # both of one host
        ("10.0.0.1", "203.0.113.7", set[Signal]()),  # another proxy stands in front of us
        ("fe80::1", "2001:db8:1::7", set[Signal]()),
        ("10.0.0.1", "10.0.1.1", {Signal.NETWORK}),
        ("203.0.113.7", "not an address", set[Signal]()),
    ],
)
def test_another_network_is_one_that_the_same_host_cannot_have_beside(one: str, other: str, found: set[Signal]) -> None:
    assert signals(at(one), at(other)) == found
    assert are_apart(at(one), at(other)) == (found == {Signal.NETWORK})


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        (FIREFOX, NEWER_FIREFOX, set[Signal]()),
        (FIREFOX, CHROME, {Signal.PROGRAM}),
        (FIREFOX, FIREFOX.replace("X11; Linux x86_64", "Windows NT 10.0"), {Signal.PROGRAM}),
        (FIREFOX, None, {Signal.PROGRAM}),  # browsers always say what they are
        ("notes/1.2", None, set[Signal]()),
        ("notes/1.2", "notes/2.0", set[Signal]()),
        (None, CHROME, set[Signal]()),
    ],
)
def test_another_program_is_another_browser_or_system_and_not_another_version(
    one: str | None, other: str | None, found: set[Signal]
) -> None:
    assert signals(at(agent=one), at(agent=other)) == found


def test_the_first_place_stays_however_many_come_after_it() -> None:
    places: tuple[Place, ...] = ()
    for number in range(20):
        places = remembered(places, at(f"203.0.{number}.1"))

    assert len(places) == MAX_PLACES
    assert places[0] == at("203.0.0.1")
    assert places[-1] == at("203.0.19.1")


def test_prefixes_are_settings() -> None:
    wide = ThreatSettings(ipv4_prefix=16, ipv6_prefix=32)

    assert place_of(Client(ip="203.0.112.7"), wide) == place_of(Client(ip="203.0.1.7"), wide)
    assert place_of(Client(ip="2001:db8:1::7"), wide) == place_of(Client(ip="2001:db8:2::7"), wide)
