"""
What sessions may do in documents, remembered: one answer of the application for each session and document.

The rule: a session may do what its grants *and* the application allow. Without an application the grants say it all.

An answer is used for ``max_age``. Then it is asked for again: at doors by whoever comes, for sockets that are inside in
the background; a frame never waits. While the application gives no answer, the last one is used for ``stale_if_error``
more, and nobody gets in of whom there is none. An answer to a question that is older than a recheck is not fresh.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from inspect import isawaitable
from time import perf_counter
from typing import Final

import structlog
from msgspec import Struct

from roomkey.access.settings import AccessSettings
from roomkey.domain.access import Access, access_to, groups_of, narrower
from roomkey.domain.session import Session, SessionId
from roomkey.errors import AccessUnknown
from roomkey.ports import NO_GROUPS, Authorize, Clock, KnownGroups, granting

MAX_ASKED: Final = 1_000
"""Questions that may wait for the application at a time; further ones are not asked."""

MAX_RECHECKS: Final = 10_000
"""Sessions and documents of which it is remembered that they were rechecked; beyond it everything is asked again."""

AWAY_AFTER: Final = 5
"""Questions in a row without an answer after which the application counts as away."""

PROBE_INTERVAL: Final = timedelta(seconds=1)
"""How often it is asked while it is away: nobody else waits for it."""

ALARM: Final = timedelta(minutes=2)
"""How long health stays degraded after a question without an answer."""

LOG_INTERVAL: Final = timedelta(seconds=10)

_ACCESSES: Final = {access.value: access for access in Access}

_log = structlog.get_logger("roomkey.access")


class NoAnswer(Exception):
    """The application said nothing that can be used; the message says why. ``is_away``: nor would it just now."""

    def __init__(self, reason: str, *, is_away: bool = False) -> None:
        super().__init__(reason)
        self.is_away = is_away


class AccessStatistics(Struct, frozen=True, kw_only=True):
    """How often this node has asked the application since it started, and what it remembers."""

    asked: int
    unanswered: int
    refused: int
    """Answers that allowed nothing."""
    slowest_seconds: float
    remembered: int


class _Answer(Struct, frozen=True, gc=False):
    access: Access | None
    asked_at: datetime
    turn: int
    """How many rechecks there had been when it was asked for."""


class _Question:
    """A question under way, for everybody who wants its answer."""

    __slots__ = ("answer", "done", "failure")

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.answer: _Answer | None = None
        self.failure: NoAnswer | None = None


class ApplicationDecisions:
    """The ``AccessDecisions`` where the application has a say. All on one event loop."""

    def __init__(
        self, authorize: Authorize, settings: AccessSettings, clock: Clock, groups: KnownGroups = NO_GROUPS
    ) -> None:
        self._authorize = authorize
        self._groups = groups
        self._settings = settings
        self.max_age = settings.max_age
        self._usable_for = settings.max_age + settings.stale_if_error
        self._now = clock.now
        self._answers: OrderedDict[tuple[SessionId, str], _Answer] = OrderedDict()
        self._questions: dict[tuple[SessionId, str, int], _Question] = {}
        self._turn = 0
        self._rechecked_all = 0
        self._rechecked: dict[tuple[SessionId | None, str | None], int] = {}
        self._failures = 0
        self._probe_at: datetime | None = None
        self._failure: tuple[datetime, str] | None = None
        self._logged_at: datetime | None = None
        self._asked = self._unanswered = self._refused = 0
        self._slowest = 0.0
        self._has_said_what_is_missing = False
        self.on_change: Callable[[SessionId], None] | None = None
        """Told of sessions that may do more or less than was remembered, before whoever asked is answered."""

    # --- what is remembered ---------------------------------------------------------------------------

    def access(self, session: Session, document: str) -> Access | None:
        """See ``AccessDecisions``."""
        answer = self._answers.get((session.id, document))
        if answer is None or self._now() - answer.asked_at >= self._usable_for:
            return None
        return narrower(self._granted(session, document), answer.access)

    def _granted(self, session: Session, document: str) -> Access | None:
        return access_to(document, session.grants, self._groups.of)

    def is_fresh(self, session: Session, document: str) -> bool:
        """See ``AccessDecisions``. What no grant covers is not asked for."""
        if not self._groups.is_known and groups_of(session.grants):
            return False
        if self._granted(session, document) is None:
            return True
        return self._fresh(session.id, document) is not None

    def remembered(self, id: SessionId, document: str) -> Access | None:
        """What the application answered last, whatever the grants say."""
        answer = self._answers.get((id, document))
        return None if answer is None else answer.access

    def keep(self, session: Session, document: str, *, until: datetime) -> bool:
        """Whether the answer is still fresh then; it is in use, so that others are forgotten before it."""
        key = (session.id, document)
        answer = self._answers.get(key)
        if answer is None or until - answer.asked_at >= self.max_age or answer.turn < self._turn_of(*key):
            return False
        self._answers.move_to_end(key)
        return True

    def _fresh(self, id: SessionId, document: str) -> _Answer | None:
        answer = self._answers.get((id, document))
        if answer is None or self._now() - answer.asked_at >= self.max_age:
            return None
        return answer if answer.turn >= self._turn_of(id, document) else None

    def _turn_of(self, id: SessionId, document: str) -> int:
        """The turn that an answer must have been asked for in."""
        rechecked = self._rechecked
        if not rechecked:
            return self._rechecked_all
        return max(self._rechecked_all, rechecked.get((id, None), 0), rechecked.get((None, document), 0))

    def doubt(self, *, session: SessionId | None = None, document: str | None = None) -> None:
        """No answer of before about this session, this document, or at all is fresh any more."""
        self._turn += 1
        if session is None and document is None:
            self._rechecked.clear()
            self._rechecked_all = self._turn
            return
        if len(self._rechecked) >= MAX_RECHECKS:
            self._rechecked.clear()
            self._rechecked_all = self._turn
        self._rechecked[session, document] = self._turn

    # --- asking ---------------------------------------------------------------------------------------

    async def decide(self, session: Session, document: str) -> Access | None:
        """See ``AccessDecisions``."""
        await granting(self._groups, session)
        granted = self._granted(session, document)
        if granted is None:
            if not session.grants:
                self._say_what_is_missing()
            return None
        answer = self._fresh(session.id, document)
        if answer is not None:
            return narrower(granted, answer.access)
        try:
            answer = await self._ask(session, document)
        except NoAnswer:
            answer = self._answers.get((session.id, document))
            if answer is None or self._now() - answer.asked_at >= self._usable_for:
                raise AccessUnknown("the application does not say now what the session may do") from None
        return narrower(granted, answer.access)

    def _say_what_is_missing(self) -> None:
        """Once: an application that decides everything wonders why it is not asked."""
        if not self._has_said_what_is_missing:
            self._has_said_what_is_missing = True
            hint = "give sessions grants, or set access.default_grants: the application is asked about what they allow"
            _log.warning("session_without_grants", hint=hint)

    async def renew(self, session: Session, document: str) -> Access | None:
        """
        Ask the application, whatever is remembered.

        Raises:
            AccessUnknown: If it gives no answer. What is remembered stays.
        """
        try:
            answer = await self._ask(session, document)
        except NoAnswer as failure:
            raise AccessUnknown(f"the application does not say what the session may do: {failure}") from None
        return narrower(self._granted(session, document), answer.access)

    async def _ask(self, session: Session, document: str) -> _Answer:
        """The answer to a question of this turn: one question at a time for each, whoever wants to know."""
        while True:
            key = (session.id, document, self._turn_of(session.id, document))
            question = self._questions.get(key)
            if question is None:
                question = self._questions[key] = _Question()
                try:
                    await self._lead(question, session, document)
                finally:
                    del self._questions[key]
                    question.done.set()
            else:
                await question.done.wait()
            if question.failure is not None:
                raise question.failure
            # There is none if whoever asked has gone away; and a recheck may have come in between.
            if question.answer is not None and question.answer.turn >= self._turn_of(session.id, document):
                return question.answer

    async def _lead(self, question: _Question, session: Session, document: str) -> None:
        asked_at, turn = self._now(), self._turn
        try:
            access = await self._answer_to(session, document, asked_at)
        except NoAnswer as failure:
            question.failure = failure
            self._failed(failure)
        else:
            self._answered(access)
            question.answer = _Answer(access, asked_at, turn)
            self._remember((session.id, document), question.answer)

    async def _answer_to(self, session: Session, document: str, now: datetime) -> Access | None:
        if len(self._questions) > MAX_ASKED:
            raise NoAnswer("too many questions wait for it")
        if self._probe_at is not None:
            if now < self._probe_at:
                raise NoAnswer("it did not answer a moment ago", is_away=True)
            self._probe_at = now + PROBE_INTERVAL
        self._asked += 1
        begun, limit = perf_counter(), self._settings.timeout.total_seconds()
        try:
            async with asyncio.timeout(limit):
                said = self._authorize(session, document)
                return _meant(await said if isawaitable(said) else said)
        except NoAnswer:
            raise
        except TimeoutError:
            raise NoAnswer(f"it did not answer within {limit:g} s", is_away=True) from None
        except Exception as error:  # noqa: BLE001  # whatever the application raises is no answer
            if self._is_worth_a_line():
                _log.exception("authorize_failed", session=session.id, document=document)
            raise NoAnswer(f"it raised {type(error).__name__}") from None
        finally:
            self._slowest = max(self._slowest, perf_counter() - begun)

    def _remember(self, key: tuple[SessionId, str], answer: _Answer) -> None:
        before = self._answers.get(key)
        if before is not None and before.turn > answer.turn:
            return  # it was overtaken by a question after a recheck
        self._answers[key] = answer
        self._answers.move_to_end(key)
        if len(self._answers) > self._settings.max_decisions:
            self._answers.popitem(last=False)
        if (before is None or before.access is not answer.access) and self.on_change is not None:
            self.on_change(key[0])

    # --- how it does ----------------------------------------------------------------------------------

    def _answered(self, access: Access | None) -> None:
        if access is None:
            self._refused += 1
        if self._probe_at is not None:
            _log.info("application_answers", after=self._failures)
        self._failures, self._probe_at, self._failure = 0, None, None

    def _failed(self, failure: NoAnswer) -> None:
        now = self._now()
        self._unanswered += 1
        self._failure = now, str(failure)
        if failure.is_away:
            self._failures += 1
            if self._failures >= AWAY_AFTER and self._probe_at is None:
                self._probe_at = now + PROBE_INTERVAL
        if self._is_worth_a_line():
            _log.warning("access_not_decided", reason=str(failure))

    def _is_worth_a_line(self) -> bool:
        now = self._now()
        if self._logged_at is not None and timedelta() <= now - self._logged_at < LOG_INTERVAL:
            return False
        self._logged_at = now
        return True

    def degradations(self) -> Mapping[str, str]:
        """That the application gives no answers, and what follows."""
        if self._failure is None or self._now() - self._failure[0] >= ALARM:
            return {}
        at, reason = self._failure
        follows = "nobody gets in who is not known, and who is inside stays for at most access.stale_if_error"
        return {"access": f"the application gave no answer at {at:%H:%M:%S}Z: {reason}; {follows}"}

    def observations(self) -> Mapping[str, str]:
        """The figures, for health."""
        figures = self.statistics()
        return {
            "access decisions": f"{figures.asked} asked, {figures.unanswered} unanswered, {figures.refused} refused, "
            f"{figures.remembered} remembered, slowest {figures.slowest_seconds * 1000:.0f} ms"
        }

    def statistics(self) -> AccessStatistics:
        """The figures now."""
        return AccessStatistics(
            asked=self._asked,
            unanswered=self._unanswered,
            refused=self._refused,
            slowest_seconds=self._slowest,
            remembered=len(self._answers),
        )


def _meant(said: object) -> Access | None:
    """
    The access that an application means.

    Raises:
        NoAnswer: If that cannot be told. It is no refusal: who is inside stays for a while.
    """
    if said is None:
        return None
    access = _ACCESSES.get(said) if isinstance(said, str) else None
    if access is None:
        raise NoAnswer(f"it answered {type(said).__name__} where {', '.join(_ACCESSES)} or nothing is an answer")
    return access
