"""
The watch over the sessions of a node: what it is told, and what it does about it.

It is told of violations by events of sessions, of clients by whoever authenticates them, of refusals by security
events, and looks at the traffic of sockets now and then. Nothing of that waits, and nothing is done per message. What
was told is entered into the ledgers of users with every tick, and what follows is done: commands, warnings, reports.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import structlog

from roomkey.domain.session import (
    AnyEvent,
    Client,
    Created,
    Session,
    SessionId,
    TokenRotated,
    UserRevoked,
    ViolationRecorded,
)
from roomkey.errors import InvalidState, NotFound, RoomkeyError, Serialization, SuspiciousInput
from roomkey.ports import Clock, ObjectStore, Ruling
from roomkey.security.events import SecurityEvent, SecurityEvents, SecurityEventType
from roomkey.threats.books import LedgerBook, Names, PatternBook
from roomkey.threats.decay import Strike, weight_of
from roomkey.threats.ledger import Finding, News, Sighting, risk_of
from roomkey.threats.patterns import Use
from roomkey.threats.places import Place, place_of
from roomkey.threats.seen import Latest, SeenClients
from roomkey.threats.settings import SignalPolicy, ThreatSettings
from roomkey.threats.signals import OF_THE_CLIENT, Sign, Signal
from roomkey.threats.traffic import Refusals, Traffic, TrafficBook, rejection
from roomkey.threats.verdicts import OF_POLICIES, VIOLATIONS, Risk, Verdict, of_level

TICK_SECONDS: Final = 0.25

WINDOW_TICKS: Final = 20
"""Ticks of a window of traffic; each looks at as large a share of the sessions."""

SAVE_INTERVAL: Final = timedelta(seconds=30)
"""How often patterns are written. What a node that dies has not written was only a hint."""

SWEEP_INTERVAL: Final = timedelta(hours=1)

MAX_PENDING: Final = 10_000
"""Users of whom something waits to be entered, while storage is slow; beyond it the oldest are dropped, and counted."""

AT_A_TIME: Final = 32
"""Ledgers that are entered at the same time."""

ACTOR: Final = "system"
USERS: Final = "user:"

_log = structlog.get_logger("roomkey.threats")


class SessionCommands(Protocol):
    """What the watch does to sessions. Each may be repeated without a further effect, except ``record_violation``."""

    async def suspend_session(self, id: SessionId, *, actor: str, reason: str) -> object:
        """Take access away."""
        ...

    async def invalidate_session(self, id: SessionId, *, actor: str, reason: str) -> object:
        """End the session."""
        ...

    async def record_violation(self, id: SessionId, cause: str) -> object:
        """Count a violation."""
        ...


class WatchedSockets(Protocol):
    """What the watch wants to know of the sockets of its node, and tells them."""

    def sessions(self) -> Sequence[SessionId]:
        """The sessions that have a socket."""
        ...

    def traffic(self, id: SessionId) -> tuple[Session, int, int] | None:
        """The session, what its sockets have sent so far, and how many of these messages were refused."""
        ...

    def warn(self, id: SessionId, details: Mapping[str, Any], until: datetime) -> None:
        """Tell the session's sockets that its violations count, and those that it opens until then."""
        ...


class ThreatWatch:
    """
    The ``ClientWatch`` of a node's sessions.

    ``run`` must run; until then what is told waits, within bounds. All on one loop.
    """

    def __init__(
        self,
        objects: ObjectStore,
        commands: SessionCommands,
        *,
        settings: ThreatSettings,
        clock: Clock,
        events: SecurityEvents,
        key: bytes,
    ) -> None:
        """``key`` has 16 to 64 bytes, the same on all nodes that share ``objects``."""
        names = Names(key)
        self._settings = settings
        self._key = key
        self._now = clock.now
        self._events = events
        self._commands = commands
        self._ledgers = LedgerBook(objects, names, settings)
        self._patterns = PatternBook(objects, names, settings)
        self._seen = SeenClients()
        self._traffic = TrafficBook()
        self._refusals = Refusals()
        self._sockets: WatchedSockets | None = None
        self._pending: Latest[str, dict[SessionId, News]] = Latest(MAX_PENDING)
        self._uses: list[tuple[str, SessionId, Use]] = []
        self._due: Latest[SessionId, Finding] = Latest(MAX_PENDING)
        self._heard: Latest[SessionId, int] = Latest(MAX_PENDING)
        self._suspicious: Latest[SessionId, None] = Latest(MAX_PENDING)
        self._ticks = 0
        self._to_look_at: list[SessionId] = []
        self._share = 0
        self._save_at = self._sweep_at = clock.now()
        strict = (SignalPolicy.CHALLENGE, SignalPolicy.REVOKE)
        self._is_strict = settings.on_network_change in strict or settings.on_program_change in strict

    def watch(self, sockets: WatchedSockets | None) -> None:
        """Look at the traffic of these sockets from now on."""
        self._sockets = sockets

    # --- what it is told ------------------------------------------------------------------------------

    def knows(self, session: Session, client: Client, now: datetime) -> bool:
        """Whether ``client`` was the last one with the session here, so that there is nothing to judge."""
        return self._seen.is_same(session.id, client, now)

    async def judge(self, session: Session, client: Client, now: datetime, *, is_current: bool) -> Ruling | None:
        """
        What follows at once from ``client`` presenting a token of the session; ``is_current`` if it is the current one.

        Where the policies only flag, nothing does and nothing is waited for.

        Raises:
            Storage: If a policy may forbid it, and it cannot be found out.
        """
        place = place_of(client, self._settings)
        sighting = Sighting(place, is_current)
        self._tell(session.user_id, session.id, _news_of(session, sightings=(sighting,)))
        if self._is_strict:
            ruling = await self._rule(session)
            if ruling is not None:
                return ruling
        self._saw(session, client, place, now)
        return None

    def unproven(self, session: Session, now: datetime) -> Ruling | None:
        """What follows from a genuine token that came without the key that the session is bound to."""
        policy = self._settings.on_key_change
        if policy is SignalPolicy.IGNORE:
            return None
        sign = Sign(now, 1.0, "not the key that it is bound to")
        self._tell(session.user_id, session.id, _news_of(session, signs=((Signal.KEY, sign),)))
        verdict = OF_POLICIES[policy]
        if verdict.severity < Verdict.CHALLENGE.severity:
            return None
        return Ruling(verdict is Verdict.INVALIDATE, f"{verdict}_{Signal.KEY}")

    async def _rule(self, session: Session) -> Ruling | None:
        news = self._pending.pop(session.user_id) or {}
        try:
            findings = await self._ledgers.enter(session.user_id, news, self._now())
        except RoomkeyError:
            self._tell_again(session.user_id, news)
            raise
        ruling = None
        for finding in findings:
            self._report(session.user_id, finding)
            if finding.verdict.severity < Verdict.CHALLENGE.severity:
                continue
            if finding.session == session.id:
                ruling = Ruling(finding.verdict is Verdict.INVALIDATE, _cause(finding))
            else:
                self._due.set(finding.session, finding)
        return ruling

    def _saw(self, session: Session, client: Client, place: Place, now: datetime) -> None:
        if self._settings.patterns and self._seen.is_due(session.id, client, now) and len(self._uses) < MAX_PENDING:
            self._uses.append((session.user_id, session.id, Use.of(session.user_id, place, now, self._key)))
        sign = self._seen.note(session.id, client, place, now)
        if sign is not None:
            self._tell(session.user_id, session.id, _news_of(session, signs=((Signal.PARALLEL, sign),)))

    def on_events(self, events: Sequence[AnyEvent]) -> None:
        """
        Something was committed about sessions by this node.

        Each violation is told by the node that recorded it; if others tell of it as well, it counts once.
        """
        for event in events:
            match event:
                case ViolationRecorded():
                    self._strike(event)
                case TokenRotated() if not (event.by_holder or event.actor.startswith(USERS)):
                    # Somebody signed in again, and the application gave them a token that nobody else has.
                    self._seen.forget(event.session)
                    self._tell(event.user, event.session, News(until=event.at, rebinds=True))
                case Created() | UserRevoked():
                    pass
                case _:
                    self._seen.forget(event.session)

    def hear(self, events: Sequence[AnyEvent]) -> None:
        """
        Something was committed about sessions, perhaps by another node. Repetitions do not matter.

        Violations of sessions that have sockets here are told as well, so that these are warned, too.
        """
        for event in events:
            if isinstance(event, ViolationRecorded) and self._sockets is not None:
                is_news = event.version > (self._heard.get(event.session) or 0)
                if is_news and self._sockets.traffic(event.session) is not None:
                    self._strike(event)

    def _strike(self, event: ViolationRecorded) -> None:
        self._heard.set(event.session, event.version)
        cause = event.reason or ""
        strike = Strike(event.at, event.version, weight_of(cause, self._settings.weights), cause)
        if strike.weight > 0:
            self._tell(event.user, event.session, News(until=event.at, strikes=(strike,)))

    def on_security_event(self, event: SecurityEvent) -> None:
        """Something was refused, perhaps to a session, or looks like an attack, which is a violation."""
        if event.session is not None and event.user is not None:
            self._refusals.count(event.session, event.user, event.type)
        if event.session is not None and event.cause == SuspiciousInput.code:
            self._suspicious.set(event.session, None)

    def _tell(self, user: str, id: SessionId, news: News) -> None:
        of_user = self._pending.get(user)
        if of_user is None:
            of_user = dict[SessionId, News]()
            self._pending.set(user, of_user)
        before = of_user.get(id)
        of_user[id] = news if before is None else before.beside(news)

    def _tell_again(self, user: str, news: Mapping[SessionId, News]) -> None:
        """What could not be entered comes before what was told meanwhile."""
        meanwhile = self._pending.pop(user) or {}
        for id, each in (*news.items(), *meanwhile.items()):
            self._tell(user, id, each)

    # --- what it does ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                await asyncio.sleep(TICK_SECONDS)
                await self.tick()
        finally:
            await self._save()

    async def tick(self) -> None:
        """Do what is due. ``run`` calls this."""
        now = self._now()
        await self._look_around(now)
        for id in self._suspicious.take_all():
            await self._violated(id, "inspection")
        await self.settle()
        if now >= self._save_at:
            self._save_at = now + SAVE_INTERVAL
            await self._save()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_INTERVAL
            await self._sweep(now)

    async def settle(self) -> None:
        """Enter everything that was told, and do what follows. What storage cannot take now waits for the next time."""
        await self._learn()
        pending = [*self._pending.take_all().items()]
        for start in range(0, len(pending), AT_A_TIME):
            async with asyncio.TaskGroup() as group:
                for user, news in pending[start : start + AT_A_TIME]:
                    group.create_task(self._enter(user, news))
        for id, finding in self._due.take_all().items():
            await self._carry_out(id, finding)

    async def _learn(self) -> None:
        uses, self._uses = self._uses, []
        if not uses:
            return
        try:
            oddities = await self._patterns.take(uses)
        except RoomkeyError as error:
            _log.warning("uses_not_learnt", uses=len(uses), error=str(error))
            return
        for oddity in oddities:
            sign = Sign(oddity.at, 1.0, oddity.value)
            self._tell(oddity.user, oddity.session, News(until=oddity.at, signs=((oddity.signal, sign),)))

    async def _enter(self, user: str, news: Mapping[SessionId, News]) -> None:
        try:
            findings = await self._ledgers.enter(user, news, self._now())
        except Serialization:
            _log.error("ledger_unreadable", sessions=list(news))  # where it was read says nothing
        except RoomkeyError as error:
            _log.warning("ledger_not_written", sessions=list(news), error=str(error))
            self._tell_again(user, news)
        else:
            for finding in findings:
                self._report(user, finding)
                if finding.verdict.severity >= Verdict.CHALLENGE.severity:
                    self._due.set(finding.session, finding)
            found = {finding.session for finding in findings}
            await self._warn_of_known(user, {id: each for id, each in news.items() if each.strikes and id not in found})

    async def _warn_of_known(self, user: str, news: Mapping[SessionId, News]) -> None:
        """Warn the sockets here of violations that another node has entered, and reported, before."""
        if not news:
            return
        try:
            ledger = await self._ledgers.read(user)
        except RoomkeyError as error:
            _log.warning("sockets_not_warned", sessions=list(news), error=str(error))
            return
        for id, each in news.items():
            risk = risk_of(ledger, id, self._now(), self._settings)
            if of_level(risk.level, self._settings) is Verdict.FLAG:
                self._warn(id, each.strikes[-1], risk)

    async def _carry_out(self, id: SessionId, finding: Finding) -> None:
        ends = finding.verdict is Verdict.INVALIDATE
        command = self._commands.invalidate_session if ends else self._commands.suspend_session
        try:
            await command(id, actor=ACTOR, reason=_cause(finding))
        except (NotFound, InvalidState):
            pass  # it is over, or was not activated yet and opens nothing
        except RoomkeyError as error:
            _log.warning("verdict_not_carried_out", session=id, verdict=finding.verdict, error=str(error))
            self._due.set(id, finding)

    def _report(self, user: str, finding: Finding) -> None:
        """Tell who watches, and the client whose violations count."""
        risk = finding.risk
        if finding.struck is not None and VIOLATIONS in risk.causes:
            if finding.verdict is Verdict.FLAG:
                self._warn(finding.session, finding.struck, risk)
            details = {"verdict": finding.verdict, "violations": f"{risk.level:.1f}"}
            self._say(SecurityEventType.VIOLATION, finding.struck.cause, user, finding.session, details)
        of_client = [signal for signal in finding.noticed if signal in OF_THE_CLIENT]
        others = [signal for signal in finding.noticed if signal not in OF_THE_CLIENT]
        for kind, signals in (
            (SecurityEventType.SESSION_HIJACKING, of_client),
            (SecurityEventType.ANOMALY, others),
        ):
            if signals:
                details = {"verdict": finding.verdict, "score": f"{risk.score:.2f}", **_explained(risk)}
                self._say(kind, ",".join(signals), user, finding.session, details)

    def _say(
        self, kind: SecurityEventType, cause: str, user: str, session: SessionId, details: Mapping[str, str]
    ) -> None:
        _log.warning(kind.value, session=session, cause=cause, **details)
        self._events.report(kind, cause, actor=f"{USERS}{user}", session=session, user=user, details=details)

    def _warn(self, id: SessionId, strike: Strike, risk: Risk) -> None:
        if self._sockets is None:
            return
        settings, level = self._settings, risk.level
        details = {
            "cause": strike.cause,
            "violations": round(level, 1),
            "suspended_at": settings.suspend_at,
            "ended_at": settings.max_violations,
            "forgiven_every_ms": int(settings.violation_check_interval.total_seconds() * 1000),
        }
        until = self._now() + settings.violation_check_interval * (level - settings.warn_at + 1)
        self._sockets.warn(id, details, until)

    async def _look_around(self, now: datetime) -> None:
        """Look at the traffic of a share of the sessions, and when a window begins at what was refused in the last."""
        if self._ticks % WINDOW_TICKS == 0:
            await self._look_at_refusals(now)
            self._to_look_at = [] if self._sockets is None else [*self._sockets.sessions()]
            self._traffic.keep_only(self._to_look_at)
            self._share = -(-len(self._to_look_at) // WINDOW_TICKS)
        self._ticks += 1
        for id in self._to_look_at[: self._share]:
            sent = None if self._sockets is None else self._sockets.traffic(id)
            if sent is not None and (signs := self._traffic.look(Traffic(*sent), now)):
                self._tell(sent[0].user_id, id, _news_of(sent[0], signs=signs))
        del self._to_look_at[: self._share]

    async def _look_at_refusals(self, now: datetime) -> None:
        for refused in self._refusals.take():
            if (sign := rejection(refused.count, now)) is not None:
                self._tell(refused.user, refused.session, News(until=now, signs=((Signal.REJECTED, sign),)))
            if refused.cause is not None:
                await self._violated(refused.session, refused.cause)

    async def _violated(self, id: SessionId, cause: str) -> None:
        try:
            await self._commands.record_violation(id, cause)
        except (RoomkeyError, TimeoutError) as error:
            _log.warning("violation_not_recorded", session=id, error=str(error))

    async def _save(self) -> None:
        try:
            await self._patterns.save()
        except RoomkeyError as error:
            _log.warning("patterns_not_saved", error=str(error))

    async def _sweep(self, now: datetime) -> None:
        try:
            await self._ledgers.sweep(now)
            await self._patterns.sweep(now)
        except RoomkeyError as error:
            _log.warning("threats_not_swept", error=str(error))

    # --- what is asked --------------------------------------------------------------------------------

    async def risk(self, session: Session) -> Risk:
        """
        How the session stands now, everything that was told to this node included.

        Raises:
            Storage: If it cannot be found out now.
        """
        await self.settle()
        return risk_of(await self._ledgers.read(session.user_id), session.id, self._now(), self._settings)

    async def forget(self, user: str) -> None:
        """
        Delete everything that is kept about a user here, which makes their sessions ones that nothing is known of.

        Raises:
            Storage: If it cannot be done now.
        """
        self._pending.pop(user)
        self._uses = [use for use in self._uses if use[0] != user]
        await self._patterns.forget(user)
        await self._ledgers.forget(user)


def _news_of(
    session: Session,
    *,
    sightings: tuple[Sighting, ...] = (),
    signs: Sequence[tuple[Signal, Sign]] = (),
) -> News:
    return News(until=session.expires_at, client=session.client, sightings=sightings, signs=tuple(signs))


def _cause(finding: Finding) -> str:
    """What the session's user is told: ``violations``, or the verdict and the signal, as in ``challenge_network``."""
    if VIOLATIONS in finding.causes:
        return VIOLATIONS
    return f"{finding.verdict}_{finding.causes[0]}"


def _explained(risk: Risk) -> Mapping[str, str]:
    return {each.signal.value: f"{each.contribution:.2f} of {each.weight:g}: {each.value}" for each in risk.signals}
