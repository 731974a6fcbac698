"""
An attacker and a user, in whatever order they act: the attacker is never let in, and the user can always go on.

The attacker sits elsewhere, with another browser, and has stolen every token and every ticket that there was. Where
policies challenge, none of them lets him in, and the user who is asked to signs in again. Where they only flag, nothing
that he does with the current token, with tickets or with tokens of his own making keeps the user from going on.
"""

import asyncio
from typing import Any

from hypothesis import settings as example_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from roomkey.backends.memory.one_time import MemoryOneTime
from roomkey.domain.session import Client, Session, SessionState
from roomkey.errors import InvalidToken, RoomkeyError, SessionStopped, TokenReused
from roomkey.security import tokens
from roomkey.security.events import SecurityEventType
from roomkey.security.tickets import TICKET_LIMITS, Tickets
from roomkey.threats.settings import SignalPolicy, ThreatSettings
from roomkey.threats.verdicts import Verdict
from tests.support.threats import HOME, NEXT_DOOR, ON_THE_WAY, STRANGER, Watched

CHALLENGE = ThreatSettings(on_network_change=SignalPolicy.CHALLENGE, on_program_change=SignalPolicy.CHALLENGE)

ELSEWHERE = st.sampled_from(
    [
        STRANGER,
        Client(ip=HOME.ip, user_agent=STRANGER.user_agent),
        Client(ip=STRANGER.ip),
        Client(ip=STRANGER.ip, user_agent=HOME.user_agent),
    ]
)


class Encounter(RuleBasedStateMachine):
    """What both machines have in common: a user who works, and an attacker who tries."""

    settings = CHALLENGE

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.node = Watched(self.settings)
        self.others = Watched(beside=self.node)
        self.tickets = Tickets(MemoryOneTime(self.node.clock, TICKET_LIMITS))
        self.home = HOME
        self.used_tickets: list[str] = []
        self.stolen: list[str] = []

    def do(self, work: Any) -> Any:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.runner.close()

    @initialize()
    def the_user_signs_in(self) -> None:
        self.sign_in()

    def sign_in(self) -> None:
        issued = self.do(self.node.sessions.create_session("alice", client=self.home, activate=True))
        self.id, self.token = issued.id, issued.token
        self.stolen.append(self.token)

    def state(self) -> Session:
        session = self.do(self.node.sessions.get_session(self.id))
        assert session is not None
        return session

    def settle(self) -> None:
        self.do(self.node.watch.settle())
        self.do(self.others.watch.settle())

    def try_to_get_in(self, node: Watched, token: str, client: Client) -> bool:
        try:
            self.do(node.sessions.authenticate(token, client=client))
        except (InvalidToken, TokenReused, SessionStopped, RoomkeyError):
            return False
        return True

    # --- what the attacker does that never helps ------------------------------------------------------

    @rule(client=ELSEWHERE, data=st.data())
    def he_makes_a_token_up(self, client: Client, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from([tokens.mint(self.id), f"{self.id}.", "3a" + "a" * 26 + "." + "A" * 43]))

        assert not self.try_to_get_in(self.node, token, client)

    @rule(data=st.data())
    @precondition(lambda self: self.used_tickets)
    def he_replays_a_ticket(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.used_tickets))

        try:
            self.do(self.tickets.session_of(ticket, self.node.sessions))
        except InvalidToken:
            return
        raise AssertionError("a ticket opened twice")

    @rule()
    def he_floods_the_door_as_a_stranger(self) -> None:
        for _ in range(80):
            self.node.events.refused("invalid_token", address=STRANGER.ip)
        self.do(self.node.watch.tick())

    @rule(minutes=st.integers(1, 30))
    def time_goes_by(self, minutes: int) -> None:
        self.node.clock.advance(minutes=minutes)

    @rule()
    def the_nodes_tick(self) -> None:
        self.settle()

    @invariant()
    def every_verdict_names_what_it_follows_from(self) -> None:
        risk = self.do(self.node.risk(self.state()))
        assert (risk.verdict is Verdict.ALLOW) == (not risk.causes)
        assert abs(sum(each.contribution for each in risk.signals) - risk.score) < 1e-9


class AttackerUnderChallenge(Encounter):
    """Whatever he has stolen, he is not let in; the user signs in again where that is asked, and is."""

    @rule(client=st.sampled_from([HOME, NEXT_DOOR]))
    def the_user_works(self, client: Client) -> None:
        client = client if self.home is HOME else self.home
        if not self.try_to_get_in(self.others, self.token, client):
            self.sign_in_again()

    def sign_in_again(self) -> None:
        """The application has seen the password: it resumes the session, with a token that nobody else has."""
        if self.state().state is SessionState.SUSPENDED:
            self.do(self.node.sessions.resume_session(self.id, actor="key:backend"))
            self.token = self.do(self.node.sessions.rotate_token(self.id, actor="key:backend")).token
            assert self.try_to_get_in(self.node, self.token, self.home)
            self.stolen.append(self.token)
        else:
            assert not self.state().state.is_live
            self.sign_in()

    @rule(home=st.sampled_from([HOME, ON_THE_WAY]))
    def the_user_moves_and_signs_in_again(self, home: Client) -> None:
        self.home = home
        if not self.try_to_get_in(self.node, self.token, home):
            self.sign_in_again()

    @rule()
    def the_user_rotates(self) -> None:
        if self.try_to_get_in(self.node, self.token, self.home):
            self.token = self.do(self.node.sessions.rotate_token(self.id, self.token, client=self.home)).token
            self.stolen.append(self.token)

    @rule()
    def the_user_opens_a_socket_with_a_ticket(self) -> None:
        if self.try_to_get_in(self.node, self.token, self.home):
            ticket = self.do(self.tickets.issue(self.id))
            self.used_tickets.append(ticket)
            session = self.do(self.tickets.session_of(ticket, self.others.sessions))
            self.do(self.others.sessions.recognise(session, self.home))

    @rule(client=ELSEWHERE, data=st.data(), here=st.booleans())
    def he_presents_a_token(self, client: Client, data: st.DataObject, here: bool) -> None:  # noqa: FBT001
        token = data.draw(st.sampled_from(self.stolen[-4:]))

        assert not self.try_to_get_in(self.node if here else self.others, token, client)

    @rule(client=ELSEWHERE)
    def he_is_faster_with_a_ticket(self, client: Client) -> None:
        if not self.try_to_get_in(self.node, self.token, self.home):
            return
        ticket = self.do(self.tickets.issue(self.id))
        session = self.do(self.tickets.session_of(ticket, self.others.sessions))
        try:
            self.do(self.others.sessions.recognise(session, client))
        except SessionStopped:
            return
        raise AssertionError("a stolen ticket let him in")


class AttackerUnderFlag(Encounter):
    """Policies only flag: the user goes on, and whoever watches is told of every new place."""

    settings = ThreatSettings()

    def __init__(self) -> None:
        super().__init__()
        self.he_was_here = False

    @rule(client=st.sampled_from([HOME, NEXT_DOOR, ON_THE_WAY]))
    def the_user_works(self, client: Client) -> None:
        assert self.try_to_get_in(self.others, self.token, client)

    @rule()
    def the_user_comes_back_after_a_meeting(self) -> None:
        self.node.clock.advance(minutes=25)
        assert self.try_to_get_in(self.node, self.token, HOME)

    @rule(minutes=st.integers(1, 30))
    def time_goes_by(self, minutes: int) -> None:
        self.node.clock.advance(minutes=minutes)
        self.the_user_works(HOME)

    @rule(client=st.sampled_from([STRANGER, Client(ip=STRANGER.ip, user_agent=HOME.user_agent)]))
    def he_presents_the_current_token(self, client: Client) -> None:
        self.try_to_get_in(self.node, self.token, client)
        self.he_was_here = True
        self.settle()

    @invariant()
    def whoever_watches_is_told(self) -> None:
        told = {event.type for event in self.node.reported}
        assert not self.he_was_here or SecurityEventType.SESSION_HIJACKING in told


AttackerUnderChallenge.TestCase.settings = example_settings(max_examples=25, stateful_step_count=20, deadline=None)
AttackerUnderFlag.TestCase.settings = example_settings(max_examples=15, stateful_step_count=20, deadline=None)

TestAttackerUnderChallenge = AttackerUnderChallenge.TestCase
TestAttackerUnderFlag = AttackerUnderFlag.TestCase
