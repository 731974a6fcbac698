"""Which server has which keys: one server, the master that Sentinel names, or the nodes of a cluster."""

import asyncio
from binascii import crc_hqx
from collections.abc import Iterable, Sequence
from itertools import chain
from time import monotonic
from typing import Any, Final, Protocol

from roomkey.backends.recovery import Failure, Kind
from roomkey.backends.redis.connection import Connection
from roomkey.backends.redis.failures import Broken, ReplyError, unreachable
from roomkey.backends.redis.node import Dialer, Node
from roomkey.backends.redis.settings import RedisSettings
from roomkey.backends.redis.url import Address, Deployment, Login, RedisUrl

SLOTS: Final = 16384

REFRESH_SECONDS: Final = 1.0
"""The map of a cluster is not asked for more often than this, however many keys have moved."""


def slot_of(key: bytes) -> int:
    """The slot of a key in a cluster: CRC-16 of what is between its first braces, or of all of it."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


class Topology(Protocol):
    """Where keys are."""

    async def open(self) -> None:
        """Find out, and connect."""
        ...

    def node_of(self, key: bytes) -> Node:
        """The server that has ``key``, as far as is known."""
        ...

    def nodes(self) -> Iterable[Node]:
        """Every server that takes writes."""
        ...

    def moved(self, slot: int, address: Address) -> Node:
        """A server said that ``slot`` is at ``address`` now."""
        ...

    def node_at(self, address: Address) -> Node:
        """The server at ``address``."""
        ...

    async def look_again(self, node: Node, failure: Failure, used: Connection | None) -> None:
        """``node`` failed, on the connection that was ``used``: find out whether another server is in its place."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


def topology_of(url: RedisUrl, settings: RedisSettings) -> Topology:
    """What ``url`` is about."""
    dialer = Dialer(settings, url.login, url.tls, url.database)
    if url.deployment is Deployment.CLUSTER:
        return Cluster(url.addresses, dialer, settings)
    if url.deployment is Deployment.SENTINEL:
        # Sentinels that want a password have one of their own; many want none.
        sentinels = Dialer(settings, url.sentinel_login or Login(), url.tls)
        name = f"redis {url.master}"
        return OneServer(Node(name, Sentinels(url, sentinels).master, dialer, settings))
    (address,) = url.addresses

    async def locate() -> Address:  # where others have to ask
        return address

    return OneServer(Node(f"redis {address}", locate, dialer, settings))


class OneServer:
    """All keys are on one server; which one, its ``Node`` finds out whenever it connects."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def open(self) -> None:
        await self._node.connected()

    def node_of(self, key: bytes) -> Node:  # noqa: ARG002
        return self._node

    def nodes(self) -> Iterable[Node]:
        return (self._node,)

    def moved(self, slot: int, address: Address) -> Node:  # noqa: ARG002
        raise Broken(Failure(Kind.WRONG, "it is a cluster: its URL begins with redis+cluster://", is_undone=True))

    def node_at(self, address: Address) -> Node:  # noqa: ARG002
        return self._node

    async def look_again(self, node: Node, failure: Failure, used: Connection | None) -> None:
        if failure.kind is Kind.READ_ONLY and node.connection is used:
            node.drop(failure)  # whoever connects next asks where the master is

    async def close(self) -> None:
        await self._node.close()


class Sentinels:
    """Those who know the master of a name."""

    def __init__(self, url: RedisUrl, dialer: Dialer) -> None:
        self._addresses = list(url.addresses)
        self._master = url.master
        self._dialer = dialer

    async def master(self) -> Address:
        """
        Where the master is now, as the first sentinel says that knows.

        Raises:
            Broken: If none does.
        """
        failure = Failure(Kind.AWAY, "no sentinel answers", is_undone=True)
        for number, address in enumerate(self._addresses):
            try:
                found = await self._ask(address)
            except (Broken, ReplyError) as error:
                failure = unreachable(error, self._dialer.timeout) or failure
                continue
            if found is not None:
                # The one that answered is asked first from now on, so that one that is away costs its time once.
                self._addresses.insert(0, self._addresses.pop(number))
                return Address(found[0].decode(), int(found[1]))
            failure = Failure(Kind.AWAY, "no sentinel knows a master of this name", is_undone=True)
        raise Broken(failure)

    async def _ask(self, address: Address) -> Sequence[bytes] | None:
        connection = await self._dialer.dial(address, is_master=False)
        try:
            return await connection.send((b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self._master))
        finally:
            connection.close(Failure(Kind.AWAY, "closed"))


class Cluster:
    """Slots and their masters. What a server says of a slot counts at once; the whole map is asked for now and then."""

    def __init__(self, addresses: Sequence[Address], dialer: Dialer, settings: RedisSettings) -> None:
        self._seeds = addresses
        self._dialer = dialer
        self._settings = settings
        self._nodes: dict[Address, Node] = {}
        self._slots: list[Address] = []
        self._known: set[Address] = set()
        """All of its nodes, replicas as well: any can be asked for the map."""
        self._refreshing = asyncio.Lock()
        self._refreshed_at = -REFRESH_SECONDS

    async def open(self) -> None:
        await self._refresh()
        for node in self.nodes():
            await node.connected()

    def node_of(self, key: bytes) -> Node:
        return self.node_at(self._slots[slot_of(key)])

    def nodes(self) -> Iterable[Node]:
        return [self.node_at(address) for address in dict.fromkeys(self._slots)]

    def node_at(self, address: Address) -> Node:
        node = self._nodes.get(address)
        if node is None:

            async def locate() -> Address:  # where others have to ask
                return address

            node = self._nodes[address] = Node(f"redis {address}", locate, self._dialer, self._settings)
        return node

    def moved(self, slot: int, address: Address) -> Node:
        self._slots[slot] = address
        return self.node_at(address)

    async def look_again(self, node: Node, failure: Failure, used: Connection | None) -> None:  # noqa: ARG002
        if monotonic() - self._refreshed_at >= REFRESH_SECONDS:
            await self._refresh()

    async def _refresh(self) -> None:
        asked_at = monotonic()
        async with self._refreshing:
            if self._refreshed_at >= asked_at:
                return  # by the one that went before us
            known = dict.fromkeys(chain(self._seeds, self._known))
            failure = Failure(Kind.AWAY, "no node of the cluster answers", is_undone=True)
            for address in known:
                try:
                    self._slots, self._known = await self._map(address)
                except (Broken, ReplyError) as error:
                    failure = unreachable(error, self._dialer.timeout) or failure
                    continue
                self._refreshed_at = monotonic()
                await self._forget_others()
                return
            self._refreshed_at = monotonic()  # nobody answers; no need to ask all of them for each request
            if not self._slots:
                raise Broken(failure)

    async def _map(self, address: Address) -> tuple[list[Address], set[Address]]:
        connection = await self._dialer.dial(address, is_master=False)
        try:
            ranges = await connection.send((b"CLUSTER", b"SLOTS"))
        finally:
            connection.close(Failure(Kind.AWAY, "closed"))
        return _slots(ranges, address)

    async def _forget_others(self) -> None:
        current = set(self._slots)
        for address in [address for address in self._nodes if address not in current]:
            await self._nodes.pop(address).close()

    async def close(self) -> None:
        for node in self._nodes.values():
            await node.close()
        self._nodes.clear()


def _slots(ranges: Sequence[Sequence[Any]], asked: Address) -> tuple[list[Address], set[Address]]:
    """The master of each slot, and all nodes. Slots that nobody has are left to whoever was asked, who says so."""
    slots = [asked] * SLOTS
    known: set[Address] = set()
    for first, last, *nodes in ranges:
        addresses = [Address(node[0].decode() if node[0] else asked.host, node[1]) for node in nodes]
        slots[first : last + 1] = addresses[:1] * (last + 1 - first)
        known.update(addresses)
    return slots, known
