"""
What a connection missed of its documents while its socket was full, sent as one update per document.

And what it asked for meanwhile: an answer may be a million times as long as the question, so it is only made
when the socket has room for it, and only one at a time.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from roomkey.documents.document import Document
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.wire import lib0
from roomkey.wire.frame import Frame


class Place(Protocol):
    """Where a connection is: a document, and the address that stands in front of its messages."""

    address: bytes
    document: Document

    def answer(self, state: bytes) -> Frame:
        """What is missing where the state vector is ``state``."""
        ...


class MergedBacklog:
    """The ``Backlog`` of one connection: of each of its documents, what it had when its socket filled up."""

    __slots__ = ("_asked", "_places", "_seen", "_size")

    def __init__(self, places: Callable[[], Sequence[Place]]) -> None:
        self._places = places
        self._seen: dict[bytes, bytes] = {}
        self._asked: dict[bytes, bytes] = {}
        self._size = 0

    def begin(self) -> None:
        """Remember what the connection has."""
        self._seen = {place.address: place.document.replica.state() for place in self._places()}
        self._asked = {address: state for address, state in self._asked.items() if address in self._seen}
        self._size = 0

    def missed(self, size: int) -> None:
        """Count what was not sent to it."""
        self._size += size

    def ask(self, address: bytes, state: bytes) -> None:
        """The client has what ``state`` says of a document, and wants the rest. Its last question counts."""
        self._asked[address] = state

    def is_hopeless(self, limit: int) -> bool:
        """Whether what it lacks, merged, is more than ``limit`` bytes. What it asked for does not count."""
        if self._size <= limit:
            return False
        self._size = sum(len(update) for _, _, update in self._lacking())
        return self._size > limit

    def make_up(self) -> Sequence[Frame]:
        """The answer to one question, or one update with everything that it lacks."""
        for place in self._places():
            if (state := self._asked.pop(place.address, None)) is not None:
                self._seen[place.address] = place.document.replica.state()
                return [place.answer(state)]
        if not self._size:
            return ()
        frames: list[Frame] = []
        for address, document, update in self._lacking():
            if update != lib0.EMPTY_UPDATE:
                frames.append(Frame(address + yjs.update(update), binary=True))
            if news := document.awareness.news():
                frames.append(Frame(address + yjs.awareness(news), binary=True))
        self.begin()
        return frames

    def _lacking(self) -> list[tuple[bytes, Document, bytes]]:
        # Who comes into a document while it is behind has nothing of it, and asks.
        return [
            (
                place.address,
                place.document,
                place.document.replica.since(self._seen.get(place.address, lib0.EMPTY_STATE)),
            )
            for place in self._places()
            if place.address not in self._asked
        ]
