"""
What schemathesis does not draw: headers that speak of earlier requests; no schema says which values are right.

And what it does not read: which fields of an object need each other (``dependentRequired``).
"""

from typing import Any, Final, cast

import schemathesis

SPEAK_OF_EARLIER_REQUESTS: Final = ("If-Match", "Idempotency-Key")


@schemathesis.hook  # pyright: ignore[reportUnknownMemberType]  # its type leaves something open
def before_load_schema(context: object, raw_schema: dict[str, Any]) -> None:  # noqa: ARG001  # as it is called
    """Take these parameters out, as if the contract did not have them, and write the forms of objects out."""
    _write_out(raw_schema, raw_schema["components"]["schemas"])
    standing = {
        f"#/components/parameters/{name}"
        for name, parameter in raw_schema["components"]["parameters"].items()
        if parameter["name"] in SPEAK_OF_EARLIER_REQUESTS
    }
    for methods in raw_schema["paths"].values():
        for operation in methods.values():
            parameters = operation.get("parameters", [])
            parameters[:] = [each for each in parameters if each.get("$ref") not in standing]


def _write_out(part: Any, components: dict[str, Any]) -> None:
    """Wherever some fields need each other, say instead: either just those, or just the others."""
    if isinstance(part, list):
        for each in cast("list[Any]", part):
            _write_out(each, components)
    elif isinstance(part, dict):
        schema = cast("dict[str, Any]", part)
        if "dependentRequired" in schema:
            whole = components[schema.pop("$ref").rpartition("/")[2]]
            together = [*schema["dependentRequired"]]
            schema.clear()
            others = [name for name in whole["properties"] if name not in together]
            schema["anyOf"] = [_form(whole, together), _form(whole, others)]
        for each in schema.values():
            _write_out(each, components)


def _form(whole: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    properties = {name: whole["properties"][name] for name in fields}
    return {**whole, "properties": properties, "required": fields}
