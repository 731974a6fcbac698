"""
Whether a store agrees with itself: records, log, indexes and counters.

What is written while it is examined may look wrong, so a partition that changes is looked at again, and figures are
compared only if nothing has changed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from roomkey.backends.document_keys import grave_digest
from roomkey.backends.moving.copying import MAX_NAMED, Progress
from roomkey.domain.lifecycle import deadline, replay
from roomkey.domain.session import (
    PARTITIONS,
    Created,
    Deleted,
    Session,
    SessionEvent,
    SessionFilter,
    SessionId,
    SessionState,
    UserRevoked,
    partition_of,
)
from roomkey.errors import InvalidState, RoomkeyError, Serialization
from roomkey.ports import (
    Clock,
    MovableDocuments,
    MovableSessions,
    ObjectStore,
    Page,
    Repairable,
    SessionItem,
    StoredDocument,
    Unreadable,
)
from roomkey.ports.objects import SPACES

TRIES: Final = 5
"""How often a partition is looked at that changes meanwhile."""

INDEX_LIMIT: Final = 10_000
"""How many entries of an index of time are looked at: those that a janitor would be given first."""


class Examination(Struct):
    """What there is, and what is wrong with it: the first hundred ``problems``, and how many there are."""

    counts: dict[str, int] = field(default_factory=dict[str, int])
    problems: list[str] = field(default_factory=list[str])
    wrong: int = 0
    notes: list[str] = field(default_factory=list[str])

    def count(self, what: str, number: int = 1) -> None:
        """Note that there is so much more of it."""
        self.counts[what] = self.counts.get(what, 0) + number

    def complain(self, problem: str) -> None:
        """Note that something is wrong."""
        self.wrong += 1
        if len(self.problems) < MAX_NAMED:
            self.problems.append(problem)


async def examine(
    sessions: MovableSessions, documents: MovableDocuments, objects: ObjectStore, *, clock: Clock, progress: Progress
) -> Examination:
    """Read everything in the stores and say what is wrong."""
    examination = Examination()
    await _Sessions(sessions, examination, clock.now()).examine(progress)
    await _Documents(documents, examination).examine(progress)
    await _examine_objects(objects, examination, progress)
    return examination


async def _examine_objects(store: ObjectStore, examination: Examination, progress: Progress) -> None:
    for number, space in enumerate(SPACES):
        progress("examining objects", number, len(SPACES))
        after = ""
        while batch := await store.list(space, after=after, limit=500):
            examination.count("objects", len(batch))
            after = batch[-1].name
    if isinstance(store, Repairable):
        for record in await store.damaged():
            examination.complain(f"{record.kind} {record.key}: {record.reason}")
    progress("examining objects", len(SPACES), len(SPACES))


class _Sessions:
    def __init__(self, storage: MovableSessions, examination: Examination, now: datetime) -> None:
        self._storage = storage
        self._examination = examination
        self._now = now
        self._states: Counter[SessionState] = Counter()
        self._overdue: set[SessionId] = set()
        self._ended = 0

    async def examine(self, progress: Progress) -> None:
        before = await self._storage.heads()
        async for batch in self._storage.export_epochs():
            for item in batch:
                if isinstance(item, Unreadable):
                    self._examination.complain(f"{item.key} cannot be read")
        for partition in range(PARTITIONS):
            progress("examining sessions", partition, PARTITIONS)
            await self._examine_partition(partition)
        if await self._storage.heads() == before:
            await self._compare_figures()
        else:
            self._examination.notes.append("the storage is in use, so its figures and deadlines were not compared")
        progress("examining sessions", PARTITIONS, PARTITIONS)

    async def _examine_partition(self, partition: int) -> None:
        for _ in range(TRIES):
            head = (await self._storage.heads()).get(partition, 0)
            found = await _Partition.read(self._storage, partition, head)
            if (await self._storage.heads()).get(partition, 0) == head:
                break
        else:
            self._examination.notes.append(f"partition {partition} changes too fast to be examined")
            return
        examination = self._examination
        examination.count("sessions", len(found.sessions))
        examination.count("events", found.events)
        for problem in found.problems():
            examination.complain(problem)
        for session in found.sessions.values():
            self._states[session.state] += 1
            due = deadline(session)
            if due is None:
                self._ended += 1
            elif due <= self._now:
                self._overdue.add(session.id)
        for user, ids in found.users().items():
            await self._compare_list(user, ids)

    async def _compare_list(self, user: str, expected: set[SessionId]) -> None:
        listed: list[SessionId] = []
        page = Page(limit=500)
        while True:
            found = await self._storage.list(SessionFilter(user_id=user), page)
            listed += [session.id for session in found]
            if found.next_cursor is None:
                break
            page = Page(cursor=found.next_cursor, limit=500)
        if set(listed) != expected or len(listed) != len(expected):
            self._examination.complain(f"the index of user {user!r} lists {len(listed)} sessions, not {len(expected)}")

    async def _compare_figures(self) -> None:
        complain = self._examination.complain
        statistics = await self._storage.statistics(self._now)
        counted = {state: number for state, number in statistics.states.items() if number}
        if counted != self._states:
            complain(f"the counters say {_in_words(counted)}; the records are {_in_words(self._states)}")
        ended = len(await self._storage.ended_before(datetime.max.replace(tzinfo=UTC), INDEX_LIMIT))
        if ended != min(self._ended, INDEX_LIMIT):
            complain(f"the index of ended sessions has {ended}, not {self._ended}")
        # Not in the year 9999: some storages put right what they meet there, with the time that they are given.
        overdue = {session.id for session in await self._storage.overdue(self._now, INDEX_LIMIT)}
        missing = self._overdue - overdue if len(overdue) < INDEX_LIMIT else set[SessionId]()
        for id in sorted(missing):
            complain(f"session {id} is overdue, and the index of deadlines does not say so")


def _in_words(states: Mapping[SessionState, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in sorted(states.items())) or "none"


class _Partition(Struct):
    """Everything in one partition."""

    number: int
    sessions: dict[SessionId, Session] = field(default_factory=dict[SessionId, Session])
    histories: dict[SessionId, list[SessionEvent]] = field(default_factory=dict[SessionId, list[SessionEvent]])
    events: int = 0
    is_cut: bool = False
    """Whether the beginning of the log was forgotten."""
    found: list[str] = field(default_factory=list[str])

    @classmethod
    async def read(cls, storage: MovableSessions, number: int, head: int) -> "_Partition":
        partition = cls(number)
        async for batch in storage.export_sessions(number):
            for item in batch:
                if isinstance(item, SessionItem):
                    partition.sessions[item.session.id] = item.session
                else:
                    partition.found.append(f"{item.key} cannot be read")
        try:
            await partition._read_log(storage, head)
        except Serialization as error:
            partition.found.append(f"the log of partition {number} cannot be read: {error}")
            partition.is_cut = True
        return partition

    async def _read_log(self, storage: MovableSessions, head: int) -> None:
        last = 0
        while batch := await storage.events(self.number, last, 1000):
            if batch[0].sequence != last + 1 and not last:
                self.is_cut = True
                last = batch[0].sequence - 1
            if [each.sequence for each in batch] != list(range(last + 1, last + 1 + len(batch))):
                self.found.append(f"the log of partition {self.number} has a hole behind number {last}")
            last = batch[-1].sequence
            self.events += len(batch)
            for each in batch:
                if not isinstance(each.event, UserRevoked):
                    self.histories.setdefault(each.event.session, []).append(each.event)
        if not last:
            self.is_cut = head > 0
        elif last != head:
            self.found.append(f"the log of partition {self.number} ends at {last}, not at {head}")

    def users(self) -> dict[str, set[SessionId]]:
        users: dict[str, set[SessionId]] = {}
        for session in self.sessions.values():
            users.setdefault(session.user_id, set()).add(session.id)
        return users

    def problems(self) -> list[str]:
        return [
            *self.found,
            *(
                f"session {id} is in partition {self.number}, and its user is not"
                for id, session in self.sessions.items()
                if partition_of(session.user_id) != self.number
            ),
            *filter(None, (self._disagreement(id) for id in sorted(self.sessions.keys() | self.histories.keys()))),
        ]

    def _disagreement(self, id: SessionId) -> str | None:
        session, history = self.sessions.get(id), self.histories.get(id, [])
        if not history:
            return None if self.is_cut else f"session {id} is in no event"
        if [event.version for event in history] != list(range(history[0].version, history[0].version + len(history))):
            return f"the versions in the history of session {id} are not in order"
        if isinstance(history[-1], Deleted) or session is None:
            both = session is None and isinstance(history[-1], Deleted)
            return None if both else f"session {id}: the log and the records do not agree on whether it was deleted"
        if history[-1].version != session.version:
            return f"session {id} has version {session.version}, and the log ends with version {history[-1].version}"
        return self._wrong_state(session, history) if isinstance(history[0], Created) else None

    def _wrong_state(self, session: Session, history: Sequence[SessionEvent]) -> str | None:
        try:
            expected = replay(history)
        except InvalidState as error:
            return f"the history of session {session.id} is impossible: {error}"
        if expected is not None and replace(expected, last_seen_at=session.last_seen_at) == session:
            return None
        return f"session {session.id} is not what the log makes of it"


class _Documents:
    def __init__(self, store: MovableDocuments, examination: Examination) -> None:
        self._store = store
        self._examination = examination

    async def examine(self, progress: Progress) -> None:
        graves = {grave.digest async for batch in self._store.export_graves() for grave in batch}
        self._examination.count("graves", len(graves))
        names: list[str] = []
        page = Page(limit=500)
        while True:
            found = await self._store.list("", page)
            names += [record.name for record in found.documents]
            if found.next_cursor is None:
                break
            page = Page(cursor=found.next_cursor, limit=500)
        for number, name in enumerate(names):
            progress("examining documents", number, len(names))
            try:
                await self._examine(name, graves)
            except RoomkeyError as error:
                self._examination.complain(f"document {name!r}: {error}")
        progress("examining documents", len(names), len(names))

    async def _examine(self, name: str, graves: set[bytes]) -> None:
        stored = await self._store.load(name)
        if stored is None:
            return  # it was deleted in between
        self._examination.count("documents")
        for problem in _contradictions(stored):
            self._examination.complain(f"document {name!r}: {problem}")
        if grave_digest(name.encode(), stored.record.lineage) in graves:
            self._examination.complain(f"document {name!r} was deleted, and is there")
        page: Page | None = Page(limit=100)
        while page is not None:
            found = await self._store.versions(name, page)
            for version in found.versions:
                await self._examine_version(name, version.number, version.size)
            page = Page(cursor=found.next_cursor, limit=100) if found.next_cursor else None

    async def _examine_version(self, name: str, number: int, size: int) -> None:
        found = await self._store.version(name, number)
        if found is None:
            return
        self._examination.count("versions")
        if len(found[1]) != size:
            self._examination.complain(f"version {number} of document {name!r} has {len(found[1])} bytes, not {size}")


def _contradictions(stored: StoredDocument) -> list[str]:
    record, updates = stored.record, stored.updates
    pairs = {
        "updates in its log": (len(updates), record.log_updates),
        "bytes in its log": (sum(len(update.data) for update in updates), record.log_bytes),
        "bytes in its snapshot": (len(stored.snapshot or b""), record.snapshot_bytes),
        "updates in all": (stored.upto + len(updates), record.sequence),
    }
    return [f"it has {found} {what}, not {said}" for what, (found, said) in pairs.items() if found != said]
