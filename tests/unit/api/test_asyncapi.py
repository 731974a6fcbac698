"""The AsyncAPI document: what is described is what is said, and the parser of AsyncAPI has nothing to object."""

import json
import re
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from msgspec import Struct

from roomkey.api.asyncapi import ANSWERS, CALLS, HttpCall, describe
from roomkey.realtime.protocol.payloads import FROM_CLIENTS, FROM_SERVER
from roomkey.wire.close import CLOSE_CODES, STOCK_CLOSE_CODES
from tests.support.providers import CLIENTS, NODE
from tests.support.references import dangling, references

KEPT = Path(__file__).parents[3] / "spec" / "asyncapi.json"

needs_parser = pytest.mark.skipif(
    NODE is None or not (CLIENTS / "node_modules" / "@asyncapi" / "parser").exists(),
    reason="needs Node.js, and `npm ci` in tests/clients",
)


class TitleChanged(Struct, frozen=True, tag_field="type", tag="title.changed"):
    """A document has another title."""

    at: datetime
    document: str
    title: str | None = None


TITLES = HttpCall(name="titles", description="Told to whom it concerns.", messages=(TitleChanged,), envelope=True)


def parsed(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What ``@asyncapi/parser`` says of a document."""
    assert NODE is not None
    file = folder / "asyncapi.json"
    file.write_text(json.dumps(document))
    done = subprocess.run(
        [NODE, str(CLIENTS / "asyncapi.mjs"), str(file)], capture_output=True, text=True, timeout=60, check=True
    )
    return json.loads(done.stdout)


@needs_parser
def test_the_parser_of_asyncapi_has_nothing_to_object(tmp_path: Path) -> None:
    said = parsed(describe(calls=[*CALLS, TITLES], public_url="https://rooms.example.com/live"), tmp_path)

    assert [each for each in said["wrong"] if each["severity"] < 2] == []  # errors and warnings; the rest is advice
    assert said["channels"]["ws"] == [
        *(f"client.{each}" for each in FROM_CLIENTS),
        *(f"server.{each}" for each in FROM_SERVER),
    ]
    assert said["channels"]["access"] == ["access.asked", "access.answer"]
    assert said["channels"]["titles"] == ["title.changed"]


def test_the_document_that_is_kept_is_the_one_that_is_printed() -> None:
    """If this fails on purpose: ``roomkey asyncapi > spec/asyncapi.json``."""
    assert json.loads(KEPT.read_text(encoding="utf-8")) == json.loads(json.dumps(describe()))


def test_every_reference_leads_somewhere() -> None:
    whole = describe()

    assert [*references(whole)]
    assert dangling(whole) == []


def test_what_answers_a_message_is_what_its_description_says() -> None:
    described = {name: re.search(r"Answered by `(\w+)`", kind.__doc__ or "") for name, kind in FROM_CLIENTS.items()}

    assert {name: found[1] for name, found in described.items() if found} == ANSWERS


def test_every_close_code_is_with_the_sockets_that_know_it() -> None:
    channels = describe()["channels"]
    said = {
        name: {(reason, entry["code"]) for entry in channels[name]["x-close-codes"] for reason in entry["reasons"]}
        for name in ("ws", "yjs", "hocuspocus")
    }

    assert said["ws"] < set(CLOSE_CODES.items())
    assert said["yjs"] < said["hocuspocus"] < set(STOCK_CLOSE_CODES.items())
    assert {reason for reason, _ in said["ws"] | said["hocuspocus"]} == set(CLOSE_CODES)
    assert ("session_suspended", 4423) in said["ws"]
    assert ("session_suspended", 4503) in said["yjs"]


def test_a_call_has_the_name_that_is_sent_and_the_headers_that_sign_it() -> None:
    document = describe(calls=[TITLES])
    message = document["components"]["messages"]["title.changed"]
    schema = document["components"]["schemas"]["TitleChanged"]

    assert jsonschema_rs.is_valid(schema, {"type": "title.changed", "timestamp": "now", "data": {"document": "plan"}})
    assert not jsonschema_rs.is_valid(schema, {"type": "title.changed", "timestamp": "now", "data": {"title": "Plan"}})
    assert not jsonschema_rs.is_valid(schema, {"type": "another", "timestamp": "now", "data": {"document": "plan"}})
    assert set(schema["properties"]["data"]["properties"]) == {"document", "title"}
    assert message["headers"]["required"] == ["webhook-id", "webhook-timestamp", "webhook-signature"]
    assert "reply" not in document["operations"]["titles"]
    assert "reply" in describe()["operations"]["access"]


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("https://rooms.example.com", ("rooms.example.com", "wss", None)),
        ("http://localhost:3000/live/", ("localhost:3000", "ws", "/live")),
    ],
)
def test_a_server_that_knows_its_address_says_it(url: str, server: tuple[str, str, str | None]) -> None:
    described = describe(public_url=url)["servers"]["roomkey"]

    assert (described["host"], described["protocol"], described.get("pathname")) == server
