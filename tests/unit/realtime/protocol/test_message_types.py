"""Schemas of an application's messages: what they may cost, at the start and for each message."""

from time import process_time
from typing import Any

import pytest

from roomkey.errors import ConfigurationError
from roomkey.realtime.protocol.json_messages import Fault
from roomkey.realtime.protocol.message_types import MAX_SCHEMA_BYTES, ApplicationType, compile_types

EXPLOSIVE = {
    "nested repetition": "^(a+)+$",
    "alternatives": "^(a|a|aa)+$",
    "a look-ahead": "^(a|a|aa)+(?!b)$",
    "a reference": r"^(a|a|aa)+(?!b)\1$",
}


@pytest.mark.parametrize("pattern", EXPLOSIVE.values(), ids=EXPLOSIVE.keys())
def test_no_text_makes_a_pattern_explode(pattern: str) -> None:
    kind = ApplicationType("vote", {"properties": {"a": {"items": {"pattern": pattern}}}})
    payload = {"document": "d", "a": ["a" * 9_000 + "!"]}

    begun = process_time()
    with pytest.raises(Fault):
        kind.check(payload)

    assert process_time() - begun < 1


@pytest.mark.parametrize(
    "schema",
    [
        {"description": "x" * MAX_SCHEMA_BYTES},
        {"pattern": "(((a{100}){100}){100}){100}"},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"type": "nothing"},
    ],
    ids=["long", "a pattern that is too large", "elsewhere", "a file", "no schema"],
)
def test_a_schema_that_would_cost_too_much_is_found_at_the_start(schema: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"realtime\.message_types\.vote"):
        compile_types({"vote": schema})


def test_a_schema_may_refer_to_itself() -> None:
    kind = ApplicationType("tree", {"properties": {"child": {"$ref": "#"}}, "required": ["size"]})
    payload: dict[str, Any] = {"size": 1}
    for _ in range(30):
        payload = {"size": 1, "child": payload}

    kind.check(payload)
    with pytest.raises(Fault):
        kind.check({"size": 1, "child": {"child": {}}})
    ApplicationType("loop", {"$ref": "#"}).check({})
