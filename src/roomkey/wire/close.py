"""How connections end: close codes, their stable reasons, and violations of the protocol."""

from enum import IntEnum, StrEnum
from typing import Final


class CloseCode(IntEnum):
    """Why a connection is closed (RFC 6455, 7.4; 4000 and above are ours)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED = 1003
    NO_CODE = 1005
    """Never sent: what the end of a connection is called when the peer's close frame carried no code."""
    NO_CLOSE = 1006
    """Never sent: what the end of a connection is called when there was no close frame."""
    INVALID_PAYLOAD = 1007
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    RESTART = 1012
    OVERLOADED = 1013
    RESET = 4205
    """A code of Hocuspocus: the client's copy is of another history or not trusted; it may reconnect without it."""
    MALFORMED = 4400
    UNAUTHENTICATED = 4401
    FORBIDDEN = 4403
    TIMEOUT = 4408
    GONE = 4410
    """The document was deleted: a client that reconnected with its copy would bring it back."""
    DISCONNECTED = 4420
    """
    Somebody wanted the client out, who took no right from it: it may come back when its user wants that.

    Between 4400 and 4499, so that y-websocket does not come back by itself the moment after.
    """
    SUSPENDED = 4423
    LIMITS_IGNORED = 4429
    ON_HOLD = 4503
    """
    What 4423 is to clients that go by the code alone: they are to come back by themselves, until it is over.

    y-websocket takes 4400 to 4499 as final, and 4500 to 4599 as the matching "try again later".
    """


class CloseReason(StrEnum):
    """The stable codes in close reasons: the one with 4401 says whether new credentials help."""

    SESSION_EXPIRED = "session_expired"
    """4401. The session expired: with a new token the client may reconnect at once. It could have been refreshed."""
    SESSION_INVALIDATED = "session_invalidated"
    """4401. The session was ended on purpose: the user must sign in again."""
    TOKEN_ROTATED = "token_rotated"  # noqa: S105  # a reason, not a secret
    """4401. The client came with a token that has been replaced: with the new one it may reconnect at once."""
    SESSION_SUSPENDED = "session_suspended"
    SESSION_PENDING = "session_pending"
    """4423. The session was not activated yet."""
    INVALID_TOKEN = "invalid_token"  # noqa: S105  # a code, not a secret
    """4401. No session answers to the credential; perhaps its record is gone."""
    TOKEN_REUSED = "token_reused"  # noqa: S105
    """4401. Two parties had tokens of the session, so it was ended: the user must sign in again."""
    CREDENTIALS_MISSING = "credentials_missing"
    """4401. The handshake had no credential."""
    INVALID_DOCUMENT_NAME = "invalid_document_name"
    """4400. There can be no document of that name."""
    MALFORMED = "malformed"
    FORGED = "forged"
    """4400. A change spoke for a Yjs client of somebody else."""
    FORBIDDEN = "forbidden"
    LIMITS_IGNORED = "limits_ignored"
    TOO_SLOW = "too_slow"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    DRAINING = "draining"
    NO_HEARTBEAT = "no_heartbeat"
    NOT_OPENED = "not_opened"
    TEXT_ONLY = "text_only"
    BINARY_ONLY = "binary_only"
    TOO_FAST = "too_fast"
    NOT_AUTHENTICATED = "not_authenticated"
    """4408. A Hocuspocus socket sent no valid token in time."""
    BAD_TOKENS = "bad_tokens"
    """4401. A Hocuspocus socket sent too many invalid tokens."""
    QUEUE_FULL = "queue_full"
    """4205. A Hocuspocus socket sent more before its token than may wait for it."""
    LINEAGE_MISMATCH = "lineage_mismatch"
    """4205. The client's copy is of another history of the document: it must not be merged."""
    STORAGE_LOST = "storage_lost"
    """1013. Storage has lost the document, and an operator has to decide: the client keeps its copy, and comes back."""
    DOCUMENT_DELETED = "document_deleted"
    """4410. The document was deleted, and may be another one by now."""
    DISCONNECTED = "disconnected"
    """4420. Somebody has disconnected the session; it is as good as before."""


CLOSE_CODES: Final[dict[CloseReason, CloseCode]] = {
    CloseReason.SESSION_EXPIRED: CloseCode.UNAUTHENTICATED,
    CloseReason.SESSION_INVALIDATED: CloseCode.UNAUTHENTICATED,
    CloseReason.TOKEN_ROTATED: CloseCode.UNAUTHENTICATED,
    CloseReason.SESSION_SUSPENDED: CloseCode.SUSPENDED,
    CloseReason.SESSION_PENDING: CloseCode.SUSPENDED,
    CloseReason.INVALID_TOKEN: CloseCode.UNAUTHENTICATED,
    CloseReason.TOKEN_REUSED: CloseCode.UNAUTHENTICATED,
    CloseReason.CREDENTIALS_MISSING: CloseCode.UNAUTHENTICATED,
    CloseReason.INVALID_DOCUMENT_NAME: CloseCode.MALFORMED,
    CloseReason.MALFORMED: CloseCode.MALFORMED,
    CloseReason.FORGED: CloseCode.MALFORMED,
    CloseReason.FORBIDDEN: CloseCode.FORBIDDEN,
    CloseReason.LIMITS_IGNORED: CloseCode.LIMITS_IGNORED,
    CloseReason.TOO_SLOW: CloseCode.OVERLOADED,
    CloseReason.OVERLOADED: CloseCode.OVERLOADED,
    CloseReason.UNAVAILABLE: CloseCode.OVERLOADED,
    CloseReason.DRAINING: CloseCode.RESTART,
    CloseReason.NO_HEARTBEAT: CloseCode.TIMEOUT,
    CloseReason.NOT_OPENED: CloseCode.TIMEOUT,
    CloseReason.TEXT_ONLY: CloseCode.UNSUPPORTED,
    CloseReason.BINARY_ONLY: CloseCode.UNSUPPORTED,
    CloseReason.TOO_FAST: CloseCode.OVERLOADED,
    CloseReason.NOT_AUTHENTICATED: CloseCode.TIMEOUT,
    CloseReason.BAD_TOKENS: CloseCode.UNAUTHENTICATED,
    CloseReason.QUEUE_FULL: CloseCode.RESET,
    CloseReason.LINEAGE_MISMATCH: CloseCode.RESET,
    CloseReason.STORAGE_LOST: CloseCode.OVERLOADED,
    CloseReason.DOCUMENT_DELETED: CloseCode.GONE,
    CloseReason.DISCONNECTED: CloseCode.DISCONNECTED,
}
"""Which code a reason stands with."""

STOCK_CLOSE_CODES: Final[dict[CloseReason, CloseCode]] = {
    reason: CloseCode.ON_HOLD if code is CloseCode.SUSPENDED else code for reason, code in CLOSE_CODES.items()
}
"""The same for the Yjs protocols, whose clients are not ours and know nothing of 4423."""


class Violation(Exception):
    """The peer broke the protocol; the connection fails with ``code``."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


MAX_REASON_BYTES: Final = 123
"""RFC 6455, 5.5: a control frame carries at most 125 bytes, two of them the code."""


_ON_PURPOSE: Final = frozenset(
    {CloseReason.SESSION_INVALIDATED, CloseReason.SESSION_SUSPENDED, CloseReason.DISCONNECTED, CloseReason.FORBIDDEN}
)


def close_text(reason: str, cause: str | None = None) -> str:
    """
    What a client is told about its end: the stable code, and behind ``": "`` the reason that an operator gave, if any.

    Only what somebody did on purpose has such a reason. They may have written anything: what is not printable becomes
    a space, and it is cut to what fits.
    """
    if cause is None or reason not in _ON_PURPOSE:
        return str(reason)
    words = "".join(character if character.isprintable() else " " for character in cause).split()
    return _cut(f"{reason}: {' '.join(words)}") if words else str(reason)


def close_payload(code: int, reason: str) -> bytes:
    """The payload of a close frame; the reason is cut to what fits, between characters."""
    return code.to_bytes(2, "big") + _cut(reason).encode()


def _cut(text: str) -> str:
    return text.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")
