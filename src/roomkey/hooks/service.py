"""What administrators ask of webhooks: how endpoints stand, what was delivered; enable one again, replay a message."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from msgspec import MsgspecError, Struct

from roomkey.errors import DeliveryNotFound, InvalidInput, WebhookNotFound
from roomkey.hooks import deliveries
from roomkey.hooks.backlog import EndpointFigures, decode_figures
from roomkey.hooks.deliveries import Delivery, DeliveryPage
from roomkey.hooks.outbox import SPACE, Disabled, Outbox, figures_of
from roomkey.hooks.sending import Sender
from roomkey.hooks.settings import WebhookEndpoint
from roomkey.ports import ObjectStore, Page

MAX_PAGE: Final = 500


class WebhookStatus(Struct, frozen=True):
    """
    An endpoint and how it stands.

    ``figures`` are those of the node that sends to it, a few seconds old; ``None`` if none ever has.
    """

    endpoint: WebhookEndpoint
    disabled: Disabled | None
    figures: EndpointFigures | None


class WebhookService:
    """The commands on webhooks. All raise ``Storage`` if the object store is away."""

    def __init__(self, senders: Sequence[Sender], outbox: Outbox, objects: ObjectStore) -> None:
        self._senders = {sender.endpoint.name: sender for sender in senders}
        self._outbox = outbox
        self._objects = objects

    async def list(self) -> Sequence[WebhookStatus]:
        """Every endpoint of the configuration of this node."""
        await self._outbox.look()
        return [await self._status(sender) for sender in self._senders.values()]

    async def get(self, name: str) -> WebhookStatus:
        """
        One endpoint.

        Raises:
            WebhookNotFound: If there is none of this name.
        """
        sender = self._sender(name)
        await self._outbox.look()
        return await self._status(sender)

    async def deliveries(self, name: str, page: Page) -> DeliveryPage:
        """
        What became of messages lately, the newest first. What still waits is only counted, see ``get``.

        Raises:
            WebhookNotFound: If there is no such endpoint.
            InvalidInput: If the cursor is none of this list, or a page cannot be so long.
        """
        if not 1 <= page.limit <= MAX_PAGE:
            raise InvalidInput(f"a page has 1 to {MAX_PAGE} entries")
        return await deliveries.page_of(self._objects, self._sender(name).endpoint.name, page.cursor, page.limit)

    async def enable(self, name: str) -> WebhookStatus:
        """
        Send to the endpoint again, on all nodes within a second. What happened meanwhile is not told any more.

        Raises:
            WebhookNotFound: If there is none of this name.
        """
        await self._outbox.enable(self._sender(name).endpoint.name)
        return await self.get(name)

    async def replay(self, name: str, id: str) -> Delivery:
        """
        Send a message once more, under the same id; returns the delivery that is repeated. It is durable then.

        Raises:
            WebhookNotFound: If there is no such endpoint.
            DeliveryNotFound: If there is no such delivery, or it is not kept any more.
        """
        found = await deliveries.find(self._objects, self._sender(name).endpoint.name, id)
        if found is None:
            raise DeliveryNotFound("there is no such delivery, or it is not kept any more")
        self._outbox.repeat(name, id, found.event)
        await self._outbox.flush()
        return found

    def _sender(self, name: str) -> Sender:
        sender = self._senders.get(name)
        if sender is None:
            raise WebhookNotFound("there is no webhook of this name in the configuration")
        return sender

    async def _status(self, sender: Sender) -> WebhookStatus:
        name, figures = sender.endpoint.name, sender.figures
        if figures is None:
            stored = await self._objects.get(SPACE, figures_of(name))
            with suppress(MsgspecError):
                figures = None if stored is None else decode_figures(stored.value)
        return WebhookStatus(sender.endpoint, self._outbox.disabled.get(name), figures)
