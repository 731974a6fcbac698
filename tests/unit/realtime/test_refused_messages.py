"""Every error code and every close code for what a client says: whom it hits, and when patience ends."""

import json
from typing import Any

import pytest

from roomkey.realtime.protocol.json_messages import ErrorCode
from roomkey.wire.close import CloseCode, CloseReason
from tests.support.sockets import READ_ONLY, Caller, Node


def code_of(caller: Caller, id: str) -> str:
    answer = caller.answer_to(id)
    assert answer["message_type"] == "error"
    assert set(answer["payload"]) == {"code", "message", "details", "retry"}
    return answer["payload"]["code"]


def test_the_codes_are_those_of_the_contract() -> None:
    assert {*ErrorCode} == {
        "INVALID_SESSION",
        "UNAUTHORIZED",
        "FORBIDDEN",
        "RATE_LIMITED",
        "MESSAGE_TOO_LARGE",
        "INVALID_MESSAGE",
        "UNKNOWN_TYPE",
        "NOT_SUBSCRIBED",
        "CONFLICT",
        "VIOLATION",
        "DISCONNECTED",
        "SERVER_ERROR",
    }
    codes = {1000, 1001, 1003, 1007, 1009, 1012, 1013, 4205, 4400, 4401, 4403, 4408, 4410, 4420, 4423, 4429, 4503}
    of_the_transport = {1002, 1005, 1006, 1008, 1011}
    assert {*CloseCode} == codes | of_the_transport
    assert all(reason == reason.lower() and len(reason) <= 123 for reason in CloseReason)


@pytest.mark.parametrize("message_type", ["realtime_edit", "cursor_position", "user_presence"])
async def test_who_is_not_in_a_document_cannot_speak_in_it(message_type: str) -> None:
    node = Node()
    outsider, member = await node.client(), await node.member()

    id = outsider.say(message_type, {"document": "d", "status": "here"})

    assert code_of(outsider, id) == "NOT_SUBSCRIBED"
    assert member.news() == []


async def test_readers_do_not_write() -> None:
    node = Node()
    reader, member = await node.member(grants=READ_ONLY), await node.member()

    id = reader.edit("x")

    assert code_of(reader, id) == "FORBIDDEN"
    assert member.news() == []


async def test_readers_may_point_and_be_present() -> None:
    node = Node()
    reader, member = await node.member(grants=READ_ONLY), await node.member()

    reader.say("cursor_position", {"document": "d"})
    reader.say("user_presence", {"document": "d", "status": "reading"})

    assert len(member.news()) == 2
    assert reader.news() == []


@pytest.mark.parametrize("message_type", ["subscribe", "realtime_edit", "cursor_position", "user_presence"])
async def test_without_a_grant_nothing_is_allowed(message_type: str) -> None:
    node = Node()
    stranger = await node.client(grants=())

    id = stranger.say(message_type, {"document": "d", "status": "here"})

    assert code_of(stranger, id) == "FORBIDDEN"


@pytest.mark.parametrize("message_type", ["no_such_type", "", "subscribed", "ack", "session_connected", "error"])
async def test_types_that_clients_do_not_send_are_unknown(message_type: str) -> None:
    node = Node()
    caller = await node.client()

    id = caller.say(message_type)

    assert code_of(caller, id) == "UNKNOWN_TYPE"
    assert caller.closed_with is None


def message(**fields: Any) -> bytes:
    return json.dumps({"id": "i", "message_type": "heartbeat", "payload": {}} | fields).encode()


MALFORMED = {
    "empty": b"",
    "no json": b"hello",
    "no object": b"[]",
    "cut off": b'{"message_type":"heartbeat"',
    "two": b'{"message_type":"heartbeat"}{}',
    "no type": b'{"id":"i","payload":{}}',
    "type is no text": message(message_type=5),
    "type too long": message(message_type="x" * 65),
    "id is no text": message(id=5),
    "id is null": message(id=None),
    "id is empty": message(id=""),
    "id too long": message(id="x" * 129),
    "id has control characters": message(id="a\nb"),
    "payload is no object": message(payload=[]),
    "payload is null": message(payload=None),
    "time is no time": message(timestamp="yesterday"),
    "time is a number": message(timestamp=1767355200),
    "too deep": b'{"message_type":"heartbeat","payload":{"a":' + b"[" * 40 + b"]" * 40 + b"}}",
    "much too deep": b'{"message_type":"heartbeat","payload":{"a":' + b"[" * 4000 + b"]" * 4000 + b"}}",
    "deep outside the payload": b"[" * 5000 + b"]" * 5000,
    "a number beyond all bounds": b'{"message_type":"heartbeat","payload":{"a":' + b"9" * 5000 + b"}}",
    "half a character": b'{"message_type":"heartbeat","payload":{"a":"\\ud800"}}',
    "not UTF-8": b'{"message_type":"heartbeat","payload":{"a":"\xff"}}',
    "no document": message(message_type="subscribe"),
    "document is no text": message(message_type="subscribe", payload={"document": 1}),
    "document is empty": message(message_type="subscribe", payload={"document": ""}),
    "document too long": message(message_type="subscribe", payload={"document": "x" * 1025}),
    "document has control characters": message(message_type="subscribe", payload={"document": "a\x00b"}),
    "since is nonsense": message(message_type="subscribe", payload={"document": "d", "since": 5}),
    "since is incomplete": message(message_type="subscribe", payload={"document": "d", "since": {"epoch": "x"}}),
    "edit without document": message(message_type="realtime_edit"),
    "cursor without document": message(message_type="cursor_position"),
    "unsubscribe without document": message(message_type="unsubscribe"),
    "refresh without token": message(message_type="session_refresh"),
    "refresh with too long a token": message(message_type="session_refresh", payload={"token": "x" * 513}),
}


@pytest.mark.parametrize("garbage", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_no_message_is_answered_with_an_error(garbage: bytes) -> None:
    node = Node()
    caller, other = await node.client(), await node.member()

    caller.raw(garbage)

    error = caller.payload_of("error")
    assert error["code"] == "INVALID_MESSAGE"
    assert error["retry"] is False
    assert caller.closed_with is None
    assert other.news() == []


@pytest.mark.parametrize("payload", [{}, {"status": 5}, {"status": ""}, {"status": "x" * 65}, {"status": "a\x00"}])
async def test_presence_needs_a_status(payload: dict[str, Any]) -> None:
    node = Node()
    caller = await node.member()

    id = caller.say("user_presence", {"document": "d", **payload})

    assert code_of(caller, id) == "INVALID_MESSAGE"


async def test_an_error_names_the_message_that_it_is_about_if_it_can() -> None:
    node = Node()
    caller = await node.client()

    caller.raw(message(id="mine", message_type=5))

    assert code_of(caller, "mine") == "INVALID_MESSAGE"


async def test_errors_do_not_repeat_what_was_sent() -> None:
    node = Node()
    caller = await node.client()

    caller.raw(message(message_type=["sesame"]))
    caller.say("session_refresh", {"token": "sesame" * 100})

    assert "sesame" not in str(caller.news())


async def test_malformed_messages_again_and_again_end_the_connection() -> None:
    node = Node()
    caller, other = await node.client(), await node.member()

    for _ in range(10):
        caller.raw(b"garbage")
    patient = caller.closed_with
    caller.raw(b"garbage")

    assert patient is None
    assert caller.closed_with == (4400, "malformed")
    assert caller.news()[-1]["payload"]["close_code"] == 4400
    assert other.closed_with is None


async def test_now_and_then_a_malformed_message_is_forgiven() -> None:
    node = Node()
    caller = await node.client()

    for _ in range(30):
        caller.raw(b"garbage")
        node.clock.advance(seconds=11)

    assert caller.closed_with is None


async def test_a_message_beyond_the_limit_is_too_large() -> None:
    node = Node()
    alice, bob = await node.member(), await node.member()
    rest = len(message(message_type="realtime_edit", payload={"document": "d", "text": ""}))

    alice.raw(message(id="fits", message_type="realtime_edit", payload={"document": "d", "text": "x" * 10_000}))
    alice.raw(message(id="i", message_type="realtime_edit", payload={"document": "d", "text": "x" * (10_241 - rest)}))

    assert code_of(alice, "i") == "MESSAGE_TOO_LARGE"
    assert alice.closed_with is None
    assert len(bob.news()) == 1


async def test_the_transport_buffers_no_more_than_it_is_told() -> None:
    node = Node()
    _, token = node.sessions.issue()

    accepted: Any = await node.knock(token)

    assert accepted.max_message_bytes == 64 * 1024


async def test_a_binary_message_ends_the_connection() -> None:
    node = Node()
    caller = await node.client()

    caller.peer.binary(b"\x00")

    assert caller.closed_with == (1003, "text_only")


# --- limits ---------------------------------------------------------------------------------------------


async def test_beyond_the_rate_messages_are_refused_with_when_to_come_back() -> None:
    node = Node(messages_per_second=10, message_burst=5)
    alice, bob = await node.member(), await node.member("other")
    node.clock.advance(seconds=10)

    ids = [alice.say("heartbeat") for _ in range(6)]

    assert code_of(alice, ids[-1]) == "RATE_LIMITED"
    error = alice.answer_to(ids[-1])["payload"]
    assert error["retry"] is True
    assert 90 <= error["details"]["retry_after_ms"] <= 110
    node.clock.advance(seconds=0.11)
    assert alice.answer_to(alice.say("heartbeat"))["message_type"] == "heartbeat_ack"
    assert bob.closed_with is None


async def test_the_rate_is_one_of_the_session_not_of_its_connections() -> None:
    node = Node(messages_per_second=10, message_burst=5)
    _, token = node.sessions.issue()
    first, second = await node.enter(token), await node.enter(token)

    for _ in range(5):
        first.say("heartbeat")
    id = second.say("heartbeat")

    assert code_of(second, id) == "RATE_LIMITED"


async def test_reconnecting_does_not_fill_the_budget() -> None:
    node = Node(messages_per_second=10, message_burst=5)
    _, token = node.sessions.issue()
    first = await node.enter(token)
    for _ in range(5):
        first.say("heartbeat")
    first.hang_up()
    node.pass_time(seconds=0.01)

    second = await node.enter(token)

    assert code_of(second, second.say("heartbeat")) == "RATE_LIMITED"


async def test_bytes_have_a_rate_of_their_own() -> None:
    node = Node(traffic_per_second_bytes=1000, traffic_burst_bytes=3000)
    caller = await node.member()

    ids = [caller.edit("x" * 900) for _ in range(4)]

    assert code_of(caller, ids[-1]) == "RATE_LIMITED"
    assert caller.answer_to(ids[0])["message_type"] == "ack"


async def test_who_ignores_the_limits_is_closed() -> None:
    node = Node(messages_per_second=10, message_burst=5, rate_patience=20)
    caller, other = await node.client(), await node.client()

    for _ in range(25):
        caller.say("heartbeat")
    patient = caller.closed_with
    caller.say("heartbeat")

    assert patient is None
    assert caller.closed_with == (4429, "limits_ignored")
    assert other.closed_with is None


async def test_a_connection_follows_a_bounded_number_of_documents() -> None:
    node = Node(max_subscriptions=2)
    caller = await node.client()

    answers = [caller.answer_to(caller.say("subscribe", {"document": name})) for name in ("a", "b", "b", "c")]

    assert [answer["message_type"] for answer in answers] == ["subscribed"] * 3 + ["error"]
    assert answers[-1]["payload"]["code"] == "RATE_LIMITED"
    caller.say("unsubscribe", {"document": "a"})
    assert caller.answer_to(caller.say("subscribe", {"document": "c"}))["message_type"] == "subscribed"


async def test_who_tries_what_is_not_allowed_again_and_again_is_closed() -> None:
    node = Node(forbidden_patience=5)
    caller = await node.client(grants=())

    for _ in range(5):
        caller.say("subscribe", {"document": "d"})
    patient = caller.closed_with
    caller.say("subscribe", {"document": "d"})

    assert patient is None
    assert caller.closed_with == (4403, "forbidden")


async def test_nothing_is_said_after_the_end() -> None:
    node = Node()
    caller = await node.client()
    caller.peer.binary(b"")
    caller.news()

    caller.say("heartbeat")
    caller.peer.binary(b"")
    caller.peer.writable()
    caller.hang_up()

    assert caller.news() == []
    assert node.handler.statistics().connections == 0
