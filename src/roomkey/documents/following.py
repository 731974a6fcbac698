"""What other processes write to open documents is shown to the clients in them, within ``BOUND``."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog

from roomkey.documents.document import Document
from roomkey.documents.open_documents import OpenDocuments
from roomkey.errors import RoomkeyError, Serialization
from roomkey.ports import DocumentHead

BOUND: Final = timedelta(seconds=1)
"""What a process shows is never older, as long as storage answers."""

INTERVAL: Final = timedelta(milliseconds=250)
"""Between two looks: a look that comes late, and reading what is new, still leave ``BOUND``."""

HEADS_AT_A_TIME: Final = 500
"""Documents looked at between two turns of the event loop: one or two milliseconds."""

_log = structlog.get_logger("roomkey.documents")


class Follower:
    """
    Follows what others write to documents with clients; all others catch up when they are used.

    While nobody else writes, that is one look at the storage, however many documents are open.
    """

    def __init__(self, open_documents: OpenDocuments) -> None:
        self._open_documents = open_documents
        self._seen: int | None = None

    async def run(self) -> None:
        """Look every ``INTERVAL``, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL.total_seconds())

    async def look(self) -> None:
        """Take in what is new, if anything is. What could not be done is tried again with the next look."""
        try:
            changes = await self._open_documents.store.changes()
            if changes == self._seen:
                return
            watched = [document for document in self._open_documents if document.has_audience]
            slices = (watched[start : start + HEADS_AT_A_TIME] for start in range(0, len(watched), HEADS_AT_A_TIME))
            done = [await self._reach(documents) for documents in slices]
        except RoomkeyError as error:
            _log.warning("documents_not_followed", error=str(error))
        else:
            # What came while we looked makes another number.
            self._seen = changes if all(done) else None

    async def _reach(self, documents: Sequence[Document]) -> bool:
        catching_up = self._open_documents.catching_up
        done = True
        for document, head in zip(documents, await self._heads(documents), strict=True):
            try:
                if not isinstance(head, Serialization):
                    await catching_up.reach(document, head)
            except RoomkeyError as error:
                _log.warning("document_not_followed", document=document.name, error=str(error))
                done = False
        await asyncio.sleep(0)
        return done

    async def _heads(self, documents: Sequence[Document]) -> Sequence[DocumentHead | Serialization | None]:
        """How far each has come; a document whose record is damaged keeps no other from being followed."""
        store = self._open_documents.store
        names = [document.name for document in documents]
        try:
            return await store.heads(names)
        except Serialization as error:
            if len(names) == 1:
                return [error]
        middle = len(documents) // 2
        return [*await self._heads(documents[:middle]), *await self._heads(documents[middle:])]
