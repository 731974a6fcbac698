"""Documents in SQL databases keep the promises of the port."""

# The hooks break what nobody else may touch.
# pyright: reportPrivateUsage=false

from pathlib import Path
from typing import Any, ClassVar

import pytest
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.sql.database import DatabaseSettings
from roomkey.backends.sql.documents import DatabaseDocumentStore
from roomkey.backends.sql.statements import Query, run
from roomkey.ports import CHECKSUMMED_RECORDS, DocumentStore, RecordCodec
from roomkey.testing.documents import DocumentStoreConformance
from tests.support.databases import PATIENT, empty_database
from tests.support.lmdb_file import damaged
from tests.support.sealed_records import SealedRecords


class DatabaseDocumentsConformance(DocumentStoreConformance):
    """What all of them have in common: a database of its own for each test."""

    __test__ = False
    durable = True
    dialect: ClassVar[str]
    settings: ClassVar[DatabaseSettings] = PATIENT
    codec: ClassVar[RecordCodec] = CHECKSUMMED_RECORDS

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        self.url = empty_database(self.dialect, tmp_path, request)

    def open(self) -> DatabaseDocumentStore:
        return DatabaseDocumentStore(self.url, self.settings, codec=self.codec)

    async def corrupt(self, store: DocumentStore, name: str) -> bool:
        def broken(record: bytes) -> bytes:
            return damaged(record, 10)

        return await _change(store, broken, "roomkey_documents", "name = ?", name.encode())

    async def tear(self, store: DocumentStore, name: str) -> bool:
        def torn(record: bytes) -> bytes:
            return record[: len(record) // 2]

        document = "SELECT {} FROM roomkey_documents WHERE name = ?"
        where = f"document = ({document.format('id')}) AND last = ({document.format('sequence')})"
        return await _change(store, torn, "roomkey_document_updates", where, name.encode(), name.encode())


async def _change(store: DocumentStore, change: Any, table: str, where: str, *key: bytes) -> bool:
    """Change the record of one row behind the store's back."""
    assert isinstance(store, DatabaseDocumentStore)
    database = store._database
    read = Query(f"SELECT record FROM {table} WHERE {where}", database.dialect)
    put = Query(f"UPDATE {table} SET record = ? WHERE {where}", database.dialect)

    async def work(connection: AsyncConnection) -> None:
        ((record,),) = await run(connection, read, *key)
        await run(connection, put, change(record), *key)

    await database.write(work, may_repeat=True)
    return True


class TestSqliteDocumentStore(DatabaseDocumentsConformance):
    __test__ = True
    dialect = "sqlite"


class TestPostgresqlDocumentStore(DatabaseDocumentsConformance):
    __test__ = True
    dialect = "postgresql"


class TestPostgresqlDocumentStoreWithOneConnection(DatabaseDocumentsConformance):
    __test__ = True
    dialect = "postgresql"
    settings = replace(PATIENT, pool_size=1)


class TestSealedSqliteDocumentStore(DatabaseDocumentsConformance):
    __test__ = True
    dialect = "sqlite"
    codec = SealedRecords()


class TestMariadbDocumentStore(DatabaseDocumentsConformance):
    __test__ = True
    dialect = "mariadb"


class TestMariadbDocumentStoreWithOneConnection(DatabaseDocumentsConformance):
    __test__ = True
    dialect = "mariadb"
    settings = replace(PATIENT, pool_size=1)
