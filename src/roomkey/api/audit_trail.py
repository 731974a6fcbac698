"""Reading the audit log: entries by what they are about, one by its number, and whether all of them are sound."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, cast

from msgspec import Meta, Struct, to_builtins

from roomkey.api.http_messages import Reply, json_reply
from roomkey.api.operations import Answer, Request, operation
from roomkey.api.schemas import Cursor, Limit, Moment
from roomkey.audit.sealing import Entry
from roomkey.audit.search import Wanted
from roomkey.audit.sources import StoredSource
from roomkey.audit.verification import Expectation, verify
from roomkey.errors import NotFound, NotRetained, RequestInProgress, UnknownCursor
from roomkey.security.authorization import Action, permits

INDEX_DIGITS: Final = 18
"""More than a log will ever have entries."""

NEWEST: Final = 10**INDEX_DIGITS

_Text = Annotated[str, Meta(min_length=1, max_length=512)]


class AuditListing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Which entries. Every condition that is given must hold.

    `type` is a whole type such as `session.created`, or its first word. `user_id` is who acted or whom it is about.
    `since` is inclusive, `until` is not. In the order `oldest` the index of an entry is a cursor, too: from there on.
    """

    type: _Text | None = None
    user_id: _Text | None = None
    session: _Text | None = None
    actor: _Text | None = None
    since: Moment | None = None
    until: Moment | None = None
    order: Literal["newest", "oldest"] = "newest"
    cursor: Cursor | None = None
    limit: Limit = 50

    def wanted(self) -> Wanted:
        """The conditions."""
        return Wanted(
            type=self.type,
            user=self.user_id,
            session=self.session,
            actor=self.actor,
            since=self.since,
            until=self.until,
        )


class AuditEntryBody(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One entry of the audit log: who (`actor`) did what (`type`), to whom, when, from where, and with what `outcome`.

    `personal` says what became of what is sealed for persons (`user_id`, `address`, `agent`, `client`, and whatever
    names them): `shown`, `hidden` from this caller, `erased`, `unreadable`, or `none` if there is nothing. `count` is
    how many times it happened, until `until`. `event` is its partition and sequence in the event log of sessions.
    """

    index: int
    type: str
    at: datetime
    outcome: str
    actor: str
    personal: str
    user_id: str | None = None
    session: str | None = None
    client: Mapping[str, str] | None = None
    address: str | None = None
    agent: str | None = None
    object: str | None = None
    reason: str | None = None
    request: str | None = None
    node: str | None = None
    count: int = 1
    until: datetime | None = None
    event: tuple[int, int] | None = None
    details: Mapping[str, Any] | None = None


class AuditPageBody(Struct, frozen=True):
    """
    A page of entries. It may be shorter than asked for, even empty, and not be the last.

    In the order `newest` the last one has no `next_cursor`. In the order `oldest` it has: to see what comes later.
    """

    entries: list[AuditEntryBody]
    next_cursor: str | None


class AuditReportBody(Struct, frozen=True):
    """What a verification of the whole log has found; `sound` if nothing."""

    sound: bool
    size: int | None
    entries: int
    tiles: int
    findings: list[dict[str, Any]]


@operation(
    "Search the audit log",
    tag="Audit log",
    action=Action.READ_AUDIT_ENTRIES,
    query=AuditListing,
    answers={200: Answer("A page of entries.", AuditPageBody)},
    errors=(UnknownCursor, NotRetained),
)
async def search_audit(request: Request) -> Reply:
    """
    What happened, the newest first.

    What is asked for by user, session or API key is found through an index, so that it does not matter how long the
    log is. Follow `next_cursor`: a page takes a bounded time, whether or not it finds anything.
    """
    listing = cast("AuditListing", request.query)
    show, search = permits(request.caller, Action.SEE_PERSONS_IN_AUDIT), request.trail.search
    start = _cursor(listing.cursor)
    if listing.order == "oldest":
        page = await search.oldest(listing.wanted(), first=start or 0, limit=listing.limit, show=show)
    else:
        recorded = (await request.audit.status()).recorded
        below = recorded if start is None else min(start, recorded)
        page = await search.newest(listing.wanted(), below=below, limit=listing.limit, show=show)
    entries = [_body(entry) for entry in page.entries]
    return json_reply(AuditPageBody(entries, None if page.next is None else str(page.next)))


@operation(
    "Get an entry of the audit log",
    tag="Audit log",
    action=Action.READ_AUDIT_ENTRIES,
    answers={200: Answer("The entry.", AuditEntryBody)},
    errors=(NotFound, NotRetained),
)
async def get_audit_entry(request: Request) -> Reply:
    """One entry by its index."""
    index = request.path("index")
    if not (index.isascii() and index.isdecimal() and len(index) <= INDEX_DIGITS):
        raise NotFound("there is no such entry")
    show = permits(request.caller, Action.SEE_PERSONS_IN_AUDIT)
    return json_reply(_body(await request.trail.search.one(int(index), show=show)))


@operation(
    "Verify the audit log",
    tag="Audit log",
    action=Action.READ_AUDIT_ENTRIES,
    answers={200: Answer("What was found.", AuditReportBody)},
    errors=(RequestInProgress,),
)
async def verify_audit(request: Request) -> Reply:
    """
    Read the whole log as it is stored here, and say what is wrong with it.

    One at a time. Whoever does not trust this server verifies from outside: `roomkey audit verify --from-url`.
    """
    if _verifying.locked():
        raise RequestInProgress("the log is being verified for somebody else")
    async with _verifying:
        report = await verify(StoredSource(request.audit), Expectation(keys=request.audit.keys))
    return json_reply(
        AuditReportBody(
            sound=report.is_sound,
            size=None if report.head is None else report.head.size,
            entries=report.entries,
            tiles=report.tiles,
            findings=[to_builtins(finding) for finding in report.findings],
        )
    )


_verifying: Final = asyncio.Lock()


def _cursor(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= INDEX_DIGITS):
        raise UnknownCursor("the cursor was not issued for this list")
    return int(text)


def _body(entry: Entry) -> AuditEntryBody:
    line, personal = entry.line, entry.personal
    return AuditEntryBody(
        index=entry.number,
        type=line.type,
        at=line.at,
        outcome=line.outcome,
        actor=personal.get("actor", line.actor),
        personal=entry.personality,
        user_id=personal.get("user"),
        session=line.session,
        client=personal.get("client"),
        address=personal.get("address"),
        agent=personal.get("agent"),
        object=personal.get("object", line.object),
        reason=personal.get("cause", line.cause),
        request=line.request,
        node=line.node,
        count=line.count,
        until=line.until,
        event=line.event,
        details=personal.get("details", line.details),
    )
