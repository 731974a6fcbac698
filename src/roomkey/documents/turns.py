"""What must be done once per document, whichever node does it: a lease in the storage that nodes share."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from hashlib import sha256
from typing import Final

from msgspec import Struct

from roomkey.ports import Leases

LIFETIME: Final = timedelta(seconds=30)
"""After so long another node may begin. Whoever is still at it then writes nothing: the document knows the token."""

MAX_NAME_BYTES: Final = 500
"""Of the name of a lease."""


class Turn(Struct, frozen=True):
    """It is this node's turn. What it writes is written under ``fence``, if there are other nodes."""

    fence: int | None


class Turns:
    """Whose turn it is with a document; always this node's, where there are no ``leases``."""

    def __init__(self, leases: Leases | None, node: str) -> None:
        self._leases = leases
        self._node = node

    @asynccontextmanager
    async def at(self, document: str) -> AsyncGenerator[Turn | None]:
        """
        The turn of this node at ``document`` until this is left; ``None`` if another node is at it.

        Raises:
            Storage: If that cannot be found out.
        """
        if self._leases is None:
            yield Turn(None)
            return
        name = lease_name(document)
        token = await self._leases.acquire(name, self._node, LIFETIME)
        if token is None:
            yield None
            return
        try:
            yield Turn(token)
        finally:
            await self._leases.release(name, token)


def lease_name(document: str) -> str:
    """The name of the lease of a document."""
    name = f"document/{document}"
    encoded = name.encode("utf-8", "surrogatepass")
    return name if len(encoded) <= MAX_NAME_BYTES else f"document-by-hash/{sha256(encoded).hexdigest()}"
