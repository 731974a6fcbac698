"""A storage that does not know its users keeps the promises of the port."""

from roomkey.domain.session import SessionId
from roomkey.encryption.hidden_users import HiddenUsers, hiding_users
from roomkey.encryption.user_ids import KEY_BYTES, MAX_HIDDEN_BYTES, UserIds
from roomkey.ports import MovableSessions, SessionStorage
from tests.conformance import test_storage
from tests.support.sealed_records import SealedRecords

IDS = UserIds()
IDS.use(bytes(KEY_BYTES))


def within(storage: SessionStorage) -> SessionStorage:
    """The storage in which the users are hidden."""
    assert isinstance(storage, HiddenUsers)
    return storage._storage  # pyright: ignore[reportPrivateUsage]


class TestHiddenUsersInMemory(test_storage.TestMemorySessionStorage):
    longest_user_id = MAX_HIDDEN_BYTES

    def open(self) -> SessionStorage:  # pyright: ignore[reportIncompatibleMethodOverride]
        return hiding_users(super().open(), IDS)

    async def lose_index(self, storage: SessionStorage, user_id: str) -> bool:
        return await super().lose_index(within(storage), IDS.hide(user_id))


class TestHiddenUsersInSealedFiles(test_storage.TestFileSystemSessionStorage):
    codec = SealedRecords()
    longest_user_id = MAX_HIDDEN_BYTES

    def open(self) -> SessionStorage:  # pyright: ignore[reportIncompatibleMethodOverride]
        return hiding_users(super().open(), IDS)

    async def lose_index(self, storage: SessionStorage, user_id: str) -> bool:
        return await super().lose_index(within(storage), IDS.hide(user_id))

    async def corrupt(self, storage: SessionStorage, id: SessionId) -> bool:
        return await super().corrupt(within(storage), id)

    async def corrupt_event(self, storage: SessionStorage, partition: int, sequence: int) -> bool:
        return await super().corrupt_event(within(storage), partition, sequence)


def test_what_cannot_be_copied_is_not_said_to_be() -> None:
    inner = test_storage.TestMemorySessionStorage().open()
    assert isinstance(hiding_users(inner, IDS), MovableSessions) == isinstance(inner, MovableSessions)
