"""Sessions in Redis keep the promises of the port."""

# The hooks break what nobody else may touch.
# pyright: reportPrivateUsage=false

import pytest

from roomkey.backends.redis import RedisSessionStorage
from roomkey.backends.redis.layout import id_key, user_prefix
from roomkey.domain.session import SessionId, partition_of, partition_of_id
from roomkey.ports import SessionStorage
from roomkey.testing.storage import StorageConformance
from tests.support.lmdb_file import damaged


class OnRedis(StorageConformance):
    durable = True
    url: str

    def open(self) -> RedisSessionStorage:
        return RedisSessionStorage(self.url)

    async def lose_index(self, storage: SessionStorage, user_id: str) -> bool:
        assert isinstance(storage, RedisSessionStorage)
        _, live, over, *_ = storage._partitions[partition_of(user_id)].all
        prefix = user_prefix(user_id)
        assert prefix is not None
        for index in (live, over):
            await storage._server.ask("ZREMRANGEBYLEX", index, b"[" + prefix, b"(" + prefix + b"\xff")
        return True

    async def corrupt(self, storage: SessionStorage, id: SessionId) -> bool:
        assert isinstance(storage, RedisSessionStorage)
        key = id_key(id)
        assert key is not None
        shelf, _ = storage._partitions[partition_of_id(id)].read_keys(key)
        value = await storage._server.ask("HGET", shelf, key)
        await storage._server.ask("HSET", shelf, key, damaged(value, -20))
        return True

    async def corrupt_event(self, storage: SessionStorage, partition: int, sequence: int) -> bool:
        assert isinstance(storage, RedisSessionStorage)
        log = storage._partitions[partition].log
        entries = await storage._server.ask("XRANGE", log, "-", "+")
        await storage._server.ask("DEL", log)
        for name, fields in entries:
            if name == b"%d-0" % sequence:
                fields[5] = damaged(fields[5], -20)
            await storage._server.ask("XADD", log, name, *fields)
        return True


class TestRedisSessionStorage(OnRedis):
    @pytest.fixture(autouse=True)
    def _place(self, redis_url: str) -> None:
        self.url = redis_url


class TestSentinelSessionStorage(OnRedis):
    @pytest.fixture(autouse=True)
    def _place(self, sentinel_url: str) -> None:
        self.url = sentinel_url


class TestClusterSessionStorage(OnRedis):
    @pytest.fixture(autouse=True)
    def _place(self, cluster_url: str) -> None:
        self.url = cluster_url
