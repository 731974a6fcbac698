"""What is kept of a client, so that one device looks the same from one request to the next."""

from datetime import timedelta

import pytest

from roomkey.domain.session import Client
from roomkey.domain.token_uses import Place, TokenUse, is_worth_noting, noted
from tests.support.sessions import NOON

WINDOW = timedelta(minutes=10)
WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"


@pytest.mark.parametrize(
    ("user_agent", "program"),
    [
        (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/140.0.0.0 Safari/537.36", "Chrome Windows"),
        (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/141.1 Safari/537.36", "Chrome Windows"),
        (f"Mozilla/5.0 (Windows NT 10.0) {WEBKIT} Chrome/140.0 Safari/537.36 Edg/140.0", "Edg Windows"),
        (f"Mozilla/5.0 (Linux; Android 15) {WEBKIT} Chrome/140.0 Mobile Safari/537.36", "Chrome Android"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1", "Safari iPhone"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox Macintosh"),
        ("python-httpx/0.28.1", "python-httpx"),
        ("node", "node"),
        ("(strange)", "?"),
        ("", None),
        (None, None),
    ],
)
def test_a_program_is_known_by_its_family(user_agent: str | None, program: str | None) -> None:
    assert Place.of(Client(user_agent=user_agent)).program == program


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", None),
        (None, None),
    ],
)
def test_an_address_stands_for_its_network(ip: str | None, network: str | None) -> None:
    assert Place.of(Client(ip=ip)).network == network


def test_ipv4_and_ipv6_of_one_device_are_not_two_networks() -> None:
    assert not Place.of(Client(ip="192.0.2.7")).has_other_network(Place.of(Client(ip="2001:db8::1")))


def test_a_use_after_a_long_pause_starts_anew() -> None:
    use = TokenUse(Place(), is_current=True, first_at=NOON, last_at=NOON)
    soon, late = NOON + WINDOW / 2, NOON + WINDOW * 2

    joined = noted((use,), TokenUse(Place(), is_current=True, first_at=soon, last_at=soon), WINDOW)
    anew = noted((use,), TokenUse(Place(), is_current=True, first_at=late, last_at=late), WINDOW)

    assert [(each.first_at, each.last_at) for each in joined] == [(NOON, soon)]
    assert [(each.first_at, each.last_at) for each in anew] == [(late, late)]


def test_the_place_seen_longest_ago_makes_room() -> None:
    uses: tuple[TokenUse, ...] = ()

    for number in range(6):
        at = NOON + timedelta(seconds=number)
        uses = noted(uses, TokenUse(Place(network=str(number)), is_current=False, first_at=at, last_at=at), WINDOW)

    assert [use.place.network for use in uses] == ["2", "3", "4", "5"]


def test_only_what_would_mislead_is_worth_a_write() -> None:
    here, there = Place(network="here"), Place(network="there")
    known = (
        TokenUse(there, is_current=True, first_at=NOON, last_at=NOON),
        TokenUse(here, is_current=True, first_at=NOON, last_at=NOON + timedelta(seconds=1)),
    )
    stray = TokenUse(there, is_current=False, first_at=NOON, last_at=NOON)

    def is_worth(uses: tuple[TokenUse, ...], place: Place, after: timedelta, *, is_current: bool = True) -> bool:
        at = NOON + after
        return is_worth_noting(uses, TokenUse(place, is_current, at, at), WINDOW)

    assert not is_worth(known, here, WINDOW * 5)  # where it was last
    assert is_worth(known, there, WINDOW * 5)  # back again
    assert is_worth(known, Place(network="new"), timedelta())
    assert is_worth((*known, stray), here, WINDOW * 5)  # beside a replaced one
    assert is_worth((*known, stray), there, WINDOW, is_current=False)
    assert not is_worth((*known, stray), there, WINDOW / 20, is_current=False)  # it knocks all the time
