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
        assert isinstance(store, DatabaseDocumentStore)
        database = store._database
        place = name.encode().hex()
        name_is = f"name = '\\x{place}'" if database.dialect == "postgresql" else f"name = x'{place}'"

        async def work(connection: AsyncConnection) -> None:
            dialect = database.dialect
            select = f"SELECT record FROM roomkey_documents WHERE {name_is}"
            ((record,),) = await execute(connection, dialect, select, ())
            bad = damaged(record, 10).hex()
            value = f"'\\x{bad}'" if dialect == "postgresql" else f"x'{bad}'"
            await execute(connection, dialect, f"UPDATE roomkey_documents SET record = {value} WHERE {name_is}", ())

        await database.write(work, may_repeat=True)
        return True


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
