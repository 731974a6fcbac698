"""
Changes to JSON values: merge patches (RFC 7396), JSON patches (RFC 6902), and what changed between two values.

Values are never changed in place, and nothing here knows of documents.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Final, NamedTuple, cast

import msgspec

from roomkey.errors import Conflict, InvalidInput
from roomkey.security.inspection import is_deeper

MAX_OPERATIONS: Final = 1_000
"""Maximum number of operations of one JSON patch."""

MAX_PATH_PARTS: Final = 64

MAX_COPIED_BYTES: Final = 16 * 1024 * 1024
"""By all operations of one patch: a few of them can double a value again and again."""

MAX_DEPTH: Final = 100
"""Maximum nesting of a copied value."""

MAX_COMPARED_ITEMS: Final = 5_000
"""Lists that differ in more places than this are taken for altogether different there."""


def fingerprint(value: Any) -> bytes:
    """The same bytes for the same JSON value, and only for it: ``1`` is not ``true``."""
    return msgspec.json.encode(value, order="deterministic")


def is_same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same."""
    return fingerprint(one) == fingerprint(other)


# --- RFC 7396 -----------------------------------------------------------------------------------------


def merged(value: Any, patch: Any) -> Any:
    """``value`` with ``patch`` merged into it; ``null`` in a patch removes."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else {}
    for key, change in cast("Mapping[str, Any]", patch).items():
        if change is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), change)
    return result


# --- RFC 6902 -----------------------------------------------------------------------------------------


def patched(value: Any, operations: Any) -> Any:
    """
    ``value`` after all ``operations``.

    Raises:
        InvalidInput: If they are no JSON patch, or name a place that is not there.
        Conflict: If a ``test`` fails.
    """
    if not isinstance(operations, list):
        raise InvalidInput("a JSON patch is a list of operations")
    steps = cast("list[Any]", operations)
    if len(steps) > MAX_OPERATIONS:
        raise InvalidInput(f"a JSON patch has at most {MAX_OPERATIONS} operations")
    room = MAX_COPIED_BYTES
    for step in steps:
        if not isinstance(step, dict):
            raise InvalidInput("an operation of a JSON patch is an object")
        operation = cast("dict[str, Any]", step)
        if operation.get("op") == "copy":
            room -= _size(_at(value, pointer(operation.get("from"))))
            if room < 0:
                raise InvalidInput("a JSON patch copies too much")
        value = _after(value, operation)
    return value


def _size(value: Any) -> int:
    if is_deeper(value, MAX_DEPTH):
        raise InvalidInput("a JSON patch nests too deep")
    return len(fingerprint(value))


def _after(value: Any, step: Mapping[str, Any]) -> Any:
    path = pointer(step.get("path"))
    match step.get("op"):
        case "add":
            return _add(value, path, _value_of(step))
        case "remove":
            return _remove(value, path)
        case "replace":
            return _replace(value, path, _value_of(step))
        case "move":
            source = pointer(step.get("from"))
            if path[: len(source)] == source and path != source:
                raise InvalidInput("a value cannot be moved into itself")
            return _add(_remove(value, source), path, _at(value, source))
        case "copy":
            return _add(value, path, _at(value, pointer(step.get("from"))))
        case "test":
            found = _at(value, path)
            if is_deeper(found, MAX_DEPTH) or not is_same(found, _value_of(step)):
                raise Conflict(f"the test of {step['path']!r} failed")
            return value
        case _:
            raise InvalidInput("an operation of a JSON patch is add, remove, replace, move, copy or test")


def pointer(path: Any) -> list[str]:
    """
    The parts of a JSON pointer (RFC 6901).

    Raises:
        InvalidInput: If it is none.
    """
    if not isinstance(path, str) or (path and not path.startswith("/")):
        raise InvalidInput("a path is a JSON pointer: empty, or beginning with /")
    parts = path.split("/")[1:]
    if len(parts) > MAX_PATH_PARTS:
        raise InvalidInput(f"a path has at most {MAX_PATH_PARTS} parts")
    return [part.replace("~1", "/").replace("~0", "~") for part in parts]


def _value_of(step: Mapping[str, Any]) -> Any:
    if "value" not in step:
        raise InvalidInput(f"the operation {step['op']!r} needs a value")
    return step["value"]


def _at(value: Any, path: Sequence[str]) -> Any:
    for part in path:
        value = value[_place(value, part)]
    return value


def _place(value: Any, part: str, *, new: bool = False) -> Any:
    """The key or index that ``part`` names in ``value``, where something is or, if ``new``, can be put."""
    if isinstance(value, list):
        size = len(cast("list[Any]", value))
        if new and part == "-":
            return size
        # Leading zeros are no index (RFC 6901, section 4).
        if part.isascii() and part.isdigit() and str(int(part[:10])) == part and int(part) < size + new:
            return int(part)
    elif isinstance(value, dict) and (new or part in value):
        return part
    raise InvalidInput(f"there is no place {part!r}")


def _changed(value: Any, path: Sequence[str], change: Any) -> Any:
    """A copy of ``value`` in which ``change`` was made to what holds the last part of ``path``."""
    if not isinstance(value, dict | list):
        raise InvalidInput(f"there is no place {path[0]!r}")
    copy: Any = cast("Any", value).copy()
    if len(path) == 1:
        change(copy, path[0])
    else:
        place = _place(copy, path[0])
        copy[place] = _changed(copy[place], path[1:], change)
    return copy


def _add(value: Any, path: Sequence[str], new: Any) -> Any:
    def add(holder: Any, part: str) -> None:
        place = _place(holder, part, new=True)
        if isinstance(holder, list):
            cast("list[Any]", holder).insert(place, new)
        else:
            holder[place] = new

    return _changed(value, path, add) if path else new


def _replace(value: Any, path: Sequence[str], new: Any) -> Any:
    def replace(holder: Any, part: str) -> None:
        holder[_place(holder, part)] = new

    return _changed(value, path, replace) if path else new


def _remove(value: Any, path: Sequence[str]) -> Any:
    def remove(holder: Any, part: str) -> None:
        del holder[_place(holder, part)]

    if not path:
        raise InvalidInput("the whole cannot be removed")
    return _changed(value, path, remove)


# --- differences --------------------------------------------------------------------------------------


class Span(NamedTuple):
    """Where two sequences differ: from ``start`` up to ``end`` in the old one, and where that is in the new one."""

    start: int
    end: int
    new_start: int
    new_end: int

    @property
    def common(self) -> int:
        """How many items have one in their place."""
        return min(self.end - self.start, self.new_end - self.new_start)


def spans(old: Sequence[Any], new: Sequence[Any], limit: int = MAX_COMPARED_ITEMS) -> Iterator[Span]:
    """
    Where ``old`` and ``new`` differ, in order. Items are compared with ``==`` and must be hashable.

    What is common at both ends is set aside first. If more than ``limit`` items remain, they are not compared.
    """
    start = 0
    shorter = min(len(old), len(new))
    while start < shorter and old[start] == new[start]:
        start += 1
    behind = 0
    while behind < shorter - start and old[-1 - behind] == new[-1 - behind]:
        behind += 1
    end, new_end = len(old) - behind, len(new) - behind
    if start == end == new_end:
        return
    if start in (end, new_end) or end + new_end - 2 * start > limit:
        yield Span(start, end, start, new_end)
        return
    for tag, *places in SequenceMatcher(None, old[start:end], new[start:new_end]).get_opcodes():
        if tag != "equal":
            yield Span(*(start + place for place in places))


def operations_between(old: Any, new: Any, path: str = "") -> Iterable[dict[str, Any]]:
    """The JSON patch that makes ``new`` of ``old``."""
    if isinstance(old, dict) and isinstance(new, dict):
        yield from _between_objects(cast("dict[str, Any]", old), cast("dict[str, Any]", new), path)
    elif isinstance(old, list) and isinstance(new, list):
        yield from _between_lists(cast("list[Any]", old), cast("list[Any]", new), path)
    elif not is_same(old, new):
        yield {"op": "replace", "path": path, "value": new}


def _between_objects(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterable[dict[str, Any]]:
    for key in old.keys() | new.keys():
        place = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
        if key not in new:
            yield {"op": "remove", "path": place}
        elif key not in old:
            yield {"op": "add", "path": place, "value": new[key]}
        else:
            yield from operations_between(old[key], new[key], place)


def _between_lists(old: Sequence[Any], new: Sequence[Any], path: str) -> Iterable[dict[str, Any]]:
    # From the end, so that what was said of the places before stays true.
    for span in reversed(list(spans(list(map(fingerprint, old)), list(map(fingerprint, new))))):
        for index in range(span.end - 1, span.start + span.common - 1, -1):
            yield {"op": "remove", "path": f"{path}/{index}"}
        for offset in range(span.common, span.new_end - span.new_start):
            yield {"op": "add", "path": f"{path}/{span.start + offset}", "value": new[span.new_start + offset]}
        for offset in range(span.common):
            place = f"{path}/{span.start + offset}"
            yield from operations_between(old[span.start + offset], new[span.new_start + offset], place)
