"""The operations on sessions: they translate between HTTP and the commands, and decide nothing else."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Final, cast

from msgspec.structs import replace

from roomkey.api.authentication import (
    DEVELOPER,
    KEYS,
    SESSIONS,
    SESSIONS_EVEN_PENDING,
    Standing,
    address_of,
)
from roomkey.api.http_messages import (
    NO_STORE,
    Reply,
    empty_reply,
    etag,
    expected_versions,
    json_reply,
    matches_etag,
    websocket_url,
)
from roomkey.api.operations import Answer, Request, operation
from roomkey.api.problems import UnknownCursor
from roomkey.api.schemas import (
    Batch,
    BatchBody,
    Cause,
    Extension,
    InvalidatedBody,
    IssuedBody,
    Listing,
    NewSession,
    PageBody,
    RevocationQuery,
    RevokedBody,
    Rights,
    RotatedBody,
    SessionBody,
    TicketBody,
    UserListing,
    session_body,
)
from roomkey.domain.session import (
    Client,
    IssuedSession,
    Session,
    SessionFilter,
    SessionId,
    check_user_id,
)
from roomkey.errors import (
    CapReached,
    Conflict,
    Forbidden,
    InvalidInput,
    InvalidState,
    NotFound,
    SessionPending,
    VersionMismatch,
)
from roomkey.ports import Page
from roomkey.security.credentials import client_of

EVERY_SESSION: Final = KEYS | SESSIONS
"""Keys see all sessions, a session those of its user."""

EVERY_SESSION_EVEN_PENDING: Final = KEYS | SESSIONS_EVEN_PENDING

ONE_SESSION: Final = {200: Answer("The session as it is now.", SessionBody, etag=True)}
CHANGE: Final = (NotFound, Conflict, InvalidState, VersionMismatch)

# --- create and list ----------------------------------------------------------------------------------


@operation(
    "Create a session",
    tag="Sessions",
    who=KEYS,
    body=NewSession,
    answers={201: Answer("The session and the only copy of its token.", IssuedBody, location=True)},
    errors=(CapReached,),
    idempotent=True,
)
async def create_session(request: Request) -> Reply:
    """
    Issue a session for a user on one device.

    It starts `pending` and has to be activated, unless `activate` is true. The token is shown in this answer
    only; what the server keeps is its hash. With an `Idempotency-Key` the answer, token included, is held in
    the memory of the server for a day, and nowhere else.
    """
    new = cast("NewSession", request.body)
    wanted, url = new.request(_device(request)), _websocket_url(request)
    issued = await request.sessions.create_session(
        wanted.user_id,
        client=wanted.client,
        grants=wanted.grants,
        lifetime=wanted.lifetime,
        metadata=wanted.metadata,
        actor=request.caller.actor,
    )
    body = await _issued(request, issued, url, activate=new.activate)
    return json_reply(body, 201, (b"location", f"{request.root}/sessions/{issued.session.id}".encode()))


@operation(
    "Create or invalidate many sessions",
    tag="Sessions",
    who=KEYS,
    body=Batch,
    answers={200: Answer("What became of each, in the order of the request.", BatchBody)},
    errors=(CapReached,),
    idempotent=True,
)
async def batch(request: Request) -> Reply:
    """
    Create up to 100 sessions, then invalidate up to 1000.

    Sessions of one user come together or not at all. Ids that name no session are answered with
    `found: false`; sessions that are over already count as done.
    """
    work = cast("Batch", request.body)
    ids = [SessionId(id) for id in work.invalidate]
    # First what can be refused, so that a batch that is refused has done nothing.
    created = await _create_many(request, work.create) if work.create else []
    found = await request.sessions.invalidate_sessions(ids, reason=work.reason, actor=request.caller.actor)
    outcomes = [InvalidatedBody(id, each) for id, each in zip(ids, found, strict=True)]
    return json_reply(BatchBody(created=created, invalidated=outcomes))


async def _create_many(request: Request, news: list[NewSession]) -> list[IssuedBody]:
    cap = request.sessions.policy.cap
    if max(Counter(new.user_id for new in news).values()) > cap:
        # Decided here because the storage decides user by user, after others have been created.
        raise CapReached(f"a user has at most {cap} live sessions, and this batch has more of one")
    device, url = _device(request), _websocket_url(request)
    wanted = [new.request(device) for new in news]
    issued = await request.sessions.create_sessions(wanted, actor=request.caller.actor)
    async with asyncio.TaskGroup() as tasks:
        # At the same time, because storages commit together what is asked for together.
        bodies = [
            tasks.create_task(_issued(request, each, url, activate=new.activate))
            for each, new in zip(issued, news, strict=True)
        ]
    return [body.result() for body in bodies]


@operation(
    "List sessions",
    tag="Sessions",
    who=EVERY_SESSION,
    query=Listing,
    answers={200: Answer("A page of sessions.", PageBody)},
    errors=(UnknownCursor,),
)
async def list_sessions(request: Request) -> Reply:
    """
    The sessions that meet every condition; a session sees those of its own user.

    Follow `next_cursor` until it is null: whoever does meets every session that existed throughout exactly
    once. With `user_id` the oldest come first.
    """
    listing = cast("Listing", request.query)
    conditions = listing.filter()
    own = request.caller.session
    if own is not None:
        if conditions.user_id not in (None, own.user_id):
            raise Forbidden("a session sees those of its own user")
        conditions = replace(conditions, user_id=own.user_id)
    return await _page(request, conditions, listing)


async def _page(request: Request, conditions: SessionFilter, listing: Listing | UserListing) -> Reply:
    try:
        page = await request.sessions.list_sessions(conditions, Page(cursor=listing.cursor, limit=listing.limit))
    except InvalidInput:
        if listing.cursor is None:
            raise
        raise UnknownCursor("the cursor was not issued for this list") from None
    return json_reply(PageBody([session_body(session) for session in page.sessions], page.next_cursor))


# --- one session --------------------------------------------------------------------------------------


@operation(
    "Get a session",
    tag="Sessions",
    who=EVERY_SESSION_EVEN_PENDING,
    answers={
        200: Answer("The session.", SessionBody, etag=True),
        304: Answer("The version that `If-None-Match` names is the current one.", etag=True),
    },
    errors=(NotFound,),
)
async def get_session(request: Request) -> Reply:
    """The session, whatever its state. A session sees those of its own user."""
    return _session_reply(request, await _visible(request))


_transition: Final = partial(
    operation,
    tag="Transitions",
    body=Cause,
    body_required=False,
    answers=ONE_SESSION,
    errors=CHANGE,
    conditional=True,
)


@_transition("Activate", who=EVERY_SESSION_EVEN_PENDING)
async def activate(request: Request) -> Reply:
    """Let a pending session use rooms. A session may activate itself."""
    return await _change(request, await _own_or_any(request), request.sessions.activate_session)


@_transition("Suspend", who=KEYS)
async def suspend(request: Request) -> Reply:
    """Take access away until the session is resumed. Its open sockets are closed at once, its token is kept."""
    return await _change(request, _id(request), request.sessions.suspend_session)


@_transition("Resume", who=KEYS)
async def resume(request: Request) -> Reply:
    """Give a suspended session its access back."""
    return await _change(request, _id(request), request.sessions.resume_session)


@_transition("Expire", who=KEYS)
async def expire(request: Request) -> Reply:
    """End the session as if its time were over."""
    return await _change(request, _id(request), request.sessions.expire_session)


@_transition("Invalidate", who=EVERY_SESSION_EVEN_PENDING)
async def invalidate(request: Request) -> Reply:
    """Revoke the session for good. Its open sockets are closed at once. A session may invalidate itself."""
    return await _change(request, await _own_or_any(request), request.sessions.invalidate_session)


@_transition("Extend", who=KEYS, body=Extension)
async def extend(request: Request) -> Reply:
    """Move the absolute deadline to `lifetime` seconds from now. It is never moved closer."""
    id = _id(request)
    seconds = cast("Extension", request.body).lifetime
    session = await request.sessions.extend_session(
        id,
        None if seconds is None else timedelta(seconds=seconds),
        actor=request.caller.actor,
        if_version=await _expected(request, id),
    )
    return json_reply(session_body(session), 200, etag(session.version))


@_transition("Change the grants", who=KEYS, body=Rights, body_required=True)
async def change_grants(request: Request) -> Reply:
    """
    Replace what the session may do. Its open sockets obey before this is answered.

    They leave the documents that no grant covers any more, and in those that it may only read now the next
    edit is refused.
    """
    id = _id(request)
    session = await request.sessions.change_grants(
        id,
        cast("Rights", request.body).granted(),
        actor=request.caller.actor,
        if_version=await _expected(request, id),
    )
    return json_reply(session_body(session), 200, etag(session.version))


@operation(
    "Rotate the token",
    tag="Transitions",
    who=EVERY_SESSION_EVEN_PENDING,
    answers={200: Answer("The session and the only copy of its new token.", RotatedBody, etag=True)},
    errors=CHANGE,
    conditional=True,
)
async def rotate(request: Request) -> Reply:
    """
    Replace the token of the session; the one before it is honoured for half a minute.

    A session may rotate its own token, and everyone who presents the same one within that time gets the same
    successor. Using the old token later is taken for a theft, and ends the session.
    """
    id = await _own_or_any(request)
    issued = await request.sessions.rotate_token(
        id, request.caller.token, actor=request.caller.actor, if_version=await _expected(request, id)
    )
    return json_reply(RotatedBody(session_body(issued.session), issued.token), 200, etag(issued.session.version))


@operation(
    "Delete a session",
    tag="Sessions",
    who=EVERY_SESSION_EVEN_PENDING,
    answers={204: Answer("The record is gone.")},
    errors=(NotFound, Conflict, VersionMismatch),
    conditional=True,
)
async def delete_session(request: Request) -> Reply:
    """Remove the session, live or not. Its history is kept. A session may delete those of its own user."""
    id = (await _visible(request)).id
    deleted = await request.sessions.delete_session(
        id, actor=request.caller.actor, if_version=await _expected(request, id)
    )
    if not deleted:
        raise NotFound("there is no such session")
    return empty_reply()


# --- my session ---------------------------------------------------------------------------------------


@operation(
    "Get my session",
    tag="My session",
    who=SESSIONS_EVEN_PENDING,
    answers={
        200: Answer("The session whose token was presented.", SessionBody, etag=True),
        304: Answer("The version that `If-None-Match` names is the current one.", etag=True),
    },
)
async def get_mine(request: Request) -> Reply:
    """The session whose token was presented."""
    return _session_reply(request, _mine(request))


@operation(
    "Log out",
    tag="My session",
    who=SESSIONS_EVEN_PENDING,
    answers={204: Answer("The session is over.")},
    errors=(Conflict, VersionMismatch),
    conditional=True,
)
async def delete_mine(request: Request) -> Reply:
    """End the session whose token was presented, and every socket that it has open."""
    id = _mine(request).id
    expected = await _expected(request, id)
    await request.sessions.invalidate_session(id, reason="logout", actor=request.caller.actor, if_version=expected)
    return empty_reply(204, (b"set-cookie", b"__Host-roomkey=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax"))


@operation(
    "Get a ticket",
    tag="My session",
    who=SESSIONS,
    answers={200: Answer("A ticket for one WebSocket handshake.", TicketBody)},
    idempotent=True,
)
async def create_ticket(request: Request) -> Reply:
    """
    Mint a ticket for clients that cannot send headers with a handshake, as in browsers.

    It opens one socket, soon. Unlike a token it may stand in a URL, because it is worthless afterwards.
    """
    tickets = request.services.tickets
    ticket = await tickets.issue(_mine(request).id)
    return json_reply(TicketBody(ticket, int(tickets.lifetime.total_seconds())))


# --- all sessions of a user ---------------------------------------------------------------------------


@operation(
    "List a user's sessions",
    tag="Users",
    who=EVERY_SESSION,
    query=UserListing,
    answers={200: Answer("A page of sessions, the oldest first.", PageBody)},
    errors=(NotFound, UnknownCursor),
)
async def list_user_sessions(request: Request) -> Reply:
    """The devices on which a user is or was signed in. A session sees those of its own user."""
    listing = cast("UserListing", request.query)
    return await _page(request, SessionFilter(user_id=_user(request), state=listing.state), listing)


@operation(
    "Revoke a user's sessions",
    tag="Users",
    who=EVERY_SESSION,
    query=RevocationQuery,
    answers={200: Answer("Every session that was issued before is dead.", RevokedBody)},
    errors=(NotFound,),
)
async def revoke_user(request: Request) -> Reply:
    """
    End every session of the user, whether or not any index lists it, and every socket that they have open.

    With `except=current` the session whose token is presented survives: "log out everywhere else".
    """
    user_id = _user(request)
    kept: SessionId | None = None
    if cast("RevocationQuery", request.query).spare is not None:
        if request.caller.session is None:
            raise Forbidden("only a session has a current session")
        kept = request.caller.session.id
    done = await request.sessions.revoke_user(user_id, except_session=kept, actor=request.caller.actor)
    return json_reply(RevokedBody(done.epoch, done.revoked))


# --- shared -------------------------------------------------------------------------------------------


def _id(request: Request) -> SessionId:
    return SessionId(request.path("id"))


def _mine(request: Request) -> Session:
    session = request.caller.session
    if session is None:
        raise Forbidden("only a session may do this")
    return session


def _user(request: Request) -> str:
    user_id = check_user_id(request.path("user_id"))
    own = request.caller.session
    if own is not None and own.user_id != user_id:
        raise NotFound("there is no such user")
    return user_id


async def _visible(request: Request) -> Session:
    """The session that the path names, if the caller may know that there is one."""
    id = _id(request)
    own = request.caller.session
    if own is not None and own.id == id:
        return own
    if request.caller.standing is Standing.PENDING:
        raise SessionPending("activate the session first")
    session = await request.sessions.get_session(id)
    if session is None or (own is not None and own.user_id != session.user_id):
        raise NotFound("there is no such session")
    return session


async def _own_or_any(request: Request) -> SessionId:
    """The id that the path names: a session may change itself, a key any."""
    own = request.caller.session
    id = _id(request)
    if own is not None and own.id != id:
        await _visible(request)
        raise Forbidden("a session may only do this to itself")
    return id


async def _expected(request: Request, id: SessionId) -> int | None:
    """The version that If-Match allows."""
    versions = expected_versions(request.headers.get("if-match"))
    if versions is None or len(versions) == 1:
        return None if versions is None else next(iter(versions))
    session = await request.sessions.get_session(id)
    if session is None:
        raise NotFound("there is no such session")
    if session.version not in versions:
        raise VersionMismatch(f"the session has version {session.version}")
    return session.version


def _session_reply(request: Request, session: Session) -> Reply:
    tag = etag(session.version)
    if matches_etag(request.headers.get("if-none-match"), tag[1]):
        return Reply(304, b"", [tag, NO_STORE])
    return json_reply(session_body(session), 200, tag)


async def _change(request: Request, id: SessionId, command: Callable[..., Awaitable[Session]]) -> Reply:
    reason = cast("Cause", request.body).reason
    expected = await _expected(request, id)
    session = await command(id, reason=reason, actor=request.caller.actor, if_version=expected)
    return json_reply(session_body(session), 200, etag(session.version))


async def _issued(request: Request, issued: IssuedSession, url: str, *, activate: bool) -> IssuedBody:
    session = issued.session
    if activate:
        session = await request.sessions.activate_session(session.id, actor=request.caller.actor)
    return IssuedBody(session_body(session), issued.token, url)


def _device(request: Request) -> Client | None:
    """The device that sent the request, if it asked for itself; what a backend asks for is for another one."""
    if request.caller is not DEVELOPER:
        return None
    return client_of(request.headers, address_of(request.scope))


def _websocket_url(request: Request) -> str:
    public = request.services.settings.public_url
    if public is not None:
        return f"ws{public.removeprefix('http').rstrip('/')}/ws"
    return websocket_url(request.scope["scheme"], request.headers.get("host"), request.root)
