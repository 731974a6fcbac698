"""The schema of the messages of ``/ws``: it is whole, it is the one that is kept, and real conversations fulfil it."""

import json
from datetime import timedelta
from pathlib import Path

import jsonschema_rs
import pytest

from roomkey.domain.access import Access, Grant
from roomkey.domain.session import GrantsChanged, Invalidated, Suspended
from roomkey.realtime.clients.json_rules import JsonRules
from roomkey.realtime.protocol.json_messages import MessageType
from roomkey.realtime.protocol.message_schema import describe
from roomkey.realtime.protocol.payloads import FROM_CLIENTS, FROM_SERVER
from tests.support.references import references
from tests.support.sockets import Caller, Node
from tests.support.ws_messages import heard, validator

FREE = {"at", "text", "mood"}
"""Fields of the clients' own."""

KEPT = Path(__file__).parents[4] / "spec" / "ws.json"


def test_the_schema_that_is_kept_is_that_of_the_code() -> None:
    """If this fails on purpose: ``roomkey messages > spec/ws.json``."""
    assert json.loads(KEPT.read_text(encoding="utf-8")) == json.loads(json.dumps(describe()))


def test_the_schema_is_one_of_json_schema() -> None:
    jsonschema_rs.meta.validate(describe())


def test_every_reference_leads_somewhere_and_everything_is_described() -> None:
    schema = describe()

    assert {reference.removeprefix("#/$defs/") for reference in references(schema)} <= set(schema["$defs"])
    for name, part in schema["$defs"].items():
        assert part["title"], name
        assert part.get("description") or name in {"client", "server", "ErrorCode", "CloseReason"}, name


def test_every_message_that_is_answered_has_a_schema() -> None:
    answered = JsonRules._HANDLERS  # pyright: ignore[reportPrivateUsage]  # the table of what clients may send

    assert set(FROM_CLIENTS) == set(answered)
    assert set(FROM_CLIENTS) | set(FROM_SERVER) == set(MessageType)


async def everything_said() -> list[Caller]:
    """Everything is said that a client or the server can say; returns who heard it."""
    node = Node(node="n1", message_types={"wave": {"x-roomkey": {"history": False}}})
    alice, bob = await node.member(), await node.member(user_id="bob")
    alice.say("heartbeat")
    alice.say("user_presence", {"document": "d", "status": "away", "mood": ["fine"]})
    alice.say("cursor_position", {"document": "d", "at": 3})
    alice.edit("hello")
    alice.say("wave", {"document": "d"})
    alice.say("realtime_edit", {"document": ".."})
    carol = await node.client("carol")
    carol.say("subscribe", {"document": "d", "since": bob.payload_of("realtime_edit")["position"] | {"offset": 0}})
    node.sessions.change(bob.session.id, GrantsChanged, grants=(Grant("**", Access.READ),))
    bob.say("unsubscribe", {"document": "d"})
    node.pass_time(seconds=1)
    node.pass_time(minutes=1)
    _, token = node.sessions.issue("alice")
    alice.say("session_refresh", {"token": token})
    await node.answer()
    soon = await node.client("dora", lifetime=timedelta(seconds=20), idle=None)
    node.pass_time(seconds=0.25)
    await node.answer()
    troubles = {"broker": "away"}
    node.handler.watch_for_troubles(lambda: troubles)
    node.pass_time(seconds=1)
    troubles.clear()
    node.pass_time(seconds=5)
    node.sessions.change(bob.session.id, Suspended, reason="lunch")
    node.sessions.change(carol.session.id, Invalidated)
    node.pass_time(seconds=30)
    await node.answer()
    await node.handler.drain(timedelta())
    return [alice, bob, carol, soon]


async def test_whatever_is_said_fulfils_the_schema() -> None:
    callers = await everything_said()

    said = {message["message_type"] for caller in callers for message in caller.socket.messages}
    assert said >= set(FROM_SERVER)


@pytest.mark.parametrize("name", FROM_SERVER)
async def test_the_schema_demands_every_field_that_is_documented(name: MessageType) -> None:
    callers = await everything_said()
    message = next(each for caller in callers for each in caller.socket.messages if each["message_type"] == name)
    one, optional = validator(f"server.{name}"), {"node", "via", "recovered" if name == "position" else ""}

    for part in (message, message["payload"]):
        for field in {*part} - optional - FREE:
            damaged = json.loads(json.dumps(message))
            (damaged if part is message else damaged["payload"]).pop(field)
            assert not one.is_valid(damaged), field


def test_what_is_not_what_the_schema_says_is_not_heard() -> None:
    with pytest.raises(jsonschema_rs.ValidationError):
        heard(b'{"id":"1","message_type":"ack","timestamp":"2026-01-02T12:00:00Z","payload":{"document":"d"}}')
