"""The parts of the interface that find out who calls, and what they may ask for."""

from msgspec import Struct

from roomkey.api.operations import Login
from roomkey.issuers.exchange import TokenExchange
from roomkey.keys import KeyRegistry
from roomkey.security.certificates import ClientCertificates
from roomkey.security.events import SecurityEvents
from roomkey.security.injection import Inspector
from roomkey.security.limits import RequestLimits
from roomkey.security.possession import Possession
from roomkey.security.tickets import Tickets
from roomkey.threats.watch import ThreatWatch


class Security(Struct, frozen=True, kw_only=True):
    """Each may be left out: then it is in the memory of this process, with its default settings."""

    events: SecurityEvents | None = None
    """Where it is reported what is refused, and why."""
    keys: KeyRegistry | None = None
    """Those of the configuration and those that are stored; without it there are none."""
    tickets: Tickets | None = None
    """Where tickets are issued; the handshake handler must redeem them from the same."""
    possession: Possession | None = None
    """Looks at proofs of those whose sessions are bound to a key."""
    issuers: TokenExchange | None = None
    """Whose tokens are exchanged for sessions; without it nobody's."""
    login: Login | None = None
    """How browsers log in; without it until this process ends."""
    certificates: ClientCertificates | None = None
    """Which keys stand behind certificates of clients."""
    limits: RequestLimits | None = None
    """What callers may ask for."""
    inspector: Inspector | None = None
    """Looks at names and texts; without one nobody does."""
    threats: ThreatWatch | None = None
    """The watch over the sessions; without one there are no operations on risks."""
