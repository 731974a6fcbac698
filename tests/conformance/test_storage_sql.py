"""The storages in SQL databases keep the promises of the port."""

# The hooks break what nobody else may touch.
# pyright: reportPrivateUsage=false

from pathlib import Path
from typing import ClassVar

import pytest
from msgspec.structs import replace

from roomkey.backends.sql import DatabaseSessionStorage, DatabaseSettings
from roomkey.backends.sql.statements import Query, run
from roomkey.domain.session import SessionId
from roomkey.ports import CHECKSUMMED_RECORDS, RecordCodec, SessionStorage
from roomkey.testing.storage import StorageConformance
from tests.support.databases import PATIENT, empty_database
from tests.support.sealed_records import SealedRecords


class DatabaseConformance(StorageConformance):
    """What all of them have in common: a database of its own for each test."""

    durable = True
    dialect: ClassVar[str]
    settings: ClassVar[DatabaseSettings] = PATIENT
    codec: ClassVar[RecordCodec] = CHECKSUMMED_RECORDS

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        self.url = empty_database(self.dialect, tmp_path, request)

    def open(self) -> DatabaseSessionStorage:
        return DatabaseSessionStorage(self.url, self.settings, codec=self.codec)

    async def corrupt(self, storage: SessionStorage, id: SessionId) -> bool:
        assert isinstance(storage, DatabaseSessionStorage)
        database = storage._database
        read = Query("SELECT record FROM roomkey_sessions WHERE id = ?", database.dialect)
        put = Query("UPDATE roomkey_sessions SET record = ? WHERE id = ?", database.dialect)
        ((record,),) = await database.read(lambda connection: run(connection, read, id.encode()))
        broken = record[:20] + bytes([record[20] ^ 1]) + record[21:]
        await database.write(lambda connection: run(connection, put, broken, id.encode()), may_repeat=True)
        return True


class TestSqliteSessionStorage(DatabaseConformance):
    dialect = "sqlite"


class TestPostgresqlSessionStorage(DatabaseConformance):
    dialect = "postgresql"


class TestPostgresqlSessionStorageWithOneConnection(DatabaseConformance):
    dialect = "postgresql"
    settings = replace(PATIENT, pool_size=1)


class TestSealedSqliteSessionStorage(DatabaseConformance):
    dialect = "sqlite"
    codec = SealedRecords()


class TestMariadbSessionStorage(DatabaseConformance):
    dialect = "mariadb"


class TestMariadbSessionStorageWithOneConnection(DatabaseConformance):
    dialect = "mariadb"
    settings = replace(PATIENT, pool_size=1)
