"""
What one entry of the audit log says, and the bytes that it is recorded as.

An entry is a version byte, 16 random bytes, and JSON: whoever has the log reads it with nothing else. The random bytes
keep its hash, which may be public, from telling what it says. What is personal stands in it sealed under the key of
the person, so that destroying a key erases a person and leaves every hash and every proof as it was.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct, to_builtins

from roomkey.domain.session import Client
from roomkey.errors import Serialization
from roomkey.observability.logs import without_secrets

VERSION: Final = b"\x01"
SALT_BYTES: Final = 16

MAX_ENTRY_BYTES: Final = 65_535
"""What C2SP tlog-tiles allows."""

MAX_TEXT_BYTES: Final = 1_024
"""Bytes of a text in a record, as JSON has it without the quotes; the rest is cut off."""

MAX_DETAILS_BYTES: Final = 16 * 1024
"""Details with more are left out, and their size is said instead."""

USER: Final = "user:"
"""How events name users who act; see ``authorization.actor_of``."""


class Outcome(StrEnum):
    """How it ended. ``unknown``: storage broke off before it answered."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


TYPES: Final[Mapping[str, str]] = {
    "session": "Facts of the event log: created, activated, suspended, resumed, extended, grants changed, token "
    "rotated, expired, invalidated, evicted, deleted, user revoked, violation recorded.",
    "command": "What holders of API keys did over REST, and from where.",
    "view": "What operators looked at that belongs to others: sessions, documents, this log.",
    "document": "Documents that were deleted, restored, exported or imported, and versions that were kept.",
    "security": "Security events: refusals, thefts, limits, changes of keys and rights.",
    "node": "Servers that started, with settings that differ from the defaults, and servers that stopped.",
    "privacy": "What was exported or erased of a person.",
    "audit": "What the log says of itself: events that were lost before they could be recorded.",
}
"""The first word of each type of record, and what such records say."""


class AuditRecord(Struct, frozen=True, kw_only=True, gc=False):
    """
    Who did what, to whom, when, from where, and how it ended.

    ``type`` is a word of ``TYPES``, a dot, and what happened. ``actor`` is named as in events of sessions (``system``,
    ``anonymous``, ``key:…``, ``user:…``), ``address`` and ``agent`` are where it acted from. ``user`` is who it is
    about, ``client`` that user's device. ``object`` is what else it is about, such as the name of a document. ``event``
    is the place in the event log, partition and sequence, of a record that was taken from there: the same place twice
    is the same fact. Of what happened several times, ``count`` says how often, and ``until`` when last.
    """

    type: str
    at: datetime
    actor: str = "system"
    outcome: Outcome = Outcome.DONE
    user: str | None = None
    session: str | None = None
    client: Client | None = None
    address: str | None = None
    agent: str | None = None
    object: str | None = None
    cause: str | None = None
    request: str | None = None
    node: str | None = None
    event: tuple[int, int] | None = None
    count: int = 1
    until: datetime | None = None
    details: Mapping[str, Any] | None = None


class Sealed(NamedTuple):
    """What is personal in an entry: the name of a person's key, and JSON under that key."""

    key: str
    value: bytes


class Line(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What can be read of an entry without a key.

    Of users it says that one acted, and nothing else: who, from where, and every text that has something of them in
    it are ``sealed``.
    """

    type: str
    at: datetime
    actor: str = "system"
    outcome: Outcome = Outcome.DONE
    session: str | None = None
    object: str | None = None
    cause: str | None = None
    request: str | None = None
    node: str | None = None
    event: tuple[int, int] | None = None
    count: int = 1
    until: datetime | None = None
    details: Mapping[str, Any] | None = None
    sealed: tuple[Sealed, ...] = ()


UNREADABLE: Final = Line(type="unreadable", at=datetime.min.replace(tzinfo=UTC), actor="unknown")
"""What is said of an entry that is none of ours."""

Personal = dict[str, Any]
"""What is sealed for one person: fields of ``AuditRecord`` by their names."""


class Division(NamedTuple):
    """A record in two: what everybody may read, and by person what only keys open."""

    line: Line
    personal: Mapping[str, Personal]


def holder_of(actor: str, at: datetime) -> str:
    """
    Under whose key it is sealed where ``actor`` acted from: a user, an API key, or nobody known in that month.

    Other names than those of users begin with a zero byte, which no user's id contains.
    """
    if actor.startswith(USER):
        return actor.removeprefix(USER)
    return f"\0{actor}" if actor.startswith("key:") else f"\0nobody {at:%Y-%m}"


def divide(record: AuditRecord) -> Division:
    """What of ``record`` is readable, and what is sealed for whom."""
    acts = record.actor.startswith(USER)
    holder = holder_of(record.actor, record.at)
    person = holder if record.user is None else without_secrets(record.user)
    texts = {"object": _cut(record.object), "cause": _cut(record.cause), "details": _bounded(record.details)}
    ids = [each for each in (record.user, holder if acts else None) if each]
    hidden = {name for name, value in texts.items() if value is not None and _is_personal(name, value, ids)}
    where = {"actor": record.actor if acts else None, "address": record.address, "agent": record.agent}
    user = None if record.user is None else person
    whom = {"user": user, "client": record.client, **{name: texts[name] for name in hidden}}
    personal: dict[str, Personal] = {}
    for whose, fields in ((holder, where), (person, whom)):
        if given := {name: _shortened(value) for name, value in fields.items() if value is not None}:
            personal.setdefault(whose, {}).update(given)
    readable: dict[str, Any] = {name: value for name, value in texts.items() if name not in hidden}
    line = Line(
        type=record.type,
        at=record.at,
        actor="user" if acts else record.actor,
        outcome=record.outcome,
        session=_cut(record.session),
        request=_cut(record.request),
        node=record.node,
        event=record.event,
        count=record.count,
        until=record.until,
        **readable,
    )
    return Division(line, personal)


def encode_personal(personal: Personal) -> bytes:
    """What is sealed, as it is before."""
    return _encode(personal)


def decode_personal(opened: bytes) -> Personal:
    """What ``encode_personal`` was given."""
    return msgspec.json.decode(opened, type=dict[str, Any])


def encode(line: Line, salt: bytes) -> bytes:
    """The entry: at most ``MAX_ENTRY_BYTES``, because every part of ``line`` is bounded."""
    return VERSION + salt + _encode(line)


def decode(entry: bytes) -> Line:
    """
    What an entry says.

    Raises:
        Serialization: If it is none of ours.
    """
    if entry[:1] != VERSION:
        raise Serialization("an entry of the audit log has a version that is not known here")
    try:
        return _decoder.decode(entry[1 + SALT_BYTES :])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Serialization("an entry of the audit log cannot be read") from None


def salt_of(entry: bytes) -> bytes:
    """The random bytes of an entry, to which what is sealed in it is bound."""
    return entry[1 : 1 + SALT_BYTES]


_SURELY_SHORT: Final = MAX_TEXT_BYTES // len(r"\u0000")

_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_decoder: Final = msgspec.json.Decoder(Line)


def _is_personal(name: str, value: Any, ids: Sequence[str]) -> bool:
    """Whether a text is a person's: what somebody typed, and whatever a user's id stands in."""
    text = value if isinstance(value, str) else _encode(value).decode()
    return (name == "cause" and not _is_code(text)) or any(id in text for id in ids)


def _is_code(cause: str) -> bool:
    """Whether a cause is a code of a program, and not what somebody typed."""
    return len(cause) <= 64 and cause.isascii() and cause.replace("_", "").replace(":", "").isalnum()


def _cut(text: str | None) -> str | None:
    if text is None:
        return None
    text = without_secrets(text)  # somebody may have put one into the wrong field
    if len(text) <= _SURELY_SHORT:
        return text
    kept = text[:MAX_TEXT_BYTES]
    while len(_encode(kept)) - len('""') > MAX_TEXT_BYTES:
        kept = kept[: len(kept) * 7 // 8]
    return text if len(kept) == len(text) else kept[:-1] + "…"


def _shortened(value: Any) -> Any:
    if isinstance(value, Client):
        return {name: _cut(text) for name, text in to_builtins(value).items() if text}
    return _cut(value) if isinstance(value, str) else value


def _bounded(details: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if not details:
        return None
    encoded = _encode(details).decode()
    if len(encoded) > MAX_DETAILS_BYTES:
        return {"left_out_bytes": len(encoded)}
    shown = without_secrets(encoded)
    return details if shown == encoded else msgspec.json.decode(shown, type=dict[str, Any])
