"""A connection by which a node hears what is said in channels of one server."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from roomkey.backends.recovery import Failure
from roomkey.backends.redis.connection import Batch, Connection
from roomkey.backends.redis.failures import ReplyError

SUBSCRIBE: Final = b"SUBSCRIBE"
SSUBSCRIBE: Final = b"SSUBSCRIBE"

SHARDED_SINCE: Final = (7,)
"""Version with channels that have slots."""

_SAID: Final = frozenset({b"message", b"smessage"})
_TAKEN_AWAY: Final = b"sunsubscribe"


class Ear(Protocol):
    """Whoever listens. Nothing of it waits or raises."""

    def heard(self, channel: bytes, said: bytes) -> None:
        """Something was said."""
        ...

    def taken_away(self, channel: bytes) -> None:
        """The server has the channel no more, because its slot has moved."""
        ...


class _Confirmation(Batch):
    """What the server confirms for each channel of a command apart."""

    __slots__ = ("_channels", "_kind", "_told")

    def __init__(
        self,
        future: "asyncio.Future[list[Any]]",
        channels: Sequence[bytes],
        *,
        kind: bytes,
        told: Callable[[bytes], None],
    ) -> None:
        super().__init__(future, len(channels))
        self._channels = set(channels)
        self._kind = kind
        self._told = told

    def expects(self, push: Sequence[Any]) -> bool:
        """Whether it confirms this command, and is not about a channel that the server takes away."""
        return push[0] == self._kind and push[1] in self._channels

    def take(self, reply: Any) -> None:
        if isinstance(reply, ReplyError):  # it is the answer for all of them
            self.missing = 0
            if not self.future.done():
                self.future.set_exception(reply)
            return
        super().take(reply)
        self._told(reply[1])


class PubSub(Connection):
    """
    A connection that subscribes.

    The server confirms by pushes, in the order in which it was asked, so they are awaited as replies are.
    """

    def __init__(self, ear: Ear, *, timeout: float, max_in_flight: int, max_bytes: int) -> None:
        super().__init__(timeout=timeout, max_in_flight=max_in_flight, max_bytes=max_bytes)
        self._ear = ear

    @property
    def has_shards(self) -> bool:
        """Whether the server has channels with slots."""
        return self.version >= SHARDED_SINCE

    def subscribe(
        self, channels: Sequence[bytes], told: Callable[[bytes], None], *, sharded: bool
    ) -> "asyncio.Future[list[Any]]":
        """
        Listen to ``channels``, which are in one slot if they are ``sharded``; each is ``told`` when it is confirmed.

        Raises:
            Broken: As ``send``.
        """
        return self._command(SSUBSCRIBE if sharded else SUBSCRIBE, channels, told)

    def unsubscribe(self, channels: Sequence[bytes], *, sharded: bool) -> "asyncio.Future[list[Any]]":
        """Listen to ``channels`` no more."""
        return self._command(b"SUNSUBSCRIBE" if sharded else b"UNSUBSCRIBE", channels, lambda _: None)

    def _command(
        self, word: bytes, channels: Sequence[bytes], told: Callable[[bytes], None]
    ) -> "asyncio.Future[list[Any]]":
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.put((word, *channels), _Confirmation(future, channels, kind=word.lower(), told=told))
        return future

    def pushed(self, push: Sequence[Any]) -> None:
        kind = push[0]
        if kind in _SAID:
            self._ear.heard(push[1], push[2])
            return
        awaited = self.awaited
        if isinstance(awaited, _Confirmation) and awaited.expects(push):
            self.answered(push)
        elif kind == _TAKEN_AWAY:
            self._ear.taken_away(push[1])

    @property
    def lost(self) -> Failure | None:
        """Why it is closed."""
        return self._lost
