"""
Other processes write to the same storage: what they have stored gets into the open documents of this one.

And back: if storage has lost what it had acknowledged, what an open document has beyond its log is stored once more. A
document that storage does not know any more, and nobody has deleted, is not written over that emptiness: it is withheld
until storage has it again, or the node is started anew.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from roomkey.documents.document import Document
from roomkey.documents.loading import SERVER, assemble, everything
from roomkey.documents.turns import Turns
from roomkey.errors import Conflict, NotFound, Overtaken, RoomkeyError, Serialization
from roomkey.ports import Append, Clock, DocumentHead, DocumentStore, DocumentUpdate
from roomkey.wire.lib0 import EMPTY_UPDATE

HEADS_AT_A_TIME: Final = 500
"""Documents looked at between two turns of the event loop: one or two milliseconds."""

READS_AT_A_TIME: Final = 16

MAX_TRIES: Final = 5
"""How often something is tried that others, who write at the same time, are in the way of."""

MAX_PADDING: Final = 2_000
"""Updates of an append that only count."""

_log = structlog.get_logger("roomkey.documents")


class CatchingUp:
    """
    Brings open documents to the end of their logs, and logs to where their documents are.

    ``forget`` is called with a document that was deleted, ``adopt`` with one that is stored by now and was not,
    ``appended`` with what was stored once more.
    """

    def __init__(
        self,
        store: DocumentStore,
        clock: Clock,
        *,
        turns: Turns,
        forget: Callable[[Document], None],
        adopt: Callable[[Document], Awaitable[None]],
        appended: Callable[[Append, int], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._turns = turns
        self._forget = forget
        self._adopt = adopt
        self._appended = appended
        self._doubted: set[Document] = set()

    # --- looking --------------------------------------------------------------------------------------

    async def refresh(self, document: Document) -> None:
        """Catch up, if a look says that there is anything. The document may be gone or withheld afterwards."""
        known = document.sequence
        (head,) = await self._store.heads([document.name])
        await self.reach(document, head, known)

    async def reach_all(self, documents: Sequence[Document]) -> bool:
        """``refresh`` for many, a few at a time; whether that was possible for all. What was not is logged."""
        done = True
        for start in range(0, len(documents), HEADS_AT_A_TIME):
            some = documents[start : start + HEADS_AT_A_TIME]
            known = [document.sequence for document in some]
            behind = [
                (document, head, known)
                for document, head, known in zip(some, await self._heads(some), known, strict=True)
                if not isinstance(head, Serialization) and not self._is_there(document, head, known)
            ]
            for first in range(0, len(behind), READS_AT_A_TIME):
                reads = (self._reach_safely(*each) for each in behind[first : first + READS_AT_A_TIME])
                done = all(await asyncio.gather(*reads)) and done
            await asyncio.sleep(0)
        return done

    async def _reach_safely(self, document: Document, head: DocumentHead | None, known: int) -> bool:
        try:
            await self.reach(document, head, known)
        except RoomkeyError as error:
            _log.warning("document_not_followed", document=document.name, error=str(error))
            return False
        return True

    async def _heads(self, documents: Sequence[Document]) -> Sequence[DocumentHead | Serialization | None]:
        """How far each has come; a document whose record is damaged keeps no other from being followed."""
        names = [document.name for document in documents]
        try:
            return await self._store.heads(names)
        except Serialization as error:
            if len(names) == 1:
                return [error]
        middle = len(documents) // 2
        return [*await self._heads(documents[:middle]), *await self._heads(documents[middle:])]

    def _is_there(self, document: Document, head: DocumentHead | None, known: int) -> bool:
        """Whether nothing follows from how far the log has come."""
        if document.is_gone:
            return True
        if not document.lineage or head is None:
            return not document.lineage and head is None
        is_doubted = document in self._doubted or document.is_withheld
        return head.lineage == document.lineage and known <= head.sequence <= document.sequence and not is_doubted

    async def reach(self, document: Document, head: DocumentHead | None, known: int) -> None:
        """
        Do what follows from how far the log has come.

        ``known`` is how far the document was when that was asked: its own changes have been stored since, too.
        """
        if self._is_there(document, head, known):
            return
        if not document.lineage:
            await self._adopt(document)
        elif head is None or head.lineage != document.lineage:
            await self.missing(document)
        elif head.sequence < known or document.is_withheld or document in self._doubted:
            await self.recover(document)
        elif head.sequence > document.sequence:
            await self.catch_up(document)

    # --- what others have stored ----------------------------------------------------------------------

    async def catch_up(self, document: Document) -> None:
        """Take in what others have stored since the document was loaded here: just that, if it is there."""
        try:
            while not await self._learn_more(document):
                pass
        except (NotFound, Conflict):
            if not document.is_gone and document.lineage:
                await self.missing(document)

    async def _learn_more(self, document: Document) -> bool:
        """Whether that was all."""
        after = document.sequence
        tail = await self._store.updates(document.name, document.lineage, after)
        if document.is_gone or not document.lineage:
            return True
        if tail.updates is None:
            await self._learn_everything(document)
            return True
        # In one turn, or a reader could see a state under the number of another.
        document.learn(tail.updates, self._clock.now())
        document.learned(after + len(tail.updates), tail.updates)
        if tail.head < after:
            await self.recover(document)
        return not tail.updates or after + len(tail.updates) >= tail.head

    async def _learn_everything(self, document: Document) -> None:
        """What is new was merged into the snapshot already."""
        stored = await self._store.load(document.name)
        if document.is_gone or not document.lineage:
            return
        if stored is None or stored.record.lineage != document.lineage:
            raise NotFound("there is no such document any more")
        document.learn(everything(stored), self._clock.now())
        document.learned(stored.record.sequence, stored.updates)

    # --- what storage has lost ------------------------------------------------------------------------

    @property
    def doubted(self) -> Sequence[Document]:
        """Documents whose logs have lost something, until it is stored once more."""
        return [*self._doubted]

    async def missing(self, document: Document) -> None:
        """There is no such document in storage: it was deleted, or is lost."""
        if await self._store.was_deleted(document.name, document.lineage):
            if not document.is_gone:
                self._forget(document)
            return
        (head,) = await self._store.heads([document.name])
        if document.is_gone or document.is_withheld or (head is not None and head.lineage == document.lineage):
            return  # it has only just been made
        _log.error("storage_lost", document=document.name, lineage=document.lineage)
        document.withhold()

    async def recover(self, document: Document) -> None:
        """
        Store what the document has beyond its log, and only that; nothing if another node is at it just now.

        What was lost is counted again, so that numbers say on every node what they said before: in its place stand
        updates that change nothing, and then one with all that is missing.
        """
        self._doubted.add(document)
        async with self._turns.at(document.name) as turn:
            if turn is None:
                return
            for _ in range(MAX_TRIES):
                if document.is_gone or await self._store_missing(document):
                    self._doubted.discard(document)
                    return

    async def _store_missing(self, document: Document) -> bool:
        """Whether that is done; otherwise others have written meanwhile."""
        stored = await self._store.load(document.name)
        if document.is_gone:
            return True
        if stored is None or stored.record.lineage != document.lineage:
            await self.missing(document)
            return True
        known = await assemble(stored)
        if document.is_gone:
            return True
        head, now = stored.record.sequence, self._clock.now()
        document.learn(everything(stored), now)
        for update in document.unsaved_updates():
            # That is stored anyway; twice, which does no harm, if it builds on what is lost.
            known.load(update.data, whole=False)
        missing = document.replica.since(known.state())
        lost = [] if known.contains(missing) else [DocumentUpdate(missing, SERVER, now)]
        count = max(0, document.sequence - head - len(lost))
        padding = [DocumentUpdate(EMPTY_UPDATE, SERVER, now)] * min(count, MAX_PADDING)
        updates = padding if count > MAX_PADDING else [*padding, *lost]
        if updates:
            try:
                end = await self._store.append(document.name, document.lineage, updates, after=head)
            except Overtaken:
                return False
            self._appended(Append(document.name, document.lineage, updates), end)
            if count > MAX_PADDING:
                return await self._store_missing(document)
            _log.warning("document_log_restored", document=document.name, log=head, document_at=document.sequence)
            head = end
        document.learned(head, stored.updates)
        document.release()
        return True
