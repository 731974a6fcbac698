"""What a session may do is what its grants and the application both allow; without an answer nobody new gets in."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from roomkey.access.decisions import AWAY_AFTER, MAX_ASKED, ApplicationDecisions
from roomkey.access.settings import AccessSettings
from roomkey.domain.access import Access, Grant, access_to, reaches
from roomkey.errors import AccessUnknown
from roomkey.testing.clock import ManualClock
from tests.support.access import EVERYTHING, NOON, Application, a_session

AGE, GRACE = timedelta(minutes=1), timedelta(minutes=10)
ALICE = a_session()


class Desk:
    def __init__(self, says: Any = "write", **settings: Any) -> None:
        self.clock = ManualClock(NOON)
        self.application = Application(says)
        given = AccessSettings(max_age=AGE, stale_if_error=GRACE, **settings)
        self.decisions = ApplicationDecisions(self.application, given, self.clock)

    @property
    def asked(self) -> int:
        return len(self.application.asked)


ACCESSES = st.sampled_from([None, *Access])


@given(granted=ACCESSES, allowed=ACCESSES, wanted=st.sampled_from(Access))
def test_a_session_may_do_what_both_its_grants_and_the_application_allow(
    granted: Access | None, allowed: Access | None, wanted: Access
) -> None:
    session = a_session(grants=() if granted is None else [Grant("plan", granted)])
    desk = Desk(allowed)

    access = asyncio.run(desk.decisions.decide(session, "plan"))

    assert reaches(access, wanted) == (reaches(granted, wanted) and reaches(allowed, wanted))
    assert desk.decisions.access(session, "plan") is access


async def test_what_no_grant_covers_is_not_asked_for() -> None:
    desk = Desk("admin")

    assert await desk.decisions.decide(a_session(grants=[Grant("other", Access.READ)]), "plan") is None
    assert not desk.asked


async def test_an_application_that_is_not_asked_for_want_of_grants_is_told_so_once() -> None:
    desk = Desk("admin")

    with capture_logs() as lines:
        for name in ("one", "two"):
            assert await desk.decisions.decide(a_session(name, grants=()), "plan") is None

    assert [line["event"] for line in lines] == ["session_without_grants"]
    assert "access.default_grants" in lines[0]["hint"]


async def test_an_answer_is_used_for_its_age_and_then_asked_for_again() -> None:
    desk = Desk("write")
    await desk.decisions.decide(ALICE, "plan")
    desk.application.says = "read"

    desk.clock.advance(AGE - timedelta(seconds=1))
    young = await desk.decisions.decide(ALICE, "plan")
    desk.clock.advance(seconds=1)
    old = await desk.decisions.decide(ALICE, "plan")

    assert (young, old, desk.asked) == (Access.WRITE, Access.READ, 2)


def test_an_application_may_answer_without_waiting() -> None:
    decisions = ApplicationDecisions(lambda _session, _document: "read", AccessSettings(), ManualClock(NOON))

    assert asyncio.run(decisions.decide(ALICE, "plan")) is Access.READ


NONSENSE = ["", "WRITE", "owner", True, 1, ["write"], object, b"write"]


@pytest.mark.parametrize("says", [*NONSENSE, RuntimeError("broken"), TimeoutError()], ids=repr)
async def test_nobody_unknown_is_let_in_without_an_answer_and_who_is_known_stays_for_a_while(says: Any) -> None:
    desk = Desk("write")
    await desk.decisions.decide(ALICE, "plan")
    desk.application.says = says
    desk.clock.advance(AGE)

    with pytest.raises(AccessUnknown):
        await desk.decisions.decide(a_session("two"), "plan")
    assert await desk.decisions.decide(ALICE, "plan") is Access.WRITE
    assert "stays for at most" in desk.decisions.degradations()["access"]
    desk.clock.advance(GRACE)
    assert desk.decisions.access(ALICE, "plan") is None
    with pytest.raises(AccessUnknown):
        await desk.decisions.decide(ALICE, "plan")


async def test_health_is_well_again_when_it_answers() -> None:
    desk = Desk(RuntimeError())
    with pytest.raises(AccessUnknown):
        await desk.decisions.decide(ALICE, "plan")
    desk.application.says = "read"

    assert await desk.decisions.decide(ALICE, "plan") is Access.READ
    assert not desk.decisions.degradations()
    assert "2 asked, 1 unanswered" in desk.decisions.observations()["access decisions"]


async def test_a_slow_application_is_not_waited_for_and_soon_not_asked() -> None:
    desk = Desk("write", timeout=timedelta(milliseconds=1))
    desk.application.may_answer.clear()
    for number in range(AWAY_AFTER + 20):
        with pytest.raises(AccessUnknown):
            await desk.decisions.decide(ALICE, f"plan{number}")
    before = desk.asked

    desk.application.may_answer.set()
    desk.clock.advance(seconds=1)

    assert before == AWAY_AFTER
    assert await desk.decisions.decide(ALICE, "plan") is Access.WRITE


async def test_many_who_want_to_know_the_same_ask_once() -> None:
    desk = Desk("write")

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(desk.decisions.decide(ALICE, "plan")) for _ in range(50)]

    assert {each.result() for each in asked} == {Access.WRITE}
    assert desk.asked == 1


async def test_whoever_waits_gets_an_answer_when_the_one_who_asked_goes_away() -> None:
    desk = Desk("write")
    desk.application.may_answer.clear()
    first = asyncio.ensure_future(desk.decisions.decide(ALICE, "plan"))
    await desk.application.is_asked.wait()
    second = asyncio.ensure_future(desk.decisions.decide(ALICE, "plan"))
    await asyncio.sleep(0)

    first.cancel()
    desk.application.may_answer.set()

    assert await second is Access.WRITE


async def test_an_answer_to_a_question_from_before_a_recheck_lets_nobody_in() -> None:
    desk = Desk("write")
    desk.application.may_answer.clear()
    at_the_door = asyncio.ensure_future(desk.decisions.decide(ALICE, "plan"))
    await desk.application.is_asked.wait()

    desk.application.says = None
    desk.decisions.doubt(document="plan")
    desk.application.may_answer.set()

    assert await at_the_door is None
    assert desk.decisions.access(ALICE, "plan") is None


async def test_an_answer_that_was_overtaken_is_not_remembered() -> None:
    desk = Desk("write")
    slow = desk.application.may_answer
    slow.clear()
    first = asyncio.ensure_future(desk.decisions.decide(ALICE, "plan"))
    await desk.application.is_asked.wait()
    desk.application.may_answer, desk.application.says = asyncio.Event(), "read"
    desk.application.may_answer.set()
    desk.decisions.doubt(session=ALICE.id)
    told = list[Access | None]()
    desk.decisions.on_change = lambda _: told.append(desk.decisions.access(ALICE, "plan"))
    await desk.decisions.decide(ALICE, "plan")

    slow.set()

    assert await first is Access.READ
    assert told == [Access.READ]


@pytest.mark.parametrize(
    ("subject", "asks"),
    [({"document": "plan"}, 1), ({"session": "one"}, 1), ({}, 1), ({"document": "x"}, 0), ({"session": "x"}, 0)],
)
async def test_after_a_recheck_what_it_is_about_is_asked_for_at_the_door(subject: dict[str, Any], asks: int) -> None:
    desk = Desk("write")
    await desk.decisions.decide(ALICE, "plan")

    desk.decisions.doubt(**subject)
    await desk.decisions.decide(ALICE, "plan")

    assert desk.asked == 1 + asks


async def test_no_more_is_remembered_than_may_be_and_what_is_in_use_stays() -> None:
    desk = Desk("write", max_decisions=10)
    await desk.decisions.decide(ALICE, "plan")

    for number in range(100):
        await desk.decisions.decide(ALICE, f"other{number}")
        assert desk.decisions.keep(ALICE, "plan", until=NOON)

    assert desk.decisions.statistics().remembered == 10
    assert desk.decisions.access(ALICE, "plan") is Access.WRITE


async def test_no_more_questions_wait_than_may() -> None:
    desk = Desk("write")
    desk.application.may_answer.clear()
    waiting = [asyncio.ensure_future(desk.decisions.decide(ALICE, f"plan{n}")) for n in range(MAX_ASKED)]
    await asyncio.sleep(0)

    with pytest.raises(AccessUnknown):
        await desk.decisions.decide(ALICE, "one more")
    desk.application.may_answer.set()

    assert set(await asyncio.gather(*waiting)) == {Access.WRITE}


async def test_grants_that_shrink_count_at_once() -> None:
    desk = Desk("admin")
    await desk.decisions.decide(ALICE, "plan")

    shrunk = a_session(grants=[Grant("plan", Access.READ)])

    assert access_to("plan", EVERYTHING) is desk.decisions.access(ALICE, "plan")
    assert desk.decisions.access(shrunk, "plan") is Access.READ
