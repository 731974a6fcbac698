"""Whatever clients send and whatever happens to sessions: nothing raises, and the dead do not speak."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from roomkey.domain.session import Deleted, Evicted, Expired, Invalidated, Resumed, SessionState, Suspended
from roomkey.errors import Storage
from roomkey.realtime.protocol import ErrorCode, MessageType
from roomkey.realtime.socket import Accepted
from tests.support.sockets import Caller, Node

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
FIELDS = st.sampled_from(["document", "since", "status", "token", "session_info", "position", "x"])
ALMOST = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=140) | JSON,
        "message_type": st.sampled_from([*MessageType, "vote", "?"]) | JSON,
        "payload": st.dictionaries(FIELDS, st.just("d") | JSON, max_size=5) | JSON,
        "timestamp": st.just("2026-01-02T12:00:00Z") | JSON,
    },
)
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer", "maximum": 10}}}
CODES = {*ErrorCode}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=200) | ALMOST | JSON, min_size=1, max_size=15))
def test_whatever_is_said_is_answered_or_ends_its_sender_and_nobody_else(said: list[Any]) -> None:
    async def scenario() -> None:
        node = Node(message_types={"vote": SCHEMA})
        speaker, listener = await node.member(), await node.member(user_id="bob")

        for message in said:
            speaker.raw(message if isinstance(message, bytes) else json.dumps(message).encode())
            await node.answer()

        for message in speaker.news():
            if message["message_type"] == "error":
                assert message["payload"]["code"] in CODES
        for message in listener.news():
            assert message["payload"]["session_info"] == {"session_id": speaker.session.id, "user_id": "alice"}
            assert message["payload"]["document"] == "d"
        assert listener.closed_with is None
        assert not speaker.socket.aborted

    asyncio.run(scenario())


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=10), JSON, max_size=5), st.text(min_size=1).filter(str.isprintable))
def test_what_an_editor_says_arrives_as_it_was_said(free: dict[str, Any], id: str) -> None:
    async def scenario() -> None:
        node = Node()
        speaker, listener = await node.member(), await node.member(user_id="bob")
        payload = {**free, "document": "d"}

        speaker.raw(json.dumps({"id": id[:128], "message_type": "realtime_edit", "payload": payload}).encode())

        (answer,) = speaker.news()
        if answer["message_type"] == "error":
            # Numbers beyond 64 bits that are no integers of ours, and the like: refused, never changed.
            assert listener.news() == []
            return
        arrived = listener.payload_of("realtime_edit")
        arrived.pop("session_info")
        assert arrived.pop("position") == answer["payload"]["position"]
        expected = msgspec.json.decode(json.dumps(payload))
        expected.pop("session_info", None)
        expected.pop("position", None)
        assert arrived == expected

    asyncio.run(scenario())


class Revocations(RuleBasedStateMachine):
    """
    Three sessions of two users, with sockets that come and go, while everything happens to them.

    What reaches the witness is compared with who was alive when it was said.
    """

    @initialize(idle=st.sampled_from([None, timedelta(minutes=10)]))
    def begin(self, idle: timedelta | None) -> None:
        self.node = Node(max_connections_per_session=4)
        self.runner = asyncio.Runner()
        self.tokens = [self.node.sessions.issue(user, idle=idle) for user in ("alice", "alice", "bob")]
        self.callers: list[Caller] = []
        self.witness = self.runner.run(self.node.member(user_id="witness", idle=None, lifetime=timedelta(days=999)))
        self.said_by_the_living: set[str] = set()
        self.heard: set[str] = set()
        self.said = 0

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.close()

    def _is_alive(self, number: int) -> bool:
        session, _ = self.tokens[number]
        settled = self.runner.run(self.node.sessions.get_session(session.id))
        return settled is not None and settled.state is SessionState.ACTIVE

    @rule(number=st.integers(0, 2))
    def connect(self, number: int) -> None:
        alive = self._is_alive(number)
        answer = self.runner.run(self.node.knock(self.tokens[number][1]))
        if not isinstance(answer, Accepted):
            return
        assert alive
        caller = Caller(self.node, answer.conversation)  # pyright: ignore[reportArgumentType]  # it is a Peer
        caller.session = self.tokens[number][0]
        caller.open()
        caller.say("subscribe", {"document": "d"})
        self.callers.append(caller)

    @rule(data=st.data())
    def say(self, data: st.DataObject) -> None:
        if not self.callers:
            return
        caller = data.draw(st.sampled_from(self.callers))
        session = self.node.sessions._sessions.get(caller.session.id)
        self.said += 1
        text = str(self.said)
        # As it is at this moment, with deadlines: what FakeSessions would find.
        number = [session.id for session, _ in self.tokens].index(caller.session.id)
        caller.whisper("realtime_edit", {"document": "d", "text": text}, id=f"{id(caller)}-{text}")
        if session is not None and self._is_alive(number):
            self.said_by_the_living.add(text)

    @rule(number=st.integers(0, 2), kind=st.sampled_from([Suspended, Expired, Invalidated, Evicted, Deleted, Resumed]))
    def happen(self, number: int, kind: type[Any]) -> None:
        session = self.node.sessions._sessions.get(self.tokens[number][0].id)
        allowed = {
            SessionState.ACTIVE: {Suspended, Expired, Invalidated, Evicted, Deleted},
            SessionState.SUSPENDED: {Resumed, Expired, Invalidated, Evicted, Deleted},
        }
        if session is not None and kind in allowed.get(session.state, {Deleted}):
            self.node.sessions.change(session.id, kind)

    @rule(user=st.sampled_from(["alice", "bob"]), keep=st.booleans())
    def revoke_user(self, user: str, keep: bool) -> None:  # noqa: FBT001  # Hypothesis calls it by name
        self.node.sessions.revoke_user(user, keep=self.tokens[0][0].id if keep else None)

    @rule(minutes=st.sampled_from([0, 1, 6, 11]))
    def pass_time(self, minutes: int) -> None:
        self.node.pass_time(minutes=minutes)
        self.runner.run(self.node.handler.record_activity())

    @rule(away=st.booleans())
    def storage_answers(self, away: bool) -> None:  # noqa: FBT001
        self.node.sessions.failure = Storage("away") if away else None
        self.runner.run(self.node.answer())
        self.node.sessions.failure = None

    @rule(data=st.data())
    def hang_up(self, data: st.DataObject) -> None:
        if self.callers:
            caller = data.draw(st.sampled_from(self.callers))
            self.callers.remove(caller)
            caller.hang_up()

    @rule()
    def turn(self) -> None:
        self.node.turns.settle()

    @invariant()
    def only_the_living_are_heard(self) -> None:
        if hasattr(self, "witness"):
            self.heard |= {m["payload"]["text"] for m in self.witness.news() if m["message_type"] == "realtime_edit"}
            assert self.heard <= self.said_by_the_living

    @invariant()
    def no_socket_of_an_ended_session_is_open(self) -> None:
        for caller in getattr(self, "callers", []):
            session = self.node.sessions._sessions.get(caller.session.id)
            if session is None or session.state is not SessionState.ACTIVE:
                assert caller.closed_with is not None

    @invariant()
    def connections_are_counted(self) -> None:
        if hasattr(self, "callers"):
            open_ones = [caller for caller in self.callers if caller.closed_with is None]
            assert self.node.handler.statistics().connections == len(open_ones) + 1


Revocations.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRevocations = Revocations.TestCase
