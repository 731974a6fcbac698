"""Who lives and who is shown, for nodes in one process: one node, or those of a test. No method suspends."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from roomkey.ports import Clock, NodeStatus, Presence, PresenceChange


class MemoryNodeRegistry:
    """``ports.NodeRegistry`` for nodes that share this object."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._nodes: dict[str, tuple[NodeStatus, datetime]] = {}

    async def renew(self, status: NodeStatus, lifetime: timedelta) -> Sequence[NodeStatus]:
        self._nodes[status.id] = (status, self._clock.now() + lifetime)
        return await self.nodes()

    async def leave(self, id: str) -> None:
        self._nodes.pop(id, None)

    async def nodes(self) -> Sequence[NodeStatus]:
        now = self._clock.now()
        self._nodes = {id: entry for id, entry in self._nodes.items() if now < entry[1]}
        return [self._nodes[id][0] for id in sorted(self._nodes)]

    def lives(self, id: str) -> bool:
        """Whether the node has said so within its lifetime."""
        entry = self._nodes.get(id)
        return entry is not None and self._clock.now() < entry[1]


class MemoryPresence:
    """What all nodes of a process show, by room, node and member."""

    def __init__(self, registry: MemoryNodeRegistry) -> None:
        self.registry = registry
        self.rooms: dict[str, dict[tuple[str, str], bytes]] = {}


class MemoryPresenceStore:
    """``ports.PresenceStore`` of one of the nodes that share ``presence``."""

    def __init__(self, presence: MemoryPresence, node: str) -> None:
        self._presence = presence
        self._node = node

    async def change(self, changes: Sequence[PresenceChange]) -> None:
        rooms = self._presence.rooms
        for change in changes:
            key = (self._node, change.member)
            if change.shown is not None:
                rooms.setdefault(change.room, {})[key] = change.shown
            elif change.room in rooms:
                rooms[change.room].pop(key, None)
                if not rooms[change.room]:
                    del rooms[change.room]

    async def here(self, room: str) -> Sequence[Presence]:
        lives = self._presence.registry.lives
        entries = self._presence.rooms.get(room, {})
        return [Presence(node, member, shown) for (node, member), shown in entries.items() if lives(node)]

    async def forget(self, node: str) -> None:
        rooms = self._presence.rooms
        for room in list(rooms):
            rooms[room] = {key: shown for key, shown in rooms[room].items() if key[0] != node}
            if not rooms[room]:
                del rooms[room]
