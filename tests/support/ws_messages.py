"""What passes over ``/ws`` in any test, held against the schema of its messages."""

from functools import lru_cache
from typing import Any

import jsonschema_rs
import msgspec

from roomkey.realtime.protocol.json_messages import MessageType
from roomkey.realtime.protocol.message_schema import describe
from roomkey.realtime.protocol.payloads import FROM_CLIENTS

_SCHEMA = describe()


def validator(anchor: str) -> Any:
    """Of one part of the schema: ``client``, ``server``, or one message like ``client.subscribe``."""
    return jsonschema_rs.validator_for(
        {**_SCHEMA, "$id": f"{_SCHEMA['$id']}:{anchor}", "anyOf": [{"$ref": f"#{anchor}"}]}
    )


CLIENT = validator("client")
SERVER = validator("server")


def heard(text: str | bytes) -> Any:
    """A message of the server, decoded, if it is what the schema says."""
    _check(text if isinstance(text, bytes) else text.encode())
    return msgspec.json.decode(text)


def fulfils(text: bytes) -> bool:
    """Whether a client may send this, or it is of a type that the application has a schema of."""
    message = msgspec.json.decode(text)
    return message["message_type"] not in FROM_CLIENTS or CLIENT.is_valid(message)


@lru_cache(maxsize=20_000)
def _check(text: bytes) -> None:
    message = msgspec.json.decode(text)
    if message["message_type"] in set(MessageType):
        SERVER.validate(message)
