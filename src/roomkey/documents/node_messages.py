"""What nodes say to each other about documents."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from roomkey.domain.session import SessionId
from roomkey.ports import Author, DocumentUpdate
from roomkey.wire.lib0 import AwarenessEntry
from roomkey.wire.node_format import NodeFormat

EVERY_NODE: Final = "\0d"
"""The channel on which all nodes hear of deleted documents, whether they have them open or not."""


def channel_of(document: str) -> str:
    """The channel of the nodes that have ``document`` open. No name begins with a NUL."""
    return EVERY_NODE + document


class SentUpdate(Struct, frozen=True, array_like=True, gc=False):
    """A ``DocumentUpdate`` on its way."""

    data: bytes
    at: datetime
    actor: str
    session: str | None = None
    user: str | None = None
    own: int | None = None

    @classmethod
    def of(cls, update: DocumentUpdate) -> "SentUpdate":
        """To be sent."""
        author = update.author
        return cls(update.data, update.at, author.actor, author.session, author.user, update.own)

    def update(self) -> DocumentUpdate:
        """As it was before it was sent."""
        session = None if self.session is None else SessionId(self.session)
        return DocumentUpdate(self.data, Author(self.actor, session, self.user), self.at, self.own)


class SentEntry(Struct, frozen=True, array_like=True, gc=False):
    """What a Yjs client shows that is connected to the sender, and as whom it is (``Owner.user``)."""

    client: int
    clock: int
    state: bytes
    actor: str

    def entry(self) -> AwarenessEntry:
        """As it was before it was sent."""
        return AwarenessEntry(self.client, self.clock, self.state)


class Appended(Struct, frozen=True, tag="appended"):
    """These updates are in the log, behind number ``after``."""

    lineage: str
    after: int
    updates: Sequence[SentUpdate]


class Grown(Struct, frozen=True, tag="grown"):
    """The log has come to number ``head``; what is new is to be read there."""

    lineage: str
    head: int


class Deleted(Struct, frozen=True, tag="deleted"):
    """The document is deleted. ``clients`` are those whose copies must not get into another one of its name."""

    name: str
    lineage: str
    clients: Sequence[int]


class Shown(Struct, frozen=True, tag="shown"):
    """What clients show now that are connected to the sender, or that they are gone."""

    entries: Sequence[SentEntry]


class Asked(Struct, frozen=True, tag="asked"):
    """The sender wants to know what is shown."""


class Reminded(Struct, frozen=True, tag="reminded"):
    """Clients of other nodes are to show themselves anew: the sender, or one of its clients, takes them for gone."""

    clients: Sequence[int]


Message = Appended | Grown | Deleted | Shown | Asked | Reminded

MESSAGES: Final = NodeFormat[Message](Message)
