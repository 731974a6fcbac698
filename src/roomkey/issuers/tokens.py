"""
Reading a JSON Web Token of an issuer: whose it is, and whether it is good. Pure, but for joserfc's cryptography.

RFC 8725 says what goes wrong with these, and the rules here are its: the algorithm is one that the configuration names
and fits the key, the key is one of the issuer's own set, issuer and audience are compared to the letter, and nothing
in the token leads to a key.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from roomkey.domain.access import Grants, check_grants
from roomkey.domain.session import check_new_user_id
from roomkey.errors import InvalidInput, InvalidToken
from roomkey.issuers.settings import Issuer

if TYPE_CHECKING:
    from joserfc.jwk import Key

MAX_TOKEN_CHARS: Final = 16_384
"""Several times what providers issue; one with more says too much about somebody."""

_MAX_HEADER_BYTES: Final = 2048


class Identity(Struct, frozen=True, kw_only=True):
    """Who a token says that its holder is. ``grants`` are ``None`` if that is not for the issuer to say."""

    user_id: str
    grants: Grants | None
    issued_at: datetime
    issuer: str


class _Header(Struct, frozen=True):
    alg: str
    kid: str | None = None


class _Whose(Struct, frozen=True):
    iss: str


class _Claims(Struct, frozen=True):
    iss: str
    aud: str | list[str]
    exp: float
    iat: float
    nbf: float | None = None


_read_header: Final = msgspec.json.Decoder(_Header).decode
_read_whose: Final = msgspec.json.Decoder(_Whose).decode
_read_claims: Final = msgspec.json.Decoder(_Claims).decode
_read_object: Final = msgspec.json.Decoder(dict[str, Any]).decode


class Unverified(Struct, frozen=True):
    """What a token says of itself, which anybody could have written: good for finding the key and nothing else."""

    issuer: str
    algorithm: str
    key_id: str | None


def peek(token: str) -> Unverified:
    """
    Where to look for the key of a token.

    Raises:
        InvalidToken: If it is none.
    """
    from joserfc.util import urlsafe_b64decode  # noqa: PLC0415  # an extra

    parts = token.split(".")
    if len(token) > MAX_TOKEN_CHARS or len(parts) != 3 or not token.isascii():
        raise InvalidToken("this is not a signed JSON Web Token")
    try:
        header = _read_header(urlsafe_b64decode(parts[0].encode()))
        whose = _read_whose(urlsafe_b64decode(parts[1].encode()))
    except (ValueError, msgspec.MsgspecError, RecursionError):
        raise InvalidToken("this is not a signed JSON Web Token") from None
    return Unverified(whose.iss, header.alg, header.kid)


def verify(token: str, issuer: Issuer, keys: Sequence["Key"], now: datetime) -> Identity:
    """
    Who ``token`` says that its holder is. ``keys`` are those of the issuer that it may have been signed with.

    Raises:
        InvalidToken: If it is not good. Only the holder of one that is genuine learns what is wrong with it.
    """
    payload = _payload(token, issuer, keys)
    try:
        claims, everything = _read_claims(payload), _read_object(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InvalidToken("the token does not say iss, aud, exp and iat") from None
    _check(claims, issuer, now.timestamp())
    return Identity(
        user_id=_user(everything, issuer),
        grants=_grants(everything, issuer),
        issued_at=datetime.fromtimestamp(claims.iat, UTC),
        issuer=issuer.issuer,
    )


def _payload(token: str, issuer: Issuer, keys: Sequence["Key"]) -> bytes:
    from joserfc.errors import JoseError  # noqa: PLC0415  # an extra
    from joserfc.jws import JWSRegistry, deserialize_compact  # noqa: PLC0415

    registry = JWSRegistry(algorithms=issuer.algorithms, strict_check_header=False)
    registry.max_header_length = _MAX_HEADER_BYTES
    for key in keys:
        try:
            signed = deserialize_compact(token, key, registry=registry)
        except (JoseError, ValueError):
            continue
        if issuer.token_type is not None and not _is_type(signed.headers().get("typ"), issuer.token_type):
            break
        return signed.payload
    raise InvalidToken("the token was not signed by the issuer that it names")


def _is_type(found: object, wanted: str) -> bool:
    """RFC 7515, 4.1.9: a media type, without regard to case and to ``application/``."""
    return isinstance(found, str) and found.lower().removeprefix("application/") == wanted.lower()


def _check(claims: _Claims, issuer: Issuer, now: float) -> None:
    leeway = issuer.leeway.total_seconds()
    audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    if claims.iss != issuer.issuer:
        raise InvalidToken("the token is of another issuer")
    if issuer.audience not in audiences:
        raise InvalidToken("the token is for somebody else")
    if now >= claims.exp + leeway:
        raise InvalidToken("the token has expired")
    if max(claims.iat, claims.nbf or claims.iat) > now + leeway:
        raise InvalidToken("the token is not good yet")
    if now - claims.iat > issuer.max_age.total_seconds() + leeway:
        raise InvalidToken("the token was issued too long ago")


def _user(claims: Mapping[str, Any], issuer: Issuer) -> str:
    user = claims.get(issuer.user_claim)
    if not isinstance(user, str) or not user:
        raise InvalidToken(f"the token does not say {issuer.user_claim}")
    try:
        return check_new_user_id(issuer.user_prefix + user)
    except InvalidInput as error:
        raise InvalidToken(f"the token is for somebody who cannot be a user here: {error}") from None


def _grants(claims: Mapping[str, Any], issuer: Issuer) -> Grants | None:
    if issuer.grants_claim is None:
        return issuer.grants
    if issuer.grants_claim not in claims:
        return issuer.grants or ()
    try:
        return check_grants(claims[issuer.grants_claim])
    except InvalidInput as error:
        raise InvalidToken(f"the token does not say grants in {issuer.grants_claim}: {error}") from None
