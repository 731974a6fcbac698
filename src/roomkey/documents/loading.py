"""What is stored becomes a live copy, in slices that let others have their turn; what a new document begins with."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from time import perf_counter
from typing import Any, Final

import structlog
from pycrdt import Doc

from roomkey.documents.content.roots import replace
from roomkey.documents.crdt.authorship import Authorship
from roomkey.documents.crdt.identity import Bindings
from roomkey.documents.crdt.replica import PoisonUpdate, Replica, ReplicaLost
from roomkey.documents.crdt.updates import MalformedUpdate
from roomkey.errors import Serialization
from roomkey.ports import Author, DocumentUpdate, StoredDocument

SERVER: Final = Author("server")

SLICE_SECONDS: Final = 0.002
"""Time spent on loading a document before yielding to the event loop."""

Seed = Callable[[str], Mapping[str, Any] | Awaitable[Mapping[str, Any] | None] | None]
"""
What a new document begins with, if anything: its roots by name, as ``roots.replace`` takes them. May be async.

What it raises keeps the document from being opened, and nothing is stored.
"""

_log = structlog.get_logger("roomkey.documents")


def seed_update(lineage: str, roots: Mapping[str, Any]) -> bytes:
    """
    The update that a document begins with.

    For one lineage and the same roots it is the same wherever it is made, so that two processes that both make it
    do not have it twice.
    """
    client = int.from_bytes(sha256(lineage.encode()).digest()[:4], "big")
    doc: Doc[Any] = Doc(client_id=client)
    replace(doc, roots)
    return doc.get_update()


async def assemble(stored: StoredDocument) -> Replica:
    """
    The replica that a stored document is.

    Raises:
        Serialization: If there is something in it that is no update.
    """
    replica = Replica()
    bindings = _bindings(stored)
    try:
        async for update in in_slices(everything(stored)):
            replica.load(update.data, whole=update.data is stored.snapshot)
            bindings.learn(update)
    except (PoisonUpdate, MalformedUpdate, ReplicaLost) as error:
        raise Serialization("a stored document cannot be read") from error
    replica.identities.adopt(bindings)
    return replica


def _bindings(stored: StoredDocument) -> Bindings:
    try:
        return Authorship.unpack(stored.authorship).bindings
    except Serialization as error:
        # Who wrote it is not worth losing what was written.
        _log.warning("authorship_unreadable", document=stored.record.name, error=str(error))
        return Bindings()


async def in_slices(updates: Iterable[DocumentUpdate]) -> AsyncGenerator[DocumentUpdate]:
    """The updates, one after the other, and now and then a pause in which others have their turn."""
    begun = perf_counter()
    for update in updates:
        yield update
        if perf_counter() - begun > SLICE_SECONDS:
            await asyncio.sleep(0)
            begun = perf_counter()


def everything(stored: StoredDocument) -> Iterator[DocumentUpdate]:
    """A stored document as updates: its snapshot, and what lies behind."""
    if stored.snapshot is not None:
        yield DocumentUpdate(stored.snapshot, SERVER, stored.record.updated_at)
    yield from stored.updates
