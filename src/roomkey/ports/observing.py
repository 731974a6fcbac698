"""Observers: who is told what happens to documents and who is in them. They are asked to note what must not be lost."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Final, Literal, Protocol

from msgspec import Struct

from roomkey.domain.session import Session, SessionId
from roomkey.ports.documents import Append, Author


class Deed(Struct, kw_only=True):
    """
    Something that is about to be done to a document: whoever does it sets ``is_done``, and what was not known before.

    ``number`` and ``label`` are those of a kept version.
    """

    kind: Literal["created", "deleted", "kept"]
    document: str
    lineage: str
    author: Author
    at: datetime
    version: int = 0
    number: int = 0
    label: str | None = None
    is_done: bool = False


class DocumentObserver(Protocol):
    """
    Who observes the documents of a node. Nothing here raises.

    Where something is entered, it was noted when the block begins, so that it is told even if the process is killed in
    the block; while the notes cannot be written, documents go on without.
    """

    def saving(self, names: Sequence[str]) -> AbstractAsyncContextManager[None]:
        """Changes of these documents are stored inside of the block."""
        ...

    def saved(self, append: Append, head: int) -> None:
        """This was stored inside of such a block; the last of it has number ``head``."""
        ...

    def doing(self, deed: Deed) -> AbstractAsyncContextManager[None]:
        """The deed is done inside of the block, or not."""
        ...


class PresenceObserver(Protocol):
    """Who observes which sessions are in documents by way of this node. Nothing here waits, nothing here raises."""

    def entered(self, document: str, session: Session, at: datetime) -> None:
        """The first connection of the session is in the document."""
        ...

    def left(self, document: str, session: SessionId, user: str, at: datetime) -> None:
        """The last one of the user's session is not any more."""
        ...


class _Nobody:
    @asynccontextmanager
    async def saving(self, names: Sequence[str]) -> AsyncGenerator[None]:  # noqa: ARG002
        yield

    def saved(self, append: Append, head: int) -> None: ...

    @asynccontextmanager
    async def doing(self, deed: Deed) -> AsyncGenerator[None]:  # noqa: ARG002
        yield


UNOBSERVED: Final[DocumentObserver] = _Nobody()
"""Documents that nobody observes."""
