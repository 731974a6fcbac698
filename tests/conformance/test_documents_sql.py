"""Documents on SQL keep the promises of the port, on every database."""

# The hooks break what nobody else may touch.
# pyright: reportPrivateUsage=false

from collections.abc import Generator
from pathlib import Path
from typing import ClassVar

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.sql.database import DatabaseSettings
from roomkey.backends.sql.documents import DatabaseDocumentStore
from roomkey.backends.sql.statements import execute
from roomkey.ports import CHECKSUMMED_RECORDS, DocumentStore, RecordCodec
from roomkey.testing.documents import DocumentStoreConformance
from tests.support.databases import emptied, started
from tests.support.lmdb_file import damaged
from tests.support.sealed_records import SealedRecords
from tests.support.store_servers import ServerProcess


@pytest.fixture(scope="module")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[ServerProcess]:
    yield from started("postgresql", tmp_path_factory.mktemp("postgresql"))


@pytest.fixture(scope="module")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[ServerProcess]:
    yield from started("mariadb", tmp_path_factory.mktemp("mariadb"))


class OnSql(DocumentStoreConformance):
    __test__ = False

    durable = True
    codec: ClassVar[RecordCodec] = CHECKSUMMED_RECORDS
    settings: ClassVar[DatabaseSettings] = DatabaseSettings(migrate=True)
    url: str

    def open(self) -> DatabaseDocumentStore:
        return DatabaseDocumentStore(self.url, self.settings, codec=self.codec)

    async def corrupt(self, store: DocumentStore, name: str) -> bool:
        return await self._damage_record(store, f"roomkey_documents WHERE name = {self._bytes(name.encode())}", 10)

    async def tear(self, store: DocumentStore, name: str) -> bool:
        document = f"(SELECT id FROM roomkey_documents WHERE name = {self._bytes(name.encode())})"
        last = f"(SELECT sequence FROM roomkey_documents WHERE name = {self._bytes(name.encode())})"
        return await self._damage_record(
            store, f"roomkey_document_updates WHERE document = {document} AND last = {last}", None
        )

    async def _damage_record(self, store: DocumentStore, where: str, place: int | None) -> bool:
        """Damage the record of one row at a place, or cut it in half."""
        assert isinstance(store, DatabaseDocumentStore)
        database = store._database
        table, _, condition = where.partition(" ")

        async def work(connection: AsyncConnection) -> None:
            ((record,),) = await execute(connection, database.dialect, f"SELECT record FROM {where}", ())
            bad = record[: len(record) // 2] if place is None else damaged(record, place)
            statement = f"UPDATE {table} SET record = {self._bytes(bad)} {condition}"
            await execute(connection, database.dialect, statement, ())

        await database.write(work, may_repeat=True)
        return True

    def _bytes(self, value: bytes) -> str:
        return f"'\\x{value.hex()}'" if self.url.startswith("postgresql") else f"x'{value.hex()}'"


class TestSqliteDocumentStore(OnSql):
    __test__ = True

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path}/documents.db"


class TestPostgresqlDocumentStore(OnSql):
    __test__ = True

    @pytest.fixture(autouse=True)
    def _place(self, postgresql_server: ServerProcess) -> None:
        self.url = emptied(postgresql_server.url)


class TestPostgresqlDocumentStoreWithAPoolOfOne(TestPostgresqlDocumentStore):
    settings = DatabaseSettings(migrate=True, pool_size=1)


class TestSealedPostgresqlDocumentStore(TestPostgresqlDocumentStore):
    codec = SealedRecords()


class TestMariadbDocumentStore(OnSql):
    __test__ = True

    @pytest.fixture(autouse=True)
    def _place(self, mariadb_server: ServerProcess) -> None:
        self.url = emptied(mariadb_server.url)
