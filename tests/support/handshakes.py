"""Handshakes without a transport: what an endpoint is asked, and one to ask."""

from roomkey.backends.memory.counters import MemoryCounters
from roomkey.backends.memory.one_time import MemoryOneTime
from roomkey.realtime.endpoint import SessionWebSocketHandler
from roomkey.realtime.settings import RealtimeSettings
from roomkey.realtime.transport import Handshake
from roomkey.security.certificates import PeerCertificate
from roomkey.security.possession import PROOF_LIMITS, Possession
from tests.support.rest import Rest


def endpoint(
    rest: Rest, used: MemoryOneTime | None = None, *, settings: RealtimeSettings | None = None
) -> SessionWebSocketHandler:
    """The sockets of the sessions of ``rest``; proofs that come are remembered in ``used``."""
    return SessionWebSocketHandler(
        rest.sessions,
        settings=settings or RealtimeSettings(),
        clock=rest.clock,
        tickets=rest.tickets,
        counters=MemoryCounters(rest.clock),
        events=rest.events,
        possession=Possession(used or MemoryOneTime(rest.clock, PROOF_LIMITS), rest.clock),
    )


def handshake(
    certificate: PeerCertificate | None = None, *, ticket: str | None = None, token: str | None = None, **headers: str
) -> Handshake:
    """A handshake of ``/ws``; ``ticket`` and ``token`` stand in its address."""
    query = {name: value for name, value in (("ticket", ticket), ("token", token)) if value is not None}
    return Handshake(
        path="/ws",
        raw_path="/ws",
        query=query,
        headers={"host": "rooms.example.com", **headers},
        client_ip="198.51.100.1",
        certificate=certificate,
    )
