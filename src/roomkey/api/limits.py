"""The limit on requests: what every request costs its address before anything is done for it."""

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from roomkey.api.authentication import address_of
from roomkey.api.http_messages import Arrival
from roomkey.errors import Overloaded, RateLimited
from roomkey.security.events import SecurityEvents
from roomkey.security.limits import LimitSettings, RequestLimits, Spent
from roomkey.security.networks import membership, network_of

SPENT: Final = "roomkey.spent"
"""Where the scope of a request says what it was charged to: the budget that the caller is told of."""

TOLD: Final = "roomkey.told"
"""In the scope, if somebody in front of us tells the caller of it."""


class LimitMiddleware:
    """Charges every request to the address it comes from; what comes too early is refused."""

    def __init__(self, app: ASGIApp, limits: RequestLimits, events: SecurityEvents) -> None:
        self.app = app
        self._limits = limits
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Pass the request on if there is room for it.

        Raises:
            RateLimited: If not.
        """
        if scope["type"] == "http" and SPENT not in scope:  # then somebody in front of us has counted it
            address = address_of(scope)
            try:
                charge(scope, self._limits.of_address(address))
            except RateLimited as refusal:
                self._events.refused(refusal.code, address=address, place="rest")
                raise
        await self.app(scope, receive, send)


class Bodies:
    """Bytes of bodies that are still arriving, in all and by network. Who is exempt has a share of any size."""

    def __init__(self, settings: LimitSettings) -> None:
        self._most = settings.max_body_bytes
        self._share = settings.max_address_body_bytes
        self._is_exempt = membership(settings.exempt_networks)
        self._held = 0
        self._of_network: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._held

    def arrival(self, address: str | None) -> Arrival:
        """For a body that comes from there."""
        return lambda: self._arriving(address or "")

    @contextmanager
    def _arriving(self, address: str) -> Generator[Callable[[int], None]]:
        network, size = network_of(address), 0

        def grow(more: int) -> None:
            nonlocal size
            if self._held + more > self._most:
                raise Overloaded("too many bodies are arriving")
            if self._of_network[network] + more > self._share and not self._is_exempt(address):
                raise RateLimited("this address is sending too many bodies")
            size += more
            self._held += more
            self._of_network[network] += more

        try:
            yield grow
        finally:
            self._held -= size
            self._of_network[network] -= size
            if not self._of_network[network]:
                del self._of_network[network]


def charge(scope: Scope, spent: Spent | None) -> None:
    """
    Let the caller be told of this budget rather than of one before it.

    Raises:
        RateLimited: If it has nothing left.
    """
    if spent is not None:
        scope[SPENT] = spent
        if spent.standing.wait:
            raise RateLimited(f"this {spent.policy.name} has sent too many requests", wait=spent.standing.wait)
