"""
Moving house: what a store hands over as it lies there, and takes in as it lay elsewhere.

The ports of sessions and documents do things to them; these hand over what was done. What makes sense only where it
is stays there: tickets, answers, leases and fencing tokens, and the figures of what has been.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

from msgspec import Struct

from roomkey.domain.session import AnyEvent, Session, SessionId
from roomkey.ports.documents import DocumentStore, DocumentVersion, StoredDocument
from roomkey.ports.stores import Secret, SessionStorage

# --- sessions -----------------------------------------------------------------------------------------


class SessionItem(Struct, frozen=True, gc=False):
    """
    A session as it is stored, which may be live though its user was revoked.

    ``epoch`` is the one that its user had when it was issued, or when it was kept in a revocation. ``ended_at`` is
    the moment of its last event if it has ended, by which ``ended_before`` finds it; otherwise ``None``.
    """

    session: Session
    secret: Secret
    epoch: int
    ended_at: datetime | None


class EpochItem(Struct, frozen=True, gc=False):
    """The epoch of a user who was revoked once or more."""

    user: str
    epoch: int


class CheckpointItem(Struct, frozen=True, gc=False):
    """How far a consumer has dealt with the log of a partition, see ``Checkpoints``."""

    consumer: str
    partition: int
    sequence: int


class LogStart(Struct, frozen=True, gc=False):
    """The log of a partition has no events up to number ``after`` any more."""

    after: int


class EventItem(Struct, frozen=True, gc=False):
    """An event and its number in the log of its partition."""

    sequence: int
    event: AnyEvent


class Gone(Struct, frozen=True, gc=False):
    """There is no such session any more. Its events say why; this is no event."""

    session: SessionId


class Unreadable(Struct, frozen=True, gc=False):
    """A record that is damaged. ``key`` names what it is of, and shows nothing of it."""

    key: str


PartitionItem = SessionItem | EpochItem | LogStart | EventItem | Gone


@runtime_checkable
class MovableSessions(SessionStorage, Protocol):
    """
    A storage of sessions that can be copied, record by record.

    Exports are for somebody who reads all of it while others write: each batch is from one moment, and whatever is
    there all the time comes once. Events need no export: ``events`` and ``heads`` have them.
    """

    def export_sessions(self, partition: int) -> AsyncIterator[Sequence[SessionItem | Unreadable]]:
        """The sessions of a partition, the one that their ids name, in batches of at most a thousand."""
        ...

    def export_epochs(self) -> AsyncIterator[Sequence[EpochItem | Unreadable]]:
        """The epochs of all users, in any order."""
        ...

    def export_checkpoints(self) -> AsyncIterator[Sequence[CheckpointItem]]:
        """The checkpoints of all consumers, in any order; none if it keeps none."""
        ...

    async def take_in(self, partition: int, items: Sequence[PartitionItem]) -> None:
        """
        Let the items, all of which belong to ``partition``, be there as they were elsewhere. No event tells of it.

        They are taken in order, each as a whole and at most a thousand at once; durable when this returns. An item
        that was taken in before changes nothing, so any call may be repeated:

        - a ``SessionItem`` is stored with everything that finds it, or takes the place of an older one of its id, as
          ``backends.taking_in.succeeds`` decides; its state is counted, its creation and its end are not;
        - an ``EpochItem`` raises the user's epoch;
        - a ``LogStart`` forgets the events up to its number; if the log ends before, it goes on behind that number;
        - an ``EventItem`` is appended if the log ends just before it;
        - a ``Gone`` removes the session from everywhere, if it is there.

        Raises:
            Conflict: If something else is there already: a session that is newer or another one, a higher epoch,
                another event of that number, or a log that ends elsewhere. What stands before it was taken in.
        """
        ...

    async def take_in_checkpoints(self, items: Sequence[CheckpointItem]) -> None:
        """Save the checkpoints, whatever was saved before; a storage that keeps none does nothing."""
        ...


# --- documents ----------------------------------------------------------------------------------------


class DocumentItem(Struct, frozen=True, gc=False):
    """A whole document without its versions. ``last_version`` is the highest number that one was ever given."""

    stored: StoredDocument
    last_version: int


class VersionItem(Struct, frozen=True, gc=False):
    """A version of a document, with its content."""

    name: str
    lineage: str
    version: DocumentVersion
    content: bytes


class GraveItem(Struct, frozen=True, gc=False):
    """
    A document that was deleted. ``digest`` is ``backends.document_keys.grave_digest`` of its name and lineage.

    ``name`` is ``None`` where only the digest was kept.
    """

    digest: bytes
    name: str | None


@runtime_checkable
class MovableDocuments(DocumentStore, Protocol):
    """A store of documents that can be copied. ``list``, ``load``, ``versions`` and ``version`` hand over most."""

    async def last_version(self, name: str, lineage: str) -> int:
        """
        The highest number that a version of the document was ever given; 0 if none was.

        Raises:
            NotFound, Conflict: As ``append``.
        """
        ...

    def export_graves(self) -> AsyncIterator[Sequence[GraveItem]]:
        """All documents that were deleted, in any order, in batches of at most a thousand."""
        ...

    async def take_in(self, item: DocumentItem | VersionItem | GraveItem) -> None:
        """
        Let a document, a version or a grave be there as it was elsewhere; durable when this returns.

        What was taken in before changes nothing, so any call may be repeated:

        - a ``DocumentItem`` takes the place of what is there of its lineage, its versions apart; fencing tokens are
          those of another store, so the document has none;
        - a ``VersionItem`` becomes a version of the document of its lineage, under its number;
        - a ``GraveItem`` makes ``create`` refuse its lineage; a store that needs the name for that ignores one without.

        Raises:
            NotFound: If there is no document that a version could belong to.
            Conflict: If something else is there already: a document of another lineage, one that has more updates or
                has given higher numbers to versions, or the grave of its lineage; another version of that number.
        """
        ...
