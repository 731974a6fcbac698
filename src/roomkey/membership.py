"""Being one of the nodes: this one says that it lives, and hears which others do."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Final

import structlog

from roomkey.errors import RoomkeyError
from roomkey.ports import Clock, NodeRegistry, NodeStatus

LIFETIME: Final = timedelta(seconds=10)
"""How long a node counts as living that says nothing; what it shows of its clients goes then."""

RENEWALS: Final = 3
"""How often within its lifetime a node says that it lives."""

Gone = Callable[[Sequence[str]], None]
"""Called with the nodes that live no more. Must neither wait nor raise."""

_log = structlog.get_logger("roomkey.membership")


class Membership:
    """
    The place of this node among the others.

    A node that cannot reach the registry keeps the others that it knew: it cannot know that they are gone.
    """

    def __init__(
        self,
        registry: NodeRegistry,
        describe: Callable[[], NodeStatus],
        clock: Clock,
        *,
        lifetime: timedelta = LIFETIME,
    ) -> None:
        """``describe`` says how this node stands."""
        self._registry = registry
        self._describe = describe
        self._clock = clock
        self._lifetime = lifetime
        self._nodes: dict[str, NodeStatus] = {}
        self._told: list[Gone] = []
        self._renewed_at = clock.now()

    @property
    def nodes(self) -> Sequence[NodeStatus]:
        """All nodes that lived when that was last heard, this one too, by their ids."""
        return list(self._nodes.values())

    @property
    def silence(self) -> timedelta:
        """For how long the registry has not answered."""
        return self._clock.now() - self._renewed_at

    def lives(self, id: str) -> bool:
        """Whether the node was there when that was last heard."""
        return id in self._nodes

    def on_gone(self, told: Gone) -> None:
        """Call ``told`` whenever nodes are gone."""
        self._told.append(told)

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        """
        Be a member until this is left; ``run`` keeps it so.

        Raises:
            Storage: If the registry is away.
        """
        await self.renew()
        try:
            yield
        finally:
            with suppress(RoomkeyError):  # its lease ends anyway
                await self._registry.leave(self._describe().id)

    async def run(self) -> None:
        """Say that this node lives, several times per lifetime, until cancelled."""
        is_away = False
        while True:
            await asyncio.sleep(self._lifetime.total_seconds() / RENEWALS)
            try:
                await self.renew()
            except RoomkeyError as error:
                if not is_away:
                    _log.warning("registry_away", code=error.code, error=str(error))
                is_away = True
            else:
                is_away = False

    async def renew(self) -> None:
        """Say that this node lives, and hear which others do."""
        living = await self._registry.renew(self._describe(), self._lifetime)
        self._renewed_at = self._clock.now()
        former, self._nodes = self._nodes, {status.id: status for status in living}
        if gone := [id for id in former if id not in self._nodes]:
            _log.info("nodes_gone", nodes=gone)
            for told in self._told:
                told(gone)
