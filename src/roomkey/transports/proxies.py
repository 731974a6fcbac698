"""Who asks, behind proxies that are trusted to say so: the header that they write, read from its right end."""

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final, Literal

Address = IPv4Address | IPv6Address
Headers = Iterable[tuple[bytes, bytes]]
ForwardedHeader = Literal["x-forwarded-for", "forwarded"]

MAX_HOPS: Final = 32
"""More proxies than anybody has in a row. What stands further left is not looked at."""

SCHEMES: Final = frozenset({"http", "https"})

_SAME_SCHEMES: Final = {"ws": "http", "wss": "https"}

_IPV4_AND_PORT: Final = re.compile(r"([0-9.]+)(?::[0-9]{1,5})?", re.ASCII)
_IPV6_AND_PORT: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?", re.ASCII)
_ELEMENT: Final = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*")*')
_PAIR: Final = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=("(?:[^"\\]|\\.)*"|[^";,\s]*)\s*(?:;|$)')


class TrustedProxies:
    """
    The proxies that are believed: addresses, networks, or ``*`` for every peer.

    A peer that is not one of them is taken for what it is, whatever it writes. From the right, hop by hop, an address
    counts as long as whoever wrote it is trusted; where something stands that is no address, nothing further left can
    be believed either.
    """

    def __init__(self, networks: Sequence[str], header: ForwardedHeader = "x-forwarded-for") -> None:
        self._all = "*" in networks
        self._networks = [ip_network(each) for each in networks if each != "*"]
        self._header = header.encode("ascii")
        self._read = _forwarded if header == "forwarded" else _x_forwarded
        # Requests come from the same few proxies again and again.
        self._trusts = lru_cache(maxsize=4096)(self._compute_trust)

    def client(self, peer: str | None, scheme: str, headers: Headers) -> tuple[str | None, str]:
        """Who asks, and by which scheme, ``http`` or ``https``; ``peer`` and ``scheme`` are those of the connection."""
        address = None if peer is None else _address(peer)
        if address is None or not self._trusts(address):
            return peer, scheme
        hops = self._read(headers, self._header)
        for number, (hop, said) in enumerate(reversed(hops[-MAX_HOPS:])):
            if number == 0 and said in SCHEMES:
                scheme = said  # of the connection to the proxy that is next to us
            if hop is None:
                break
            address = hop
            if not self._trusts(hop):
                break
        return str(address), scheme

    def _compute_trust(self, address: Address) -> bool:
        return self._all or any(address in network for network in self._networks if network.version == address.version)


Application = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]


class BehindProxies:
    """Shows an application the client instead of the proxy, as the address and the scheme of each request."""

    def __init__(self, app: Application, proxies: TrustedProxies) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Pass the request on."""
        peer = scope.get("client")
        if peer:
            client, scope["scheme"] = self._proxies.client(peer[0], scope["scheme"], scope["headers"])
            if client != peer[0]:
                scope["client"] = (client, 0)
        await self._app(scope, receive, send)


Hop = tuple[Address | None, str | None]
"""An address as a proxy has written it, ``None`` if it is none, and a scheme, if there was one."""


def _x_forwarded(headers: Headers, header: bytes) -> Sequence[Hop]:
    """``X-Forwarded-For``, and the scheme that ``X-Forwarded-Proto`` gives for the last hop."""
    values, schemes = _values(headers, header), _values(headers, b"x-forwarded-proto")
    hops: list[Hop] = [(_address(text), None) for value in values for text in value.split(",")]
    if schemes:
        said = _scheme(schemes[-1].rpartition(",")[2])
        last = hops.pop()[0] if hops else None
        hops.append((last, said))
    return hops


def _forwarded(headers: Headers, header: bytes) -> Sequence[Hop]:
    """``Forwarded`` (RFC 7239, 4)."""
    hops: list[Hop] = []
    for value in _values(headers, header):
        hops += [_element(part) for part in _split(value)]
    return hops


def _split(value: str) -> Sequence[str]:
    parts: list[str] = []
    position = 0
    while position <= len(value):
        match = _ELEMENT.match(value, position)
        end = position if match is None else match.end()
        if end < len(value) and value[end] != ",":
            return [*parts, ""]  # a quote that nobody closes: nothing in it is an address
        parts.append(value[position:end])
        position = end + 1
    return parts


def _element(text: str) -> Hop:
    pairs: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _PAIR.match(text, position)
        if match is None or match[1].lower() in pairs:  # RFC 7239, 4: a parameter stands once
            return None, None
        value = match[2]
        pairs[match[1].lower()] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        position = match.end()
    return _address(pairs.get("for", "")), _scheme(pairs.get("proto", ""))


def _values(headers: Headers, wanted: bytes) -> Sequence[str]:
    return [value.decode("latin-1") for name, value in headers if name == wanted]


def _scheme(text: str) -> str | None:
    said = text.strip().lower()
    said = _SAME_SCHEMES.get(said, said)
    return said if said in SCHEMES else None


def _address(text: str) -> Address | None:
    """An address, perhaps with a port; one of IPv4 that is written as one of IPv6 is one of IPv4."""
    bare = text.strip()
    match = _IPV4_AND_PORT.fullmatch(bare) or _IPV6_AND_PORT.fullmatch(bare)
    try:
        address = ip_address(bare if match is None else match[1])
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address
