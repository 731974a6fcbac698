"""Logging in and out with a browser, and proving again who one is: operations that give out cookies and drop them."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Final, cast

from msgspec import UNSET, Meta, Struct, UnsetType

from roomkey.api.authentication import address_of, presented
from roomkey.api.http_messages import Headers, Reply, empty_reply, etag, json_reply
from roomkey.api.operations import Answer, Request, operation
from roomkey.api.schemas import RotatedBody, SessionBody, Token, session_body
from roomkey.domain.session import IssuedSession, Session, SessionId
from roomkey.errors import (
    Conflict,
    CredentialsMissing,
    Expired,
    Forbidden,
    HolderUnproven,
    Invalidated,
    InvalidProof,
    InvalidState,
    InvalidToken,
    NotFound,
    OriginRejected,
    RoomkeyError,
    Suspended,
    TokenReused,
    TokenRotated,
)
from roomkey.security import apikeys, credentials, csrf, tokens
from roomkey.security.authorization import Action
from roomkey.security.credentials import Credential, CredentialKind, client_of
from roomkey.security.events import SecurityEventType
from roomkey.security.login import DROPPED_COOKIES
from roomkey.security.possession import DPOP
from roomkey.sessions.logging_in import log_in
from roomkey.sessions.logging_in import reauthenticate as reauthenticate_session

_REFUSED: Final = (
    InvalidToken,
    TokenRotated,
    TokenReused,
    InvalidProof,
    HolderUnproven,
    Suspended,
    Expired,
    Invalidated,
    OriginRejected,
)


class Credentials(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a page got from its application: the `token` of a session, or a `ticket` of one. One of them."""

    token: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    ticket: Annotated[str, Meta(min_length=1, max_length=128)] | None = None

    def __post_init__(self) -> None:
        if (self.token is None) == (self.ticket is None):
            raise ValueError("token: give this or ticket")

    def __repr__(self) -> str:
        return "Credentials(<hidden>)"


class LoggedInBody(Struct, frozen=True, kw_only=True):
    """
    The session that the browser has from now on.

    Scripts send `csrf_token` as `X-CSRF-Token`, for browsers that do not say which page a request comes from; the
    cookie `__Host-roomkey-csrf` is the same. There is a `token` only for whoever has bound the session to a key.
    """

    session: SessionBody
    csrf_token: str | UnsetType = UNSET
    token: Token | UnsetType = UNSET


@operation(
    "Log in",
    tag="My session",
    action=Action.LOG_IN,
    body=Credentials,
    answers={200: Answer("The session; its token is in a cookie.", LoggedInBody, etag=True)},
    errors=(*_REFUSED, Conflict, InvalidState),
)
async def login(request: Request) -> Reply:
    """
    Exchange a token or a ticket for the cookie `__Host-roomkey`, which scripts cannot read.

    The token is replaced: what was sent opens nothing afterwards, so whoever planted or saw it has nothing. A
    pending session is activated. If the browser had another session, that is ended. With a `DPoP` proof the session
    is bound to its key, and the new token comes in the body instead of a cookie.
    """
    sent = cast("Credentials", request.body)
    services = request.services
    services.authenticator.check_page(request.headers)
    credential = None if sent.token is None else Credential(CredentialKind.HEADER, sent.token)
    evidence = services.authenticator.evidence(credential, request.headers, request.scope)
    client = client_of(request.headers, address_of(request.scope))
    if sent.token is not None:
        session = await request.sessions.authenticate(sent.token, client=client, held=evidence.held)
    else:
        session = await services.tickets.session_of(sent.ticket or "", request.sessions)
    await services.authenticator.accept(evidence)
    bind_to = next((each for each in evidence.held if each.startswith(DPOP)), None)
    issued = await log_in(request.sessions, session.id, sent.token, client=client, held=evidence.held, bind_to=bind_to)
    await _end_former(request, issued.id)
    _report(request, issued.session, "login")
    return _bound(issued) if bind_to is not None else _with_cookies(request, issued)


@operation(
    "Log out of the browser",
    tag="My session",
    action=Action.LEAVE,
    answers={204: Answer("The session is over, and the browser has no cookies of it.")},
    errors=(CredentialsMissing, *_REFUSED, Forbidden, Conflict),
)
async def logout(request: Request) -> Reply:
    """
    Sign out: end the session and every socket that it has open, and drop its cookies.

    A cookie that opens nothing any more is dropped all the same.
    """
    request.services.authenticator.check_page(request.headers)
    credential = presented(request.headers)
    if credential is None:
        raise CredentialsMissing("there is no session to log out of")
    if credential.secret.startswith(apikeys.PREFIX):
        raise Forbidden("only a session may do this")
    by_cookie = credential.kind is CredentialKind.COOKIE
    try:
        if by_cookie:
            request.services.authenticator.check_meant(credential, request.headers, request.scope)
        session = await _genuine(request, credential, request.headers)
    except (InvalidToken, TokenRotated, TokenReused, Expired, Invalidated):
        if not by_cookie:
            raise
    else:
        with suppress(NotFound, InvalidState):  # it has ended by other means
            await request.sessions.invalidate_session(session.id, reason="logout", actor=f"user:{session.user_id}")
        _report(request, session, "logout")
    return empty_reply(204, *dropped(request))


@operation(
    "Reauthenticate",
    tag="Transitions",
    action=Action.REAUTHENTICATE_SESSION,
    answers={200: Answer("The session and the only copy of its new token.", RotatedBody, etag=True)},
    errors=(NotFound, Conflict, InvalidState),
)
async def reauthenticate(request: Request) -> Reply:
    """
    Say that the user of the session has proved again who they are.

    The session gets a new token, and the one before it is dead at once. A suspended session is active again. To be
    called by the application that has seen the proof; a page then logs in with the new token.
    """
    id = SessionId(request.path("id"))
    issued = await reauthenticate_session(request.sessions, id, actor=request.caller.actor)
    _report(request, issued.session, "reauthentication")
    return json_reply(RotatedBody(session_body(issued.session), issued.token), 200, etag(issued.session.version))


def dropped(request: Request) -> Headers:
    """The headers by which a browser forgets the session."""
    headers: Headers = [(b"set-cookie", each.encode()) for each in DROPPED_COOKIES]
    site_data = request.services.login.settings.site_data
    if site_data is not None:
        headers.append((b"clear-site-data", site_data.encode()))
    return headers


def cookies(request: Request, issued: IssuedSession) -> tuple[str, Headers]:
    """What pages send back as ``X-CSRF-Token``, and the headers that give a browser the session."""
    login = request.services.login
    left = issued.session.expires_at - request.sessions.clock.now()
    csrf_token = csrf.mint(issued.session.id, login.csrf_key)
    given = login.settings.cookies(issued.token, csrf_token, left)
    return csrf_token, [(b"set-cookie", each.encode()) for each in given]


def _with_cookies(request: Request, issued: IssuedSession) -> Reply:
    csrf_token, headers = cookies(request, issued)
    body = LoggedInBody(session=session_body(issued.session), csrf_token=csrf_token)
    return json_reply(body, 200, etag(issued.session.version), *headers)


def _bound(issued: IssuedSession) -> Reply:
    body = LoggedInBody(session=session_body(issued.session), token=issued.token)
    return json_reply(body, 200, etag(issued.session.version))


async def _genuine(request: Request, credential: Credential, headers: Mapping[str, str]) -> Session:
    """The session whose token this is, even while it is suspended."""
    try:
        return await request.services.authenticator.session(credential, headers, request.scope)
    except Suspended:  # which is only said to who has the token
        session = await request.sessions.get_session(tokens.session_of(credential.secret))
        if session is None:
            raise InvalidToken("the session was deleted") from None
        return session


async def _end_former(request: Request, current: SessionId) -> None:
    """End the session that the browser had, which nobody can reach any more once its cookie is replaced."""
    former = credentials.cookie(request.headers.get("cookie", ""), credentials.COOKIE)
    headers = {name: value for name, value in request.headers.items() if name != "dpop"}  # which is not about that one
    with suppress(RoomkeyError):  # whatever it is, the browser has its new session
        if former and tokens.session_of(former) != current:
            session = await _genuine(request, Credential(CredentialKind.COOKIE, former), headers)
            await request.sessions.invalidate_session(session.id, reason="login", actor=f"user:{session.user_id}")


def _report(request: Request, session: Session, what: str) -> None:
    request.services.events.report(
        SecurityEventType.SESSION_AUTH,
        what,
        actor=f"user:{session.user_id}" if request.caller.session is None else request.caller.actor,
        session=session.id,
        user=session.user_id,
        address=address_of(request.scope),
        place=request.action.name.lower(),
    )
