"""Where a session is used and with what, and what it means if that changes. Pure."""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from msgspec import Struct

from roomkey.domain.session import Client
from roomkey.domain.token_uses import program_of
from roomkey.threats.settings import ThreatSettings
from roomkey.threats.signals import Signal

MAX_PLACES: Final = 8
"""Places of a session that are remembered: the first one, and those that came last."""

_INSIDE: Final = (
    *map(ip_network, ("10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")),
    *map(ip_network, ("::1/128", "fc00::/7", "fe80::/10")),
)
"""Addresses that mean nothing outside of a site (RFC 1918, 3927, 4193, 4291)."""


class Network(Struct, frozen=True, array_like=True, gc=False):
    """
    A network as signals tell networks apart.

    ``realm`` is ``4`` or ``6``, with ``i`` behind it inside of a site. Networks of two realms cannot be compared: a
    host has addresses of both families, and one that seems to move out of a site has moved behind another proxy.
    """

    realm: str
    prefix: str


class Place(Struct, frozen=True, array_like=True, gc=False):
    """From where a session was used, and with what. ``None`` is not known."""

    # The order is a part of what is stored.
    network: Network | None
    program: str | None


def place_of(client: Client, settings: ThreatSettings) -> Place:
    """The place of ``client``."""
    return Place(_network(client.ip, settings), program_of(client.user_agent))


def changes(known: Sequence[Place], seen: Place) -> Iterator[tuple[Signal, str]]:
    """
    The signals that a session gives at ``seen`` that has been at ``known`` places, each with what changed, for people.

    What is not known of the old ones is no change: the first network of a realm, and the first program. A browser
    always says what it is, so that silence in its place is a change.
    """
    networks = {place.network for place in known if place.network is not None}
    if seen.network is not None and seen.network not in networks:
        alike = sorted(network.prefix for network in networks if network.realm == seen.network.realm)
        if alike:
            yield Signal.NETWORK, f"{seen.network.prefix} instead of {', '.join(alike)}"
    programs = {place.program for place in known if place.program is not None}
    is_silent = seen.program is None and any(" " in program for program in programs)
    if is_silent or (seen.program is not None and programs and seen.program not in programs):
        yield Signal.PROGRAM, f"{seen.program or 'nothing'} instead of {', '.join(sorted(programs))}"


def remembered(known: Sequence[Place], seen: Place) -> tuple[Place, ...]:
    """``known`` with ``seen`` among them. The first place stays, and of the others those that came last."""
    if seen in known or not known:
        return tuple(known) or (seen,)
    first, *others = known
    return (first, *(*others, seen)[-(MAX_PLACES - 1) :])


def are_apart(one: Place, other: Place) -> bool:
    """Whether one device cannot well be at both: their networks can be compared, and differ."""
    mine, others = one.network, other.network
    return mine is not None and others is not None and mine.realm == others.realm and mine != others


def _network(ip: str | None, settings: ThreatSettings) -> Network | None:
    try:
        address = ip_address(ip or "")
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if isinstance(address, IPv6Address):
        network = IPv6Network((int(address), settings.ipv6_prefix), strict=False)
    else:
        network = IPv4Network((int(address), settings.ipv4_prefix), strict=False)
    is_inside = any(address in inside for inside in _INSIDE if inside.version == address.version)
    return Network(f"{address.version}{'i' if is_inside else ''}", str(network))
