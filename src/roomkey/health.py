"""How a node is doing: every part of it is asked, and answers for itself."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from msgspec.structs import replace

from roomkey.documents.open_documents import OpenDocuments
from roomkey.errors import Storage
from roomkey.ports import Broker, ObjectStore
from roomkey.sessions.manager import SessionManager
from roomkey.sessions.queries import HealthStatus, SessionMetrics

if TYPE_CHECKING:
    # The configuration loads this module for the settings of the API, and has no use for the sockets.
    from roomkey.realtime.endpoint import SessionWebSocketHandler

PING_SECONDS: Final = 5.0
"""Time in which all storages together must answer a readiness probe. Probes rarely wait longer."""


BROKER_ADVICE: Final = (
    "rooms and documents go on on this node, and reach other nodes later; check that the server of broker.url is "
    "running and can be reached from here (roomkey doctor)"
)
"""What follows when nodes cannot hear each other, and what an operator does about it."""


class Part(Protocol):
    """A part of a node that knows when it does not work as it should."""

    def degradations(self) -> Mapping[str, str]:
        """What is degraded now, by name, and why; empty if nothing is."""
        ...


class BrokerPart:
    """A broker as ``Health`` shows it: why it does not work as it should, what follows, and what to do."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def degradations(self) -> Mapping[str, str]:
        """What is wrong with what the broker stands on, by name."""
        return {name: f"{why}; {BROKER_ADVICE}" for name, why in self._broker.degradations().items()}


class Health:
    """
    Health, readiness and figures of a node.

    ``SessionManager.health_check`` and ``metrics`` speak for sessions and their storage; this adds everything else.
    """

    def __init__(
        self,
        sessions: SessionManager,
        *,
        documents: OpenDocuments | None = None,
        sockets: "Callable[[], SessionWebSocketHandler] | None" = None,
        background: Part | None = None,
        others: Sequence[Part] = (),
        observe: Callable[[], Mapping[str, str]] | None = None,
        broker: Broker | None = None,
        objects: ObjectStore | None = None,
    ) -> None:
        """
        Args:
            sockets: Returns the handler of the sockets that are open now: each run of a node has another one.
            observe: Says what else is worth knowing, of parts that work.
        """
        self._observe = observe
        self._sessions = sessions
        self._documents = documents
        self._sockets = sockets
        stored = None if documents is None else documents.store
        joined = None if broker is None or not broker.shared else BrokerPart(broker)
        # What a broker stands on may be a storage, too: then its own words come last, because they say what to do.
        parts = (background, documents, sessions.storage, stored, objects, *others, joined)
        self._parts: Sequence[Part] = [part for part in parts if part is not None]

    async def status(self) -> HealthStatus:
        """The health of sessions and their storage; a part that is degraded degrades what is healthy. Never raises."""
        status = await self._sessions.health_check()
        degradations = {name: reason for part in self._parts for name, reason in part.degradations().items()}
        if self._observe is not None:
            status = replace(status, checks=status.checks | dict(self._observe()))
        if not degradations:
            return status
        return replace(
            status,
            status="degraded" if status.status == "healthy" else status.status,
            checks=status.checks | degradations,
        )

    async def check_readiness(self) -> None:
        """
        Return when requests can be served: sessions and documents can be read and changed.

        Raises:
            Storage: If a storage is away, or does not answer within ``PING_SECONDS``.
        """
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self._sessions.storage.ping()
                if self._documents is not None:
                    await self._documents.store.ping()
        except TimeoutError:
            raise Storage(f"the storage did not answer within {PING_SECONDS:g} s") from None

    async def metrics(self) -> SessionMetrics:
        """The figures of all sessions, and the bytes that the sockets of this node have carried since it started."""
        metrics = await self._sessions.metrics()
        if self._sockets is None:
            return metrics
        statistics = self._sockets().statistics()
        return replace(metrics, total_bytes_transferred=statistics.bytes_in + statistics.bytes_out)
