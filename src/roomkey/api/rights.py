"""The operations on access: have the application asked again, and say who may do what in a document, and why."""

from functools import partial
from typing import Annotated, Final, cast

from msgspec import Meta, Struct

from roomkey.access.service import Explanation, SessionAccess
from roomkey.access.watch import Rechecked
from roomkey.api.http_messages import Reply, json_reply
from roomkey.api.operations import Answer, Request, operation
from roomkey.api.schemas import ReasonBody, SessionIdText, UserId
from roomkey.domain.access import Access, Grant
from roomkey.domain.session import SessionId, check_user_id
from roomkey.errors import AccessUnknown, Conflict, DocumentNotFound, InvalidInput, NotFound
from roomkey.security import authorization
from roomkey.security.authorization import Action


class RecheckedBody(Struct, frozen=True):
    """Of how many sessions in documents the application was asked, and how many may do more or less than before."""

    checked: Annotated[int, Meta(ge=0, description="Sessions in documents, on the node that answers.")]
    changed: Annotated[int, Meta(ge=0)]


class AccessQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """About whom is asked."""

    user_id: UserId


class SessionAccessBody(Struct, frozen=True):
    """
    What one session may do in the document. `grant` is the first that matches.

    `application` is what the application allows, if there is one and a grant matches; `access` is what both allow.
    """

    session_id: SessionIdText
    access: Access | None
    grant: Grant | None
    application: Access | None
    why: str


class AccessBody(Struct, frozen=True):
    """What a user may do in the document: the most that an active session of theirs may. `why` is for people."""

    user_id: str
    document: str
    access: Access | None
    why: str
    sessions: list[SessionAccessBody]


_rechecking: Final = partial(
    operation,
    tag="Access",
    body=ReasonBody,
    body_required=False,
    answers={200: Answer("The open sockets of this node obey; those of others do within a second.", RecheckedBody)},
)


@_rechecking("Recheck a session", action=Action.RECHECK_SESSION, errors=(NotFound, AccessUnknown, Conflict))
async def recheck_session(request: Request) -> Reply:
    """
    Ask the application again what the session may do in each document that it has open.

    Where it may do nothing any more, it is told the `reason`. What it opens later is asked for at the door. Without
    an application there is nothing to ask.
    """
    session = authorization.check_session(
        request.caller, request.action, await request.sessions.get_session(SessionId(request.path("id")))
    )
    return _rechecked(await request.services.access.recheck_session(session.id, reason=_reason(request)))


@_rechecking(
    "Recheck a document",
    action=Action.RECHECK_DOCUMENT,
    errors=(InvalidInput, DocumentNotFound, AccessUnknown, Conflict),
)
async def recheck_document(request: Request) -> Reply:
    """
    Ask the application again what everybody may do who has the document open.

    Whoever may do nothing there any more is told the `reason`. There need not be such a document.
    """
    name = request.path("name")
    authorization.check_document(request.caller, request.action, name, None)
    return _rechecked(await request.services.access.recheck_document(name, reason=_reason(request)))


@operation(
    "Who may do what, and why",
    tag="Access",
    action=Action.EXPLAIN_ACCESS,
    query=AccessQuery,
    answers={200: Answer("What the user may do, by each active session.", AccessBody)},
    errors=(InvalidInput, DocumentNotFound, NotFound, AccessUnknown),
)
async def explain_access(request: Request) -> Reply:
    """
    What a user may do in the document, and why: which grant decides, and what the application allows.

    At most 100 sessions are looked at. There need not be such a document.
    """
    name, user = request.path("name"), check_user_id(cast("AccessQuery", request.query).user_id)
    authorization.check_document(request.caller, request.action, name, None)
    authorization.check_user(request.caller, user)
    return json_reply(_access_body(await request.services.access.explain(user, name)))


def _reason(request: Request) -> str | None:
    return cast("ReasonBody", request.body).reason


def _rechecked(done: Rechecked) -> Reply:
    return json_reply(RecheckedBody(done.checked, done.changed))


def _access_body(found: Explanation) -> AccessBody:
    return AccessBody(found.user_id, found.document, found.access, found.why, [_of_session(x) for x in found.sessions])


def _of_session(found: SessionAccess) -> SessionAccessBody:
    return SessionAccessBody(found.session, found.access, found.grant, found.application, found.why)
