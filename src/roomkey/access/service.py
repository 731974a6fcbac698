"""What operators and applications ask about access: have it checked again, and say who may do what, and why."""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from msgspec import Struct

from roomkey.access.decisions import ApplicationDecisions
from roomkey.access.groups import Groups
from roomkey.access.rechecks import Rechecks
from roomkey.access.watch import AccessWatch, Rechecked, Subject
from roomkey.domain.access import Access, Grant, deciding_grant, patterns_of, widest
from roomkey.domain.lifecycle import overdue
from roomkey.domain.session import Session, SessionFilter, SessionId, SessionState
from roomkey.errors import AccessUnknown
from roomkey.ports import AccessDecisions, Clock, GrantsAlone, Page, SessionPage, granting
from roomkey.security.inspection import check_document_name, check_reason

MAX_EXPLAINED: Final = 100
"""Sessions of one user that are looked at; by default a user has at most ten."""


class Sessions(Protocol):
    """The sessions that are looked at."""

    clock: Clock

    async def list_sessions(self, filter: SessionFilter, page: Page) -> SessionPage:
        """A page of those that meet the filter."""
        ...


class SessionAccess(Struct, frozen=True, kw_only=True):
    """
    What one session may do in a document.

    ``grant`` is the one that decides, ``application`` what the application allows; it is not asked where no grant
    matches. ``why`` says it in a sentence.
    """

    session: SessionId
    access: Access | None
    grant: Grant | None
    application: Access | None
    why: str


class Explanation(Struct, frozen=True, kw_only=True):
    """What a user may do in a document: the most that one of the user's active sessions may."""

    user_id: str
    document: str
    access: Access | None
    why: str
    sessions: Sequence[SessionAccess]


class AccessService:
    """The commands on access. ``decisions`` say what sessions may do, at every door."""

    def __init__(
        self,
        sessions: Sessions,
        groups: Groups,
        application: ApplicationDecisions | None = None,
        watch: AccessWatch | None = None,
        rechecks: Rechecks | None = None,
    ) -> None:
        """Without ``application`` grants alone say what sessions may do; ``rechecks`` tell other nodes, if any."""
        self.groups = groups
        self._sessions = sessions
        self._application = application
        self._watch = watch
        self._rechecks = rechecks
        self.decisions: AccessDecisions = GrantsAlone(groups) if application is None else application

    async def decide_many(self, session: Session, documents: Sequence[str]) -> Sequence[Access | None]:
        """
        What the session may do in each, at the door.

        Raises:
            AccessUnknown: If the application does not answer for one of them, and has not lately.
        """
        unknown = [document for document in documents if not self.decisions.is_fresh(session, document)]
        try:
            async with asyncio.TaskGroup() as group:
                for document in unknown:
                    group.create_task(self._decide(session, document))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [self.decisions.access(session, document) for document in documents]

    async def _decide(self, session: Session, document: str) -> None:
        await self.decisions.decide(session, document)

    async def patterns(self, session: Session) -> Sequence[str]:
        """The patterns of the documents that the session's grants are about. Raises ``AccessUnknown``."""
        await granting(self.groups, session)
        return patterns_of(session.grants, self.groups.of)

    async def recheck_document(self, name: str, *, reason: str | None = None) -> Rechecked:
        """
        Ask the application again what everybody in the document may do there.

        Whoever may do nothing there any more is told the ``reason``, and its page does not come back by itself.

        When it returns, the open sockets of this node obey; those of others do within a second.

        Raises:
            InvalidInput: If no document can have that name, or the reason cannot be shown.
            AccessUnknown: If the application does not answer for all of them. They keep what they may do, for as long
                as ``access.stale_if_error`` says.
            Storage, Conflict: If other nodes could not be told.
        """
        return await self._recheck(Subject(document=check_document_name(name), reason=check_reason(reason)))

    async def recheck_session(self, id: SessionId, *, reason: str | None = None) -> Rechecked:
        """As ``recheck_document``, for everything that the session has open."""
        return await self._recheck(Subject(session=id, reason=check_reason(reason)))

    async def _recheck(self, subject: Subject) -> Rechecked:
        if self._watch is None:
            return Rechecked(checked=0, changed=0)
        done = await self._watch.recheck([subject])
        if self._rechecks is not None:
            await self._rechecks.announce(subject)
        if done.unanswered:
            raise AccessUnknown(f"the application gave no answer for {done.unanswered} of {done.checked}")
        return done

    async def explain(self, user_id: str, document: str) -> Explanation:
        """
        What the user may do in the document, by each active session, and why.

        Raises:
            InvalidInput: If no document can have that name.
            AccessUnknown: If the application does not answer, and has not lately.
        """
        check_document_name(document)
        found = [await self.explain_session(session, document) for session in await self._active(user_id)]
        access = widest(each.access for each in found)
        decisive = next((each for each in found if each.access is access), None)
        why = "the user has no active session" if decisive is None else decisive.why
        return Explanation(user_id=user_id, document=document, access=access, why=why, sessions=found)

    async def _active(self, user_id: str) -> Sequence[Session]:
        wanted, now = SessionFilter(user_id=user_id, state=SessionState.ACTIVE), self._sessions.clock.now()
        found, cursor = list[Session](), None
        while len(found) < MAX_EXPLAINED:
            page = await self._sessions.list_sessions(wanted, Page(cursor=cursor, limit=MAX_EXPLAINED))
            found += [session for session in page.sessions if overdue(session, now) is None]
            cursor = page.next_cursor
            if cursor is None:
                break
        return found[:MAX_EXPLAINED]

    async def explain_session(self, session: Session, document: str) -> SessionAccess:
        """What the session may do in the document, and why. Raises as ``explain``."""
        access = await self.decisions.decide(session, document)
        grant = deciding_grant(document, session.grants, self.groups.of)
        allowed = None
        if self._application is not None and grant is not None:
            allowed = self._application.remembered(session.id, document)
        return SessionAccess(
            session=session.id,
            access=access,
            grant=grant,
            application=allowed,
            why=_why(grant, allowed, asks=self._application is not None),
        )


def _why(grant: Grant | None, application: Access | None, *, asks: bool) -> str:
    if grant is None:
        return "no grant of the session matches the document"
    whose = "" if grant.group is None else f" of the group {grant.group}"
    says = f"the first grant that matches, {grant.documents}{whose}, allows {grant.access}"
    if not asks:
        return says
    if application is None:
        return f"{says}, but the application allows nothing"
    return f"{says}, and the application allows {application}: both must allow it"
