"""Certificates of clients: what is known of one, and which API key stands behind it."""

from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, Protocol

from msgspec import Struct

SHORT_NAMES: Final[Mapping[str, str]] = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
    "domainComponent": "DC",
    "userId": "UID",
}
"""RFC 4514, 3: how attributes of a subject are written. Others keep their long names."""

EXTENSION: Final = "roomkey.client_certificate"
"""Where the certificate stands among the extensions of an ASGI scope."""

_HEX_DIGITS: Final = frozenset("0123456789abcdef")


class ClientCertificate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Whoever comes with such a certificate has the API key of that name; one of the other three says which it is.

    ``fingerprint`` is its SHA-256 in hex, ``name`` one of its alternative names such as ``DNS:backend.example.com`` or
    ``URI:spiffe://example.com/backend``, ``subject`` all of its subject, such as ``CN=backend,O=Example``.
    """

    key: str
    fingerprint: str | None = None
    name: str | None = None
    subject: str | None = None

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.fingerprint, self.name, self.subject)) != 1:
            raise ValueError("a client certificate is known by one of fingerprint, name and subject")
        if self.fingerprint is not None and len(self.identity[1]) != 64:
            raise ValueError("a fingerprint is the SHA-256 of a certificate: 64 hex digits, with or without colons")

    @property
    def identity(self) -> tuple[str, str]:
        """By what it is known."""
        if self.fingerprint is not None:
            digits = self.fingerprint.replace(":", "").lower()
            return "fingerprint", digits if _HEX_DIGITS.issuperset(digits) else ""
        return ("name", self.name) if self.name is not None else ("subject", self.subject or "")


class PeerCertificate(Struct, frozen=True, kw_only=True):
    """A certificate that the authority of the server has signed, and whose key its sender has proved to have."""

    fingerprint: str
    thumbprint: str
    """The same in base64url, as RFC 8705 has it."""
    subject: str
    names: Sequence[str]


class SslObject(Protocol):
    """What is needed of ``ssl.SSLObject``."""

    def getpeercert(self, binary_form: bool = False) -> Any:  # noqa: FBT001, FBT002  # as the standard library has it
        """The certificate of the peer, in DER or taken apart."""
        ...


def peer_certificate(connection: SslObject | None) -> PeerCertificate | None:
    """The certificate that the client of a TLS connection has shown and that was verified, if there is one."""
    raw: bytes | None = None if connection is None else connection.getpeercert(binary_form=True)
    if connection is None or raw is None:
        return None
    parts: dict[str, Any] = connection.getpeercert()
    digest = sha256(raw).digest()
    return PeerCertificate(
        fingerprint=digest.hex(),
        thumbprint=urlsafe_b64encode(digest).decode("ascii").rstrip("="),
        subject=_written(parts.get("subject", ())),
        names=tuple(f"{kind}:{value}" for kind, value in parts.get("subjectAltName", ())),
    )


class ClientCertificates:
    """
    Which key stands behind a certificate.

    Raises:
        ValueError: If two entries say the same of different keys.
    """

    def __init__(self, entries: Iterable[ClientCertificate] = ()) -> None:
        self._keys: dict[tuple[str, str], str] = {}
        for entry in entries:
            if self._keys.setdefault(entry.identity, entry.key) != entry.key:
                raise ValueError(f"two keys stand behind the certificate with the {' '.join(entry.identity)}")

    def key_of(self, certificate: PeerCertificate) -> str | None:
        """The name of the key, or ``None`` if there is none: then its holder is a stranger."""
        identities = [("fingerprint", certificate.fingerprint), ("subject", certificate.subject)]
        identities += [("name", name) for name in certificate.names]
        found = {self._keys[identity] for identity in identities if identity in self._keys}
        return found.pop() if len(found) == 1 else None  # who is two is nobody


def _written(subject: Iterable[Iterable[tuple[str, str]]]) -> str:
    """A subject as text, in the order of the certificate; nothing in a value can pass for another attribute."""
    return ",".join(
        "+".join(f"{SHORT_NAMES.get(kind, kind)}={_escaped(value)}" for kind, value in part) for part in subject
    )


def _escaped(value: str) -> str:
    return "".join(f"\\{each}" if each in '\\,+="<>;#' else each for each in value)
