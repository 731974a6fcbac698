"""``roomkey sessions …``: what an operator does with sessions."""

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from cyclopts import App, Parameter

from roomkey.cli.grants import written
from roomkey.cli.outcome import EXIT_CODES, Exit, Failed, print_json, print_table
from roomkey.cli.target import Target, Where, show_disconnected
from roomkey.domain.session import SessionState
from roomkey.settings import duration

app = App("sessions", help="Create, look at, and end sessions.", help_epilogue=EXIT_CODES, version_flags=())


@app.command
def create(
    user_id: str,
    *,
    lifetime: str | None = None,
    grant: Sequence[str] = (),
    metadata: str | None = None,
    device: str | None = None,
    activate: bool = False,
    where: Where = None,
) -> None:
    """
    Issue a session. The token is shown once.

    Args:
        user_id: Whose session it is.
        lifetime: At most the policy's, as in 8h.
        grant: As in 'notes/**:write', or 'group=team-7'; may be repeated.
        metadata: A JSON object.
        device: How the user would name the device.
        activate: Do not wait for the client to activate it.
    """
    body: dict[str, Any] = {"user_id": user_id}
    if activate:
        body["activate"] = True
    if lifetime is not None:
        body["lifetime"] = _seconds(lifetime)
    if grant:
        body["grants"] = [written(text) for text in grant]
    if metadata is not None:
        body["metadata"] = _json_object(metadata)
    if device is not None:
        body["client"] = {"device": device}
    target = where or Target()
    _show(target, target.request("POST", "/sessions", json=body))


@app.command(name="list")
def list_sessions(
    *,
    user: str | None = None,
    state: SessionState | None = None,
    limit: int = 50,
    cursor: str | None = None,
    where: Where = None,
) -> None:
    """
    Show sessions, a page at a time.

    Args:
        user: Only this user's.
        state: Only those in this state.
        limit: How many at most, 1 to 500.
        cursor: Where the page before this one ended.
    """
    target = where or Target()
    wanted = {"user_id": user, "state": state, "limit": limit, "cursor": cursor}
    page = target.request("GET", "/sessions", params={name: value for name, value in wanted.items() if value})
    columns = ("id", "user_id", "state", "created_at", "expires_at", "last_seen_at")
    rows = [[str(session[column]) for column in columns] for session in page["sessions"]]
    target.show_page(page, columns, rows)


@app.command
def show(id: str, *, where: Where = None) -> None:
    """Show one session."""
    target = where or Target()
    _show(target, target.request("GET", _path(id)))


@app.command
def history(id: str, *, limit: int = 50, cursor: str | None = None, where: Where = None) -> None:
    """
    Show what happened to a session: when, who caused it, and for which reason.

    Args:
        id: Which session; one that was deleted has its history for as long as the event log is kept.
        limit: How many events at most, 1 to 500.
        cursor: Where the page before this one ended.
    """
    target = where or Target()
    wanted = {"limit": limit, "cursor": cursor}
    params = {name: value for name, value in wanted.items() if value}
    page = target.request("GET", f"{_path(id)}/events", params=params)
    columns = ("at", "type", "actor", "reason")
    target.show_page(page, columns, [[str(event[name] or "") for name in columns] for event in page["events"]])


@app.command
def risk(id: str, *, where: Where = None) -> None:
    """Show how a session stands, and what counts against it."""
    target = where or Target()
    answer = target.request("GET", f"{_path(id)}/risk")
    if target.json:
        print_json(answer)
        return
    since = f" since {answer['since']}" if answer["since"] else ""
    because = f" because of {', '.join(answer['causes'])}" if answer["causes"] else ""
    print_table(
        ("", ""),
        [
            ["verdict", f"{answer['verdict']}{because}{since}"],
            ["score", f"{answer['score']:.2f}"],
            ["violations", f"{answer['level']:.1f} count, {answer['violations_recorded']} were recorded"],
        ],
    )
    rows = [
        [each["signal"], f"{each['contribution']:.2f} of {each['weight']:g}", each["value"], each["at"]]
        for each in answer["signals"]
    ]
    rows += [
        [each["cause"], f"{each['left']:g} of {each['weight']:g}", "violation", each["at"]]
        for each in answer["violations"]
    ]
    if rows:
        print_table(("what", "counts", "", "at"), rows)


@app.command
def activate(id: str, *, reason: str | None = None, where: Where = None) -> None:
    """Let a pending session use rooms."""
    _put(id, "activate", where, reason=reason)


@app.command
def suspend(id: str, *, reason: str | None = None, where: Where = None) -> None:
    """Stop a session, its open sockets included, until it is resumed."""
    _put(id, "suspend", where, reason=reason)


@app.command
def resume(id: str, *, reason: str | None = None, where: Where = None) -> None:
    """Let a suspended session go on."""
    _put(id, "resume", where, reason=reason)


@app.command
def expire(id: str, *, reason: str | None = None, where: Where = None) -> None:
    """End a session as if its time were over."""
    _put(id, "expire", where, reason=reason)


@app.command
def invalidate(id: str, *, reason: str | None = None, where: Where = None) -> None:
    """End a session for good, its open sockets included."""
    _put(id, "invalidate", where, reason=reason)


@app.command
def disconnect(id: str, *, reason: str | None = None, where: Where = None) -> None:
    """
    Put a session out of every document and close its sockets; it is as good as before, and may come back.

    Args:
        id: Which session.
        reason: What it is told.
    """
    target = where or Target()
    target.check_server("who is connected")
    show_disconnected(target, f"{_path(id)}/connections", reason)


@app.command
def extend(id: str, lifetime: str | None = None, *, where: Where = None) -> None:
    """
    Give a session more time: LIFETIME from now, or as much as the policy allows.

    Args:
        id: Which session.
        lifetime: As in 2h.
    """
    _put(id, "extend", where, lifetime=None if lifetime is None else _seconds(lifetime))


@app.command
def grants(id: str, *, grant: Annotated[list[str], Parameter(negative="--no-grants")], where: Where = None) -> None:
    """
    Replace what a session may do; its open sockets obey at once.

    Args:
        id: Which session.
        grant: As in 'notes/**:read', or 'group=team-7'; may be repeated. The first that matches a document wins.
            --no-grants: nothing.
    """
    _put(id, "grants", where, grants=[written(text) for text in grant])


@app.command
def rotate(id: str, *, where: Where = None) -> None:
    """Give a session a new token, which is shown once; the old one ends."""
    _put(id, "rotate", where)


@app.command
def delete(id: str, *, where: Where = None) -> None:
    """Remove a session and its record."""
    target = where or Target()
    target.request("DELETE", _path(id))
    target.show({"deleted": id})


@app.command
def revoke_user(user_id: str, *, reason: str | None = None, where: Where = None) -> None:
    """
    Log a user out everywhere: end all their sessions, listed anywhere or not.

    Args:
        user_id: Whose sessions.
        reason: Why; kept in the history, and told to whoever is connected.
    """
    target = where or Target()
    params = {} if reason is None else {"reason": reason}
    target.show(target.request("DELETE", f"/users/{quote(user_id, safe='')}/sessions", params=params))


def _put(id: str, command: str, where: Target | None, **details: Any) -> None:
    target = where or Target()
    body = {name: value for name, value in details.items() if value is not None}
    _show(target, target.request("PUT", f"{_path(id)}/{command}", **({"json": body} if body else {})))


def _show(target: Target, answer: dict[str, Any]) -> None:
    """Print an answer that is, or has, one session."""
    if target.json:
        print_json(answer)
        return
    session: dict[str, Any] = answer.get("session", answer)
    rows = [[name, _in_words(value)] for name, value in session.items() if value not in (None, {}, [])]
    if token := answer.get("token"):
        rows.append(["token", f"{token}  (shown once)"])
    print_table(("field", "value"), rows)


def _path(id: str) -> str:
    return f"/sessions/{quote(id, safe='')}"


def _seconds(text: str) -> int:
    try:
        return int(duration(text).total_seconds())
    except ValueError as error:
        raise Failed(f"--lifetime: {error}", Exit.USAGE) from None


def _json_object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Failed(f"--metadata: not a JSON object: {error}", Exit.USAGE) from None


def _in_words(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
