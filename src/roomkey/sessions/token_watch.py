"""Watches who presents which token of a session, and lets nobody go on with one that was replaced or stolen."""

from datetime import datetime, timedelta
from typing import NamedTuple

import structlog

from roomkey import errors
from roomkey.domain.lifecycle import apply
from roomkey.domain.session import Client, IssuedSession, Session, TokenRotated
from roomkey.domain.token_uses import Place, TokenUse
from roomkey.errors import InvalidState, InvalidToken, TokenReused
from roomkey.ports import Secret, SessionStorage
from roomkey.security import tokens
from roomkey.sessions.decisions import fact
from roomkey.sessions.near_cache import NearCache
from roomkey.sessions.rotation import Rotation, TokenStanding, succeed

_log = structlog.get_logger("roomkey.sessions")


class Replacement(NamedTuple):
    """A session with a new token, before it is committed."""

    session: Session
    event: TokenRotated
    secret: Secret
    token: str


class TokenWatch:
    """Remembers uses of tokens in storage, as far as they tell anything."""

    def __init__(self, storage: SessionStorage, rotation: Rotation, window: timedelta, cache: NearCache | None) -> None:
        self._storage = storage
        self._rotation = rotation
        self._window = window
        self._cache = cache

    async def check(
        self, session: Session, secret: Secret, standing: TokenStanding, client: Client | None, now: datetime
    ) -> None:
        """
        Raise if the token has been replaced, or if it shows that two parties have tokens of the session.

        Raises:
            TokenRotated, TokenReused: As they say; after the second the session is to be ended.
        """
        verdict = self._rotation.judge(session, secret, standing, client, now)
        if verdict.to_note is not None:
            await self._storage.note_use(session.id, verdict.to_note, generation=secret.generation, window=self._window)
            if self._cache is not None:
                self._cache.forget_session(session.id)
        if not verdict.is_theft and standing is not TokenStanding.REPLACED:
            return
        if verdict.is_theft:
            about = {} if client is None else {"ip": client.ip, "user_agent": client.user_agent}
            _log.warning("token_reuse", session=session.id, outcome="session_ended", **about)
            raise TokenReused("tokens of the session were used by two parties, and it has been ended")
        raise errors.TokenRotated("the token was replaced by a newer one")

    async def replace(
        self,
        session: Session,
        secret: Secret,
        presented: str | None,
        *,
        client: Client | None,
        actor: str,
        now: datetime,
    ) -> Replacement | IssuedSession:
        """
        What a rotation leads to. Who comes again within the grace gets what is issued already.

        Raises:
            InvalidToken, TokenRotated, TokenReused, InvalidState: As ``SessionManager.rotate_token``.
        """
        event = fact(TokenRotated, session, now, actor, None, by_holder=presented is not None)
        if presented is None:
            token, rotator = tokens.mint(session.id), None
            return Replacement(apply(session, event), event, succeed(secret, token, now, rotator), token)
        standing = self._rotation.standing(presented, secret, now)
        if standing is TokenStanding.UNKNOWN:
            raise InvalidToken("the token does not belong to this session")
        if standing is TokenStanding.GRACE:
            return await self._repeat_rotation(session, secret, presented, client, now)
        after = apply(session, event)
        await self.check(session, secret, standing, client, now)
        token = self._rotation.successor(presented, secret)
        rotator = TokenUse(Place.of(client), is_current=True, first_at=now, last_at=now)
        return Replacement(after, event, succeed(secret, token, now, rotator), token)

    def supersede(
        self, session: Session, secret: Secret, presented: str | None, event: TokenRotated, client: Client | None
    ) -> Replacement:
        """
        What ``event`` leads to, by which the token is replaced by a random one, without grace.

        Raises:
            TokenRotated: If ``presented`` is not the current one.
        """
        now = event.at
        if presented is not None and self._rotation.standing(presented, secret, now) is not TokenStanding.CURRENT:
            raise errors.TokenRotated("the token was replaced by a newer one")
        token = tokens.mint(session.id)
        user = None if client is None else TokenUse(Place.of(client), is_current=True, first_at=now, last_at=now)
        kept = succeed(secret, token, self._rotation.without_grace(now), user)
        return Replacement(apply(session, event), event, kept, token)

    async def _repeat_rotation(
        self, session: Session, secret: Secret, presented: str, client: Client | None, now: datetime
    ) -> IssuedSession:
        """Hand a racer within the grace the successor that the winner got."""
        token = self._rotation.successor_again(presented, secret)
        if token is None:
            raise InvalidToken("the token was replaced by an operator")
        if not session.state.is_live:
            raise InvalidState(f"a session that is {session.state} cannot become {TokenRotated.tag()}")
        # From here on the current token is at this place, too.
        await self.check(session, secret, TokenStanding.CURRENT, client, now)
        return IssuedSession(session, token)
