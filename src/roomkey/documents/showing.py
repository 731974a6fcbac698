"""What the Yjs clients of a document show of themselves, told from node to node: nobody stays who is gone."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from roomkey.documents.crdt.awareness import OtherNode, Owner
from roomkey.documents.crdt.identity import Source
from roomkey.documents.document import Document
from roomkey.documents.node_messages import Asked, Message, Reminded, SentEntry, Shown
from roomkey.wire.lib0 import AwarenessEntry

ANSWER_WITHIN: Final = timedelta(seconds=5)
"""After messages were missed: who is not confirmed by then is taken for gone, and would show itself anew."""

MAX_SHOWN_BYTES: Final = 256 * 1024
"""Of the states in one message."""

USER: Final = "user:"
"""What the actor of a user begins with."""


class Showing:
    """
    The awareness of one document between nodes.

    A node speaks for the clients that are connected to it. What it says is taken as long as the client is not bound to
    somebody else, and goes with the node.
    """

    def __init__(self, tell: Callable[[Message], None]) -> None:
        self._tell = tell
        self._document: Document | None = None
        self._to_show: dict[int, AwarenessEntry] = {}
        self._is_asked = False
        self._timer: asyncio.Handle | None = None
        self._sources: dict[tuple[str, str], Source] = {}
        self._doubted: dict[int, str] = {}
        self._doubted_until: datetime | None = None

    def belong_to(self, document: Document) -> None:
        """Be about this document, which is loaded."""
        self._document = document
        self._sources.clear()

    def close(self) -> None:
        """The document is not open any more."""
        self._document = None
        if self._timer is not None:
            self._timer.cancel()

    # --- telling --------------------------------------------------------------------------------------

    def show(self, entries: Sequence[AwarenessEntry]) -> None:
        """Tell the others of these, at the end of the tick: the newest of each client."""
        self._to_show.update((entry.client, entry) for entry in entries)
        self._soon()

    def answer(self) -> None:
        """Tell the others of all clients that are connected here."""
        self._is_asked = True
        self._soon()

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_soon(self._say)

    def _say(self) -> None:
        self._timer = None
        document = self._document
        if document is None:
            return
        entries, self._to_show = self._to_show, {}
        if self._is_asked:
            self._is_asked = False
            for entry, owner in document.awareness.owned():
                if not isinstance(owner.connection, OtherNode):
                    entries[entry.client] = entry
        size, said = 0, list[SentEntry]()
        for entry in entries.values():
            owner = document.awareness.owner(entry.client)
            said.append(SentEntry(entry.client, entry.clock, entry.state, "" if owner is None else owner.user))
            size += len(entry.state)
            if size > MAX_SHOWN_BYTES:
                self._tell(Shown(said))
                size, said = 0, []
        if said:
            self._tell(Shown(said))

    # --- hearing --------------------------------------------------------------------------------------

    def take(self, entries: Sequence[SentEntry], node: str, now: datetime) -> None:
        """What another node shows."""
        document = self._document
        if document is None:
            return
        news: list[AwarenessEntry] = []
        left: list[int] = []
        for sent in entries:
            entry, owner = sent.entry(), Owner(OtherNode(node), sent.actor)
            if not entry.is_gone and not self._may_be(document, sent, now):
                continue
            if self._doubted.get(entry.client) == node:
                del self._doubted[entry.client]
            outcome = document.awareness.apply([entry], owner)
            news += outcome.news
            left += [reminder.client for reminder in outcome.reminders]
            if outcome.news:
                self._hold(document, sent, node)
        document.shown_elsewhere(news, now)
        if left:
            self._tell(Reminded(left))

    def _may_be(self, document: Document, sent: SentEntry, now: datetime) -> bool:
        """Whether the client can be this user. To whom it is bound says the log, which all nodes read."""
        bound = document.replica.identities.owner(sent.client)
        if bound is None or not bound.firm:
            return True
        if bound.user is None or sent.actor != USER + bound.user:
            return False
        shown = document.awareness.owner(sent.client)
        if shown is not None and shown.user != sent.actor:
            # Somebody else was faster here than the log. The owner is asked to show itself anew, behind that.
            document.shown_elsewhere(document.awareness.remove([sent.client]), now)
        return True

    def _hold(self, document: Document, sent: SentEntry, node: str) -> None:
        identities, key = document.replica.identities, (node, sent.actor)
        if sent.entry().is_gone:
            for (of, _), source in self._sources.items():
                if of == node:
                    identities.release(sent.client, source)
        elif sent.actor.startswith(USER):
            source = self._sources.get(key)
            if source is None:
                source = self._sources[key] = Source(sent.actor.removeprefix(USER))
                source.is_open = True
            if sent.client not in source.clients:
                identities.introduce(sent.client, source)

    # --- going ----------------------------------------------------------------------------------------

    def drop(self, nodes: Sequence[str], now: datetime) -> None:
        """
        These nodes are gone, and whoever was connected to them.

        Perhaps they were only taken for dead, because it was lost who lives: then they have their clients show
        themselves anew, behind what is said here of their end.
        """
        document = self._document
        if document is None:
            return
        for node in nodes:
            gone = document.awareness.leave(OtherNode(node))
            document.shown_elsewhere(gone, now)
            if gone:
                self._tell(Reminded([entry.client for entry in gone]))
            for key in [key for key in self._sources if key[0] == node]:
                document.replica.identities.leave(self._sources.pop(key))

    def doubt(self, now: datetime) -> None:
        """Something may have been missed: ask anew, and believe nothing that nobody confirms."""
        document = self._document
        if document is None:
            return
        self._doubted = {
            entry.client: owner.connection.node
            for entry, owner in document.awareness.owned()
            if isinstance(owner.connection, OtherNode)
        }
        self._doubted_until = now + ANSWER_WITHIN
        self._tell(Asked())
        self.answer()  # what was said here may have been missed there

    def tick(self, now: datetime) -> None:
        """A moment has passed."""
        if self._doubted_until is None or now < self._doubted_until:
            return
        doubted, self._doubted, self._doubted_until = self._doubted, {}, None
        document = self._document
        if document is not None and doubted:
            clients = [
                client
                for client, node in doubted.items()
                if (owner := document.awareness.owner(client)) is not None and owner.connection == OtherNode(node)
            ]
            for client in clients:
                for source in self._sources.values():
                    document.replica.identities.release(client, source)
            document.shown_elsewhere(document.awareness.remove(clients), now)
