"""Who decides what sessions may do in documents, as doors and sockets ask."""

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from roomkey.domain.access import Access, access_to
from roomkey.domain.session import Session

Authorize = Callable[[Session, str], Access | str | Awaitable[Access | str | None] | None]
"""
The application's part: what the session may do in the document of this name; ``None`` is nothing.

It is called again and again, on the loop: what has to wait is written as a coroutine. It never gets a token to see.
"""


class AccessDecisions(Protocol):
    """
    What sessions may do in documents: what their grants and the application both allow.

    Doors ``decide``; sockets that are inside, and frames, read what ``access`` remembers.
    """

    def is_fresh(self, session: Session, document: str) -> bool:
        """Whether ``decide`` would answer from memory."""
        ...

    def access(self, session: Session, document: str) -> Access | None:
        """The access as far as it is remembered; ``None`` if nothing is. Never waits."""
        ...

    async def decide(self, session: Session, document: str) -> Access | None:
        """
        The access; the application is asked if its answer is not remembered, or too old.

        Raises:
            AccessUnknown: If it gives none, and none that may still be used is remembered.
        """
        ...


class GrantsAlone:
    """The ``AccessDecisions`` where no application has a say."""

    def is_fresh(self, session: Session, document: str) -> bool:  # noqa: ARG002
        """Always: grants come with the session."""
        return True

    def access(self, session: Session, document: str) -> Access | None:
        """What the grants say."""
        return access_to(document, session.grants)

    async def decide(self, session: Session, document: str) -> Access | None:
        """What the grants say."""
        return access_to(document, session.grants)


GRANTS_ALONE: Final = GrantsAlone()
