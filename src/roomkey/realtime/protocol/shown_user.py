"""
Who awareness says that somebody is: by convention, editors put a ``user`` with a name and a color into their state.

``id`` and, where the session has one, ``name`` of that user are the session's, whatever a client writes there. From
a name that the client gives what is invisible or turns text around is taken away.
"""

import json
from typing import Any, Final

import msgspec
from msgspec import Raw

from roomkey.domain.names import without_tricks
from roomkey.domain.session import Session
from roomkey.realtime.settings import AwarenessIdentity

FOREIGN_USER: Final = "foreign_user"
"""Why a state is refused that says that its client is somebody else."""

_Fields = dict[str, Raw]

_decode: Final = msgspec.json.Decoder(_Fields).decode
_encode: Final = msgspec.json.Encoder().encode


class ShownUser:
    """The user that the states of one connection show."""

    __slots__ = ("_is_checked", "_is_trusted", "_wanted")

    def __init__(self, session: Session, mode: AwarenessIdentity) -> None:
        self._is_trusted = mode is AwarenessIdentity.OFF
        self._is_checked = mode is AwarenessIdentity.CHECK
        self._wanted = {"id": session.user_id}
        name = (session.metadata or {}).get("name")
        if isinstance(name, str) and name:
            self._wanted["name"] = name

    def concerns(self, state: bytes) -> bool:
        """Whether ``state`` may show a user. Most do not change it: this costs next to nothing."""
        # JSON may write the word with escapes.
        return not self._is_trusted and (b'"user"' in state or b"\\" in state)

    def identify(self, state: bytes) -> bytes | None:
        """
        The state with the session's user in it: the same bytes if it is there, or none is shown.

        ``None`` if it is to be refused, because it shows somebody else.
        """
        try:
            fields = _fields(state)
            user = None if fields is None or "user" not in fields else _fields(bytes(fields["user"]))
            if fields is None or user is None:
                return state
            wrong = {key: value for key, value in self._wanted.items() if _value(user.get(key)) != value}
            name = None if "name" in self._wanted else _value(user.get("name"))
            if isinstance(name, str) and (shown := without_tricks(name)) != name:
                # The client is not told: it could not help it, and its user would be seen by nobody.
                user["name"] = Raw(_encode(shown))
                fields["user"] = Raw(_encoded(user))
                state = _encoded(fields)
        except ValueError:
            return None  # nobody could say what others make of it
        if not wrong:
            return state
        if self._is_checked:
            return state if wrong.keys().isdisjoint(user) else None
        user |= {key: Raw(_encode(value)) for key, value in wrong.items()}
        return _encoded(fields | {"user": Raw(_encoded(user))})


def _fields(state: bytes) -> _Fields | None:
    """The fields of an object, each as it was written; ``None`` if it is something else."""
    if not state.lstrip().startswith(b"{"):
        return None
    try:
        return _decode(state)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Half a surrogate pair, which JavaScript writes and msgspec does not read.
        found: dict[str, Any] = json.loads(state)
        return {key: Raw(json.dumps(value, allow_nan=False).encode()) for key, value in found.items()}


def _value(field: Raw | None) -> Any:
    return None if field is None else json.loads(bytes(field))


def _encoded(fields: _Fields) -> bytes:
    return b"{" + b",".join(json.dumps(key).encode() + b":" + bytes(value) for key, value in fields.items()) + b"}"
