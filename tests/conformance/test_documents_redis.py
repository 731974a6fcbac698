"""The store of documents in Redis keeps the promises of the port."""

# The hooks break what nobody else may touch.
# pyright: reportPrivateUsage=false

from typing import ClassVar

import pytest

from roomkey.backends.redis.documents import RedisDocumentStore
from roomkey.ports import CHECKSUMMED_RECORDS, DocumentStore, RecordCodec
from roomkey.testing.documents import DocumentStoreConformance
from tests.support.sealed_records import SealedRecords


class OnRedis(DocumentStoreConformance):
    durable = True
    codec: ClassVar[RecordCodec] = CHECKSUMMED_RECORDS

    url: str

    def open(self) -> RedisDocumentStore:
        return RedisDocumentStore(self.url, codec=self.codec)

    async def corrupt(self, store: DocumentStore, name: str) -> bool:
        assert isinstance(store, RedisDocumentStore)
        key = store._layout.place(name.encode()).document
        record = await store._server.ask("HGET", key, b"record")
        await store._server.ask("HSET", key, b"record", record[:10] + bytes([record[10] ^ 1]) + record[11:])
        return True

    async def tear(self, store: DocumentStore, name: str) -> bool:
        assert isinstance(store, RedisDocumentStore)
        ask, log = store._server.ask, store._layout.place(name.encode()).log
        ((id, fields),) = await ask("XREVRANGE", log, "+", "-", "COUNT", 1)
        record = fields[fields.index(b"r") + 1]
        # Redis does not change what is in a stream: the row is taken out, and comes back damaged.
        await ask("XDEL", log, id)
        await ask("XSETID", log, "0-1" if not await ask("XLEN", log) else (await ask("XREVRANGE", log, "+", "-"))[0][0])
        await ask("XADD", log, id, *fields[:-1], record[: len(record) // 2])
        return True


class TestRedisDocumentStore(OnRedis):
    @pytest.fixture(autouse=True)
    def _place(self, redis_url: str) -> None:
        self.url = redis_url


class TestSealedRedisDocumentStore(TestRedisDocumentStore):
    codec = SealedRecords()


class TestSentinelDocumentStore(OnRedis):
    @pytest.fixture(autouse=True)
    def _place(self, sentinel_url: str) -> None:
        self.url = sentinel_url


class TestClusterDocumentStore(OnRedis):
    @pytest.fixture(autouse=True)
    def _place(self, cluster_url: str) -> None:
        self.url = cluster_url
