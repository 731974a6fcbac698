"""References within a document of JSON."""

from collections.abc import Iterator
from typing import Any, cast


def references(value: Any) -> Iterator[str]:
    """Every reference in ``value``, wherever it stands."""
    if isinstance(value, dict):
        for key, item in cast("dict[str, Any]", value).items():
            if key == "$ref":
                yield item
            else:
                yield from references(item)
    elif isinstance(value, list):
        for item in cast("list[Any]", value):
            yield from references(item)


def dangling(document: dict[str, Any]) -> list[str]:
    """The references that lead nowhere in ``document``, or to nothing."""
    return [reference for reference in references(document) if not _target(document, reference)]


def _target(document: Any, reference: str) -> Any:
    target = document
    for step in reference.removeprefix("#/").split("/"):
        target = target.get(step, {})
    return target
