"""What tells the application of events, wired for one node."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Final

from roomkey.documents.open_documents import OpenDocuments
from roomkey.documents.service import DocumentService
from roomkey.domain.session import AnyEvent
from roomkey.errors import RoomkeyError
from roomkey.hooks.contents import DocumentContents
from roomkey.hooks.events import AnyHookEvent, EventType
from roomkey.hooks.handlers import Handlers
from roomkey.hooks.observer import Observer
from roomkey.hooks.outbox import Outbox
from roomkey.hooks.posting import Poster
from roomkey.hooks.recovery import Recovery
from roomkey.hooks.sending import Sender
from roomkey.hooks.service import WebhookService
from roomkey.hooks.session_events import EndedSessions, ending
from roomkey.hooks.settings import HookSettings, WebhookEndpoint, WebhookSettings
from roomkey.leasing import Chore
from roomkey.node.background import BackgroundTasks, Work
from roomkey.ports import ObjectStore, SharedState
from roomkey.ports.documents import DocumentHead
from roomkey.sessions.manager import SessionManager

TURN: Final = timedelta(seconds=6)
"""How long others wait until they send in the place of a node that died."""

ALARM: Final = timedelta(minutes=5)
"""How long something may wait for an endpoint before health is degraded."""

FLUSH_SECONDS: Final = 5.0
"""Maximum time that shutdown waits until everything is in the outbox."""


class NodeHooks:
    """Functions of the application in this process, and webhooks."""

    def __init__(
        self,
        hooks: HookSettings,
        webhooks: WebhookSettings,
        *,
        node: str,
        sessions: SessionManager,
        objects: ObjectStore,
        shared: SharedState,
        documents: Callable[[], OpenDocuments],
        background: BackgroundTasks,
    ) -> None:
        """``documents`` returns those of this node, which are made later: they are given the observer."""
        self._node = node
        self._documents = documents
        self._background = background
        clock = sessions.clock
        self._now = clock.now
        contents = DocumentContents(lambda: DocumentService(documents()))
        self.handlers = Handlers(
            contents,
            clock,
            timeout=hooks.timeout,
            max_waiting=hooks.max_waiting,
            max_content_bytes=webhooks.max_content_bytes,
        )
        self._outbox = Outbox(
            objects,
            clock,
            node=node,
            endpoints=webhooks.endpoints,
            bound=webhooks.max_waiting,
            written=self._put_in,
        )
        self._senders = {
            endpoint.name: Sender(
                endpoint,
                webhooks,
                node=node,
                objects=objects,
                outbox=self._outbox,
                contents=contents,
                posting=_poster(endpoint, webhooks),
                clock=clock,
                chore=Chore(shared.leases, f"webhook/{endpoint.name}", node, lifetime=TURN),
            )
            for endpoint in webhooks.endpoints
        }
        self.service = WebhookService([*self._senders.values()], self._outbox, objects)
        self._recovery = Recovery(
            objects,
            lambda: documents().store,
            self._outbox,
            clock,
            living=lambda: _living(node, shared.others()),
            chore=Chore(shared.leases, "webhooks/recovery", node, lifetime=TURN),
        )
        self._ended = EndedSessions(
            sessions.storage,
            objects,
            self._outbox,
            chore=Chore(shared.leases, "webhooks/sessions", node, lifetime=TURN),
        )
        self.observer = Observer(
            hooks,
            clock,
            self._tell,
            wants=self._wants,
            notes=self._outbox if webhooks.endpoints else None,
            head=self._head,
        )
        sessions.on_events(self._on_events)

    # --- what happens ---------------------------------------------------------------------------------

    def _wants(self, type: EventType) -> bool:
        return self.handlers.want(type) or self._outbox.wants(type)

    def _tell(self, event: AnyHookEvent | None, notes: Sequence[str]) -> None:
        if event is not None:
            self.handlers.tell(event)
        self._outbox.tell(event, notes)

    def _on_events(self, events: Sequence[AnyEvent]) -> None:
        """Sessions were changed by this process. Webhooks are told from the log, which loses nothing."""
        if self.handlers.want("session.ended"):
            for event in events:
                if (ended := ending(event)) is not None:
                    self.handlers.tell(ended)

    def _head(self, name: str) -> DocumentHead | None:
        document = self._documents().find(name)
        return DocumentHead(document.lineage, document.version) if document is not None and document.lineage else None

    def _put_in(self, endpoint: str) -> None:
        if (sender := self._senders.get(endpoint)) is not None:
            sender.put_in()

    # --- work -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        """Events are told until this is left, and everything is in the outbox then, if storage answers."""
        works: dict[str, Work] = {"hooks": self.handlers.run, "changes": self.observer.run}
        if self._senders:
            works["webhooks"] = self._outbox.run
            with suppress(RoomkeyError):  # `watch` looks again
                await self._outbox.look()
        async with self._background.at_work(works):
            try:
                yield
            finally:
                with suppress(RoomkeyError, TimeoutError):  # notes say what is missing
                    async with asyncio.timeout(FLUSH_SECONDS):
                        await self._outbox.flush()

    @asynccontextmanager
    async def telling(self) -> AsyncGenerator[None]:
        """When this is left, everything is stored and told while documents can still be read."""
        yield
        if not self._senders and not self.handlers.is_used:
            return
        await self._documents().settle()
        self.observer.flush()
        await self.handlers.flush()

    @property
    def works(self) -> Mapping[str, Work]:
        """What has to go on in the background, by name."""
        if not self._senders:
            return {}
        works: dict[str, Work] = {f"webhook {name}": sender.run for name, sender in self._senders.items()}
        works |= {"disabled webhooks": self._outbox.watch, "notes of hooks": self._recovery.run}
        if self._outbox.wants("session.ended"):
            works["ended sessions"] = self._ended.run
        return works

    # --- how it does ----------------------------------------------------------------------------------

    def degradations(self) -> Mapping[str, str]:
        """That functions fail or do not keep up, that endpoints do not answer, or that nothing can be put in."""
        found = dict(self.handlers.degradations())
        if self._outbox.is_failing:
            found["webhooks"] = f"{self._outbox.buffered} events wait in memory: the storage of objects does not answer"
        for name, sender in self._senders.items():
            if (trouble := self._trouble(name, sender)) is not None:
                found[f"webhook {name}"] = trouble
        return found

    def _trouble(self, name: str, sender: Sender) -> str | None:
        if (disabled := self._outbox.disabled.get(name)) is not None:
            enable = f"roomkey webhooks enable {name}"
            return f"disabled since {disabled.at:%Y-%m-%d %H:%M:%S}Z: {disabled.reason}; `{enable}` sends to it again"
        figures = sender.figures
        if figures is None:
            return None
        late = figures.oldest is not None and self._now() - figures.oldest > ALARM
        if not figures.is_away and not late and not figures.dropped:
            return None
        state = "does not answer" if figures.is_away else "does not keep up" if late else "did not keep up"
        return f"{state}: {figures.in_words()}; the last failure: {figures.last_failure or 'none'}"

    def observations(self) -> Mapping[str, str]:
        """How much was told, and what waits."""
        found = dict(self.handlers.observations())
        for name, sender in self._senders.items():
            if (figures := sender.figures) is not None:
                found[f"webhook {name}"] = figures.in_words()
        if self.observer.unprotected:
            found["hooks without a note"] = f"{self.observer.unprotected}: storage of objects did not answer in time"
        return found


def _poster(endpoint: WebhookEndpoint, settings: WebhookSettings) -> Poster:
    return Poster(endpoint.url, timeout=settings.timeout.total_seconds(), allow_private=endpoint.allow_private)


def _living(node: str, others: Collection[str]) -> set[str]:
    """The nodes that live; on one machine others come with the numbers of their processes."""
    return {node, *(other.partition(" ")[0] for other in others)}
