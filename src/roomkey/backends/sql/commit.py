"""
The writes: each a function of a commit in the making, and of nothing else.

A commit is what one transaction makes of several changes. It is filled with what they must see, under the locks of
their partitions; then each is decided, which awaits nothing; then what they have led to is written, table by table. A
change that raises has changed nothing, so the others go on without it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.records import encode_event
from roomkey.backends.session_changes import Change, Held, making_room, revoking
from roomkey.backends.sql.failures import is_duplicate
from roomkey.backends.sql.rows import NUMBER_OF, Partition, Records, SessionQueries, key_of, micros
from roomkey.backends.sql.statements import Row, run, run_many
from roomkey.domain.lifecycle import deadline
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import (
    LIVE_STATES,
    AnyEvent,
    Deleted,
    Evicted,
    Invalidated,
    Session,
    SessionEvent,
    SessionId,
    partition_of,
    partition_of_id,
)
from roomkey.domain.token_uses import TokenUse, noted
from roomkey.errors import Conflict, NotFound, Serialization
from roomkey.ports import NewSession, Revocation, Secret

_CHANGED = "the session was changed by someone else"


class Write(NamedTuple):
    """A change within one partition, and what it must see: sessions, a user's epoch and number of live sessions."""

    partition: int
    decide: Callable[["Commit"], Any]
    ids: Sequence[bytes] = ()
    user: bytes | None = None
    newcomers: int = 0
    """How many live sessions ``user`` gets. If that may be too many for ``cap``, those that there are are loaded."""
    cap: int = 0


class Witness(NamedTuple):
    """An event that stands in the log if, and only if, a commit was made."""

    partition: int
    sequence: int
    record: bytes


class Newcomer(NamedTuple):
    """A new session, with what can be prepared, or refused, before its turn comes."""

    session: Session
    secret: Secret
    at: datetime
    record: bytes
    event_record: bytes

    @classmethod
    def of(cls, new: NewSession, records: Records) -> "Newcomer":
        """
        Encode ``new``.

        Raises:
            InvalidInput: If it contains what cannot be stored.
        """
        record = records.sealed_session(new.session, new.secret)
        return cls(new.session, new.secret, new.event.at, record, encode_event(new.event))


class Stored(NamedTuple):
    """A session as it lies in its row, or as this commit will leave it there with ``record``."""

    held: Held
    deadline: int | None
    ended: int | None
    record: bytes = b""


class Commit:
    """Changes of sessions in the making. ``touched`` is what was seen of sessions and is not in the table yet."""

    def __init__(self, queries: SessionQueries, records: Records, touched: Mapping[SessionId, datetime]) -> None:
        self._queries = queries
        self._records = records
        self._touched = touched
        self._partitions: dict[int, Partition] = {}
        self._sessions: dict[bytes, Stored | Serialization] = {}
        self._epochs: dict[bytes, int] = {}
        self._live_counts: dict[bytes, int] = {}
        self._live: dict[bytes, list[bytes]] = {}
        self._new: dict[bytes, tuple[bytes, int]] = {}
        self._changed: dict[bytes, None] = {}
        self._removed: list[bytes] = []
        self._raised: dict[bytes, int] = {}
        self._events: list[Sequence[Any]] = []

    # --- filling --------------------------------------------------------------------------------------

    async def lock(self, connection: AsyncConnection, partitions: Iterable[int]) -> None:
        """
        Be the only one who writes to these partitions until the transaction ends.

        In ascending order, as everybody does, so that nobody waits for one who waits for them.
        """
        rows = await run(connection, self._queries.lock_partitions, sorted(partitions))
        self._partitions = {row[0]: Partition(row) for row in rows}

    async def load(self, connection: AsyncConnection, writes: Sequence[Write]) -> None:
        """Load what the changes must see."""
        newcomers: dict[bytes, int] = {}
        caps: dict[bytes, int] = {}
        for write in writes:
            if write.user is not None:
                newcomers[write.user] = newcomers.get(write.user, 0) + write.newcomers
                caps[write.user] = min(write.cap, caps.get(write.user, write.cap))
        if newcomers:
            users = sorted(newcomers)
            for user, epoch, live in await run(connection, self._queries.standing, users, users):
                if epoch >= 0:
                    self._epochs[user] = epoch
                else:
                    self._live_counts[user] = live
            crowded = [user for user in users if self._live_counts.get(user, 0) + newcomers[user] > caps[user]]
            if crowded:
                await self._load_live(connection, crowded)
        ids = sorted({id for write in writes for id in write.ids} - self._sessions.keys())
        if ids:
            for row in await run(connection, self._queries.get, ids):
                self._take(row)

    async def _load_live(self, connection: AsyncConnection, users: list[bytes]) -> None:
        self._live = {user: [] for user in users}
        for row in await run(connection, self._queries.live_of, users):
            self._take(row)
            stored = self._sessions[row[0]]
            if isinstance(stored, Stored):
                self._live[stored.held.session.user_id.encode()].append(row[0])

    def _take(self, row: Row) -> None:
        id, deadline, ended, user_epoch = row[0], row[4], row[5], row[7]
        try:
            held = self._records.held(row)
        except Serialization as error:
            self._sessions[id] = error
            return
        session = held.session
        seen = self._touched.get(session.id)
        if seen is not None and seen > session.last_seen_at and session.state in LIVE_STATES:
            held = held._replace(session=replace(session, last_seen_at=seen))
        self._epochs[session.user_id.encode()] = user_epoch or 0
        self._sessions[id] = Stored(held, deadline, ended)

    async def was_made(self, connection: AsyncConnection, witness: Witness) -> bool:
        """Whether a commit whose answer was lost was made; asked under its locks, so it cannot be made any more."""
        found = await run(connection, self._queries.event, witness.partition, witness.sequence)
        return [row[0] for row in found] == [witness.record]

    # --- what changes see and do ----------------------------------------------------------------------

    def partition(self, number: int) -> Partition:
        """The row of a partition that is locked."""
        return self._partitions[number]

    def find(self, id: bytes | None) -> Held | None:
        """
        A session as it stands now, changes of this commit included.

        Raises:
            Serialization: If its record is damaged.
        """
        stored = None if id is None else self._sessions.get(id)
        if isinstance(stored, Serialization):
            raise stored
        return None if stored is None else stored.held

    def find_readable(self, id: bytes | None) -> Held | None:
        """Like ``find`` where one damaged record must not stop what is done to others."""
        try:
            return self.find(id)
        except Serialization:
            return None

    def epoch_of(self, user_id: str) -> int:
        """The user's epoch; nought if nobody ever revoked the user."""
        return self._epochs.get(user_id.encode(), 0)

    def is_dead(self, held: Held) -> bool:
        """Whether a session is stored as live though its user was revoked after it was issued."""
        return held.is_dead(self.epoch_of(held.session.user_id))

    def live_count(self, user: bytes) -> int:
        """How many live sessions a user has."""
        return self._live_counts.get(user, 0)

    def live(self, user: bytes) -> list[Held]:
        """The live sessions of a user, as far as they can be read, oldest first."""
        found = [self.find_readable(id) for id in self._live.get(user, ())]
        return [held for held in found if held is not None and held.session.state in LIVE_STATES]

    def exists(self, id: bytes) -> bool:
        """Whether this commit knows of a session with this id; the table has the last word."""
        return id in self._sessions

    def add(self, new: Newcomer) -> None:
        """Store a new session, and append its first event."""
        session = new.session
        id, user = session.id.encode(), session.user_id.encode()
        held = Held(session, new.secret, self.epoch_of(session.user_id))
        self._append(partition_of_id(session.id), new.at, new.event_record).created(new.at)
        self._new[id] = user, micros(session.created_at)
        self._sessions[id] = Stored(held, micros(deadline(session) or session.expires_at), None, new.record)
        self._live_counts[user] = self.live_count(user) + 1
        if user in self._live:
            self._live[user].append(id)

    def change(self, change: Change) -> None:
        """Carry out a change that may be made."""
        before, session, event = change.held.session, change.session, change.event
        stored = self._stored(session)
        # Encoded before anything is changed: what cannot be encoded then leaves no trace.
        record = self._records.sealed_session(session, change.secret)
        partition = self.append(event, partition_of_id(session.id))
        if session.state is not before.state:
            partition.moved(before.state, session.state)
        due = deadline(session)
        if due is None and before.state in LIVE_STATES:
            partition.finished(event.at - session.created_at)
            self._count_out(session)
        held = Held(session, change.secret, change.held.epoch)
        if due is None:
            self._put(Stored(held, None, micros(event.at), record))
        else:
            # A later deadline is found when the earlier one comes up, so that activity moves no index.
            place = micros(due)
            self._put(Stored(held, min(place, stored.deadline or place), None, record))

    def rewrite(self, held: Held, *, due: int | None = None) -> None:
        """Change what is no event: the epoch, the uses of the secret, or where it stands in the index of deadlines."""
        stored = self._stored(held.session)
        record = self._records.sealed_session(held.session, held.secret)
        self._put(Stored(held, due or stored.deadline, stored.ended, record))

    def _stored(self, session: Session) -> Stored:
        stored = self._sessions[session.id.encode()]
        assert isinstance(stored, Stored)  # noqa: S101  # whoever changes it has found it
        return stored

    def _put(self, stored: Stored) -> None:
        id = stored.held.session.id.encode()
        self._sessions[id] = stored
        self._changed[id] = None

    def _count_out(self, session: Session) -> None:
        user = session.user_id.encode()
        self._live_counts[user] = self.live_count(user) - 1

    def remove(self, held: Held, event: Deleted) -> None:
        """Remove a session, and append the event of it."""
        id = held.session.id.encode()
        self.append(event, partition_of_id(held.session.id)).removed(held.session.state)
        if held.session.state in LIVE_STATES:
            self._count_out(held.session)
        del self._sessions[id]
        self._changed.pop(id, None)
        if self._new.pop(id, None) is None:
            self._removed.append(id)

    def raise_epoch(self, user_id: str, epoch: int) -> None:
        """Let a user be at ``epoch``."""
        user = user_id.encode()
        self._epochs[user] = self._raised[user] = epoch

    def append(self, event: AnyEvent, partition: int) -> Partition:
        """Give ``event`` the next place in the log of its partition, which is returned."""
        return self._append(partition, event.at, encode_event(event))

    def _append(self, partition: int, at: datetime, record: bytes) -> Partition:
        found = self._partitions[partition]
        sealed = self._records.sealed_event(partition, found.head + 1, record)
        found.head += 1
        found.is_changed = True
        self._events.append((partition, found.head, micros(at), sealed))
        return found

    # --- writing --------------------------------------------------------------------------------------

    def witness(self) -> Witness | None:
        """What tells whether it was made; ``None`` if it may be made twice: it then only repeats what it says."""
        if not self._events:
            return None
        partition, sequence, _, record = self._events[0]
        return Witness(partition, sequence, record)

    async def write(self, connection: AsyncConnection) -> None:
        """
        Write down what the changes have led to. One order for all tables and rows, so that nobody deadlocks.

        Raises:
            Conflict: If the id of a new session exists already.
        """
        queries = self._queries
        if self._removed:
            await run(connection, queries.remove_sessions, sorted(self._removed))
        try:
            await run_many(connection, queries.add_sessions, [self._new_row(id) for id in sorted(self._new)])
        except Exception as error:
            if is_duplicate(error):
                raise Conflict("a session with this id exists") from None
            raise
        changed = sorted(self._changed.keys() - self._new.keys())
        await run_many(connection, queries.put_sessions, [(*self._row(id), id) for id in changed])
        await run_many(connection, queries.put_epochs, sorted(self._raised.items()))
        await run_many(connection, queries.add_events, self._events)
        partitions = [each.row() for _, each in sorted(self._partitions.items()) if each.is_changed]
        await run_many(connection, queries.put_partitions, partitions)

    def _new_row(self, id: bytes) -> Row:
        user, created = self._new[id]
        state, version, epoch, *rest = self._row(id)
        return (id, user, state, version, epoch, created, *rest)

    def _row(self, id: bytes) -> Row:
        stored = self._sessions[id]
        assert isinstance(stored, Stored)  # noqa: S101  # only such are changed
        (session, _, epoch), due, ended, record = stored
        seen = micros(session.last_seen_at)
        return (NUMBER_OF[session.state], session.version, epoch, seen, due, ended, record)


# --- the changes --------------------------------------------------------------------------------------


def create(commit: Commit, new: Sequence[Newcomer], policy: SessionPolicy, now: datetime) -> list[Evicted]:
    """``SessionStorage.create`` for one user."""
    ids = {each.session.id.encode() for each in new}
    if len(ids) < len(new) or any(commit.exists(id) for id in ids):
        raise Conflict("a session with this id exists")
    user = new[0].session.user_id.encode()
    evicted: list[Evicted] = []
    if not policy.has_room(commit.live_count(user), len(new)):
        for change in making_room(commit.live(user), len(new), policy, now):
            commit.change(change)
            assert isinstance(change.event, Evicted)  # noqa: S101  # what `evictions` returns
            evicted.append(change.event)
    for each in new:
        commit.add(each)
    return evicted


def update(commit: Commit, session: Session, event: SessionEvent, secret: Secret | None) -> None:
    """``SessionStorage.update``."""
    held = commit.find(key_of(session.id))
    if held is None:
        raise NotFound("there is no such session")
    if held.session.version != session.version - 1 or commit.is_dead(held):
        raise Conflict(_CHANGED)
    commit.change(Change.of(held, session, event, secret))


def delete(commit: Commit, event: Deleted) -> bool:
    """``SessionStorage.delete``."""
    held = commit.find(key_of(event.session))
    if held is None:
        return False
    if held.session.version != event.version - 1:
        raise Conflict(_CHANGED)
    commit.remove(held, event)
    return True


def revoke_user(
    commit: Commit, user_id: str, now: datetime, actor: str, reason: str | None, kept_id: bytes | None
) -> Revocation:
    """``SessionStorage.revoke_user``."""
    kept = commit.find_readable(kept_id)
    if kept is not None and kept.session.user_id != user_id:
        kept = None
    epoch, root, changes = revoking(
        user_id,
        commit.live(user_id.encode()),
        kept,
        epoch=commit.epoch_of(user_id),
        now=now,
        actor=actor,
        reason=reason,
    )
    commit.append(root, partition_of(user_id))
    commit.raise_epoch(user_id, epoch)
    if kept is not None and root.session is not None:
        commit.rewrite(kept._replace(epoch=epoch))
    ends: list[Invalidated] = []
    for change in changes:
        commit.change(change)
        assert isinstance(change.event, Invalidated)  # noqa: S101  # what `revoking` returns
        ends.append(change.event)
    return Revocation(epoch, [root, *ends])


def note_use(commit: Commit, id: bytes, use: TokenUse, generation: int, window: timedelta) -> None:
    """``SessionStorage.note_use``."""
    held = commit.find(id)
    if held is None or held.session.state not in LIVE_STATES or commit.is_dead(held):
        return
    uses = noted(held.secret.uses, use, window)
    if held.secret.generation == generation and uses != held.secret.uses:
        commit.rewrite(held._replace(secret=replace(held.secret, uses=uses)))


def tend(commit: Commit, id: bytes, now: datetime) -> None:
    """
    Put an early entry of the index of deadlines where it belongs.

    A session that died of a revocation that did not list it gets the event that it is missing.
    """
    held = commit.find_readable(id)
    if held is None or (due := deadline(held.session)) is None:
        return
    session = held.session
    if commit.is_dead(held):
        event = Invalidated(
            session=session.id, user=session.user_id, version=session.version + 1, at=now, reason="revoked"
        )
        commit.change(Change.by(held, event))
    else:
        commit.rewrite(held, due=micros(due))
