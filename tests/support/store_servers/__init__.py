"""Servers that stores need, started by the tests on free ports of this machine, and gone when they end."""

from tests.support.store_servers.mariadb import mariadb
from tests.support.store_servers.postgresql import postgresql
from tests.support.store_servers.process import ServerProcess, is_there, missing
from tests.support.store_servers.redis import redis

__all__ = ["ServerProcess", "is_there", "mariadb", "missing", "postgresql", "redis"]
