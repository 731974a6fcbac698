"""The schema of the messages of ``/ws`` and the server agree on what a client may say."""

import asyncio
import json
from copy import deepcopy
from typing import Any, cast

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from roomkey.realtime.protocol.payloads import FROM_CLIENTS
from tests.support.effort import examples
from tests.support.sockets import Caller, Node
from tests.support.ws_messages import CLIENT

EPOCH = "abcdefgh"
VALID: dict[str, dict[str, Any]] = {
    "heartbeat": {},
    "subscribe": {"document": "d", "since": {"epoch": EPOCH, "offset": 3}},
    "unsubscribe": {"document": "other"},
    "realtime_edit": {"document": "d", "op": [1, {"text": "é"}]},
    "cursor_position": {"document": "d", "at": 3},
    "user_presence": {"document": "d", "status": "away"},
    "session_refresh": {"token": "unknown", "proof": None},
}
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(
        ["", ".", "a/..", "a\x00", "a\x7f", "\x85", "x" * 65, "x" * 129, "x" * 513, "x" * 1025, "x" * 4097]
    ),
    st.sampled_from([[], {}, [{}], {"epoch": EPOCH}, {"epoch": 1, "offset": 1}, {"epoch": EPOCH, "offset": -1.5}]),
    st.sampled_from(
        [{"epoch": EPOCH, "offset": 1.0}, {"epoch": EPOCH, "offset": True}, {"epoch": EPOCH, "offset": "1"}]
    ),
)
PLACES = ("id", "message_type", "payload", "timestamp", "document", "since", "status", "token", "proof", "x")
CHANGES = st.lists(st.tuples(st.sampled_from(PLACES), ODD | st.just(...)), max_size=3)


def changed(name: str, changes: list[tuple[str, Any]]) -> dict[str, Any]:
    """A message that is fine, but for some fields that are something else, or missing where ``...`` stands."""
    message = json.loads(
        json.dumps({"id": "m1", "message_type": name, "payload": VALID[name], "timestamp": "2026-01-02T12:00:00Z"})
    )
    for place, value in changes:
        holder: Any = message if place in PLACES[:4] else message.get("payload")
        if not isinstance(holder, dict):
            continue
        if value is ...:
            cast("dict[str, Any]", holder).pop(place, None)
        else:
            holder[place] = deepcopy(value)
    return message


async def refusal(message: Any) -> str | None:
    """The code of the error with which a server answers, if it does."""
    node = Node()
    caller: Caller = await node.member()
    caller.raw(msgspec.json.encode(message))
    await node.answer()
    errors = [each["payload"]["code"] for each in caller.news() if each["message_type"] == "error"]
    return errors[0] if errors else None


@settings(max_examples=examples(600))
@given(st.sampled_from(sorted(FROM_CLIENTS)), CHANGES)
@example("subscribe", [("since", {"epoch": EPOCH, "offset": 1.5})])
@example("subscribe", [("since", {"epoch": EPOCH, "offset": 1.0})])
@example("user_presence", [("status", "x" * 64)])
@example("heartbeat", [("id", "x" * 128)])
@example("unsubscribe", [("document", "x" * 1024)])
@example("heartbeat", [("payload", ...)])
@example("session_refresh", [("proof", "")])
def test_what_the_schema_refuses_the_server_refuses(name: str, changes: list[tuple[str, Any]]) -> None:
    message = changed(name, changes)

    refused = asyncio.run(refusal(message))

    if not CLIENT.is_valid(message):
        assert refused is not None


@settings(max_examples=examples(200))
@given(st.sampled_from(sorted(FROM_CLIENTS)), st.lists(st.tuples(st.sampled_from(PLACES), st.just(...)), max_size=3))
def test_a_server_takes_what_has_the_fields_that_the_schema_demands(name: str, changes: list[tuple[str, Any]]) -> None:
    message = changed(name, changes)

    refused = asyncio.run(refusal(message))

    if CLIENT.is_valid(message):
        assert refused == ("UNAUTHORIZED" if name == "session_refresh" else None)
