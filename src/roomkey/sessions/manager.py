"""The commands on sessions: load, let the lifecycle decide, commit; start over after a lost race."""

import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial, wraps
from os import urandom
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import structlog
from msgspec import Struct

from roomkey import errors
from roomkey.domain.access import GrantLike, Grants, check_grants
from roomkey.domain.lifecycle import apply, check_usable, holds, overdue
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import (
    Activated,
    AnyEvent,
    Client,
    Deleted,
    Expired,
    Extended,
    GrantsChanged,
    Invalidated,
    IssuedSession,
    Resumed,
    Session,
    SessionEvent,
    SessionFilter,
    SessionId,
    SessionState,
    Suspended,
    TokenRotated,
    ViolationRecorded,
    check_user_id,
)
from roomkey.domain.token_uses import Place, TokenUse
from roomkey.errors import Conflict, InvalidState, InvalidToken, NotFound, TokenReused
from roomkey.ports import Clock, Page, Secret, SessionPage, SessionStorage, SystemClock
from roomkey.security import tokens
from roomkey.sessions.arguments import check_client, check_flag, check_text, checked
from roomkey.sessions.decisions import Decision, check_version, fact, transition
from roomkey.sessions.issuing import SessionRequest, check_lifetime, issue
from roomkey.sessions.queries import HealthStatus, SessionMetrics, SessionQueries
from roomkey.sessions.races import Races
from roomkey.sessions.rotation import Rotation, TokenStanding, succeed

EventListener = Callable[[Sequence[AnyEvent]], None]
P = ParamSpec("P")
T = TypeVar("T")
Command = Callable[Concatenate["SessionManager", SessionId, P], Coroutine[Any, Any, T]]

_log = structlog.get_logger("roomkey.sessions")


class UserRevocation(Struct, frozen=True):
    """The user's new epoch, and how many live sessions were ended with it."""

    epoch: int
    revoked: int


def _starts_over(command: Command[P, T]) -> Command[P, T]:
    """Let ``command`` decide again on fresh state after a lost race."""

    @wraps(command)
    async def persist(self: "SessionManager", id: SessionId, *args: P.args, **details: P.kwargs) -> T:
        races = self._races  # pyright: ignore[reportPrivateUsage]  # this is a part of the class
        return await races.persist(id, partial(command, self, id, *args, **details))

    return persist


class SessionManager:
    """
    Issues, checks, suspends and revokes sessions.

    A command that returns has been committed, and every listener has been told. One that raises changed
    nothing, unless it found the session's time to be over: that is written down. Commands on a missing
    session raise ``NotFound``; reads and deletes answer ``None`` or ``False``. What happened is attributed
    to ``actor``. Safe to use from any number of tasks of one loop, and from any number of processes on one
    storage.
    """

    def __init__(
        self,
        storage: SessionStorage,
        *,
        policy: SessionPolicy | None = None,
        clock: Clock | None = None,
        default_grants: Grants = (),
        rotation_key: bytes | None = None,
        degraded_from: int = 10_000,
    ) -> None:
        """
        Args:
            rotation_key: Derives the successors of rotated tokens. All processes on one storage need the same;
                without one, a random one lives as long as this object.
            degraded_from: Number of sessions from which ``health_check`` says ``degraded``.
        """
        if not hasattr(storage, "get_with_secret"):
            raise TypeError(f"storage must be a SessionStorage, as open_storage() returns it, not {storage!r}")
        if not isinstance(cast("object", policy), SessionPolicy | None):
            raise TypeError(f"policy must be a SessionPolicy or None, not {policy!r}")
        self.storage = storage
        self.policy = policy or SessionPolicy()
        self.clock = clock or SystemClock()
        self.default_grants = default_grants
        self._now = self.clock.now
        self._rotation = Rotation(rotation_key or urandom(32), self.policy)
        self._listeners: list[EventListener] = []
        self._races = Races()
        self._queries = SessionQueries(storage, self.clock, degraded_from=degraded_from)

    @checked
    def on_events(self, listener: EventListener) -> Callable[[], None]:
        """
        Call ``listener`` with the events of each commit, before the command that made them returns.

        Returns a function that ends this.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # --- issue ----------------------------------------------------------------------------------------

    async def create_session(
        self,
        user_id: str,
        *,
        client: Client | None = None,
        grants: Sequence[GrantLike] | None = None,
        lifetime: timedelta | None = None,
        metadata: Mapping[str, Any] | None = None,
        activate: bool = False,
        actor: str = "system",
    ) -> IssuedSession:
        """
        Issue a session, and the only copy of its token. It is pending, unless ``activate``.

        Raises:
            InvalidInput: If the user id, a grant, the lifetime or the metadata is beyond its limits.
            CapReached: If the user has as many sessions as the policy allows and it does not evict.
        """
        # Not ``checked``, which costs as much as the indexes do: what is asked for is checked where it is made.
        check_flag("activate", activate)
        check_text("actor", actor)
        now = self._now()
        request = SessionRequest(user_id=user_id, client=client, grants=grants, lifetime=lifetime, metadata=metadata)
        issued, new = issue(request, self.policy, self.default_grants, actor=actor, now=now)
        evicted = await self.storage.create((new,), self.policy, now)
        self._announce((new.event, *evicted))
        if activate:
            return IssuedSession(await self.activate_session(issued.id, actor=actor), issued.token)
        return issued

    @checked
    async def create_sessions(
        self, requests: Sequence[SessionRequest], *, actor: str = "system"
    ) -> list[IssuedSession]:
        """
        Issue many sessions, in the order of ``requests``. Sessions of one user come together or not at all.

        Raises:
            InvalidInput, CapReached: As ``create_session``. On ``InvalidInput`` none was created.
        """
        now = self._now()
        pairs = [issue(request, self.policy, self.default_grants, actor=actor, now=now) for request in requests]
        if not pairs:
            return []
        evicted = await self.storage.create([new for _, new in pairs], self.policy, now)
        self._announce([*(new.event for _, new in pairs), *evicted])
        return [issued for issued, _ in pairs]

    # --- check ----------------------------------------------------------------------------------------

    async def get_session(self, id: SessionId) -> Session | None:
        """The session, or ``None``. If its time is over, it is expired (or suspended) first."""
        # These three are called most often, and check for themselves.
        if not isinstance(cast("object", id), str):
            check_text("id", id)
        session = await self.storage.get(id)
        if session is None:
            return None
        now = self._now()
        # Written out, because this is the most frequent call of all: an active session in its time.
        if session.state is SessionState.ACTIVE and now < session.expires_at:
            idle = session.idle_timeout
            if idle is None or now - session.last_seen_at < idle:
                return session
        return await self._settle(session, now)

    @checked
    async def get_sessions(self, ids: Sequence[SessionId]) -> list[Session | None]:
        """The sessions in the order of ``ids``, as ``get_session`` would return them."""
        now = self._now()
        found = await self.storage.get_many(ids)
        return [None if session is None else await self._settle(session, now) for session in found]

    async def validate_session(self, id: SessionId) -> bool:
        """Whether the session is active and in its time: only then may it use rooms."""
        session = await self.get_session(id)
        return session is not None and session.state is SessionState.ACTIVE

    async def authenticate(self, token: str, *, client: Client | None = None, is_activity: bool = True) -> Session:
        """
        The pending or active session that ``token`` opens.

        Args:
            client: Who presents the token. Once it has been rotated, this tells a second tab from a thief.
            is_activity: Whether its user did something just now, which moves the idle deadline. Programs present
                tokens by themselves, too, when they reconnect.

        Raises:
            InvalidToken: If no session of ours answers to it. Nothing is created or adopted.
            TokenRotated: If it was replaced longer ago than the grace; the session goes on.
            TokenReused: If two parties have tokens of the session: a theft, the session is revoked.
            Expired, Invalidated, Suspended: If the token is genuine and its session is not usable.
        """
        check_text("token", token)
        check_client("client", client)
        check_flag("is_activity", is_activity)
        try:
            session = await self._authenticate(token, client)
        except errors.InvalidToken as refusal:
            _log.warning("token_refused", code=refusal.code, ip=client.ip if client else None)
            raise
        except TokenReused:
            await self._revoke_stolen(tokens.session_of(token))
            raise
        if is_activity:
            await self._note_activity(session, self._now())
        return session

    async def _authenticate(self, token: str, client: Client | None) -> Session:
        id = tokens.session_of(token)
        found = await self.storage.get_with_secret(id)
        if found is None:
            raise InvalidToken("no session answers to this token")
        session, secret = found
        now = self._now()
        standing = self._rotation.standing(token, secret, now)
        if standing is TokenStanding.UNKNOWN:
            raise InvalidToken("no session answers to this token")
        session = await self._settle(session, now)
        check_usable(session, even_pending=True)
        if secret.generation:
            await self._check_use(session, secret, standing, client, now)
        return session

    async def touch(self, id: SessionId) -> None:
        """Record activity now. Written at most once per tenth of the idle limit; a missing session is ignored."""
        check_text("id", id)
        session = await self.storage.get(id)
        if session is not None:
            await self._note_activity(session, self._now())

    async def _note_activity(self, session: Session, now: datetime) -> None:
        # A stored moment that lags behind ends the session early, never late. The jitter keeps the sockets
        # of one session, and the sessions of one burst, from writing at the same moment.
        idle = session.idle_timeout
        if idle is not None and now - session.last_seen_at >= idle * random.uniform(0.07, 0.1):  # noqa: S311  # jitter is no secret
            await self.storage.touch(session.id, now)

    # --- change ---------------------------------------------------------------------------------------

    @checked
    async def activate_session(
        self, id: SessionId, *, actor: str = "system", reason: str | None = None, if_version: int | None = None
    ) -> Session:
        """Let a pending session use rooms. Raises as ``suspend_session``."""
        return await self._change(id, transition(Activated, actor, reason), if_version)

    @checked
    async def suspend_session(
        self, id: SessionId, *, actor: str = "system", reason: str | None = None, if_version: int | None = None
    ) -> Session:
        """
        Take access away until the session is resumed; its token stays.

        Raises:
            NotFound: If there is no such session.
            InvalidState: If its state does not allow it. Asking for what already holds is not an error.
            VersionMismatch: If ``if_version`` is given and is not the current version.
            Conflict: If others kept changing the session, all the time.
        """
        return await self._change(id, transition(Suspended, actor, reason), if_version)

    @checked
    async def resume_session(
        self, id: SessionId, *, actor: str = "system", reason: str | None = None, if_version: int | None = None
    ) -> Session:
        """Give a suspended session its access back. Raises as ``suspend_session``."""
        return await self._change(id, transition(Resumed, actor, reason), if_version)

    @checked
    async def expire_session(
        self, id: SessionId, *, actor: str = "system", reason: str | None = None, if_version: int | None = None
    ) -> Session:
        """End the session as if its time were over. Raises as ``suspend_session``."""
        return await self._change(id, transition(Expired, actor, reason), if_version)

    @checked
    async def invalidate_session(
        self, id: SessionId, *, actor: str = "system", reason: str | None = None, if_version: int | None = None
    ) -> Session:
        """Revoke the session for good. Raises as ``suspend_session``."""
        return await self._change(id, transition(Invalidated, actor, reason), if_version)

    @checked
    async def invalidate_sessions(
        self, ids: Sequence[SessionId], *, actor: str = "system", reason: str | None = None
    ) -> list[bool]:
        """Revoke many sessions; ``False`` stands for one that does not exist. What is over already counts as done."""
        now = self._now()
        sessions = await self.storage.get_many(ids)
        changes: list[tuple[Session, SessionEvent]] = []
        for session in {session.id: session for session in sessions if session is not None}.values():
            if not holds(session, Invalidated):
                event = fact(Invalidated, session, now, actor, reason)
                changes.append((apply(session, event), event))
        done = await self.storage.update_many(changes)
        self._announce([event for (_, event), fits in zip(changes, done, strict=True) if fits])
        lost = {session.id for (session, _), fits in zip(changes, done, strict=True) if not fits}
        gone: set[SessionId] = set()
        for id in lost:
            try:
                await self._change(id, transition(Invalidated, actor, reason))
            except NotFound:
                gone.add(id)
        return [session is not None and session.id not in gone for session in sessions]

    @checked
    async def extend_session(
        self,
        id: SessionId,
        lifetime: timedelta | None = None,
        *,
        actor: str = "system",
        if_version: int | None = None,
    ) -> Session:
        """
        Move the absolute deadline to ``lifetime`` from now (default and maximum: the policy's lifetime).

        The deadline is never moved closer; asking for an earlier one changes nothing.

        Raises:
            InvalidInput: If the lifetime is beyond the policy's. Otherwise as ``suspend_session``.
        """
        by = self.policy.lifetime if lifetime is None else check_lifetime(lifetime, self.policy)

        def decide(session: Session, now: datetime) -> Extended | None:
            event = fact(Extended, session, now, actor, None, expires_at=now + by)
            if session.state.is_live and event.expires_at <= session.expires_at:
                return None
            return event

        return await self._change(id, decide, if_version)

    @checked
    async def change_grants(
        self, id: SessionId, grants: Sequence[GrantLike], *, actor: str = "system", if_version: int | None = None
    ) -> Session:
        """
        Let the session do what ``grants`` say from now on, and nothing else; its open sockets obey at once.

        The order counts, because the first grant that matches a document wins. The same grants are no event.

        Raises:
            InvalidInput: If a grant is beyond its limits. Otherwise as ``suspend_session``.
        """
        granted = check_grants(grants)

        def decide(session: Session, now: datetime) -> GrantsChanged | None:
            if session.state.is_live and session.grants == granted:
                return None
            return fact(GrantsChanged, session, now, actor, None, grants=granted)

        return await self._change(id, decide, if_version)

    @checked
    async def record_violation(self, id: SessionId, cause: str, *, actor: str = "system") -> Session:
        """Count a misbehaviour of the session's holder, ``cause`` in a word. Raises as ``suspend_session``."""
        return await self._change(id, transition(ViolationRecorded, actor, cause))

    @checked
    async def revoke_user(
        self,
        user_id: str,
        *,
        except_session: SessionId | None = None,
        actor: str = "system",
        reason: str | None = None,
    ) -> UserRevocation:
        """
        End every session of the user that was issued before, whether or not any index lists it.

        Raises:
            InvalidInput: If ``user_id`` cannot be one.
        """
        check_user_id(user_id)
        done = await self.storage.revoke_user(
            user_id, self._now(), actor=actor, cause=reason, except_session=except_session
        )
        self._announce(done.events)
        return UserRevocation(done.epoch, len(done.events) - 1)

    @checked
    async def delete_session(self, id: SessionId, *, actor: str = "system", if_version: int | None = None) -> bool:
        """Remove the session, live or not; ``False`` if there is none. Its history stays until the retention."""
        return await self._delete(id, actor, if_version)

    @_starts_over
    async def _delete(self, id: SessionId, actor: str, if_version: int | None) -> bool:
        session = await self.storage.get(id)
        if session is None:
            return False
        check_version(session, if_version)
        event = fact(Deleted, session, self._now(), actor, None)
        deleted = await self.storage.delete(event)
        if deleted:
            self._announce((event,))
        return deleted

    @_starts_over
    async def _change(self, id: SessionId, decide: Decision, if_version: int | None = None) -> Session:
        """Load, decide, commit. A decision of ``None`` changes nothing."""
        session = await self.storage.get(id)
        if session is None:
            raise NotFound("there is no such session")
        check_version(session, if_version)
        now = self._now()
        session = await self._settle(session, now)
        event = decide(session, now)
        if event is None:
            return session
        after = apply(session, event)
        await self.storage.update(after, event)
        self._announce((event,))
        return after

    async def _settle(self, session: Session, now: datetime) -> Session:
        """The session after what time has made due, committed."""
        event = overdue(session, now, self.policy.on_idle)
        while event is not None:
            after = apply(session, event)
            try:
                await self.storage.update(after, event)
            except Conflict:
                fresh = await self.storage.get(session.id)
                if fresh is None:
                    return after
                session = fresh
            except NotFound:
                return after
            else:
                self._announce((event,))
                session = after
            event = overdue(session, now, self.policy.on_idle)
        return session

    def _announce(self, events: Sequence[AnyEvent]) -> None:
        for listener in self._listeners:
            listener(events)

    # --- rotate ---------------------------------------------------------------------------------------

    @checked
    async def rotate_token(
        self,
        id: SessionId,
        presented: str | None = None,
        *,
        client: Client | None = None,
        actor: str = "system",
        if_version: int | None = None,
    ) -> IssuedSession:
        """
        Replace the session's token; the one before it is honoured for the policy's grace.

        A holder presents its current token, and everyone who presents the same one within the grace gets the
        same successor. An operator presents nothing and gets a random one.

        Raises:
            InvalidToken: If ``presented`` does not belong to this session.
            TokenRotated, TokenReused: As ``authenticate``.
            NotFound, InvalidState, Conflict: As ``suspend_session``.
        """
        if presented is not None and tokens.session_of(presented) != id:
            raise InvalidToken("the token belongs to another session")
        try:
            return await self._rotate(id, presented, client, actor, if_version)
        except TokenReused:
            # Here, because a command that waits for its turn cannot wait for another of the same session.
            await self._revoke_stolen(id)
            raise

    @_starts_over
    async def _rotate(
        self, id: SessionId, presented: str | None, client: Client | None, actor: str, if_version: int | None
    ) -> IssuedSession:
        found = await self.storage.get_with_secret(id)
        if found is None:
            raise NotFound("there is no such session")
        session, secret = found
        check_version(session, if_version)
        now = self._now()
        session = await self._settle(session, now)
        event = fact(TokenRotated, session, now, actor, None)
        rotator = None
        if presented is None:
            after, token = apply(session, event), tokens.mint(id)
        else:
            standing = self._rotation.standing(presented, secret, now)
            if standing is TokenStanding.UNKNOWN:
                raise InvalidToken("the token does not belong to this session")
            if standing is TokenStanding.GRACE:
                return await self._repeat_rotation(session, secret, presented, client)
            after = apply(session, event)
            await self._check_use(session, secret, standing, client, now)
            token = self._rotation.successor(presented, secret)
            rotator = TokenUse(Place.of(client), is_current=True, first_at=now, last_at=now)
        await self.storage.update(after, event, secret=succeed(secret, token, now, rotator))
        self._announce((event,))
        return IssuedSession(after, token)

    async def _repeat_rotation(
        self, session: Session, secret: Secret, presented: str, client: Client | None
    ) -> IssuedSession:
        """Hand a racer within the grace the successor that the winner got."""
        token = self._rotation.successor_again(presented, secret)
        if token is None:
            raise InvalidToken("the token was replaced by an operator")
        if not session.state.is_live:
            raise InvalidState(f"a session that is {session.state} cannot become {TokenRotated.tag()}")
        # From here on the current token is at this place, too.
        await self._check_use(session, secret, TokenStanding.CURRENT, client, self._now())
        return IssuedSession(session, token)

    async def _check_use(
        self, session: Session, secret: Secret, standing: TokenStanding, client: Client | None, now: datetime
    ) -> None:
        """Raise if the token has been replaced, or if it shows that two parties have tokens of the session."""
        verdict = self._rotation.judge(session, secret, standing, client, now)
        if verdict.to_note is not None:
            await self.storage.note_use(
                session.id, verdict.to_note, generation=secret.generation, window=self.policy.reuse_window
            )
        if not verdict.is_theft and standing is not TokenStanding.REPLACED:
            return
        _log.warning(
            "token_reuse",
            session=session.id,
            ip=client.ip if client else None,
            user_agent=client.user_agent if client else None,
            outcome="session_ended" if verdict.is_theft else "refused",
        )
        if verdict.is_theft:
            raise TokenReused("tokens of the session were used by two parties, and it has been ended")
        raise errors.TokenRotated("the token was replaced by a newer one")

    async def _revoke_stolen(self, id: SessionId) -> None:
        with suppress(NotFound, InvalidState):  # it has ended by other means
            await self._change(id, transition(Invalidated, "system", "token_reused"))

    # --- ask ------------------------------------------------------------------------------------------

    @checked
    async def list_sessions(self, filter: SessionFilter | None = None, page: Page | None = None) -> SessionPage:
        """
        A page of sessions; follow ``next_cursor`` for the rest. States are as stored: overdue ones may be among them.

        Raises:
            InvalidInput: If the cursor is not ours or the limit is not within 1 to 500.
        """
        return await self._queries.list(filter or SessionFilter(), page or Page())

    @checked
    async def count_sessions(self, filter: SessionFilter | None = None) -> int:
        """How many sessions match."""
        return await self.storage.count(filter or SessionFilter())

    async def metrics(self) -> SessionMetrics:
        """The figures of this moment, in constant time. The manager carries no bytes: a node adds its sockets'."""
        return await self._queries.metrics()

    async def health_check(self) -> HealthStatus:
        """How the sessions and what keeps them are doing. Does not raise."""
        return await self._queries.health()
