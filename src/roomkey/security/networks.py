"""Who counts as one caller before anybody has said who they are: the network of an address."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

IPV6_PREFIX: Final = 64
"""What one subscriber is given at least (RFC 6177), and may choose addresses from as it likes."""

_LONGEST_CHARS: Final = 64
"""What is no address is cut here: servers may put anything where an address should be."""


@lru_cache(maxsize=16_384)
def network_of(address: str) -> str:
    """
    The name of the network that ``address`` belongs to: itself in IPv4, its /64 in IPv6.

    An IPv4 address that is written as one of IPv6 (RFC 4291, 2.5.5.2) is the same as itself. What is no address, such
    as the name that a server has for a socket of its own, is a network of its own.
    """
    parsed = _parsed(address)
    if parsed is None:
        return address[:_LONGEST_CHARS]
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    return str(IPv6Network((int(parsed) >> IPV6_PREFIX << IPV6_PREFIX, IPV6_PREFIX)))


def check_network(text: str) -> str:
    """
    Return ``text`` if it is an address or a network.

    Raises:
        ValueError: If it is neither.
    """
    try:
        ip_network(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is not an address such as 10.0.0.7, or a network such as 10.0.0.0/8 or 2001:db8::/32"
        ) from None
    return text


def is_loopback(host: str) -> bool:
    """Whether ``host``, a name or an address, is this machine as nobody else reaches it."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def membership(networks: Iterable[str]) -> Callable[[str], bool]:
    """Whether an address is in one of ``networks``, as a function that remembers its answers."""
    known = [ip_network(text) for text in networks]
    if not known:
        return lambda _: False

    @lru_cache(maxsize=16_384)
    def is_in(address: str) -> bool:
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in known)

    return is_in


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address.partition("%")[0])  # a zone says by which interface it came
    except ValueError:
        return None
    return (parsed.version == 6 and parsed.ipv4_mapped) or parsed
