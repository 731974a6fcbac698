"""Tickets open a session once, for a short time, and are bounded in number."""

from datetime import UTC, datetime, timedelta

import pytest

from roomkey.backends.memory.one_time import MemoryOneTime
from roomkey.domain.session import SessionId
from roomkey.errors import InvalidToken
from roomkey.ports import OneTimeLimits
from roomkey.security.tickets import TICKET_LIMITS, Tickets
from roomkey.testing.clock import ManualClock
from tests.support.sessions import Desk

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ALICE, BOB = SessionId("3a" + "a" * 26), SessionId("3b" + "b" * 26)
PER_SESSION = 16


class Office:
    """Tickets with what keeps them, and a clock that stands still."""

    def __init__(self, limits: OneTimeLimits = TICKET_LIMITS) -> None:
        self.clock = ManualClock(NOON)
        self.store = MemoryOneTime(self.clock, limits)
        self.tickets = Tickets(self.store)


async def test_a_ticket_opens_its_session() -> None:
    tickets = Office().tickets

    ticket = await tickets.issue(ALICE)

    assert await tickets.redeem(ticket) == ALICE


async def test_a_ticket_is_used_up_by_its_first_use() -> None:
    tickets = Office().tickets
    ticket = await tickets.issue(ALICE)

    await tickets.redeem(ticket)

    assert await tickets.redeem(ticket) is None


async def test_a_ticket_is_good_for_thirty_seconds() -> None:
    office = Office()
    first, second = await office.tickets.issue(ALICE), await office.tickets.issue(ALICE)

    office.clock.advance(timedelta(seconds=29.999))
    in_time = await office.tickets.redeem(first)
    office.clock.advance(timedelta(seconds=0.001))
    too_late = await office.tickets.redeem(second)

    assert (in_time, too_late) == (ALICE, None)


async def test_tickets_that_were_not_issued_open_nothing() -> None:
    tickets = Office().tickets
    ticket = await tickets.issue(ALICE)

    assert await tickets.redeem(ticket[:-1]) is None
    assert await tickets.redeem("") is None
    assert await tickets.redeem("\udc80") is None


async def test_a_ticket_has_256_bits_and_none_is_like_another() -> None:
    tickets = Office().tickets

    issued = {await tickets.issue(ALICE) for _ in range(10)}

    assert len(issued) == 10
    assert all(len(ticket) == 43 for ticket in issued)


async def test_beyond_the_capacity_the_oldest_goes() -> None:
    office = Office(OneTimeLimits(entries=2, entries_per_owner=PER_SESSION))
    sessions = [SessionId(f"{number:028d}") for number in range(3)]

    first, second, third = [await office.tickets.issue(session) for session in sessions]

    assert len(office.store) == 2
    assert await office.tickets.redeem(first) is None
    assert await office.tickets.redeem(second) == sessions[1]
    assert await office.tickets.redeem(third) == sessions[2]


async def test_one_session_cannot_push_out_the_tickets_of_another() -> None:
    office = Office(OneTimeLimits(entries=PER_SESSION + 1, entries_per_owner=PER_SESSION))
    of_bob = await office.tickets.issue(BOB)

    for _ in range(10 * PER_SESSION):
        await office.tickets.issue(ALICE)

    assert len(office.store) == PER_SESSION + 1
    assert await office.tickets.redeem(of_bob) == BOB


async def test_ten_thousand_tickets_are_outstanding_at_most_and_sixteen_of_one_session() -> None:
    office = Office()

    for number in range(10_001):
        await office.tickets.issue(SessionId(f"{number // 20:028d}"))
    of_alice = [await office.tickets.issue(ALICE) for _ in range(PER_SESSION + 1)]

    assert len(office.store) <= 10_000
    assert [await office.tickets.redeem(ticket) for ticket in of_alice] == [None, *[ALICE] * PER_SESSION]


async def test_overdue_tickets_do_not_stay_in_memory() -> None:
    office = Office()
    for _ in range(5):
        await office.tickets.issue(BOB)

    office.clock.advance(timedelta(minutes=1))
    await office.tickets.issue(ALICE)

    assert len(office.store) == 1


async def test_memory_holds_nothing_that_could_be_redeemed() -> None:
    office = Office()

    ticket = await office.tickets.issue(ALICE)

    assert ticket not in repr(vars(office.store))


async def test_a_ticket_brings_its_session_as_it_stands_now() -> None:
    desk, tickets = Desk(), Office().tickets
    session = await desk.active()
    ticket = await tickets.issue(session.id)
    suspended = await desk.sessions.suspend_session(session.id)

    assert await tickets.session_of(ticket, desk.sessions) == suspended


async def test_a_ticket_whose_session_is_gone_opens_nothing() -> None:
    desk, tickets = Desk(), Office().tickets
    session = await desk.active()
    ticket = await tickets.issue(session.id)
    await desk.sessions.delete_session(session.id)

    with pytest.raises(InvalidToken):
        await tickets.session_of(ticket, desk.sessions)
    with pytest.raises(InvalidToken):
        await tickets.session_of("forged", desk.sessions)
