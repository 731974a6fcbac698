"""What a peer may do wrong on a WebSocket, as the close codes of RFC 6455, 7.4."""

from typing import Final

PROTOCOL_ERROR: Final = 1002
NO_CODE: Final = 1005
"""Never sent: what the end of a connection is called when the peer's close frame carried no code."""
NO_CLOSE: Final = 1006
"""Never sent: what the end of a connection is called when there was no close frame."""
INVALID_PAYLOAD: Final = 1007
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011
SERVICE_RESTART: Final = 1012


class Violation(Exception):
    """The peer broke the protocol; the connection fails with ``code``."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def close_payload(code: int, reason: str) -> bytes:
    """The payload of a close frame; the reason is cut to what fits, between characters."""
    # RFC 6455, 5.5: a control frame carries at most 125 bytes, two of them the code.
    return code.to_bytes(2, "big") + reason.encode()[:123].decode(errors="ignore").encode()
