"""
DPoP (RFC 9449): reading and checking what proves that a caller has the key that its session is bound to. Pure.

A proof is a JWT about one request: ``htm`` and ``htu`` say which, ``iat`` when, ``jti`` makes it unique, ``ath`` names
the token that is presented with it. That a proof comes once only is for ``possession`` to see to.
"""

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote, unquote, urlsplit

import msgspec
from msgspec import Struct

from roomkey.errors import InvalidProof

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

MAX_PROOF_CHARS: Final = 4096
"""Several times what clients send: one key, one signature, one address."""

MAX_ID_CHARS: Final = 256

THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
"""SHA-256 in base64url."""

_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_SAME_SCHEMES: Final = {"ws": "http", "wss": "https"}

_PRIVATE: Final = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")


class Proof(Struct, frozen=True, kw_only=True):
    """What a proof says whose signature is right. ``key`` is the thumbprint of the key that made it (RFC 7638)."""

    key: str
    id: str
    method: str
    url: str
    issued_at: float
    token_hash: str | None
    nonce: str | None


class _Header(Struct, frozen=True):
    typ: Literal["dpop+jwt"]
    alg: Literal["ES256", "EdDSA", "Ed25519"]
    jwk: dict[str, Any]
    crit: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Claims(Struct, frozen=True):
    jti: str
    htm: str
    htu: str
    iat: float
    ath: str | None = None
    nonce: str | None = None


_read_header: Final = msgspec.json.Decoder(_Header).decode
_read_claims: Final = msgspec.json.Decoder(_Claims).decode


def read(text: str) -> Proof:
    """
    The proof in the header ``DPoP``, whose signature is that of the key in it.

    Raises:
        InvalidProof: If it is none. The message never quotes it.
    """
    parts = text.split(".")
    if len(text) > MAX_PROOF_CHARS or len(parts) != 3:
        raise InvalidProof("the proof is not a JWT of acceptable length")
    try:
        header, claims = _read_header(_decoded(parts[0])), _read_claims(_decoded(parts[1]))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InvalidProof("the proof does not have the header and the claims of RFC 9449, 4.2") from None
    if header.crit is not msgspec.UNSET:
        raise InvalidProof("the proof has critical extensions, and none is known here")
    if not 0 < len(claims.jti) <= MAX_ID_CHARS:
        raise InvalidProof(f"the jti of a proof has 1 to {MAX_ID_CHARS} characters")
    thumbprint = _check_signature(header, f"{parts[0]}.{parts[1]}".encode("ascii"), _decoded(parts[2]))
    return Proof(
        key=thumbprint,
        id=claims.jti,
        method=claims.htm,
        url=claims.htu,
        issued_at=claims.iat,
        token_hash=claims.ath,
        nonce=claims.nonce,
    )


def check(proof: Proof, *, method: str, urls: Sequence[str], token: str | None, now: float, age: float) -> None:
    """
    Raise unless the proof is about this request, which came a moment ago.

    Args:
        urls: Addresses of what was asked for; the proof may name any of them.
        token: What was presented beside it.
        now: Seconds since 1970; a proof may be ``age`` seconds older or younger, because clocks of clients differ.

    Raises:
        InvalidProof: If it is about something else.
    """
    if proof.method != method:
        raise InvalidProof("the proof is for another method")
    place = same_address(proof.url)
    if place is None or place not in [same_address(url) for url in urls]:
        raise InvalidProof("the proof is for another address")
    if not abs(now - proof.issued_at) <= age:  # so that what is not a number is refused, too
        raise InvalidProof("the proof is too old, or of the future")
    if token is not None and not hmac.compare_digest(
        (proof.token_hash or "").encode("utf-8", "surrogatepass"), hash_of(token).encode()
    ):
        raise InvalidProof("the proof is for another token")


def hash_of(token: str) -> str:
    """The ``ath`` of a token."""
    return _text(sha256(token.encode("utf-8", "surrogatepass")).digest())


def same_address(url: str) -> str | None:
    """
    The one spelling of an address, without query and fragment (RFC 9449, 4.3; RFC 3986, 6.2.2); ``None`` if it is none.

    That of a socket is the one of the request that opens it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    scheme = _SAME_SCHEMES.get(parts.scheme, parts.scheme)
    if scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    path = "/".join(map(_normal, (parts.path or "/").split("/")))
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{scheme}://{host}:{port or _DEFAULT_PORTS[scheme]}{path}"


def _normal(segment: str) -> str:
    return quote(unquote(segment, errors="surrogateescape"), errors="surrogateescape", safe="")


# --- keys and signatures ------------------------------------------------------------------------------


def _check_signature(header: _Header, signed: bytes, signature: bytes) -> str:
    """Raise unless the key in the header has signed; its thumbprint otherwise."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  # large, and needed by few

    jwk = header.jwk
    if any(name in jwk for name in _PRIVATE):
        raise InvalidProof("the proof contains a private key: it is not private any more")
    try:
        if header.alg == "ES256":
            _verify_es256(_p256(jwk), signed, signature)
        else:
            _ed25519(jwk).verify(signature, signed)
    except InvalidSignature:
        raise InvalidProof("the signature of the proof is wrong") from None
    return thumbprint(jwk)


def thumbprint(jwk: dict[str, Any]) -> str:
    """The thumbprint of a public key (RFC 7638, 3): of its required members, in order, in JSON without spaces."""
    names = ("crv", "kty", "x", "y") if jwk["kty"] == "EC" else ("crv", "kty", "x")
    return _text(sha256(msgspec.json.encode({name: jwk[name] for name in names})).digest())


def _verify_es256(key: "ec.EllipticCurvePublicKey", signed: bytes, signature: bytes) -> None:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, utils  # noqa: PLC0415

    if len(signature) != 64:  # RFC 7518, 3.4: both numbers, in 32 bytes each
        raise InvalidProof("the signature of the proof has the wrong length")
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    key.verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))


def _p256(jwk: dict[str, Any]) -> "ec.EllipticCurvePublicKey":
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    if jwk.get("kty") != "EC" or jwk.get("crv") != "P-256":
        raise InvalidProof("the key of the proof is not one for ES256")
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(_coordinate(jwk, "x")), int.from_bytes(_coordinate(jwk, "y")), ec.SECP256R1()
    )
    try:
        return numbers.public_key()
    except ValueError:
        raise InvalidProof("the key of the proof is not on its curve") from None


def _ed25519(jwk: dict[str, Any]) -> "ed25519.Ed25519PublicKey":
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415

    if jwk.get("kty") != "OKP" or jwk.get("crv") != "Ed25519":
        raise InvalidProof("the key of the proof is not one for EdDSA")
    try:
        return ed25519.Ed25519PublicKey.from_public_bytes(_coordinate(jwk, "x"))
    except ValueError:
        raise InvalidProof("the key of the proof is not on its curve") from None


def _coordinate(jwk: dict[str, Any], name: str) -> bytes:
    text = jwk.get(name)
    # 43 characters are 32 bytes in one spelling only, so that a key has one thumbprint.
    if not isinstance(text, str) or len(text) != 43 or _text(coordinate := _decoded(text)) != text:
        raise InvalidProof("the key of the proof is not written as RFC 7518, 6.2.1 has it")
    return coordinate


def _decoded(text: str) -> bytes:
    if not _BASE64URL.fullmatch(text):
        raise InvalidProof("the proof is not in base64url")
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except NotBase64:
        raise InvalidProof("the proof is not in base64url") from None


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode("ascii").rstrip("=")
