"""The stores of a configuration with what encrypts them: the one place that knows which codec belongs to which."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import structlog

from roomkey.backends import Stores, urls
from roomkey.config import Config
from roomkey.encryption.data_keys import RING
from roomkey.encryption.records import KEYS_SPACE
from roomkey.encryption.service import Encryption, Places
from roomkey.ports import Clock, DocumentStore, ObjectStore, Page, SessionStorage, SystemClock
from roomkey.ports.objects import SPACES
from roomkey.security.events import SecurityEvents

_log = structlog.get_logger("roomkey.encryption")


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

    If it is to be a copy of ``like``, the data keys of that are taken over, so the same key has to unwrap them; if
    that has none, they are made where the configuration says so. Users are hidden in a copy that has keys.

    Raises:
        ConfigurationError: As ``Encryption.at_work``, or if a location cannot be had.
        Storage: If a storage or a key ring is away.
    """
    master = config.master_key() if like is None else like.encryption.master
    encryption = encryption_of(config, SystemClock(), master=master)
    stores = Stores(config.storage.options, encryption.codec)
    opened = OpenStores(stores, stores.objects(config.storage.location), encryption)
    async with opened.objects as objects:
        if like is not None and like.encryption.keys is not None and await objects.get(KEYS_SPACE, RING) is None:
            await encryption.data_keys(objects).take_over(like.encryption.keys)
        async with encryption.at_work(objects, makes_keys=like is not None and encryption.makes_keys):
            if encryption.is_undecided:
                async with sessions_of(config, opened) as sessions, documents_of(config, opened) as documents:
                    await decide_what_keys_begin_with(encryption, sessions, documents, objects)
            yield opened


def sessions_of(config: Config, opened: OpenStores) -> SessionStorage:
    """The storage of sessions, which shows users by their ids; not open yet."""
    return opened.encryption.sessions(opened.stores.sessions(config.storage.location))


def documents_of(config: Config, opened: OpenStores) -> DocumentStore:
    """The store of documents; not open yet."""
    return opened.stores.documents(config.storage.documents_location)


@asynccontextmanager
async def open_records(config: Config, opened: OpenStores) -> AsyncGenerator[Mapping[str, object]]:
    """
    The stores whose records are sealed, besides the objects, by their names; users are as they lie in them.

    Raises:
        Storage: If a storage is away.
    """
    sessions = opened.stores.sessions(config.storage.location)
    async with sessions, documents_of(config, opened) as documents:
        yield {"sessions": sessions, "documents": documents}


async def decide_what_keys_begin_with(
    encryption: Encryption, sessions: SessionStorage, documents: DocumentStore, objects: ObjectStore
) -> None:
    """
    If the data keys are new: trust nothing else, and hide users, in a storage where nothing was ever stored.

    Raises:
        Storage: If a storage is away.
    """
    if not encryption.is_undecided:
        return
    empty = await _are_empty(sessions, documents, objects)
    await encryption.decide(empty=empty)
    if not empty:
        advice = (
            "`roomkey encryption rotate` encrypts what is there already, and `roomkey storage copy` to a new storage "
            "hides user ids in indexes, too"
        )
        _log.info("encryption_is_on", encrypts="what is written from now on", advice=advice)


async def _are_empty(sessions: SessionStorage, documents: DocumentStore, objects: ObjectStore) -> bool:
    """Whether nothing was ever stored but keys."""
    if await sessions.heads() or (await documents.list("", Page(limit=1))).documents:
        return False
    return not any([await objects.list(space, limit=1) for space in SPACES if space != KEYS_SPACE])
