"""How a session that was let in becomes a peer: counted, registered, and looked at once more."""

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from roomkey import errors
from roomkey.domain.session import Session
from roomkey.realtime.admission import Sessions, check_usable, too_many, unavailable
from roomkey.realtime.clients.client import RealtimeClient
from roomkey.realtime.connections import Connections
from roomkey.realtime.session.limits import SessionLimits
from roomkey.realtime.settings import RealtimeSettings
from roomkey.wire.close import CloseCode

P = TypeVar("P", bound=RealtimeClient)


class Arrivals:
    """Whoever comes in, by whatever door. ``is_draining`` ends that."""

    def __init__(self, connections: Connections, sessions: Sessions, settings: RealtimeSettings) -> None:
        self._connections = connections
        self._sessions = sessions
        self._settings = settings
        self.is_draining = False

    async def settle(self, session: Session, make: Callable[[SessionLimits, datetime], P]) -> P:
        """
        The peer of ``session`` that ``make`` makes.

        Raises:
            Refusal, RoomkeyError: If there is no room for it, or the session ended at this moment.
        """
        connections = self._connections
        if len(connections.registry.of_session(session.id)) >= self._settings.max_connections_per_session:
            raise too_many("too_many_connections", "The session has as many connections as it may.")
        now = connections.now()
        client = make(connections.limits.open(session.id), now)
        connections.registry.enter(client, session)
        connections.deadlines.set(client, now + self._settings.opening_timeout)
        try:
            await self._check_again(client, session)
        except BaseException:
            client.closed(CloseCode.NO_CLOSE)
            raise
        return client

    async def _check_again(self, client: RealtimeClient, session: Session) -> None:
        # The session was read before its events were listened to: it may have ended in between.
        # And who was let in before the drain, but is not among those who are drained, must go, too.
        current = await self._sessions.get_session(session.id)
        if current is None:
            raise errors.InvalidToken("the session was deleted")
        check_usable(current)
        if client.guard.is_over:
            raise errors.Invalidated("the session was ended")
        if self.is_draining:
            raise unavailable("draining", "The server is about to stop.")
        # Its grants may be other ones than those with which it was made.
        client.carry_out(client.guard.learn(current), self._connections.now())
