"""The operations on who is connected to documents: they translate between HTTP and the roll call."""

from functools import partial
from typing import Final, cast

from roomkey.api.document_schemas import (
    ConnectedListing,
    ConnectedPageBody,
    DisconnectedBody,
    DisconnectionQuery,
    connected_page_body,
    disconnected_body,
)
from roomkey.api.http_messages import Reply, json_reply
from roomkey.api.operations import Answer, Request, operation
from roomkey.domain.session import SessionId
from roomkey.errors import NotFound, Overloaded, UnknownCursor
from roomkey.realtime.attendance import Whom
from roomkey.security import authorization, tokens
from roomkey.security.authorization import Action

_disconnecting: Final = partial(
    operation,
    tag="Connections",
    query=DisconnectionQuery,
    answers={200: Answer("How many connections it was.", DisconnectedBody)},
)


@operation(
    "List who is connected",
    tag="Connections",
    action=Action.SEE_CONNECTED,
    query=ConnectedListing,
    answers={200: Answer("A page of the sessions that have the document open.", ConnectedPageBody)},
    errors=(UnknownCursor, Overloaded),
)
async def list_connected(request: Request) -> Reply:
    """
    Who is in the document by a socket, on any node: since when, by which protocol, and with which access.

    Whoever may read a document sees everybody who is in it; a key that is narrowed to users sees these. A document
    that nobody has open has an empty list, whether or not there is one.
    """
    listing = cast("ConnectedListing", request.query)
    after = listing.cursor or ""
    if after and not tokens.is_session_id(after):
        raise UnknownCursor("the cursor was not issued for this list")
    present = await request.connected.present(request.path("name"), _whom(request), after=after, limit=listing.limit)
    return json_reply(connected_page_body(present))


@_disconnecting("Disconnect everybody", action=Action.DISCONNECT_FROM_DOCUMENT, errors=(Overloaded,))
async def disconnect_everybody(request: Request) -> Reply:
    """
    Put every session out of the document, on all nodes; each is told the `reason`.

    No right is taken and nothing is deleted: whoever wants to may come back at once.
    """
    return await _disconnect(request, request.path("name"), _whom(request))


@_disconnecting(
    "Disconnect a session from a document", action=Action.DISCONNECT_FROM_DOCUMENT, errors=(NotFound, Overloaded)
)
async def disconnect_from_document(request: Request) -> Reply:
    """
    Kick a session: put it out of the document, with all its connections, on all nodes; it is told the `reason`.

    It may come back when its user wants that. To keep it out, change its grants before, or end it.
    """
    return await _disconnect(request, request.path("name"), _whom(request, _id(request)))


@_disconnecting("Disconnect a session", action=Action.DISCONNECT_SESSION, errors=(NotFound, Overloaded))
async def disconnect_session(request: Request) -> Reply:
    """
    Put a session out of every document, and close its sockets, on all nodes; it is told the `reason`.

    The session is as good as before, and may come back. To log it out, invalidate it. A session may do that to those
    of its own user.
    """
    id = _id(request)
    if not authorization.is_open(request.caller, id):
        authorization.check_session(request.caller, request.action, await request.sessions.get_session(id))
    return await _disconnect(request, None, Whom(session=id))


async def _disconnect(request: Request, document: str | None, whom: Whom) -> Reply:
    reason = cast("DisconnectionQuery", request.query).reason
    return json_reply(disconnected_body(await request.connected.disconnect(document, whom, reason=reason)))


def _id(request: Request) -> SessionId:
    """The id that the path names. One that nobody could have is of no session; any other may be connected somewhere."""
    id = request.path("id")
    if not tokens.is_session_id(id):
        raise NotFound("there is no such session")
    return SessionId(id)


def _whom(request: Request, session: SessionId | None = None) -> Whom:
    """That session, or all, as far as the caller may know of their users."""
    return Whom(session=session, users=request.caller.only.users)
