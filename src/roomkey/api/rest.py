"""The operations on sessions: they translate between HTTP and the commands, and decide nothing else."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Final, cast

from roomkey.api.authentication import address_of
from roomkey.api.http_messages import (
    NO_STORE,
    Reply,
    empty_reply,
    etag,
    expected_versions,
    json_reply,
    matches_etag,
    socket_address,
)
from roomkey.api.inspection import inspect_sessions
from roomkey.api.login import cookies, dropped
from roomkey.api.operations import Answer, Request, following, operation
from roomkey.api.schemas import (
    Batch,
    BatchBody,
    Extension,
    HistoryBody,
    HistoryListing,
    InvalidatedBody,
    IssuedBody,
    Listing,
    NewSession,
    PageBody,
    ReasonBody,
    RevocationQuery,
    RevokedBody,
    Rights,
    RotatedBody,
    SessionBody,
    TicketBody,
    UserListing,
    event_body,
    session_body,
)
from roomkey.domain.access import check_grants
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
    InvalidState,
    NotFound,
    UnknownCursor,
    VersionMismatch,
)
from roomkey.ports import Page
from roomkey.security import authorization
from roomkey.security.authorization import Action
from roomkey.security.credentials import client_of
from roomkey.security.events import SecurityEventType
from roomkey.sessions.manager import SessionRequest

ONE_SESSION: Final = {200: Answer("The session as it is now.", SessionBody, etag=True)}
CHANGE: Final = (NotFound, Conflict, InvalidState, VersionMismatch)

# --- create and list ----------------------------------------------------------------------------------


@operation(
    "Create a session",
    tag="Sessions",
    action=Action.CREATE_SESSIONS,
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
    inspect_sessions(request, (new,))
    wanted, url = new.request(_device(request)), websocket_url(request)
    _check_issued(request, [wanted])
    issued = await request.sessions.create_session(
        wanted.user_id,
        client=wanted.client,
        grants=wanted.grants,
        lifetime=wanted.lifetime,
        metadata=wanted.metadata,
        bound_to=wanted.bound_to,
        activate=new.activate,
        actor=request.caller.actor,
    )
    body = IssuedBody(session_body(issued.session), issued.token, url)
    return json_reply(body, 201, (b"location", f"{request.root}/sessions/{issued.session.id}".encode()))


@operation(
    "Create or invalidate many sessions",
    tag="Sessions",
    action=Action.CHANGE_MANY_SESSIONS,
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
    known = await _known(request, ids)
    done = await request.sessions.invalidate_sessions(known, reason=work.reason, actor=request.caller.actor)
    found = {id for id, was_there in zip(known, done, strict=True) if was_there}
    outcomes = [InvalidatedBody(id, id in found) for id in ids]
    return json_reply(BatchBody(created=created, invalidated=outcomes))


async def _known(request: Request, ids: Sequence[SessionId]) -> Sequence[SessionId]:
    """Those of ``ids`` of which the caller may know, as far as that depends on the session."""
    if not request.caller.only.narrows_sessions:
        return ids
    found = await request.sessions.get_sessions(ids)
    return [each.id for each in found if each is not None and authorization.sees_user(request.caller, each.user_id)]


def _check_issued(request: Request, wanted: Iterable[SessionRequest]) -> None:
    if not request.caller.only.narrows_sessions:
        return
    default = request.sessions.default_grants
    for each in wanted:
        granted = default if each.grants is None else check_grants(each.grants)
        authorization.check_issued(request.caller, each.user_id, granted)


async def _create_many(request: Request, news: list[NewSession]) -> list[IssuedBody]:
    inspect_sessions(request, news)
    authorization.check_batch((new.user_id for new in news), request.sessions.policy.cap)
    device, url = _device(request), websocket_url(request)
    wanted = [new.request(device) for new in news]
    _check_issued(request, wanted)
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
    action=Action.LIST_SESSIONS,
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
    return await _page(request, authorization.visible(request.caller, listing.filter()), listing)


async def _page(request: Request, conditions: SessionFilter, listing: Listing | UserListing) -> Reply:
    with following(listing.cursor):
        page = await request.sessions.list_sessions(conditions, Page(cursor=listing.cursor, limit=listing.limit))
    return json_reply(PageBody([session_body(session) for session in page.sessions], page.next_cursor))


# --- one session --------------------------------------------------------------------------------------


@operation(
    "Get a session",
    tag="Sessions",
    action=Action.READ_SESSION,
    answers={
        200: Answer("The session.", SessionBody, etag=True),
        304: Answer("The version that `If-None-Match` names is the current one.", etag=True),
    },
    errors=(NotFound,),
)
async def get_session(request: Request) -> Reply:
    """The session, whatever its state. A session sees those of its own user."""
    return _session_reply(request, await _session(request))


@operation(
    "History of a session",
    tag="Sessions",
    action=Action.SEE_HISTORY,
    query=HistoryListing,
    answers={200: Answer("A part of what happened to the session, the oldest first.", HistoryBody)},
    errors=(NotFound, UnknownCursor),
)
async def list_events(request: Request) -> Reply:
    """
    What happened to the session: when, who caused it, and the reason that they gave.

    The event log keeps it for 90 days, unless it is configured otherwise (`janitor.event_retention`); what is older is
    missing at the beginning. A session that was deleted still has its history. Follow `next_cursor` until it is null.
    """
    listing = cast("HistoryListing", request.query)
    page = Page(cursor=listing.cursor, limit=listing.limit)
    with following(listing.cursor):
        found = await request.sessions.session_history(await _id(request), page)
    return json_reply(HistoryBody([event_body(event) for event in found.events], found.next_cursor))


_transition: Final = partial(
    operation,
    tag="Transitions",
    body=ReasonBody,
    body_required=False,
    answers=ONE_SESSION,
    errors=CHANGE,
    conditional=True,
)


@_transition("Activate", action=Action.ACTIVATE_SESSION)
async def activate(request: Request) -> Reply:
    """Let a pending session use rooms. A session may activate itself."""
    return await _change(request, await _id(request), request.sessions.activate_session)


@_transition("Suspend", action=Action.SUSPEND_SESSION)
async def suspend(request: Request) -> Reply:
    """Take access away until the session is resumed. Its open sockets are closed at once, its token is kept."""
    return await _change(request, await _id(request), request.sessions.suspend_session)


@_transition("Resume", action=Action.RESUME_SESSION)
async def resume(request: Request) -> Reply:
    """Give a suspended session its access back."""
    return await _change(request, await _id(request), request.sessions.resume_session)


@_transition("Expire", action=Action.EXPIRE_SESSION)
async def expire(request: Request) -> Reply:
    """End the session as if its time were over."""
    return await _change(request, await _id(request), request.sessions.expire_session)


@_transition("Invalidate", action=Action.INVALIDATE_SESSION)
async def invalidate(request: Request) -> Reply:
    """
    Revoke the session for good: log the device out.

    Its open sockets are closed at once. A session may invalidate itself.
    """
    return await _change(request, await _id(request), request.sessions.invalidate_session)


@_transition("Extend", action=Action.EXTEND_SESSION, body=Extension)
async def extend(request: Request) -> Reply:
    """Move the absolute deadline to `lifetime` seconds from now. It is never moved closer."""
    id = await _id(request)
    seconds = cast("Extension", request.body).lifetime
    session = await request.sessions.extend_session(
        id,
        None if seconds is None else timedelta(seconds=seconds),
        actor=request.caller.actor,
        if_version=await _expected(request, id),
    )
    return json_reply(session_body(session), 200, etag(session.version))


@_transition("Change the grants", action=Action.CHANGE_GRANTS, body=Rights, body_required=True)
async def change_grants(request: Request) -> Reply:
    """
    Replace what the session may do. Its open sockets obey before this is answered.

    They leave the documents that no grant covers any more, and in those that it may only read now the next
    edit is refused.
    """
    id, granted = await _id(request), cast("Rights", request.body).granted()
    authorization.check_given(request.caller, granted)
    session = await request.sessions.change_grants(
        id,
        granted,
        actor=request.caller.actor,
        if_version=await _expected(request, id),
    )
    request.services.events.report(
        SecurityEventType.PRIVILEGE_CHANGE,
        "grants_changed",
        actor=request.caller.actor,
        session=session.id,
        user=session.user_id,
        address=address_of(request.scope),
    )
    return json_reply(session_body(session), 200, etag(session.version))


@operation(
    "Rotate the token",
    tag="Transitions",
    action=Action.ROTATE_TOKEN,
    answers={200: Answer("The session and the only copy of its new token.", RotatedBody, etag=True)},
    errors=CHANGE,
    conditional=True,
)
async def rotate(request: Request) -> Reply:
    """
    Replace the token of the session; the one before it is honoured for half a minute.

    A session may rotate its own token, and everyone who presents the same one within that time gets the same
    successor. Later the old token is answered with `token_rotated`; if it is used beside the new one by
    somebody else, that is a theft (`token_reused`), which ends the session. Who came with a cookie gets a cookie.
    """
    id = await _id(request)
    issued = await request.sessions.rotate_token(
        id,
        request.caller.token,
        client=client_of(request.headers, address_of(request.scope)),
        actor=request.caller.actor,
        if_version=await _expected(request, id),
    )
    tag = etag(issued.session.version)
    if request.caller.by_cookie:
        # Its scripts did not see the token before, and do not see it now (ASVS 3.3.4).
        return json_reply(RotatedBody(session_body(issued.session)), 200, tag, *cookies(request, issued)[1])
    return json_reply(RotatedBody(session_body(issued.session), issued.token), 200, tag)


@operation(
    "Delete a session",
    tag="Sessions",
    action=Action.DELETE_SESSION,
    answers={204: Answer("The record is gone.")},
    errors=(NotFound, Conflict, VersionMismatch),
    conditional=True,
)
async def delete_session(request: Request) -> Reply:
    """Remove the session, live or not. Its history is kept. A session may delete those of its own user."""
    id = (await _session(request)).id
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
    action=Action.READ_OWN_SESSION,
    answers={
        200: Answer("The session whose token was presented.", SessionBody, etag=True),
        304: Answer("The version that `If-None-Match` names is the current one.", etag=True),
    },
)
async def get_mine(request: Request) -> Reply:
    """The session whose token was presented."""
    return _session_reply(request, authorization.own_session(request.caller))


@operation(
    "Log out",
    tag="My session",
    action=Action.LOG_OUT,
    answers={204: Answer("The session is over.")},
    errors=(Conflict, VersionMismatch),
    conditional=True,
)
async def delete_mine(request: Request) -> Reply:
    """Sign out: end the session whose token was presented, and every socket that it has open."""
    id = authorization.own_session(request.caller).id
    expected = await _expected(request, id)
    await request.sessions.invalidate_session(id, reason="logout", actor=request.caller.actor, if_version=expected)
    return empty_reply(204, *dropped(request))


@operation(
    "Get a ticket",
    tag="My session",
    action=Action.TAKE_TICKET,
    answers={200: Answer("A ticket for one WebSocket handshake.", TicketBody)},
    idempotent=True,
)
async def create_ticket(request: Request) -> Reply:
    """
    Mint a ticket for clients that cannot send headers with a handshake, as in browsers.

    It opens one socket, soon. Unlike a token it may stand in a URL, because it is worthless afterwards.
    """
    tickets = request.services.tickets
    session = authorization.own_session(request.caller)
    ticket = await tickets.issue(session.id, session.exclusive_since)
    return json_reply(TicketBody(ticket, int(tickets.lifetime.total_seconds())))


# --- all sessions of a user ---------------------------------------------------------------------------


@operation(
    "List a user's sessions",
    tag="Users",
    action=Action.LIST_SESSIONS_OF_USER,
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
    action=Action.REVOKE_USER,
    query=RevocationQuery,
    answers={200: Answer("Every session that was issued before is dead.", RevokedBody)},
    errors=(NotFound,),
)
async def revoke_user(request: Request) -> Reply:
    """
    End every session of the user, whether or not any index lists it, and every socket that they have open.

    That signs them out everywhere. To ban them, issue no session to them any more, too.

    With `except=current` the session whose token is presented survives: "log out everywhere else". The `reason` is
    told to whoever is connected.
    """
    user_id = _user(request)
    query = cast("RevocationQuery", request.query)
    kept = None if query.spare is None else authorization.own_session(request.caller).id
    actor = request.caller.actor
    done = await request.sessions.revoke_user(user_id, except_session=kept, actor=actor, reason=query.reason)
    return json_reply(RevokedBody(done.epoch, done.revoked))


# --- shared -------------------------------------------------------------------------------------------


async def _id(request: Request) -> SessionId:
    """The id that the path names, of a session to which the caller may do this; of a missing one if it is a key."""
    id = SessionId(request.path("id"))
    if not authorization.is_open(request.caller, id):
        await _session(request)
    return id


async def _session(request: Request) -> Session:
    """The session that the path names, to which the caller may do this."""
    id, own = SessionId(request.path("id")), request.caller.session
    # Its own was read a moment ago.
    session = own if own is not None and own.id == id else await request.sessions.get_session(id)
    return authorization.check_session(request.caller, request.action, session)


def _user(request: Request) -> str:
    user_id = check_user_id(request.path("user_id"))
    authorization.check_user(request.caller, user_id)
    return user_id


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
    reason = cast("ReasonBody", request.body).reason
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
    if request.caller is not authorization.DEVELOPER:
        return None
    return client_of(request.headers, address_of(request.scope))


def websocket_url(request: Request) -> str:
    """Where whoever asked can connect; there is no secret in it."""
    path = request.services.settings.websocket_path
    if request.public_url is None:
        return socket_address(request.scope["scheme"], request.headers.get("host"), request.root + path)
    return f"ws{request.public_url.removeprefix('http')}{path}"
