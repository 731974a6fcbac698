"""Where a request may carry a credential, and which of several counts. Finding is not believing."""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct

from roomkey.domain.session import Client

COOKIE: Final = "__Host-roomkey"
"""RFC 6265bis, 4.1.3.2: the prefix keeps subdomains and plain HTTP from setting it."""

DROPPED_COOKIE: Final = f"{COOKIE}=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax"
"""``Set-Cookie`` that makes a browser forget it; with any attribute missing it would be another cookie."""

TOKEN_PROTOCOL: Final = "roomkey.token."  # noqa: S105  # a prefix, not a secret
"""A subprotocol with this prefix carries a token: the one header that a browser's ``WebSocket`` can set."""

PROTOCOL: Final = "roomkey.v1"
"""The subprotocol that says nothing but which protocol is spoken, so that there is one to select."""

MAX_USER_AGENT_CHARS: Final = 512

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_EMPTY: Final[Mapping[str, str]] = {}


class CredentialKind(StrEnum):
    """Where a credential was found. The kind decides what must be checked besides the secret."""

    BEARER = "bearer"
    DPOP = "dpop"
    HEADER = "header"
    COOKIE = "cookie"
    SUBPROTOCOL = "subprotocol"
    TICKET = "ticket"
    QUERY = "query"


_SCHEMES: Final[Mapping[str, CredentialKind]] = {"bearer": CredentialKind.BEARER, "dpop": CredentialKind.DPOP}
"""Of the header ``Authorization``."""


class Credential(Struct, frozen=True):
    """Something that claims to open a session. A ticket is redeemed, every other kind holds a token."""

    kind: CredentialKind
    secret: str

    def __repr__(self) -> str:
        return f"Credential({self.kind}, <hidden>)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("kind", self.kind)]


def find(
    headers: Mapping[str, str],
    *,
    query: Mapping[str, str] = _EMPTY,
    subprotocols: Sequence[str] = (),
    allow_query_token: bool = False,
) -> Credential | None:
    """
    The first credential that is there, in the order of ``CredentialKind``, or ``None``.

    Header names are lower case. ``?token=`` counts only if allowed, because addresses reach logs.
    """
    scheme, _, rest = headers.get("authorization", "").strip().partition(" ")
    kind = _SCHEMES.get(scheme.lower())  # RFC 9110, 11.1: the scheme has no case
    if kind is not None and (secret := rest.strip()):
        return Credential(kind, secret)
    for kind, secret in _candidates(headers, query, subprotocols):
        if secret and (allow_query_token or kind is not CredentialKind.QUERY):
            return Credential(kind, secret)
    return None


def cookie(header: str, wanted: str) -> str:
    """The value of the cookie ``wanted`` in a ``Cookie`` header, empty if it is not there; of several the first."""
    for pair in header.split(";"):
        name, _, value = pair.strip().partition("=")
        if name == wanted:
            return value.strip('"')
    return ""


def client_of(headers: Mapping[str, str], ip: str | None) -> Client:
    """What a request or a handshake says about the device that it came from, as far as it can be shown."""
    agent = headers.get("user-agent", "")[:MAX_USER_AGENT_CHARS]
    return Client(ip=ip, user_agent=agent if agent and agent.isprintable() else None)


def select_subprotocol(offered: Sequence[str]) -> str | None:
    """
    Which of the offered subprotocols the answer names, if any.

    ``roomkey.v1`` before any other, and one that carries a token only if there is no other: browsers
    refuse a connection when they offered something and nothing was selected (WHATWG WebSockets, section 3).
    Its sender gets nothing back then that it did not have; offering ``roomkey.v1`` as well avoids even that.
    """
    if PROTOCOL in offered:
        return PROTOCOL
    for protocol in offered:
        if not protocol.startswith(TOKEN_PROTOCOL):
            return protocol
    return offered[0] if offered else None


def check_origin(text: str) -> str:
    """
    Return ``text`` if it is the origin of a page as browsers send it, such as ``https://app.example.com``.

    Raises:
        ValueError: If it would match no page, or every one.
    """
    if text == "*":
        raise ValueError(
            "'*' would let every page of the web use the cookies of its visitors (ASVS 3.4.2, 3.5.1): name the origins"
        )
    scheme, separator, authority = text.partition("://")
    if not separator or not authority or not re.fullmatch("[A-Za-z][A-Za-z0-9+.-]*", scheme):
        raise ValueError(f"{text!r} is not an origin such as https://app.example.com")
    if scheme.lower() in ("ws", "wss"):
        raise ValueError(f"{text!r} is the address of a socket; the origin of its page begins with http or https")
    if "*" in authority:
        raise ValueError(f"{text!r} is a pattern: name each origin")
    parts = _origin(text.rstrip("/"))
    if parts is None or not re.fullmatch(r"[A-Za-z0-9._:-]+", parts[1]):
        raise ValueError(f"{text!r} is not an origin: scheme, host in ASCII and perhaps a port, and nothing else")
    host = f"[{parts[1]}]" if ":" in parts[1] else parts[1]
    port = "" if parts[2] == _DEFAULT_PORTS.get(parts[0], 0) else f":{parts[2]}"
    if text != (sent := f"{parts[0]}://{host}{port}"):
        raise ValueError(f"{text!r} is sent by browsers as {sent}: write that")
    return text


def origin_allowed(origin: str | None, host: str | None, allowed: Sequence[str]) -> bool:
    """
    Whether a page of ``origin`` may use our cookies: it is ours by ``host``, or named in ``allowed``.

    ``allowed`` has whole origins, ``https://app.example.com``; case and default ports make no difference.
    No origin, ``null`` and whatever is not an origin are never allowed.
    """
    parts = _origin(origin)
    if parts is None:
        return False
    if any(parts == _origin(entry) for entry in allowed):
        return True
    scheme, name, port = parts
    # Host leaves out the default port of a scheme that only the browser knows for certain.
    return host is not None and _origin(f"{scheme}://{host}") == (scheme, name, port)


def _candidates(
    headers: Mapping[str, str], query: Mapping[str, str], subprotocols: Sequence[str]
) -> Iterator[tuple[CredentialKind, str]]:
    yield CredentialKind.HEADER, headers.get("x-session-id", "").strip()
    yield CredentialKind.COOKIE, cookie(headers.get("cookie", ""), COOKIE)
    for protocol in subprotocols:
        if protocol.startswith(TOKEN_PROTOCOL):
            yield CredentialKind.SUBPROTOCOL, protocol.removeprefix(TOKEN_PROTOCOL)
    yield CredentialKind.TICKET, query.get("ticket", "")
    yield CredentialKind.QUERY, query.get("token", "")


def _origin(text: str | None) -> tuple[str, str, int] | None:
    try:
        parts = urlsplit(text or "")
        port = parts.port
    except ValueError:
        return None
    # RFC 6454, 7: an origin is scheme, host and port, and nothing else.
    if not parts.hostname or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return None
    if port is None:
        port = _DEFAULT_PORTS.get(parts.scheme, 0)
    return parts.scheme, parts.hostname, port
