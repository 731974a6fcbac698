"""Which addresses webhooks may be sent to: looked at when a connection is made, whatever names said before."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

_TRANSLATED: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
"""Where a gateway makes an IPv4 address of the last four bytes (RFC 6052, RFC 8215)."""


def is_public(address: str) -> bool:
    """
    Whether this is the address of somebody in the internet, and of nothing that stands beside us.

    An IPv6 address in which there is an IPv4 address is as public as that one.
    """
    found = ip_address(address.partition("%")[0])
    inner = _inner(found) if isinstance(found, IPv6Address) else None
    if inner is not None and not is_public(str(inner)):
        return False
    mapped = isinstance(found, IPv6Address) and found.ipv4_mapped is not None
    return mapped or (found.is_global and not found.is_multicast)


def _inner(address: IPv6Address) -> IPv4Address | None:
    if any(address in network for network in _TRANSLATED):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo is not None:
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour
