"""How a session that was let in becomes a peer: counted, registered, and looked at once more."""

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from roomkey import errors
from roomkey.domain.session import Session
from roomkey.realtime.admission import Sessions, check_usable, too_many, unavailable
from roomkey.realtime.connections import AnyPeer, NodeOffice
from roomkey.realtime.session.limits import Ledger
from roomkey.realtime.settings import RealtimeSettings

P = TypeVar("P", bound=AnyPeer)


class Arrivals:
    """Whoever comes in, by whatever door. ``is_draining`` ends that."""

    def __init__(self, office: NodeOffice, sessions: Sessions, settings: RealtimeSettings) -> None:
        self._office = office
        self._sessions = sessions
        self._settings = settings
        self.is_draining = False

    async def settle(self, session: Session, make: Callable[[Ledger, datetime], P]) -> P:
        """
        The peer of ``session`` that ``make`` makes.

        Raises:
            Refusal, RoomkeyError: If there is no room for it, or the session ended at this moment.
        """
        office = self._office
        if len(office.registry.of_session(session.id)) >= self._settings.max_connections_per_session:
            raise too_many("too_many_connections", "The session has as many connections as it may.")
        now = office.now()
        peer = make(office.ledgers.open(session.id), now)
        office.registry.enter(peer, session)
        office.deadlines.set(peer, now + self._settings.opening_timeout)
        try:
            await self._check_again(peer, session)
        except BaseException:
            peer.closed(1006)
            raise
        return peer

    async def _check_again(self, peer: AnyPeer, session: Session) -> None:
        # The session was read before its events were listened to: it may have ended in between.
        # And who was let in before the drain, but is not among those who are drained, must go, too.
        current = await self._sessions.get_session(session.id)
        if current is None:
            raise errors.InvalidToken("the session was deleted")
        check_usable(current)
        if peer.connection.is_over:
            raise errors.Invalidated("the session was ended")
        if self.is_draining:
            raise unavailable("draining", "The server is about to stop.")
        peer.connection.learn(current)
