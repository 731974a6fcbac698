"""
Which names a server answers to.

Without that a page of an attacker can have its own name resolved to this machine, and then is of the same origin as
what listens here (DNS rebinding). Who is not meant gets 421 (RFC 9110, 7.4 and 15.5.20).
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[^\[\]:]+)(?::[0-9]{1,5})?")

_LOOPBACK: Final = "<loopback>"

LOCAL: Final = ("localhost", "*.localhost", _LOOPBACK)
"""Names that lead to this machine, whoever resolves them (RFC 6761, 6.3), and every loopback address."""


class AllowedHosts:
    """The names, the patterns such as ``*.example.com``, and the addresses that a server answers to."""

    def __init__(self, patterns: Sequence[str]) -> None:
        names = [pattern.lower().rstrip(".") for pattern in patterns if pattern != _LOOPBACK]
        self._any_loopback = _LOOPBACK in patterns
        self._names = frozenset(_plain(name) for name in names)
        self._suffixes = tuple(name[1:] for name in names if name.startswith("*."))
        # Requests bring the same few hosts again and again.
        self.allows = lru_cache(maxsize=64)(self._allows)

    def _allows(self, header: bytes) -> bool:
        """Whether a request with this ``Host`` is meant for us."""
        match = _HOST.fullmatch(header.decode("latin-1"))
        if match is None:
            return False
        host = _plain(match[1].lower().rstrip("."))
        if host in self._names or host.endswith(self._suffixes):
            return True
        return self._any_loopback and _is_loopback(host)


def check_host(text: str) -> str:
    """
    Return ``text`` if it may stand among the allowed hosts: a name, ``*.`` and a name, an address, or ``*``.

    Raises:
        ValueError: If it may not.
    """
    if text != "*" and not _is_address(text) and not is_host_name(text.removeprefix("*.")):
        raise ValueError(f"{text!r} is not a host such as rooms.example.com or *.example.com, without scheme and port")
    return text


def is_host_name(text: str) -> bool:
    """Whether ``text`` may be the name of a host (RFC 1123, 2.1, and underscores, which people use)."""
    # WHATWG URL, 3.5: what ends in a number is an address, or a mistake.
    is_numeric = text.rstrip(".").rpartition(".")[2].isdigit()
    return len(text) <= 253 and _NAME.fullmatch(text) is not None and not is_numeric


def _plain(host: str) -> str:
    """An address in its one spelling, without brackets; a name as it is."""
    bare = host.removeprefix("[").removesuffix("]")
    return str(ip_address(bare)) if _is_address(bare) else host


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return _is_address(host) and ip_address(host).is_loopback
