"""Heads of requests that two programs in a row might take for different requests: what is wrong with them."""

from collections.abc import Sequence
from typing import Final

VERSIONS: Final = frozenset({"1.0", "1.1"})


def flaw_in_head(
    method: bytes, target: bytes, version: str, headers: Sequence[tuple[bytes, bytes]], *, is_upgrade: bool
) -> str | None:
    """
    Why the head of a request is refused, which a parser has accepted already; ``None`` if there is no reason.

    Names of headers are in lower case (RFC 9112, sections 2.3, 3.2 and 6.1).
    """
    if version not in VERSIONS:
        return "The version must be HTTP/1.1 or HTTP/1.0."
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1 and (hosts or version == "1.1"):
        return "There must be one Host."
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings and (version != "1.1" or len(codings) > 1 or codings[0].lower() != b"chunked"):
        return "The one transfer coding is chunked, in HTTP/1.1."
    if is_upgrade and (codings or any(name == b"content-length" and value != b"0" for name, value in headers)):
        return "A request for an upgrade has no body."  # the parser would take it for the next request
    if b"#" in target or not (target.startswith(b"/") or _is_of(hosts, target) or (method, target) == _EVERYTHING):
        return "The request target must be a path, or the address of one at the host that Host names."
    return None


_EVERYTHING: Final = (b"OPTIONS", b"*")


def _is_of(hosts: list[bytes], target: bytes) -> bool:
    """Whether the target, an absolute one, is at the host that is named; a ``CONNECT`` has none."""
    scheme, _, rest = target.partition(b"://")
    authority = rest.partition(b"/")[0].partition(b"?")[0]
    return scheme.lower() in (b"http", b"https") and [authority.lower()] == [host.lower() for host in hosts]
