"""
The writes: each a function of a commit in the making, and of nothing else.

They run on the writer's thread, many in one transaction. One that raises a ``RoomkeyError`` has written
nothing, or is undone by running the others again without it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog
from msgspec import Struct
from msgspec.structs import replace

from roomkey.backends.fences import fenced
from roomkey.backends.lmdb.file import MappedFile, Tables, Transaction
from roomkey.backends.lmdb.layout import (
    COUNTERS_KEY,
    ENDED,
    EPOCH,
    FENCE_BYTES,
    FENCE_KEY,
    HEADER,
    LIVE,
    TAILS_KEY,
    TIME,
    Counters,
    UserEntry,
    micros,
    session_key,
    time_and_key,
    time_key,
    user_prefix,
)
from roomkey.backends.lmdb.log import NUMBERS_BYTES, Log, count_events, counters_value, numbers_of
from roomkey.backends.lmdb.write_batch import Changes
from roomkey.backends.records import decode_session, encode_event, encode_session
from roomkey.domain.lifecycle import apply, deadline
from roomkey.domain.policy import SessionPolicy, evictions
from roomkey.domain.session import (
    LIVE_STATES,
    AnyEvent,
    Deleted,
    Evicted,
    Invalidated,
    Session,
    SessionEvent,
    SessionId,
    UserRevoked,
    partition_of,
)
from roomkey.domain.token_uses import TokenUse, noted
from roomkey.errors import Conflict, NotFound, Serialization
from roomkey.ports import PLAIN_RECORDS, NewSession, RecordKind, Revocation, Secret

_log = structlog.get_logger("roomkey.storage")

SESSION = RecordKind.SESSION
FIGURES = RecordKind.FIGURES

_NOTHING = b""
_FIRST_EPOCH = EPOCH.pack(0)
_CHANGED = "the session was changed by someone else"


class Stored(NamedTuple):
    """A session as it lies in the file: ``position`` is its place in ``deadlines`` or ``ended``."""

    session: Session
    secret: Secret
    epoch: int
    position: int


class Newcomer(Struct, frozen=True, gc=False):
    """A new session with everything that can be prepared before its turn comes."""

    key: bytes
    user: bytes
    prefix: bytes
    user_entry: bytes
    deadline_entry: bytes
    place: bytes
    record: bytes
    partition: int
    event_record: bytes
    at: datetime

    @classmethod
    def of(cls, new: NewSession) -> "Newcomer":
        """Encode ``new`` on the caller's thread, while the writer's waits for the disk."""
        session, event = new.session, new.event
        key = session.id.encode()
        user = session.user_id.encode()
        prefix = user_prefix(user)
        place = TIME.pack(micros(deadline(session) or session.expires_at))
        return cls(
            key,
            user,
            prefix,
            prefix + LIVE + TIME.pack(micros(session.created_at)) + key,
            place + key,
            place,
            encode_session(session, new.secret),
            partition_of(session.user_id),
            encode_event(event),
            event.at,
        )


class Commit(Changes[Tables]):
    """
    Changes of sessions in the making.

    ``touched`` is what was seen of sessions and is not in the file yet.
    """

    __slots__ = ("_touched", "_users", "counters", "log")

    def __init__(
        self, transaction: Transaction, file: MappedFile[Tables], touched: Mapping[SessionId, datetime]
    ) -> None:
        super().__init__(transaction, file)
        self._users = transaction.cursor(self.tables.users)
        self._touched = touched
        self.counters = self._counters()
        self.log = Log(transaction, file, self.counters)

    def close(self) -> None:
        """Write down the figures."""
        self.put_figures(self.tables.meta, COUNTERS_KEY, self.counters.pack())

    def _counters(self) -> Counters:
        value = self.get(self.tables.meta, COUNTERS_KEY)
        try:
            return Counters(counters_value(self.transaction, self.tables, self.codec))
        except Serialization as error:
            self.damage.note(FIGURES, COUNTERS_KEY, error)
            if value is not None:
                self.set_aside("meta", COUNTERS_KEY)
            return self._counted_anew()

    def _counted_anew(self) -> Counters:
        """
        What can be counted: sessions that exist, and where the log ends.

        Looks at everything. What is gone is not counted any more in the figures of those that ended.
        """
        counters = Counters(None)
        heads, counters.slot = count_events(self.transaction, self.tables.events)
        # A partition may have no event any more, because all were purged.
        tails = numbers_of(self.figures(self.tables.meta, TAILS_KEY, NUMBERS_BYTES))
        counters.heads = [max(pair) for pair in zip(heads, tails, strict=True)]
        counters.room = 0  # how full it is does not matter: the next event begins another one
        self.count_states(counters)
        for found in self._all_readable():
            counters.happened(found.session, found.position)
        self.writes += 1
        _log.warning("storage_counted_anew", sessions=sum(counters.states))
        return counters

    def count_states(self, counters: Counters) -> None:
        """Have ``counters`` say how many sessions are in each state, as far as they can be read."""
        counters.states = [0] * len(counters.states)
        for found in self._all_readable():
            counters.found(found.session.state)

    def _all_readable(self) -> Iterator[Stored]:
        with self.transaction.cursor(self.tables.sessions) as cursor:
            for key in cursor.iternext(keys=True, values=False):
                found = self.load_readable(key)
                if found is not None:
                    yield found

    def append(self, event: AnyEvent, record: bytes | None = None) -> None:
        """Give ``event`` the next place in the log of its user's partition."""
        self.append_to(partition_of(event.user), record or encode_event(event))

    def append_to(self, partition: int, record: bytes) -> None:
        """Give the event of a record the next place in the log of a partition."""
        self.writes += 1
        self.log.append(partition, record)

    def load(self, key: bytes | None) -> Stored | None:
        """The session with this key as it stands now, changes of this transaction included."""
        value = self.record(SESSION, self.tables.sessions, key) if key else None
        if value is None:
            return None
        found = stored(value)
        session = found.session
        if session.id.encode() != key:
            raise Serialization("a session record is at a wrong place")
        seen = self._touched.get(session.id)
        if seen is None or seen <= session.last_seen_at or session.state not in LIVE_STATES:
            return found
        return found._replace(session=replace(session, last_seen_at=seen))

    def load_readable(self, key: bytes | None) -> Stored | None:
        """Like ``load``, where one damaged record must not stop what is done to others."""
        try:
            return self.load(key)
        except Serialization as error:
            self.damage.note(SESSION, key or b"", error)
            return None

    def epoch_of(self, user_id: str) -> int:
        """The user's epoch; nought if nobody ever revoked the user."""
        return EPOCH.unpack(self.epoch(user_id.encode()))[0]

    def epoch(self, user: bytes) -> bytes:
        """The user's epoch as it stands in front of records."""
        value = self.transaction.get(user, None, self.tables.epochs)
        if value is None:
            return _FIRST_EPOCH
        return self.figures(self.tables.epochs, user, EPOCH.size) or self._new_epoch(user)

    def put_epoch(self, user: bytes, epoch: int) -> None:
        """Make it the user's epoch."""
        self.put_figures(self.tables.epochs, user, EPOCH.pack(epoch))

    def _new_epoch(self, user: bytes) -> bytes:
        """
        An epoch in the place of one that is damaged.

        Nobody knows which sessions were revoked, so all are: it is later than that of any session of the user.
        """
        found = (self.load_readable(key) for key in self.live_keys(user_prefix(user)))
        epoch = 1 + max((each.epoch for each in found if each is not None), default=0)
        self.set_aside("epochs", user)
        self.put_epoch(user, epoch)
        return EPOCH.pack(epoch)

    def is_dead(self, found: Stored) -> bool:
        """Whether the session is stored as live though its user was revoked after it was issued."""
        return found.session.state in LIVE_STATES and found.epoch < self.epoch_of(found.session.user_id)

    def live_keys(self, prefix: bytes) -> list[bytes]:
        """The keys of a user's live sessions, oldest first, as the index has them."""
        start = prefix + LIVE
        keys: list[bytes] = []
        if self._users.set_range(start):
            for key in self._users.iternext(True, False):
                if not key.startswith(start):
                    break
                keys.append(key[len(start) + TIME.size :])
        return keys

    def live(self, prefix: bytes) -> dict[SessionId, Stored]:
        """
        A user's live sessions, oldest first.

        One that is damaged cannot be used by anybody, so it does not count, and neither does what is not the user's.
        """
        found = map(self.load_readable, self.live_keys(prefix))
        return {
            each.session.id: each
            for each in found
            if each is not None
            and each.session.state in LIVE_STATES
            and user_prefix(each.session.user_id.encode()) == prefix
        }

    def change(self, found: Stored, session: Session, event: SessionEvent, secret: Secret | None = None) -> None:
        """Make ``session`` current in place of ``found`` and append ``event``. The caller has checked that it may."""
        before = found.session
        if before.last_seen_at > session.last_seen_at:
            session = replace(session, last_seen_at=before.last_seen_at)
        key = session.id.encode()
        # Encoded before anything is changed: what cannot be encoded then leaves no trace.
        record = encode_session(session, secret or found.secret)
        event_record = encode_event(event)
        position = self._move(found, session, event.at, key)
        self.put_record(SESSION, self.tables.sessions, key, HEADER.pack(found.epoch, position) + record)
        self.append(event, event_record)

    def rewrite(self, found: Stored, position: int) -> None:
        """Change what is no event: where it stands in its time index, and when it was last seen."""
        self._write(found, found.epoch, position)

    def carry_over(self, found: Stored, epoch: int) -> None:
        """Let the session survive a revocation of its user."""
        self._write(found, epoch, found.position)

    def _write(self, found: Stored, epoch: int, position: int) -> None:
        key = found.session.id.encode()
        record = encode_session(found.session, found.secret)
        self.put_record(SESSION, self.tables.sessions, key, HEADER.pack(epoch, position) + record)

    def _move(self, found: Stored, session: Session, at: datetime, key: bytes) -> int:
        """Bring the indexes and counters in line; returns the place in the time index."""
        before = found.session
        if session.state is not before.state:
            self.counters.moved(before.state, session.state)
        due = deadline(session)
        if due is not None and before.state in LIVE_STATES:
            return self.reschedule(found, micros(due)) if micros(due) < found.position else found.position
        if due is None and before.state in LIVE_STATES:
            self.counters.finished(at - session.created_at)
        self.forget(found)
        return self.enter(session, key, due or at)

    def reschedule(self, found: Stored, position: int) -> int:
        """Move a live session in ``deadlines``. Later ones are left alone until the early entry comes up."""
        key = found.session.id.encode()
        self.remove(self.tables.deadlines, time_key(found.position, key))
        self.put(self.tables.deadlines, time_key(position, key))
        return position

    def forget(self, found: Stored) -> None:
        """Take a session out of the indexes."""
        session = found.session
        key = session.id.encode()
        live = session.state in LIVE_STATES
        prefix = user_prefix(session.user_id.encode())
        entry = UserEntry(micros(session.created_at), key).key(prefix, LIVE if live else ENDED)
        self.remove(self.tables.users, entry)
        self.remove(self.tables.deadlines if live else self.tables.ended, time_key(found.position, key))

    def enter(self, session: Session, key: bytes, when: datetime) -> int:
        """Put a session into the indexes; returns its place in the time index."""
        live = session.state in LIVE_STATES
        prefix = user_prefix(session.user_id.encode())
        entry = UserEntry(micros(session.created_at), key).key(prefix, LIVE if live else ENDED)
        position = micros(when)
        self.put(self.tables.users, entry)
        self.put(self.tables.deadlines if live else self.tables.ended, time_key(position, key))
        return position


def stored(value: bytes) -> Stored:
    """
    What a value of ``sessions`` says, once it has been decoded.

    Raises:
        Serialization: If it is damaged.
    """
    if len(value) <= HEADER.size:
        raise Serialization("a session record cannot be read")
    epoch, position = HEADER.unpack_from(value)
    session, secret = decode_session(value[HEADER.size :])
    return Stored(session, secret, epoch, position)


def create(commit: Commit, newcomers: Sequence[Newcomer], policy: SessionPolicy, now: datetime) -> list[Evicted]:
    """``SessionStorage.create``; all of them or none."""
    # A Counter costs as much as two puts, and most come alone.
    per_user = {newcomers[0].prefix: 1} if len(newcomers) == 1 else Counter(new.prefix for new in newcomers)
    evicted: list[Evicted] = []
    for prefix, count in per_user.items():
        if not policy.has_room(len(commit.live_keys(prefix)), count):
            evicted += _make_room(commit, prefix, count, policy, now)
    # The most frequent write of all, hence written out.
    tables, put, codec = commit.tables, commit.transaction.put, commit.codec
    for new in newcomers:
        value = commit.epoch(new.user) + new.place + new.record
        if codec is not PLAIN_RECORDS:
            value = codec.encode(SESSION, new.key, 0, value)
        if not put(new.key, value, True, False, False, tables.sessions):
            raise Conflict("a session with this id exists")
        commit.writes += 1
        put(new.user_entry, _NOTHING, True, True, False, tables.users)
        put(new.deadline_entry, _NOTHING, True, True, False, tables.deadlines)
        commit.log.append(new.partition, new.event_record)
        commit.counters.created(new.at)
    return evicted


def _make_room(commit: Commit, prefix: bytes, newcomers: int, policy: SessionPolicy, now: datetime) -> list[Evicted]:
    live = commit.live(prefix)
    events = evictions((found.session for found in live.values()), newcomers, policy, now)
    for event in events:
        found = live[event.session]
        commit.change(found, apply(found.session, event), event)
    return events


def update(commit: Commit, session: Session, event: SessionEvent, secret: Secret | None) -> None:
    """``SessionStorage.update``."""
    found = commit.load(session_key(session.id))
    if found is None:
        raise NotFound("there is no such session")
    if found.session.version != session.version - 1 or commit.is_dead(found):
        raise Conflict(_CHANGED)
    commit.change(found, session, event, secret)


def update_many(commit: Commit, changes: Iterable[tuple[Session, SessionEvent]]) -> list[bool]:
    """``SessionStorage.update_many``."""
    outcomes: list[bool] = []
    for session, event in changes:
        try:
            update(commit, session, event, None)
        except (Conflict, NotFound, Serialization):
            outcomes.append(False)
        else:
            outcomes.append(True)
    return outcomes


def delete(commit: Commit, event: Deleted) -> bool:
    """``SessionStorage.delete``."""
    key = session_key(event.session)
    found = commit.load(key)
    if found is None or key is None:
        return False
    if found.session.version != event.version - 1:
        raise Conflict(_CHANGED)
    commit.forget(found)
    commit.remove(commit.tables.sessions, key)
    commit.counters.removed(found.session.state)
    commit.append(event)
    return True


def revoke_user(
    commit: Commit, user_id: str, now: datetime, actor: str, reason: str | None, kept_id: SessionId | None
) -> Revocation:
    """``SessionStorage.revoke_user``."""
    kept = None if kept_id is None else commit.load_readable(session_key(kept_id))
    if kept is not None and (kept.session.user_id != user_id or commit.is_dead(kept)):
        kept = None
    epoch = commit.epoch_of(user_id) + 1
    commit.put_epoch(user_id.encode(), epoch)
    if kept is not None:
        commit.carry_over(kept, epoch)
    root = UserRevoked(
        user=user_id, epoch=epoch, at=now, actor=actor, reason=reason, session=kept.session.id if kept else None
    )
    commit.append(root)
    events: list[UserRevoked | Invalidated] = [root]
    for id, found in commit.live(user_prefix(user_id.encode())).items():
        if id != root.session:
            events.append(_invalidate(commit, found, now, actor, reason))
    return Revocation(epoch, events)


def _invalidate(commit: Commit, found: Stored, now: datetime, actor: str, reason: str | None) -> Invalidated:
    session = found.session
    event = Invalidated(
        session=session.id,
        user=session.user_id,
        version=session.version + 1,
        at=now,
        actor=actor,
        reason=reason or "revoked",
    )
    commit.change(found, apply(session, event), event)
    return event


def touch(commit: Commit, seen: Iterable[SessionId]) -> None:
    """Write down when these sessions were last seen, of those that are still live."""
    for id in seen:
        found = commit.load_readable(session_key(id))
        if found is not None and found.session.state in LIVE_STATES:
            commit.rewrite(found, found.position)


def note_use(commit: Commit, id: SessionId, use: TokenUse, generation: int, window: timedelta) -> None:
    """``SessionStorage.note_use``."""
    found = commit.load(session_key(id))
    if found is None or found.session.state not in LIVE_STATES or commit.is_dead(found):
        return
    if found.secret.generation == generation:
        secret = replace(found.secret, uses=noted(found.secret.uses, use, window))
        commit.rewrite(found._replace(secret=secret), found.position)


def tend(commit: Commit, ids: Iterable[SessionId], strays: Iterable[bytes], now: datetime) -> None:
    """
    Put early entries of ``deadlines`` where they belong, and remove what is none.

    Sessions that died of a revocation which did not list them get the event that they are missing, so that
    they leave the index and are purged in time.
    """
    for id in ids:
        found = commit.load_readable(session_key(id))
        if found is None or (due := deadline(found.session)) is None:
            continue
        if commit.is_dead(found):
            _invalidate(commit, found, now, "system", None)
        elif (position := micros(due)) > found.position:
            commit.rewrite(found, commit.reschedule(found, position))
    remove_strays(commit, strays, "deadlines")


def remove_strays(commit: Commit, strays: Iterable[bytes], name: str) -> None:
    """
    Take entries out of ``deadlines`` or ``ended`` that no session stands at, which only damage brings about.

    A session that such an entry names gets back the one that it has by its record.
    """
    for entry in strays:
        place = time_and_key(entry)
        key = place[1] if place else b""
        found = commit.load_readable(key)
        if found is None and key and commit.get(commit.tables.sessions, key) is not None:
            continue  # its record is damaged: nobody knows
        if found is not None:
            is_live = found.session.state in LIVE_STATES
            own = time_key(found.position, key)
            if own == entry and is_live == (name == "deadlines"):
                continue
            commit.put(commit.tables.deadlines if is_live else commit.tables.ended, own)
        commit.remove(getattr(commit.tables, name), entry)


def count_if_damaged(commit: Commit) -> None:
    """Whoever begins a commit has counted anew if the counters are damaged, so there is nothing left to do."""
    del commit


def purge_events(commit: Commit, before: datetime, limit: int, fence: int | None) -> int:
    """``SessionStorage.purge_events``."""
    if fence is not None:
        # If the highest one is damaged, any is accepted, and from then on none below that.
        highest = int.from_bytes(commit.figures(commit.tables.meta, FENCE_KEY, FENCE_BYTES) or b"")
        commit.put_figures(commit.tables.meta, FENCE_KEY, fenced(highest, fence).to_bytes(FENCE_BYTES))
    purged = commit.log.purge(before, limit)
    commit.writes += purged
    return purged
