"""Redis Cluster: three masters with a third of the slots each, and a replica for each of them."""

import hashlib
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, cast

import redis as driver

from tests.support.store_servers.process import wait_until
from tests.support.store_servers.redis import REPLICATION, RedisProcess, info, redis_process, running

MASTERS: Final = 3
SLOTS: Final = 16_384

NODE_TIMEOUT_MILLISECONDS: Final = 1000

OPTIONS: Final = (
    *("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MILLISECONDS)),
    *("--cluster-announce-ip", "127.0.0.1", "--cluster-replica-validity-factor", "0"),
)


class ClusterServers:
    """The six servers; ``url`` names those that were masters at first."""

    def __init__(self, servers: Sequence[RedisProcess]) -> None:
        self.servers = servers

    @property
    def url(self) -> str:
        """Where the storage is."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{server.port}' for server in self.servers[:MASTERS])}/"

    @property
    def masters(self) -> list[RedisProcess]:
        """Those that say they are masters and have slots."""
        return [server for server in self.servers if "myself,master" in _nodes(server) and _own_slots(server)]

    def master_of(self, slot: int) -> RedisProcess:
        """Who has this slot."""
        return next(server for server in self.masters if slot in _own_slots(server))

    def used_slots_of(self, server: RedisProcess) -> list[int]:
        """The slots of a master in which there are keys."""
        slots = sorted(_own_slots(server))
        with closing(server.operator()) as operator:
            ask = cast("Callable[..., int]", operator.execute_command)  # pyright: ignore[reportUnknownMemberType]
            return [slot for slot in slots if ask("CLUSTER", "COUNTKEYSINSLOT", slot)]

    def id_of(self, server: RedisProcess) -> str:
        """The name of a server in the cluster."""
        return _text(server.ask("CLUSTER", "MYID"))

    def move(self, slot: int, target: RedisProcess) -> None:
        """Give a slot with its keys to another master, so that clients are told ``ASK`` and then ``MOVED``."""
        source = self.master_of(slot)
        self.begin_move(slot, source, target)
        self.move_keys(slot, source, target)
        self.end_move(slot, target)

    def begin_move(self, slot: int, source: RedisProcess, target: RedisProcess) -> None:
        """From here on ``source`` answers ``ASK`` for keys that it does not have."""
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))

    def move_keys(self, slot: int, source: RedisProcess, target: RedisProcess, limit: int = 1_000_000) -> None:
        """Bring up to ``limit`` keys of the slot over."""
        keys: list[bytes] = source.ask("CLUSTER", "GETKEYSINSLOT", slot, limit)
        for key in keys:
            source.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)

    def end_move(self, slot: int, target: RedisProcess) -> None:
        """From here on everybody says ``MOVED``."""
        owner = self.id_of(target)
        for server in (target, *self.masters):
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", owner)

    def wait_for_another(self, former: RedisProcess) -> None:
        """Return when a replica has taken the place of ``former``, and all that run know it."""
        left = [server for server in self.servers if server is not former]
        wait_until(lambda: all(_is_ok(server) for server in left) and len(self.masters) == MASTERS, what="the failover")

    def heal(self) -> None:
        """Start and resume everything, and return when all of them agree again."""
        for server in self.servers:
            if server.is_running:
                server.resume()
            else:
                server.start()
        wait_until(self._is_whole, what="the cluster")

    def _is_whole(self) -> bool:
        return (
            all(_is_ok(server) for server in self.servers)
            and len({_view(server) for server in self.servers}) == 1
            and all("fail" not in _nodes(server) for server in self.servers)
            and len(self.masters) == MASTERS
            and all(
                info(server, "replication").get("master_link_status", "up") == "up"
                and info(server, "replication").get("connected_slaves", 0) == (1 if server in self.masters else 0)
                for server in self.servers
            )
        )


@contextmanager
def redis_cluster(folder: Path, *options: str) -> Generator[ClusterServers]:
    """The servers with their files in ``folder``."""
    places = [folder / f"server-{number}" for number in range(2 * MASTERS)]
    for place in places:
        place.mkdir(parents=True)
    servers = [redis_process(place, *REPLICATION, *OPTIONS, *options) for place in places]
    with running(*servers):
        cluster = ClusterServers(servers)
        _found(cluster)
        cluster.heal()
        yield cluster


def _found(cluster: ClusterServers) -> None:
    """What ``redis-cli --cluster create`` does, without its pauses."""
    masters, replicas = cluster.servers[:MASTERS], cluster.servers[MASTERS:]
    for number, server in enumerate(cluster.servers):
        server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        first, after = (SLOTS * number // MASTERS, SLOTS * (number + 1) // MASTERS)
        if number < MASTERS:
            server.ask("CLUSTER", "ADDSLOTSRANGE", first, after - 1)
        if number:
            server.ask("CLUSTER", "MEET", "127.0.0.1", masters[0].port)
    everybody = len(cluster.servers)
    wait_until(lambda: all(_acquaintances(server) == everybody for server in cluster.servers), what="the meeting")
    for master, replica in zip(masters, replicas, strict=True):
        replica.ask("CLUSTER", "REPLICATE", cluster.id_of(master))


def _nodes(server: RedisProcess) -> str:
    """The cluster as the server sees it, in lines; empty if it does not answer."""
    with suppress(driver.RedisError, OSError):
        return _text(server.ask("CLUSTER", "NODES"))
    return ""


def _acquaintances(server: RedisProcess) -> int:
    lines = [line.split() for line in _nodes(server).splitlines()]
    return sum("handshake" not in line[2] and line[7] == "connected" for line in lines)


def _is_ok(server: RedisProcess) -> bool:
    with suppress(driver.RedisError, OSError):
        return "cluster_state:ok" in _text(server.ask("CLUSTER", "INFO"))
    return False


def _view(server: RedisProcess) -> str:
    """Who has which slots, as far as it is the same in the eyes of all."""
    lines = [line.replace("myself,", "").split() for line in _nodes(server).splitlines()]
    return hashlib.sha256(repr(sorted((line[0], line[2], line[3], *line[8:]) for line in lines)).encode()).hexdigest()


def _own_slots(server: RedisProcess) -> set[int]:
    line = next((line for line in _nodes(server).splitlines() if "myself" in line), "")
    slots: set[int] = set()
    for part in line.split()[8:]:
        if not part.startswith("["):  # such is a slot that moves
            first, _, last = part.partition("-")
            slots.update(range(int(first), int(last or first) + 1))
    return slots


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
