"""Message types that an application adds: each has a JSON Schema that its payloads must fulfil."""

import re
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from roomkey.domain.access import Access
from roomkey.errors import ConfigurationError
from roomkey.realtime.protocol.json_messages import ErrorCode, Fault, MessageType

OPTIONS: Final = "x-roomkey"
"""Where a schema says what JSON Schema has no word for."""

MAX_SCHEMA_BYTES: Final = 64 * 1024

BACKTRACKS: Final = 1_000
"""
Steps back that a pattern may take over one text, if it is one that needs any: with look-arounds or references. All
others take linear time. A text on which it needs more does not fulfil the schema. By default they are a million: tens
of milliseconds for a message.
"""

_NAME: Final = re.compile(r"[a-z][a-z0-9_.:-]{0,63}")


class TypeOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """
    How messages of a type are treated, ``"x-roomkey": {"access": "write", "history": true}`` in its schema.

    ``access`` is what the sender's grant must reach. With ``history`` a message has a position and is
    recovered like an edit; without, it reaches whoever is there, as a cursor does.
    """

    access: Access = Access.WRITE
    history: bool = True


class ApplicationType:
    """
    A message type of the application. It is published to everyone else in ``payload.document``, and acknowledged.

    The schema is about the whole payload, except that ``document`` may go unmentioned even if
    ``additionalProperties`` is false. References to other addresses are not followed.
    """

    def __init__(self, name: str, schema: Mapping[str, Any]) -> None:
        """
        Raises:
            ValueError: If the name or the schema is not usable; the message says why.
        """
        if len(msgspec.json.encode(schema)) > MAX_SCHEMA_BYTES:
            raise ValueError(f"a schema has at most {MAX_SCHEMA_BYTES} bytes as JSON")
        if not _NAME.fullmatch(name) or name in set(MessageType):
            raise ValueError("a name has lower-case letters, digits and _.:- and is not one of Roomkey's own")
        self.name = name
        self.options = msgspec.convert(schema.get(OPTIONS, {}), TypeOptions)
        self._validator = _validator(_with_document(schema))

    def check(self, payload: dict[str, Any]) -> None:
        """
        Accept a payload.

        Raises:
            Fault: If it does not fulfil the schema: INVALID_MESSAGE, with where and which keyword.
        """
        if self._validator.is_valid(payload):
            return
        error = next(self._validator.iter_errors(payload))
        raise Fault(
            ErrorCode.INVALID_MESSAGE,
            f"the payload does not fulfil the schema of {self.name}",
            # What was sent is not repeated: it may be long, and it may be anything.
            details={"path": error.instance_path, "keyword": error.schema_path[-1] if error.schema_path else None},
        )


def compile_types(schemas: Mapping[str, Mapping[str, Any]]) -> dict[str, ApplicationType]:
    """
    The application's message types by name.

    Raises:
        ConfigurationError: With everything that is wrong with any of them.
    """
    types: dict[str, ApplicationType] = {}
    problems: list[str] = []
    for name, schema in schemas.items():
        try:
            types[name] = ApplicationType(name, schema)
        except ValueError as error:
            problems.append(f"realtime.message_types.{name}: {error}")
    if problems:
        raise ConfigurationError(*problems)
    return types


def _with_document(schema: Mapping[str, Any]) -> dict[str, Any]:
    properties: Any = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        return dict(schema)  # which the compiler will not like
    return {**schema, "properties": {"document": {"type": "string"}, **cast("Mapping[str, Any]", properties)}}


def _validator(schema: dict[str, Any]) -> Any:
    import jsonschema_rs  # noqa: PLC0415  # few applications have types of their own

    try:
        return jsonschema_rs.validator_for(
            schema,
            retriever=_refuse_to_fetch,
            pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=BACKTRACKS),
        )
    except jsonschema_rs.ValidationError as error:
        raise ValueError(f"not a JSON Schema: {error.message}") from None


def _refuse_to_fetch(address: str) -> Any:
    raise ValueError(f"{address} is not looked up")
