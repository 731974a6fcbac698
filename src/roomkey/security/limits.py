"""How much callers may ask over REST, and what is left of it, as callers are told."""

from math import ceil
from typing import Final

from msgspec import Struct

from roomkey.ports import Rate
from roomkey.security.budgets import Budgets, Standing
from roomkey.security.networks import membership, network_of
from roomkey.security.settings import LimitSettings as LimitSettings  # noqa: PLC0414  # its documented address

DEFAULTS: Final = LimitSettings()


class Policy:
    """One kind of budget: its name as callers are told it, and its rate."""

    __slots__ = ("field", "name", "rate", "state")

    def __init__(self, name: str, rate: Rate) -> None:
        self.name = name
        self.rate = rate
        window = max(1, round(rate.burst / rate.per_second))
        self.field = b"ratelimit-policy", b'"%s";q=%d;w=%d' % (name.encode("ascii"), int(rate.burst), window)
        """``RateLimit-Policy`` (draft-ietf-httpapi-ratelimit-headers-10, 3): quota, seconds."""
        self.state = b'"%s";r=%%d;t=%%d' % name.encode("ascii")
        """``RateLimit`` (the same draft, 4), to be filled in: what remains, seconds until all of it does."""


class Spent(Struct, frozen=True, gc=False):
    """What is left of a budget after a request was charged to it, or refused because of it."""

    policy: Policy
    standing: Standing

    def headers(self) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
        """``RateLimit-Policy`` and ``RateLimit``."""
        policy, standing = self.policy, self.standing
        return policy.field, (b"ratelimit", policy.state % (standing.remaining, ceil(standing.full_in)))


class RequestLimits:
    """The budgets of REST requests. What it is asked for answers at once."""

    def __init__(self, settings: LimitSettings, budgets: Budgets) -> None:
        self.settings = settings
        self._budgets = budgets
        self._exempt_keys = frozenset(f"key:{name}" for name in settings.exempt_keys)
        self.is_exempt = membership(settings.exempt_networks)
        """Whether no limit per address holds for an address."""
        self.address = Policy("address", Rate(settings.address_requests_per_second, settings.address_request_burst))
        self.session = Policy("session", Rate(settings.session_requests_per_second, settings.session_request_burst))
        self.key = Policy("key", Rate(settings.key_requests_per_second, settings.key_request_burst))

    def of_address(self, address: str | None) -> Spent | None:
        """Charge a request to the network it comes from, if there is enough; ``None`` if it is not counted."""
        if address is None or self.is_exempt(address):
            return None
        return self._spend(self.address, network_of(address))

    def of_caller(self, actor: str, session: str | None) -> Spent | None:
        """Charge a request to the session or the API key that sends it, as ``of_address``."""
        if session is not None:
            return self._spend(self.session, session)
        if actor.startswith("key:") and actor not in self._exempt_keys:
            return self._spend(self.key, actor)
        return None

    def _spend(self, policy: Policy, who: str) -> Spent:
        return Spent(policy, self._budgets.spend(f"{policy.name} {who}", policy.rate))
