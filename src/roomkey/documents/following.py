"""What other processes write to open documents is shown to the clients in them, within ``BOUND``."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from zlib import crc32

import structlog

from roomkey.documents.document import Document
from roomkey.documents.open_documents import OpenDocuments
from roomkey.errors import RoomkeyError

BOUND: Final = timedelta(seconds=1)
"""
What a process shows is never older, as long as storage answers. Where nodes tell each other, it is twice that for what
was stored and not told, see ``SLICES``; for all else it is milliseconds.
"""

INTERVAL: Final = timedelta(milliseconds=250)
"""Between two looks: a look that comes late, and reading what is new, still leave ``BOUND``."""

SLICES: Final = 8
"""While others tell of what they write, a look takes only so small a part of the documents; all have had their turn
within two seconds. Only what was stored and not told is found that way: its node was killed in between, or could not
say it."""

LOOKS_PER_CHECK: Final = 40
"""So every tenth second what was used ``LATELY`` is looked at, whatever the storage says."""

LATELY: Final = timedelta(minutes=1)
"""A storage that fails over loses what it acknowledged in the last seconds."""

_log = structlog.get_logger("roomkey.documents")


class Follower:
    """
    Follows what others write to documents with clients; all others catch up when they are used.

    While nobody else writes, that is one look at the storage, however many documents are open. Now and then it looks
    at what was used lately though nobody seems to write: a storage that has lost something may count as before.
    """

    def __init__(self, open_documents: OpenDocuments) -> None:
        self._open_documents = open_documents
        self._seen: int | None = None
        self._looks = 0
        self._slices_left = 0
        """How many parts of the documents have not been looked at since somebody wrote something."""

    async def run(self) -> None:
        """Look every ``INTERVAL``, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL.total_seconds())

    async def look(self) -> None:
        """Take in what is new, if anything is. What could not be done is tried again with the next look."""
        open_documents = self._open_documents
        self._looks += 1
        try:
            changes = await open_documents.store.changes()
            if changes != self._seen:
                self._seen, self._slices_left = changes, SLICES  # what comes while we look makes another number
            if self._looks % LOOKS_PER_CHECK == 0:
                watched = self._in_use()
            elif self._slices_left:
                watched = self._due()
            else:
                watched = open_documents.catching_up.doubted
            done = await open_documents.catching_up.reach_all(watched)
        except RoomkeyError as error:
            _log.warning("documents_not_followed", error=str(error))
            done = False
        if not done:
            self._seen = None

    def _due(self) -> Sequence[Document]:
        """The part of the documents with clients whose turn it is: all, unless others tell what they write."""
        watched = [document for document in self._open_documents if document.has_audience]
        if not self._open_documents.relay.is_heard:
            self._slices_left = 0
            return watched
        self._slices_left -= 1
        part = self._looks % SLICES
        due = [document for document in watched if crc32(document.name.encode(errors="replace")) % SLICES == part]
        return [*due, *self._open_documents.catching_up.doubted]

    def _in_use(self) -> Sequence[Document]:
        since = self._open_documents.clock.now() - LATELY
        return [each for each in self._open_documents if each.has_audience or each.is_withheld or each.used_at > since]
