"""Tokens that come back after they were replaced: a laptop that slept, a second tab, or a thief."""

from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from roomkey import errors
from roomkey.backends.memory import MemorySessionStorage
from roomkey.domain.policy import OnReuse, SessionPolicy
from roomkey.domain.session import Client, IssuedSession, SessionState
from roomkey.domain.token_uses import MAX_PLACES
from tests.support.sessions import Desk

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
CHROME = "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"

AT_HOME = Client(ip="192.0.2.7", user_agent=FIREFOX)
IN_A_CAFE = Client(ip="198.51.100.9", user_agent=FIREFOX)
THIEF = Client(ip="203.0.113.66", user_agent=CHROME)
THIEF_IN_DISGUISE = Client(ip="203.0.113.66", user_agent=FIREFOX)


class Scene:
    """One session of a day without an idle limit that gets in the way, and who presents which of its tokens."""

    def __init__(self, **policy: Any) -> None:
        self.desk = Desk(policy=SessionPolicy(idle_timeout=HOUR * 12, **policy))
        self.tokens: list[str] = []

    async def begin(self) -> IssuedSession:
        issued = await self.desk.sessions.create_session("alice")
        await self.desk.sessions.activate_session(issued.id)
        self.tokens = [issued.token]
        self.id = issued.id
        return issued

    async def rotate(self, client: Client | None) -> None:
        """The holder of the newest token gets the next one, and the grace passes."""
        issued = await self.desk.sessions.rotate_token(self.id, self.tokens[-1], client=client)
        self.tokens.append(issued.token)
        self.wait(31 * SECOND)

    async def use(self, number: int, client: Client | None) -> str:
        """What comes of presenting a token: ``ok``, or the code of the error."""
        try:
            await self.desk.sessions.authenticate(self.tokens[number], client=client)
        except errors.RoomkeyError as error:
            return error.code
        return "ok"

    def wait(self, time: timedelta) -> None:
        self.desk.clock.advance(time)

    async def state(self) -> SessionState:
        session = await self.desk.sessions.get_session(self.id)
        assert session is not None
        return session.state


async def scene(**policy: Any) -> Scene:
    made = Scene(**policy)
    await made.begin()
    return made


# --- what opens nothing ends nothing ------------------------------------------------------------------


@pytest.mark.parametrize("rotations", [1, 2, 5, 16])
async def test_a_replaced_token_opens_nothing_and_the_session_goes_on(rotations: int) -> None:
    tabs = await scene()
    for _ in range(rotations):
        await tabs.rotate(AT_HOME)

    told = await tabs.use(0, AT_HOME)

    assert told == "token_rotated"
    assert await tabs.use(-1, AT_HOME) == "ok"


async def test_a_replaced_token_does_not_rotate() -> None:
    tabs = await scene()
    await tabs.rotate(AT_HOME)

    with pytest.raises(errors.TokenRotated):
        await tabs.desk.sessions.rotate_token(tabs.id, tabs.tokens[0], client=AT_HOME)

    assert await tabs.use(-1, AT_HOME) == "ok"


async def test_a_second_tab_may_knock_with_a_replaced_token_as_long_as_it_likes() -> None:
    tabs = await scene()
    await tabs.rotate(AT_HOME)

    for _ in range(100):
        tabs.wait(5 * SECOND)
        assert await tabs.use(0, AT_HOME) == "token_rotated"
        assert await tabs.use(1, AT_HOME) == "ok"

    assert await tabs.state() is SessionState.ACTIVE


async def test_a_laptop_that_slept_and_woke_elsewhere_is_no_theft() -> None:
    laptop = await scene()
    await laptop.rotate(AT_HOME)
    laptop.wait(5 * HOUR)

    in_any_order = [await laptop.use(number, IN_A_CAFE) for number in (0, 1, 0, 1)]

    assert in_any_order == ["token_rotated", "ok", "token_rotated", "ok"]


async def test_a_laptop_that_changes_its_network_in_the_middle_of_work_is_no_theft() -> None:
    laptop = await scene()
    await laptop.rotate(AT_HOME)
    assert await laptop.use(0, AT_HOME) == "token_rotated"
    assert await laptop.use(1, AT_HOME) == "ok"
    laptop.wait(SECOND)

    moved = [await laptop.use(number, IN_A_CAFE) for number in (0, 1, 0, 1)]

    assert moved == ["token_rotated", "ok", "token_rotated", "ok"]


async def test_a_backend_that_uses_the_current_token_makes_no_thief_of_a_second_tab() -> None:
    backend = Client(ip="10.0.0.5", user_agent="python-httpx/0.28")
    tabs = await scene()
    await tabs.rotate(AT_HOME)
    await tabs.use(1, backend)

    told = await tabs.use(0, AT_HOME)

    assert told == "token_rotated"
    assert await tabs.use(1, backend) == "ok"


async def test_a_tab_that_rotated_within_the_grace_has_the_new_token_as_well() -> None:
    """Another program may have been faster: the tab that forgets what it was given is no theft."""
    backend = Client(ip="10.0.0.5", user_agent="python-httpx/0.28")
    tabs = await scene()
    await tabs.desk.sessions.rotate_token(tabs.id, tabs.tokens[0], client=backend)
    await tabs.desk.sessions.rotate_token(tabs.id, tabs.tokens[0], client=AT_HOME)
    tabs.wait(31 * SECOND)

    told = await tabs.use(0, AT_HOME)

    assert told == "token_rotated"
    assert await tabs.state() is SessionState.ACTIVE


async def test_who_says_nothing_about_a_device_is_told_of_no_theft() -> None:
    tabs = await scene()
    await tabs.rotate(None)

    assert await tabs.use(0, None) == "token_rotated"
    assert await tabs.use(1, None) == "ok"
    assert await tabs.use(0, THIEF) == "token_rotated"


# --- theft --------------------------------------------------------------------------------------------


async def test_a_thief_with_a_replaced_token_gets_nothing_and_ends_the_session() -> None:
    """The victim goes on with the new token, and somebody else's program brings the old one."""
    crime = await scene()
    await crime.rotate(AT_HOME)
    await crime.use(1, AT_HOME)

    told = await crime.use(0, THIEF)

    assert told == "token_reused"
    assert await crime.use(1, AT_HOME) == "session_invalidated"
    history = await crime.desk.history((await crime.desk.sessions.list_sessions())[0])
    assert (history[-1].tag(), history[-1].reason) == ("invalidated", "token_reused")


async def test_a_victim_whose_token_a_thief_has_rotated_ends_the_session() -> None:
    crime = await scene()
    await crime.use(0, AT_HOME)
    await crime.rotate(THIEF)

    told = await crime.use(0, AT_HOME)

    assert told == "token_reused"
    assert await crime.use(1, THIEF) == "session_invalidated"


async def test_a_thief_who_comes_back_after_the_victim_was_sent_away_ends_the_session() -> None:
    """The thief was not there when the victim came, so that alone proved nothing."""
    crime = await scene()
    await crime.rotate(THIEF)
    crime.wait(HOUR)
    assert await crime.use(0, AT_HOME) == "token_rotated"
    crime.wait(MINUTE)

    told = await crime.use(1, THIEF)

    assert told == "token_reused"
    assert await crime.state() is SessionState.INVALIDATED


async def test_a_thief_who_imitates_the_program_is_recognised_by_being_elsewhere_at_the_same_time() -> None:
    crime = await scene()
    await crime.rotate(THIEF_IN_DISGUISE)
    assert await crime.use(0, AT_HOME) == "token_rotated"
    crime.wait(SECOND)

    told = await crime.use(1, THIEF_IN_DISGUISE)

    assert told == "token_reused"
    assert await crime.state() is SessionState.INVALIDATED


async def test_a_thief_who_only_uses_an_open_socket_is_recognised_when_the_victim_tries_again() -> None:
    crime = await scene()
    await crime.rotate(THIEF_IN_DISGUISE)
    crime.wait(3 * HOUR)
    assert await crime.use(0, AT_HOME) == "token_rotated"
    crime.wait(MINUTE)
    await crime.desk.storage.touch(crime.id, crime.desk.clock.now())
    crime.wait(MINUTE)

    told = await crime.use(0, AT_HOME)

    assert told == "token_reused"


async def test_a_thief_cannot_rotate_a_suspicion_away() -> None:
    crime = await scene()
    await crime.rotate(THIEF_IN_DISGUISE)
    assert await crime.use(0, AT_HOME) == "token_rotated"
    crime.wait(SECOND)

    with pytest.raises(errors.TokenReused):
        await crime.desk.sessions.rotate_token(crime.id, crime.tokens[1], client=THIEF_IN_DISGUISE)

    assert await crime.state() is SessionState.INVALIDATED


async def test_a_suspicion_outlives_a_rotation_by_an_operator() -> None:
    crime = await scene()
    await crime.rotate(AT_HOME)
    crime.wait(HOUR)
    assert await crime.use(0, THIEF) == "token_rotated"
    renewed = await crime.desk.sessions.rotate_token(crime.id)

    with pytest.raises(errors.TokenReused):
        await crime.desk.sessions.authenticate(renewed.token, client=AT_HOME)


async def test_a_suspicion_is_forgotten_after_the_window() -> None:
    crime = await scene()
    await crime.rotate(AT_HOME)
    crime.wait(HOUR)
    await crime.use(0, THIEF)
    crime.wait(10 * MINUTE)

    assert await crime.use(1, AT_HOME) == "ok"


async def test_a_suspicion_survives_a_restart_and_reaches_other_processes() -> None:
    crime = await scene()
    await crime.rotate(THIEF)
    crime.wait(HOUR)
    await crime.use(0, AT_HOME)
    elsewhere = Desk(crime.desk.storage, crime.desk.sessions.policy)
    elsewhere.clock.advance(crime.desk.clock.now() - elsewhere.clock.now())

    with pytest.raises(errors.TokenReused):
        await elsewhere.sessions.authenticate(crime.tokens[1], client=THIEF)

    assert await crime.state() is SessionState.INVALIDATED


async def test_a_strict_policy_ends_the_session_whoever_comes() -> None:
    tabs = await scene(on_reuse=OnReuse.REVOKE)
    await tabs.rotate(AT_HOME)
    assert await tabs.use(1, THIEF) == "ok"

    told = await tabs.use(0, AT_HOME)

    assert told == "token_reused"
    assert await tabs.state() is SessionState.INVALIDATED


async def test_a_made_up_token_is_no_suspicion() -> None:
    crime = await scene()
    await crime.rotate(AT_HOME)
    crime.tokens.append(crime.tokens[0][:-1] + ("A" if crime.tokens[0][-1] != "A" else "B"))

    assert await crime.use(-1, THIEF) == "invalid_token"

    assert await crime.use(1, AT_HOME) == "ok"


# --- what is kept and said ----------------------------------------------------------------------------


async def test_what_is_remembered_of_places_is_bounded() -> None:
    crime = await scene()
    await crime.rotate(AT_HOME)

    for number in range(50):
        await crime.use(0, Client(ip=f"192.0.2.{number}", user_agent=FIREFOX))
        crime.wait(HOUR)

    found = await crime.desk.storage.get_with_secret(crime.id)
    assert found is not None
    assert len(found[1].uses) <= 2 * MAX_PLACES


async def test_a_session_in_use_by_one_device_writes_nothing_for_it() -> None:
    class Counted(MemorySessionStorage):
        notes = 0

        async def note_use(self, *args: Any, **details: Any) -> None:
            self.notes += 1
            await super().note_use(*args, **details)

    desk = Desk(storage := Counted())
    issued = await desk.sessions.create_session("alice")
    rotated = await desk.sessions.rotate_token(issued.id, issued.token, client=AT_HOME)

    for _ in range(100):
        desk.clock.advance(SECOND)
        await desk.sessions.authenticate(rotated.token, client=AT_HOME)

    assert storage.notes == 0


async def test_a_theft_is_logged_without_the_token() -> None:
    crime = await scene()
    await crime.rotate(AT_HOME)

    with capture_logs() as logs:
        await crime.use(0, AT_HOME)
        await crime.use(0, THIEF)

    assert [(each["event"], each["outcome"], each["ip"]) for each in logs] == [
        ("token_reuse", "session_ended", "203.0.113.66"),
    ]
    assert crime.tokens[0][29:] not in str(logs)


async def test_a_replaced_token_of_what_is_over_is_told_so() -> None:
    tabs = await scene()
    await tabs.rotate(AT_HOME)
    await tabs.desk.sessions.expire_session(tabs.id)

    told = await tabs.use(0, THIEF)

    assert told == "session_expired"
    with pytest.raises(errors.InvalidState):
        await tabs.desk.sessions.rotate_token(tabs.id, tabs.tokens[0], client=THIEF)
    assert await tabs.state() is SessionState.EXPIRED
