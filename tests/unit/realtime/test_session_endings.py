"""What happens to a session happens to its open sockets, before the command that did it returns."""

from datetime import timedelta
from typing import Any

import pytest

from roomkey.domain.access import Access, Grant
from roomkey.domain.session import (
    Deleted,
    Evicted,
    Expired,
    Extended,
    Invalidated,
    Resumed,
    SessionEvent,
    SessionState,
    Suspended,
    TokenRotated,
    ViolationRecorded,
)
from roomkey.errors import Storage
from tests.support.sockets import READ_ONLY, Caller, Node

ENDINGS: dict[type[SessionEvent], tuple[str, int, str]] = {
    Suspended: ("session_suspended", 4423, "session_suspended: because"),
    Invalidated: ("session_invalidated", 4401, "session_invalidated: because"),
    Evicted: ("session_invalidated", 4401, "session_invalidated: because"),
    Deleted: ("session_invalidated", 4401, "session_invalidated: because"),
    Expired: ("session_disconnected", 4401, "session_expired"),
}


@pytest.mark.parametrize("kind", ENDINGS, ids=lambda kind: kind.tag())
async def test_every_socket_of_an_ended_session_is_told_why_and_closed(kind: type[SessionEvent]) -> None:
    node = Node()
    session, token = node.sessions.issue()
    first, second, other = await node.enter(token), await node.enter(token), await node.client()

    node.sessions.change(session.id, kind, reason="because")

    message_type, code, reason = ENDINGS[kind]
    for caller in (first, second):
        (farewell,) = caller.news()
        assert farewell["message_type"] == message_type
        assert farewell["payload"]["reason"] == "because"
        assert caller.closed_with == (code, reason)
    assert other.closed_with is None
    assert node.handler.statistics().connections == 1
    assert node.handler.statistics().revoked == 2


@pytest.mark.parametrize("kind", ENDINGS, ids=lambda kind: kind.tag())
async def test_frames_that_were_on_their_way_in_are_refused(kind: type[SessionEvent]) -> None:
    node = Node()
    caller, other = await node.member(), await node.member(user_id="bob")

    node.sessions.change(caller.session.id, kind)
    caller.edit("too late")

    assert other.news() == []


async def test_an_ended_session_sees_nothing_more_of_its_documents() -> None:
    node = Node()
    caller, other = await node.member(), await node.member(user_id="bob")
    other.whisper("realtime_edit", {"document": "d", "text": "secret"})

    node.sessions.change(caller.session.id, Invalidated)
    node.turns.settle()

    assert [message["message_type"] for message in caller.news()] == ["session_invalidated"]


async def test_an_expired_session_may_come_back_with_a_new_token_and_a_revoked_one_may_not() -> None:
    node = Node()
    expired, revoked = await node.client(), await node.client()

    node.sessions.change(expired.session.id, Expired)
    node.sessions.change(revoked.session.id, Invalidated)

    assert expired.payload_of("session_disconnected")["refresh"] is True
    assert expired.closed_with != revoked.closed_with


async def test_revoking_a_user_ends_all_sessions_but_the_one_that_is_kept() -> None:
    node = Node()
    first, second, kept = await node.client(), await node.client(), await node.client()
    bob = await node.client("bob")

    node.sessions.revoke_user("alice", keep=kept.session.id)

    assert first.closed_with == second.closed_with == (4401, "session_invalidated")
    assert kept.closed_with is None
    assert bob.closed_with is None


async def test_a_late_repetition_of_a_revocation_spares_the_session_that_came_after_it() -> None:
    node = Node()
    await node.client()
    revoked = node.sessions.revoke_user("alice")
    node.clock.advance(seconds=1)
    newcomer = await node.member()

    node.handler.on_events([revoked])
    newcomer.edit("waits")
    waiting = newcomer.news()
    await node.answer()

    assert waiting == []
    assert newcomer.closed_with is None
    assert newcomer.payload_of("ack")["position"]["offset"] == 1


async def test_a_revocation_by_a_clock_that_is_behind_is_checked() -> None:
    node = Node()
    caller, other = await node.member(), await node.member(user_id="bob")
    revoked = node.sessions.revoke_user("alice", tell=False)
    behind = type(revoked)(user="alice", epoch=1, at=revoked.at - timedelta(seconds=5))

    node.handler.on_events([behind])
    caller.edit("refused")
    await node.answer()

    assert caller.closed_with == (4401, "session_invalidated")
    assert other.news() == []


async def test_a_doubt_that_is_younger_than_the_answer_is_asked_again() -> None:
    node = Node()
    caller = await node.member()
    behind = node.sessions.revoke_user("nobody", tell=False)
    doubt = type(behind)(user="alice", epoch=1, at=behind.at - timedelta(seconds=5))
    node.handler.on_events([doubt])

    def revoke_after_the_read() -> None:
        node.sessions.revoke_user("alice", tell=False)
        node.handler.on_events([doubt])

    node.sessions.before_returning = revoke_after_the_read
    await node.answer()

    assert caller.closed_with == (4401, "session_invalidated")


async def test_when_storage_cannot_settle_a_doubt_nothing_passes() -> None:
    node = Node()
    caller, other = await node.member(), await node.member(user_id="bob")
    node.clock.advance(seconds=1)
    revoked = node.sessions.revoke_user("nobody", tell=False)
    doubt = type(revoked)(user="alice", epoch=1, at=revoked.at - timedelta(seconds=5))
    node.handler.on_events([doubt])
    caller.edit("unsure")

    node.sessions.failure = Storage("away")
    await node.answer()

    assert caller.closed_with == (1013, "unavailable")
    assert other.news() == []


async def test_old_events_that_arrive_again_do_nothing() -> None:
    node = Node()
    session, token = node.sessions.issue()
    suspended = node.sessions.change(session.id, Suspended)
    node.sessions.change(session.id, Resumed)
    caller = await node.enter(token)

    node.handler.on_events([suspended])

    assert caller.closed_with is None


@pytest.mark.parametrize("kind", [TokenRotated, ViolationRecorded], ids=lambda kind: kind.tag())
async def test_the_socket_carries_the_session_not_the_credential(kind: type[SessionEvent]) -> None:
    node = Node()
    caller = await node.member()

    node.sessions.change(caller.session.id, kind)
    caller.edit("x")

    assert caller.payload_of("ack")["position"]["offset"] == 1


async def test_an_event_that_nobody_told_of_is_looked_up() -> None:
    node = Node()
    caller, other = await node.member(), await node.member(user_id="bob")
    node.sessions.change(caller.session.id, Suspended, tell=False)
    node.sessions.change(caller.session.id, Resumed, tell=False)
    node.sessions.change(caller.session.id, Suspended, tell=False)

    node.handler.on_events(
        [
            ViolationRecorded(
                session=caller.session.id,
                user="alice",
                version=node.sessions[caller.session.id].version,
                at=node.clock.now(),
            )
        ]
    )
    caller.edit("refused")
    await node.answer()

    assert caller.closed_with == (4423, "session_suspended")
    assert other.news() == []


async def test_one_broken_socket_does_not_keep_the_others_open() -> None:
    node = Node()
    _, token = node.sessions.issue()
    broken, sound = await node.enter(token), await node.enter(token)

    def fail(frames: object) -> None:
        raise RuntimeError(f"a bug in a transport, with {frames}")

    broken.socket.send = fail
    node.sessions.change(sound.session.id, Invalidated)

    assert sound.closed_with == (4401, "session_invalidated")
    assert broken.socket.aborted
    assert node.handler.statistics().connections == 0


# --- races between the handshake and the events ---------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "status"), [(Invalidated, 410), (Suspended, 401), (Deleted, 401), (Expired, 410)], ids=str
)
async def test_a_session_that_ends_while_its_token_is_checked_is_not_let_in(
    kind: type[SessionEvent], status: int
) -> None:
    node = Node()
    session, token = node.sessions.issue()
    node.sessions.before_returning = lambda: node.sessions.change(session.id, kind)

    answer: Any = await node.knock(token)

    assert answer.status == status
    assert node.handler.statistics().connections == 0


async def test_a_session_that_ends_during_the_second_look_is_not_let_in() -> None:
    node = Node()
    session, token = node.sessions.issue()

    def end_it() -> None:
        node.sessions.change(session.id, Invalidated)

    def wait_for_the_second_look() -> None:
        node.sessions.before_returning = end_it

    node.sessions.before_returning = wait_for_the_second_look
    answer: Any = await node.knock(token)

    assert answer.status == 410
    assert node.handler.statistics().connections == 0


async def test_a_session_that_ends_before_its_socket_opens_gets_the_message_then() -> None:
    node = Node()
    session, token = node.sessions.issue()
    accepted: Any = await node.knock(token)

    node.sessions.change(session.id, Invalidated)
    caller = Caller(node, accepted.conversation)
    caller.open()
    caller.say("heartbeat")

    assert [message["message_type"] for message in caller.news()] == ["session_invalidated"]
    assert caller.closed_with == (4401, "session_invalidated")


# --- deadlines ------------------------------------------------------------------------------------------


async def test_a_silent_socket_is_closed_when_the_lifetime_is_over() -> None:
    node = Node()
    caller = await node.client(lifetime=timedelta(minutes=30), idle=None)

    node.pass_time(minutes=29, seconds=59.9)
    await node.answer()
    before = caller.closed_with
    node.pass_time(seconds=0.1)
    await node.answer()

    assert before is None
    assert caller.closed_with == (4401, "session_expired")
    assert node.sessions[caller.session.id].state is SessionState.EXPIRED


async def test_no_frame_passes_after_the_deadline_even_before_the_tick() -> None:
    node = Node()
    caller = await node.member(lifetime=timedelta(minutes=30), idle=None)
    other = await node.member(user_id="bob")

    node.clock.advance(minutes=30)
    caller.edit("too late")
    await node.answer()

    assert caller.closed_with == (4401, "session_expired")
    assert other.news() == []


async def test_idleness_ends_a_session_and_heartbeats_do_not_prevent_it() -> None:
    node = Node()
    caller = await node.member(idle=timedelta(minutes=10))

    for _ in range(11):
        node.pass_time(minutes=1)
        caller.say("heartbeat")
        await node.answer()

    assert caller.closed_with == (4401, "session_expired")


async def test_edits_keep_a_session_alive() -> None:
    node = Node()
    caller = await node.member(idle=timedelta(minutes=10))

    for _ in range(30):
        node.pass_time(minutes=1)
        caller.edit("x")
        await node.handler.record_activity()
        await node.answer()

    assert caller.closed_with is None


async def test_use_elsewhere_keeps_a_session_alive_and_what_waits_is_not_lost() -> None:
    node = Node()
    caller, other = await node.member(idle=timedelta(minutes=10)), await node.member(user_id="bob")
    node.clock.advance(minutes=9)
    await node.sessions.touch(caller.session.id)

    node.clock.advance(minutes=2)
    caller.edit("one")
    caller.edit("two")
    caller.edit("two", id="m3")
    before = other.news()
    await node.answer()

    assert before == []
    assert [edit["payload"]["text"] for edit in other.news()] == ["one", "two"]
    assert [message["message_type"] for message in caller.news()] == ["ack", "ack", "ack"]


async def test_what_waits_is_bounded() -> None:
    node = Node(max_held_messages=5)
    caller = await node.member(idle=timedelta(minutes=10))
    node.clock.advance(minutes=11)

    for _ in range(6):
        caller.edit("x")

    assert caller.closed_with == (1013, "overloaded")


async def test_past_its_deadline_nobody_vouches_for_a_session_when_storage_is_away() -> None:
    node = Node()
    caller = await node.member(idle=timedelta(minutes=10))
    node.clock.advance(minutes=11)
    node.sessions.failure = Storage("away")

    caller.edit("x")
    await node.answer()

    assert caller.closed_with == (1013, "unavailable")


async def test_a_storage_that_breaks_ends_one_connection_and_not_the_service() -> None:
    node = Node()
    caller = await node.member(idle=timedelta(minutes=10))
    node.clock.advance(minutes=11)
    caller.edit("x")

    node.sessions.failure = RuntimeError("a bug")
    await node.answer()

    assert caller.closed_with == (1013, "unavailable")


async def test_more_checks_than_may_wait_fail_at_once() -> None:
    node = Node(max_questions=1)
    first, second = await node.member(idle=timedelta(minutes=10)), await node.member(idle=timedelta(minutes=10))
    node.clock.advance(minutes=11)

    first.edit("x")
    second.edit("x")

    assert first.closed_with is None
    assert second.closed_with == (1013, "unavailable")


async def test_the_end_is_announced_once_a_minute_before() -> None:
    node = Node()
    caller = await node.client(lifetime=timedelta(minutes=30), idle=None)

    node.pass_time(minutes=28, seconds=59)
    await node.answer()
    before = caller.news()
    for _ in range(10):
        node.pass_time(seconds=1)
        await node.answer()

    assert before == []
    assert caller.payload_of("session_expiring") == {"expires_at": "2026-01-02T12:30:00Z", "reason": "lifetime"}


async def test_a_session_that_is_about_to_end_is_announced_right_after_the_greeting() -> None:
    node = Node()
    caller = await node.client(lifetime=timedelta(seconds=20), idle=None)

    node.pass_time(seconds=0.25)
    await node.answer()

    assert caller.payload_of("session_expiring")["reason"] == "lifetime"


async def test_the_end_by_idleness_is_announced_and_activity_calls_it_off() -> None:
    node = Node()
    caller = await node.member(idle=timedelta(minutes=10))

    node.pass_time(minutes=9)
    await node.answer()
    first = caller.payload_of("session_expiring")
    caller.edit("x")
    await node.handler.record_activity()
    node.pass_time(minutes=2)
    await node.answer()
    caller.payload_of("ack")
    node.pass_time(minutes=7)
    await node.answer()

    assert first == {"expires_at": "2026-01-02T12:10:00Z", "reason": "idle"}
    assert caller.payload_of("session_expiring")["expires_at"] == "2026-01-02T12:19:00Z"


async def test_use_elsewhere_prevents_the_announcement() -> None:
    node = Node()
    caller = await node.client(idle=timedelta(minutes=10))
    node.clock.advance(minutes=8)
    await node.sessions.touch(caller.session.id)

    node.pass_time(minutes=1)
    await node.answer()

    assert caller.news() == []


async def test_the_announcement_does_not_depend_on_storage() -> None:
    node = Node()
    caller = await node.client(lifetime=timedelta(minutes=30), idle=None)
    node.sessions.failure = Storage("away")

    node.pass_time(minutes=29)
    await node.answer()

    assert caller.payload_of("session_expiring")["reason"] == "lifetime"


async def test_an_extension_moves_the_deadline_of_open_sockets() -> None:
    node = Node()
    caller = await node.client(lifetime=timedelta(minutes=30), idle=None)
    node.pass_time(minutes=29)
    await node.answer()
    caller.news()

    node.sessions.change(caller.session.id, Extended, expires_at=node.clock.now() + timedelta(hours=1))
    node.pass_time(minutes=58)
    await node.answer()
    quiet = caller.news()
    node.pass_time(minutes=1)
    await node.answer()

    assert quiet == []
    assert caller.payload_of("session_expiring")["expires_at"] == "2026-01-02T13:29:00Z"


async def test_an_extension_may_bring_the_end_nearer() -> None:
    node = Node()
    caller = await node.client(idle=None)

    node.sessions.change(caller.session.id, Extended, expires_at=node.clock.now() + timedelta(seconds=5))
    node.pass_time(seconds=5)
    await node.answer()

    assert caller.payload_of("session_expiring")["reason"] == "lifetime"
    assert caller.closed_with == (4401, "session_expired")


async def test_a_client_that_must_send_heartbeats_and_does_not_is_closed() -> None:
    node = Node(heartbeat_timeout=timedelta(seconds=30))
    silent, beating = await node.client(), await node.client()

    for _ in range(4):
        node.pass_time(seconds=10)
        beating.say("heartbeat")

    assert silent.closed_with == (4408, "no_heartbeat")
    assert beating.closed_with is None


async def test_an_accepted_handshake_that_never_becomes_a_socket_gives_its_place_away() -> None:
    node = Node(max_connections=1)
    _, token = node.sessions.issue()
    accepted: Any = await node.knock(token)
    full: Any = await node.knock(token)

    node.pass_time(seconds=10)
    caller = await node.enter(token)
    late = Caller(node, accepted.conversation)
    late.open()

    assert full.status == 503
    assert caller.closed_with is None
    assert late.closed_with == (4408, "not_opened")


# --- grants ---------------------------------------------------------------------------------------------


async def test_grants_that_shrink_put_an_open_socket_out_of_the_room() -> None:
    node = Node()
    caller, other = await node.member(idle=timedelta(minutes=10)), await node.member(user_id="bob")
    caller.say("subscribe", {"document": "open"})
    caller.say("user_presence", {"document": "d", "status": "here"})
    caller.news()
    other.news()

    node.sessions.regrant(caller.session.id, (Grant("open", Access.WRITE),))
    node.pass_time(minutes=9, seconds=30)
    await node.answer()
    other.edit("secret")

    out = caller.payload_of("unsubscribed")
    assert out["document"] == "d"
    assert out["error"]["code"] == "FORBIDDEN"
    assert other.payload_of("user_presence")["status"] == "offline"
    assert caller.news() == []
    caller.edit("x", "open")
    assert caller.payload_of("ack")


async def test_grants_that_shrink_to_reading_make_an_open_socket_a_reader() -> None:
    node = Node()
    caller, other = await node.member(idle=timedelta(minutes=10)), await node.member(user_id="bob")
    node.sessions.regrant(caller.session.id, READ_ONLY)
    node.pass_time(minutes=9, seconds=30)
    await node.answer()
    caller.news()

    caller.edit("x")
    other.edit("y")

    assert [message["message_type"] for message in caller.news()] == ["error", "realtime_edit"]


HERE = 0x3A
"""The partition of every session that the tests issue."""


async def test_after_a_gap_in_the_log_nothing_passes_until_storage_has_said_how_the_session_stands() -> None:
    node = Node()
    ended, going_on = await node.member(), await node.member(user_id="bob")
    node.sessions.change(ended.session.id, Invalidated, tell=False)

    node.handler.on_gap(HERE)
    ended.edit("too late")
    sent = going_on.edit("in time")
    meanwhile = [ended.news(), going_on.news()]
    await node.answer()

    assert meanwhile == [[], []]
    assert ended.closed_with == (4401, "session_invalidated")
    assert going_on.closed_with is None
    assert [message["id"] for message in going_on.news()] == [sent]


async def test_a_gap_in_the_log_of_others_makes_nobody_doubt() -> None:
    node = Node()
    caller = await node.member()

    node.handler.on_gap(HERE + 1)
    caller.edit("passes")

    assert node.questions.empty()
    assert caller.payload_of("ack")["position"]["offset"] == 1


async def test_a_gap_while_storage_is_away_ends_what_cannot_be_certain() -> None:
    node = Node()
    caller = await node.member()

    node.handler.on_gap(HERE)
    node.sessions.failure = Storage("away")
    await node.answer()

    assert caller.closed_with == (1013, "unavailable")


async def test_who_is_leaving_already_is_not_asked_about() -> None:
    node = Node()
    caller = await node.member()
    node.sessions.change(caller.session.id, Invalidated)

    assert list(caller.peer.guard.doubt()) == []
