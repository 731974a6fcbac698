"""Encryption of one process: the codec of its stores, the data keys that it knows, and the keys of persons."""

import asyncio
import hmac
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from secrets import token_bytes
from time import monotonic
from typing import Final

import structlog
from msgspec import Struct

from roomkey.encryption.data_keys import REFRESHES, RING, DataKeys, DataKeyStore, Users
from roomkey.encryption.hidden_users import hiding_users
from roomkey.encryption.opening import open_key_ring
from roomkey.encryption.records import KEYS_SPACE, Ciphers, SealedRecords
from roomkey.encryption.settings import EncryptionSettings, Mode, Unsealed
from roomkey.encryption.subjects import blind_index
from roomkey.encryption.user_ids import UserIds
from roomkey.errors import ConfigurationError, RoomkeyError
from roomkey.ports import CHECKSUMMED_RECORDS, Clock, ObjectStore, RecordCodec, RecordKind, SessionStorage
from roomkey.security import masterkey
from roomkey.security.events import SecurityEvents, SecurityEventType

RETRY: Final = timedelta(seconds=1)
"""Time after which data keys are read again that could not be read."""

MAX_REPORTED: Final = 10_000
"""Number of refused records that are reported by a process, each once."""

_log = structlog.get_logger("roomkey.encryption")


class Places(Struct, frozen=True, kw_only=True):
    """
    Where the stores of a configuration are, as far as encryption cares.

    ``lasting``: what is stored outlives the process. ``local``: all of it is on this machine.
    """

    lasting: bool
    local: bool
    dev: bool = False


class Encryption:
    """
    What stands between the stores of a process and what they write.

    Give ``codec`` to the stores and that of sessions to ``sessions``, and have ``at_work`` entered as long as they are
    open: before, nothing can be read. Nothing may be written while something is ``undecided``.
    """

    def __init__(
        self,
        settings: EncryptionSettings,
        places: Places,
        clock: Clock,
        *,
        master: bytes | None,
        events: SecurityEvents | None = None,
    ) -> None:
        """``events`` is told of records that are refused."""
        self._settings = settings
        self._places = places
        self._clock = clock
        self.master = master
        self._ciphers = Ciphers()
        self._refusals = _Refusals(events)
        self._index_key = token_bytes(32) if master is None else masterkey.derive(master, "blind index")
        self._user_ids = UserIds()
        self._store: DataKeyStore | None = None
        self._trouble: str | None = None
        self.keys: DataKeys | None = None
        """The data keys, if there are any."""
        self.codec: RecordCodec = CHECKSUMMED_RECORDS
        if settings.mode is not Mode.OFF:
            self.codec = SealedRecords(self._ciphers, self._refusals.note)

    @property
    def makes_keys(self) -> bool:
        """Whether it makes data keys in a storage that has none."""
        match self._settings.mode:
            case Mode.ON:
                return True
            case Mode.OFF:
                return False
            case Mode.AUTO:
                return self._places.lasting and self._places.local and not self._places.dev

    def blind(self, text: str) -> str:
        """``text`` as it may be seen by whoever sees the storage: equal where it is equal, and no more."""
        return blind_index(self._index_key)(text)

    def sessions(self, storage: SessionStorage) -> SessionStorage:
        """``storage``, in which users cannot be read if they are hidden."""
        return storage if self._settings.mode is Mode.OFF else hiding_users(storage, self._user_ids)

    @property
    def is_undecided(self) -> bool:
        """Whether there are keys, and nobody has said yet what they begin with: ``decide`` does."""
        return self.keys is not None and self.keys.ring.users is Users.UNDECIDED

    async def decide(self, *, empty: bool) -> None:
        """Decide what keys begin with, unless another node was first, see ``DataKeyStore``. Raises as ``at_work``."""
        if self._store is not None:
            self._use(await self._store.decide(empty=empty))

    def degradations(self) -> Mapping[str, str]:
        """What health says while data keys cannot be read."""
        return {} if self._trouble is None else {"data keys": self._trouble}

    @asynccontextmanager
    async def at_work(self, objects: ObjectStore, *, makes_keys: bool | None = None) -> AsyncGenerator[None]:
        """
        Records can be sealed and opened until this is left. ``objects`` must be open, and be those of all nodes.

        Raises:
            ConfigurationError: If the key ring is not the one that wrapped the data keys. Nothing was changed.
            Storage: If storage or key ring is away.
            Serialization: If the data keys were altered.
        """
        self._refusals.begin()
        await self._open(objects, makes_keys=self.makes_keys if makes_keys is None else makes_keys)
        if self._settings.mode is Mode.OFF:
            yield
            return
        refreshing = asyncio.create_task(self._keep_refreshing(objects))
        try:
            yield
        finally:
            refreshing.cancel()
            with suppress(asyncio.CancelledError):
                await refreshing

    async def _open(self, objects: ObjectStore, *, makes_keys: bool) -> None:
        if not makes_keys and await objects.get(KEYS_SPACE, RING) is None:
            self._use(None)
            return
        if self._settings.mode is Mode.OFF:
            raise ConfigurationError(
                "encryption.mode is off, and the storage has data keys: what is in it is encrypted, and what would be "
                "written now could not be trusted; leave it on, or take everything to a new storage with "
                "`roomkey storage copy`"
            )
        store = self.data_keys(objects)
        found = await store.load()
        if found is None:
            found = await store.load_or_create(index=self._index_key, announced=not self._places.local)
        self._use(found)

    def data_keys(self, objects: ObjectStore) -> DataKeyStore:
        """
        What reads and changes the data keys.

        Raises:
            ConfigurationError: If there is no key ring.
        """
        if self._store is None:
            master = self.master
            if master is None and not self._places.lasting:
                master = token_bytes(32)
                _log.warning("encryption_key_ephemeral", advice="nothing outlives this process, nor does its key")
            self._store = DataKeyStore(
                objects, open_key_ring(self._settings, master), self._clock, announcement=self._settings.announcement
            )
        return self._store

    def _use(self, found: DataKeys | None) -> None:
        self.keys = found
        if found is None:
            # Nobody seals, so nobody has keys that are not known here.
            self._ciphers.use({}, writing=None, reads_unsealed=True)
            return
        self._index_key = found.index
        if found.ring.users is Users.HIDDEN and not self._user_ids.are_hidden:
            self._user_ids.use(hmac.digest(found.index, b"user ids", "sha512"))
        self._ciphers.use(
            found.keys,
            writing=found.writing(self._clock.now()),
            reads_unsealed=found.ring.reads_unsealed and self._settings.unsealed is Unsealed.AUTO,
            good_until=monotonic() + self._settings.announcement.total_seconds(),
        )

    async def refresh(self, objects: ObjectStore) -> None:
        """Read the data keys as they are now. Raises as ``at_work``."""
        if self.keys is None and await objects.get(KEYS_SPACE, RING) is None:
            return
        found = await self.data_keys(objects).load()
        if found is None:
            raise ConfigurationError("the data keys are gone from the storage")
        self._use(found)

    async def _keep_refreshing(self, objects: ObjectStore) -> None:
        usual = self._settings.announcement / REFRESHES
        pause = usual
        while True:
            await asyncio.sleep(pause.total_seconds())
            try:
                await self.refresh(objects)
            except RoomkeyError as error:
                pause = min(usual, RETRY)
                if self._trouble is None:
                    _log.error("data_keys_not_read", reason=str(error))  # it is one of ours
                self._trouble = str(error)
            else:
                pause, self._trouble = usual, None


class _Refusals:
    """Reports records that were refused, each once, from whichever thread that was seen on."""

    def __init__(self, events: SecurityEvents | None) -> None:
        self._events = events
        self._loop: asyncio.AbstractEventLoop | None = None
        self._noted: set[tuple[RecordKind, bytes]] = set()

    def begin(self) -> None:
        """Report on the loop that runs."""
        self._loop = asyncio.get_running_loop()

    def note(self, kind: RecordKind, id: bytes, reason: str) -> None:
        """A record was refused."""
        place = kind, id
        if self._loop is None or place in self._noted or len(self._noted) >= MAX_REPORTED:
            return
        self._noted.add(place)
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._report, kind, id, reason)

    def _report(self, kind: RecordKind, id: bytes, reason: str) -> None:
        shown = id.decode() if id.isascii() and id.decode().isprintable() else id.hex()
        _log.error("record_refused", kind=kind.value, record=shown, reason=reason)
        if self._events is not None:
            details = {"kind": kind.value, "record": shown, "reason": reason}
            self._events.report(SecurityEventType.RECORD_REFUSED, "serialization", place="storage", details=details)
