"""The servers that the tests start are there when they are asked for, and do what tests of faults do to them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.store_servers import (
    ClusterServers,
    MariaDBProcess,
    PostgreSQLProcess,
    RedisProcess,
    SentinelServers,
    redis,
)
from tests.support.store_servers.fixtures import needs, server_folder
from tests.support.store_servers.process import wait_until

ROOT = Path(__file__).parents[2]


def test_redis_keeps_what_it_has_answered_when_it_is_killed(redis_server: RedisProcess) -> None:
    redis_server.ask("SET", "kept", "yes")

    redis_server.kill()
    redis_server.start()

    assert redis_server.ask("GET", "kept") == b"yes"


def test_two_servers_at_once_have_ports_of_their_own(redis_server: RedisProcess) -> None:
    with redis(server_folder()) as another:
        another.ask("SET", "only", "here")

        assert redis_server.port != another.port
        assert redis_server.ask("GET", "only") is None


def test_a_server_whose_port_was_taken_meanwhile_takes_another(redis_server: RedisProcess) -> None:
    taken = RedisProcess(server_folder(), "--user", "operator", "on", "nopass", "~*", "&*", "+@all", url="")
    taken.port = redis_server.port

    taken.start()
    try:
        assert taken.port != redis_server.port
        assert taken.ask("PING") is True
    finally:
        taken.kill()


def test_sentinel_makes_a_replica_the_master(sentinel_servers: SentinelServers) -> None:
    former = sentinel_servers.master
    former.ask("SET", "kept", "yes")
    former.ask("WAIT", 2, 5000)

    former.kill()
    new = sentinel_servers.wait_for_another(former)
    kept = new.ask("GET", "kept")
    sentinel_servers.heal()

    assert kept == b"yes"
    assert sentinel_servers.master is new


def test_a_replica_takes_the_place_of_a_master_of_the_cluster(cluster_servers: ClusterServers) -> None:
    former = cluster_servers.master_of(0)

    former.kill()
    cluster_servers.wait_for_another(former)
    new = cluster_servers.master_of(0)
    cluster_servers.heal()

    assert new is not former
    assert len(cluster_servers.masters) == 3


def test_a_slot_of_the_cluster_moves(cluster_servers: ClusterServers) -> None:
    source = cluster_servers.master_of(12182)  # that of "foo"
    target = next(master for master in cluster_servers.masters if master is not source)
    source.ask("SET", "foo", "bar")

    cluster_servers.move(12182, target)

    assert cluster_servers.master_of(12182) is target
    assert target.ask("GET", "foo") == b"bar"
    cluster_servers.move(12182, source)


def test_a_database_of_postgresql_is_a_test_s_own(postgresql_server: PostgreSQLProcess) -> None:
    with postgresql_server.database() as name:
        postgresql_server.ask("CREATE TABLE t (n int)", "INSERT INTO t VALUES (7)", database=name)
        postgresql_server.kill()
        postgresql_server.start()

        assert postgresql_server.ask("SELECT n FROM t", database=name) == "7"
        assert postgresql_server.url_of(name).endswith(f":{postgresql_server.port}/{name}")


def test_a_database_of_mariadb_is_a_test_s_own(mariadb_server: MariaDBProcess) -> None:
    with mariadb_server.database() as name:
        mariadb_server.ask("CREATE TABLE t (n int)", "INSERT INTO t VALUES (7)", database=name)
        mariadb_server.kill()
        mariadb_server.start()

        assert mariadb_server.ask("SELECT n FROM t", database=name) == "7"


@pytest.mark.parametrize("server", ["redis_server", "postgresql_server", "mariadb_server"])
def test_a_server_that_is_paused_stands_still_with_all_its_processes(
    server: str, request: pytest.FixtureRequest
) -> None:
    process: RedisProcess = request.getfixturevalue(server)

    process.pause()
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    states = {each.status() for each in family}
    process.resume()
    process.wait()

    assert states == {psutil.STATUS_STOPPED}


def test_servers_end_with_a_test_process_that_is_killed() -> None:
    needs("redis")
    script = (
        "import sys, time; from pathlib import Path; from tests.support.store_servers import redis\n"
        "with redis(Path(sys.argv[1])) as server: print(server.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(server_folder())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as child:
        assert child.stdout is not None
        server = psutil.Process(int(child.stdout.readline()))

        os.kill(child.pid, signal.SIGKILL)

    wait_until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, what="its end")
