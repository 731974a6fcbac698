"""
Where the tokens of a session were presented, and what tells a theft from a laptop that slept. Pure.

A token that has been replaced opens nothing, whoever presents it. Whether the session must end as well depends on
where its tokens are used at the same time: see ``is_theft``.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from roomkey.domain.session import Client

MAX_PLACES: Final = 4
"""Places that are remembered of the current token, and as many of replaced ones. The one seen last stays longest."""

_BROWSERS: Final = ("Edg", "EdgA", "EdgiOS", "OPR", "SamsungBrowser", "Firefox", "FxiOS", "CriOS", "Chrome", "Safari")
"""As they name themselves. The order matters: most of them claim to be those behind them, too."""

_PLATFORMS: Final = ("Android", "iPhone", "iPad", "Windows", "Macintosh", "CrOS", "Linux")

_PRODUCT: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Place(Struct, frozen=True, array_like=True, gc=False):
    """
    Who presents a token from where, without what changes on one device: versions of programs, and an IPv6 host part.

    ``program`` is the family of the user agent, ``network`` an IPv4 address or an IPv6 network of 64 bits. ``None``
    is not known.
    """

    program: str | None = None
    network: str | None = None

    @classmethod
    def of(cls, client: Client | None) -> "Place":
        """The place of ``client``."""
        return cls() if client is None else cls(program_of(client.user_agent), _network(client.ip))

    def has_other_program(self, other: "Place") -> bool:
        """Whether both programs are known, and differ."""
        return self.program is not None and other.program is not None and self.program != other.program

    def has_other_network(self, other: "Place") -> bool:
        """Whether both networks are known, and differ; a device may use IPv4 and IPv6 side by side."""
        mine, others = self.network, other.network
        return mine is not None and others is not None and mine != others and (":" in mine) is (":" in others)


class TokenUse(Struct, frozen=True, array_like=True, gc=False):
    """Tokens of one kind were presented at ``place`` from ``first_at`` to ``last_at``, without a long pause."""

    # The order is a part of the schema of session records.
    place: Place
    is_current: bool
    """Whether it was the token that counts, and not one that had been replaced."""
    first_at: datetime
    last_at: datetime


def noted(uses: Sequence[TokenUse], use: TokenUse, window: timedelta) -> tuple[TokenUse, ...]:
    """``uses`` with ``use`` among them, of each kind at most ``MAX_PLACES``. A pause of ``window`` starts anew."""
    for other in uses:
        if (other.place, other.is_current) == (use.place, use.is_current) and use.first_at - other.last_at < window:
            use = replace(use, first_at=other.first_at, last_at=max(use.last_at, other.last_at))
    others = [other for other in uses if (other.place, other.is_current) != (use.place, use.is_current)]
    alike = sorted((other for other in others if other.is_current is use.is_current), key=_last_at)
    kept = alike[-(MAX_PLACES - 1) :]
    return (*(other for other in others if other.is_current is not use.is_current), *kept, use)


def is_worth_noting(uses: Sequence[TokenUse], use: TokenUse, window: timedelta) -> bool:
    """Whether ``uses`` without ``use`` would mislead ``is_theft``: so that storage is not written at every request."""
    known = [other for other in uses if (other.place, other.is_current) == (use.place, use.is_current)]
    if not known:
        return True
    if use.last_at - known[0].last_at < window / 10:
        return False
    latest = max(uses, key=_last_at)
    return not use.is_current or latest is not known[0] or any(not other.is_current for other in uses)


def is_theft(uses: Sequence[TokenUse], *, now: datetime, last_seen_at: datetime, window: timedelta) -> bool:
    """
    Whether two parties have tokens of the session: one the current token, the other one that it replaced.

    Both are in use within ``window``, and either by different programs; or from different networks in turns. A
    device that moves leaves one network for another, so a new address alone proves nothing, but nobody is in two
    places at once. A replaced token proves nothing either where the current one is used as well: a second tab.

    ``last_seen_at`` is when the session was active, which open sockets move.
    """
    current = sorted((use for use in uses if use.is_current), key=_last_at)
    if current:
        current[-1] = replace(current[-1], last_at=max(current[-1].last_at, last_seen_at))
    current = [use for use in current if now - use.last_at < window]
    places = {use.place for use in current}
    strays = [use for use in uses if not use.is_current and now - use.last_at < window and use.place not in places]
    return any(_are_two_parties(use, stray) for use in current for stray in strays)


def _are_two_parties(one: TokenUse, other: TokenUse) -> bool:
    if one.place.has_other_program(other.place):
        return True
    in_turns = one.first_at < other.last_at and other.first_at < one.last_at
    return in_turns and one.place.has_other_network(other.place)


def program_of(user_agent: str | None) -> str | None:
    """
    The family of browsers and the operating system that a user agent names, or else the first product in it.

    ``None`` if it is empty. Versions make no difference.
    """
    if not user_agent:
        return None
    browser = next((name for name in _BROWSERS if f"{name}/" in user_agent), None)
    if browser is None:
        product = _PRODUCT.match(user_agent)
        return product[0] if product else "?"
    platform = next((name for name in _PLATFORMS if name in user_agent), "?")
    return f"{browser} {platform}"


def _last_at(use: TokenUse) -> datetime:
    return use.last_at


def _network(ip: str | None) -> str | None:
    try:
        address = ip_address(ip or "")
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return str(IPv6Network((int(address) >> 64 << 64, 64))) if mapped is None else str(mapped)
    return str(address)
