"""Where a live document stands, and what the end of a connection means for it: rules without input or output."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct

from roomkey.wire.close import CloseCode, CloseReason


class State(StrEnum):
    """
    What somebody who has a document open should be shown.

    ``REMOVED`` and ``EXPIRED`` are final. In every other state the connection comes back by itself.
    """

    CONNECTING = "connecting"
    ACTIVE = "active"
    READONLY = "readonly"
    """Changes of others arrive; one's own are refused."""
    SUSPENDED = "suspended"
    """No access for now; it goes on when the session is resumed or activated."""
    OFFLINE = "offline"
    """The server cannot be reached. Changes are kept, and sent when it can be."""
    EXPIRED = "expired"
    """The session is over, or its token was replaced, and there was no newer token to go on with."""
    REMOVED = "removed"
    """The session was ended on purpose, has no right to the document, or the document is gone."""


class Ending(Struct, frozen=True):
    """
    What the end of a connection, or a refused one, means.

    ``reason`` is the stable code, ``cause`` what an operator wrote. ``renews``: with a newer token it may go on.
    """

    state: State
    reason: str = ""
    cause: str = ""
    renews: bool = False

    @property
    def is_final(self) -> bool:
        """Whether connecting again with the same token is pointless."""
        return self.state in (State.EXPIRED, State.REMOVED)


_SUSPENDED: Final = frozenset({CloseReason.SESSION_SUSPENDED, CloseReason.SESSION_PENDING})
_RENEWABLE: Final = frozenset({CloseReason.SESSION_EXPIRED, CloseReason.TOKEN_ROTATED})
_FINAL: Final = frozenset(
    {
        CloseReason.SESSION_INVALIDATED,
        CloseReason.TOKEN_REUSED,
        CloseReason.INVALID_TOKEN,
        CloseReason.CREDENTIALS_MISSING,
        CloseReason.FORBIDDEN,
        CloseReason.INVALID_DOCUMENT_NAME,
        CloseReason.MALFORMED,
        CloseReason.FORGED,
        CloseReason.DOCUMENT_DELETED,
        CloseReason.LINEAGE_MISMATCH,
        CloseReason.DISCONNECTED,
    }
)
_OF_CODES: Final[Mapping[int, State]] = {
    CloseCode.UNAUTHENTICATED: State.REMOVED,
    CloseCode.FORBIDDEN: State.REMOVED,
    CloseCode.GONE: State.REMOVED,
    CloseCode.DISCONNECTED: State.REMOVED,
    CloseCode.MALFORMED: State.REMOVED,
    CloseCode.RESET: State.REMOVED,
    CloseCode.SUSPENDED: State.SUSPENDED,
    CloseCode.ON_HOLD: State.SUSPENDED,
}
"""For reasons that a newer server may have."""


def ending_of(code: int, text: str) -> Ending:
    """
    What a close frame means, or a refused handshake, whose problem's ``code`` is the ``text`` then.

    A ``text`` is the stable code and behind ``": "`` what an operator wrote. A code that nobody knows means: try again.
    """
    reason, _, cause = text.partition(": ")
    if reason in _SUSPENDED:
        return Ending(State.SUSPENDED, reason, cause)
    if reason in _RENEWABLE:
        return Ending(State.EXPIRED, reason, cause, renews=True)
    if reason in _FINAL:
        return Ending(State.REMOVED, reason, cause)
    return Ending(_OF_CODES.get(code, State.OFFLINE), reason, cause)
