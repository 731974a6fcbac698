"""Who is shown, by whom, and for how long."""

import pytest

from roomkey.documents.crdt.awareness import MAX_CLOCK, MAX_REMEMBERED, Awareness, AwarenessOutcome, Owner
from roomkey.wire.lib0 import MAX_NUMBER, AwarenessEntry

ALICE, BOB = Owner("laptop", "user:alice"), Owner("phone", "user:bob")
ALICE_AGAIN = Owner("laptop, reconnected", "user:alice")


def shows(client: int, clock: int, state: bytes = b'"here"') -> AwarenessEntry:
    return AwarenessEntry(client, clock, state)


def left(client: int, clock: int) -> AwarenessEntry:
    return AwarenessEntry(client, clock, b"null")


def awareness(*, max_state: int = 100, max_size: int = 1_000, max_clients: int = 10) -> Awareness:
    return Awareness(max_state=max_state, max_size=max_size, max_clients=max_clients)


# --- what is newer --------------------------------------------------------------------------------------


def test_a_client_is_news_once() -> None:
    shared = awareness()

    first = shared.apply([shows(1, 5)], ALICE)
    again = shared.apply([shows(1, 5)], ALICE)

    assert (first.news, again.news) == ([shows(1, 5)], [])
    assert shared.entries() == [shows(1, 5)]


@pytest.mark.parametrize(("clock", "is_news"), [(4, False), (5, False), (6, True)])
def test_only_a_higher_clock_is_newer(clock: int, *, is_news: bool) -> None:
    shared = awareness()
    shared.apply([shows(1, 5, b'"old"')], ALICE)

    outcome = shared.apply([shows(1, clock, b'"new"')], ALICE)

    assert bool(outcome.news) is is_news
    assert shared.entries() == [shows(1, clock, b'"new"') if is_news else shows(1, 5, b'"old"')]


@pytest.mark.parametrize(("clock", "is_news"), [(4, False), (5, True), (6, True)])
def test_whoever_leaves_does_so_with_the_same_clock_or_a_higher_one(clock: int, *, is_news: bool) -> None:
    shared = awareness()
    shared.apply([shows(1, 5)], ALICE)

    outcome = shared.apply([left(1, clock)], ALICE)

    assert list(outcome.news) == ([left(1, clock)] if is_news else [])
    assert len(shared) == (0 if is_news else 1)


def test_whoever_was_never_seen_cannot_leave() -> None:
    shared = awareness()

    outcome = shared.apply([left(1, 5)], ALICE)

    assert (list(outcome.news), list(outcome.reminders)) == ([], [])


# --- whose it is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", [shows(1, 9), shows(1, MAX_NUMBER), left(1, 5), left(1, 9)])
def test_another_user_neither_changes_nor_removes_a_client(entry: AwarenessEntry) -> None:
    shared = awareness()
    shared.apply([shows(1, 5)], ALICE)

    outcome = shared.apply([entry], BOB)

    assert list(outcome.news) == []
    assert shared.entries() == [shows(1, 5)]


def test_what_is_repeated_by_others_does_not_keep_what_is_new_from_being_taken() -> None:
    shared = awareness()
    shared.apply([shows(1, 5)], ALICE)

    outcome = shared.apply([shows(1, 6, b'"forged"'), shows(2, 1)], BOB)

    assert outcome.news == [shows(2, 1)]


def test_another_connection_of_the_same_user_takes_a_client_over_with_a_newer_clock() -> None:
    shared = awareness()
    shared.apply([shows(1, 5)], ALICE)

    taken = shared.apply([shows(1, 6)], ALICE_AGAIN)
    found_dead = shared.leave("laptop")

    assert taken.news == [shows(1, 6)]
    assert found_dead == []
    assert shared.entries() == [shows(1, 6)]


@pytest.mark.parametrize("entry", [shows(1, 5), left(1, 5), left(1, 6)])
def test_another_connection_of_the_same_user_takes_nothing_over_with_what_is_no_newer(entry: AwarenessEntry) -> None:
    # Every client repeats what all others show.
    shared = awareness()
    shared.apply([shows(1, 5)], ALICE)

    outcome = shared.apply([entry], ALICE_AGAIN)

    assert list(outcome.news) == []
    assert shared.leave("laptop") == [left(1, 6)]


def test_the_connection_that_a_client_was_taken_from_has_no_say_any_more() -> None:
    shared = awareness()
    shared.apply([shows(1, 5)], ALICE)
    shared.apply([shows(1, 6)], ALICE_AGAIN)

    shared.apply([left(1, 7)], ALICE)

    assert shared.entries() == [shows(1, 6)]


# --- leaving and coming back ----------------------------------------------------------------------------


def test_all_clients_of_a_connection_go_with_it_one_clock_further() -> None:
    shared = awareness()
    shared.apply([shows(1, 5), shows(2, 7)], ALICE)
    shared.apply([shows(3, 1)], BOB)

    gone = shared.leave("laptop")

    assert gone == [left(1, 6), left(2, 8)]
    assert shared.entries() == [shows(3, 1)]
    assert shared.leave("laptop") == []


def test_behind_the_last_clock_that_is_taken_there_is_a_next_one() -> None:
    shared = awareness()
    shared.apply([shows(1, MAX_CLOCK), shows(2, MAX_CLOCK + 1), shows(3, MAX_NUMBER)], ALICE)
    shared.apply([shows(1, MAX_CLOCK + 1, b'"there"')], ALICE)

    assert shared.entries() == [shows(1, MAX_CLOCK)]
    assert shared.leave("laptop") == [left(1, MAX_CLOCK + 1)]


def test_a_reminder_says_to_its_own_connection_that_a_client_has_gone_with_a_clock_that_it_does_not_have_yet() -> None:
    shared = awareness()
    shared.apply([shows(1, 5)], ALICE)

    assert shared.reminder(1) == ("laptop", left(1, 6))
    assert shared.reminder(2) is None
    assert shared.entries() == [shows(1, 5)]


def test_a_client_that_comes_back_too_soon_is_told_its_clock_and_then_is_seen_again() -> None:
    shared = awareness()
    shared.apply([shows(1, 5)], ALICE)
    shared.leave("laptop")

    too_soon = shared.apply([shows(1, 5)], ALICE_AGAIN)
    then = shared.apply([shows(1, too_soon.reminders[0].clock + 1)], ALICE_AGAIN)

    assert too_soon == AwarenessOutcome([], [left(1, 6)])
    assert then.news == [shows(1, 7)]
    assert shared.entries() == [shows(1, 7)]


def test_nobody_is_reminded_of_a_client_that_is_gone_for_good() -> None:
    shared = awareness()
    shared.apply([shows(1, 5)], ALICE)
    shared.leave("laptop")

    outcome = shared.apply([left(1, 5)], BOB)

    assert list(outcome.reminders) == []


def test_a_client_that_left_by_itself_is_seen_again_with_its_next_clock() -> None:
    shared = awareness()
    shared.apply([shows(1, 5)], ALICE)
    shared.apply([left(1, 6)], ALICE)

    outcome = shared.apply([shows(1, 7)], ALICE)

    assert outcome.news == [shows(1, 7)]


def test_of_those_who_left_the_latest_are_remembered() -> None:
    shared = awareness(max_clients=MAX_REMEMBERED + 1, max_size=1_000_000)
    shared.apply([shows(client, 5) for client in range(MAX_REMEMBERED + 1)], ALICE)
    shared.leave("laptop")

    oldest = shared.apply([shows(0, 1)], ALICE_AGAIN)
    others = shared.apply([shows(1, 1), shows(MAX_REMEMBERED, 1)], ALICE_AGAIN)

    assert oldest.news == [shows(0, 1)]
    assert list(others.reminders) == [left(1, 6), left(MAX_REMEMBERED, 6)]


# --- how much -------------------------------------------------------------------------------------------


def test_what_is_too_long_is_not_shown_and_what_was_shown_stays() -> None:
    shared = awareness(max_state=10)
    shared.apply([shows(1, 1, b'"12345678"')], ALICE)

    outcome = shared.apply([shows(1, 2, b'"123456789"'), shows(2, 1, b'"123456789"')], ALICE)

    assert list(outcome.news) == []
    assert shared.entries() == [shows(1, 1, b'"12345678"')]


def test_all_together_show_no_more_than_they_may() -> None:
    shared = awareness(max_size=10)
    shared.apply([shows(1, 1, b'"23456"')], ALICE)

    full = shared.apply([shows(2, 1, b"1234"), shows(2, 1, b"123")], BOB)
    growing = shared.apply([shows(1, 2, b'"234567"')], ALICE)

    assert full.news == [shows(2, 1, b"123")]
    assert list(growing.news) == []


def test_whoever_leaves_or_shows_less_makes_room_for_others() -> None:
    shared = awareness(max_size=10)
    shared.apply([shows(1, 1, b'"2345678"'), shows(2, 1, b"1")], ALICE)
    shared.apply([shows(1, 2, b"12345"), left(2, 1)], ALICE)

    fits = shared.apply([shows(3, 1, b"54321")], BOB)
    shared.leave("laptop")
    fits_again = shared.apply([shows(4, 1, b"54321")], BOB)

    assert fits.news
    assert fits_again.news


def test_a_connection_shows_no_more_clients_than_it_may() -> None:
    shared = awareness(max_clients=2)

    outcome = shared.apply([shows(client, 1) for client in range(3)], ALICE)
    others = shared.apply([shows(7, 1)], BOB)

    assert outcome.news == [shows(0, 1), shows(1, 1)]
    assert others.news == [shows(7, 1)]


def test_two_connections_of_a_user_cannot_hand_clients_to_one_another_beyond_what_one_may_show() -> None:
    shared = awareness(max_clients=2)

    for client in range(10):
        shared.apply([shows(client, 1)], ALICE)
        shared.apply([shows(client, 2)], ALICE_AGAIN)

    assert len(shared) <= 4


# --- who is at the keyboard -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "has_changed"),
    [
        pytest.param(shows(1, 6, b'"else"'), True, id="something else is shown"),
        pytest.param(shows(1, 6, b'"here"'), False, id="the same is repeated, as clients do all 15 seconds"),
        pytest.param(left(1, 6), False, id="a client leaves"),
        pytest.param(shows(1, 5, b'"else"'), False, id="it is too old"),
        pytest.param(shows(2, 1, b'"else"'), False, id="a client comes in"),
    ],
)
def test_somebody_is_at_the_keyboard_if_something_else_is_shown(entry: AwarenessEntry, *, has_changed: bool) -> None:
    shared = awareness()
    shared.apply([shows(1, 5, b'"here"')], ALICE)

    assert shared.apply([entry], ALICE).has_changed is has_changed
