"""Whatever clients send and whatever happens to sessions: nothing raises, and the dead do not speak."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from roomkey.domain.session import Deleted, Expired, Invalidated, Resumed, Session, SessionState, Suspended
from roomkey.errors import Storage
from roomkey.realtime.protocol.json_messages import ErrorCode, MessageType
from roomkey.realtime.transport import Accepted
from tests.support.effort import examples
from tests.support.sockets import Caller, Node
from tests.support.steps import History, Pick, histories, live

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


@settings(max_examples=examples(150))
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


@settings(max_examples=examples(100))
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


class Revocations:
    """
    Three sessions of two users, with sockets that come and go, while everything happens to them.

    What reaches a witness is compared with who was alive when it was said.
    """

    def __init__(self, idle: timedelta | None) -> None:
        self.node = Node(max_connections_per_session=4)
        self.runner = asyncio.Runner()
        self.issued = [self.node.sessions.issue(user, idle=idle) for user in ("alice", "alice", "bob")]
        self.callers: list[Caller] = []
        forever = timedelta(days=999)
        self.witness = self.runner.run(self.node.member(user_id="witness", idle=None, lifetime=forever))
        self.said_by_the_living: set[str] = set()
        self.heard: set[str] = set()
        self.said = 0

    def _is_alive(self, session: Session) -> bool:
        settled = self.node.sessions.settle(session.id)
        return settled is not None and settled.state is SessionState.ACTIVE

    def connect(self, pick: Pick) -> None:
        session, token = pick(self.issued)
        hidden = pick((None, None, None, Invalidated, Suspended))
        if hidden is not None and self._is_alive(session):
            # In the middle of the handshake.
            self.node.sessions.before_returning = lambda: self.node.sessions.change(session.id, hidden)
        answer = self.runner.run(self.node.knock(token))
        self.node.sessions.before_returning = lambda: None
        if isinstance(answer, Accepted):
            assert self._is_alive(session)
            caller = Caller(self.node, answer.conversation)
            caller.session = session
            caller.open()
            caller.say("subscribe", {"document": "d"})
            self.callers.append(caller)

    def say(self, pick: Pick) -> None:
        if not self.callers:
            return
        caller = pick(self.callers)
        self.said += 1
        text = str(self.said)
        caller.whisper("realtime_edit", {"document": "d", "text": text}, id=text)
        if self._is_alive(caller.session):
            self.said_by_the_living.add(text)

    def happen(self, pick: Pick) -> None:
        session, kind = (
            pick(self.issued)[0],
            pick((Suspended, Suspended, Resumed, Resumed, Expired, Invalidated, Deleted)),
        )
        self.node.sessions.change_if_allowed(session.id, kind)

    def renew(self, pick: Pick) -> None:
        """Sessions do not come back, so that there are always some that may speak."""
        user = pick(("alice", "bob"))
        self.issued[pick((0, 1, 2))] = self.node.sessions.issue(user, idle=pick((None, timedelta(minutes=10))))

    def revoke_user(self, pick: Pick) -> None:
        self.node.sessions.revoke_user(pick(("alice", "bob")), keep=pick((None, self.issued[0][0].id)))

    def pass_time(self, pick: Pick) -> None:
        self.node.clock.advance(minutes=pick((0, 1, 6, 11)))
        self.runner.run(self.node.handler.record_activity())

    def tick(self, _: Pick) -> None:
        self.node.pass_time()

    def answer(self, pick: Pick) -> None:
        self.node.sessions.failure = pick((None, None, None, Storage("away")))
        self.runner.run(self.node.answer())
        self.node.sessions.failure = None

    def refresh(self, pick: Pick) -> None:
        if self.callers:
            caller, (session, token) = pick(self.callers), pick(self.issued)
            before = len(caller.socket.messages)
            caller.say("session_refresh", {"token": token})
            self.runner.run(self.node.answer())
            if any(m["message_type"] == "session_refreshed" for m in caller.socket.messages[before:]):
                caller.session = session

    def hang_up(self, pick: Pick) -> None:
        if self.callers:
            caller = pick(self.callers)
            self.callers.remove(caller)
            caller.hang_up()

    def turn(self, _: Pick) -> None:
        self.node.turns.settle()

    def check(self) -> None:
        self.heard |= {m["payload"]["text"] for m in self.witness.news() if m["message_type"] == "realtime_edit"}
        assert self.heard <= self.said_by_the_living
        for caller in self.callers:
            session = self.node.sessions.get(caller.session.id)
            assert caller.closed_with is not None or (session and session.state is SessionState.ACTIVE)
        open_ones = [caller for caller in self.callers if caller.closed_with is None]
        assert self.node.handler.statistics().connections == len(open_ones) + 1
        assert not any(caller.socket.aborted for caller in self.callers)


STEPS = (
    *("connect",) * 4,
    *("say",) * 6,
    *("happen", "renew", "revoke_user", "pass_time", "tick", "answer", "answer", "refresh", "hang_up", "turn"),
)


@settings(max_examples=examples(100))
@given(idle=st.sampled_from([None, timedelta(minutes=10)]), history=histories(*STEPS))
def test_no_frame_of_an_ended_session_passes(idle: timedelta | None, history: History) -> None:
    world = Revocations(idle)

    with world.runner:
        live(world, history)
        # And whoever may speak was heard, unless it hung up or was closed while storage was asked.
        world.runner.run(world.node.answer())
        world.check()
