"""The store of documents in Redis keeps the promises of the port."""

# The hooks break what nobody else may touch.
# pyright: reportPrivateUsage=false

from collections.abc import Awaitable, Callable, Generator
from itertools import count
from typing import ClassVar

import pytest

from roomkey.backends.redis.documents import RedisDocumentStore
from roomkey.errors import Serialization
from roomkey.ports import CHECKSUMMED_RECORDS, DocumentStore, RecordCodec
from roomkey.testing.documents import DocumentStoreConformance
from roomkey.testing.documents.suite import NOON, make, names_in, update, updates, version
from tests.support.sealed_records import SealedRecords
from tests.support.store_servers import ServerProcess, is_there, missing, redis

pytestmark = pytest.mark.skipif(not is_there("redis"), reason=missing("redis"))

_prefixes = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[ServerProcess]:
    with redis(tmp_path_factory.mktemp("redis")) as process:
        yield process


class TestRedisDocumentStore(DocumentStoreConformance):
    durable = True
    codec: ClassVar[RecordCodec] = CHECKSUMMED_RECORDS

    @pytest.fixture(autouse=True)
    def _place(self, server: ServerProcess) -> None:
        self.url = f"{server.url}?prefix=test{next(_prefixes)}"

    def open(self) -> RedisDocumentStore:
        return RedisDocumentStore(self.url, codec=self.codec)

    async def corrupt(self, store: DocumentStore, name: str) -> bool:
        assert isinstance(store, RedisDocumentStore)
        key = store._layout.place(name.encode()).document
        record = await store._server.ask("HGET", key, b"record")
        await store._server.ask("HSET", key, b"record", record[:10] + bytes([record[10] ^ 1]) + record[11:])
        return True

    async def test_a_damaged_record_is_reported_and_not_replaced(self) -> None:
        async with self.open() as store:
            await make(store, "secret plan", updates(2))
            await make(store, "sound", updates(2))
            await self.corrupt(store, "secret plan")
            calls: list[Callable[[], Awaitable[object]]] = [
                lambda: store.find("secret plan"),
                lambda: store.load("secret plan"),
                lambda: store.updates("secret plan", "first", 0),
                lambda: store.create("secret plan", "second", NOON),
                lambda: store.create("secret plan", "first", NOON),
                lambda: store.append("secret plan", "first", [update(b"more")]),
                lambda: store.compact("secret plan", "first", snapshot=b"", upto=1, authorship=b""),
                lambda: store.keep_version("secret plan", "first", version()),
                lambda: store.delete("secret plan", "first", NOON),
            ]

            for call in calls:
                with pytest.raises(Serialization) as caught:
                    await call()
                assert "secret" not in str(caught.value)
                assert caught.value.__cause__ is None
            # Lists go on around it.
            assert await names_in(store) == ["sound"]


class TestSealedRedisDocumentStore(TestRedisDocumentStore):
    codec = SealedRecords()
