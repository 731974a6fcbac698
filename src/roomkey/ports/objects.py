"""Small objects by their names: what is kept besides sessions and documents, such as keys and the audit log."""

from collections.abc import Mapping, Sequence
from secrets import randbits
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self

MAX_NAME_BYTES: Final = 400
MAX_OBJECT_BYTES: Final = 1024 * 1024
MAX_COMMIT_BYTES: Final = 8 * 1024 * 1024
MAX_CHANGES: Final = 1_000
"""Objects that one commit may change, and ``get_many`` and ``list`` may return."""

SPACES: Final = (
    "access",
    "api-keys",
    "audit",
    "audit-index",
    "audit-trail",
    "keys",
    "patterns",
    "settings",
    "subjects",
    "threats",
    "webhooks",
    "witness",
)
"""Every space that there is, so that all objects can be found by whoever copies or examines a storage."""

ABSENT: Final = 0
"""The revision of an object that does not exist."""


class StoredObject(NamedTuple):
    """
    An object as it is stored.

    ``revision`` is a number without an order: no two changes of one name lead to the same, not even if the object was
    deleted in between.
    """

    revision: int
    value: bytes


class NamedObject(NamedTuple):
    """An object in a list."""

    name: str
    revision: int
    value: bytes


Changes = Mapping[str, bytes | None]
"""New values by name; ``None`` deletes."""

NOTHING_EXPECTED: Final[Mapping[str, int]] = {}


class ObjectStore(Protocol):
    """
    Objects in spaces. What stands in one space can be changed together, and lies together.

    Spaces are those of ``SPACES``. Names have 1 to 400 bytes in UTF-8, without zero bytes, and are compared byte by
    byte; values have at most 1 MiB, and those of one commit 8 MiB. A write that was awaited is durable on a durable
    backend. Usable as an async context manager. All methods raise ``Storage`` when the backend is away or full,
    ``InvalidInput`` for what is beyond these limits, and ``Serialization`` for an object that cannot be read, which a
    ``list`` leaves out.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def get(self, space: str, name: str) -> StoredObject | None:
        """The object, or ``None``."""
        ...

    async def get_many(self, space: str, names: Sequence[str]) -> list[StoredObject | None]:
        """The objects in the order of ``names``, at most ``MAX_CHANGES``."""
        ...

    async def list(self, space: str, *, prefix: str = "", after: str = "", limit: int = 100) -> Sequence[NamedObject]:
        """
        Objects whose names begin with ``prefix`` and come behind ``after``, in the order of their names' bytes.

        Fewer than ``limit`` (at most ``MAX_CHANGES``) only if there are no more.
        """
        ...

    async def commit(self, space: str, changes: Changes, *, expected: Mapping[str, int] = NOTHING_EXPECTED) -> None:
        """
        Make all of ``changes``, or none.

        Args:
            expected: Revisions that objects must have until then, whether or not they are changed; ``ABSENT`` if they
                must not exist.

        Raises:
            Conflict: If one has another; nothing was changed.
            OutcomeUnknown: If it cannot be told whether it was done.
        """
        ...

    async def ping(self) -> None:
        """
        Return if it works.

        Raises:
            Storage: If it does not.
        """
        ...

    def degradations(self) -> Mapping[str, str]:
        """What is wrong, for health; empty while all is well."""
        ...


def new_revision() -> int:
    """A revision for a change: 62 random bits, so that whoever repeats a commit can tell whether it was done."""
    return randbits(62) + 1
