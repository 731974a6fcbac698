"""Sessions in Redis keep the promises of the port."""

# The hooks break what nobody else may touch.
# pyright: reportPrivateUsage=false

from collections.abc import Generator
from uuid import uuid4

import pytest

from roomkey.backends.redis import RedisSessionStorage, RedisSettings
from roomkey.backends.redis.layout import id_key, user_prefix
from roomkey.domain.session import SessionId, partition_of, partition_of_id
from roomkey.ports import SessionStorage
from roomkey.testing.storage import StorageConformance
from tests.support.lmdb_file import damaged
from tests.support.store_servers import ServerProcess, is_there, missing, redis

pytestmark = pytest.mark.skipif(not is_there("redis"), reason=missing("redis"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[ServerProcess]:
    with redis(tmp_path_factory.mktemp("redis")) as process:
        yield process


class TestRedisSessionStorage(StorageConformance):
    durable = True

    @pytest.fixture(autouse=True)
    def _place(self, server: ServerProcess) -> None:
        self.url = server.url
        self.settings = RedisSettings(key_prefix=f"test-{uuid4().hex}")

    def open(self) -> RedisSessionStorage:
        return RedisSessionStorage(self.url, self.settings)

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
