"""How many connections each session has on all nodes: every node says how many it has, as long as it lives."""

import asyncio
from collections.abc import Callable, Collection
from typing import Final

import structlog

from roomkey.domain.session import SessionId
from roomkey.errors import RoomkeyError
from roomkey.ports import PresenceChange, PresenceStore

PREFIX: Final = "\0c"
"""What the names of the rooms of a ``PresenceStore`` begin with in which connections are counted."""

MEMBER: Final = "connections"
"""Each node shows one number for each session."""

PATIENCE_SECONDS: Final = 1.0
"""Maximum time to wait for the numbers of others. After that the connections of this node count alone."""

AT_A_TIME: Final = 500
"""Numbers that are said in one call."""

_log = structlog.get_logger("roomkey.realtime")


class ConnectionCounts:
    """
    The connections of sessions, as nodes tell each other.

    A node says its number before it asks for those of the others: of two nodes that let somebody in at the same
    moment, at least one sees both. A node that dies has none.
    """

    def __init__(self, store: PresenceStore, count: Callable[[SessionId], int], *, node: str) -> None:
        """``count`` says how many connections of a session there are here."""
        self._store = store
        self._count = count
        self._node = node
        self._changed: dict[SessionId, None] = {}
        self._said: asyncio.Future[bool] | None = None
        """Whether what has changed was said: for those who wait for that."""
        self._wake = asyncio.Event()
        self._is_away = False

    async def elsewhere(self, id: SessionId) -> int:
        """
        How many connections the session has on other nodes, which know of those here by then. Never raises.

        ``run`` must run.
        """
        self.changed([id])
        if self._is_away:
            return 0  # until something could be said again, nobody need wait for that
        if self._said is None:
            self._said = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                if not await asyncio.shield(self._said):
                    return 0
                here = await self._store.here(PREFIX + id)
        except (RoomkeyError, TimeoutError) as error:
            self._failed(error)
            return 0
        return sum(_number_in(each.shown) for each in here if each.node != self._node)

    def changed(self, ids: Collection[SessionId]) -> None:
        """Have the numbers of these sessions said, soon."""
        self._changed.update(dict.fromkeys(ids))
        self._wake.set()

    async def run(self) -> None:
        """Say what has changed, until cancelled. What cannot be said now is said later, as it is by then."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._changed:
                if not await self._say():
                    await asyncio.sleep(PATIENCE_SECONDS)

    async def _say(self) -> bool:
        """Say the numbers that have changed, one batch after the other, so that the last one said is the last one."""
        ids, self._changed = list(self._changed), {}
        said, self._said = self._said, None
        done = 0
        try:
            for first in range(0, len(ids), AT_A_TIME):
                await self._store.change([self._number(id) for id in ids[first : first + AT_A_TIME]])
                done = first + AT_A_TIME
        except RoomkeyError as error:
            self._changed = dict.fromkeys(ids[done:]) | self._changed
            self._failed(error)
        else:
            self._is_away = False
        if said is not None and not said.done():
            said.set_result(done >= len(ids))
        return done >= len(ids)

    def _number(self, id: SessionId) -> PresenceChange:
        count = self._count(id)
        return PresenceChange(PREFIX + id, MEMBER, str(count).encode() if count else None)

    def _failed(self, error: BaseException) -> None:
        if not self._is_away:
            _log.warning("connections_counted_alone", error=str(error) or "no answer in time")
        self._is_away = True


def _number_in(shown: bytes) -> int:
    return int(shown) if shown.isdigit() else 0
