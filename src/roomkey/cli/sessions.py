"""
``roomkey sessions …``: what an operator does with sessions.

Every command speaks REST: with ``--url`` to a running server, with ``--storage`` to the same application in this
process, on top of the storage itself.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import msgspec
from cyclopts import App, Parameter
from msgspec.structs import replace

from roomkey import config
from roomkey.cli.outcome import EXIT_CODES, Advance, Exit, Failed, print_json, print_table, unseen
from roomkey.domain.access import Role
from roomkey.domain.session import SessionState
from roomkey.node import Node
from roomkey.observability.logs import LogLevel, LogSettings, configure_events
from roomkey.security import apikeys
from roomkey.settings import SourcedValue, duration

DEFAULT_URL = "http://127.0.0.1:3000"
TIMEOUT_SECONDS = 10.0

_EXIT_OF = {401: Exit.DENIED, 403: Exit.DENIED, 503: Exit.AWAY}

app = App("sessions", help="Create, look at, and end sessions.", help_epilogue=EXIT_CODES)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the sessions are, and how the answer looks."""

    url: Annotated[str | None, Parameter(help=f"A running server; ROOMKEY_URL, or else {DEFAULT_URL}.")] = None
    key: Annotated[str | None, Parameter(help="The API key; better in ROOMKEY_KEY, where nobody sees it.")] = None
    storage: Annotated[str | None, Parameter(help="No server: this storage, as in lmdb:///var/lib/roomkey.")] = None
    config: Annotated[Path | None, Parameter(help="With --storage: the roomkey.toml that holds for it.")] = None
    json: Annotated[bool, Parameter(help="Print JSON.")] = False

    def request(self, method: str, path: str, **request: Any) -> Any:
        """The decoded answer to one request. Raises ``Failed`` with what the server said, if that was no."""
        content = self.fetch(method, path, **request)
        return msgspec.json.decode(content) if content else None

    def fetch(self, method: str, path: str, *, advance: Advance = unseen, **request: Any) -> bytes:
        """
        The body of the answer to one request. Raises as ``request``.

        ``advance`` is told how many bytes of it have arrived, and of how many if that is known.
        """
        return asyncio.run(self._fetch(method, path, advance, **request))

    def show(self, answer: Any) -> None:
        """Print an answer that is, or has, one session."""
        if self.json:
            print_json(answer)
            return
        session: dict[str, Any] = answer.get("session", answer)
        rows = [[name, _in_words(value)] for name, value in session.items() if value not in (None, {}, [])]
        if token := answer.get("token"):
            rows.append(["token", f"{token}  (shown once)"])
        print_table(("field", "value"), rows)

    async def _fetch(self, method: str, path: str, advance: Advance, **request: Any) -> bytes:
        content = bytearray()
        async with self._connected() as client:
            try:
                async with client.stream(method, path, **request) as response:
                    size = response.headers.get("content-length")
                    async for part in response.aiter_bytes():
                        content += part
                        advance(len(content), None if size is None else int(size))
            except httpx.TransportError as error:
                reason = str(error) or type(error).__name__
                raise Failed(f"no answer from {client.base_url}: {reason}", Exit.AWAY) from error
        if response.is_error:
            raise Failed(_problem(response.status_code, content), _EXIT_OF.get(response.status_code, Exit.FAILED))
        return bytes(content)

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[httpx.AsyncClient]:
        if self.storage is not None:
            async with self._in_process(self.storage) as client:
                yield client
            return
        url = self.url or os.environ.get("ROOMKEY_URL") or DEFAULT_URL
        key = self.key or os.environ.get("ROOMKEY_KEY")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS) as client:
            yield client

    @asynccontextmanager
    async def _in_process(self, storage: str) -> AsyncGenerator[httpx.AsyncClient]:
        chosen = config.load(self.config, {"storage.url": SourcedValue(storage, "--storage")})
        # What was done is said by the command itself; logs are for what goes wrong.
        configure_events(LogSettings(level=LogLevel.WARNING))
        token, digest = apikeys.mint()
        # A key of this process alone; its name is what the event log will say.
        key = apikeys.ApiKey("command-line", Role.ADMIN, digest)
        node = Node(replace(chosen, security=replace(chosen.security, api_keys=(key,))))
        headers = {"authorization": f"Bearer {token}"}
        async with (
            node.storage,
            node.documents.store,
            node.documents.at_work(),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(node.app), base_url="http://storage", headers=headers
            ) as client,
        ):
            yield client


Where = Annotated[Target | None, Parameter(name="*")]


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
        grant: As in 'notes/**:write'; may be repeated.
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
        body["grants"] = [_grant(text) for text in grant]
    if metadata is not None:
        body["metadata"] = _json_object(metadata)
    if device is not None:
        body["client"] = {"device": device}
    target = where or Target()
    target.show(target.request("POST", "/sessions", json=body))


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
    if target.json:
        print_json(page)
        return
    columns = ("id", "user_id", "state", "created_at", "expires_at", "last_seen_at")
    print_table(columns, [[str(session[column]) for column in columns] for session in page["sessions"]])
    if page["next_cursor"]:
        print(f"\nMore with --cursor {page['next_cursor']}")  # noqa: T201  # part of the answer


@app.command
def show(id: str, *, where: Where = None) -> None:
    """Show one session."""
    target = where or Target()
    target.show(target.request("GET", _path(id)))


@app.command
def activate(id: str, *, where: Where = None) -> None:
    """Let a pending session use rooms."""
    _put(id, "activate", where)


@app.command
def suspend(id: str, *, reason: str | None = None, where: Where = None) -> None:
    """Stop a session, its open sockets included, until it is resumed."""
    _put(id, "suspend", where, reason=reason)


@app.command
def resume(id: str, *, where: Where = None) -> None:
    """Let a suspended session go on."""
    _put(id, "resume", where)


@app.command
def expire(id: str, *, where: Where = None) -> None:
    """End a session as if its time were over."""
    _put(id, "expire", where)


@app.command
def invalidate(id: str, *, reason: str | None = None, where: Where = None) -> None:
    """End a session for good, its open sockets included."""
    _put(id, "invalidate", where, reason=reason)


@app.command
def extend(id: str, *, lifetime: str | None = None, where: Where = None) -> None:
    """Give a session more time: LIFETIME from now, or as much as the policy allows."""
    _put(id, "extend", where, lifetime=None if lifetime is None else _seconds(lifetime))


@app.command
def grants(id: str, *, grant: Annotated[list[str], Parameter(negative="--no-grants")], where: Where = None) -> None:
    """
    Replace what a session may do; its open sockets obey at once.

    Args:
        id: Which session.
        grant: As in 'notes/**:read'; may be repeated. The first that matches a document wins. --no-grants: nothing.
    """
    _put(id, "grants", where, grants=[_grant(text) for text in grant])


@app.command
def rotate(id: str, *, where: Where = None) -> None:
    """Give a session a new token, which is shown once; the old one ends."""
    _put(id, "rotate", where)


@app.command
def delete(id: str, *, where: Where = None) -> None:
    """Remove a session and its record."""
    target = where or Target()
    target.request("DELETE", _path(id))
    _done(target, {"deleted": id})


@app.command
def revoke_user(user_id: str, *, where: Where = None) -> None:
    """End every session of a user, listed anywhere or not."""
    target = where or Target()
    _done(target, target.request("DELETE", f"/users/{quote(user_id, safe='')}/sessions"))


def _put(id: str, command: str, where: Target | None, **details: Any) -> None:
    target = where or Target()
    body = {name: value for name, value in details.items() if value is not None}
    target.show(target.request("PUT", f"{_path(id)}/{command}", **({"json": body} if body else {})))


def _done(target: Target, answer: dict[str, Any]) -> None:
    if target.json:
        print_json(answer)
    else:
        print_table(("field", "value"), [[name, str(value)] for name, value in answer.items()])


def _path(id: str) -> str:
    return f"/sessions/{quote(id, safe='')}"


def _seconds(text: str) -> int:
    try:
        return int(duration(text).total_seconds())
    except ValueError as error:
        raise Failed(f"--lifetime: {error}", Exit.USAGE) from None


def _grant(text: str) -> dict[str, str]:
    documents, colon, access = text.rpartition(":")
    if not colon:
        raise Failed(f"--grant: {text!r} is not a pattern and an access, as in 'notes/**:write'", Exit.USAGE)
    return {"documents": documents, "access": access}


def _json_object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Failed(f"--metadata: not a JSON object: {error}", Exit.USAGE) from None


def _problem(status: int, content: bytes | bytearray) -> str:
    """What an RFC 9457 problem says, in one line."""
    try:
        problem: dict[str, Any] = msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.DecodeError:
        return f"the server answered {status}"
    detail = problem.get("detail") or problem.get("title") or f"the server answered {status}"
    code = problem.get("code")
    return f"{detail} ({code})" if code else str(detail)


def _in_words(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
