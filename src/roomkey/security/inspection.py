"""What text and JSON from outside may look like: sizes, control characters, depth."""

from collections.abc import Iterable
from typing import Any, Final, cast

from roomkey.domain.names import check_name, check_text
from roomkey.errors import InvalidInput

MAX_DOCUMENT_NAME_BYTES: Final = 1024

_DOTS: Final = frozenset({".", ".."})

MAX_REASON_BYTES: Final = 800
"""Of the 200 characters that the interfaces take."""

_CONTAINERS: Final = frozenset({dict, list})


def check_document_name(name: str) -> str:
    """
    Return ``name`` if it may name a document. Raises as ``check_text``.

    A segment ``.`` or ``..`` is refused, because browsers and proxies resolve it before we see it (RFC 3986,
    5.2.4): such a document could not be told from another one.
    """
    check_text("a document's name", name, max_bytes=MAX_DOCUMENT_NAME_BYTES)
    check_name("document", "a document's name", name)
    if "." in name and not _DOTS.isdisjoint(name.split("/")):
        raise InvalidInput("a document's name must not have . or .. between its slashes")
    return name


def check_reason(reason: str | None) -> str | None:
    """Return ``reason`` if somebody who is put out may be told it, in up to 800 bytes. Raises as ``check_text``."""
    if reason is not None:
        if not isinstance(reason, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # applications call this, too
            raise InvalidInput(f"reason must be text, not {type(reason).__name__}")
        check_text("a reason", reason, max_bytes=MAX_REASON_BYTES)
        check_name("reason", "a reason", reason)
    return reason


def is_deeper(value: Any, limit: int) -> bool:
    """Whether objects and arrays nest more than ``limit`` deep in decoded JSON; a flat object has depth 1."""
    # Level by level instead of recursively, so that depth itself cannot hurt.
    level: list[Any] = [value]
    for _ in range(limit):
        level = [inner for outer in level if type(outer) in _CONTAINERS for inner in _children(outer)]
        if not level:
            return False
    return any(type(value) in _CONTAINERS for value in level)


def _children(container: Any) -> Iterable[Any]:
    return cast("dict[str, Any]", container).values() if type(container) is dict else container
