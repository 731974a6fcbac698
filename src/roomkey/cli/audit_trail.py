"""``roomkey audit tail | search | export``: what the log says, for people and for programs."""

import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from cyclopts import Parameter

from roomkey.cli.outcome import Exit, Failed, print_table
from roomkey.cli.target import Target, Where
from roomkey.settings import duration

COLUMNS: Final = ("index", "at", "type", "outcome", "actor", "user", "session", "object", "reason", "from", "count")

PAGE: Final = 500
FOLLOW_SECONDS: Final = 1.0
"""How often it is looked for new entries."""

Type = Annotated[str | None, Parameter(help="Only this type, such as session.created, or its first word.")]
User = Annotated[str | None, Parameter(help="Only what this user did, or what was done to this user.")]
Session = Annotated[str | None, Parameter(help="Only what is about this session.")]
Actor = Annotated[str | None, Parameter(help="Only what was done by key:NAME, user:ID, system, or anonymous.")]
Moment = Annotated[str | None, Parameter(help="As in 2026-11-27T14:03Z, or 2h: so long ago.")]


def tail(
    *,
    lines: Annotated[int, Parameter(name=["--lines", "-n"], help="How many entries, at most 500.")] = 10,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], help="Go on with what is recorded later.")] = False,
    type: Type = None,
    user: User = None,
    where: Where = None,
) -> None:
    """Show the latest entries, the newest last."""
    target = where or Target()
    wanted = _conditions(type=type, user_id=user)
    newest = target.request("GET", "/audit", params={**wanted, "limit": lines})["entries"]
    _show(target, newest[::-1])
    if not follow:
        return
    latest = target.request("GET", "/audit", params={"limit": 1})["entries"]
    cursor = latest[0]["index"] + 1 if latest else 0
    while True:
        page = target.request("GET", "/audit", params={**wanted, "order": "oldest", "cursor": cursor, "limit": PAGE})
        cursor = page["next_cursor"]
        _show(target, page["entries"], heading=False)
        sys.stdout.flush()
        time.sleep(FOLLOW_SECONDS)


def search(  # each is a condition
    *,
    type: Type = None,
    user: User = None,
    session: Session = None,
    actor: Actor = None,
    since: Moment = None,
    until: Moment = None,
    limit: Annotated[int, Parameter(help="How many entries at most.")] = 50,
    where: Where = None,
) -> None:
    """Find entries, the newest first. Every condition that is given must hold."""
    target = where or Target()
    wanted = _conditions(
        type=type, user_id=user, session=session, actor=actor, since=_moment(since), until=_moment(until)
    )
    found: list[Mapping[str, Any]] = []
    cursor: str | None = None
    while len(found) < limit:
        asked = {**wanted, "limit": min(PAGE, limit - len(found)), **({} if cursor is None else {"cursor": cursor})}
        page = target.request("GET", "/audit", params=asked)
        found += page["entries"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    _show(target, found)


def export(
    *,
    format: Annotated[
        Literal["jsonl", "cef"],
        Parameter(help="One entry a line: JSON, or the Common Event Format, which every SIEM takes."),
    ] = "jsonl",
    first: Annotated[int, Parameter(name="--from", help="Index of the first entry.")] = 0,
    since: Moment = None,
    until: Moment = None,
    where: Where = None,
) -> None:
    """Print all entries that there are now, the oldest first, for other programs to keep."""
    target = where or Target()
    for entry in _entries(target, first, _conditions(since=_moment(since), until=_moment(until))):
        line = msgspec.json.encode(entry).decode() if format == "jsonl" else cef(entry)
        print(line)  # noqa: T201  # the answer


def _entries(target: Target, first: int, wanted: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    """The entries up to the one that is the last now: looking at them is recorded, too, and would never end."""
    latest = target.request("GET", "/audit", params={"limit": 1})["entries"]
    end = latest[0]["index"] if latest else -1
    cursor = first
    while cursor <= end:
        asked = {**wanted, "order": "oldest", "cursor": cursor, "limit": PAGE}
        page = target.request("GET", "/audit", params=asked)
        yield from (entry for entry in page["entries"] if entry["index"] <= end)
        if int(page["next_cursor"]) == cursor:
            return
        cursor = int(page["next_cursor"])


def _conditions(**given: str | None) -> dict[str, str]:
    return {name: value for name, value in given.items() if value is not None}


def _moment(text: str | None) -> str | None:
    """A moment as REST takes it."""
    if text is None:
        return None
    try:
        moment = datetime.now(UTC) - duration(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise Failed(f"{text!r} is neither a moment, as 2026-11-27T14:03Z, nor a time, as 2h", Exit.USAGE) from None
    return moment.astimezone(UTC).isoformat()


# --- for people ---------------------------------------------------------------------------------------


def _show(target: Target, entries: list[Mapping[str, Any]], *, heading: bool = True) -> None:
    if target.json:
        for entry in entries:
            print(msgspec.json.encode(entry).decode())  # noqa: T201  # the answer
    elif heading or entries:
        print_table(COLUMNS, [_row(entry) for entry in entries], numeric=("index", "count"))


def _row(entry: Mapping[str, Any]) -> list[str]:
    erased = entry["personal"] if entry["personal"] in ("erased", "hidden", "unreadable") else ""
    values = (
        entry["index"],
        entry["at"],
        entry["type"],
        entry["outcome"],
        entry["actor"],
        entry.get("user_id", erased),
        entry.get("session"),
        entry.get("object"),
        entry.get("reason"),
        entry.get("address"),
        entry.get("count", 1),
    )
    return ["" if value is None else str(value) for value in values]


# --- for programs -------------------------------------------------------------------------------------

_EXTENSIONS: Final[Mapping[str, str]] = {
    "suser": "actor",
    "duser": "user_id",
    "src": "address",
    "requestClientApplication": "agent",
    "outcome": "outcome",
    "reason": "reason",
    "fname": "object",
    "dvchost": "node",
    "cnt": "count",
    "externalId": "index",
    "requestContext": "request",
    "cs1": "session",
    "cs2": "personal",
    "msg": "details",
}
"""Keys of the Common Event Format, and what they say here."""

_LABELS: Final = "cs1Label=session cs2Label=personal"

LOW, HIGH = 3, 7
"""Severities from 0 to 10: of what was done, and of what was refused."""


def cef(entry: Mapping[str, Any]) -> str:
    """An entry in the Common Event Format (ArcSight, version 0)."""
    severity = LOW if entry["outcome"] == "done" else HIGH
    kind = entry["type"].replace("\\", "\\\\").replace("|", "\\|")
    at = int(datetime.fromisoformat(entry["at"]).timestamp() * 1000)
    extensions = [f"rt={at}"]
    for key, name in _EXTENSIONS.items():
        if (value := entry.get(name)) is not None:
            extensions.append(f"{key}={_escaped(value)}")
    return f"CEF:0|Roomkey|roomkey|1|{kind}|{kind}|{severity}|{' '.join(extensions)} {_LABELS}"


def _escaped(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    for character, escape in (("\\", "\\\\"), ("=", "\\="), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(character, escape)
    return text
