"""Tickets open a session once, for a short time, and are bounded in number."""

from datetime import UTC, datetime, timedelta

from roomkey.domain.session import SessionId
from roomkey.security.tickets import MAX_PER_SESSION, Tickets

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ALICE, BOB = SessionId("3a" + "a" * 26), SessionId("3b" + "b" * 26)


def test_a_ticket_opens_its_session() -> None:
    tickets = Tickets()

    ticket = tickets.issue(ALICE, NOON)

    assert tickets.redeem(ticket, NOON) == ALICE


def test_a_ticket_is_used_up_by_its_first_use() -> None:
    tickets = Tickets()
    ticket = tickets.issue(ALICE, NOON)

    tickets.redeem(ticket, NOON)

    assert tickets.redeem(ticket, NOON) is None


def test_a_ticket_is_good_for_thirty_seconds() -> None:
    tickets = Tickets()
    first, second = tickets.issue(ALICE, NOON), tickets.issue(ALICE, NOON)

    assert tickets.redeem(first, NOON + timedelta(seconds=29.999)) == ALICE
    assert tickets.redeem(second, NOON + timedelta(seconds=30)) is None


def test_tickets_that_were_not_issued_open_nothing() -> None:
    tickets = Tickets()
    ticket = tickets.issue(ALICE, NOON)

    assert tickets.redeem(ticket[:-1], NOON) is None
    assert tickets.redeem("", NOON) is None
    assert tickets.redeem("\udc80", NOON) is None


def test_a_ticket_has_256_bits_and_none_is_like_another() -> None:
    tickets = Tickets()

    issued = {tickets.issue(ALICE, NOON) for _ in range(10)}

    assert len(issued) == 10
    assert all(len(ticket) == 43 for ticket in issued)


def test_beyond_the_capacity_the_oldest_goes() -> None:
    tickets = Tickets(capacity=2)
    sessions = [SessionId(f"{number:028d}") for number in range(3)]

    first, second, third = (tickets.issue(session, NOON) for session in sessions)

    assert len(tickets) == 2
    assert tickets.redeem(first, NOON) is None
    assert tickets.redeem(second, NOON) == sessions[1]
    assert tickets.redeem(third, NOON) == sessions[2]


def test_one_session_cannot_push_out_the_tickets_of_another() -> None:
    tickets = Tickets(capacity=MAX_PER_SESSION + 1)
    of_bob = tickets.issue(BOB, NOON)

    for _ in range(10 * MAX_PER_SESSION):
        tickets.issue(ALICE, NOON)

    assert len(tickets) == MAX_PER_SESSION + 1
    assert tickets.redeem(of_bob, NOON) == BOB


def test_overdue_tickets_do_not_stay_in_memory() -> None:
    tickets = Tickets()
    for _ in range(5):
        tickets.issue(BOB, NOON)

    tickets.issue(ALICE, NOON + timedelta(minutes=1))

    assert len(tickets) == 1


def test_memory_holds_nothing_that_could_be_redeemed() -> None:
    tickets = Tickets()

    ticket = tickets.issue(ALICE, NOON)

    assert ticket not in repr(vars(tickets))
