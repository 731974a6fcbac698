"""The public keys of issuers: fetched when they are needed, kept for a while, fetched again for one that is new."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
from msgspec import Struct

from roomkey.errors import IssuerAway
from roomkey.issuers.settings import Issuer

if TYPE_CHECKING:
    from joserfc.jwk import Key

FRESH_SECONDS: Final = 600.0
"""Time for which keys are used without asking again: one that was withdrawn opens nothing after it."""

STALE_SECONDS: Final = 86_400.0
"""Time for which they are used while the issuer does not answer."""

AGAIN_SECONDS: Final = 10.0
"""Time between two fetches of one set at least, whoever sends tokens with keys that nobody knows."""

FETCH_SECONDS: Final = 5.0
MAX_SET_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 64
MIN_RSA_BITS: Final = 2048
"""RFC 7518, 3.3."""

_PUBLIC: Final = frozenset({"RSA", "EC", "OKP"})
"""Kinds of keys that have a public half; a secret in a set that anybody can read is none."""


class _KeySet(Struct, frozen=True):
    keys: list[dict[str, Any]]


_read_set: Final = msgspec.json.Decoder(_KeySet).decode

_log = structlog.get_logger("roomkey.issuers")


class _Fetched(Struct):
    """The keys of an issuer as they came last, and when; times on a clock that is never set."""

    keys: Sequence["Key"] = ()
    came: float | None = None
    tried: float | None = None
    failure: str | None = None


class KeySets:
    """The key sets of several issuers. One fetch at a time of each; whoever comes meanwhile waits for it."""

    def __init__(self, issuers: Sequence[Issuer], *, now: Callable[[], float] = monotonic) -> None:
        """``now`` is in seconds, on a clock that is never set."""
        self._now = now
        self._fetched = {each.issuer: _Fetched() for each in issuers}
        self._turns = {each.issuer: asyncio.Lock() for each in issuers}

    async def find(self, issuer: Issuer, key_id: str | None, algorithm: str) -> Sequence["Key"]:
        """
        The keys that a token may have been signed with; none if the issuer has no such key.

        Raises:
            IssuerAway: If its keys have not come for too long.
        """
        fetched = self._fetched[issuer.issuer]
        if self._is_due(fetched, has_key=bool(_suitable(fetched.keys, key_id, algorithm))):
            async with self._turns[issuer.issuer]:
                if self._is_due(fetched, has_key=bool(_suitable(fetched.keys, key_id, algorithm))):
                    await self._fetch(issuer, fetched)
        if fetched.came is None or self._now() - fetched.came > STALE_SECONDS:
            raise IssuerAway(f"the keys of {issuer.issuer} cannot be had: {fetched.failure}")
        return _suitable(fetched.keys, key_id, algorithm)

    def degradations(self) -> Mapping[str, str]:
        """Issuers whose keys did not come when they were needed last, and why."""
        return {
            f"issuer {issuer}": f"{fetched.failure}; the keys that came before are used for a day, then nobody gets in"
            for issuer, fetched in self._fetched.items()
            if fetched.failure is not None
        }

    def _is_due(self, fetched: _Fetched, *, has_key: bool) -> bool:
        now = self._now()
        if fetched.tried is not None and now - fetched.tried < AGAIN_SECONDS:
            return False
        return not has_key or fetched.came is None or now - fetched.came > FRESH_SECONDS

    async def _fetch(self, issuer: Issuer, fetched: _Fetched) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                keys = keys_in(await _load(issuer))
        except _Unusable as error:
            failure = str(error)
        except TimeoutError:
            failure = f"{issuer.key_set} did not answer within {FETCH_SECONDS:g} s"
        else:
            fetched.keys, fetched.came, fetched.failure = keys, self._now(), None
            _log.info("issuer_keys_fetched", issuer=issuer.issuer, keys=len(keys))
            return
        finally:
            fetched.tried = self._now()
        fetched.failure = failure
        _log.warning("issuer_keys_not_fetched", issuer=issuer.issuer, reason=failure)


class _Unusable(Exception):
    """A key set cannot be had, or is none; the message says why."""


def keys_in(content: bytes) -> Sequence["Key"]:
    """
    The public keys in a JWK set with which signatures can be checked. What is not understood is passed over.

    Raises:
        _Unusable: If it is no set, or there is no such key in it.
    """
    try:
        found = _read_set(content).keys
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise _Unusable("what came is not a JWK set (RFC 7517, 5)") from None
    keys = [key for entry in found[:MAX_KEYS] if (key := _key(entry)) is not None]
    if not keys:
        raise _Unusable("there is no key in the set that checks signatures")
    return keys


def _key(entry: dict[str, Any]) -> "Key | None":
    from joserfc.errors import JoseError  # noqa: PLC0415  # an extra
    from joserfc.jwk import JWKRegistry  # noqa: PLC0415

    kind = str(entry.get("kty"))
    is_short = kind == "RSA" and len(str(entry.get("n"))) * 6 < MIN_RSA_BITS  # six bits a character
    if kind not in _PUBLIC or entry.get("use", "sig") != "sig" or is_short:
        return None
    try:
        return JWKRegistry.import_key(entry)
    except (JoseError, ValueError, TypeError):
        return None


def _suitable(keys: Sequence["Key"], key_id: str | None, algorithm: str) -> Sequence["Key"]:
    """Those with this id, which fit the algorithm as far as they say; without an id, any that fits."""
    return [
        key
        for key in keys
        if (key_id is None or key.get("kid") == key_id) and (key.get("alg") or algorithm) == algorithm
    ]


async def _load(issuer: Issuer) -> bytes:
    file = issuer.file
    if file is None:
        return await _download(issuer.key_set)
    try:
        return await asyncio.to_thread(_read_file, file)
    except OSError as error:
        raise _Unusable(f"{file}: {error.strerror}") from None


def _read_file(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MAX_SET_BYTES)


async def _download(address: str) -> bytes:
    """What is at the address. Redirects are not followed: they would lead to somebody whom nobody has configured."""
    import httpx  # noqa: PLC0415  # takes a while, and few need it

    content = bytearray()
    try:
        async with (
            httpx.AsyncClient(timeout=FETCH_SECONDS) as client,
            client.stream("GET", address, headers={"accept": "application/jwk-set+json, application/json"}) as answer,
        ):
            if answer.status_code != 200:
                raise _Unusable(f"{address} answered {answer.status_code}")
            async for part in answer.aiter_bytes():
                content += part
                if len(content) > MAX_SET_BYTES:
                    raise _Unusable(f"{address} answered with more than {MAX_SET_BYTES // 1024} KiB")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _Unusable(f"{address} cannot be reached: {type(error).__name__}") from None
    return bytes(content)
