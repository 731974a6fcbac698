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
    """The session's time is over, or its token is good no more, and there was no other token to go on with."""
    REMOVED = "removed"
    """The session was ended on purpose, has no right to the document, or the document is gone."""


class Ending(Struct, frozen=True):
    """
    What the end of a connection, or a refused one, means.

    ``code`` is the stable word for why, ``reason`` what an operator wrote. ``renews``: with another token it may go on.
    """

    state: State
    code: str = ""
    reason: str = ""
    renews: bool = False

    @property
    def is_final(self) -> bool:
        """Whether connecting again with the same token is pointless."""
        return self.state in (State.EXPIRED, State.REMOVED)


_SUSPENDED: Final = frozenset({CloseReason.SESSION_SUSPENDED, CloseReason.SESSION_PENDING})
_RENEWABLE: Final = frozenset(
    {
        CloseReason.SESSION_EXPIRED,
        CloseReason.TOKEN_ROTATED,
        CloseReason.TOKEN_REUSED,
        CloseReason.INVALID_TOKEN,
        CloseReason.CREDENTIALS_MISSING,
    }
)
"""Whoever has another token, of this session or of a new one, goes on. What was ended on purpose is not among them."""

_FINAL: Final = frozenset(
    {
        CloseReason.SESSION_INVALIDATED,
        CloseReason.FORBIDDEN,
        CloseReason.INVALID_DOCUMENT_NAME,
        CloseReason.MALFORMED,
        CloseReason.FORGED,
        CloseReason.DOCUMENT_DELETED,
        CloseReason.LINEAGE_MISMATCH,
        CloseReason.DISCONNECTED,
    }
)
_OF_CLOSE_CODES: Final[Mapping[int, State]] = {
    CloseCode.UNAUTHENTICATED: State.EXPIRED,
    CloseCode.FORBIDDEN: State.REMOVED,
    CloseCode.GONE: State.REMOVED,
    CloseCode.DISCONNECTED: State.REMOVED,
    CloseCode.MALFORMED: State.REMOVED,
    CloseCode.RESET: State.REMOVED,
    CloseCode.SUSPENDED: State.SUSPENDED,
    CloseCode.ON_HOLD: State.SUSPENDED,
}
"""For words that a newer server may have."""


def ending_of(close_code: int, text: str) -> Ending:
    """
    What a close frame means, or a refused handshake, whose problem's ``code`` is the ``text`` then.

    A ``text`` is the stable word and behind ``": "`` what an operator wrote. What nobody knows means: try again.
    """
    code, _, reason = text.partition(": ")
    if code in _SUSPENDED:
        state = State.SUSPENDED
    elif code in _RENEWABLE:
        state = State.EXPIRED
    elif code in _FINAL:
        state = State.REMOVED
    else:
        state = _OF_CLOSE_CODES.get(close_code, State.OFFLINE)
    return Ending(state, code, reason, renews=state is State.EXPIRED)
