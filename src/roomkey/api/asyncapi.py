"""
The AsyncAPI 3 document: everything that is said, except by requests to REST and their answers.

That is the messages on the sockets, and what the server asks and tells the application over HTTP. It is made of the
structures that the messages are encoded and checked by.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final, cast
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from roomkey.access.hook import AccessAnswer, AskedAccess
from roomkey.hooks.events import STRUCTURES
from roomkey.realtime.protocol import message_schema
from roomkey.realtime.protocol.json_messages import MessageType
from roomkey.realtime.protocol.payloads import FROM_CLIENTS, FROM_SERVER
from roomkey.security.credentials import COOKIE
from roomkey.wire.close import CLOSE_CODES, STOCK_CLOSE_CODES, CloseCode, CloseReason

Json = dict[str, Any]

DESCRIPTION: Final = """\
What is said on the sockets of Roomkey, and what Roomkey asks and tells your application over HTTP. What you may ask of
Roomkey with a request is in `openapi.json`.

Operations are those of the server: it receives what clients send, and sends what they are told.
"""

ANSWERS: Final[Mapping[MessageType, MessageType]] = {
    MessageType.HEARTBEAT: MessageType.HEARTBEAT_ACK,
    MessageType.SUBSCRIBE: MessageType.SUBSCRIBED,
    MessageType.UNSUBSCRIBE: MessageType.UNSUBSCRIBED,
    MessageType.REALTIME_EDIT: MessageType.ACK,
    MessageType.SESSION_REFRESH: MessageType.SESSION_REFRESHED,
}
"""What answers a message of a client and repeats its id, unless an ``error`` does."""


class HttpCall(Struct, frozen=True, kw_only=True):
    """
    What the server POSTs to an address of the application, signed as Standard Webhooks says.

    Each of the ``messages`` has a tag, or a field ``type`` with a default, which is what it is called. In an
    ``envelope`` of Standard Webhooks the other fields stand in ``data``, but for ``at``, which is the ``timestamp``
    beside it. With an ``answer`` the body of the response is that.
    """

    name: str
    description: str
    messages: Sequence[type[Struct]]
    envelope: bool = False
    answer: type[Struct] | None = None


CALLS: Final[Sequence[HttpCall]] = (
    HttpCall(
        name="access",
        description="Asked at `access.url` and signed with `access.secret`; see docs/access.md.",
        messages=(AskedAccess,),
        answer=AccessAnswer,
    ),
    HttpCall(
        name="webhooks",
        description="Posted to the endpoints of `webhooks.endpoints` that want it, at least once; see docs/hooks.md.",
        messages=tuple(STRUCTURES.values()),
        envelope=True,
    ),
)

SECURITY_SCHEMES: Final[Json] = {
    "sessionToken": {"type": "http", "scheme": "bearer", "description": "The token of a session."},
    "sessionHeader": {"type": "httpApiKey", "in": "header", "name": "X-Session-ID", "description": "The same."},
    "sessionCookie": {
        "type": "httpApiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "The same, from a page of the same origin or of an allowed one.",
    },
    "subprotocol": {
        "type": "httpApiKey",
        "in": "header",
        "name": "Sec-WebSocket-Protocol",
        "description": "The same, from a browser: the subprotocols `roomkey.v1` and `roomkey.token.<token>`.",
    },
    "ticket": {
        "type": "httpApiKey",
        "in": "query",
        "name": "ticket",
        "description": "A ticket of `POST /sessions/me/tickets`, for one handshake.",
    },
}

SIGNATURE: Final[Json] = {
    "type": "object",
    "description": "The headers of Standard Webhooks.",
    "properties": {
        "webhook-id": {"type": "string", "description": "Names the message; the same when it is sent again."},
        "webhook-timestamp": {"type": "string", "description": "When it was sent, in seconds since 1970."},
        "webhook-signature": {
            "type": "string",
            "description": (
                "`v1,` and the HMAC-SHA256 of id, time and body, joined by full stops, in base64; or `v1a,` and their "
                "Ed25519 signature. Of several, separated by spaces, each is enough."
            ),
        },
    },
    "required": ["webhook-id", "webhook-timestamp", "webhook-signature"],
}

_OF_HOCUSPOCUS: Final = frozenset({CloseReason.QUEUE_FULL, CloseReason.NOT_AUTHENTICATED, CloseReason.BAD_TOKENS})
_OF_DOCUMENTS: Final = _OF_HOCUSPOCUS | {
    CloseReason.BINARY_ONLY,
    CloseReason.DOCUMENT_DELETED,
    CloseReason.FORGED,
    CloseReason.INVALID_DOCUMENT_NAME,
    CloseReason.LINEAGE_MISMATCH,
    CloseReason.STORAGE_LOST,
}
"""Reasons for closing the sockets of the Yjs protocols alone."""

_BINARY: Final[Json] = {
    "yjs": {
        "name": "yjs",
        "title": "A message of y-websocket",
        "summary": "Sync, awareness or a status of y-protocols, one per binary frame. See docs/realtime.md.",
        "contentType": "application/octet-stream",
        "payload": {"type": "string", "format": "binary"},
    },
    "hocuspocus": {
        "name": "hocuspocus",
        "title": "A message of Hocuspocus",
        "summary": "The name of a document and a message about it, one per binary frame. See docs/realtime.md.",
        "contentType": "application/octet-stream",
        "payload": {"type": "string", "format": "binary"},
    },
}


def describe(*, calls: Sequence[HttpCall] = CALLS, public_url: str | None = None) -> Json:
    """The document of a server with the default paths, which is found at ``public_url`` if that is given."""
    schemas, messages = _on_rooms()
    for call in calls:
        more_schemas, more_messages = _in_call(call)
        schemas |= more_schemas
        messages |= more_messages
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Roomkey",
            "version": version("roomkey"),
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"roomkey": _server(public_url), "application": _APPLICATION},
        "channels": {**_sockets(), **{call.name: _channel_of(call) for call in calls}},
        "operations": {**_on_sockets(), **{call.name: _operation_of(call) for call in calls}},
        "components": {
            "messages": messages | _BINARY,
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


# --- sockets ------------------------------------------------------------------------------------------

_APPLICATION: Final[Json] = {
    "host": "{host}",
    "protocol": "https",
    "description": "Your application, which the server calls.",
    "variables": {"host": {"default": "app.example.com"}},
}


def _server(public_url: str | None) -> Json:
    described: Json = {
        "description": "Roomkey. A handshake takes the first credential that it finds.",
        "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in SECURITY_SCHEMES],
    }
    if public_url is None:
        return {
            "host": "{host}",
            "protocol": "wss",
            "variables": {"host": {"default": "rooms.example.com"}},
            **described,
        }
    parts = urlsplit(public_url)
    described = {"host": parts.netloc, "protocol": "ws" if parts.scheme == "http" else "wss", **described}
    if path := parts.path.rstrip("/"):
        described["pathname"] = path
    return described


def _sockets() -> Json:
    said = [*(f"client.{name}" for name in FROM_CLIENTS), *(f"server.{name}" for name in FROM_SERVER)]
    return {
        "ws": {
            "address": "/ws",
            "title": "Rooms",
            "description": "One text frame is one message in JSON. The path is that of the setting `realtime.path`.",
            **_in_channel("roomkey", said),
            "x-close-codes": _close_codes(CLOSE_CODES, without=_OF_DOCUMENTS),
        },
        "yjs": {
            "address": "/yjs/{document}",
            "title": "One document, for y-websocket",
            "description": "The path is that of the setting `documents.path`. Names may contain slashes.",
            "parameters": {"document": {"description": "The name of the document, percent-encoded."}},
            **_in_channel("roomkey", ["yjs"]),
            "x-close-codes": _close_codes(STOCK_CLOSE_CODES, without=_OF_HOCUSPOCUS | {CloseReason.TEXT_ONLY}),
        },
        "hocuspocus": {
            "address": "/hocuspocus",
            "title": "Documents, for providers of Hocuspocus",
            "description": "The path is that of the setting `documents.hocuspocus_path`.",
            **_in_channel("roomkey", ["hocuspocus"]),
            "x-close-codes": _close_codes(STOCK_CLOSE_CODES, without={CloseReason.TEXT_ONLY}),
        },
    }


def _close_codes(codes: Mapping[CloseReason, CloseCode], *, without: Iterable[CloseReason]) -> list[Json]:
    """Each code with which such a socket is closed, and the words that a close reason begins with."""
    reasons: dict[CloseCode, list[str]] = {}
    for reason in codes.keys() - set(without):
        reasons.setdefault(codes[reason], []).append(reason)
    return [{"code": int(code), "reasons": sorted(words)} for code, words in sorted(reasons.items())]


def _on_sockets() -> Json:
    unasked = [f"server.{name}" for name in FROM_SERVER if name not in ANSWERS.values()]
    operations: Json = {
        f"receive_{name}": {
            **_operation("receive", "ws", [f"client.{name}"]),
            **({"reply": _said("ws", [f"server.{ANSWERS[name]}", "server.error"])} if name in ANSWERS else {}),
        }
        for name in FROM_CLIENTS
    }
    operations["send_to_rooms"] = _operation("send", "ws", unasked)
    for protocol in _BINARY:
        operations[f"receive_{protocol}"] = _operation("receive", protocol, [protocol])
        operations[f"send_{protocol}"] = _operation("send", protocol, [protocol])
    return operations


def _on_rooms() -> tuple[Json, Json]:
    """Schemas and messages of ``/ws``: those of ``spec/ws.json``."""
    schemas: Json = _moved(message_schema.describe()["$defs"])
    messages: Json = {}
    for sender, vocabulary in (("client", FROM_CLIENTS), ("server", FROM_SERVER)):
        del schemas[sender]
        for name in vocabulary:
            schema = schemas[f"{sender}.{name}"]
            messages[f"{sender}.{name}"] = {
                "name": str(name),
                "title": schema["title"],
                "summary": schema["description"],
                "payload": _schema(f"{sender}.{name}"),
            }
    return schemas, messages


def _moved(value: Any) -> Any:
    """Schemas as they are among the components: with other references, and without anchors."""
    if isinstance(value, list):
        return [_moved(item) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    return {
        key: item.replace("#/$defs/", "#/components/schemas/") if key == "$ref" else _moved(item)
        for key, item in cast("Json", value).items()
        if key != "$anchor"
    }


# --- calls of the application -------------------------------------------------------------------------


def _in_call(call: HttpCall) -> tuple[Json, Json]:
    kinds = [*call.messages, *([] if call.answer is None else [call.answer])]
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    messages: Json = {}
    for kind in call.messages:
        name, schema = _name_of(kind), cast("Json", schemas[kind.__name__])
        payload = {"properties": schema.pop("properties"), "required": set(schema.pop("required"))}
        schemas[kind.__name__] = {**schema, **(_enveloped if call.envelope else _typed)(name, payload)}
        messages[name] = {
            "name": name,
            "title": name,
            "summary": schema["description"],
            "headers": SIGNATURE,
            "payload": _schema(kind.__name__),
        }
    if call.answer is not None:
        summary = schemas[call.answer.__name__]["description"]
        messages[_answer_to(call)] = {"summary": summary, "payload": _schema(call.answer.__name__)}
    return schemas, messages


def _typed(name: str, payload: Json) -> Json:
    properties = payload["properties"] | {"type": {"const": name}}
    return {"properties": properties, "required": sorted(payload["required"] | {"type"})}


def _enveloped(name: str, payload: Json) -> Json:
    properties = {field: schema for field, schema in payload["properties"].items() if field not in ("type", "at")}
    data = {"type": "object", "properties": properties, "required": sorted(payload["required"] & properties.keys())}
    moment = {"type": "string", "format": "date-time"}
    return {
        "properties": {"type": {"const": name}, "timestamp": moment, "data": data},
        "required": ["type", "timestamp", "data"],
    }


def _channel_of(call: HttpCall) -> Json:
    return {
        "address": None,  # the application's own
        "description": call.description,
        **_in_channel("application", _said_in(call)),
        "bindings": {"http": {}},
    }


def _operation_of(call: HttpCall) -> Json:
    operation = _operation("send", call.name, [_name_of(kind) for kind in call.messages])
    operation["bindings"] = {"http": {"method": "POST"}}
    return operation if call.answer is None else {**operation, "reply": _said(call.name, [_answer_to(call)])}


def _said_in(call: HttpCall) -> list[str]:
    return [*map(_name_of, call.messages), *([] if call.answer is None else [_answer_to(call)])]


def _name_of(kind: type[Struct]) -> str:
    defaults = {field.name: field.default for field in msgspec.structs.fields(kind)}
    return str(kind.__struct_config__.tag or defaults["type"])


def _answer_to(call: HttpCall) -> str:
    return f"{call.name}.answer"


# --- how parts name each other ------------------------------------------------------------------------


def _in_channel(server: str, names: Iterable[str]) -> Json:
    return {
        "servers": [{"$ref": f"#/servers/{server}"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
    }


def _operation(action: str, channel: str, names: Iterable[str]) -> Json:
    return {"action": action, **_said(channel, names)}


def _said(channel: str, names: Iterable[str]) -> Json:
    return {
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
    }


def _schema(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
