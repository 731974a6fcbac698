"""Servers that stores need, started by the tests on free ports of this machine, and gone when they end."""

from tests.support.store_servers.mariadb import MariaDBProcess, mariadb
from tests.support.store_servers.postgresql import PostgreSQLProcess, postgresql
from tests.support.store_servers.process import ServerProcess, is_there, missing
from tests.support.store_servers.redis import RedisProcess, redis
from tests.support.store_servers.redis_cluster import ClusterServers, redis_cluster
from tests.support.store_servers.redis_sentinel import SentinelServers, redis_sentinel

__all__ = [
    "ClusterServers",
    "MariaDBProcess",
    "PostgreSQLProcess",
    "RedisProcess",
    "SentinelServers",
    "ServerProcess",
    "is_there",
    "mariadb",
    "missing",
    "postgresql",
    "redis",
    "redis_cluster",
    "redis_sentinel",
]
