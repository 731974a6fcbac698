"""Redis Sentinel: a master, two replicas, and three sentinels that agree on who is the master."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import redis as driver

from tests.support.store_servers.process import wait_until
from tests.support.store_servers.redis import REPLICATION, RedisProcess, info, redis_process, running

MASTER_NAME: Final = "roomkey"

DOWN_AFTER_MILLISECONDS: Final = 700

_PERIODS: Final = ("info-period", "300", "publish-period", "200", "ask-period", "200", "ping-period", "200")
"""How often sentinels look, in milliseconds: more often than usual, so that a failover takes two seconds."""


class SentinelServers:
    """The six servers. ``url`` names the sentinels."""

    def __init__(self, servers: Sequence[RedisProcess], sentinels: Sequence[RedisProcess]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        """Where the storage is."""
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{places}/{MASTER_NAME}/0"

    @property
    def master(self) -> RedisProcess:
        """Who is the master by what a sentinel says."""
        for sentinel in self.sentinels:
            with suppress(driver.RedisError, OSError):
                _, port = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)
                return next(server for server in self.servers if server.port == int(port))
        raise RuntimeError("no sentinel answers")

    def wait_for_another(self, former: RedisProcess) -> RedisProcess:
        """The new master, when the sentinels have agreed on one and it takes writes."""

        def is_done() -> bool:
            new = self.master
            return new is not former and info(new, "replication").get("role") == "master"

        wait_until(is_done, what="the failover")
        return self.master

    def heal(self) -> None:
        """Start and resume everything, and return when there is one master with two replicas again."""
        for server in (*self.servers, *self.sentinels):
            if server.is_running:
                server.resume()
            else:
                server.start()
        wait_until(self._is_whole, what="the group of servers")

    def _is_whole(self) -> bool:
        master = self.master
        replicas = [server for server in self.servers if server is not master]
        return _has_replicas(master) and all(_follows(replica, master) for replica in replicas) and self._all_agree()

    def _all_agree(self) -> bool:
        try:
            return all(_knows_everybody(sentinel) for sentinel in self.sentinels)
        except (driver.RedisError, OSError):
            return False


@contextmanager
def redis_sentinel(folder: Path, *options: str) -> Generator[SentinelServers]:
    """The servers with their files in ``folder``; ``options`` are for those that have data."""
    places = [folder / f"server-{number}" for number in range(3)]
    for place in places:
        place.mkdir(parents=True)
    master = redis_process(places[0], *REPLICATION, *options)
    with running(master):
        replica_of = ("--replicaof", "127.0.0.1", str(master.port))
        replicas = [redis_process(place, *REPLICATION, *replica_of, *options) for place in places[1:]]
        with running(*replicas):
            wait_until(lambda: _has_replicas(master), what="the replication")
            sentinels = [_sentinel(folder / f"sentinel-{number}", master.port) for number in range(3)]
            with running(*sentinels):
                for sentinel in sentinels:
                    sentinel.ask("SENTINEL", "DEBUG", *_PERIODS)
                servers = SentinelServers([master, *replicas], sentinels)
                servers.heal()
                yield servers


def _sentinel(folder: Path, master_port: int) -> RedisProcess:
    folder.mkdir()
    configuration = folder / "sentinel.conf"
    configuration.write_text(
        "user operator on nopass ~* &* +@all\n"
        f"sentinel monitor {MASTER_NAME} 127.0.0.1 {master_port} 2\n"
        f"sentinel down-after-milliseconds {MASTER_NAME} {DOWN_AFTER_MILLISECONDS}\n"
        f"sentinel failover-timeout {MASTER_NAME} 3000\n"
        f"sentinel parallel-syncs {MASTER_NAME} 2\n"
    )
    return RedisProcess(folder, "--sentinel", url="", configuration=configuration)


def _has_replicas(master: RedisProcess) -> bool:
    state = info(master, "replication")
    replicas = (state.get(f"slave{number}", {}) for number in range(2))
    return state.get("role") == "master" and all(replica.get("state") == "online" for replica in replicas)


def _follows(replica: RedisProcess, master: RedisProcess) -> bool:
    state = info(replica, "replication")
    return state.get("master_port") == master.port and state.get("master_link_status") == "up"


def _knows_everybody(sentinel: RedisProcess) -> bool:
    known: Mapping[bytes | str, bytes | str] = sentinel.ask("SENTINEL", "MASTER", MASTER_NAME)
    texts = {_text(name): _text(value) for name, value in known.items()}
    return (texts["num-slaves"], texts["num-other-sentinels"], texts["flags"]) == ("2", "2", "master")


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
