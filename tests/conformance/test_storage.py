"""Every storage keeps the promises of the port."""

# The hooks break what nobody else may touch.
# pyright: reportPrivateUsage=false

from collections.abc import Generator
from pathlib import Path
from typing import ClassVar

import pytest

from roomkey.backends.lmdb import FileSystemSessionStorage, FileSystemSettings
from roomkey.backends.lmdb.layout import user_prefix
from roomkey.backends.memory import MemorySessionStorage
from roomkey.domain.session import SessionId
from roomkey.ports import CHECKSUMMED_RECORDS, PLAIN_RECORDS, RecordCodec, SessionStorage
from roomkey.testing.storage import StorageConformance
from tests.support.lmdb_file import damaged, index_faults


class TestMemorySessionStorage(StorageConformance):
    def open(self) -> MemorySessionStorage:
        return MemorySessionStorage(events_per_partition=10_000)

    async def lose_index(self, storage: SessionStorage, user_id: str) -> bool:
        assert isinstance(storage, MemorySessionStorage)
        storage._live.pop(user_id, None)
        storage._over.pop(user_id, None)
        return True


class TestFileSystemSessionStorage(StorageConformance):
    durable = True
    codec: ClassVar[RecordCodec] = CHECKSUMMED_RECORDS

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> Generator[None]:
        self.path = tmp_path / "sessions"
        self.sound = True
        yield
        if self.sound:
            assert index_faults(self.path, self.codec) == []

    def open(self) -> FileSystemSessionStorage:
        # The smallest map, so that it grows within the tests; not forced to the disk, so that they are quick.
        settings = FileSystemSettings(map_size=128 * 1024, durable=False)
        return FileSystemSessionStorage(self.path, settings, codec=self.codec)

    async def lose_index(self, storage: SessionStorage, user_id: str) -> bool:
        assert isinstance(storage, FileSystemSessionStorage)
        file = storage._file
        assert file is not None
        self.sound = False
        prefix = user_prefix(user_id.encode())
        with file.environment.begin(write=True) as transaction, transaction.cursor(file.tables.users) as cursor:
            while cursor.set_range(prefix) and cursor.key().startswith(prefix):
                cursor.delete()
        return True

    async def corrupt(self, storage: SessionStorage, id: SessionId) -> bool:
        assert isinstance(storage, FileSystemSessionStorage)
        file = storage._file
        assert file is not None
        self.sound = False
        with file.environment.begin(write=True) as transaction:
            value = transaction.get(id.encode(), db=file.tables.sessions)
            assert value is not None
            transaction.put(id.encode(), damaged(value, 20), db=file.tables.sessions)
        return True

    async def corrupt_event(self, storage: SessionStorage, partition: int, sequence: int) -> bool:
        assert isinstance(storage, FileSystemSessionStorage)
        file = storage._file
        assert file is not None
        self.sound = False
        with file.environment.begin(write=True) as transaction, transaction.cursor(file.tables.events) as cursor:
            for key, value in cursor:
                if key[4] == partition and int.from_bytes(key[5:]) == sequence:
                    return cursor.replace(key, damaged(value, len(value) // 2)) is not None
        return False


class TestPlainFileSystemSessionStorage(TestFileSystemSessionStorage):
    codec = PLAIN_RECORDS
