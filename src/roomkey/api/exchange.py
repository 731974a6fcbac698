"""A token of somebody whom the configuration trusts, exchanged for a session."""

from hashlib import sha256
from typing import Annotated, cast

from msgspec import Meta, Struct

from roomkey.api.authentication import address_of
from roomkey.api.http_messages import Reply, json_reply
from roomkey.api.inspection import inspect_identity
from roomkey.api.operations import Answer, Request, operation
from roomkey.api.rest import websocket_url
from roomkey.api.schemas import IssuedBody, session_body
from roomkey.domain.session import IssuedSession
from roomkey.errors import CapReached, InvalidProof, InvalidToken, IssuerAway
from roomkey.issuers.tokens import MAX_TOKEN_CHARS, Identity
from roomkey.security.authorization import Action
from roomkey.security.credentials import client_of
from roomkey.security.events import SecurityEventType
from roomkey.security.possession import DPOP, Evidence


class TokenOfIssuer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A JSON Web Token (RFC 7519) of an issuer that the server is configured to trust.

    With `activate` the session may be used at once.
    """

    subject_token: Annotated[str, Meta(min_length=1, max_length=MAX_TOKEN_CHARS)]
    activate: bool = False

    def __repr__(self) -> str:
        return "TokenOfIssuer(<hidden>)"


@operation(
    "Exchange a token of an issuer",
    tag="My session",
    action=Action.EXCHANGE_TOKEN,
    body=TokenOfIssuer,
    answers={201: Answer("The session and the only copy of its token.", IssuedBody, location=True)},
    errors=(InvalidToken, InvalidProof, IssuerAway, CapReached),
)
async def exchange_token(request: Request) -> Reply:
    """
    Issue a session to whoever has a good token of an issuer in `security.issuers`, such as an OpenID provider.

    The token says who the user is. It can be exchanged once, unless the configuration says otherwise, and no more after
    all sessions of the user were ended. With a `DPoP` proof the session is bound to its key.
    """
    sent = cast("TokenOfIssuer", request.body)
    authenticator = request.services.authenticator
    evidence = authenticator.evidence(None, request.headers, request.scope)
    identity = await _identity(request, sent.subject_token)
    inspect_identity(request, [("user_id", identity.user_id)])
    await authenticator.accept(evidence)
    issued = await _issue(request, identity, evidence, activate=sent.activate)
    request.services.events.report(
        SecurityEventType.SESSION_AUTH,
        "token_exchanged",
        actor=f"user:{identity.user_id}",
        session=issued.id,
        user=identity.user_id,
        address=address_of(request.scope),
        place=request.action.name.lower(),
        details={"issuer": identity.issuer},
    )
    body = IssuedBody(session_body(issued.session), issued.token, websocket_url(request))
    return json_reply(body, 201, (b"location", f"{request.root}/sessions/{issued.id}".encode()))


async def _identity(request: Request, token: str) -> Identity:
    """Who has the token. Wrong ones count against the address, as those of sessions do."""
    attempts, address = request.sessions.attempts, address_of(request.scope)
    name = sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
    attempts.check(address, name)
    try:
        return await request.services.issuers.identify(token)
    except InvalidToken:
        attempts.failed(address, name)
        raise


async def _issue(request: Request, identity: Identity, evidence: Evidence, *, activate: bool) -> IssuedSession:
    sessions, actor = request.sessions, f"user:{identity.user_id}"
    issued = await sessions.create_session(
        identity.user_id,
        client=client_of(request.headers, address_of(request.scope)),
        grants=identity.grants,
        bound_to=next((each for each in evidence.held if each.startswith(DPOP)), None),
        activate=activate,
        actor=actor,
    )
    try:
        # The user may have been ended since the token was looked at, and this session is of afterwards.
        await request.services.issuers.check_not_ended(identity)
    except BaseException:
        await sessions.invalidate_session(issued.id, reason="token_outdated", actor=actor)
        raise
    return issued
