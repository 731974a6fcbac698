"""Which nodes live, by the clock of a Redis."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import msgspec
from msgspec.structs import replace

from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import Call, RedisServer
from roomkey.ports import NodeStatus

_RENEW: Final = Script("cluster/nodes_renew")
_LEAVE: Final = Script("cluster/nodes_leave")
_LIVING: Final = Script("cluster/nodes_living")

_decode = msgspec.msgpack.Decoder(NodeStatus).decode


class RedisNodeRegistry:
    """``ports.NodeRegistry`` on a server that is open. A failover may lose a lease; nodes renew it soon."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        tag = b"{%s:nodes}" % server.prefix
        self._keys: Final = (tag + b"statuses", tag + b"deadlines")

    async def renew(self, status: NodeStatus, lifetime: timedelta) -> Sequence[NodeStatus]:
        millis = max(lifetime // timedelta(milliseconds=1), 1)
        arguments = [status.id.encode(), millis, msgspec.msgpack.encode(status)]
        # May be repeated: the second time is a little later.
        return _statuses(await self._server.run(_RENEW, self._keys, arguments, may_repeat=True))

    async def leave(self, id: str) -> None:
        # May be repeated: it is gone.
        await self._server.run(_LEAVE, self._keys, [id.encode()], may_repeat=True)

    async def nodes(self) -> Sequence[NodeStatus]:
        return _statuses(await self._server.run_call(self.living(), may_repeat=True))  # it changes nothing

    def living(self) -> Call:
        """What asks for those that live; ``living_ids`` reads the answer."""
        return Call(_LIVING, self._keys)


def living_ids(found: Sequence[bytes | None]) -> set[str]:
    """The ids of those that live."""
    return {status.id for status in _statuses(found)}


def _statuses(found: Sequence[bytes | None]) -> list[NodeStatus]:
    statuses: list[NodeStatus] = []
    for each in found:
        try:
            status = _decode(each or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # of a version that says things differently
        statuses.append(replace(status, messages=tuple(status.messages)))
    return sorted(statuses, key=lambda status: status.id)
