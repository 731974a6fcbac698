"""Who must go when too many connections owe a request head."""

from hypothesis import given
from hypothesis import strategies as st

from roomkey.transports.waiting import Waiting


def crowd(most: int, *names: str) -> tuple[Waiting[str], list[str]]:
    """Connections, named by their network and a number, that enter; and those that had to go."""
    waiting: Waiting[str] = Waiting(most)
    gone: list[str] = []
    for name in names:
        surplus = waiting.enter(name, name[0])
        if surplus is not None:
            waiting.leave(surplus)
            gone.append(surplus)
    return waiting, gone


def test_nobody_goes_while_there_is_room() -> None:
    assert crowd(3, "a1", "b1", "c1")[1] == []


def test_the_one_that_waits_longest_goes() -> None:
    assert crowd(4, "a1", "b1", "c1", "d1", "e1", "f1")[1] == ["a1", "b1"]


def test_who_floods_drives_out_his_own() -> None:
    _, gone = crowd(8, "v1", "w1", *(f"a{number}" for number in range(100)))

    assert gone == [f"a{number}" for number in range(94)]


def test_a_newcomer_finds_room_in_a_flood() -> None:
    waiting, gone = crowd(8, *(f"a{number}" for number in range(8)), "v1", *(f"a{number}" for number in range(8, 99)))

    assert gone[0] == "a0"
    assert "v1" in waiting


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20), st.booleans())))
def test_there_are_never_more_than_there_may_be_and_nothing_stays_behind(steps: list[tuple[str, int, bool]]) -> None:
    waiting: Waiting[str] = Waiting(4)
    inside: list[str] = []
    for network, number, enters in steps:
        name = f"{network}{number}"
        if enters and name not in waiting:
            surplus = waiting.enter(name, network)
            inside.append(name)
            if surplus is not None:
                waiting.leave(surplus)
                inside.remove(surplus)
        elif not enters:
            waiting.leave(name)
            inside = [other for other in inside if other != name]
        assert len(waiting) == len(inside) <= 4

    for name in inside:
        assert name in waiting
        waiting.leave(name)
    assert not waiting._of_network  # pyright: ignore[reportPrivateUsage]
