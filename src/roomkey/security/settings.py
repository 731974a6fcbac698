"""Settings of how much callers may ask."""

from datetime import timedelta

from msgspec import Struct

from roomkey.security.networks import check_network


class LimitSettings(Struct, frozen=True, kw_only=True):
    """
    What callers may ask for, and who is exempt. An address of IPv6 stands for its /64.

    Messages of sockets have limits in ``[realtime]`` and ``[documents]``, requests that are not whole in ``[http]``.
    """

    session_requests_per_second: float = 100.0
    """REST requests per second of one session, for as long as it likes."""
    session_request_burst: int = 1_000
    """REST requests that one session may send at once after a pause."""
    key_requests_per_second: float = 2_000.0
    """REST requests per second of one API key, for as long as it likes."""
    key_request_burst: int = 20_000
    """REST requests that one API key may send at once after a pause."""
    address_requests_per_second: float = 2_000.0
    """REST requests per second from one address, whoever sends them. Behind a NAT many people share an address."""
    address_request_burst: int = 20_000
    """REST requests that may come from one address at once after a pause."""
    max_sockets_per_address: int = 10_000
    """Maximum number of open WebSockets from one address."""

    failures_per_second: float = 10.0
    """Wrong tokens and keys per second from one address that nobody has to wait for."""
    failure_burst: int = 1_000
    """Wrong tokens and keys that may come from one address at once after a pause."""
    session_failure_burst: int = 20
    """Wrong tokens of one session that may come from one address; one per ten seconds is forgiven."""
    first_failure_delay: timedelta = timedelta(seconds=1)
    """How long an address waits that has failed too often, before a token is looked at that was not right before."""
    max_failure_delay: timedelta = timedelta(minutes=1)
    """How long it waits at most: each further failure doubles the time."""

    max_body_bytes: int = 256 * 1024 * 1024
    """Bytes of request bodies that are held at the same time; beyond it: 503."""
    max_address_body_bytes: int = 64 * 1024 * 1024
    """Bytes of request bodies from one address that are held at the same time; beyond it: 429."""

    exempt_networks: tuple[str, ...] = ()
    """Addresses and networks, such as ``10.0.0.0/8``, that no limit per address holds for."""
    exempt_keys: tuple[str, ...] = ()
    """Names of API keys whose requests are not counted."""

    def __post_init__(self) -> None:
        for network in self.exempt_networks:
            check_network(network)
