"""The port of what keeps the key-encryption key, which no storage of ours ever sees."""

from typing import NamedTuple, Protocol


class WrappedKey(NamedTuple):
    """A key as it may lie in a storage. ``wrapped_by`` is the id of the key-encryption key, which is not secret."""

    wrapped_by: str
    wrapped: bytes


class KeyRing(Protocol):
    """
    Wraps keys of 32 bytes, and unwraps them.

    A wrapped key is bound to its ``place``, where the technology can do that: both ways are given the same.
    """

    @property
    def id(self) -> str:
        """What names the key-encryption key to people: it is stored beside what is wrapped, and is no secret."""
        ...

    async def wrap(self, key: bytes, place: bytes) -> WrappedKey:
        """
        ``key`` in a form that may be stored.

        Raises:
            Storage: If what keeps the key-encryption key is away or refuses; trying again may help.
        """
        ...

    async def unwrap(self, key: WrappedKey, place: bytes) -> bytes:
        """
        The key that was wrapped.

        Raises:
            ConfigurationError: If this is not the key-encryption key that wrapped it, or it was altered. The message
                names both ids.
            Storage: As ``wrap``.
        """
        ...
