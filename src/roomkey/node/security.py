"""What stands between a node and those who call it."""

from collections.abc import Mapping
from secrets import token_bytes

from roomkey.api.operations import Login
from roomkey.api.security import Security
from roomkey.backends.memory.counters import MemoryCounters
from roomkey.config import Config
from roomkey.issuers.exchange import TokenExchange
from roomkey.keys import KeyRegistry
from roomkey.node.background import Work
from roomkey.ports import ObjectStore, SharedState
from roomkey.security import csrf, masterkey, possession
from roomkey.security.apikeys import ApiKeys
from roomkey.security.budgets import Budgets, SharedBudgets
from roomkey.security.certificates import ClientCertificates
from roomkey.security.event_log import SecurityEventLog
from roomkey.security.events import SecurityEvents
from roomkey.security.injection import Inspector, load_detector
from roomkey.security.limits import RequestLimits
from roomkey.security.possession import Possession
from roomkey.security.tickets import Tickets
from roomkey.sessions.manager import SessionManager
from roomkey.threats.watch import ThreatWatch


class NodeSecurity:
    """Who is calling, what they may ask for, and what is noticed about them; ``interface`` is what REST needs of it."""

    def __init__(
        self,
        config: Config,
        *,
        master: bytes | None,
        sessions: SessionManager,
        objects: ObjectStore,
        shared: SharedState,
        events: SecurityEvents,
    ) -> None:
        clock = self._clock = sessions.clock
        self._master = master
        self.events = events
        self._log = SecurityEventLog()
        events.listen(self._log)
        self.keys = KeyRegistry(ApiKeys(config.security.api_keys), objects, clock)
        self.tickets = Tickets(shared.tickets)
        self.possession = Possession(
            shared.proofs,
            clock,
            age=config.login.proof_age,
            nonce_key=self._key(possession.PURPOSE) if config.login.proof_nonces else None,
        )
        self.issuers = TokenExchange(config.security.issuers, used=shared.proofs, log=sessions.storage, clock=clock)
        self.inspector = Inspector(config.inspection, load_detector())
        self.threats = self._watch(config, sessions, objects)
        # Budgets of all nodes together, where something counts them; otherwise those of this process.
        own, self._counts_once = MemoryCounters(clock), shared.counts_once
        self.handshakes = SharedBudgets(shared.counters, own) if self._counts_once else own
        self._requests = Budgets(shared=shared.counters if self._counts_once else None)
        self.interface = Security(
            events=events,
            keys=self.keys,
            tickets=self.tickets,
            possession=self.possession,
            issuers=self.issuers,
            inspector=self.inspector,
            threats=self.threats,
            login=Login(settings=config.login, csrf_key=self._key(csrf.PURPOSE)),
            certificates=ClientCertificates(config.security.client_certificates),
            limits=RequestLimits(config.limits, self._requests),
        )

    @property
    def works(self) -> Mapping[str, Work]:
        """What has to go on in the background, by name."""
        works: dict[str, Work] = {
            "keys": self.keys.run,
            "log of security events": lambda: self._log.run(self._clock.now),
            "threats": self.threats.run,
        }
        if self._counts_once:
            works["limits"] = self._requests.run
        return works

    def _key(self, purpose: str) -> bytes:
        """A key that all nodes with the same master key have; of a node without one, until it ends."""
        return token_bytes(32) if self._master is None else masterkey.derive(self._master, purpose)

    def _watch(self, config: Config, sessions: SessionManager, objects: ObjectStore) -> ThreatWatch:
        """The watch over sessions, which is told of what happens to them and of what is refused."""
        watch = ThreatWatch(
            objects,
            sessions,
            settings=config.threats,
            clock=self._clock,
            events=self.events,
            key=self._key("threats"),
        )
        sessions.recognition.watch = watch
        sessions.on_events(watch.on_events)
        self.events.listen(watch.on_security_event)
        return watch
