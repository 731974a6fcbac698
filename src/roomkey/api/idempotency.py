"""
Answers that are kept, so that a request which is sent again is not done again.

After draft-ietf-httpapi-idempotency-key-header. The answers contain tokens, so they are kept in a ``OneTime``:
in memory, or encrypted.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from hashlib import sha256
from os import urandom
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from roomkey.api.http_messages import Headers, Reply
from roomkey.errors import IdempotencyKeyReused, MalformedRequest, RequestInProgress, Storage
from roomkey.ports import OneTime

MAX_KEY_LENGTH: Final = 255

CLAIM_LIFETIME: Final = timedelta(minutes=10)
"""Longer than any request takes. A key whose node dies while it answers can be used again after that."""

REPLAYED: Final = (b"idempotent-replayed", b"true")

_log = structlog.get_logger("roomkey.api")


class _Answer(Struct, frozen=True, array_like=True):
    status: int
    body: bytes
    headers: Headers


class _Entry(Struct, frozen=True, array_like=True):
    """What is kept of a request; no ``answer`` yet is a claim, and ``nonce`` tells one claim from another."""

    fingerprint: bytes
    nonce: bytes
    answer: _Answer | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Entry)


class Attempt:
    """One request with a key. ``earlier`` is the answer that was given before; else put yours into ``reply``."""

    __slots__ = ("earlier", "reply")

    def __init__(self, earlier: Reply | None) -> None:
        self.earlier = earlier
        self.reply: Reply | None = None


class Idempotency:
    """
    The answers of the last ``window``, as far as the limits of the ``store`` allow.

    Only successes are kept: what failed may be corrected and sent again with the same key.
    """

    def __init__(self, store: OneTime, *, window: timedelta) -> None:
        self._store = store
        self._window = window

    @asynccontextmanager
    async def attempt(self, caller: str, key: str, request: bytes) -> AsyncGenerator[Attempt]:
        """
        Do ``request`` once: with an answer from earlier, or to be done now and kept.

        Args:
            caller: Whose keys these are; callers do not see each other's.
            request: Everything that makes it the same request.

        Raises:
            MalformedRequest: If the key is not 1 to 255 visible ASCII characters.
            IdempotencyKeyReused: If the key belongs to another request.
            RequestInProgress: If the first request is still being done.
            Storage: If it cannot be found out now whether it was done.
        """
        place = f"{caller}\n{_checked(key)}"
        entry = _Entry(sha256(request).digest(), urandom(16))
        claim = _encoder.encode(entry)
        present = await self._store.add(place, claim, CLAIM_LIFETIME, pinned=True)
        if present is not None:
            yield Attempt(_answer(_decoder.decode(present), entry.fingerprint))
            return
        attempt = Attempt(None)
        try:
            yield attempt
        finally:
            await self._settle(place, entry, attempt.reply)

    async def _settle(self, place: str, entry: _Entry, reply: Reply | None) -> None:
        claim = _encoder.encode(entry)
        try:
            if reply is None or not 200 <= reply.status < 300:
                await self._store.take(place, expected=claim)
                return
            answer = _Answer(reply.status, reply.body, reply.headers)
            answered = _encoder.encode(_Entry(entry.fingerprint, entry.nonce, answer))
            await self._store.replace(place, claim, answered, self._window)
        except Storage as error:
            # What was done is done, and its answer is for the caller. Whoever repeats it is told to wait meanwhile.
            _log.warning("answer_not_kept", error=str(error))


def _answer(entry: _Entry, fingerprint: bytes) -> Reply:
    if entry.fingerprint != fingerprint:
        raise IdempotencyKeyReused("this Idempotency-Key was used for another request")
    if entry.answer is None:
        raise RequestInProgress("the first request with this Idempotency-Key is still being answered")
    return Reply(entry.answer.status, entry.answer.body, [*entry.answer.headers, REPLAYED])


def _checked(key: str) -> str:
    if not 0 < len(key) <= MAX_KEY_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
        raise MalformedRequest(f"an Idempotency-Key has 1 to {MAX_KEY_LENGTH} visible ASCII characters")
    return key
