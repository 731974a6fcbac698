"""
Answers that are kept, so that a request which is sent again is not done again.

After draft-ietf-httpapi-idempotency-key-header. The answers contain tokens, so they stay in the memory of
this process and are never written anywhere; another process does not know them.
"""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from roomkey.api.http_messages import Reply
from roomkey.errors import IdempotencyKeyReused, MalformedRequest, RequestInProgress
from roomkey.ports import Clock

MAX_KEY_LENGTH: Final = 255

ENTRY_OVERHEAD_BYTES: Final = 1024
"""What an entry costs besides its body, generously: so that many small answers are bounded, too."""

REPLAYED: Final = (b"idempotent-replayed", b"true")


class _Entry:
    __slots__ = ("at", "fingerprint", "reply")

    def __init__(self, fingerprint: bytes, at: datetime) -> None:
        self.fingerprint = fingerprint
        self.at = at
        self.reply: Reply | None = None

    @property
    def size(self) -> int:
        return ENTRY_OVERHEAD_BYTES + (len(self.reply.body) if self.reply else 0)


class Attempt:
    """One request with a key. ``earlier`` is the answer that was given before; else put yours into ``reply``."""

    __slots__ = ("earlier", "reply")

    def __init__(self, earlier: Reply | None) -> None:
        self.earlier = earlier
        self.reply: Reply | None = None


class Idempotency:
    """
    The answers of the last ``window``; beyond ``max_bytes`` the oldest go first.

    Only successes are kept: what failed may be corrected and sent again with the same key.
    """

    def __init__(self, clock: Clock, *, window: timedelta, max_bytes: int) -> None:
        self._clock = clock
        self._window = window
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: dict[tuple[str, str], _Entry] = {}  # the oldest first

    @property
    def size(self) -> int:
        """Bytes that are held."""
        return self._bytes

    @contextmanager
    def attempt(self, caller: str, key: str, request: bytes) -> Generator[Attempt]:
        """
        Do ``request`` once: with an answer from earlier, or to be done now and kept.

        Args:
            caller: Whose keys these are; callers do not see each other's.
            request: Everything that makes it the same request.

        Raises:
            MalformedRequest: If the key is not 1 to 255 visible ASCII characters.
            IdempotencyKeyReused: If the key belongs to another request.
            RequestInProgress: If the first request is still being done.
        """
        place = (caller, _checked(key))
        fingerprint = sha256(request).digest()
        now = self._clock.now()
        self._forget(now)
        entry = self._entries.get(place)
        if entry is not None:
            yield Attempt(_answer(entry, fingerprint))
            return
        entry = self._entries[place] = _Entry(fingerprint, now)
        self._bytes += entry.size
        attempt = Attempt(None)
        try:
            yield attempt
        finally:
            self._settle(place, entry, attempt.reply)

    def _settle(self, place: tuple[str, str], entry: _Entry, reply: Reply | None) -> None:
        if reply is None or not 200 <= reply.status < 300:
            self._drop(place)
            return
        self._bytes -= entry.size
        entry.reply = reply
        self._bytes += entry.size
        while self._bytes > self._max_bytes and (oldest := self._oldest()) is not None:
            self._drop(oldest[0])

    def _forget(self, now: datetime) -> None:
        while (oldest := self._oldest()) is not None and now - oldest[1].at >= self._window:
            self._drop(oldest[0])

    def _oldest(self) -> tuple[tuple[str, str], _Entry] | None:
        # Requests that are being answered are passed over; they are as few as there are connections.
        return next((item for item in self._entries.items() if item[1].reply is not None), None)

    def _drop(self, place: tuple[str, str]) -> None:
        self._bytes -= self._entries.pop(place).size


def _answer(entry: _Entry, fingerprint: bytes) -> Reply:
    if entry.fingerprint != fingerprint:
        raise IdempotencyKeyReused("this Idempotency-Key was used for another request")
    if entry.reply is None:
        raise RequestInProgress("the first request with this Idempotency-Key is still being answered")
    return Reply(entry.reply.status, entry.reply.body, [*entry.reply.headers, REPLAYED])


def _checked(key: str) -> str:
    if not 0 < len(key) <= MAX_KEY_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
        raise MalformedRequest(f"an Idempotency-Key has 1 to {MAX_KEY_LENGTH} visible ASCII characters")
    return key
