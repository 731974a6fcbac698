"""The commands on sessions: load, let the lifecycle decide, commit; start over after a lost race."""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from os import urandom
from typing import Any, cast

import structlog

from roomkey import errors
from roomkey.domain.access import GrantLike, Grants, check_grants
from roomkey.domain.lifecycle import apply, check_usable, holds, is_active, overdue
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
    SessionId,
    SessionState,
    Suspended,
    TokenRotated,
    ViolationRecorded,
    check_user_id,
)
from roomkey.errors import Conflict, InvalidState, InvalidToken, NotFound, TokenReused
from roomkey.ports import Clock, Secret, SessionStorage, SystemClock
from roomkey.security import tokens
from roomkey.security.attempts import Attempts
from roomkey.security.possession import check_confirmation, check_holder
from roomkey.sessions.arguments import check_client, check_flag, check_held, check_session, check_text, checked
from roomkey.sessions.decisions import Decision, UserRevocation, check_version, fact, transition
from roomkey.sessions.issuing import SessionRequest, check_lifetime, issue
from roomkey.sessions.near_cache import NearCache
from roomkey.sessions.queries import SessionQueries
from roomkey.sessions.races import Races, starts_over
from roomkey.sessions.recognition import Recognition
from roomkey.sessions.rotation import Rotation, TokenStanding
from roomkey.sessions.token_watch import Replacement, TokenWatch

EventListener = Callable[[Sequence[AnyEvent]], None]

# What every token is compared with. Python 3.11 takes a tenth of a microsecond to find a member in its class.
_UNKNOWN = TokenStanding.UNKNOWN

_log = structlog.get_logger("roomkey.sessions")


class SessionManager(SessionQueries):
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
        cache: NearCache | None = None,
        attempts: Attempts | None = None,
    ) -> None:
        """
        Args:
            attempts: Who has failed to authenticate; by default with the default limits.
            cache: Answers ``authenticate`` in front of a storage on another machine.
            rotation_key: Derives the successors of rotated tokens. All processes on one storage need the same;
                without one, a random one lives as long as this object.
            degraded_from: Number of sessions from which ``health_check`` says ``degraded``.
        """
        if not hasattr(storage, "get_with_secret"):
            raise TypeError(f"storage must be a SessionStorage, as open_storage() returns it, not {storage!r}")
        if not isinstance(cast("object", policy), SessionPolicy | None):
            raise TypeError(f"policy must be a SessionPolicy or None, not {policy!r}")
        super().__init__(storage, clock or SystemClock(), degraded_from=degraded_from)
        self.policy = policy or SessionPolicy()
        self.default_grants = default_grants
        self._now = self.clock.now
        self._rotation = Rotation(rotation_key or urandom(32), self.policy)
        self._cache = cache
        self._watch = TokenWatch(storage, self._rotation, self.policy.reuse_window, cache)
        self.attempts = Attempts() if attempts is None else attempts
        """Who has failed to authenticate: also for other credentials than tokens."""
        self._read = storage.get_with_secret if cache is None else cache.read
        self._listeners: list[EventListener] = [] if cache is None else [cache.forget]
        self.races = Races()
        self.recognition = Recognition(self._change)

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
        bound_to: str | None = None,
        activate: bool = False,
        actor: str = "system",
    ) -> IssuedSession:
        """
        Issue a session, and the only copy of its token. It is pending, unless ``activate``. See ``Session.bound_to``.

        Raises:
            InvalidInput: If the user id, a grant, the lifetime or the metadata is beyond its limits.
            CapReached: If the user has as many sessions as the policy allows and it does not evict.
        """
        # Not ``checked``, which costs as much as the indexes do: what is asked for is checked where it is made.
        check_flag("activate", activate)
        check_text("actor", actor)
        now = self._now()
        request = SessionRequest(
            user_id=user_id, client=client, grants=grants, lifetime=lifetime, metadata=metadata, bound_to=bound_to
        )
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
        return session if is_active(session, now) else await self._settle(session, now)

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

    async def authenticate(
        self, token: str, *, client: Client | None = None, is_activity: bool = True, held: Sequence[str] = ()
    ) -> Session:
        """
        The pending or active session that ``token`` opens.

        Args:
            client: Who presents the token. Once it has been rotated, this tells a second tab from a thief.
            is_activity: Whether its user did something just now, which moves the idle deadline. Programs present
                tokens by themselves, too, when they reconnect.
            held: What whoever presents the token has proved to have. A session that is bound opens for nobody else.

        Raises:
            InvalidToken: If no session of ours answers to it. Nothing is created or adopted.
            HolderUnproven: If the session is bound to something that is not ``held``.
            RateLimited: If ``client`` has been wrong too often to have a token looked at now.
            TokenRotated: If it was replaced longer ago than the grace; the session goes on.
            TokenReused: If two parties have tokens of the session: a theft, the session is revoked.
            Expired, Invalidated, Suspended: If the token is genuine and its session is not usable.
        """
        check_text("token", token)
        check_client("client", client)
        check_flag("is_activity", is_activity)
        check_held("held", held)
        address = None if client is None else client.ip
        self.attempts.check(address, token)
        try:
            session, now = await self._authenticate(token, client, held)
        except errors.InvalidToken:
            self.attempts.failed(address, token)
            raise
        except TokenReused:
            await self._revoke_stolen(tokens.session_of(token))
            raise
        self.attempts.succeeded(token)
        if is_activity:
            await self._note_activity(session, now)
        return session

    async def _authenticate(self, token: str, client: Client | None, held: Sequence[str]) -> tuple[Session, datetime]:
        """The session, and the time at which it was good."""
        id = tokens.session_of(token)
        found = None if self._cache is None else self._cache.opened_by(token, id, self._now())
        found = found or await self._read(id)
        if found is None:
            raise InvalidToken("no session answers to this token")
        session, secret = found
        now = self._now()
        standing = self._rotation.standing(token, secret, now)
        if standing is _UNKNOWN:
            raise InvalidToken("no session answers to this token")
        try:
            check_holder(session, held)
        except errors.HolderUnproven:
            await self.recognition.unproven(session, now)
            raise
        if not is_active(session, now):
            session = await self._settle(session, now)
            check_usable(session, even_pending=True)
        if secret.generation:
            await self._watch.check(session, secret, standing, client, now)
        if not self.recognition.knows(session, client, now):
            await self.recognition.check(session, client, now, is_current=standing is TokenStanding.CURRENT)
        return session, now

    async def recognise(self, session: Session, client: Client | None) -> None:
        """Raise as ``authenticate`` if ``client`` may not be with a session that a ticket has opened."""
        check_session("session", session)
        check_client("client", client)
        now = self._now()
        if not self.recognition.knows(session, client, now):
            await self.recognition.check(session, client, now, is_current=False)

    async def touch(self, id: SessionId) -> None:
        """Record activity now. Written at most once per tenth of the idle limit; a missing session is ignored."""
        check_text("id", id)
        session = await self.storage.get(id)
        if session is not None:
            await self._note_activity(session, self._now())

    async def _note_activity(self, session: Session, now: datetime) -> None:
        # A stored moment that lags behind ends the session early, never late. The jitter keeps the sockets
        # of one session, and the sessions of one burst, from writing at the same moment.
        idle, since = session.idle_timeout, now - session.last_seen_at
        if idle is None or since * 15 < idle:  # sooner than any jitter, and cheaper to find out
            return
        if since >= idle * random.uniform(0.07, 0.1):  # noqa: S311  # jitter is no secret
            if self._cache is not None:
                self._cache.seen(session.id, now)
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
            user_id, self._now(), actor=actor, reason=reason, except_session=except_session
        )
        self._announce(done.events)
        return UserRevocation(done.epoch, len(done.events) - 1)

    @checked
    async def delete_session(self, id: SessionId, *, actor: str = "system", if_version: int | None = None) -> bool:
        """Remove the session, live or not; ``False`` if there is none. Its history stays until the retention."""
        return await self._delete(id, actor, if_version)

    @starts_over
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

    @starts_over
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

    @checked
    @starts_over
    async def replace_token(
        self,
        id: SessionId,
        presented: str | None = None,
        *,
        client: Client | None = None,
        actor: str = "system",
        reason: str | None = None,
        bound_to: str | None = None,
        reauthenticated: bool = False,
    ) -> IssuedSession:
        """
        Replace the session's token by a random one: the one before, its sockets and its tickets are void at once.

        ``logging_in`` says why. Raises as ``suspend_session``; ``TokenRotated`` if ``presented`` is not current.
        """
        session, secret, now = await self._with_secret(id)
        facts = {"bound_to": bound_to and check_confirmation(bound_to), "reauthenticated": reauthenticated}
        event = fact(
            TokenRotated, session, now, actor, reason, exclusive=True, by_holder=presented is not None, **facts
        )
        return await self._commit(self._watch.supersede(session, secret, presented, event, client))

    @starts_over
    async def _rotate(
        self, id: SessionId, presented: str | None, client: Client | None, actor: str, if_version: int | None
    ) -> IssuedSession:
        session, secret, now = await self._with_secret(id, if_version)
        made = await self._watch.replace(session, secret, presented, client=client, actor=actor, now=now)
        return await self._commit(made)

    async def _commit(self, made: Replacement | IssuedSession) -> IssuedSession:
        if isinstance(made, IssuedSession):
            return made
        await self.storage.update(made.session, made.event, secret=made.secret)
        self._announce((made.event,))
        return IssuedSession(made.session, made.token)

    async def _with_secret(self, id: SessionId, if_version: int | None = None) -> tuple[Session, Secret, datetime]:
        """The session after what time has made due, its secret, and that time."""
        found = await self.storage.get_with_secret(id)
        if found is None:
            raise NotFound("there is no such session")
        check_version(found[0], if_version)
        now = self._now()
        return await self._settle(found[0], now), found[1], now

    async def _revoke_stolen(self, id: SessionId) -> None:
        with suppress(NotFound, InvalidState):  # it has ended by other means
            await self._change(id, transition(Invalidated, "system", "token_reused"))
