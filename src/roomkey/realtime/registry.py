"""Which connections there are: by session, by user, and by when they are to be looked at."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from heapq import heapify, heappop, heappush
from itertools import chain, count
from typing import Generic, Protocol, TypeVar

from roomkey.domain.session import Session, SessionId


class Scheduled(Protocol):
    """What ``Deadlines`` needs of what it keeps; nobody else touches ``due_at``."""

    due_at: datetime | None


P = TypeVar("P")
S = TypeVar("S", bound=Scheduled)


class Registry(Generic[P]):
    """The connections of this node."""

    def __init__(self) -> None:
        # Lists, because most sessions have one connection and most users one session: a set of one is large.
        self._of_session: dict[SessionId, list[P]] = {}
        self._of_user: dict[str, list[SessionId]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[P]:
        return chain.from_iterable(self._of_session.values())

    @property
    def sessions(self) -> int:
        """How many sessions have a connection."""
        return len(self._of_session)

    def enter(self, connection: P, session: Session) -> None:
        """Note a connection of ``session``."""
        connections = self._of_session.get(session.id)
        if connections is None:
            connections = self._of_session[session.id] = []
            self._of_user.setdefault(session.user_id, []).append(session.id)
        connections.append(connection)
        self._count += 1

    def leave(self, connection: P, session: Session) -> None:
        """Forget a connection of ``session``."""
        connections = self._of_session[session.id]
        connections.remove(connection)
        self._count -= 1
        if connections:
            return
        del self._of_session[session.id]
        sessions = self._of_user[session.user_id]
        sessions.remove(session.id)
        if not sessions:
            del self._of_user[session.user_id]

    def of_session(self, id: SessionId) -> Sequence[P]:
        """The connections of a session, as they are now."""
        connections = self._of_session.get(id)
        return () if connections is None else tuple(connections)

    def of_user(self, user_id: str) -> Sequence[P]:
        """The connections of all sessions of a user, as they are now."""
        return tuple(chain.from_iterable(self._of_session[id] for id in self._of_user.get(user_id, ())))


class Deadlines(Generic[S]):
    """
    When which connection is to be looked at: one time for each.

    A time that moves away costs nothing until the old one comes, and memory is linear in what is scheduled.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, int, S]] = []
        self._numbers = count()
        self._stale = 0

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, connection: S, at: datetime) -> None:
        """Look at ``connection`` at ``at``, or a bit before that."""
        if connection.due_at is not None:
            if connection.due_at <= at:
                return
            self.cancel(connection)
        connection.due_at = at
        heappush(self._heap, (at, next(self._numbers), connection))

    def cancel(self, connection: S) -> None:
        """Look at ``connection`` no more."""
        if connection.due_at is None:
            return
        connection.due_at = None
        self._stale += 1
        if self._stale > 100 and self._stale > len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if entry[2].due_at is entry[0]]
            heapify(self._heap)
            self._stale = 0

    def pop_due(self, now: datetime) -> list[S]:
        """What is to be looked at now; it is not scheduled any more."""
        due: list[S] = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, connection = heappop(heap)
            if connection.due_at is at:
                connection.due_at = None
                due.append(connection)
            else:
                self._stale -= 1
        return due
