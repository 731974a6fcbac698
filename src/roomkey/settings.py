"""
Turns text from a file, the environment or the command line into typed settings.

Reading does not stop at the first mistake: every problem is added to a list that the caller passes in.
"""

import json
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypeGuard, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from roomkey import setting_rules

_DURATION_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SIZE_UNITS: Final = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_NOTHING: Final = frozenset({"none", "off", "never", ""})
"""Texts that switch an optional setting off."""

S = TypeVar("S", bound=Struct)


class SourcedValue(Struct, frozen=True):
    """A value and where it was set: ``source`` is a flag, a variable, or the name of a file."""

    value: Any
    source: str
    as_text: bool = False
    """Whether the source has only text, so that ``3000`` may be a number and ``a,b`` a list."""


def duration(value: Any) -> timedelta:
    """
    A duration: seconds as a number, or a number with one of ``ms s m h d w``, as in ``10m`` or ``1.5h``.

    Raises:
        ValueError: If it is neither, or negative.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _seconds(float(value), value)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(value).strip())
    if match is None or (match[2] or "s") not in _DURATION_UNITS:
        raise ValueError(f"{value!r} is not a duration such as 30s, 10m, 24h or 90d")
    return _seconds(float(match[1]) * _DURATION_UNITS[match[2] or "s"], value)


def size(value: Any) -> int:
    """
    A number of bytes: plain, or with one of ``KB MB GB KiB MiB GiB``.

    Raises:
        ValueError: If it is neither, or negative.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", str(value).strip())
    if match is None or match[2] not in _SIZE_UNITS:
        raise ValueError(f"{value!r} is not a size such as 4096, 64KiB or 1MiB")
    return int(match[1]) * _SIZE_UNITS[match[2]]


def in_words(value: Any) -> str:
    """The value of a setting as text that could be read again."""
    match value:
        case None:
            return "off"
        case bool():
            return str(value).lower()
        case timedelta():
            return _duration_in_words(value)
        case Struct():
            return ":".join(in_words(getattr(value, field)) for field in value.__struct_fields__)
        case list() | tuple() | frozenset() | dict():
            return ", ".join(in_words(item) for item in cast("Iterable[Any]", value))
        case _:
            return str(value)


def read(start: S, section: str, given: Mapping[str, SourcedValue], problems: list[str]) -> S:
    """
    ``start`` with the fields replaced that ``given`` names; their problems are added to ``problems``.

    Durations, sizes (fields whose names end in ``_bytes``), paths, lists and records are read from their usual
    notations.
    """
    hints = get_type_hints(type(start))
    changes: dict[str, Any] = {}
    for name, entry in given.items():
        where = f"{section}.{name}"
        if name not in hints:
            problems.append(f"{where}: there is no such setting{nearest(name, list(hints))} ({entry.source})")
            continue
        try:
            value = _field(name, hints[name], entry.value, as_text=entry.as_text)
            setting_rules.check(where, value)
            changes[name] = value
        except (ValueError, msgspec.ValidationError) as error:
            problems.append(f"{where}: {error} ({entry.source})")
    try:
        return replace(start, **changes)
    except (ValueError, msgspec.ValidationError) as error:
        problems.append(f"{section}: {error}")
        return start


def nearest(name: str, known: Sequence[str]) -> str:
    """``, did you mean X?`` if a known name is spelt much like ``name``, else an empty text."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f", did you mean {close[0]}?" if close else ""


def _seconds(seconds: float, written: Any) -> timedelta:
    if not 0 <= seconds <= timedelta.max.total_seconds():
        raise ValueError(f"{written!r} is not a duration: it must not be negative, and end before time does")
    return timedelta(seconds=seconds)


def _duration_in_words(value: timedelta) -> str:
    seconds = value.total_seconds()
    for unit in ("d", "h", "m", "s"):
        amount = seconds / _DURATION_UNITS[unit]
        if amount >= 1 and amount == int(amount):
            return f"{int(amount)}{unit}"
    return f"{seconds:g}s"


def _field(name: str, kind: Any, value: Any, *, as_text: bool) -> Any:
    if name.endswith("_bytes") and int in (kind, *get_args(kind)) and value is not None:
        return None if kind is not int and _is_nothing(value) else size(value)
    return _convert(kind, value, as_text=as_text)


def _convert(kind: Any, value: Any, *, as_text: bool) -> Any:
    if kind is timedelta:
        return duration(value)
    if kind is Path:
        return _path(msgspec.convert(value, str))
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _convert_optional(arguments, value, as_text=as_text)
    if isinstance(origin, type):
        return _convert_collection(origin, arguments, value, as_text=as_text)
    if _is_record(kind):
        return _convert_record(kind, value)
    return msgspec.convert(value, kind, strict=not as_text)


def _path(text: str) -> Path:
    if not text.strip():
        raise ValueError("a path cannot be empty")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"there is no home directory for {text!r}; write the whole path") from None


def _is_record(kind: Any) -> TypeGuard[type[Struct]]:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _convert_collection(kind: type, arguments: Sequence[Any], value: Any, *, as_text: bool) -> Any:
    if issubclass(kind, Mapping):
        entries: dict[str, Any] = msgspec.convert(_structure(value), dict[str, Any])
        return {key: _convert(arguments[1], entry, as_text=False) for key, entry in entries.items()}
    items = [_convert(arguments[0], item, as_text=as_text) for item in _items(value)]
    return frozenset(items) if kind is frozenset else list(items) if kind is list else tuple(items)


def _convert_optional(kinds: Sequence[Any], value: Any, *, as_text: bool) -> Any:
    some = [kind for kind in kinds if kind is not types.NoneType]
    if len(some) < len(kinds) and _is_nothing(value):
        return None
    if len(some) == 1:
        return _convert(some[0], value, as_text=as_text)
    alternatives = cast("Any", Union)[tuple(some)]
    return msgspec.convert(value, alternatives, strict=not as_text)


def _convert_record(kind: type[Struct], value: Any) -> Struct:
    hints = get_type_hints(kind)
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        # name:role:digest, in the order of the fields
        value = dict(zip(hints, value.split(":", len(hints) - 1), strict=False))
    entries: dict[str, Any] = msgspec.convert(_structure(value), dict[str, Any])
    for name in entries:
        if name not in hints:
            raise ValueError(f"there is no {name!r} in it{nearest(name, list(hints))}")
    return msgspec.convert(
        {name: _field(name, hints[name], entry, as_text=False) for name, entry in entries.items()}, kind
    )


def _structure(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("expected a table; as text it is written in JSON") from None


def _items(value: Any) -> list[Any]:
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            return list(_structure(value))
        return [item.strip() for item in value.split(",") if item.strip()]
    return msgspec.convert(value, list[Any])


def _is_nothing(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, str) and value.strip().lower() in _NOTHING)
