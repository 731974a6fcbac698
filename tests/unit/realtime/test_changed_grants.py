"""Grants that change while a socket is open hold for it at once, before the command that changed them returns."""

from datetime import timedelta

from roomkey.domain.access import Access, Grant, Grants
from roomkey.domain.session import GrantsChanged, SessionEvent, Suspended, ViolationRecorded
from tests.support.sockets import READ_ONLY, Caller, Node

WRITABLE: Grants = (Grant("**", Access.WRITE),)
ONLY_OPEN: Grants = (Grant("open", Access.WRITE),)


def change(node: Node, caller: Caller, grants: Grants, *, tell: bool = True) -> SessionEvent:
    return node.sessions.change(caller.session.id, GrantsChanged, grants=grants, tell=tell)


def code_of(caller: Caller, id: str) -> str:
    return caller.answer_to(id)["payload"]["code"]


async def test_a_writer_who_may_only_read_now_is_refused_the_next_edit_and_still_hears_the_others() -> None:
    node = Node()
    caller, other = await node.member(), await node.member(user_id="bob")

    change(node, caller, READ_ONLY)
    refused = caller.edit("x")
    other.edit("y")

    assert code_of(caller, refused) == "FORBIDDEN"
    assert [message["message_type"] for message in other.news()] == ["ack"]
    assert [message["message_type"] for message in caller.news()] == ["access_changed", "error", "realtime_edit"]


async def test_a_reader_who_may_write_now_need_not_subscribe_again() -> None:
    node = Node()
    caller, other = await node.member(grants=READ_ONLY), await node.member(user_id="bob")

    change(node, caller, WRITABLE)
    caller.edit("x")

    told, acknowledged = caller.news()
    assert (told["message_type"], told["payload"]) == ("access_changed", {"document": "d", "access": "write"})
    assert acknowledged["payload"]["position"]["offset"] == 1
    assert other.payload_of("realtime_edit")["text"] == "x"


async def test_whoever_may_not_read_any_more_is_put_out_of_the_document_and_told_why() -> None:
    node = Node()
    caller, other = await node.member(), await node.member(user_id="bob")
    caller.say("subscribe", {"document": "open"})
    caller.say("user_presence", {"document": "d", "status": "here"})
    caller.news()
    other.news()

    change(node, caller, ONLY_OPEN)
    other.edit("secret")
    refused = caller.edit("x")

    out = caller.socket.messages[-2]
    assert (out["message_type"], out["payload"]["document"]) == ("unsubscribed", "d")
    assert out["payload"]["error"]["code"] == "FORBIDDEN"
    assert code_of(caller, refused) == "FORBIDDEN"
    assert [message["message_type"] for message in caller.news()] == ["unsubscribed", "error"]
    assert other.payload_of("user_presence")["status"] == "offline"
    assert caller.closed_with is None


async def test_the_documents_that_are_still_covered_go_on_as_before() -> None:
    node = Node()
    caller = await node.member("open")
    caller.say("subscribe", {"document": "d"})
    caller.news()

    change(node, caller, ONLY_OPEN)
    done = caller.edit("x", "open")

    assert caller.answer_to(done)["message_type"] == "ack"


async def test_every_socket_of_the_session_obeys_and_no_socket_of_another() -> None:
    node = Node()
    session, token = node.sessions.issue()
    first, second, sibling = await node.enter(token), await node.enter(token), await node.member()
    for caller in (first, second):
        caller.say("subscribe", {"document": "d"})

    node.sessions.change(session.id, GrantsChanged, grants=READ_ONLY)
    answers = [code_of(caller, caller.edit("x")) for caller in (first, second)]
    done = sibling.edit("y")

    assert answers == ["FORBIDDEN", "FORBIDDEN"]
    assert sibling.answer_to(done)["message_type"] == "ack"


async def test_an_edit_that_was_said_before_in_the_same_turn_is_heard_and_one_after_is_not() -> None:
    node = Node()
    caller, other = await node.member(), await node.member(user_id="bob")

    caller.whisper("realtime_edit", {"document": "d", "text": "in time"})
    change(node, caller, READ_ONLY)
    caller.whisper("realtime_edit", {"document": "d", "text": "too late"})
    node.turns.settle()

    assert [message["payload"]["text"] for message in other.news()] == ["in time"]


async def test_a_late_repetition_does_not_bring_former_grants_back() -> None:
    node = Node()
    caller = await node.member()
    narrowed = change(node, caller, READ_ONLY)
    change(node, caller, WRITABLE)

    node.handler.on_events([narrowed])
    caller.edit("x")

    assert caller.payload_of("ack")


async def test_while_events_are_missing_nothing_passes_and_then_the_latest_grants_hold() -> None:
    node = Node()
    caller, other = await node.member(), await node.member(user_id="bob")
    change(node, caller, READ_ONLY, tell=False)
    node.sessions.change(caller.session.id, ViolationRecorded, reason="flood")

    held = caller.edit("x")
    waiting = caller.news()
    await node.answer()

    assert waiting == []
    assert code_of(caller, held) == "FORBIDDEN"
    assert other.news() == []


async def test_grants_that_change_while_a_token_is_checked_hold_for_the_socket_that_it_opens() -> None:
    node = Node()
    session, token = node.sessions.issue()
    node.sessions.before_returning = lambda: node.sessions.change(session.id, GrantsChanged, grants=READ_ONLY)

    caller = await node.enter(token)
    caller.say("subscribe", {"document": "d"})
    refused = caller.edit("x")

    assert code_of(caller, refused) == "FORBIDDEN"


async def test_changed_grants_move_no_deadline() -> None:
    node = Node()
    caller = await node.member(idle=timedelta(minutes=10))
    node.clock.advance(minutes=9)

    change(node, caller, READ_ONLY)
    node.pass_time(minutes=1)
    await node.answer()

    assert caller.closed_with == (4401, "session_expired")


async def test_a_session_whose_grants_changed_is_still_suspended_by_the_next_event() -> None:
    node = Node()
    caller = await node.member()

    change(node, caller, READ_ONLY)
    node.sessions.change(caller.session.id, Suspended)

    assert caller.closed_with == (4423, "session_suspended")
