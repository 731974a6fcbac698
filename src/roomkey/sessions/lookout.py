"""The lookout of a node: it notices that nothing is seen of what others do to sessions, and has that dealt with."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import structlog
from msgspec import Struct

from roomkey.sessions.sight import BLIND_AFTER, Phase, Sight, Step

LOOK_SECONDS: Final = 0.25

STALL_SECONDS: Final = BLIND_AFTER.total_seconds()
"""Delay of a look from which the whole process was asleep, or its machine, for longer than others may be unheard."""

PING_SECONDS: Final = 5.0
"""Time after which a message is sent to hear whether it comes back, if there was none."""

HURRIED_PING_SECONDS: Final = 0.5
"""The same while the log cannot be read."""

LOG_IS_QUIET_SECONDS: Final = 1.0

DEAF_SECONDS: Final = PING_SECONDS + 2.0
"""Age of what came back last from which the broker counts as silent."""

_log = structlog.get_logger("roomkey.sessions")


class Watched(Struct, frozen=True):
    """
    What a node does about what it sees. Nothing but ``verify`` may wait, and nothing raises.

    ``doubt``: nothing passes on any socket until storage has said how its session stands. ``verify`` asks storage
    about everybody, at a rate that it can bear, and returns when that is done.
    """

    let_nobody_in: Callable[[], None]
    let_in: Callable[[], None]
    close_sockets: Callable[[], None]
    doubt: Callable[[], None]
    verify: Callable[[], Awaitable[None]]


class Lookout:
    """
    Looks several times per second how far ``Sight`` goes. On one loop; usable while ``at_work`` is entered.

    The follower of the log and the hints say what they have seen: ``followed``, ``gap`` and ``echoed``.
    """

    def __init__(self, watched: Watched, *, grace: timedelta) -> None:
        self._watched = watched
        self._grace = grace
        self._sight: Sight | None = None
        self._ping: Callable[[], Awaitable[object]] | None = None
        self._looked_at = 0.0
        self._is_verifying = False

    @asynccontextmanager
    async def at_work(self, ping: Callable[[], Awaitable[object]] | None) -> AsyncGenerator[None]:
        """
        Take it that the log has just been read. ``run`` looks.

        ``ping`` has a message sent that comes back, if nodes have a broker.
        """
        self._ping = ping
        self._looked_at = self._now()
        self._sight = Sight(self._looked_at, grace=self._grace)
        try:
            yield
        finally:
            self._sight = None

    # --- what is seen ---------------------------------------------------------------------------------

    def followed(self, begun: float) -> None:
        """The log was read to its end, which was asked for at ``begun``."""
        if self._sight is not None:
            self._sight.followed(begun)

    def gap(self) -> None:
        """The broker may have missed something until now."""
        if self._sight is not None:
            self._sight.gap(self._now())

    def echoed(self, sent: float) -> None:
        """A message came back that was sent at ``sent``."""
        if self._sight is not None:
            self._sight.echoed(sent)

    @property
    def lag(self) -> timedelta:
        """How long ago the log was last read to its end."""
        return timedelta() if self._sight is None else timedelta(seconds=self._sight.log_age(self._now()))

    @property
    def is_blind(self) -> bool:
        """Whether nothing is seen."""
        return self._sight is not None and self._sight.phase is not Phase.SEEING

    # --- what follows ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look, and listen whether what is sent comes back, until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._ping is not None:
                group.create_task(self._keep_pinging(self._ping))
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                if self.look():
                    self._is_verifying = True
                    group.create_task(self._verify())

    def look(self) -> bool:
        """Do what has to be done now; whether everybody is to be verified. ``run`` calls this."""
        sight, now = self._sight, self._now()
        if sight is None:
            return False
        delay, self._looked_at = now - self._looked_at - LOOK_SECONDS, now
        if delay >= STALL_SECONDS:
            # Whoever was revoked meanwhile may have messages here already. Those who know have a moment to say so.
            _log.warning("process_was_asleep", seconds=round(delay, 1))
            self._watched.doubt()
            return False
        steps = sight.look(now)
        for step in steps:
            self._take(step, sight.age(now))
        return Step.VERIFY in steps

    def _take(self, step: Step, age: float) -> None:
        match step:
            case Step.LET_NOBODY_IN:
                _log.error("blind", seconds=round(age, 1), sockets_close_in=self._left(age))
                self._watched.let_nobody_in()
            case Step.CLOSE_SOCKETS:
                _log.error("blind_for_too_long", seconds=round(age, 1))
                self._watched.close_sockets()
            case Step.VERIFY:
                _log.info("seeing_again")
                self._watched.let_in()

    async def _verify(self) -> None:
        try:
            await self._watched.verify()
        finally:
            self._is_verifying = False

    async def _keep_pinging(self, ping: Callable[[], Awaitable[object]]) -> None:
        sent_at = self._now()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            sight, now = self._sight, self._now()
            if sight is None:
                continue
            every = HURRIED_PING_SECONDS if sight.log_age(now) >= LOG_IS_QUIET_SECONDS else PING_SECONDS
            if now - sent_at >= every and sight.broker_age(now) >= every:
                sent_at = now
                await ping()

    # --- how it does ----------------------------------------------------------------------------------

    def degradations(self) -> Mapping[str, str]:
        """What is not seen, and what to do about it."""
        sight = self._sight
        if sight is None:
            return {}
        now = self._now()
        found = dict[str, str]()
        if sight.phase is Phase.BLIND:
            found["blind"] = (
                f"neither the event log nor the broker was read for {sight.age(now):.1f} s: nobody new is let in, open "
                f"sockets are closed in {self._left(sight.age(now)):.1f} s; look at the network to the storage"
            )
        elif sight.phase is Phase.SHUT:
            found["blind"] = (
                f"neither the event log nor the broker was read for {sight.age(now):.1f} s: all sockets were closed "
                "and nobody is let in; look at the network to the storage"
            )
        elif sight.log_age(now) >= BLIND_AFTER.total_seconds():
            found["event log"] = (
                f"not read for {sight.log_age(now):.1f} s: what others do to sessions is heard of through the broker "
                "only; look at the storage"
            )
        if self._ping is not None and not self.is_blind and sight.broker_age(now) >= DEAF_SECONDS:
            found["hints"] = (
                f"nothing came back for {sight.broker_age(now):.0f} s: what others do to sessions is known within a "
                "second, not at once; look at the broker"
            )
        if self._is_verifying:
            found["verifying"] = "sessions of open sockets are being checked after a time without sight"
        return found

    def _left(self, age: float) -> float:
        return max(0.0, BLIND_AFTER.total_seconds() + self._grace.total_seconds() - age)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
