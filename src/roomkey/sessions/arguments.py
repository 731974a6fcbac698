"""
Arguments of commands: each is of the kind that its name says, or refused in a sentence that names it.

A wrong one is found here, before anything is done, and not where somebody asks it for an attribute.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import wraps
from inspect import signature
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

from roomkey.domain.session import Client, Session, SessionFilter, SessionState
from roomkey.errors import InvalidInput
from roomkey.ports import Page

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")


def checked(command: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """
    Check the arguments of ``command`` by their names, as ``CHECKS`` has them.

    Raises:
        InvalidInput: When it is called with one that cannot be meant.
    """
    names = tuple(signature(command).parameters)[1:]

    @wraps(command)
    def check(self: S, *args: P.args, **details: P.kwargs) -> T:
        for name, value in (*zip(names, args, strict=False), *details.items()):
            if name in CHECKS:
                CHECKS[name](name, value)
        return command(self, *args, **details)

    return check


def check_text(name: str, value: object) -> None:
    """Raise ``InvalidInput`` unless ``value`` is text."""
    if not isinstance(value, str):
        raise _wrong(name, "text", value)


def check_client(name: str, value: object) -> None:
    """Raise ``InvalidInput`` unless ``value`` is a client that can be shown and stored, or ``None``."""
    if value is None:
        return
    if not isinstance(value, Client):
        raise _wrong(name, "a roomkey.Client or None", value)
    for field in value.__struct_fields__:
        told = getattr(value, field)
        if told is not None and not isinstance(told, str):
            raise _wrong(f"{name}.{field}", "text or None", told)


def check_lifetime(name: str, value: object) -> None:
    """Raise ``InvalidInput`` unless ``value`` is a duration, or ``None``."""
    if value is not None and not isinstance(value, timedelta):
        raise _wrong(name, "a datetime.timedelta or None", value)


def check_metadata(name: str, value: object) -> None:
    """Raise ``InvalidInput`` unless ``value`` is a mapping, or ``None``."""
    if value is not None and not isinstance(value, Mapping):
        raise _wrong(name, "a mapping or None", value)


def _check_optional_text(name: str, value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise _wrong(name, "text or None", value)


def _check_version(name: str, value: object) -> None:
    if value is not None and not _is_whole(value):
        raise _wrong(name, "a whole number or None", value)


def check_flag(name: str, value: object) -> None:
    """Raise ``InvalidInput`` unless ``value`` is a truth value."""
    if not isinstance(value, bool):
        raise _wrong(name, "True or False", value)


def check_session(name: str, value: object) -> None:
    """Raise ``InvalidInput`` unless ``value`` is a session."""
    if not isinstance(value, Session):
        raise _wrong(name, "a roomkey.Session", value)


def check_held(name: str, value: object) -> None:
    """Raise ``InvalidInput`` unless ``value`` is a list of confirmations."""
    if value == ():
        return  # nearly always, and whether something is a list takes as long as a whole check otherwise
    for index, held in enumerate(_sequence(name, "confirmations", value)):
        check_text(f"{name}[{index}]", held)


def _check_ids(name: str, value: object) -> None:
    for index, id in enumerate(_sequence(name, "session ids", value)):
        check_text(f"{name}[{index}]", id)


def _check_requests(name: str, value: object) -> None:
    from roomkey.sessions.issuing import SessionRequest  # noqa: PLC0415  # which checks its own fields by this module

    for index, request in enumerate(_sequence(name, "SessionRequests", value)):
        if not isinstance(request, SessionRequest):
            raise _wrong(f"{name}[{index}]", "a SessionRequest", request)


def _check_filter(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, SessionFilter):
        raise _wrong(name, "a roomkey.SessionFilter or None", value)
    _check_optional_text(f"{name}.user_id", value.user_id)
    if not isinstance(cast("object", value.state), SessionState | None):
        raise _wrong(f"{name}.state", "a roomkey.SessionState or None", value.state)
    for field in ("created_before", "created_after"):
        moment: object = getattr(value, field)
        if moment is not None and (not isinstance(moment, datetime) or moment.utcoffset() is None):
            raise _wrong(f"{name}.{field}", "a datetime with a time zone or None", moment)


def _check_page(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, Page):
        raise _wrong(name, "a roomkey.Page or None", value)
    _check_optional_text(f"{name}.cursor", value.cursor)
    if not _is_whole(value.limit):
        raise _wrong(f"{name}.limit", "a whole number", value.limit)


def _check_listener(name: str, value: object) -> None:
    if not callable(value):
        raise _wrong(name, "a function", value)


def _sequence(name: str, of: str, value: object) -> Iterable[object]:
    # A text is a sequence of texts, and never what is meant.
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise _wrong(name, f"a list of {of}", value)
    return cast("Sequence[object]", value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _wrong(name: str, expected: str, value: object) -> InvalidInput:
    return InvalidInput(f"{name} must be {expected}, not {'None' if value is None else type(value).__name__}")


CHECKS: Final[Mapping[str, Callable[[str, Any], None]]] = {
    "id": check_text,
    "ids": _check_ids,
    "user_id": check_text,
    "except_session": _check_optional_text,
    "presented": _check_optional_text,
    "bound_to": _check_optional_text,
    "reauthenticated": check_flag,
    "requests": _check_requests,
    "activate": check_flag,
    "client": check_client,
    "lifetime": check_lifetime,
    "cause": check_text,
    "reason": _check_optional_text,
    "actor": check_text,
    "if_version": _check_version,
    "filter": _check_filter,
    "page": _check_page,
    "listener": _check_listener,
}
"""What a parameter of this name must be. Grants and metadata are checked where they are made of what was given."""
