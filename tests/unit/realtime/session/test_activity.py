"""What counts as activity, row by row, in all three protocols: what programs say by themselves never does."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, get_args

import pytest

from roomkey.realtime.clients.json_rules import JsonRules
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.session.activity import CAN_BE_ACTIVITY, is_activity
from roomkey.realtime.transport import Accepted, Conversation, Handshake
from roomkey.wire import lib0
from roomkey.wire.lib0 import AwarenessEntry
from tests.support.documents import token_message
from tests.support.loops import in_no_time
from tests.support.open_documents import House, Writer
from tests.support.sockets import NOON, Caller, FakeSocket, Node

IDLE = timedelta(minutes=1)

Message = tuple[str, dict[str, Any]]


def test_the_table_speaks_of_every_message_that_a_client_may_send() -> None:
    json = set(JsonRules._HANDLERS)  # pyright: ignore[reportPrivateUsage]  # the messages that there are

    assert set(CAN_BE_ACTIVITY) == json | set(get_args(yjs.Message))


def test_a_message_of_the_application_is_activity_if_it_is_new() -> None:
    assert is_activity("vote", is_new=True)
    assert not is_activity("vote", is_new=False)


# --- /ws ------------------------------------------------------------------------------------------------

JSON_ROWS: dict[str, tuple[Message, Message, bool]] = {
    "an edit": (("realtime_edit", {"document": "d"}), ("realtime_edit", {"document": "d"}), True),
    "a message of the application": (("vote", {"document": "d"}), ("vote", {"document": "d"}), True),
    "a cursor that moves": (
        ("cursor_position", {"document": "d", "at": 1}),
        ("cursor_position", {"document": "d", "at": 2}),
        True,
    ),
    "a cursor that is shown again": (
        ("cursor_position", {"document": "d", "at": 1}),
        ("cursor_position", {"document": "d", "at": 1}),
        False,
    ),
    "presence": (
        ("user_presence", {"document": "d", "status": "away"}),
        ("user_presence", {"document": "d", "status": "online"}),
        False,
    ),
    "heartbeats": (("heartbeat", {}), ("heartbeat", {}), False),
    "subscriptions": (("subscribe", {"document": "d"}), ("subscribe", {"document": "e"}), False),
    "leaving": (("unsubscribe", {"document": "e"}), ("unsubscribe", {"document": "d"}), False),
    "what is refused": (("realtime_edit", {"document": "f"}), ("no_such_type", {}), False),
}


async def is_active(node: Node, caller: Caller) -> bool:
    await node.answer()
    await node.handler.record_activity()
    return caller.session.id in node.sessions.touched


@pytest.mark.parametrize(("first", "then", "counts"), JSON_ROWS.values(), ids=JSON_ROWS.keys())
async def test_of_json_messages_only_what_the_user_does_counts(first: Message, then: Message, *, counts: bool) -> None:
    node = Node(message_types={"vote": {}})
    caller = await node.member(idle=IDLE)
    node.clock.advance(seconds=10)

    for message in (first, then):
        caller.say(*message)

    assert await is_active(node, caller) is counts


async def test_a_repeated_edit_is_no_activity() -> None:
    node = Node()
    caller = await node.member(idle=IDLE)
    caller.edit("once", id="same")
    await node.handler.record_activity()
    node.sessions.touched.clear()
    node.clock.advance(seconds=10)

    caller.edit("once", id="same")

    assert not await is_active(node, caller)


async def test_the_answer_to_the_announcement_of_the_end_is_no_activity() -> None:
    node = Node()
    session, token = node.sessions.issue(idle=IDLE)
    caller = await node.enter(token)
    node.pass_time(seconds=30)
    await node.answer()
    announced = caller.payload_of("session_expiring")

    caller.say("session_refresh", {"token": token})
    await node.answer()
    node.pass_time(seconds=30)
    await node.answer()

    assert announced["reason"] == "idle"
    assert node.sessions.touched == []
    assert caller.closed_with == (4401, "session_expired")
    assert session.idle_timeout == IDLE


@pytest.mark.parametrize("path", ["/ws", "/yjs/d", "/hocuspocus"])
@in_no_time
async def test_a_handshake_is_no_activity_because_providers_reconnect_by_themselves(path: str) -> None:
    async with House() as house:
        session, token = house.sessions.issue(idle=IDLE)
        house.clock.advance(seconds=10)

        await enter(house, path, token)

        assert house.sessions.touched == []
        assert session.idle_timeout == IDLE


# --- the Yjs protocols ----------------------------------------------------------------------------------


async def enter(house: House, path: str, token: str) -> Conversation:
    """The conversation of a client in the document ``d``, which has begun."""
    handshake = Handshake(path=path, raw_path=path, query={}, headers={"authorization": f"Bearer {token}"})
    answer = await house.handler.accept(handshake)
    assert isinstance(answer, Accepted), answer
    answer.conversation.opened(FakeSocket())
    if path == "/hocuspocus":
        answer.conversation.binary(yjs.address("d") + token_message(token))
        await house.settle()
        await house.handler.answer_next()
    await house.settle()
    return answer.conversation


def shows(client: int, clock: int, state: bytes) -> bytes:
    return yjs.awareness([AwarenessEntry(client, clock, state)])


def an_update(words: str) -> bytes:
    return yjs.update(Writer().type(words))


def the_same_update_twice() -> list[bytes]:
    return [yjs.sync_step2(known := Writer().type("known")), yjs.update(known)]


YJS_ROWS: dict[str, tuple[Callable[[], list[bytes]], bool]] = {
    "a change": (lambda: [an_update("typed")], True),
    "a state that changes": (lambda: [shows(7, 1, b'{"at":1}'), shows(7, 2, b'{"at":2}')], True),
    "a state that is renewed": (lambda: [shows(7, 1, b'{"at":1}'), shows(7, 2, b'{"at":1}')], False),
    "a state that goes": (lambda: [shows(7, 1, b'{"at":1}'), shows(7, 2, b"null")], False),
    "a change that is known": (the_same_update_twice, False),
    "a change of nothing": (lambda: [yjs.update(lib0.EMPTY_UPDATE)], False),
    "the answer to step 1": (lambda: [yjs.sync_step2(Writer().type("typed before"))], False),
    "a question for what is missing": (lambda: [yjs.sync_step1(lib0.EMPTY_STATE)], False),
    "a question for awareness": (lambda: [b"\x03"], False),
}


@pytest.mark.parametrize("path", ["/yjs/d", "/hocuspocus"])
@pytest.mark.parametrize(("messages", "counts"), YJS_ROWS.values(), ids=YJS_ROWS.keys())
def test_of_yjs_messages_only_what_the_user_does_counts(
    path: str, messages: Callable[[], list[bytes]], *, counts: bool
) -> None:
    assert was_active(path, messages()) is counts


HOCUSPOCUS_ROWS: dict[str, Callable[[str], bytes]] = {
    "the answer to a question for a token": lambda token: yjs.address("d") + token_message(token),
    "a token for another document": lambda token: yjs.address("e") + token_message(token),
    "a ping": lambda _: yjs.PING,
    "a pong": lambda _: yjs.PONG,
    "a message of the application": lambda _: yjs.address("d") + b"\x05" + lib0.text("hi"),
    "leaving a document": lambda _: yjs.address("d") + b"\x07",
}


@pytest.mark.parametrize("message", HOCUSPOCUS_ROWS.values(), ids=HOCUSPOCUS_ROWS.keys())
def test_what_hocuspocus_says_besides_is_no_activity(message: Callable[[str], bytes]) -> None:
    assert not was_active("/hocuspocus", [message])


def was_active(path: str, messages: Sequence[Any]) -> bool:
    """Whether a session was active that says these in the document ``d``."""
    touched: list[Any] = []
    address = yjs.address("d") if path == "/hocuspocus" else b""

    @in_no_time
    async def converse() -> None:
        async with House() as house:
            _, token = house.sessions.issue(idle=IDLE)
            conversation = await enter(house, path, token)
            house.clock.advance(seconds=10)
            for message in messages:
                said: Any = message(token) if callable(message) else address + message
                conversation.binary(said)
            await house.settle()
            await answer(house)
            await house.handler.record_activity()
            touched.extend(house.sessions.touched)

    converse()
    return bool(touched)


async def answer(house: House) -> None:
    """Let storage answer what connections asked."""
    questions = house.handler._connections.questions  # pyright: ignore[reportPrivateUsage]
    while not questions.empty():
        await house.handler.answer_next()
    await house.settle()


@in_no_time
async def test_hocuspocus_ends_by_idleness_although_it_answers_every_question_for_a_token() -> None:
    async with House() as house:
        _, token = house.sessions.issue(idle=IDLE)
        conversation: Any = await enter(house, "/hocuspocus", token)
        await answer(house)
        socket = conversation.box.socket
        asked = 0
        while socket.closed_with is None:
            await house.pass_time(5)
            await answer(house)
            questions = sum(frame.payload == yjs.address("d") + yjs.token_wanted() for frame in socket.frames)
            if questions > asked:
                asked = questions
                conversation.binary(yjs.address("d") + token_message(token))
                await answer(house)

        assert asked == 1
        assert house.clock.now() - NOON == IDLE
        assert socket.closed_with == (4401, "session_expired")
