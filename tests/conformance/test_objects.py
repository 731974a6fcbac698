"""Every store of objects keeps the promises of its port."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import ClassVar

import pytest

from roomkey.backends.lmdb.objects import FileSystemObjectStore
from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.backends.redis.objects import RedisObjectStore
from roomkey.backends.sql.objects import DatabaseObjectStore
from roomkey.ports import CHECKSUMMED_RECORDS, ObjectStore, RecordCodec
from roomkey.testing.objects import DurableObjectStoreConformance, ObjectStoreConformance
from tests.support.databases import PATIENT, empty_database


class TestMemoryObjectStore(ObjectStoreConformance):
    def open(self) -> AbstractAsyncContextManager[ObjectStore]:
        return MemoryObjectStore()


class TestFileSystemObjectStore(DurableObjectStoreConformance):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "objects"

    def open(self, codec: RecordCodec = CHECKSUMMED_RECORDS) -> AbstractAsyncContextManager[ObjectStore]:
        return FileSystemObjectStore(self.path, codec=codec)


class TestRedisObjectStore(DurableObjectStoreConformance):
    @pytest.fixture(autouse=True)
    def _place(self, redis_url: str) -> None:
        self.url = redis_url

    def open(self, codec: RecordCodec = CHECKSUMMED_RECORDS) -> AbstractAsyncContextManager[ObjectStore]:
        return RedisObjectStore(self.url, codec=codec)


class TestClusterObjectStore(TestRedisObjectStore):
    @pytest.fixture(autouse=True)
    def _place(self, cluster_url: str) -> None:
        self.url = cluster_url


class DatabaseObjectStoreConformance(DurableObjectStoreConformance):
    __test__ = False
    dialect: ClassVar[str]

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        self.url = empty_database(self.dialect, tmp_path, request)

    def open(self, codec: RecordCodec = CHECKSUMMED_RECORDS) -> AbstractAsyncContextManager[ObjectStore]:
        return DatabaseObjectStore(self.url, PATIENT, codec=codec)


class TestSqliteObjectStore(DatabaseObjectStoreConformance):
    __test__ = True
    dialect = "sqlite"


class TestPostgresqlObjectStore(DatabaseObjectStoreConformance):
    __test__ = True
    dialect = "postgresql"


class TestMariadbObjectStore(DatabaseObjectStoreConformance):
    __test__ = True
    dialect = "mariadb"
