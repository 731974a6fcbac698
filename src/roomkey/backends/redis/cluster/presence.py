"""Who is shown in which room, in a Redis."""

from collections.abc import Sequence
from typing import Any, Final

from roomkey.backends.redis.cluster.layout import Layout, Partition, Place
from roomkey.backends.redis.cluster.registry import RedisNodeRegistry, living_ids
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import Call, RedisServer
from roomkey.ports import Presence, PresenceChange

AT_A_TIME: Final = 100
"""Changes in one call of the script."""

_ENTER: Final = Script("cluster/presence_enter")
_LEAVE: Final = Script("cluster/presence_leave")
_CHANGE: Final = Script("cluster/presence_change")
_HERE: Final = Script("cluster/presence_here")
_FORGET: Final = Script("cluster/presence_forget")


class RedisPresenceStore:
    """
    ``ports.PresenceStore`` of one node, on a server that is open.

    What is left of nodes that nobody has forgotten, because all died at once, goes when the next one comes.
    """

    def __init__(self, server: RedisServer, node: str) -> None:
        self._server = server
        self._node = node.encode()
        self._layout = Layout(server.prefix, server.channel_suffix)
        self._registry = RedisNodeRegistry(server)
        self._entered: Final = b"{%s:nodes}shown" % server.prefix
        self._has_entered = False

    async def change(self, changes: Sequence[PresenceChange]) -> None:
        groups: dict[Partition, list[tuple[Place, PresenceChange]]] = {}
        for change in changes:
            place = self._layout.place(change.room)
            groups.setdefault(place.partition, []).append((place, change))
        if not self._has_entered and groups:
            await self._enter()
        # In turn, because the last of one member in one room holds.
        turns = max((len(group) for group in groups.values()), default=0)
        for start in range(0, turns, AT_A_TIME):
            parts = [(partition, group[start : start + AT_A_TIME]) for partition, group in groups.items()]
            calls = [self._change(partition, part) for partition, part in parts if part]
            # May be repeated: what is said holds however often it is said.
            await self._server.run_many(calls, may_repeat=True)

    async def _enter(self) -> None:
        """Let others know whom to forget, and forget who is gone without that."""
        enter = Call(_ENTER, [self._entered], [self._node])
        # May be repeated: it is there once.
        entered, living = await self._server.run_many([enter, self._registry.living()], may_repeat=True)
        self._has_entered = True
        alive = living_ids(living)
        for node in entered:
            if node != self._node and node.decode() not in alive:
                await self.forget(node.decode())

    def _change(self, partition: Partition, changes: Sequence[tuple[Place, PresenceChange]]) -> Call:
        keys = [partition.shown_in(self._node)]
        arguments = [self._node]
        for place, change in changes:
            keys += [place.nodes, place.members(self._node)]
            arguments += [place.name, change.member.encode(), b"-" if change.shown is None else b"+" + change.shown]
        return Call(_CHANGE, keys, arguments)

    async def here(self, room: str) -> Sequence[Presence]:
        place = self._layout.place(room)
        here = Call(_HERE, [place.nodes], [place.partition.tag + b"m:", b"\0" + place.name])
        # They change nothing. Asked first, a node that leaves meanwhile is shown no more.
        found, living = await self._server.run_many([here, self._registry.living()], may_repeat=True)
        alive = living_ids(living)
        return [
            Presence(node.decode(), member.decode(), shown)
            for node, members in found
            if node.decode() in alive
            for member, shown in _pairs(members)
        ]

    async def forget(self, node: str) -> None:
        name = node.encode()
        calls = [
            Call(
                _FORGET,
                [partition.shown_in(name)],
                [name, partition.tag + b"s:", partition.tag + b"m:" + name + b"\0"],
            )
            for partition in self._layout.partitions
        ]
        # May be repeated: it is gone. Known it is until all of that is done, so that somebody does it again.
        await self._server.run_many(calls, may_repeat=True)
        await self._server.run(_LEAVE, [self._entered], [name], may_repeat=True)


def _pairs(found: Any) -> Sequence[tuple[bytes, bytes]]:
    """What ``HGETALL`` in a script returns, which is a list."""
    return list(zip(found[::2], found[1::2], strict=True))
