"""Who decides what sessions may do in documents, as doors and sockets ask."""

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from roomkey.domain.access import Access, Grants, access_to, groups_of, no_groups
from roomkey.domain.session import Session
from roomkey.errors import AccessUnknown, Storage

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


class KnownGroups(Protocol):
    """The grants of groups, which the grants of sessions name."""

    @property
    def is_known(self) -> bool:
        """Whether ``of`` knows of any; until then it says that there is no group."""
        ...

    def of(self, name: str) -> Grants:
        """The grants of the group now; none if there is no such group. Never waits."""
        ...

    async def know(self) -> None:
        """
        Return when they are known.

        Raises:
            Storage: If they cannot be read.
        """
        ...


class NoGroups:
    """The ``KnownGroups`` where there are none."""

    is_known = True

    def of(self, name: str) -> Grants:
        """None."""
        return no_groups(name)

    async def know(self) -> None:
        """They are known."""


NO_GROUPS: Final = NoGroups()


class GrantsAlone:
    """The ``AccessDecisions`` where no application has a say."""

    def __init__(self, groups: KnownGroups = NO_GROUPS) -> None:
        self._groups = groups
        self._of = groups.of

    def is_fresh(self, session: Session, document: str) -> bool:  # noqa: ARG002
        """Grants come with the session; what groups have, the node has to know."""
        return self._groups.is_known or not groups_of(session.grants)

    def access(self, session: Session, document: str) -> Access | None:
        """What the grants say."""
        return access_to(document, session.grants, self._of)

    async def decide(self, session: Session, document: str) -> Access | None:
        """What the grants say."""
        await granting(self._groups, session)
        return access_to(document, session.grants, self._of)


async def granting(groups: KnownGroups, session: Session) -> None:
    """
    Return when it is known what the session's grants say.

    Raises:
        AccessUnknown: If that depends on groups that cannot be read now.
    """
    if groups.is_known or not groups_of(session.grants):
        return
    try:
        await groups.know()
    except Storage:
        raise AccessUnknown("the groups that the session's grants name cannot be read now") from None


GRANTS_ALONE: Final = GrantsAlone()
