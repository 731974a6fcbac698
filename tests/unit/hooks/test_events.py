"""Every message is what the AsyncAPI document says of it."""

import json
from datetime import UTC, datetime
from typing import Any

import jsonschema_rs
import pytest

from roomkey.api.asyncapi import describe
from roomkey.domain.session import SessionId
from roomkey.hooks.events import EVERY_TYPE, STRUCTURES, EventType, message

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
WHO = {"at": NOON, "actor": "user:alice", "session_id": SessionId("a7kq3v5zt2mjc4nxw6ye3rf5hbgd"), "user_id": "alice"}
DOCUMENT = {"document": "plan", "lineage": "one", "version": 7}
MORE: dict[str, dict[str, Any]] = {
    "document.changed": {"content": b"\0\1"},
    "document.saved": {"content": {"content": "Hello"}},
    "document.created": {"content_omitted": "too_large"},
    "document.version_kept": {"number": 3, "label": "first"},
}


def event(type: EventType) -> Any:
    about = {"how": "expired"} if type == "session.ended" else DOCUMENT
    return STRUCTURES[type](**WHO, **about, **MORE.get(type, {}))


@pytest.mark.parametrize("type", EVERY_TYPE)
def test_a_message_is_what_its_schema_says(type: EventType) -> None:
    document, told = describe(), json.loads(message(event(type)))
    payload = document["components"]["messages"][type]["payload"]

    jsonschema_rs.validate({**payload, "components": document["components"]}, told)

    assert (told["type"], told["timestamp"]) == (type, "2026-01-02T12:00:00Z")
    assert told["data"]["session_id"] == WHO["session_id"]
    assert "type" not in told["data"]
    assert "at" not in told["data"]


def test_every_type_has_a_structure_that_says_which_it_is() -> None:
    assert tuple(STRUCTURES) == EVERY_TYPE
    assert [event(type).type for type in EVERY_TYPE] == list(EVERY_TYPE)
