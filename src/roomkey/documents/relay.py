"""
What nodes tell each other of open documents: what was stored, what is shown, what was deleted.

The log is the truth, and whoever hears nothing reads it. So nothing is told before it is stored; a node that is where
the log was takes in what is told without reading; and one that is not learns it all the same, marks the gap, and reads
what is missing in between. What clients show is in no log: it is told, and asked for.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Protocol, Self

import structlog
from msgspec import Struct

from roomkey.documents.catching_up import CatchingUp
from roomkey.documents.document import Document
from roomkey.documents.node_messages import (
    EVERY_NODE,
    MESSAGES,
    Appended,
    Asked,
    Deleted,
    Grown,
    Message,
    Reminded,
    SentUpdate,
    Shown,
    channel_of,
)
from roomkey.documents.showing import Showing
from roomkey.errors import RoomkeyError, Storage
from roomkey.ports import Append, Broker, Clock, Leases, Publication
from roomkey.wire.lib0 import AwarenessEntry

MAX_TOLD_BYTES: Final = 256 * 1024
"""Updates of more bytes are announced, and read by those who need them."""

GAP_SECONDS: Final = 0.05
"""Time for what is missing to arrive by itself, because it is on its way: then it is read."""

_log = structlog.get_logger("roomkey.documents")


class Peers(Struct, frozen=True, kw_only=True):
    """
    What joins the documents of this ``node`` to others: ``lives`` says whether a node is one of them.

    Without ``leases``, where there are none that are as durable as documents, each node does what is to be done once.
    """

    node: str
    broker: Broker
    leases: Leases | None
    lives: Callable[[str], bool]


class Library(Protocol):
    """The open documents of this node."""

    catching_up: CatchingUp
    clock: Clock

    def find(self, name: str) -> Document | None:
        """The document, if it is open."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` in the background."""
        ...

    def deleted_elsewhere(self, name: str, lineage: str, clients: frozenset[int]) -> None:
        """Another node has deleted a document."""
        ...


class Relay:
    """
    Tells other nodes of documents, and hears of theirs. Usable while it is entered; all on one event loop.

    With a broker that reaches nobody it does nothing at all.
    """

    def __init__(self, peers: Peers | None, library: Library) -> None:
        self._peers = peers
        self._library = library
        self._watches: dict[str, _Watch] = {}
        self._nodes_heard: dict[str, datetime] = {}
        self._missed: dict[str, None] = {}
        self._is_reaching = False
        self._sending = 0
        self._sent = asyncio.Event()
        self._is_away = False
        self.is_on = False

    @property
    def is_heard(self) -> bool:
        """Whether nodes tell each other what they write, and nothing says that they cannot."""
        return self.is_on and not self._is_away

    async def __aenter__(self) -> Self:
        peers = self._peers
        self._sending, self._is_reaching = 0, False  # what a former run had begun may have been cancelled
        if peers is not None and peers.broker.shared:
            await peers.broker.subscribe(EVERY_NODE, _Deletions(self))
            self.is_on = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        was_on, self.is_on = self.is_on, False
        if was_on and self._peers is not None:
            with suppress(Storage):
                await self._peers.broker.unsubscribe(EVERY_NODE)

    # --- which documents ------------------------------------------------------------------------------

    async def watch(self, name: str) -> None:
        """
        Hear of a document from now on; whoever loads it does so after this.

        Raises:
            Storage: If that is not possible.
        """
        if self.is_on and self._peers is not None and name not in self._watches:
            watch = self._watches[name] = _Watch(self, name)
            try:
                await self._peers.broker.subscribe(channel_of(name), watch)
            except BaseException:
                if self._watches.get(name) is watch:
                    del self._watches[name]
                raise

    def unwatch(self, name: str) -> None:
        """The document is not open any more."""
        watch = self._watches.pop(name, None)
        if watch is not None:
            watch.close()
            with suppress(Storage):  # the node stops
                self._library.spawn(self._unsubscribe(name))

    async def _unsubscribe(self, name: str) -> None:
        # No await between the look and the call: whoever watches again subscribes behind it.
        if name not in self._watches and self._peers is not None:
            await self._peers.broker.unsubscribe(channel_of(name))

    def opened(self, document: Document) -> None:
        """A document is open: ask what is shown in it."""
        if (watch := self._watches.get(document.name)) is not None:
            watch.showing.belong_to(document)
            self.tell(document.name, Asked())

    def expects_more(self, document: Document) -> bool:
        """Whether what is missing in the document behind a gap is on its way, and read if it does not come."""
        watch = self._watches.get(document.name)
        if watch is not None:
            watch.expect(document)
        return watch is not None

    # --- telling --------------------------------------------------------------------------------------

    def tell(self, name: str, message: Message) -> None:
        """Tell those who have the document open; they hear it in the order in which it was told."""
        if self.is_on:
            self._publish(channel_of(name), message)

    def _publish(self, channel: str, message: Message) -> None:
        self._sending += 1
        self._sent.clear()
        try:
            self._library.spawn(self._send(channel, MESSAGES.encode(message)))
        except Storage:  # the node stops
            self._sending -= 1

    async def _send(self, channel: str, message: bytes) -> None:
        peers = self._peers
        assert peers is not None  # noqa: S101  # it is on
        try:
            await peers.broker.publish(channel, message, origin=peers.node, keep=False)
        except RoomkeyError as error:
            if not self._is_away:
                _log.warning("documents_not_told", error=str(error))
            self._is_away = True
        else:
            self._is_away = False
        finally:
            self._sending -= 1
            if not self._sending:
                self._sent.set()

    async def settle(self) -> None:
        """Wait until everything is told."""
        if self._sending:
            await self._sent.wait()

    def appended(self, batch: Append, head: int) -> None:
        """This was stored just now; the last of it has number ``head``."""
        if sum(len(update.data) for update in batch.updates) > MAX_TOLD_BYTES:
            self.tell(batch.name, Grown(batch.lineage, head))
            return
        sent = [SentUpdate.of(update) for update in batch.updates]
        self.tell(batch.name, Appended(batch.lineage, head - len(sent), sent))

    def created(self, name: str, lineage: str, head: int) -> None:
        """The document was made just now."""
        self.tell(name, Grown(lineage, head))

    def deleted(self, name: str, lineage: str, clients: Iterable[int]) -> None:
        """The document was deleted just now."""
        if self.is_on:
            self._publish(EVERY_NODE, Deleted(name, lineage, list(clients)))

    def shown(self, name: str, entries: Sequence[AwarenessEntry]) -> None:
        """``Elsewhere.shown``."""
        if (watch := self._watches.get(name)) is not None:
            watch.showing.show(entries)

    def remind(self, name: str, clients: Iterable[int]) -> None:
        """``Elsewhere.remind``."""
        self.tell(name, Reminded(list(clients)))

    # --- hearing --------------------------------------------------------------------------------------

    def heard(self, publication: Publication, channel: "_Channel") -> None:
        """Something was told. A defect in it must not keep anybody from hearing the rest."""
        if self._peers is None or publication.origin == self._peers.node:
            return
        message = MESSAGES.decode(publication.message)
        try:
            if message is not None:
                channel.take(message, publication.origin)
        except Exception:  # noqa: BLE001  # whatever it was, the log has it
            _log.exception("node_message_failed", kind=type(message).__name__)
            channel.missed()

    def deleted_elsewhere(self, message: Deleted) -> None:
        """Another node has deleted a document."""
        self._library.deleted_elsewhere(message.name, message.lineage, frozenset(message.clients))

    def document(self, name: str) -> Document | None:
        """The document, if it is open and can be used."""
        document = self._library.find(name)
        return None if document is None or document.is_gone else document

    def now(self) -> datetime:
        """The time."""
        return self._library.clock.now()

    def catch_up(self, document: Document) -> None:
        """Read what is missing in a document behind a gap."""
        self._spawn(self._library.catching_up.catch_up(document))

    def recover(self, document: Document) -> None:
        """The log may have lost something that the document has."""
        self._spawn(self._library.catching_up.recover(document))

    def look(self, name: str) -> None:
        """Look how far the log of a document has come: with all others of which that is to be known, in one go."""
        self._missed[name] = None
        if not self._is_reaching:
            self._is_reaching = True
            self._spawn(self._reach())

    async def _reach(self) -> None:
        try:
            while self._missed:
                names, self._missed = self._missed, {}
                documents = [document for name in names if (document := self.document(name)) is not None]
                await self._library.catching_up.reach_all(documents)
        except RoomkeyError as error:
            _log.warning("documents_not_followed", error=str(error))  # the follower will
        finally:
            self._is_reaching = False

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        with suppress(Storage):  # the node stops
            self._library.spawn(work)

    # --- who lives ------------------------------------------------------------------------------------

    def heard_of(self, node: str) -> None:
        """A node shows something."""
        self._nodes_heard[node] = self.now()

    def gone(self, nodes: Sequence[str]) -> None:
        """These nodes live no more: nobody is shown any more who was connected to them."""
        for node in nodes:
            self._nodes_heard.pop(node, None)
        for watch in tuple(self._watches.values()):
            watch.showing.drop(nodes, self.now())

    def tick(self, now: datetime) -> None:
        """A moment has passed. Called several times a second."""
        for watch in tuple(self._watches.values()):
            watch.showing.tick(now)
        lives = None if self._peers is None else self._peers.lives
        # Who came and went between two looks at who lives is never said to be gone.
        if silent := [
            node for node, at in self._nodes_heard.items() if lives and now - at > UNKNOWN_FOR and not lives(node)
        ]:
            self.gone(silent)


UNKNOWN_FOR: Final = timedelta(seconds=10)
"""How long a node may show something of which nobody knows that it lives: it may be new."""


class _Channel(Protocol):
    def take(self, message: Message, node: str) -> None: ...

    def missed(self) -> None: ...


class _Deletions:
    """The ``Receiver`` of what concerns all nodes."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def on_publication(self, publication: Publication) -> None:
        self._relay.heard(publication, self)

    def on_gap(self) -> None:
        """Open documents hear of their gaps themselves."""

    missed = on_gap

    def take(self, message: Message, node: str) -> None:
        del node
        if isinstance(message, Deleted):
            self._relay.deleted_elsewhere(message)


class _Watch:
    """The ``Receiver`` of one document."""

    def __init__(self, relay: Relay, name: str) -> None:
        self._relay = relay
        self._name = name
        self._timer: asyncio.TimerHandle | None = None
        self.showing = Showing(lambda message: relay.tell(name, message))

    def close(self) -> None:
        """The document is not open any more."""
        self.showing.close()
        if self._timer is not None:
            self._timer.cancel()

    def on_publication(self, publication: Publication) -> None:
        self._relay.heard(publication, self)

    def on_gap(self) -> None:
        self.missed()
        self.showing.doubt(self._relay.now())

    def missed(self) -> None:
        """Something may be in the log that is not here."""
        self._relay.look(self._name)

    def take(self, message: Message, node: str) -> None:
        document = self._relay.document(self._name)
        if document is None:
            return  # whoever loads it looks again
        match message:
            case Appended():
                self._take_appended(document, message)
            case Grown(lineage, head):
                if lineage != document.lineage or head > document.sequence:
                    self.missed()
            case Shown(entries):
                self._relay.heard_of(node)
                self.showing.take(entries, node, self._relay.now())
            case Asked():
                self.showing.answer()
            case Reminded(clients):
                document.remind(clients, here=True)
            case Deleted():
                pass  # that is said to all nodes

    def _take_appended(self, document: Document, message: Appended) -> None:
        if message.lineage != document.lineage:
            self.missed()
            return
        updates = [sent.update() for sent in message.updates]
        after, now = message.after, self._relay.now()
        head, known = after + len(updates), document.sequence
        repeated = updates[: max(0, known - after)]
        if not all(document.has(update.data) for update in repeated):
            # Numbers that were given to something else before: the log has lost that.
            document.learn(updates, now)
            self._relay.recover(document)
            return
        news = updates[len(repeated) :]
        if after <= known:
            document.learn_next(news, now)
            document.learned(head, ())
        else:
            document.learn(news, now)
            document.appended(len(news), head)
            self.expect(document)

    def expect(self, document: Document) -> None:
        """There is a gap: what is missing is on its way, or to be read."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GAP_SECONDS, self._fill, document)

    def _fill(self, document: Document) -> None:
        self._timer = None
        if document.has_gap and not document.is_gone:
            self._relay.catch_up(document)
