"""One device is never taken for two parties, wherever it goes; two parties are always found out."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from roomkey.domain.session import Client
from roomkey.domain.token_uses import MAX_PLACES, Place, TokenUse, is_theft, noted
from tests.support.sessions import NOON

WINDOW = timedelta(minutes=10)
PROGRAMS = ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "curl/8.0")

pauses = st.integers(0, 3600).map(lambda seconds: timedelta(seconds=seconds))


class Watch:
    """What storage remembers of one session, and whether it ever looked like a theft."""

    def __init__(self) -> None:
        self.uses: tuple[TokenUse, ...] = ()
        self.now = NOON
        self.seen_at = NOON

    def use(self, client: Client, *, is_current: bool, after: timedelta) -> bool:
        self.now += after
        use = TokenUse(Place.of(client), is_current, self.now, self.now)
        self.uses = noted(self.uses, use, WINDOW)
        if is_current:
            self.seen_at = self.now
        assert sum(use.is_current for use in self.uses) <= MAX_PLACES
        assert sum(not use.is_current for use in self.uses) <= MAX_PLACES
        return is_theft(self.uses, now=self.now, last_seen_at=self.seen_at, window=WINDOW)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), pauses), max_size=40))
def test_a_device_that_moves_on_and_on_is_no_theft(steps: list[tuple[bool, bool, timedelta]]) -> None:
    watch = Watch()
    network = 0

    for moves, is_current, after in steps:
        network += moves
        device = Client(ip=f"192.0.2.{network}", user_agent=PROGRAMS[0])

        assert not watch.use(device, is_current=is_current, after=after)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2**64 - 1), pauses), max_size=40))
def test_a_device_that_changes_its_ipv6_address_all_the_time_is_no_theft(
    steps: list[tuple[bool, int, timedelta]],
) -> None:
    watch = Watch()

    for is_current, host, after in steps:
        groups = ":".join(f"{host >> shift & 0xFFFF:x}" for shift in (48, 32, 16, 0))
        device = Client(ip=f"2001:db8:1:2:{groups}", user_agent=PROGRAMS[0])

        assert not watch.use(device, is_current=is_current, after=after)


@given(
    st.lists(st.tuples(st.booleans(), pauses), max_size=10),
    st.permutations([True, False]),
    st.integers(0, 599).map(lambda seconds: timedelta(seconds=seconds)),
)
def test_two_programs_with_different_tokens_are_found_out_by_whoever_comes_second(
    before: list[tuple[bool, timedelta]], order: list[bool], between: timedelta
) -> None:
    watch = Watch()
    for is_current, after in before:
        watch.use(Client(ip="192.0.2.1", user_agent=PROGRAMS[0]), is_current=is_current, after=after)
    parties = [
        (Client(ip="192.0.2.1", user_agent=PROGRAMS[0]), True),
        (Client(ip="203.0.113.9", user_agent=PROGRAMS[1]), False),
    ]

    first, second = (parties[0 if is_current else 1] for is_current in order)
    watch.use(first[0], is_current=first[1], after=timedelta())

    assert watch.use(second[0], is_current=second[1], after=between)


@given(st.permutations([True, False]), st.lists(st.integers(1, 299), min_size=2, max_size=2))
def test_two_networks_in_turns_are_found_out_by_the_third_use(order: list[bool], seconds: list[int]) -> None:
    watch = Watch()
    parties = [(Client(ip="192.0.2.1"), True), (Client(ip="203.0.113.9"), False)]
    (one, one_current), (other, other_current) = (parties[0 if is_current else 1] for is_current in order)
    pauses = [timedelta(seconds=each) for each in seconds]
    assert not watch.use(one, is_current=one_current, after=timedelta())
    assert not watch.use(other, is_current=other_current, after=pauses[0])

    assert watch.use(one, is_current=one_current, after=pauses[1])
