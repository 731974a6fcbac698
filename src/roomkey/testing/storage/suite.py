"""What every part of the suite is made of: the hooks of the backend, sessions to store, and a full inspection."""
# ruff: noqa: S101  # tests assert

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, ClassVar, TypeVar

from msgspec.structs import replace

from roomkey.domain.access import Access, Grant
from roomkey.domain.lifecycle import apply, begin, replay
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import (
    MAX_USER_ID_BYTES,
    Activated,
    AnyEvent,
    Client,
    Created,
    Extended,
    GrantsChanged,
    Session,
    SessionEvent,
    SessionFilter,
    SessionId,
    UserRevoked,
    partition_of,
)
from roomkey.ports import NewSession, Page, Secret, SessionStorage
from roomkey.security import tokens
from roomkey.testing.requirements import Selective

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
"""When the tests begin."""

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)

ROOMY = SessionPolicy(cap=1_000_000)
"""For tests that are not about the cap."""

Fact = TypeVar("Fact", bound=SessionEvent)


class StorageSuite(Selective):
    """How a backend takes part. See the package for an example."""

    durable: ClassVar[bool] = False
    """Whether another ``open`` within a test finds what was stored before."""

    longest_user_id: ClassVar[int] = MAX_USER_ID_BYTES
    """Bytes of the longest user id; only what encrypts ids may refuse what others take."""

    def open(self) -> SessionStorage:
        """A storage that is not entered yet, on the same data each time within one test."""
        raise NotImplementedError

    async def lose_index(self, storage: SessionStorage, user_id: str) -> bool:
        """Make the storage forget which sessions the user has, but not the sessions; ``False``: cannot."""
        del storage, user_id
        return False

    async def corrupt(self, storage: SessionStorage, id: SessionId) -> bool:
        """Damage the record of a session where it lies; ``False``: cannot."""
        del storage, id
        return False

    async def corrupt_event(self, storage: SessionStorage, partition: int, sequence: int) -> bool:
        """Damage the record of an event where it lies; ``False``: cannot."""
        del storage, partition, sequence
        return False


def issue(
    user_id: str = "alice",
    at: datetime = NOON,
    *,
    policy: SessionPolicy = ROOMY,
    client: Client | None = None,
    grants: tuple[Grant, ...] = (),
    metadata: Mapping[str, Any] | None = None,
) -> NewSession:
    """A new session as ``SessionManager`` would issue it."""
    id = tokens.mint_id(partition_of(user_id))
    event = Created(
        session=id,
        user=user_id,
        version=1,
        at=at,
        expires_at=at + policy.lifetime,
        idle_timeout=policy.idle_timeout,
        activation_timeout=policy.activation_timeout,
        client=client,
        grants=grants,
        metadata=metadata,
    )
    return NewSession(event, begin(event), Secret(current=sha256(id.encode()).digest()))


def rich(user_id: str = "alice", at: datetime = NOON) -> NewSession:
    """A new session with everything that a session can have."""
    return issue(
        user_id,
        at,
        client=Client("2001:db8::1", "Mozilla/5.0 (\N{SNOWMAN})", "Ada's laptop"),
        grants=(Grant("notes/*", Access.WRITE), Grant("**", Access.READ)),
        metadata={"theme": "dark", "nested": {"list": [1, 2.5, None, True, "\N{ROCKET}"]}, "": ""},
    )


async def store(
    storage: SessionStorage,
    user_id: str = "alice",
    at: datetime = NOON,
    *,
    policy: SessionPolicy = ROOMY,
    active: bool = False,
) -> Session:
    """Create a session, and activate it if asked."""
    new = issue(user_id, at, policy=policy)
    await storage.create([new], policy, at)
    if not active:
        return new.session
    return await change(storage, new.session, Activated, at)


async def change(
    storage: SessionStorage, session: Session, kind: type[SessionEvent], at: datetime, **details: Any
) -> Session:
    """Let the fact happen to the session and commit it."""
    event = fact(session, kind, at, **details)
    after = apply(session, event)
    await storage.update(after, event)
    return after


def fact(session: Session, kind: type[Fact], at: datetime, **details: Any) -> Fact:
    """The next event in the session's history."""
    return kind(session=session.id, user=session.user_id, version=session.version + 1, at=at, **details)


def details(kind: type[SessionEvent], at: datetime) -> dict[str, Any]:
    """What a fact of this kind says besides what all do."""
    if kind is Extended:
        return {"expires_at": at + timedelta(days=2)}
    if kind is GrantsChanged:
        return {"grants": (Grant(f"notes/{at.second}", Access.READ), Grant("**", Access.WRITE))}
    return {}


async def found(storage: SessionStorage, id: SessionId) -> Session:
    """The session, which must be there."""
    session = await storage.get(id)
    assert session is not None
    return session


async def everything(storage: SessionStorage, filter: SessionFilter | None = None, *, limit: int = 7) -> list[Session]:
    """All sessions that match, page by page."""
    sessions: list[Session] = []
    cursor: str | None = None
    while True:
        page = await storage.list(filter or SessionFilter(), Page(cursor=cursor, limit=limit))
        assert len(page) <= limit
        sessions.extend(page)
        cursor = page.next_cursor
        if cursor is None:
            return sessions


async def whole_log(storage: SessionStorage) -> list[AnyEvent]:
    """Every event, partition by partition."""
    heads = await storage.heads()
    return [event for partition in sorted(heads) for event in await partition_log(storage, partition)]


async def partition_log(storage: SessionStorage, partition: int) -> list[AnyEvent]:
    """Every event of a partition, in order."""
    events: list[AnyEvent] = []
    after = 0
    while batch := await storage.events(partition, after, 100):
        events.extend(logged.event for logged in batch)
        after = batch[-1].sequence
    return events


async def history(storage: SessionStorage, id: SessionId) -> list[SessionEvent]:
    """What happened to one session, in order."""
    return [
        event
        for event in await partition_log(storage, int(id[:2], 16))
        if not isinstance(event, UserRevoked) and event.session == id
    ]


async def disagreements(storage: SessionStorage) -> list[str]:
    """
    Where records, indexes, counters and log contradict one another; empty if the storage is sound.

    The log must be complete, and no index may have been lost.
    """
    problems: list[str] = []
    sessions = {session.id: session for session in await everything(storage, limit=500)}
    replayed, holes = await _replayed(storage)
    problems += holes
    problems += [
        f"{id}: stored {_timeless(sessions.get(id))}, but the log says {_timeless(replayed.get(id))}"
        for id in sessions.keys() | replayed.keys()
        if _timeless(sessions.get(id)) != _timeless(replayed.get(id))
    ]
    states = {state: number for state, number in (await storage.statistics(NOON)).states.items() if number}
    counted = Counter(session.state for session in sessions.values())
    if states != counted:
        problems.append(f"counters say {states}, the records are {dict(counted)}")
    for user in {session.user_id for session in sessions.values()}:
        listed = [session.id for session in await everything(storage, SessionFilter(user_id=user), limit=500)]
        expected = {session.id for session in sessions.values() if session.user_id == user}
        if set(listed) != expected or len(listed) != len(expected):
            problems.append(f"the index of {user!r} lists {len(listed)} sessions instead of {len(expected)}")
    return problems + await _lost_deadlines(storage, sessions)


async def _replayed(storage: SessionStorage) -> tuple[dict[SessionId, Session], list[str]]:
    """The sessions that the log leads to, and what is wrong with the log."""
    problems: list[str] = []
    histories: dict[SessionId, list[SessionEvent]] = {}
    for partition, head in (await storage.heads()).items():
        logged = await storage.events(partition, 0, 1_000_000)
        if [each.sequence for each in logged] != list(range(1, head + 1)):
            problems.append(f"the log of partition {partition} has holes or does not end at {head}")
        for each in logged:
            if not isinstance(each.event, UserRevoked):
                histories.setdefault(each.event.session, []).append(each.event)
    for id, events in histories.items():
        if [event.version for event in events] != list(range(1, len(events) + 1)):
            problems.append(f"the versions in the history of {id} are not 1, 2, 3, ...")
    ends = {id: replay(events) for id, events in histories.items()}
    return {id: session for id, session in ends.items() if session is not None}, problems


async def _lost_deadlines(storage: SessionStorage, sessions: Mapping[SessionId, Session]) -> list[str]:
    """Once all time has passed, the indexes of time must name every session, each in one of them."""
    the_end = datetime(9999, 1, 1, tzinfo=UTC)
    overdue = {session.id for session in await storage.overdue(the_end, 1_000_000)}
    ended = {session.id for session in await storage.ended_before(the_end, 1_000_000)}
    live = {session.id for session in sessions.values() if session.state.is_live}
    problems: list[str] = []
    if overdue != live:
        problems.append(
            f"{len(live - overdue)} live sessions have no deadline, {len(overdue - live)} too many have one"
        )
    if ended != sessions.keys() - live:
        problems.append(f"the index of ended sessions has {len(ended)} instead of {len(sessions) - len(live)}")
    return problems


def _timeless(session: Session | None) -> Session | None:
    # Touches are no events, so this field is not in the log.
    return None if session is None else replace(session, last_seen_at=session.created_at)
