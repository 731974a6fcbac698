"""The stores of a configuration with what encrypts them: the one place that knows which codec belongs to which."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

from roomkey.backends import Stores, urls
from roomkey.config import Config
from roomkey.encryption.data_keys import RING
from roomkey.encryption.records import KEYS_SPACE
from roomkey.encryption.service import Encryption, Places
from roomkey.ports import Clock, DocumentStore, ObjectStore, Page, SessionStorage, SystemClock
from roomkey.ports.objects import ABSENT, SPACES
from roomkey.security.events import SecurityEvents


def encryption_of(
    config: Config, clock: Clock, *, master: bytes | None, events: SecurityEvents | None = None
) -> Encryption:
    """
    What encrypts the stores of a configuration. ``master`` is its master key.

    Raises:
        ConfigurationError: If a location cannot be had.
    """
    return Encryption(config.encryption, places_of(config), clock, master=master, events=events)


def places_of(config: Config) -> Places:
    """Where the stores of a configuration are."""
    locations = config.storage.location, config.storage.documents_location
    return Places(
        lasting=not config.storage.location.lower().startswith("memory:"),
        local=not any(urls.is_remote(location) for location in locations),
        dev=config.server.dev,
    )


class OpenStores(NamedTuple):
    """The stores of a configuration, its objects, which are open, and what encrypts them."""

    stores: Stores
    objects: ObjectStore
    encryption: Encryption


@asynccontextmanager
async def open_stores(config: Config, *, like: OpenStores | None = None) -> AsyncGenerator[OpenStores]:
    """
    The stores of a configuration as commands need them: what is in them can be read, and keys are not made.

    Data keys of ``like`` are taken over if there are none, and then the same key unwraps them.

    Raises:
        ConfigurationError: As ``Encryption.at_work``, or if a location cannot be had.
        Storage: If a storage or a key ring is away.
    """
    master = config.master_key() if like is None else like.encryption.master
    encryption = encryption_of(config, SystemClock(), master=master)
    stores = Stores(config.storage.options, encryption.codec)
    objects = stores.objects(config.storage.location)
    async with objects:
        if like is not None:
            await _take_over_keys(like.objects, objects)
        async with encryption.at_work(objects, makes_keys=False):
            yield OpenStores(stores, objects, encryption)


@asynccontextmanager
async def open_records(config: Config, opened: OpenStores) -> AsyncGenerator[Mapping[str, object]]:
    """
    The stores whose records are sealed, besides the objects, by their names.

    Raises:
        Storage: If a storage is away.
    """
    sessions = opened.stores.sessions(config.storage.location)
    documents = opened.stores.documents(config.storage.documents_location)
    async with sessions, documents:
        yield {"sessions": sessions, "documents": documents}


async def _take_over_keys(source: ObjectStore, target: ObjectStore) -> None:
    found = await source.get(KEYS_SPACE, RING)
    if found is not None and await target.get(KEYS_SPACE, RING) is None:
        await target.commit(KEYS_SPACE, {RING: found.value}, expected={RING: ABSENT})


async def are_empty(sessions: SessionStorage, documents: DocumentStore, objects: ObjectStore) -> bool:
    """Whether nothing was ever stored but keys."""
    if await sessions.heads() or (await documents.list("", Page(limit=1))).documents:
        return False
    return not any([await objects.list(space, limit=1) for space in SPACES if space != KEYS_SPACE])
