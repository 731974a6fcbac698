"""
Who has what key: whether a caller proved to have the one that a session is bound to.

A confirmation is text, ``jkt:`` and the thumbprint of a key for DPoP (RFC 9449), or ``x5t#S256:`` and that of the
certificate of a TLS connection (RFC 8705). ``SessionManager.authenticate`` is told which the caller has, and lets
nobody use a bound session who has not its own.
"""

import hmac
import math
from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Final

from msgspec import Struct

from roomkey.domain.session import Session
from roomkey.errors import HolderUnproven, InvalidInput, InvalidProof, NonceNeeded
from roomkey.ports import Clock, OneTime, OneTimeLimits
from roomkey.security import dpop

DPOP: Final = "jkt:"
CERTIFICATE: Final = "x5t#S256:"

PURPOSE: Final = "dpop nonces"
"""What the key is derived for."""

PROOF_LIMITS: Final = OneTimeLimits(entries=100_000, entries_per_owner=5_000)
"""
How many proofs are remembered. Of one key so few that it cannot push out those of others; a key that sends more within
the time for which proofs are good makes way for repetitions of its own.
"""

_NONCE_SECONDS: Final = 120


class Attempt(Struct, frozen=True, kw_only=True):
    """
    A request as proofs speak of it. ``urls`` are the addresses by which the caller may know what it asks for.

    ``proof`` is its header ``DPoP``, ``certificate`` the thumbprint of the one that its TLS connection came with.
    """

    method: str
    urls: Sequence[str]
    proof: str | None = None
    certificate: str | None = None


class Evidence(Struct, frozen=True):
    """What a caller has proved to have, as confirmations, and the proof that is still to be accepted."""

    held: Sequence[str] = ()
    proof: dpop.Proof | None = None


NO_EVIDENCE: Final = Evidence()


class Possession:
    """Looks at proofs, on one node or on several that share ``used``."""

    def __init__(
        self,
        used: OneTime,
        clock: Clock,
        *,
        age: timedelta = timedelta(seconds=60),
        nonce_key: bytes | None = None,
    ) -> None:
        """
        Args:
            used: Remembers which proofs came; its limits should be ``PROOF_LIMITS``.
            age: How far the clock of a client may be from ours, and how long a proof is good.
            nonce_key: Makes nonces that proofs must contain; without one they need none.
        """
        self._used = used
        self._clock = clock
        self._age = age
        self._nonce_key = nonce_key

    def look(self, attempt: Attempt, token: str | None) -> Evidence:
        """
        What the caller has proved to have, beside ``token`` if it presented one. Nothing is remembered yet.

        Raises:
            InvalidProof, NonceNeeded: If there is a proof, and it does not hold.
        """
        held = [] if attempt.certificate is None else [CERTIFICATE + attempt.certificate]
        if attempt.proof is None:
            return Evidence(held)
        proof, now = dpop.read(attempt.proof), self._clock.now().timestamp()
        dpop.check(proof, method=attempt.method, urls=attempt.urls, token=token, now=now, age=self._age.total_seconds())
        self._check_nonce(proof.nonce, now)
        return Evidence([*held, DPOP + proof.key], proof)

    async def accept(self, evidence: Evidence) -> None:
        """
        Take what was looked at for good: once the token is known to be genuine, and before anything is done.

        Not earlier, or whoever has no session could fill what is remembered with keys of their own.

        Raises:
            InvalidProof: If the proof came before.
        """
        proof = evidence.proof
        if proof is None:
            return
        # It may come again for as long as it is not too old, and it may be of the future by as much.
        name = sha256(f"dpop {proof.key} {proof.id}".encode("utf-8", "surrogatepass")).hexdigest()
        if await self._used.add(name, b"1", 2 * self._age, owner=f"dpop {proof.key}") is not None:
            raise InvalidProof("the proof was used before")

    def _check_nonce(self, nonce: str | None, now: float) -> None:
        if self._nonce_key is None:
            return
        period = math.floor(now / _NONCE_SECONDS)
        good = [self._nonce(self._nonce_key, period), self._nonce(self._nonce_key, period - 1)]
        if nonce is None or not any(
            hmac.compare_digest(nonce.encode("utf-8", "surrogatepass"), each.encode()) for each in good
        ):
            raise NonceNeeded(good[0])

    @staticmethod
    def _nonce(key: bytes, period: int) -> str:
        return hmac.digest(key, str(period).encode(), "sha256").hex()[:32]


def check_holder(session: Session, held: Sequence[str]) -> None:
    """
    Raise if the session is bound to something that the caller does not have.

    Raises:
        HolderUnproven: If so.
    """
    if session.bound_to is not None and session.bound_to not in held:
        raise HolderUnproven("the session is bound to a key that was not proved")


def check_confirmation(text: str) -> str:
    """
    Return ``text`` if a session can be bound to it.

    Raises:
        InvalidInput: If not.
    """
    kind, _, thumbprint = text.partition(":")
    if kind + ":" not in (DPOP, CERTIFICATE) or not dpop.THUMBPRINT.fullmatch(thumbprint):
        raise InvalidInput("a session is bound to `jkt:` or `x5t#S256:` and a thumbprint of 43 characters")
    return text
