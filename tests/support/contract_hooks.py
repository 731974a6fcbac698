"""What schemathesis does not draw: headers that speak of earlier requests; no schema says which values are right."""

from typing import Any, Final

import schemathesis

SPEAK_OF_EARLIER_REQUESTS: Final = ("If-Match", "Idempotency-Key")


@schemathesis.hook  # pyright: ignore[reportUnknownMemberType]  # its type leaves something open
def before_load_schema(context: object, raw_schema: dict[str, Any]) -> None:  # noqa: ARG001  # as it is called
    """Take these parameters out, as if the contract did not have them."""
    standing = {
        f"#/components/parameters/{name}"
        for name, parameter in raw_schema["components"]["parameters"].items()
        if parameter["name"] in SPEAK_OF_EARLIER_REQUESTS
    }
    for methods in raw_schema["paths"].values():
        for operation in methods.values():
            parameters = operation.get("parameters", [])
            parameters[:] = [each for each in parameters if each.get("$ref") not in standing]
