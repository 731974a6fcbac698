"""The watch over sessions: what it is told, what follows, on one node and on two, and while storage fails."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.domain.session import Client, SessionState, Suspended, ViolationRecorded
from roomkey.errors import HolderUnproven, Invalidated, InvalidToken, OutcomeUnknown, Storage
from roomkey.errors import Suspended as SessionSuspended
from roomkey.ports.objects import NOTHING_EXPECTED, Changes
from roomkey.security.events import SecurityEventType
from roomkey.threats.books import LEDGERS, PATTERNS
from roomkey.threats.patterns import MAX_PATTERN_BYTES
from roomkey.threats.settings import SignalPolicy, ThreatSettings
from roomkey.threats.signals import Signal
from tests.support.threats import CHROME, HOME, NEXT_DOOR, ON_THE_WAY, STRANGER, Watched

CHALLENGE = ThreatSettings(on_network_change=SignalPolicy.CHALLENGE, on_program_change=SignalPolicy.CHALLENGE)
REVOKE = ThreatSettings(on_program_change=SignalPolicy.REVOKE)


# --- violations ---------------------------------------------------------------------------------------


async def test_violations_warn_then_suspend_then_end_a_session() -> None:
    node = Watched()
    session, _ = await node.active()

    await node.misbehave(session, "malformed", "malformed")
    quiet = list(node.sockets.warnings)
    await node.misbehave(session, "malformed")
    warned = [(id, details["violations"]) for id, details in node.sockets.warnings]
    await node.misbehave(session, *["malformed"] * 3)
    suspended = await node.now(session)
    await node.misbehave(session, *["malformed"] * 4)
    ended = await node.now(session)

    assert quiet == []
    assert warned == [(session.id, 3.0)]
    assert (suspended.state, suspended.reason) == (SessionState.SUSPENDED, "violations")
    assert (ended.state, ended.reason, ended.violations) == (SessionState.INVALIDATED, "violations", 10)


async def test_a_session_that_misbehaves_seldom_goes_on_for_ever() -> None:
    node = Watched()
    session, _ = await node.active()

    for _ in range(40):
        await node.misbehave(session, "malformed")
        node.clock.advance(minutes=1)

    assert (await node.now(session)).state is SessionState.ACTIVE
    assert node.sockets.warnings == []
    assert (await node.risk(session)).level == 0


async def test_a_resumed_session_goes_on_and_its_next_violation_suspends_it_again() -> None:
    node = Watched()
    session, token = await node.active()
    await node.misbehave(session, "forged", "forged")

    await node.sessions.resume_session(session.id)
    await node.sessions.authenticate(token, client=ON_THE_WAY)
    await node.watch.settle()
    in_between = await node.now(session)
    await node.misbehave(session, "inspection")

    assert in_between.state is SessionState.ACTIVE
    assert (await node.now(session)).state is SessionState.SUSPENDED


async def test_rotation_and_another_node_change_no_level() -> None:
    here = Watched()
    there = Watched(beside=here)
    session, token = await here.active()

    await here.misbehave(session, "forged")
    await here.sessions.rotate_token(session.id, token)
    await there.misbehave(session, "malformed")

    assert (await here.risk(session)).level == (await there.risk(session)).level == 5
    assert there.sockets.warnings[0][1]["violations"] == 5.0


async def test_a_violation_that_several_nodes_hear_of_counts_once() -> None:
    here = Watched()
    there = Watched(beside=here)
    session, _ = await here.active()
    told: list[ViolationRecorded] = []
    here.sessions.on_events(lambda events: told.extend(e for e in events if isinstance(e, ViolationRecorded)))

    await here.sessions.record_violation(session.id, "forged")
    there.watch.on_events(told)
    there.watch.on_events(told)
    await there.watch.settle()
    await here.watch.settle()

    assert (await here.risk(session)).level == 4


async def test_a_verdict_acts_once_though_two_nodes_come_to_it() -> None:
    here = Watched()
    there = Watched(beside=here)
    session, _ = await here.active()

    for node in (here, there) * 4:
        await node.sessions.record_violation(session.id, "malformed")
    await here.watch.settle()
    await there.watch.settle()

    logged = await here.storage.events(int(session.id[:2], 16), limit=100)
    assert sum(isinstance(each.event, Suspended) for each in logged) == 1


async def test_a_session_begins_with_half_of_what_counts_for_another_of_its_user_once_it_misbehaves() -> None:
    node = Watched()
    bad, _ = await node.active()
    await node.misbehave(bad, "forged", "forged")

    new, _ = await node.active()
    innocent = await node.risk(new)
    await node.misbehave(new, "malformed")
    guilty = await node.risk(new)
    of_somebody_else, _ = await node.active("bob")
    await node.misbehave(of_somebody_else, "malformed")

    assert innocent.level == 0
    assert [(each.strike.cause, each.left) for each in guilty.strikes] == [("carried", 4.0), ("malformed", 1.0)]
    assert (await node.risk(of_somebody_else)).level == 1


async def test_weights_are_settings_and_one_of_nothing_counts_nothing() -> None:
    node = Watched(ThreatSettings(weights={"forged": 9, "malformed": 0}))
    session, _ = await node.active()

    await node.misbehave(session, "malformed", "malformed", "malformed")
    before = await node.risk(session)
    await node.misbehave(session, "forged")

    assert before.level == 0
    assert (await node.now(session)).state is SessionState.SUSPENDED


async def test_refused_requests_beyond_patience_are_violations_and_a_few_are_nothing() -> None:
    node = Watched()
    session, _ = await node.active()
    other, _ = await node.active("bob")
    for _ in range(60):
        node.events.refused("forbidden", session=session.id, user="alice")
    node.events.refused("forbidden", session=other.id, user="bob")

    await node.watch.tick()

    risk = await node.risk(session)
    assert [each.strike.cause for each in risk.strikes] == ["forbidden"]
    assert [each.signal for each in risk.signals] == [Signal.REJECTED]
    assert (await node.risk(other)).since is None


# --- clients ------------------------------------------------------------------------------------------


async def test_by_default_a_user_who_moves_is_flagged_once_and_goes_on() -> None:
    node = Watched()
    session, token = await node.active()

    for _ in range(3):
        for client in (HOME, NEXT_DOOR, ON_THE_WAY, STRANGER):
            await node.sessions.authenticate(token, client=client)
            await node.watch.settle()
            node.clock.advance(minutes=20)

    risk = await node.risk(session)
    hijacking = [event for event in node.reported if event.type is SecurityEventType.SESSION_HIJACKING]
    assert (await node.now(session)).state is SessionState.ACTIVE
    assert [event.cause for event in hijacking] == ["network", "network,program"]
    assert "192.0.2.0/24 instead of" in hijacking[1].details["network"]
    assert {each.signal for each in risk.signals} >= {Signal.NETWORK, Signal.PROGRAM}


@pytest.mark.parametrize("client", [ON_THE_WAY, STRANGER, Client(ip=HOME.ip, user_agent=CHROME)])
async def test_a_challenge_lets_nobody_in_until_the_user_signed_in_again(client: Client) -> None:
    node = Watched(CHALLENGE)
    session, token = await node.active()
    await node.sessions.authenticate(token, client=NEXT_DOOR)

    with pytest.raises(SessionSuspended) as refusal:
        await node.sessions.authenticate(token, client=client)
    with pytest.raises(SessionSuspended):
        await node.sessions.authenticate(token, client=HOME)
    await node.sessions.resume_session(session.id)
    at_home = await node.sessions.authenticate(token, client=HOME)
    with pytest.raises(SessionSuspended):
        await node.sessions.authenticate(token, client=client)

    assert (refusal.value.reason or "").startswith("challenge_")
    assert at_home.state is SessionState.ACTIVE


async def test_after_a_rotation_by_the_application_the_session_belongs_to_who_has_the_new_token() -> None:
    node = Watched(CHALLENGE)
    session, stolen = await node.active()
    with pytest.raises(SessionSuspended):
        await node.sessions.authenticate(stolen, client=STRANGER)

    await node.sessions.resume_session(session.id)
    new = (await node.sessions.rotate_token(session.id, actor="key:backend")).token
    with pytest.raises(SessionSuspended):  # the old one, within its grace: it binds nothing
        await node.sessions.authenticate(stolen, client=STRANGER)
    await node.sessions.resume_session(session.id)
    there = await node.sessions.authenticate(new, client=ON_THE_WAY)
    with pytest.raises(SessionSuspended):
        await node.sessions.authenticate(new, client=STRANGER)

    assert there.state is SessionState.ACTIVE


async def test_after_a_rotation_by_its_holder_the_session_belongs_to_whom_it_did() -> None:
    here = Watched(CHALLENGE)
    there = Watched(beside=here)
    session, token = await here.active()
    await here.sessions.authenticate(token, client=HOME)

    new = (await here.sessions.rotate_token(session.id, token, client=HOME)).token
    await here.watch.settle()

    with pytest.raises(SessionSuspended):  # who has stolen the new one, and is faster on another node
        await there.sessions.authenticate(new, client=STRANGER)


async def test_a_session_without_a_client_belongs_to_the_first_one_on_every_node() -> None:
    here = Watched(CHALLENGE)
    there = Watched(beside=here)
    _, token = await here.active(client=None)

    await here.sessions.authenticate(token, client=HOME)
    await there.sessions.authenticate(token, client=NEXT_DOOR)

    with pytest.raises(SessionSuspended):
        await there.sessions.authenticate(token, client=STRANGER)


@pytest.mark.parametrize("held", [(), ("jkt:" + "B" * 43,)])
@pytest.mark.parametrize(
    ("policy", "state", "cause"),
    [
        (SignalPolicy.IGNORE, SessionState.ACTIVE, None),
        (SignalPolicy.FLAG, SessionState.ACTIVE, None),
        (SignalPolicy.CHALLENGE, SessionState.SUSPENDED, "challenge_key"),
        (SignalPolicy.REVOKE, SessionState.INVALIDATED, "invalidate_key"),
    ],
)
async def test_a_token_without_the_key_that_its_session_is_bound_to_is_a_signal(
    held: tuple[str, ...], policy: SignalPolicy, state: SessionState, cause: str | None
) -> None:
    node = Watched(ThreatSettings(on_key_change=policy))
    key = "jkt:" + "A" * 43
    issued = await node.sessions.create_session("alice", bound_to=key, activate=True)
    await node.sessions.authenticate(issued.token, client=HOME, held=(key,))

    with pytest.raises(HolderUnproven):  # whatever follows, the thief is told no more
        await node.sessions.authenticate(issued.token, client=HOME, held=held)
    await node.watch.settle()

    now = await node.now(issued.session)
    assert (now.state, now.reason) == (state, cause)
    signals = {each.signal for each in (await node.risk(now)).signals}
    assert signals == (set() if policy is SignalPolicy.IGNORE else {Signal.KEY})
    with pytest.raises(InvalidToken):  # who has no genuine token says nothing about the session
        await node.sessions.authenticate(issued.token[:-2] + "AA", client=STRANGER)


async def test_a_policy_that_revokes_ends_the_session_at_once() -> None:
    node = Watched(REVOKE)
    session, token = await node.active()

    with pytest.raises(Invalidated):
        await node.sessions.authenticate(token, client=STRANGER)

    assert (await node.now(session)).reason == "invalidate_network"


async def test_what_opens_a_ticket_is_watched_like_what_presents_a_token() -> None:
    node = Watched(CHALLENGE)
    session, _ = await node.active()

    await node.sessions.recognise(session, HOME)
    with pytest.raises(SessionSuspended):
        await node.sessions.recognise(session, STRANGER)


async def test_what_is_ignored_is_neither_reported_nor_counted() -> None:
    node = Watched(ThreatSettings(on_network_change=SignalPolicy.IGNORE, on_program_change=SignalPolicy.IGNORE))
    session, token = await node.active()

    await node.sessions.authenticate(token, client=HOME)
    await node.sessions.authenticate(token, client=STRANGER)

    assert (await node.risk(session)).signals == ()
    assert node.reported == []


async def test_use_from_two_networks_in_turns_is_noticed_and_moving_once_is_not() -> None:
    node = Watched()
    session, token = await node.active()

    for client in (HOME, ON_THE_WAY, HOME):
        await node.sessions.authenticate(token, client=client)
    moved = {each.signal for each in (await node.risk(session)).signals}
    for client in (ON_THE_WAY, HOME, ON_THE_WAY):
        await node.sessions.authenticate(token, client=client)
    in_turns = {each.signal for each in (await node.risk(session)).signals}

    assert Signal.PARALLEL not in moved
    assert Signal.PARALLEL in in_turns


async def test_a_score_may_challenge_where_the_settings_say_so() -> None:
    node = Watched(ThreatSettings(challenge_score=4.0))
    session, token = await node.active()

    await node.sessions.authenticate(token, client=STRANGER)
    await node.watch.settle()

    assert (await node.now(session)).reason == "challenge_program"


# --- traffic ------------------------------------------------------------------------------------------


async def test_a_session_that_suddenly_sends_many_times_as_much_is_noticed() -> None:
    node = Watched()
    session, _ = await node.active()
    sent = 0
    for window in range(16):
        sent += 2000 if window == 15 else 15
        node.sockets.sent[session.id] = (session, sent, 0)
        for _ in range(20):
            node.clock.advance(seconds=0.25)
            await node.watch.tick()

    (signal,) = (await node.risk(session)).signals
    (event,) = (event for event in node.reported if event.type is SecurityEventType.ANOMALY)

    assert signal.signal is Signal.PACE
    assert "messages per second" in event.details["pace"]
    assert (await node.now(session)).state is SessionState.ACTIVE


# --- patterns -----------------------------------------------------------------------------------------


async def settled_in(node: Watched, user: str = "alice") -> None:
    """A user who has worked at home, at noon, for a month."""
    for _ in range(30):
        _, token = await node.active(user)
        await node.sessions.authenticate(token, client=HOME)
        await node.watch.tick()
        node.clock.advance(days=1)


async def test_an_unusual_hour_network_and_device_of_a_user_are_noticed() -> None:
    node = Watched()
    await settled_in(node)
    node.clock.advance(hours=12)
    session, token = await node.active(client=None)

    await node.sessions.authenticate(token, client=STRANGER)

    found = {each.signal for each in (await node.risk(session)).signals}
    assert found == {Signal.USER_HOURS, Signal.USER_NETWORK, Signal.USER_DEVICE}
    assert (await node.now(session)).state is SessionState.ACTIVE


async def test_a_pattern_is_small_and_names_nothing_and_can_be_forgotten() -> None:
    node = Watched()
    await settled_in(node)
    (before,) = await node.objects.list(PATTERNS)

    await node.watch.forget("alice")
    session, token = await node.active(client=None)
    await node.sessions.authenticate(token, client=STRANGER)

    assert len(before.value) <= MAX_PATTERN_BYTES
    assert b"alice" not in before.value
    assert "alice" not in before.name
    assert b"203.0.113" not in before.value
    assert b"Firefox" not in before.value
    assert (await node.risk(session)).signals == ()


async def test_patterns_of_two_nodes_are_put_together() -> None:
    here = Watched()
    there = Watched(beside=here)
    await settled_in(here)
    for node, client in ((here, HOME), (there, ON_THE_WAY), (here, STRANGER)):
        _, token = await node.active(client=None)
        await node.sessions.authenticate(token, client=client)
        await node.watch.settle()
    here.clock.advance(hours=1)

    await there.watch.tick()
    await here.watch.tick()
    third = Watched(beside=here)
    session, token = await third.active(client=None)
    await third.sessions.authenticate(token, client=Client(ip=ON_THE_WAY.ip, user_agent=CHROME))

    assert (await third.risk(session)).signals == ()


@pytest.mark.parametrize("is_written", [False, True])
async def test_what_one_node_forgets_of_a_user_no_other_node_remembers(*, is_written: bool) -> None:
    here = Watched()
    there = Watched(beside=here)
    await settled_in(there)
    if not is_written:
        _, token = await there.active(client=None)
        await there.sessions.authenticate(token, client=ON_THE_WAY)
        await there.watch.settle()

    await here.watch.forget("alice")
    here.clock.advance(hours=1)
    await there.watch.tick()
    kept = list(await here.objects.list(PATTERNS))
    session, token = await there.active(client=None)
    await there.sessions.authenticate(token, client=STRANGER)

    assert kept == []
    assert (await there.risk(session)).signals == ()


async def test_no_pattern_is_kept_where_that_is_off() -> None:
    node = Watched(ThreatSettings(patterns=False))

    await settled_in(node)

    assert list(await node.objects.list(PATTERNS)) == []


async def test_what_is_over_is_deleted_after_a_while() -> None:
    node = Watched()
    await settled_in(node)
    session, _ = await node.active(client=None)
    await node.misbehave(session, "malformed")
    assert list(await node.objects.list(LEDGERS)) != []

    node.clock.advance(days=100)
    await node.watch.tick()

    assert list(await node.objects.list(LEDGERS)) == []
    assert list(await node.objects.list(PATTERNS)) == []


# --- while storage fails ------------------------------------------------------------------------------


class Failing(MemoryObjectStore):
    """Objects that are away, or whose next commits are answered wrongly, as the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.cut_answers = 0

    async def get(self, space: str, name: str) -> Any:
        self._check()
        return await super().get(space, name)

    async def get_many(self, space: str, names: Sequence[str]) -> Any:
        self._check()
        return await super().get_many(space, names)

    async def commit(self, space: str, changes: Changes, *, expected: Mapping[str, int] = NOTHING_EXPECTED) -> None:
        self._check()
        await super().commit(space, changes, expected=expected)
        if self.cut_answers:
            self.cut_answers -= 1
            raise OutcomeUnknown("cut")

    def _check(self) -> None:
        if self.is_away:
            raise Storage("away")


async def test_violations_wait_while_their_ledger_is_away_and_then_have_their_consequence() -> None:
    objects = Failing()
    node = Watched(objects=objects)
    session, _ = await node.active()

    objects.is_away = True
    await node.misbehave(session, "forged", "forged")
    in_between = await node.now(session)
    objects.is_away = False
    await node.watch.settle()

    assert in_between.state is SessionState.ACTIVE
    assert (await node.now(session)).state is SessionState.SUSPENDED
    assert (await node.risk(session)).level == 8


async def test_a_commit_whose_answer_is_cut_off_counts_once_and_has_its_consequence() -> None:
    objects = Failing()
    node = Watched(objects=objects)
    session, _ = await node.active()

    objects.cut_answers = 1
    await node.sessions.record_violation(session.id, "forged")
    await node.sessions.record_violation(session.id, "forged")
    await node.watch.settle()

    assert (await node.risk(session)).level == 8
    assert (await node.now(session)).state is SessionState.SUSPENDED


async def test_while_it_cannot_be_known_a_policy_that_may_forbid_lets_nobody_new_in_and_one_that_flags_does() -> None:
    strict, lenient = (Watched(settings, objects=Failing()) for settings in (CHALLENGE, ThreatSettings()))
    for node in (strict, lenient):
        assert isinstance(node.objects, Failing)
        node.objects.is_away = True
    _, token = await strict.active()
    _, other = await lenient.active()

    with pytest.raises(Storage):
        await strict.sessions.authenticate(token, client=HOME)
    let_in = await lenient.sessions.authenticate(other, client=HOME)

    assert let_in.state is SessionState.ACTIVE


async def test_a_ledger_that_cannot_be_read_harms_nobody_else() -> None:
    node = Watched()
    session, _ = await node.active()
    other, _ = await node.active("bob")
    await node.misbehave(session, "forged")
    (stored,) = await node.objects.list(LEDGERS)
    await node.objects.commit(LEDGERS, {stored.name: b"\xc1"})

    await node.sessions.record_violation(session.id, "forged")
    await node.misbehave(other, "forged", "forged")

    assert (await node.now(other)).state is SessionState.SUSPENDED


def test_thresholds_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="in this order"):
        ThreatSettings(warn_at=5, suspend_at=4)
    with pytest.raises(ValueError, match="in this order"):
        ThreatSettings(challenge_score=1.0)
    with pytest.raises(ValueError, match="longer than"):
        ThreatSettings(violation_check_interval=timedelta())


# --- other nodes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["here", "there"])
async def test_sockets_on_other_nodes_are_warned_as_well_and_it_is_reported_once(first: str) -> None:
    here = Watched()
    there = Watched(beside=here)
    session, _ = await here.active()
    here.sockets.sent[session.id] = there.sockets.sent[session.id] = (session, 0, 0)
    reported: list[str] = []
    for node in (here, there):
        node.events.listen(lambda event: reported.append(event.type))
    here.sessions.on_events(there.watch.hear)

    for _ in range(3):
        await here.sessions.record_violation(session.id, "malformed")
        for node in (there, here) if first == "there" else (here, there):
            await node.watch.settle()

    assert [[id for id, _ in node.sockets.warnings] for node in (here, there)] == [[session.id], [session.id]]
    assert here.sockets.warnings == there.sockets.warnings
    assert reported == [SecurityEventType.VIOLATION]


async def test_what_is_heard_again_warns_nobody_again_and_nobody_is_warned_who_is_not_here() -> None:
    here = Watched()
    there, without = Watched(beside=here), Watched(beside=here)
    session, _ = await here.active()
    there.sockets.sent[session.id] = (session, 0, 0)
    heard: list[Any] = []
    here.sessions.on_events(heard.extend)
    await here.misbehave(session, *["malformed"] * 3)

    for _ in range(3):
        for node in (here, there, without):
            node.watch.hear(heard)
            await node.watch.settle()

    assert [len(node.sockets.warnings) for node in (here, there, without)] == [1, 1, 0]


# --- inspection ---------------------------------------------------------------------------------------


async def test_what_looks_like_an_attack_of_a_session_is_a_violation() -> None:
    node = Watched()
    session, _ = await node.active()
    other, _ = await node.active("bob")

    node.events.report(SecurityEventType.INVALID_INPUT, "suspicious_input", session=session.id, user="alice")
    node.events.report(SecurityEventType.INVALID_INPUT, "suspicious_input", actor="key:backend")
    node.events.report(SecurityEventType.INVALID_INPUT, "invalid_input", session=other.id, user="bob")
    await node.watch.tick()

    assert (await node.now(session)).violations == 1
    assert (await node.now(other)).violations == 0
    assert [each.strike.cause for each in (await node.risk(session)).strikes] == ["inspection"]
