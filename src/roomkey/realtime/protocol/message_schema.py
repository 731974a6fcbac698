"""The JSON Schema of the built-in messages of ``/ws``, made of their structures: ``roomkey messages`` prints it."""

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from roomkey.realtime.protocol.json_messages import Incoming, MessageType, WebSocketMessage
from roomkey.realtime.protocol.payloads import FROM_CLIENTS, FROM_SERVER, KeptMessage

Json = dict[str, Any]

ID: Final = "urn:roomkey:ws"
"""What the schema is called, wherever it lies."""

DESCRIPTION: Final = (
    "The messages of the WebSocket at `/ws`: one text frame is one of them. `#client` is all that a client may send, "
    "`#server` all that it may be sent, and `#client.subscribe`, for example, one message. Message types that an "
    "application adds have schemas of their own. The server refuses more than a schema can say: names with invisible "
    "characters, messages that are too long, and whatever the grants of the session do not allow."
)


def describe() -> Json:
    """Every message in either direction, as one JSON Schema (2020-12) with an anchor per message."""
    _, payloads = msgspec.json.schema_components(
        [*FROM_CLIENTS.values(), *FROM_SERVER.values(), KeptMessage], ref_template="#/$defs/{name}"
    )
    sent, heard = _directed("client", Incoming, FROM_CLIENTS), _directed("server", WebSocketMessage, FROM_SERVER)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        "title": "Messages of /ws",
        "description": DESCRIPTION,
        "anyOf": [_reference("client"), _reference("server")],
        "$defs": {**sent, **heard, **dict(sorted(payloads.items()))},
    }


def _directed(sender: str, envelope: type[Struct], vocabulary: Mapping[MessageType, type[Struct]]) -> Json:
    messages = {f"{sender}.{name}": _message(sender, name, envelope, kind) for name, kind in vocabulary.items()}
    choice = {"$anchor": sender, "title": f"What the {sender} sends", "oneOf": [_reference(name) for name in messages]}
    return {sender: choice, **messages}


def _message(sender: str, name: MessageType, envelope: type[Struct], kind: type[Struct]) -> Json:
    _, components = msgspec.json.schema_components([envelope, kind], ref_template="#/$defs/{name}")
    described, payload = (cast("Json", components[each.__name__]) for each in (envelope, kind))
    fields = described["properties"] | {"message_type": {"const": name}, "payload": _reference(kind.__name__)}
    needed = {*described["required"], *(["payload"] if payload["required"] else [])}
    return {
        "$anchor": f"{sender}.{name}",
        "title": f"{name}, sent by the {sender}",
        "description": payload["description"],
        "type": "object",
        "properties": fields,
        "required": [field for field in fields if field in needed],
    }


def _reference(name: str) -> Json:
    return {"$ref": f"#/$defs/{name}"}
