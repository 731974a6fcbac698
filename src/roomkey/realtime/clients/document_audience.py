"""The sockets in one document: each change goes to all of them as one prepared frame per address."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Final, Protocol, cast

from roomkey.documents.crdt.awareness import OtherNode
from roomkey.documents.document import Document
from roomkey.documents.settings import DocumentSettings
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.rooms.hub import Channel, Hub, Outbox
from roomkey.realtime.settings import AwarenessIdentity
from roomkey.wire import lib0
from roomkey.wire.frame import Frame

NEW_FOR: Final = timedelta(seconds=20)
"""How long it matters who was here before. All clients repeat themselves every 15 seconds, with a higher clock each
time, so whoever was away for longer takes what is said."""

MAX_ANSWERS_PER_TICK: Final = 250
"""Frames that clients may cause by showing themselves anew. In a small document that is all of them at once; in a
large one they repeat themselves before it is their turn, which they do every 15 seconds."""


class Subscriber(Protocol):
    """
    One connection in one document.

    ``address`` stands in front of every message for it: empty for y-websocket, the document's encoded name for
    Hocuspocus. Subscribers with the same address are sent the same frames.
    """

    box: Outbox
    address: bytes

    def document_deleted(self) -> None:
        """The document was deleted: the client's copy must not come back."""
        ...

    def ask_for_missing(self) -> None:
        """Ask the client for what the document lacks here."""
        ...

    def remind(self, reminders: Sequence[lib0.AwarenessEntry]) -> None:
        """Have clients of this connection show themselves anew."""
        ...

    def unavailable(self) -> None:
        """The document cannot be used on this node any more; the client may reconnect."""
        ...

    def storage_lost(self) -> None:
        """Storage has lost the document: the client keeps its copy, and may come back later."""
        ...


class DocumentAudience:
    """The ``Audience`` of a document, while it has subscribers."""

    __slots__ = (
        "_began_at",
        "_channels",
        "_document",
        "_hub",
        "_said_at",
        "_subscribers",
        "_to_ask",
        "_to_remind",
        "_whole",
    )

    def __init__(self, document: Document, hub: Hub, now: datetime) -> None:
        self._document = document
        self._hub = hub
        self._subscribers: dict[Subscriber, None] = {}
        self._channels: dict[bytes, Channel] = {}
        self._began_at = self._said_at = now
        self._to_ask: dict[Subscriber, datetime] = {}
        self._to_remind: dict[int, None] = {}
        self._whole: tuple[int, bytes, Frame] | None = None

    def __len__(self) -> int:
        return len(self._subscribers)

    def __contains__(self, subscriber: Subscriber) -> bool:
        return subscriber in self._subscribers

    # --- who is in it ---------------------------------------------------------------------------------

    def join(self, subscriber: Subscriber) -> None:
        """Send ``subscriber`` everything from now on; it asks for the state before that itself."""
        if subscriber not in self._subscribers:
            self._subscribers[subscriber] = None
            channel = self._channels.get(subscriber.address)
            if channel is None:
                channel = self._channels[subscriber.address] = Channel()
            self._hub.join(subscriber.box, channel)

    def leave(self, subscriber: Subscriber, now: datetime) -> None:
        """``subscriber`` has left, and its awareness with it."""
        del self._subscribers[subscriber]
        self._to_ask.pop(subscriber, None)
        channel = self._channels[subscriber.address]
        self._hub.leave(subscriber.box, channel)
        if not channel.members:
            del self._channels[subscriber.address]
        self._document.hide(subscriber, now)

    def introduced(self, entries: Sequence[lib0.AwarenessEntry], now: datetime) -> None:
        """
        A connection shows its clients for the first time; call this before the document takes that in.

        If they were here before, they know the clocks of everyone else from then and ignore what has no higher one:
        y-protocols forgets states, but no clocks. So everyone is asked for that. An audience that is new cannot tell
        who was here: the server, or all of them, may have been away.
        """
        awareness = self._document.awareness
        shown = awareness.entries()
        is_new = now - self._began_at < NEW_FOR
        if shown and (is_new or any(awareness.knows(entry.client) for entry in entries)):
            self._to_remind |= dict.fromkeys(entry.client for entry in [*shown, *entries])

    # --- what happens to the document -----------------------------------------------------------------

    def changed(self, update: bytes, message: bytes | None, now: datetime) -> None:
        """Pass on a change: as the bytes that came in, wherever the encoded message would be the same."""
        self._said_at = now
        for address, channel in self._channels.items():
            if message is not None and _is_update(message, address, update):
                payload = message
            else:
                payload = address + yjs.update(update)
            self._hub.publish(channel, Frame(payload, binary=True))

    def shown(self, entries: Sequence[lib0.AwarenessEntry], now: datetime) -> None:
        """Pass on awareness."""
        self._said_at = now
        message = yjs.awareness(entries)
        for address, channel in self._channels.items():
            self._hub.publish(channel, Frame(address + message, binary=True))

    def remind(self, clients: Iterable[int]) -> None:
        """Have these clients show themselves anew, little by little."""
        self._to_remind |= dict.fromkeys(clients)

    def deleted(self) -> None:
        """Tell every subscriber that the document was deleted."""
        for subscriber in tuple(self._subscribers):
            subscriber.document_deleted()

    def lost(self) -> None:
        """Tell every subscriber that the document is not available now."""
        for subscriber in tuple(self._subscribers):
            subscriber.unavailable()

    def storage_lost(self) -> None:
        """Tell every subscriber that storage has lost the document."""
        for subscriber in tuple(self._subscribers):
            subscriber.storage_lost()

    # --- what subscribers ask -------------------------------------------------------------------------

    def answer(self, state: bytes, address: bytes) -> Frame:
        """
        The answer to a step 1 with ``state``, for subscribers with ``address``.

        Clients without content get the whole document; often many join at the same time, and get the same frame.
        """
        replica = self._document.replica
        if state != lib0.EMPTY_STATE:
            return Frame(address + yjs.sync_step2(replica.since(state)), binary=True)
        whole = self._whole
        if whole is None or whole[:2] != (replica.revision, address):
            frame = Frame(address + yjs.sync_step2(replica.since()), binary=True)
            whole = self._whole = (replica.revision, address, frame)
        return whole[2]

    def ask_later(self, subscriber: Subscriber, due: datetime) -> None:
        """A change of ``subscriber`` was not taken: ask for it from ``due`` on, once storage keeps up."""
        self._to_ask[subscriber] = due

    # --- time -----------------------------------------------------------------------------------------

    def tick(self, now: datetime, settings: DocumentSettings) -> None:
        """Send a keep-alive if nothing was sent for long, and ask for what is to be shown or sent again."""
        self._whole = None  # clients that join together do so within a second
        if self._to_ask and self._document.takes_writes(now):
            for subscriber in [subscriber for subscriber, due in self._to_ask.items() if due <= now]:
                del self._to_ask[subscriber]
                subscriber.ask_for_missing()
        if self._to_remind:
            self._remind()
        if now - self._said_at >= settings.keep_alive:
            self._said_at = now
            self._keep_alive()

    def _remind(self) -> None:
        # What each of them answers goes to every subscriber.
        for client in tuple(islice(self._to_remind, max(1, MAX_ANSWERS_PER_TICK // len(self._subscribers)))):
            del self._to_remind[client]
            reminder = self._document.awareness.reminder(client)
            if reminder is None:
                continue
            connection, entry = reminder
            if isinstance(connection, OtherNode):
                self._document.remind([client], here=False)
            else:
                cast("Subscriber", connection).remind([entry])

    def _keep_alive(self) -> None:
        # Every client would answer a step 1, so it is only sent when there is no awareness.
        shown = self._document.awareness.entries()
        quiet = yjs.awareness(shown) if shown else yjs.sync_step1(self._document.replica.state())
        for address, channel in self._channels.items():
            # Hocuspocus counts the answers to its changes, and would take the one to a step 1 for one of them.
            message = yjs.PING if address and not shown else address + quiet
            self._hub.publish(channel, Frame(message, binary=True))


def _is_update(message: bytes, address: bytes, update: bytes) -> bool:
    """Whether ``message``, which brought ``update``, is byte by byte what would be sent to ``address``."""
    begin, size = len(address), len(update)
    if size < lib0.TWO_BYTES_FROM:
        # Kind, step and length in three bytes are as we would write them, if the kind is ours.
        return len(message) == begin + 3 + size and not message[begin] and message.startswith(address)
    prefix = address + yjs.UPDATE_HEAD + lib0.number(size)
    return len(message) == len(prefix) + size and message.startswith(prefix)


class Audiences:
    """The audiences of all documents of this node."""

    def __init__(
        self, hub: Hub, settings: DocumentSettings, identity: AwarenessIdentity = AwarenessIdentity.STAMP
    ) -> None:
        """
        Args:
            identity: What is done about the user that clients show of themselves.
        """
        self.hub = hub
        self.identity = identity
        self._settings = settings
        self._audiences: dict[Document, DocumentAudience] = {}

    def __len__(self) -> int:
        return len(self._audiences)

    def join(self, document: Document, subscriber: Subscriber, now: datetime) -> DocumentAudience:
        """Let ``subscriber`` into the document."""
        audience = self._audiences.get(document)
        if audience is None:
            audience = self._audiences[document] = DocumentAudience(document, self.hub, now)
            document.attract(audience)
        audience.join(subscriber)
        return audience

    def leave(self, document: Document, subscriber: Subscriber, now: datetime) -> bool:
        """Let ``subscriber`` out of the document; whether it was in it."""
        audience = self._audiences.get(document)
        if audience is None or subscriber not in audience:
            return False
        audience.leave(subscriber, now)
        if not audience:
            del self._audiences[document]
            document.dismiss(now)
        return True

    def tick(self, now: datetime) -> None:
        """Do what is due in each audience. Called several times a second."""
        for audience in tuple(self._audiences.values()):
            audience.tick(now, self._settings)
