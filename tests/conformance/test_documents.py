"""Every store of documents keeps the promises of the port."""

# The hooks break what nobody else may touch.
# pyright: reportPrivateUsage=false

from collections.abc import Generator
from pathlib import Path
from typing import ClassVar

import pytest

from roomkey.backends.lmdb import FileSystemSettings
from roomkey.backends.lmdb.documents import FileSystemDocumentStore
from roomkey.backends.memory.documents import MemoryDocumentStore
from roomkey.ports import CHECKSUMMED_RECORDS, PLAIN_RECORDS, DocumentStore, RecordCodec
from roomkey.testing.documents import DocumentStoreConformance
from tests.support.document_file import document_faults
from tests.support.lmdb_file import damaged
from tests.support.sealed_records import SealedRecords


class TestMemoryDocumentStore(DocumentStoreConformance):
    def open(self) -> MemoryDocumentStore:
        return MemoryDocumentStore()


class TestFileSystemDocumentStore(DocumentStoreConformance):
    durable = True
    codec: ClassVar[RecordCodec] = CHECKSUMMED_RECORDS

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> Generator[None]:
        self.path = tmp_path / "documents"
        self.sound = True
        yield
        if self.sound:
            assert document_faults(self.path, self.codec) == []

    def open(self) -> FileSystemDocumentStore:
        # The smallest map, so that it grows within the tests; not forced to the disk, so that they are quick.
        settings = FileSystemSettings(map_size=128 * 1024, durable=False)
        return FileSystemDocumentStore(self.path, settings, codec=self.codec)

    async def corrupt(self, store: DocumentStore, name: str) -> bool:
        assert isinstance(store, FileSystemDocumentStore)
        file = store._file
        assert file is not None
        self.sound = False
        with file.environment.begin(write=True) as transaction:
            key = transaction.get(bytes(4) + name.encode(), db=file.tables.names)
            assert key is not None
            record = transaction.get(key, db=file.tables.documents)
            assert record is not None
            transaction.put(key, damaged(record, 10), db=file.tables.documents)
        return True

    async def tear(self, store: DocumentStore, name: str) -> bool:
        assert isinstance(store, FileSystemDocumentStore)
        file = store._file
        assert file is not None
        self.sound = False
        with file.environment.begin(write=True) as transaction:
            document = transaction.get(bytes(4) + name.encode(), db=file.tables.names)
            assert document is not None
            with transaction.cursor(file.tables.updates) as cursor:
                rows = [(key, value) for key, value in cursor if key.startswith(document)]
            key, value = rows[-1]
            transaction.put(key, value[: len(value) // 2], db=file.tables.updates)
        return True


class TestPlainFileSystemDocumentStore(TestFileSystemDocumentStore):
    codec = PLAIN_RECORDS


class TestSealedFileSystemDocumentStore(TestFileSystemDocumentStore):
    codec = SealedRecords()
