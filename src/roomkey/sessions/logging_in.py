"""Logging in, and proving again who one is: the token is replaced, and whatever was given out before is void."""

from collections.abc import Sequence

from roomkey.domain.lifecycle import check_usable
from roomkey.domain.session import Client, IssuedSession, SessionId, SessionState
from roomkey.errors import InvalidToken
from roomkey.security import tokens
from roomkey.security.authorization import actor_of
from roomkey.security.possession import check_holder
from roomkey.sessions.manager import SessionManager


async def log_in(  # each is a fact about the log-in
    sessions: SessionManager,
    id: SessionId,
    presented: str | None = None,
    *,
    client: Client | None = None,
    held: Sequence[str] = (),
    bind_to: str | None = None,
) -> IssuedSession:
    """
    Replace the session's token by one that only the caller has; a pending session is activated.

    It can be done once with each token: of several who try, one has the new one. Whoever planted the token, or saw it
    on its way, has nothing: sockets that it opened are closed, tickets that it got are void.

    Args:
        presented: The current token; without it the caller has made sure otherwise, as by a ticket.
        held: As ``SessionManager.authenticate`` has it.
        bind_to: Something ``held`` that the session is bound to from now on, if it was not before.

    Raises:
        As ``authenticate``, and as ``suspend_session``.
    """
    if presented is not None:
        if tokens.session_of(presented) != id:
            raise InvalidToken("the token belongs to another session")
        await sessions.authenticate(presented, client=client, held=held)
    session = await sessions.get_session(id)
    if session is None:
        raise InvalidToken("the session was deleted")
    check_usable(session, even_pending=True)
    check_holder(session, held)
    actor = actor_of(session)
    if session.state is SessionState.PENDING:
        await sessions.activate_session(id, actor=actor, reason="login")
    return await sessions.replace_token(id, presented, client=client, actor=actor, reason="login", bound_to=bind_to)


async def reauthenticate(sessions: SessionManager, id: SessionId, *, actor: str = "system") -> IssuedSession:
    """
    The user of the session has proved again who they are: a new token, and the one before it is dead (ASVS 7.2.4).

    A suspended session is active again. To be called by who has seen the proof, never by the session itself.
    Raises as ``suspend_session``.
    """
    issued = await sessions.replace_token(id, actor=actor, reason="reauthentication", reauthenticated=True)
    if issued.session.state is not SessionState.SUSPENDED:
        return issued
    return IssuedSession(await sessions.resume_session(id, actor=actor, reason="reauthentication"), issued.token)
