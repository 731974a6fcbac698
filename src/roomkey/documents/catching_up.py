"""Other processes write to the same storage: what they have stored gets into the open documents of this one."""

from collections.abc import Awaitable, Callable, Iterator

from roomkey.documents.document import Document
from roomkey.errors import Conflict, NotFound
from roomkey.ports import Author, Clock, DocumentHead, DocumentStore, DocumentUpdate, StoredDocument

SERVER = Author("server")


class CatchingUp:
    """
    Brings open documents to the end of their logs.

    ``forget`` is called with a document that was deleted, ``adopt`` with one that is stored by now and was not.
    """

    def __init__(
        self,
        store: DocumentStore,
        clock: Clock,
        *,
        forget: Callable[[Document], None],
        adopt: Callable[[Document], Awaitable[None]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._forget = forget
        self._adopt = adopt

    async def refresh(self, document: Document) -> None:
        """Catch up, if a look says that there is anything. The document may be gone afterwards."""
        (head,) = await self._store.heads([document.name])
        await self.reach(document, head)

    async def reach(self, document: Document, head: DocumentHead | None) -> None:
        """Catch up, if the document is not as far as ``head`` says."""
        if document.is_gone:
            return
        if not document.lineage:
            if head is not None:
                await self._adopt(document)
        elif head is None or head.lineage != document.lineage:
            self._forget(document)
        elif head.sequence > document.sequence:
            await self.catch_up(document)

    async def catch_up(self, document: Document) -> None:
        """Take in what others have stored since the document was loaded here: just that, if it is there."""
        try:
            while not await self._learn_more(document):
                pass
        except (NotFound, Conflict):
            if not document.is_gone and document.lineage:
                self._forget(document)

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


def everything(stored: StoredDocument) -> Iterator[DocumentUpdate]:
    """A stored document as updates: its snapshot, and what lies behind."""
    if stored.snapshot is not None:
        yield DocumentUpdate(stored.snapshot, SERVER, stored.record.updated_at)
    yield from stored.updates
