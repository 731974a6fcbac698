"""Data keys are made once, known to all nodes before they are used, and opened by the right key alone."""

# A record is damaged as nothing public would do it.
# pyright: reportPrivateUsage=false

import asyncio
import hmac
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from roomkey.backends.lmdb import FileSystemSessionStorage, FileSystemSettings
from roomkey.backends.lmdb.documents import FileSystemDocumentStore
from roomkey.backends.memory import MemorySessionStorage
from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.domain.session import SessionFilter
from roomkey.encryption.data_keys import RING, DataKeyStore, Users
from roomkey.encryption.key_rings import LocalKeyRing
from roomkey.encryption.records import KEYS_SPACE, MARK
from roomkey.encryption.rotation import ROTATION, Outcome, Rotation
from roomkey.encryption.service import Encryption, Places
from roomkey.encryption.settings import EncryptionSettings, Mode, Unsealed
from roomkey.errors import ConfigurationError, Serialization
from roomkey.ports import CHECKSUMMED_RECORDS, ObjectStore, Page, RecordCodec, RecordKind, Resealed
from roomkey.security.events import SecurityEvent, SecurityEvents
from roomkey.testing.clock import ManualClock
from roomkey.testing.documents.suite import make, update
from roomkey.testing.storage.suite import found, store
from tests.support.sessions import NOON

MASTER = b"m" * 32
ON = EncryptionSettings(mode=Mode.ON)
AUTO = EncryptionSettings(mode=Mode.AUTO)
HERE = Places(lasting=True, local=True)
SHARED = Places(lasting=True, local=False)
SESSION = RecordKind.SESSION
QUICK = FileSystemSettings(durable=False)


def encryption(
    settings: EncryptionSettings = ON,
    *,
    places: Places = HERE,
    clock: ManualClock | None = None,
    master: bytes | None = MASTER,
    events: SecurityEvents | None = None,
) -> Encryption:
    return Encryption(settings, places, clock or ManualClock(NOON), master=master, events=events)


async def test_what_one_node_seals_another_opens_and_after_a_restart_it_does_again() -> None:
    objects, one, other = MemoryObjectStore(), encryption(), encryption()
    async with one.at_work(objects), other.at_work(objects):
        sealed = one.codec.encode(SESSION, b"id", 1, b"record")
        assert sealed.startswith(MARK)
        assert other.codec.decode(SESSION, b"id", 1, sealed) == b"record"
        assert one.is_undecided
        assert other.is_undecided

    again = encryption()
    async with again.at_work(objects):
        assert again.codec.decode(SESSION, b"id", 1, sealed) == b"record"
        assert again.blind("ada") == one.blind("ada") == encryption(EncryptionSettings(mode=Mode.OFF)).blind("ada")


async def test_in_an_empty_storage_users_are_hidden_and_in_another_one_they_stay_as_they_are() -> None:
    for empty in (True, False):
        objects, node, inner = MemoryObjectStore(), encryption(), MemorySessionStorage()
        storage = node.sessions(inner)
        async with node.at_work(objects), storage:
            await node.decide(empty=empty)
            stored = await store(storage, "ada")

            within = await found(inner, stored.id)
            assert (within.user_id == "ada") is not empty
            assert (await found(storage, stored.id)).user_id == "ada"
            assert (await objects.get(KEYS_SPACE, RING)) is not None
            assert node.keys is not None
            assert node.keys.ring.reads_unsealed is not empty

        again = encryption()
        async with again.at_work(objects), again.sessions(inner) as storage:
            assert (await storage.list(SessionFilter(user_id="ada"), Page())).sessions == [stored]


async def test_of_nodes_that_find_different_things_the_first_decides_for_all() -> None:
    for first in (True, False):
        objects, one, other = MemoryObjectStore(), encryption(), encryption()
        async with one.at_work(objects), other.at_work(objects):
            await one.decide(empty=first)
            await other.decide(empty=not first)

            assert one.keys is not None
            assert other.keys is not None
            assert one.keys.ring == other.keys.ring
            assert one.keys.ring.users is (Users.HIDDEN if first else Users.READABLE)


async def test_keys_from_before_users_could_be_hidden_leave_them_as_they_are() -> None:
    objects = MemoryObjectStore()
    async with encryption().at_work(objects):
        pass
    made = encryption()
    keys = await made.data_keys(objects).load()
    assert keys is not None
    *before, _ = msgspec.to_builtins(keys.ring, builtin_types=(bytes, datetime))
    body = msgspec.msgpack.encode(before)
    signature = hmac.digest(hmac.digest(keys.root, b"roomkey data keys", "sha256"), body, "sha256")
    await objects.commit(KEYS_SPACE, {RING: signature + body})

    async with made.at_work(objects):
        assert not made.is_undecided
        assert made.keys is not None
        assert made.keys.ring.users is Users.READABLE


async def test_of_nodes_that_start_at_once_all_have_the_same_keys() -> None:
    objects = MemoryObjectStore()
    stores = [DataKeyStore(objects, LocalKeyRing("test", MASTER), ManualClock(NOON)) for _ in range(5)]

    found = await asyncio.gather(*(each.load_or_create(index=bytes(32), announced=False) for each in stores))

    assert len({(each.root, *each.keys) for each in found}) == 1


async def test_another_master_key_starts_nothing_names_both_and_touches_nothing() -> None:
    objects = MemoryObjectStore()
    async with encryption().at_work(objects):
        pass
    before = await objects.get(KEYS_SPACE, RING)

    with pytest.raises(ConfigurationError, match=r"master-\w{8}.*master-\w{8}"):
        async with encryption(master=b"n" * 32).at_work(objects):
            pass
    with pytest.raises(ConfigurationError, match="no master key"):
        async with encryption(master=None).at_work(objects):
            pass
    with pytest.raises(ConfigurationError, match="mode is off"):
        async with encryption(EncryptionSettings(mode=Mode.OFF)).at_work(objects):
            pass

    assert await objects.get(KEYS_SPACE, RING) == before


async def test_data_keys_that_were_altered_are_refused() -> None:
    objects = MemoryObjectStore()
    async with encryption().at_work(objects):
        pass
    found = await objects.get(KEYS_SPACE, RING)
    assert found is not None
    for place in (0, 40, len(found.value) - 1):
        altered = bytearray(found.value)
        altered[place] ^= 1
        await objects.commit(KEYS_SPACE, {RING: bytes(altered)})

        with pytest.raises((Serialization, ConfigurationError)):
            async with encryption().at_work(objects):
                pass


@pytest.mark.parametrize(
    ("settings", "places", "makes"),
    [
        (AUTO, HERE, True),
        (AUTO, SHARED, False),
        (AUTO, replace(HERE, dev=True), False),
        (AUTO, replace(HERE, lasting=False), False),
        (ON, SHARED, True),
        (EncryptionSettings(), HERE, False),
    ],
)
async def test_keys_are_made_where_that_is_said(settings: EncryptionSettings, places: Places, *, makes: bool) -> None:
    objects, made = MemoryObjectStore(), encryption(settings, places=places)

    async with made.at_work(objects):
        record = made.codec.encode(SESSION, b"id", 0, b"record")

    assert (await objects.get(KEYS_SPACE, RING) is not None) is makes
    if not makes:
        assert record == CHECKSUMMED_RECORDS.encode(SESSION, b"id", 0, b"record")


async def test_among_several_nodes_a_key_is_announced_before_it_seals() -> None:
    objects, clock = MemoryObjectStore(), ManualClock(NOON)
    early, late = encryption(AUTO, places=SHARED, clock=clock), encryption(places=SHARED, clock=clock)
    async with early.at_work(objects), late.at_work(objects):
        plain = late.codec.encode(SESSION, b"id", 0, b"record")
        assert early.codec.decode(SESSION, b"id", 0, plain) == b"record"

        await early.refresh(objects)
        clock.advance(ON.announcement)
        await late.refresh(objects)

        sealed = late.codec.encode(SESSION, b"id", 0, b"record")
        assert sealed.startswith(MARK)
        assert early.codec.decode(SESSION, b"id", 0, sealed) == b"record"


async def test_in_memory_without_a_master_key_one_is_made_for_this_process() -> None:
    made = encryption(places=Places(lasting=False, local=True), master=None)

    async with made.at_work(MemoryObjectStore()):
        assert made.codec.encode(SESSION, b"id", 0, b"record").startswith(MARK)


async def test_keys_are_wrapped_anew_for_another_key_ring_and_the_old_one_is_not_needed_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects, before = MemoryObjectStore(), encryption()
    file = tmp_path / "kek"
    file.write_text("k" * 43)
    file.chmod(0o600)
    monkeypatch.setenv("OTHER_KEY", "e" * 43)
    async with before.at_work(objects):
        sealed = before.codec.encode(SESSION, b"id", 0, b"record")
    for key, former in ((f"file:{file}", "master"), ("env:OTHER_KEY", f"file:{file}")):
        moving = encryption(replace(ON, key=key, previous_key=former))
        async with moving.at_work(objects):
            await moving.data_keys(objects).rewrap()

        after = encryption(replace(ON, key=key))
        async with after.at_work(objects):
            assert after.codec.decode(SESSION, b"id", 0, sealed) == b"record"
        with pytest.raises(ConfigurationError):
            async with encryption(replace(ON, key=former)).at_work(objects):
                pass


async def test_a_record_that_is_refused_is_a_security_event_once() -> None:
    reported: list[SecurityEvent] = []
    events = SecurityEvents(ManualClock(NOON))
    events.listen(reported.append)
    node = encryption(replace(ON, unsealed=Unsealed.REFUSE), events=events)
    async with node.at_work(MemoryObjectStore()):
        for _ in range(3):
            with pytest.raises(Serialization):
                await asyncio.to_thread(node.codec.decode, SESSION, b"7f01", 0, b"\x01forged")
        await asyncio.sleep(0)

    (event,) = reported
    assert (event.type, event.details["record"], event.details["kind"]) == ("record_refused", "7f01", "session")


# --- rotation -----------------------------------------------------------------------------------------


class Cut(Exception):
    """The process is killed."""


class Deployment:
    """Sessions and documents in files, objects in memory, and a clock that a rotation moves when it waits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects: ObjectStore = MemoryObjectStore()
        self.clock = ManualClock(NOON)

    async def sleep(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    def sessions(self, codec: RecordCodec) -> FileSystemSessionStorage:
        return FileSystemSessionStorage(self.folder / "sessions", QUICK, codec=codec)

    def documents(self, codec: RecordCodec) -> FileSystemDocumentStore:
        return FileSystemDocumentStore(self.folder / "documents", QUICK, codec=codec)

    @asynccontextmanager
    async def opened(
        self, made: Encryption
    ) -> AsyncGenerator[tuple[FileSystemSessionStorage, FileSystemDocumentStore]]:
        sessions, documents = self.sessions(made.codec), self.documents(made.codec)
        async with made.at_work(self.objects), sessions, documents:
            yield sessions, documents

    def encryption(self) -> Encryption:
        return encryption(clock=self.clock)

    async def rotate(self, *, killed_after: int | None = None) -> Outcome:
        made = self.encryption()
        async with self.opened(made) as (sessions, documents):
            first: object = sessions if killed_after is None else Killed(sessions, killed_after)
            stores = {"sessions": first, "documents": documents}
            return await Rotation(made, self.objects, stores, self.clock, sleep=self.sleep).run()


class Killed:
    """Sessions whose process is killed after some parts; a part has five rows."""

    def __init__(self, sessions: FileSystemSessionStorage, parts: int) -> None:
        self._sessions = sessions
        self._parts = parts

    async def reseal(self, after: bytes, limit: int, *, only_counts: bool = False) -> Resealed:
        del limit, only_counts
        if not self._parts:
            raise Cut
        self._parts -= 1
        return await self._sessions.reseal(after, 5)


async def test_a_rotation_that_is_killed_goes_on_and_then_only_the_new_key_is_left(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    async with (
        deployment.sessions(CHECKSUMMED_RECORDS) as sessions,
        deployment.documents(CHECKSUMMED_RECORDS) as documents,
    ):
        issued = [await store(sessions) for _ in range(20)]
        await make(documents, updates=[update(b"from before")])
    async with deployment.opened(deployment.encryption()) as (sessions, documents):
        issued += [await store(sessions) for _ in range(5)]

    with pytest.raises(Cut):
        await deployment.rotate(killed_after=4)
    begun = await deployment.objects.get(KEYS_SPACE, ROTATION)
    outcome = await deployment.rotate()

    assert begun is not None
    assert outcome.key == begun.value
    assert outcome.is_complete
    assert outcome.resealed > 20
    assert len(outcome.retired) == 1
    assert await deployment.objects.get(KEYS_SPACE, ROTATION) is None
    made = deployment.encryption()
    async with deployment.opened(made) as (sessions, documents):
        assert made.keys is not None
        assert [*made.keys.keys] == [outcome.key]
        assert not made.keys.ring.reads_unsealed
        assert [await sessions.get(each.id) for each in issued] == issued
        stored = await documents.load("notes")
        assert stored is not None
        assert [each.data for each in stored.updates] == [b"from before"]
        assert await sessions.damaged() == await documents.damaged() == []


async def test_a_record_that_cannot_be_read_keeps_the_old_keys(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    async with deployment.opened(deployment.encryption()) as (sessions, _):
        damaged = await store(sessions)
    async with deployment.sessions(CHECKSUMMED_RECORDS) as raw:
        await raw._write(lambda commit: commit.put(commit.tables.sessions, damaged.id.encode(), b"\xc1 of nobody"))

    outcome = await deployment.rotate()

    assert (outcome.left, outcome.is_complete, outcome.retired) == (1, False, ())


async def test_sessions_go_on_while_keys_are_rotated(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    node = deployment.encryption()
    async with deployment.opened(node) as (sessions, documents):
        issued = [await store(sessions) for _ in range(8)]

        async def wait(seconds: float) -> None:
            """Meanwhile nodes look for keys, and people come and go."""
            await deployment.sleep(seconds)
            await node.refresh(deployment.objects)
            issued.append(await store(sessions))
            for each in issued:
                await sessions.get(each.id)

        stores = {"sessions": sessions, "documents": documents}
        outcome = await Rotation(node, deployment.objects, stores, deployment.clock, sleep=wait).run()

        assert outcome.is_complete
        assert [await sessions.get(each.id) for each in issued] == issued
        assert (await sessions.events(0, 0, 1)) is not None
        assert (await documents.list("", Page())).documents == []


async def test_the_newest_key_is_never_retired() -> None:
    objects, made = MemoryObjectStore(), encryption()
    async with made.at_work(objects):
        assert made.keys is not None
        with pytest.raises(ConfigurationError):
            await made.data_keys(objects).retire([*made.keys.keys])
