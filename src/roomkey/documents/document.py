"""
One document that is open on this node: its replica, who is in it, and the way of every change through it.

A change is applied, given to everyone as one prepared frame, and handed to the saver, in one turn of the loop;
whoever brought it is told when it is durable. Nothing here waits, so there is nothing to lock: joining means to
be registered for everything that comes, and to be given what was there, with no change in between.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Protocol, TypeVar

import structlog
from pycrdt import Doc

from roomkey.documents.crdt.awareness import Awareness, Outcome, Owner
from roomkey.documents.crdt.replica import PoisonUpdate, Replica, ReplicaLost
from roomkey.documents.settings import DocumentSettings
from roomkey.documents.writer import DocumentWriter, Settled
from roomkey.errors import DocumentTooLarge, InvalidInput, WritesRefused
from roomkey.ports import Author, DocumentUpdate
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.rooms.hub import Hub, Outbox, Room
from roomkey.wire.frame import Frame

T = TypeVar("T")

_log = structlog.get_logger("roomkey.documents")


class Subscriber(Protocol):
    """
    One connection in one document.

    ``address`` stands in front of every message for it: empty for y-websocket, the document's encoded name for
    Hocuspocus. All who have the same address are sent the same frames.
    """

    box: Outbox
    address: bytes

    def document_deleted(self) -> None:
        """The document is no more: what the client has of it must not come back."""
        ...

    def ask_for_missing(self) -> None:
        """The client is to send what is missing here."""
        ...

    def unavailable(self) -> None:
        """The document cannot be used here any more; the client may come back."""
        ...


class Document:
    """
    An open document. ``pins`` counts those who are about to use it without being in it. One that ``is_gone`` was
    deleted or lost. ``remote_changes_seen`` counts how often it was noticed that others have stored something, too, and
    ``remote_changes_merged`` how many of these were made good.

    ``lineage`` is empty as long as the document is not stored: nobody who may write has come yet.
    """

    def __init__(
        self,
        name: str,
        hub: Hub,
        settings: DocumentSettings,
        *,
        now: datetime,
        creator: Callable[[], None],
        tombstones: frozenset[int] = frozenset(),
    ) -> None:
        """
        Args:
            founder: Has the document stored, later, because somebody wants to write to it.
            dead_clients: The Yjs clients who wrote in a document of this name that was deleted.
        """
        self.name = name
        self._tombstones = tombstones
        self.lineage = ""
        self.replica = Replica()
        self.awareness = Awareness(
            max_state=settings.max_awareness_bytes,
            max_size=settings.max_document_awareness_bytes,
            max_clients=settings.max_clients_per_socket,
        )
        self.writer: DocumentWriter | None = None
        self.subscribers: dict[Subscriber, None] = {}
        self.pins = 0
        self.used_at = now
        self.size = 0
        self.pristine_version = -1
        self.kept_sequence = 0
        self.kept_at = now
        self.is_gone = False
        self.is_deleted = False
        self.remote_changes_seen = 0
        self.remote_changes_merged = 0
        self._hub = hub
        self._settings = settings
        self._rooms: dict[bytes, Room] = {}
        self._said_at = now
        self._to_ask: dict[Subscriber, None] = {}
        self._whole: tuple[int, bytes, Frame] | None = None
        self._creator = creator
        self._is_wanted = False
        self._is_full = False

    # --- who is in it ---------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nobody uses it, and everything in it is stored."""
        return not self.subscribers and not self.pins and self.is_saved

    @property
    def sequence(self) -> int:
        """The number of the last update that is stored."""
        return 0 if self.writer is None else self.writer.sequence

    @property
    def has_unmerged_changes(self) -> bool:
        """Whether something is stored that is not known to be here."""
        return self.remote_changes_merged < self.remote_changes_seen

    @property
    def is_saved(self) -> bool:
        """Whether everything in it is stored."""
        return self.writer is None or self.writer.is_idle

    @property
    def version(self) -> int:
        """How many updates it was ever given, those that are not stored yet included."""
        return 0 if self.writer is None else self.writer.sequence + self.writer.unsaved

    @property
    def is_pristine(self) -> bool:
        """Whether it was made here just now, and nobody has changed it since."""
        return self.version == self.pristine_version

    def join(self, subscriber: Subscriber) -> None:
        """Give ``subscriber`` everything that is said from now on; what was there before it asks for."""
        if subscriber in self.subscribers:
            return
        self.subscribers[subscriber] = None
        self._rooms[subscriber.address] = self._hub.join(subscriber.box, self._room_name(subscriber.address)).room

    def leave(self, subscriber: Subscriber, now: datetime) -> None:
        """``subscriber`` is gone, and whom it showed with it."""
        if subscriber not in self.subscribers:
            return
        del self.subscribers[subscriber]
        self._to_ask.pop(subscriber, None)
        self.used_at = now
        if self._hub.leave(subscriber.box, self._room_name(subscriber.address)):
            del self._rooms[subscriber.address]
        if entries := self.awareness.leave(subscriber):
            self._say(yjs.awareness(entries), now)

    def _room_name(self, address: bytes) -> str:
        # Those who are sent the same. No name of a document begins with NUL.
        return address.decode("latin-1") or f"\0{self.name}"

    # --- what is said ---------------------------------------------------------------------------------

    def take_update(self, update: bytes, author: Author, now: datetime, *, settled: Settled | None = None) -> bool:
        """
        Apply a change that was made just now, and let everyone have it, its author too: that is how it is told
        that the change has arrived. Always ``True``.

        Raises:
            PoisonUpdate: If it cannot be applied; nobody else is concerned.
            WritesRefused, DocumentTooLarge: As they say; it was not applied.
        """
        self._check_writable(len(update), now)
        self._apply(self.replica.apply, update)
        self._keep(update, author, now, settled)
        self._say(yjs.update(update), now)
        return True

    def take_missing(self, update: bytes, author: Author, now: datetime, *, settled: Settled | None = None) -> bool:
        """
        Apply the answer to our step 1; ``False`` if there is nothing new in it. Raises as ``take_update``.

        Everyone is given only what is new: a client that comes back may bring the whole document.
        """
        if self.contains(update):
            return False
        self._check_writable(len(update), now)
        news = self._apply(self.replica.apply_and_tell, update)
        if news is None or update in self.replica.waiting:
            news = update  # a part of it waits
        self._keep(news, author, now, settled)
        self._say(yjs.update(news), now)
        return True

    def contains(self, update: bytes) -> bool:
        """
        Whether everything in ``update`` is here already.

        Raises:
            PoisonUpdate: If it cannot be read.
        """
        return update == yjs.EMPTY_UPDATE or self.replica.contains(update)

    def is_of_the_deleted(self, update: bytes) -> bool:
        """
        Whether ``update`` brings something of a document of this name that was deleted.

        Clients that cannot say which history they have come back with all of it. Yjs ids are not used twice.
        """
        return bool(self._tombstones) and any(
            units.client in self._tombstones for units in self.replica.clients_of(update)
        )

    def answer(self, state: bytes, address: bytes) -> Frame:
        """
        The answer to a step 1 with ``state``, for those who have ``address``.

        Who has nothing is given everything, and often many come at the same time: they get the same frame.
        """
        if state != yjs.EMPTY_STATE:
            return Frame(address + yjs.sync_step2(self.replica.since(state)), binary=True)
        whole = self._whole
        if whole is None or whole[:2] != (self.replica.revision, address):
            frame = Frame(address + yjs.sync_step2(self.replica.since()), binary=True)
            whole = self._whole = (self.replica.revision, address, frame)
        return whole[2]

    def take_awareness(self, update: yjs.AwarenessUpdate, owner: Owner, now: datetime) -> Outcome:
        """Take in what a connection shows, and pass on as much of it as is news."""
        outcome = self.awareness.apply(update.entries, owner)
        if outcome.news:
            self._say(yjs.awareness(outcome.news), now)
        return outcome

    def edit(
        self,
        change: Callable[[Doc[Any]], None],
        author: Author,
        now: datetime,
        *,
        settled: Settled | None = None,
    ) -> bool:
        """
        Change the document on the server, as one more collaborator; whether anything was changed.

        Raises:
            WritesRefused, DocumentTooLarge: As they say; nothing was changed.
            InvalidInput: If the change broke the replica.
            Exception: What ``change`` raises. What it did before stays, for everyone.
        """
        self._check_writable(0, now)
        made: list[bytes] = []
        try:
            self.replica.edit(change, made.append)
        except ReplicaLost:
            made.clear()
            self._lose()
            raise InvalidInput("the change cannot be made") from None
        finally:
            for update in made:
                self._keep(update, author, now, settled)
                self._say(yjs.update(update), now)
        return bool(made)

    def when_saved(self, settled: Settled) -> None:
        """Call ``settled`` when everything that is in the document now is durable."""
        if self.writer is None:
            settled(True)
        else:
            self.writer.when_saved(settled)

    def learn(self, updates: Iterable[DocumentUpdate], now: datetime) -> None:
        """Take in what others have stored; it is passed on, but not stored again."""
        for update in updates:
            if update.data not in self.replica.waiting and not self.contains(update.data):
                news = self.replica.apply_and_tell(update.data)
                self.size += len(update.data)
                self._say(yjs.update(news or update.data), now)

    def _apply(self, apply: Callable[[bytes], T], update: bytes) -> T:
        try:
            return apply(update)
        except ReplicaLost:
            # What is stored is whole: whoever comes back gets it in a fresh replica.
            self._lose()
            raise PoisonUpdate("the update broke the replica") from None

    def _keep(self, update: bytes, author: Author, now: datetime, settled: Settled | None) -> None:
        self.size += len(update)
        self.used_at = now
        if self.writer is not None:
            self.writer.add(DocumentUpdate(update, author, now), settled)

    def _say(self, message: bytes, now: datetime) -> None:
        self._said_at = now
        for address, room in self._rooms.items():
            self._hub.publish(room, Frame(address + message, binary=True))

    # --- what may be written --------------------------------------------------------------------------

    def _check_writable(self, size: int, now: datetime) -> None:
        writer = self.writer
        if self.size + size > self._settings.max_document_bytes:
            self._check_room(size)
        if writer is None:
            self.want()
            raise WritesRefused("the document is not stored yet")
        if writer.unsaved and self._is_behind(writer, now):
            raise WritesRefused("storage does not keep up; the change was not taken")

    def _check_room(self, size: int) -> None:
        # What is counted are bytes that came in. Merged they are fewer, so look before anyone is refused; but that
        # takes long for a document of such a size, so do not look again for each that follows.
        most = self._settings.max_document_bytes
        if not self._is_full:
            self.size = len(self.replica.since())
            self._is_full = self.size + size > most
        if self._is_full:
            raise DocumentTooLarge(f"a document has at most {most} bytes")

    def _is_behind(self, writer: DocumentWriter, now: datetime) -> bool:
        since = writer.unsaved_since
        settings = self._settings
        too_old = since is not None and now - since > settings.max_unsaved_age
        return too_old or writer.unsaved_bytes > settings.max_unsaved_bytes

    # --- time -----------------------------------------------------------------------------------------

    def tick(self, now: datetime) -> None:
        """Say something if nothing was said for long, and ask for changes that had to be refused."""
        self._is_wanted = self._is_full = False
        self._whole = None  # whoever comes with others comes within a second
        if not self.subscribers:
            return
        if self._to_ask and self.writer is not None and not self._is_behind(self.writer, now):
            to_ask, self._to_ask = self._to_ask, {}
            for subscriber in to_ask:
                subscriber.ask_for_missing()
        if now - self._said_at >= self._settings.keep_alive:
            self._keep_alive(now)

    def want(self) -> None:
        """Have the document stored, because somebody may write to it."""
        if self.writer is None and not self._is_wanted:
            self._is_wanted = True
            self._creator()

    def ask_later(self, subscriber: Subscriber) -> None:
        """Storage could not take what ``subscriber`` brought: ask for it when it can."""
        self._to_ask[subscriber] = None

    def _keep_alive(self, now: datetime) -> None:
        # A step 1 would be answered by everyone, so it is only for when nobody shows anything.
        self._said_at = now
        shown = self.awareness.entries()
        quiet = yjs.awareness(shown) if shown else yjs.sync_step1(self.replica.state())
        for address, room in self._rooms.items():
            # Hocuspocus counts the answers to its changes, and would take the one to a step 1 for one of them.
            message = yjs.PING if address and not shown else address + quiet
            self._hub.publish(room, Frame(message, binary=True))

    # --- the end --------------------------------------------------------------------------------------

    def end(self) -> None:
        """The document was deleted: nobody can use it any more."""
        self.is_gone = self.is_deleted = True
        for subscriber in tuple(self.subscribers):
            subscriber.document_deleted()

    def evict(self) -> None:
        """Nobody uses it any more. It goes at once, instead of when the collector of cycles comes by."""
        self.is_gone = True
        self.writer = None
        self._creator = _nothing

    def _lose(self) -> None:
        _log.error("replica_lost", document=self.name)
        self.is_gone = True
        for subscriber in tuple(self.subscribers):
            subscriber.unavailable()


def _nothing() -> None:
    """What a document that is not open any more asks for."""
