"""The table of messages: what a client sends, what it is answered, and what the others get."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from roomkey.domain.access import Access, Grant
from roomkey.errors import Storage
from tests.support.sockets import NOON, READ_ONLY, Caller, Node


async def test_a_client_is_greeted_with_its_session_and_its_limits() -> None:
    node = Node()
    _, token = node.sessions.issue("alice")
    answer: Any = await node.knock(token)
    caller = Caller(node, answer.conversation)
    caller.open()

    (greeting,) = caller.news()
    assert greeting["message_type"] == "session_connected"
    assert datetime.fromisoformat(greeting["timestamp"]) == NOON
    payload = greeting["payload"]
    assert payload["session_id"] == caller.session.id
    assert payload["user_id"] == "alice"
    assert payload["expires_at"] == "2026-01-03T12:00:00Z"
    assert payload["idle_expires_at"] == "2026-01-02T13:00:00Z"
    assert payload["heartbeat"] == {"interval_ms": 25_000, "timeout_ms": None}
    assert payload["limits"]["message_bytes"] == 10 * 1024


async def test_a_heartbeat_is_answered_with_the_time() -> None:
    node = Node()
    caller = await node.client()

    id = caller.say("heartbeat")

    answer = caller.answer_to(id)
    assert answer["message_type"] == "heartbeat_ack"
    assert answer["payload"] == {"server_time": "2026-01-02T12:00:00Z"}


async def test_a_subscriber_learns_where_the_document_stands() -> None:
    node = Node()
    caller = await node.client()

    id = caller.say("subscribe", {"document": "d"})

    answer = caller.answer_to(id)
    assert answer["message_type"] == "subscribed"
    position = answer["payload"].pop("position")
    stands: Any = {"document": "d", "recovered": False, "publications": [], "presence": [], "access": "write"}
    assert answer["payload"] == stands
    assert position["offset"] == 0
    assert len(position["epoch"]) == 8
    assert position["epoch"].isalpha()


async def test_an_edit_is_acknowledged_and_reaches_everyone_else() -> None:
    node = Node()
    alice, bob, carol = await node.member(), await node.member(user_id="bob"), await node.member("other")

    id = alice.say("realtime_edit", {"document": "d", "op": {"insert": "é😀", "at": 3}})

    ack = alice.answer_to(id)
    assert ack["message_type"] == "ack"
    assert ack["payload"]["position"]["offset"] == 1
    (edit,) = bob.news()
    assert edit["message_type"] == "realtime_edit"
    assert edit["payload"] == {
        "document": "d",
        "op": {"insert": "é😀", "at": 3},
        "session_info": {"session_id": alice.session.id, "user_id": "alice"},
        "position": ack["payload"]["position"],
    }
    assert [message["message_type"] for message in alice.news()] == ["ack"]
    assert carol.news() == []


async def test_another_connection_of_the_same_session_is_someone_else() -> None:
    node = Node()
    _, token = node.sessions.issue()
    first, second = await node.enter(token), await node.enter(token)
    for caller in (first, second):
        caller.say("subscribe", {"document": "d"})
        caller.news()

    first.edit("x")

    assert second.payload_of("realtime_edit")["text"] == "x"


async def test_nobody_can_speak_in_the_name_of_another() -> None:
    node = Node()
    mallory, bob = await node.member(user_id="mallory"), await node.member(user_id="bob")
    forged = {"document": "d", "status": "here", "session_info": {"user_id": "alice"}, "position": {"offset": 99}}

    for message_type in ("realtime_edit", "cursor_position", "user_presence"):
        mallory.say(message_type, forged)

    news = bob.news()
    assert [message["payload"]["session_info"]["user_id"] for message in news] == ["mallory"] * 3
    assert news[0]["payload"]["position"]["offset"] == 1


async def test_a_cursor_reaches_the_others_and_is_not_answered() -> None:
    node = Node()
    alice, bob = await node.member(), await node.member(user_id="bob")

    alice.say("cursor_position", {"document": "d", "position": {"line": 3}})

    assert bob.payload_of("cursor_position") == {
        "document": "d",
        "position": {"line": 3},
        "session_info": {"session_id": alice.session.id, "user_id": "alice"},
    }
    assert alice.news() == []


async def test_of_several_cursors_in_a_turn_only_the_newest_of_each_session_leaves() -> None:
    node = Node()
    alice, bob, carol = await node.member(), await node.member(user_id="bob"), await node.member(user_id="carol")

    for line in range(10):
        alice.whisper("cursor_position", {"document": "d", "line": line})
    bob.whisper("cursor_position", {"document": "d", "line": 77})
    node.turns.settle()

    assert [message["payload"]["line"] for message in carol.news()] == [9, 77]
    assert [message["payload"]["line"] for message in bob.news()] == [9]
    assert node.handler.statistics().cursors_collapsed == 9


async def test_a_cursor_is_not_kept() -> None:
    node = Node()
    alice = await node.member()
    alice.say("cursor_position", {"document": "d"})

    joiner = await node.client()
    joiner.say("subscribe", {"document": "d"})

    assert joiner.payload_of("subscribed")["position"]["offset"] == 0


async def test_who_leaves_a_document_hears_nothing_more_of_it() -> None:
    node = Node()
    alice, bob = await node.member(), await node.member(user_id="bob")

    id = bob.say("unsubscribe", {"document": "d"})
    alice.edit("x")

    assert bob.answer_to(id)["message_type"] == "unsubscribed"
    assert bob.answer_to(id)["payload"]["document"] == "d"
    assert len(bob.news()) == 1


async def test_leaving_a_document_that_one_is_not_in_is_no_mistake() -> None:
    node = Node()
    caller = await node.client()

    id = caller.say("unsubscribe", {"document": "d"})

    assert caller.answer_to(id)["message_type"] == "unsubscribed"


# --- recovery -------------------------------------------------------------------------------------------


async def test_who_returns_is_given_what_it_missed() -> None:
    node = Node()
    alice, bob = await node.member(), await node.member(user_id="bob")
    alice.edit("one")
    since = bob.payload_of("realtime_edit")["position"]
    bob.hang_up()
    alice.edit("two")
    alice.edit("three")

    returned = await node.client("bob")
    returned.say("subscribe", {"document": "d", "since": since})
    alice.edit("four")

    subscribed, live = returned.news()
    assert subscribed["payload"]["recovered"] is True
    assert subscribed["payload"]["position"]["offset"] == 3
    missed = subscribed["payload"]["publications"]
    assert [message["message_type"] for message in missed] == ["realtime_edit"] * 2
    assert [message["payload"]["text"] for message in missed] == ["two", "three"]
    assert live["payload"]["text"] == "four"


async def test_who_missed_nothing_is_told_so() -> None:
    node = Node()
    alice = await node.member()
    alice.edit("one")
    since = alice.payload_of("ack")["position"]

    alice.say("unsubscribe", {"document": "d"})
    alice.say("subscribe", {"document": "d", "since": since})

    subscribed = alice.payload_of("subscribed")
    assert (subscribed["recovered"], subscribed["publications"]) == (True, [])


@pytest.mark.parametrize(
    "wrong", [{"epoch": "xxxxxxxx"}, {"offset": 99}, {"offset": -1}, {"offset": 10**30}], ids=["epoch", "9", "-", "big"]
)
async def test_who_returns_from_nowhere_must_reload(wrong: dict[str, Any]) -> None:
    node = Node()
    alice = await node.member()
    alice.edit("one")
    since = alice.payload_of("ack")["position"]

    alice.raw(
        msgspec.json.encode({"message_type": "subscribe", "payload": {"document": "d", "since": {**since, **wrong}}})
    )

    (message,) = alice.news()
    assert message["message_type"] == "error" or message["payload"]["recovered"] is False


async def test_too_much_to_catch_up_with_is_not_sent() -> None:
    node = Node(max_recovery_bytes=2000)
    alice, bob = await node.member(), await node.member(user_id="bob")
    alice.edit("one")
    since = bob.payload_of("realtime_edit")["position"]
    bob.hang_up()
    for _ in range(10):
        alice.edit("x" * 200)

    returned = await node.client("bob")
    returned.say("subscribe", {"document": "d", "since": since})

    subscribed = returned.payload_of("subscribed")
    assert (subscribed["recovered"], subscribed["publications"]) == (False, [])
    assert subscribed["position"]["offset"] == 11


async def test_an_empty_document_keeps_its_place_for_who_returns() -> None:
    node = Node()
    alice = await node.member()
    alice.edit("one")
    since = alice.payload_of("ack")["position"]
    alice.hang_up()
    node.pass_time(minutes=4)

    returned = await node.client()
    returned.say("subscribe", {"document": "d", "since": {**since, "offset": 0}})

    assert [edit["payload"]["text"] for edit in returned.payload_of("subscribed")["publications"]] == ["one"]


async def test_subscribers_are_told_now_and_then_where_a_document_stands_that_moved() -> None:
    node = Node()
    alice, bob = await node.member(), await node.member(user_id="bob")
    still = await node.member("still")
    node.pass_time(seconds=1)
    alice.edit("one")
    bob.news()

    node.pass_time(seconds=40)
    node.pass_time(seconds=40)

    (check,) = bob.news()
    assert check["message_type"] == "position"
    assert check["payload"]["document"] == "d"
    assert check["payload"]["position"]["offset"] == 1
    assert still.news() == []


# --- repetitions ----------------------------------------------------------------------------------------


async def test_a_repeated_message_is_acknowledged_and_not_published_again() -> None:
    node = Node()
    alice, bob = await node.member(), await node.member(user_id="bob")

    alice.edit("one", id="same")
    alice.edit("one", id="same")

    first, second = alice.news()
    assert first["payload"] == second["payload"]
    assert second["message_type"] == "ack"
    assert len(bob.news()) == 1


async def test_a_repetition_is_recognised_on_another_connection_of_the_session() -> None:
    node = Node()
    _, token = node.sessions.issue()
    bob = await node.member(user_id="bob")
    first = await node.enter(token)
    first.say("subscribe", {"document": "d"})
    first.edit("one", id="same")
    first.hang_up()

    second = await node.enter(token)
    second.say("subscribe", {"document": "d"})
    second.edit("one", id="same")

    assert second.answer_to("same")["payload"]["position"]["offset"] == 1
    assert len(bob.news()) == 1


async def test_sessions_may_use_the_same_ids() -> None:
    node = Node()
    alice, bob = await node.member(), await node.member(user_id="bob")

    alice.edit("one", id="same")
    bob.edit("two", id="same")

    assert bob.answer_to("same")["payload"]["position"]["offset"] == 2


async def test_an_id_is_free_again_after_two_minutes() -> None:
    node = Node()
    alice = await node.member()
    alice.edit("one", id="same")

    node.pass_time(seconds=121)
    alice.news()
    alice.edit("two", id="same")

    assert alice.payload_of("ack")["position"]["offset"] == 2


async def test_an_id_is_free_again_to_the_moment() -> None:
    node = Node()
    alice = await node.member()
    alice.edit("one", id="same")

    node.clock.advance(minutes=2)
    alice.edit("one", id="same")
    node.clock.advance(seconds=0.001)
    alice.edit("two", id="same")

    assert [message["payload"]["position"]["offset"] for message in alice.news()] == [1, 1, 2]


ANOTHER = {
    "another text": ("realtime_edit", {"document": "d", "text": "two"}),
    "another document": ("realtime_edit", {"document": "e", "text": "one"}),
    "another type": ("vote", {"document": "d", "text": "one"}),
    "more": ("realtime_edit", {"document": "d", "text": "one", "more": None}),
    "less": ("realtime_edit", {"document": "d"}),
    "another order": ("realtime_edit", {"text": "one", "document": "d"}),
    "what looks like the rest of a message": (
        "realtime_edit",
        {"document": "d", "text": 'one","payload":{"document":"d","text":"one'},
    ),
}


@pytest.mark.parametrize(("message_type", "payload"), ANOTHER.values(), ids=ANOTHER.keys())
async def test_an_id_that_was_used_for_something_else_is_a_conflict_and_nothing_is_lost(
    message_type: str, payload: dict[str, Any]
) -> None:
    node = Node(message_types={"vote": {}})
    alice, bob = await node.member(), await node.member(user_id="bob")
    for member in (alice, bob):
        member.say("subscribe", {"document": "e"})
    alice.edit("one", id="same")
    for member in (alice, bob):
        member.news()

    alice.say(message_type, payload, id="same")
    error = alice.payload_of("error")
    unheard = bob.news()
    alice.say(message_type, payload, id="other")

    assert (error["code"], error["message"]) == ("CONFLICT", "the message id was used for something else")
    assert unheard == []
    assert alice.closed_with is None
    assert [message["message_type"] for message in bob.news()] == [message_type]


async def test_a_page_that_counts_from_one_again_after_a_reload_is_told_that_its_ids_are_used() -> None:
    node = Node()
    _, token = node.sessions.issue()
    bob = await node.member(user_id="bob")
    for text in ("before", "after"):
        page = await node.enter(token)
        page.say("subscribe", {"document": "d"}, id="m0")
        page.edit(text, id="m1")
        page.hang_up()

    (heard,) = bob.news()
    assert heard["payload"]["text"] == "before"
    assert page.answer_to("m1")["payload"]["code"] == "CONFLICT"


async def test_what_the_server_writes_into_a_message_itself_makes_it_no_other() -> None:
    node = Node()
    alice = await node.member()
    alice.edit("one", id="same")
    node.pass_time(seconds=1)

    alice.say("realtime_edit", {"document": "d", "text": "one", "position": "mine"}, id="same")

    assert [message["message_type"] for message in alice.news()] == ["ack", "ack"]


@pytest.mark.parametrize("message_type", ["heartbeat", "subscribe", "unsubscribe", "cursor_position", "user_presence"])
async def test_ids_of_messages_that_are_not_published_may_be_used_again(message_type: str) -> None:
    node = Node()
    alice, bob = await node.member(), await node.member(user_id="bob")
    alice.say(message_type, {"document": "d", "status": "here"}, id="same")
    alice.say("subscribe", {"document": "d"})
    bob.news()

    alice.edit("one", id="same")
    alice.say(message_type, {"document": "d", "status": "gone"}, id="same")

    assert bob.payload_of("realtime_edit")["text"] == "one"
    assert "error" not in [message["message_type"] for message in alice.news()]


# --- presence -------------------------------------------------------------------------------------------


async def test_presence_reaches_the_others_and_those_who_come() -> None:
    node = Node()
    alice, bob = await node.member(), await node.member(user_id="bob")

    alice.say("user_presence", {"document": "d", "status": "typing", "color": "#f00"})
    carol = await node.client("carol")
    carol.say("subscribe", {"document": "d"})

    shown = {
        "document": "d",
        "status": "typing",
        "color": "#f00",
        "session_info": {"session_id": alice.session.id, "user_id": "alice"},
    }
    assert bob.payload_of("user_presence") == shown
    assert carol.payload_of("subscribed")["presence"] == [shown]
    assert alice.news() == []


@pytest.mark.parametrize("how", ["unsubscribe", "hang up", "offline"])
async def test_who_goes_is_announced_once(how: str) -> None:
    node = Node()
    alice, bob = await node.member(), await node.member(user_id="bob")
    alice.say("user_presence", {"document": "d", "status": "here"})
    bob.news()

    if how == "unsubscribe":
        alice.say("unsubscribe", {"document": "d"})
    if how == "offline":
        alice.say("user_presence", {"document": "d", "status": "offline"})
    alice.hang_up()

    gone = bob.payload_of("user_presence")
    assert gone["status"] == "offline"
    assert gone["session_info"]["session_id"] == alice.session.id
    carol = await node.client("carol")
    carol.say("subscribe", {"document": "d"})
    assert carol.payload_of("subscribed")["presence"] == []


async def test_who_said_nothing_about_itself_goes_unannounced() -> None:
    node = Node()
    alice, bob = await node.member(), await node.member(user_id="bob")

    alice.hang_up()

    assert bob.news() == []


async def test_a_session_is_here_as_long_as_one_of_its_connections() -> None:
    node = Node()
    _, token = node.sessions.issue()
    bob = await node.member(user_id="bob")
    first, second = await node.enter(token), await node.enter(token)
    for caller in (first, second):
        caller.say("subscribe", {"document": "d"})
        caller.say("user_presence", {"document": "d", "status": "here"})
    bob.news()

    first.hang_up()
    before = bob.news()
    second.hang_up()

    assert before == []
    assert bob.payload_of("user_presence")["status"] == "offline"


async def test_presence_lasts_as_long_as_the_connection() -> None:
    node = Node()
    alice, bob = await node.member(), await node.member(user_id="bob")
    alice.say("user_presence", {"document": "d", "status": "here"})
    bob.news()

    for _ in range(20):
        node.pass_time(seconds=20)

    assert [message["message_type"] for message in bob.news()] == []


async def test_presence_beyond_its_bounds_is_refused() -> None:
    node = Node(max_document_presence_bytes=400)
    alice, bob = await node.member(), await node.member(user_id="bob")

    long = alice.say("user_presence", {"document": "d", "status": "here", "about": "x" * 2000})
    fits = alice.say("user_presence", {"document": "d", "status": "here", "about": "x" * 200})
    full = bob.say("user_presence", {"document": "d", "status": "here", "about": "x" * 200})

    assert alice.answer_to(long)["payload"]["code"] == "RATE_LIMITED"
    assert bob.answer_to(full)["payload"]["code"] == "RATE_LIMITED"
    assert fits not in [message["id"] for message in alice.socket.messages]


# --- the application's own ------------------------------------------------------------------------------

POLL = {
    "type": "object",
    "properties": {"choice": {"enum": ["yes", "no"]}},
    "required": ["choice"],
    "additionalProperties": False,
}


async def test_a_message_type_of_the_application_is_treated_like_an_edit() -> None:
    node = Node(message_types={"poll_vote": POLL})
    alice, bob = await node.member(), await node.member(user_id="bob")

    id = alice.say("poll_vote", {"document": "d", "choice": "yes"})
    alice.say("poll_vote", {"document": "d", "choice": "yes"}, id=id)

    vote = bob.payload_of("poll_vote")
    assert vote["choice"] == "yes"
    assert vote["position"]["offset"] == 1
    assert [message["message_type"] for message in alice.news()] == ["ack", "ack"]


async def test_a_payload_that_does_not_fulfil_its_schema_reaches_nobody() -> None:
    node = Node(message_types={"poll_vote": POLL})
    alice, bob = await node.member(), await node.member(user_id="bob")

    id = alice.say("poll_vote", {"document": "d", "choice": "secret-value"})

    error = alice.answer_to(id)["payload"]
    assert error["code"] == "INVALID_MESSAGE"
    assert error["details"] == {"path": ["choice"], "keyword": "enum"}
    assert "secret-value" not in str(error)
    assert bob.news() == []


async def test_a_type_without_history_is_relayed_and_not_kept() -> None:
    node = Node(message_types={"laser": {"x-roomkey": {"history": False, "access": "read"}}})
    reader, bob = await node.member(grants=READ_ONLY), await node.member(user_id="bob")

    id = reader.say("laser", {"document": "d", "x": 1})

    assert bob.payload_of("laser")["x"] == 1
    assert reader.answer_to(id)["payload"] == {"document": "d", "position": None}
    joiner = await node.client()
    joiner.say("subscribe", {"document": "d"})
    assert joiner.payload_of("subscribed")["position"]["offset"] == 0


# --- ids and times --------------------------------------------------------------------------------------


async def test_id_payload_and_timestamp_may_be_left_out() -> None:
    node = Node()
    caller = await node.client()

    caller.raw(b'{"message_type":"heartbeat"}')

    (answer,) = caller.news()
    assert answer["message_type"] == "heartbeat_ack"
    assert answer["id"]


async def test_the_time_of_a_message_is_the_servers() -> None:
    node = Node()
    alice, bob = await node.member(), await node.member(user_id="bob")

    alice.raw(b'{"message_type":"realtime_edit","payload":{"document":"d"},"timestamp":"1999-01-01T00:00:00+02:00"}')

    (edit,) = bob.news()
    assert datetime.fromisoformat(edit["timestamp"]) == NOON


async def test_messages_of_the_server_have_different_ids() -> None:
    node = Node()
    alice, bob = await node.member(), await node.member(user_id="bob")
    for _ in range(5):
        alice.edit("x", id=None)
        alice.say("cursor_position", {"document": "d"})

    ids = [message["id"] for message in bob.socket.messages[2:]]

    assert len(set(ids)) == len(ids) == 10


async def test_activity_is_recorded_and_heartbeats_are_none() -> None:
    node = Node()
    alice = await node.member()
    node.clock.advance(seconds=10)

    alice.say("heartbeat")
    alice.say("user_presence", {"document": "d", "status": "here"})
    await node.handler.record_activity()
    before = list(node.sessions.touched)
    alice.edit("x")
    alice.edit("y")
    await node.handler.record_activity()

    assert before == []
    assert node.sessions.touched == [alice.session.id]


async def test_activity_is_recorded_again_after_a_while() -> None:
    node = Node()
    alice = await node.member()

    for number in range(30):
        node.clock.advance(seconds=6)
        alice.edit(str(number))
        await node.handler.record_activity()

    assert len(node.sessions.touched) == 3  # of an hour's idle timeout it is a fiftieth


async def test_a_storage_that_is_away_does_not_stop_the_recording() -> None:
    node = Node()
    alice = await node.member()
    node.clock.advance(seconds=10)
    alice.edit("x")
    node.sessions.failure = Storage("away")

    await node.handler.record_activity()

    assert node.sessions.touched == []
    assert alice.closed_with is None


async def test_grants_decide_by_document() -> None:
    node = Node()
    grants = (Grant("open/*", Access.WRITE), Grant("read/**", Access.READ))
    caller = await node.client(grants=grants)

    answers = {
        document: caller.answer_to(caller.say("subscribe", {"document": document}))["message_type"]
        for document in ("open/a", "read/a/b", "open/a/b", "closed")
    }

    assert answers == {"open/a": "subscribed", "read/a/b": "subscribed", "open/a/b": "error", "closed": "error"}


async def test_history_is_forgotten_with_age() -> None:
    node = Node()
    alice = await node.member()
    alice.edit("one")
    epoch = alice.payload_of("ack")["position"]["epoch"]
    node.clock.advance(minutes=6)
    alice.edit("two")
    alice.news()

    alice.say("unsubscribe", {"document": "d"})
    alice.say("subscribe", {"document": "d", "since": {"epoch": epoch, "offset": 0}})
    alice.say("unsubscribe", {"document": "d"})
    alice.say("subscribe", {"document": "d", "since": {"epoch": epoch, "offset": 1}})

    recovered = [m["payload"]["recovered"] for m in alice.news() if m["message_type"] == "subscribed"]
    assert recovered == [False, True]


def test_durations_are_what_the_pages_say() -> None:
    settings = Node().settings

    assert settings.repeat_window == timedelta(minutes=2)
    assert settings.history_age == timedelta(minutes=5)
    assert settings.position_interval == timedelta(seconds=40)
    assert settings.expiry_notice == timedelta(seconds=60)


async def test_an_id_that_was_used_for_a_message_of_another_type_is_a_conflict() -> None:
    node = Node(message_types={"laser": {"x-roomkey": {"history": False, "access": "read"}}})
    caller = await node.member()
    caller.say("laser", {"document": "d"}, id="m")
    caller.news()

    caller.say("realtime_edit", {"document": "d"}, id="m")

    assert caller.payload_of("error")["code"] == "CONFLICT"
