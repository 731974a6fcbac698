"""Asking the handshake handler, within bounds of time and number, and what is answered in its place."""

import asyncio
from collections import Counter
from http import HTTPStatus

import structlog

from roomkey import problems
from roomkey.realtime.transport import Accepted, Handshake, HandshakeHandler, Refused
from roomkey.security.networks import network_of
from roomkey.transports import TransportSettings

log = structlog.get_logger()


def refusal(status: HTTPStatus, code: str, detail: str, *headers: tuple[str, str]) -> Refused:
    """A refusal in the form of all our errors (RFC 9457)."""
    body = problems.encode(problems.plain_problem(status, code, detail))
    return Refused(status=status.value, body=body, headers=(("content-type", problems.MEDIA_TYPE), *headers))


UNAVAILABLE = refusal(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "overloaded",
    "The server cannot decide about this connection now. Try again later.",
    ("retry-after", "1"),
)


class HandshakeGate:
    """The way to the handshake handler; one per server, whatever transports lead to it."""

    def __init__(self, handler: HandshakeHandler, settings: TransportSettings) -> None:
        self._handler = handler
        self._timeout = settings.handshake_timeout.total_seconds()
        self._room = settings.max_handshakes
        self._share = max(1, settings.max_handshakes // 2)
        self._of_network: Counter[str] = Counter()

    async def ask(self, handshake: Handshake) -> Accepted | Refused:
        """
        The handler's answer, or a 503 when there is none to be had: too many ask, too slow, broken.

        One network has at most half of the room, so that nobody can keep all others out while storage is slow.
        """
        network = network_of(handshake.client_ip or "")
        if self._room <= 0 or self._of_network[network] >= self._share:
            return UNAVAILABLE
        self._room -= 1
        self._of_network[network] += 1
        try:
            async with asyncio.timeout(self._timeout):
                return await self._handler.accept(handshake)
        except TimeoutError:
            log.warning("handshake_timed_out")
            return UNAVAILABLE
        except Exception:
            log.exception("handshake_failed")
            return UNAVAILABLE
        finally:
            self._room += 1
            self._of_network[network] -= 1
            if not self._of_network[network]:
                del self._of_network[network]
