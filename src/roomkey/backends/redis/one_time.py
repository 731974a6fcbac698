"""Values of one use in Redis, which never sees what they are."""

from datetime import timedelta
from hashlib import sha256
from typing import Any, Final

from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import RedisServer
from roomkey.backends.sealing import Seal
from roomkey.ports import OneTimeLimits

_ADD: Final = Script("one_time_add")
_TAKE: Final = Script("one_time_take")
_REPLACE: Final = Script("one_time_replace")

_HASH_BYTES: Final = 16


class RedisOneTime:
    """
    ``ports.OneTime`` on a server that is open. Time is the server's; values are sealed on the way there.

    All values of a purpose share a slot, because their limits do. ``take`` raises ``OutcomeUnknown`` when the answer
    of the server is lost: the value may be gone.
    """

    def __init__(self, server: RedisServer, purpose: str, limits: OneTimeLimits, seal: Seal) -> None:
        self._server = server
        self._seal = seal
        tag = b"{%s:o:%s}:" % (server.prefix, purpose.encode())
        self._keys = [tag + part for part in (b"entries", b"ages", b"deadlines", b"totals", b"owner:")]
        self._limits = [_number(limits.entries), _number(limits.entries_per_owner), _number(limits.bytes)]

    async def add(
        self, key: str, value: bytes, lifetime: timedelta, *, owner: str | None = None, pinned: bool = False
    ) -> bytes | None:
        place, whose = _hash(key), b"" if owner is None else _hash(owner)
        arguments = [
            place,
            _millis(lifetime),
            whose,
            int(pinned),
            self._seal.digest(value),
            self._seal.seal(place, value),
        ]
        # May be repeated: the script knows a sealed value again.
        present = await self._server.run(_ADD, self._keys, [*arguments, *self._limits], may_repeat=True)
        return self._opened(place, present)

    async def take(self, key: str, *, expected: bytes | None = None) -> bytes | None:
        place = _hash(key)
        digest = b"" if expected is None else self._seal.digest(expected)
        return self._opened(place, await self._server.run(_TAKE, self._keys, [place, digest]))

    async def replace(self, key: str, expected: bytes, value: bytes, lifetime: timedelta) -> bool:
        place = _hash(key)
        arguments = [
            *(place, _millis(lifetime), self._seal.digest(expected)),
            *(self._seal.digest(value), self._seal.seal(place, value)),
        ]
        # May be repeated: as `add`.
        return bool(await self._server.run(_REPLACE, self._keys, [*arguments, *self._limits], may_repeat=True))

    def _opened(self, place: bytes, sealed: Any) -> bytes | None:
        return None if sealed is None else self._seal.open(place, sealed)


def _hash(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()[:_HASH_BYTES]


def _millis(lifetime: timedelta) -> int:
    return lifetime // timedelta(milliseconds=1)


def _number(limit: int | None) -> int:
    return -1 if limit is None else limit
