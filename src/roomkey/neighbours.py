"""What a node hears of others about sessions, and tells them: by hints at once, by the log for certain."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from msgspec import Struct

from roomkey.backends.records import decode_event, encode_event
from roomkey.domain.session import AnyEvent
from roomkey.ports import Broker, LoggedEvent, SessionStorage
from roomkey.realtime.endpoint import SessionWebSocketHandler
from roomkey.sessions.event_follower import EventFollower
from roomkey.sessions.hints import EventCodec, HintListener, SessionHints
from roomkey.sessions.lookout import Lookout, Watched
from roomkey.sessions.manager import SessionManager
from roomkey.sessions.near_cache import NearCache

FOLLOW_INTERVAL: Final = timedelta(milliseconds=250)
"""How often the log is read where nothing else tells of what others commit."""

FOLLOW_INTERVAL_WITH_HINTS: Final = timedelta(milliseconds=500)
"""The same beside hints: so seldom that many nodes do not burden the storage, and still twice within a second."""

CODEC: Final = EventCodec(encode_event, decode_event)

Works = Mapping[str, Callable[[], Awaitable[None]]]

Hearing = Callable[[Sequence[AnyEvent]], None]
"""Told what was committed about sessions, once or several times."""


def _deaf(events: Sequence[AnyEvent]) -> None:
    """Nobody is told."""


class SocketEvents:
    """The sockets of a node, the sessions that it remembers, and the watch over them, as an ``EventConsumer``."""

    def __init__(
        self, sockets: SessionWebSocketHandler, cache: NearCache | None = None, watch: Hearing = _deaf
    ) -> None:
        self._sockets = sockets
        self._cache = cache
        self._watch = watch

    def hear(self, events: Sequence[AnyEvent]) -> None:
        """End the sockets of sessions that others have ended. Repetitions do not matter."""
        if self._cache is not None:  # first: whom the sockets tell may ask again
            self._cache.forget(events)
        self._sockets.on_events(events)
        self._watch(events)

    async def consume(self, partition: int, events: Sequence[LoggedEvent]) -> None:
        """As ``hear``."""
        del partition
        self.hear([logged.event for logged in events])

    async def gap(self, partition: int, first_missing: int, last_missing: int) -> None:
        """Whatever was missed, storage knows how the sessions stand now."""
        del first_missing, last_missing
        if self._cache is not None:
            self._cache.forget_partition(partition)
        self._sockets.on_gap(partition)


class NeighbourSettings(Struct, frozen=True, kw_only=True):
    """
    ``node`` is this one. ``is_remote``: the storage is on another machine, so that this node may be cut off from it.

    ``grace`` is the time for which open sockets go on then.
    """

    node: str
    is_remote: bool
    grace: timedelta


class Neighbours:
    """
    Everything that a node does because others may change sessions, too.

    Nothing where the storage belongs to this process alone.
    """

    def __init__(
        self,
        sessions: SessionManager,
        broker: Broker,
        settings: NeighbourSettings,
        *,
        cache: NearCache | None = None,
        watch: Hearing = _deaf,
    ) -> None:
        """``watch`` is told what the sockets are told."""
        self._sessions = sessions
        self._storage: SessionStorage = sessions.storage
        self._broker = broker
        self._settings = settings
        self._cache = cache
        self._watch = watch
        self._lookout: Lookout | None = None

    @asynccontextmanager
    async def heard(self, sockets: SessionWebSocketHandler) -> AsyncGenerator[Works]:
        """
        Let ``sockets`` know what happens to sessions until this is left; yields what must run meanwhile.

        Raises:
            Storage: If log or broker are away.
        """
        if not self._storage.shared:
            yield {}
        elif not self._settings.is_remote:
            follower = self._follower(SocketEvents(sockets, self._cache, self._watch), None)
            await follower.start()
            yield {"follower": follower.run}
        else:
            async with self._watching(sockets) as works:
                yield works

    @asynccontextmanager
    async def _watching(self, sockets: SessionWebSocketHandler) -> AsyncGenerator[Works]:
        consumer = SocketEvents(sockets, self._cache, self._watch)
        lookout = self._lookout = Lookout(self._watched(sockets), grace=self._settings.grace)
        follower = self._follower(consumer, lookout.followed)
        try:
            if not self._broker.shared:
                async with lookout.at_work(None):
                    await follower.start()
                    yield {"follower": follower.run, "lookout": lookout.run}
                return

            def missed() -> None:
                lookout.gap()
                follower.hurry()
                sockets.say_connections()

            listener = HintListener(consumer.hear, missed, lookout.echoed)
            hints = SessionHints(self._broker, CODEC, listener, node=self._settings.node)
            unsubscribe = self._sessions.on_events(hints.announce)
            try:
                async with hints.at_work(), lookout.at_work(hints.send):
                    await follower.start()
                    yield {"follower": follower.run, "hints": hints.run, "lookout": lookout.run}
            finally:
                unsubscribe()
        finally:
            self._lookout = None

    def _follower(self, consumer: SocketEvents, caught_up: Callable[[float], None] | None) -> EventFollower:
        interval = FOLLOW_INTERVAL_WITH_HINTS if self._broker.shared else FOLLOW_INTERVAL
        return EventFollower(self._storage, consumer, name="sockets", interval=interval, caught_up=caught_up)

    def _watched(self, sockets: SessionWebSocketHandler) -> Watched:
        cache = self._cache

        def let_nobody_in() -> None:
            sockets.let_nobody_in()
            if cache is not None:
                cache.turn_blind()

        def let_in() -> None:
            sockets.let_in()
            if cache is not None:
                cache.see()

        def doubt() -> None:
            if cache is not None:
                cache.forget_everything()
            sockets.doubt_all()

        async def verify() -> None:
            sockets.say_connections()
            await sockets.verify_all()
            if cache is not None:
                await cache.warm(sockets.sessions())

        return Watched(let_nobody_in, let_in, sockets.close_all, doubt, verify)

    # --- how it does ----------------------------------------------------------------------------------

    @property
    def lag(self) -> timedelta:
        """How far this node may be behind the log."""
        return timedelta() if self._lookout is None else self._lookout.lag

    def degradations(self) -> Mapping[str, str]:
        """What is not heard, and what to do about it."""
        return {} if self._lookout is None else self._lookout.degradations()

    def observations(self) -> Mapping[str, str]:
        """What is worth knowing of what works."""
        found = dict[str, str]()
        if self._broker.shared:
            found["broker"] = "ok"
        if self._lookout is not None:
            found["event log"] = f"read {self.lag.total_seconds():.1f} s ago"
        if self._cache is not None:
            found |= self._cache.observations()
        return found
