"""Where sessions and documents are kept: the ports of storage, the clock, and the values that pass through them."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from types import TracebackType
from typing import Final, Protocol, Self, runtime_checkable
from zlib import crc32

from msgspec import Struct

from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import (
    AnyEvent,
    Created,
    Deleted,
    Evicted,
    Invalidated,
    Session,
    SessionEvent,
    SessionFilter,
    SessionId,
    SessionState,
    UserRevoked,
)
from roomkey.domain.token_uses import TokenUse
from roomkey.errors import Serialization

# --- time ---------------------------------------------------------------------------------------------


class Clock(Protocol):
    """What time it is. Services read the clock; rules are given ``now``."""

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        ...


class SystemClock:
    """The clock of this machine."""

    # A partial of a built-in, because every read of a session asks what time it is.
    now = staticmethod(partial(datetime.now, UTC))


# --- records ------------------------------------------------------------------------------------------


class RecordKind(StrEnum):
    """
    What a record is about. ``CONTENT`` is a piece of a snapshot, of authorship, or of a version, ``OBJECT`` one of an
    ``ObjectStore``, whose id begins with its space and a zero byte, ``FIGURES`` what a backend keeps for itself:
    counters, epochs, positions.
    """

    SESSION = "session"
    EVENT = "event"
    DOCUMENT = "document"
    UPDATES = "updates"
    CONTENT = "content"
    VERSION = "version"
    OBJECT = "object"
    FIGURES = "figures"


class RecordCodec(Protocol):
    """
    What the bytes of a record go through on their way into a backend and back, such as encryption.

    ``kind``, ``id`` and ``version`` say where the record lies; both ways are given the same. A codec that
    authenticates them refuses a record that was moved to another place. ``version`` is known from outside the
    record, so one that was replaced by an older one is refused, too; it is 0 where nothing outside says it.
    Ids are bytes that are unique within their kind and store.

    Keys are not encoded: whoever has the file can read the ids of sessions and users, the names of documents,
    and times. Both methods are called on several threads at once, one of which the event loop may wait for.
    """

    def encode(self, kind: RecordKind, id: bytes, version: int, record: bytes) -> bytes:
        """What is stored in place of ``record``."""
        ...

    def decode(self, kind: RecordKind, id: bytes, version: int, stored: bytes) -> bytes:
        """
        The record that ``stored`` stands for.

        Raises:
            Serialization: If ``encode`` did not return it for this place. The message shows nothing of it.
        """
        ...


@runtime_checkable
class SealingCodec(RecordCodec, Protocol):
    """A codec that authenticates what it encodes, under keys that change."""

    def within(self, store: str) -> "SealingCodec":
        """The codec of one of several stores, whose records cannot take the place of those of another."""
        ...

    def reading(self, unsealed: RecordCodec) -> "SealingCodec":
        """The codec of a store whose older records went through ``unsealed``."""
        ...

    def is_current(self, stored: bytes) -> bool:
        """Whether ``encode`` would use the same key now."""
        ...


class PlainRecords:
    """The codec that stores records as they are."""

    def encode(self, kind: RecordKind, id: bytes, version: int, record: bytes) -> bytes:  # noqa: ARG002
        """The record itself."""
        return record

    def decode(self, kind: RecordKind, id: bytes, version: int, stored: bytes) -> bytes:  # noqa: ARG002
        """The record itself."""
        return stored


PLAIN_RECORDS: Final = PlainRecords()


class ChecksummedRecords:
    """
    The codec that puts a checksum behind each record: CRC-32 of what it is, where it lies, and what it says.

    It finds damage, a record that was moved, and one that is not of Roomkey. Against people only encryption helps.
    """

    def encode(self, kind: RecordKind, id: bytes, version: int, record: bytes) -> bytes:
        """The record and its sum."""
        return record + _SUM.pack(crc32(record, _place_of(kind, id, version)))

    def decode(self, kind: RecordKind, id: bytes, version: int, stored: bytes) -> bytes:
        """The record, whose sum must be right."""
        place = crc32(id, _SEEDS[kind])  # written out: every read of a record comes by here
        if version:
            place = crc32(_VERSION.pack(version), place)
        if crc32(stored, place) != _RESIDUE:
            raise Serialization(f"a {kind} record is damaged: its checksum is wrong")
        return stored[: -_SUM.size]


CHECKSUMMED_RECORDS: Final = ChecksummedRecords()

_SUM: Final = struct.Struct("<I")
_RESIDUE: Final = 0x2144DF1C
"""The CRC-32 of anything that is followed by its own, the lowest byte first; so one pass is enough to check it."""

_VERSION: Final = struct.Struct(">Q")
_SEEDS: Final = {kind: crc32(kind.encode()) for kind in RecordKind}


def _place_of(kind: RecordKind, id: bytes, version: int) -> int:
    """The sum of what a record is and where it lies, from which its own goes on."""
    place = crc32(id, _SEEDS[kind])
    return crc32(_VERSION.pack(version), place) if version else place


# --- sessions -----------------------------------------------------------------------------------------


class Secret(Struct, frozen=True, kw_only=True, gc=False):
    """
    What storage keeps of a session's token: SHA-256 hashes (32 bytes), never the token.

    ``generation`` counts rotations. ``previous`` is the hash that ``current`` replaced at ``rotated_at``. ``uses``
    is where the current token was presented since then, and where replaced ones were.
    """

    current: bytes
    generation: int = 0
    previous: bytes | None = None
    rotated_at: datetime | None = None
    uses: tuple[TokenUse, ...] = ()


class NewSession(Struct, frozen=True, gc=False):
    """A session that is to be stored: its first event, the value that this leads to, and its secret."""

    event: Created
    session: Session
    secret: Secret


class Page(Struct, frozen=True, kw_only=True):
    """Which part of a list: at most ``limit`` entries (1 to 500) after ``cursor``, which is opaque."""

    cursor: str | None = None
    limit: int = 50


class SessionPage(Struct, frozen=True):
    """
    One part of a list of sessions. ``next_cursor`` is ``None`` at the end, and only there.

    A page may be shorter than asked for, even empty, when few of the sessions that were looked at match.
    """

    sessions: list[Session]
    next_cursor: str | None = None

    def __iter__(self) -> Iterator[Session]:
        return iter(self.sessions)

    def __len__(self) -> int:
        return len(self.sessions)

    def __getitem__(self, index: int) -> Session:
        return self.sessions[index]


class Revocation(Struct, frozen=True):
    """What revoking a user did: the new epoch, and the events of this commit, ``UserRevoked`` first."""

    epoch: int
    events: list[UserRevoked | Invalidated]


class StorageStatistics(Struct, frozen=True, kw_only=True):
    """Counters that a backend keeps up to date with every commit, so that reading them costs nothing."""

    states: Mapping[SessionState, int]
    """Stored sessions by stored state. Overdue ones count as what they were until somebody noticed."""
    created_today: int
    """Sessions created since midnight UTC, those that are gone included."""
    ended: int
    """Sessions that ended (expired or invalidated) since the storage exists."""
    ended_duration: timedelta
    """The sum of their ages at their end."""


class LoggedEvent(Struct, frozen=True):
    """An event at its place in the log of its partition. The first sequence number is 1; there are no holes."""

    sequence: int
    event: AnyEvent


class EventLog(Protocol):
    """The history of every session, written in the commits that made it."""

    async def events(self, partition: int, after: int = 0, limit: int = 1000) -> Sequence[LoggedEvent]:
        """
        Events of one partition in order, beginning behind sequence number ``after``.

        What is older than the retention (or, in memory, beyond the ring's size) is missing from the front. So is
        an event that cannot be read: what lies before it and what lies behind are never in one answer.
        """
        ...

    async def heads(self) -> Mapping[int, int]:
        """The last sequence number of every partition that has one. Cheap: followers ask several times a second."""
        ...

    async def purge_events(self, before: datetime, limit: int = 10_000, *, fence: int | None = None) -> int:
        """
        Forget up to ``limit`` events older than ``before``, from the front of each log. Returns how many.

        ``fence`` is the token of the lease under which this is done, see ``Leases``.

        Raises:
            LeaseLost: If events were purged under a higher one.
        """
        ...


class SessionStorage(EventLog, Protocol):
    """
    Where sessions live.

    Every write is one atomic step: record, index, cap, epoch, deadline index, counters and events change
    together or not at all, and a write that was awaited is durable on a durable backend. A write never recreates
    what is gone. Reads return what was committed and decide no deadline. A session whose user was revoked
    after it was issued never comes back live, whether or not an index lists it: it is read as invalidated.

    A record that is damaged fails alone: ``Serialization`` for whoever asks for that session by its id, while
    everything else goes on around it. Nobody can use such a session, so it takes no place under the cap.

    A storage is used as an async context manager: it is usable after entering and closed on leaving. All methods
    raise ``Storage`` when the backend is away or full.
    """

    shared: bool
    """Whether other processes may commit to it, so that its log has to be followed to hear of everything."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def create(self, new: Sequence[NewSession], policy: SessionPolicy, now: datetime) -> list[Evicted]:
        """
        Store sessions, making room under the cap in the same commit as ``domain.policy.evictions`` decides.

        Sessions of one user are stored together or not at all; sessions of different users may be several
        commits. Live sessions that are overdue at ``now`` do not count and are left to the janitor.
        The returned events are what made room.

        Raises:
            CapReached: If a user has no room; nothing of that user was stored.
            Conflict: If an id exists already.
        """
        ...

    async def get(self, id: SessionId) -> Session | None:
        """The session as it was last committed. Ids of any form may be asked for."""
        ...

    async def get_many(self, ids: Sequence[SessionId]) -> list[Session | None]:
        """The sessions in the order of ``ids``; ``None`` for one that does not exist, or whose record is damaged."""
        ...

    async def get_with_secret(self, id: SessionId) -> tuple[Session, Secret] | None:
        """The session and what its token is checked against, from one moment."""
        ...

    async def update(self, session: Session, event: SessionEvent, *, secret: Secret | None = None) -> None:
        """
        Make ``session`` current, append ``event``, and replace the secret if one is given.

        A ``last_seen_at`` that is later in storage stays.

        Raises:
            Conflict: If the stored version is not ``session.version - 1``.
            NotFound: If there is no such session; it is not created.
        """
        ...

    async def update_many(self, changes: Sequence[tuple[Session, SessionEvent]]) -> list[bool]:
        """Like ``update`` for each; ``False`` stands for a lost race, or a session that is missing or damaged."""
        ...

    async def touch(self, id: SessionId, at: datetime) -> None:
        """
        Move ``last_seen_at`` forward to ``at``, never back, and nothing else.

        Not an event. A session that is missing or has ended is left alone. May become durable later than
        it is visible.
        """
        ...

    async def note_use(self, id: SessionId, use: TokenUse, *, generation: int, window: timedelta) -> None:
        """
        Add ``use`` to those of the session's secret, as ``domain.token_uses.noted`` does, and nothing else.

        Not an event. Nothing happens if the session is missing or has ended, or if its secret is not of
        ``generation`` any more. A rotation at the same moment may forget it.
        """
        ...

    async def delete(self, event: Deleted) -> bool:
        """
        Remove the session and append ``event``; ``False`` if there is none.

        Raises:
            Conflict: If the stored version is not ``event.version - 1``.
        """
        ...

    async def revoke_user(
        self, user_id: str, now: datetime, *, actor: str, reason: str | None, except_session: SessionId | None
    ) -> Revocation:
        """
        Raise the user's epoch, and invalidate the live sessions that the index lists, in one commit.

        ``except_session`` is carried over to the new epoch if it is a session of this user; otherwise it is ignored.
        """
        ...

    async def list(self, filter: SessionFilter, page: Page) -> SessionPage:
        """
        A page of the sessions that match, in an order that does not change while they exist.

        With ``filter.user_id`` the oldest come first. Following the cursors returns every session that existed
        throughout exactly once.

        Raises:
            InvalidInput: If the cursor is not one of ours.
        """
        ...

    async def count(self, filter: SessionFilter) -> int:
        """How many sessions match. Constant time without conditions on time; with them each may be looked at."""
        ...

    async def overdue(self, now: datetime, limit: int) -> Sequence[Session]:
        """Live sessions whose deadline (``lifecycle.deadline``) is not after ``now``, the most overdue first."""
        ...

    async def ended_before(self, moment: datetime, limit: int) -> Sequence[Session]:
        """Expired and invalidated sessions whose last event is older than ``moment``: what the janitor may purge."""
        ...

    async def statistics(self, now: datetime) -> StorageStatistics:
        """The counters, in constant time."""
        ...

    async def ping(self) -> None:
        """
        Return when the backend answers and accepts writes.

        Raises:
            Storage: If it does not; the message says why.
        """
        ...

    def degradations(self) -> Mapping[str, str]:
        """What is wrong with what it stands on, by name, and why; empty if nothing. Asks nobody."""
        ...
