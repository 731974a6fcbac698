"""What tells the application of events, wired for one node."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from roomkey.documents.open_documents import OpenDocuments
from roomkey.documents.service import DocumentService
from roomkey.hooks.contents import DocumentContents
from roomkey.hooks.events import AnyHookEvent, EventType
from roomkey.hooks.handlers import Handlers
from roomkey.hooks.observer import Observer
from roomkey.hooks.settings import HookSettings, WebhookSettings
from roomkey.node.background import BackgroundTasks
from roomkey.ports import Clock
from roomkey.ports.documents import DocumentHead


class NodeHooks:
    """Functions of the application in this process, and webhooks."""

    def __init__(
        self,
        hooks: HookSettings,
        webhooks: WebhookSettings,
        *,
        clock: Clock,
        documents: Callable[[], OpenDocuments],
        background: BackgroundTasks,
    ) -> None:
        """``documents`` returns those of this node, which are made later: they are given the observer."""
        self._documents = documents
        self._background = background
        self._contents = DocumentContents(lambda: DocumentService(documents()))
        self.handlers = Handlers(
            self._contents,
            clock,
            timeout=hooks.timeout,
            max_waiting=hooks.max_waiting,
            max_content_bytes=webhooks.max_content_bytes,
        )
        self.observer = Observer(hooks, clock, self._tell, wants=self._wants, head=self._head)

    def _wants(self, type: EventType) -> bool:
        return self.handlers.want(type)

    def _tell(self, event: AnyHookEvent | None, notes: Sequence[str]) -> None:
        if event is not None:
            self.handlers.tell(event)

    def _head(self, name: str) -> DocumentHead | None:
        document = self._documents().find(name)
        return DocumentHead(document.lineage, document.version) if document is not None and document.lineage else None

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        """Events are told until this is left."""
        async with self._background.at_work({"hooks": self.handlers.run, "changes": self.observer.run}):
            yield

    @asynccontextmanager
    async def telling(self) -> AsyncGenerator[None]:
        """When this is left, everything is stored and told while documents can still be read."""
        yield
        await self._documents().settle()
        self.observer.flush()
        await self.handlers.flush()

    def degradations(self) -> Mapping[str, str]:
        """That functions fail or do not keep up."""
        return self.handlers.degradations()

    def observations(self) -> Mapping[str, str]:
        """How much was told, and what waits."""
        return self.handlers.observations()
