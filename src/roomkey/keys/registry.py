"""What can be done with API keys: find, make, rotate and revoke them, and see when they were used."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Final

import structlog
from msgspec import Struct

from roomkey.domain.access import Role
from roomkey.errors import (
    Conflict,
    KeyConfigured,
    KeyExists,
    KeyNotFound,
    KeyRefused,
    RoomkeyError,
    Storage,
    TooManyKeys,
)
from roomkey.keys.records import (
    GENERATION,
    KEY_PREFIX,
    MAX_KEYS,
    SPACE,
    USE_PREFIX,
    FormerSecret,
    StoredKey,
    check_name,
    encode,
)
from roomkey.keys.table import REFRESHED_AFTER, KeyTable
from roomkey.ports import Clock, ObjectStore
from roomkey.ports.objects import MAX_CHANGES, Changes
from roomkey.security.apikeys import ApiKey, ApiKeys, digest, mint
from roomkey.security.narrowing import EVERYTHING, Narrowing

USE_INTERVAL: Final = timedelta(minutes=5)
"""How often it is written down which keys were used."""

DEFAULT_OVERLAP: Final = timedelta(days=1)

ATTEMPTS: Final = 8
"""Against as many others who change keys at the same moment."""

FLUSH_SECONDS: Final = 5.0
"""Time to write down the last uses at the end."""

_log = structlog.get_logger("roomkey.keys")


class ListedKey(Struct, frozen=True, kw_only=True):
    """A key in a list. One of the configuration has no times, and cannot be changed here."""

    name: str
    role: Role
    only: Narrowing
    is_configured: bool = False
    created_at: datetime | None = None
    created_by: str | None = None
    expires_at: datetime | None = None
    rotated_at: datetime | None = None
    rotated_by: str | None = None
    former: FormerSecret | None = None
    last_used_at: datetime | None = None


class MintedKey(Struct, frozen=True):
    """A key that has a new secret, which is nowhere else."""

    key: ListedKey
    secret: str

    def __repr__(self) -> str:
        return f"MintedKey({self.key!r}, <hidden>)"


Check = Callable[[Narrowing], None]
"""Raises unless whoever asks may change a key that is narrowed like this."""

Decision = Callable[[Mapping[str, StoredKey]], Changes]


class KeyRegistry:
    """
    The keys of the configuration and those that are stored.

    What one node changes holds there at once, and on every other within ``REVOKED_WITHIN``.
    """

    def __init__(
        self, configured: ApiKeys, objects: ObjectStore, clock: Clock, *, now: Callable[[], float] = monotonic
    ) -> None:
        """``now`` is in seconds, on a clock that is never set."""
        self._configured = configured
        self._names = {key.name: key for key in configured}
        self._objects = objects
        self._clock = clock
        self._table = KeyTable(objects, now=now)
        self._used: dict[str, datetime] = {}

    # --- who presents a key ---------------------------------------------------------------------------

    async def find(self, secret: str) -> ApiKey:
        """
        The key that this is the secret of. It waits for storage only if what is known of it is too old.

        Raises:
            KeyRefused: If there is none, or its time is over.
            Storage: If that cannot be found out now.
        """
        configured = self._configured.find(secret)
        if configured is not None:
            return configured
        presented = digest(secret)
        key = await self._table.find(presented)
        if key is None:
            raise KeyRefused
        now = self._clock.now()
        if not key.opened_with(presented, now):
            raise KeyRefused(key=key.name)
        self._used[key.name] = now
        return key.api_key

    def configured(self, name: str) -> ApiKey | None:
        """The key of the configuration with this name."""
        return self._names.get(name)

    # --- looking at them ------------------------------------------------------------------------------

    async def list(self) -> list[ListedKey]:
        """Every key, those of the configuration first, each by name. Raises ``Storage``."""
        await self._table.read()
        used = await self._uses()
        stored = self._table.by_name
        configured = [_configured(self._names[name]) for name in sorted(self._names)]
        return configured + [_listed(stored[name], self._last_use(name, used)) for name in sorted(stored)]

    async def get(self, name: str) -> ListedKey:
        """
        The key of this name.

        Raises:
            KeyNotFound: If there is none.
        """
        if name in self._names:
            return _configured(self._names[name])
        await self._table.read()
        key = _known(self._table.by_name, name)
        stored = await self._objects.get(SPACE, USE_PREFIX + name)
        return _listed(key, self._last_use(name, {} if stored is None else {name: _moment(stored.value)}))

    # --- changing them --------------------------------------------------------------------------------

    async def create(
        self,
        name: str,
        role: Role,
        *,
        only: Narrowing = EVERYTHING,
        lifetime: timedelta | None = None,
        actor: str,
    ) -> MintedKey:
        """
        Make a key, which is accepted for ``lifetime``.

        Raises:
            KeyExists: If there is one of this name, in the configuration or stored.
            TooManyKeys: If there are ``MAX_KEYS``.
            InvalidInput: If a key may not be called so.
            Conflict, Storage: If it was not made, or perhaps was.
        """
        if check_name(name) in self._names:
            raise KeyExists(f"a key {name!r} stands in the configuration")
        secret, hashed = mint()
        now = self._clock.now()
        key = StoredKey(
            name=name,
            role=role,
            digest=hashed,
            only=only,
            created_at=now,
            created_by=actor,
            expires_at=None if lifetime is None else now + lifetime,
        )

        def decide(keys: Mapping[str, StoredKey]) -> Changes:
            if name in keys:
                raise KeyExists(f"there is a key {name!r} already")
            if len(keys) >= MAX_KEYS:
                raise TooManyKeys(f"there are {MAX_KEYS} stored keys: revoke those that are not needed")
            return {KEY_PREFIX + name: encode(key), USE_PREFIX + name: None}

        await self._commit(decide)
        return MintedKey(_listed(key, None), secret)

    async def rotate(
        self, name: str, *, overlap: timedelta = DEFAULT_OVERLAP, actor: str, check: Check = lambda _: None
    ) -> MintedKey:
        """
        Give the key a new secret; the one before it is accepted for ``overlap``, any older one no more.

        Raises:
            KeyNotFound, KeyConfigured, InvalidInput, Conflict, Storage: As they say. And what ``check`` raises.
        """
        self._check_stored(name)
        secret, hashed = mint()
        rotated = list[StoredKey]()

        def decide(keys: Mapping[str, StoredKey]) -> Changes:
            key = _known(keys, name)
            check(key.only)
            key = key.rotated(hashed, self._clock.now(), overlap=overlap, actor=actor)
            rotated[:] = [key]
            return {KEY_PREFIX + name: encode(key)}

        await self._commit(decide)
        return MintedKey(_listed(rotated[0], self._used.get(name)), secret)

    async def revoke(self, name: str, *, check: Check = lambda _: None) -> None:
        """
        End the key; nothing is kept of it.

        Raises:
            KeyNotFound, KeyConfigured, Conflict, Storage: As they say. And what ``check`` raises.
        """
        self._check_stored(name)

        def decide(keys: Mapping[str, StoredKey]) -> Changes:
            check(_known(keys, name).only)
            return {KEY_PREFIX + name: None, USE_PREFIX + name: None}

        await self._commit(decide)
        self._used.pop(name, None)

    def _check_stored(self, name: str) -> None:
        if name in self._names:
            raise KeyConfigured(f"the key {name!r} stands in the configuration: change it there")

    async def _commit(self, decide: Decision) -> None:
        """Make what ``decide`` returns of the keys as they are; it is asked again if somebody was faster."""
        for attempt in range(1, ATTEMPTS + 1):
            await self._table.read()
            changes = decide(self._table.by_name)
            try:
                await self._objects.commit(
                    SPACE, {**changes, GENERATION: b""}, expected={GENERATION: self._table.revision}
                )
            except Conflict:
                if attempt == ATTEMPTS:
                    raise
            else:
                break
            finally:
                self._table.forget()
        with suppress(Storage):  # who asks for a key asks again
            await self._table.read()

    # --- when they were used --------------------------------------------------------------------------

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        """Write down the last uses when this is left, if storage takes them."""
        try:
            yield
        finally:
            with suppress(TimeoutError, RoomkeyError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self.write_uses()

    async def run(self) -> None:
        """Know of changes before somebody presents a key, and write down the last uses, until cancelled."""
        written = self._clock.now()
        while True:
            await asyncio.sleep(REFRESHED_AFTER.total_seconds())
            await self.refresh()
            if self._clock.now() - written >= USE_INTERVAL:
                written = self._clock.now()
                try:
                    await self.write_uses()
                except RoomkeyError as error:
                    _log.warning("key_uses_not_written", error=str(error))

    async def refresh(self) -> None:
        """Know what has changed, if anybody has presented a key since the last time."""
        with suppress(Storage):  # who presents one is told
            await self._table.refresh_if_wanted()

    async def write_uses(self) -> None:
        """
        Write down when keys were used last, as far as this node knows; nothing if none was.

        Raises:
            Conflict: If keys were changed at this moment. Then, and if storage is away, it is kept for the next time.
        """
        if not self._used:
            return
        await self._table.read()
        before = await self._uses()
        self._used = {name: at for name, at in self._used.items() if name in self._table.by_name}
        used = dict(self._used)
        changes = {
            USE_PREFIX + name: at.isoformat().encode()
            for name, at in used.items()
            if name not in before or before[name] < at
        }
        if changes:
            # Only as long as these keys are there: of a key that is revoked nothing stays.
            await self._objects.commit(SPACE, changes, expected={GENERATION: self._table.revision})
        for name, at in used.items():
            if self._used.get(name) == at:
                del self._used[name]

    async def _uses(self) -> dict[str, datetime]:
        listed = await self._objects.list(SPACE, prefix=USE_PREFIX, limit=MAX_CHANGES)
        return {entry.name.removeprefix(USE_PREFIX): _moment(entry.value) for entry in listed}

    def _last_use(self, name: str, stored: Mapping[str, datetime]) -> datetime | None:
        return max(filter(None, (self._used.get(name), stored.get(name))), default=None)


def _known(keys: Mapping[str, StoredKey], name: str) -> StoredKey:
    key = keys.get(name)
    if key is None:
        raise KeyNotFound("there is no such key")
    return key


def _moment(stored: bytes) -> datetime:
    try:
        return datetime.fromisoformat(stored.decode())
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)


def _configured(key: ApiKey) -> ListedKey:
    return ListedKey(name=key.name, role=key.role, only=key.only, is_configured=True)


def _listed(key: StoredKey, used: datetime | None) -> ListedKey:
    return ListedKey(
        name=key.name,
        role=key.role,
        only=key.only,
        created_at=key.created_at,
        created_by=key.created_by,
        expires_at=key.expires_at,
        rotated_at=key.rotated_at,
        rotated_by=key.rotated_by,
        former=key.former,
        last_used_at=used,
    )
