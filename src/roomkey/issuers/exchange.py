"""Finding out who the holder of a token is, and that the token may still be exchanged."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.util import find_spec
from typing import Final

from roomkey.errors import ConfigurationError, InvalidToken
from roomkey.issuers.ended_users import EndedUsers
from roomkey.issuers.key_sets import KeySets
from roomkey.issuers.settings import LONGEST_AGE, Issuer
from roomkey.issuers.tokens import Identity, peek, verify
from roomkey.ports import Clock, EventLog, OneTime

EXTRA: Final = "jwt"
"""The extra that installs what reads these tokens."""


class TokenExchange:
    """The tokens of ``issuers``, on one node or on several that share ``used`` and ``log``."""

    def __init__(self, issuers: Sequence[Issuer], *, used: OneTime, log: EventLog, clock: Clock) -> None:
        """
        Args:
            used: Remembers which tokens were exchanged.
            log: Says which users were ended.

        Raises:
            ConfigurationError: If there are issuers, and what reads their tokens is not installed.
        """
        if issuers and find_spec("joserfc") is None:
            raise ConfigurationError(f"security.issuers: tokens are read with joserfc; pip install roomkey[{EXTRA}]")
        self._issuers = {each.issuer: each for each in issuers}
        self._keys = KeySets(issuers)
        self._used = used
        self._clock = clock
        longest = max((each.max_age + each.leeway for each in issuers), default=LONGEST_AGE)
        self._ended = EndedUsers(log, clock.now, longest)

    async def identify(self, token: str) -> Identity:
        """
        Who the holder of ``token`` is, which is used up if it is good.

        Raises:
            InvalidToken: If it is not good, or was used before.
            IssuerAway: If the keys of its issuer cannot be had.
            Storage: If it cannot be found out whether the user was ended.
        """
        if not self._issuers:
            raise InvalidToken("no issuer is known here")
        said = peek(token)
        issuer = self._issuers.get(said.issuer)
        if issuer is None:
            raise InvalidToken("the token is of an issuer that is not known here")
        keys = await self._keys.find(issuer, said.key_id, said.algorithm)
        identity = verify(token, issuer, keys, self._clock.now())
        await self.check_not_ended(identity)
        if issuer.one_use:
            await self._use_up(token, issuer, identity)
        return identity

    async def check_not_ended(self, identity: Identity) -> None:
        """
        Raise if the user was ended since the token was issued. To be asked once more when there is a session.

        Raises:
            InvalidToken: If so.
            Storage: If that cannot be found out.
        """
        if identity.issued_at <= await self._ended.not_before(identity.user_id):
            raise InvalidToken("the sessions of the user were ended after the token was issued")

    def degradations(self) -> Mapping[str, str]:
        """Issuers whose keys did not come, and why."""
        return self._keys.degradations()

    async def _use_up(self, token: str, issuer: Issuer, identity: Identity) -> None:
        # What is signed, and not the signature, which can be written in more than one way.
        signed = token.rpartition(".")[0]
        name = sha256(f"jwt {signed}".encode()).hexdigest()
        until = issuer.max_age + 2 * issuer.leeway
        if await self._used.add(name, b"1", until, owner=f"jwt {identity.user_id}") is not None:
            raise InvalidToken("the token was exchanged before")
