"""
Whether a request that brings a credential unasked, as browsers send cookies, was meant by a page of ours. Pure.

Three witnesses are asked in this order, and the first that was there decides (OWASP, Cross-Site Request Forgery
Prevention): ``Sec-Fetch-Site``, which no page can forge; ``Origin``, or ``Referer`` where it is missing; and, for
browsers that send none of them, a signed token of the session that a foreign page can neither read nor make.
"""

import hmac
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from secrets import token_urlsafe
from typing import Final
from urllib.parse import urlsplit

from roomkey.domain.session import SessionId
from roomkey.errors import OriginRejected
from roomkey.security.credentials import cookie, origin_allowed

COOKIE: Final = "__Host-roomkey-csrf"
"""Readable for scripts of our pages, and for no others'."""

HEADER: Final = "x-csrf-token"

PURPOSE: Final = "csrf tokens"
"""What the key is derived for."""

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing here, whoever sends them (RFC 9110, 9.2.1)."""

_NONCE_BYTES: Final = 16
_SITES: Final = frozenset({"same-origin", "same-site", "cross-site", "none"})


class Witness(Enum):
    """What the headers of a request say about the page that it came from."""

    OURS = auto()
    FOREIGN = auto()
    SILENT = auto()
    """Nothing: a program, or a browser from before 2020."""


def witness(headers: Mapping[str, str], allowed_origins: Sequence[str]) -> Witness:
    """What ``headers``, by lower-case name, say about the page that a request came from."""
    site, origin, host = headers.get("sec-fetch-site"), headers.get("origin"), headers.get("host")
    if site is not None:
        # `none` is a user at the address bar. Behind a proxy that changes Host, this alone tells that a page is ours.
        if site == "same-origin" or (site == "none" and origin is None):
            return Witness.OURS
        named = site in _SITES and origin_allowed(origin, None if site == "cross-site" else host, allowed_origins)
        return Witness.OURS if named else Witness.FOREIGN
    page = origin if origin is not None else _origin_of(headers.get("referer"))
    if page is None:
        return Witness.SILENT
    return Witness.OURS if origin_allowed(page, host, allowed_origins) else Witness.FOREIGN


def check_page(headers: Mapping[str, str], allowed_origins: Sequence[str]) -> None:
    """
    Raise if a foreign page sent this. Whoever says nothing passes.

    Raises:
        OriginRejected: If so.
    """
    if witness(headers, allowed_origins) is Witness.FOREIGN:
        raise OriginRejected("this must come from a page of ours")


def check_cookie(
    headers: Mapping[str, str], session: SessionId, *, key: bytes | None, allowed_origins: Sequence[str]
) -> None:
    """
    Raise unless a request that changes something, and was authenticated by the cookie of ``session``, is meant.

    Args:
        key: Signs the tokens; without one those that say nothing are refused.

    Raises:
        OriginRejected: If it may be forged (ASVS 3.5.1).
    """
    seen = witness(headers, allowed_origins)
    if seen is Witness.OURS:
        return
    if seen is Witness.FOREIGN or key is None or not _is_doubled(headers, session, key):
        raise OriginRejected("a request with a cookie must come from a page of ours")


def mint(session: SessionId, key: bytes) -> str:
    """A token that pages of ours send in the header when they act for ``session``."""
    nonce = token_urlsafe(_NONCE_BYTES)
    return f"{nonce}.{_seal(session, nonce, key)}"


def is_genuine(token: str, session: SessionId, key: bytes) -> bool:
    """Whether ``token`` was made for ``session`` by whoever has ``key``."""
    nonce, _, seal = token.partition(".")
    return hmac.compare_digest(seal.encode(), _seal(session, nonce, key).encode())


def _is_doubled(headers: Mapping[str, str], session: SessionId, key: bytes) -> bool:
    sent = headers.get(HEADER, "")
    return (
        sent != ""
        and hmac.compare_digest(sent.encode(), cookie(headers.get("cookie", ""), COOKIE).encode())
        and is_genuine(sent, session, key)
    )


def _seal(session: SessionId, nonce: str, key: bytes) -> str:
    # Both parts have a fixed alphabet without the separator, and the session's id a fixed length.
    return hmac.digest(key, f"{session}.{nonce}".encode(), "sha256").hex()


def _origin_of(referer: str | None) -> str | None:
    """The origin of a page's address; what is there and is none is as foreign as can be."""
    if referer is None:
        return None
    try:
        parts = urlsplit(referer)
    except ValueError:
        return "null"
    return f"{parts.scheme}://{parts.netloc}"
