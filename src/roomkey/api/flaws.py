"""What msgspec says about a body or a query, as flaws that may be shown to whoever sent it."""

import re
from typing import Final

from roomkey.errors import Flaw

_AT: Final = re.compile(r"^(?P<what>.*?)(?: - at (?:`key` in )?`(?P<path>\$[^`]*)`)?$", re.DOTALL)
_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_ECHO: Final = re.compile(r"(Invalid enum value) .*", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_HARMLESS: Final = re.compile(r"[a-z_]{1,32}")
"""What a misspelt name looks like, and no secret does."""
_FIELD: Final = re.compile(r"([a-z_]+): (.*)", re.DOTALL)


def flaw_in_body(message: str) -> Flaw:
    """
    What msgspec's ``message`` says about a body, with an RFC 6901 pointer to where.

    Nothing of what the caller sent is repeated, because it may be a secret in the wrong place.
    """
    what, steps = _read(message)
    return Flaw(detail=what, pointer="#" + "".join("/" + step for step in steps))


def flaw_in_query(message: str) -> Flaw:
    """What msgspec's ``message`` says about the parameters of a query."""
    what, steps = _read(message)
    return Flaw(detail=what, parameter=steps[0]) if steps else Flaw(detail=what)


def _read(message: str) -> tuple[str, list[str]]:
    match = _AT.match(message)
    what, path = (match["what"], match["path"] or "$") if match else (message, "$")
    # A path into a map has no name for the entry: `$.metadata[...]`.
    steps = [name or number for name, number in _STEP.findall(path) if number != "..."]
    if field := _FIELD.fullmatch(what):
        steps.append(field[1])
        what = field[2]
    elif unknown := _UNKNOWN.fullmatch(what):
        name = unknown[1]
        what = f"there is no `{name}`" if _HARMLESS.fullmatch(name) else "an unknown name"
    return _ECHO.sub(r"\1", what), steps
