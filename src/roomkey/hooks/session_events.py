"""Sessions that have ended, for webhooks: taken from the event log, so that none is lost however a node ends."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import structlog

from roomkey.domain.session import AnyEvent, Deleted, Evicted, Expired, Invalidated
from roomkey.errors import RoomkeyError
from roomkey.hooks.events import SessionEnded
from roomkey.hooks.outbox import SPACE, Outbox, id_of
from roomkey.leasing import Chore
from roomkey.ports import EventLog, LoggedEvent, ObjectStore
from roomkey.sessions.event_follower import EventFollower

POSITIONS: Final = "sessions"
"""The object that says how far the event log was read: the last sequence number by partition."""

JANITOR: Final = "system:janitor"
"""Who deletes records of sessions that ended long ago."""

ROUND_SECONDS: Final = 0.5
OTHERS_SECONDS: Final = 2.0

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(dict[int, int]).decode

_log = structlog.get_logger("roomkey.hooks")


def ending(event: AnyEvent) -> SessionEnded | None:
    """What hooks are told of an event of a session, if that has ended it."""
    match event:
        case Expired():
            how = "expired"
        case Invalidated():
            how = "invalidated"
        case Evicted():
            how = "evicted"
        case Deleted() if event.actor != JANITOR:
            how = "deleted"
        case _:
            return None
    return SessionEnded(
        at=event.at,
        actor=event.actor,
        session_id=event.session,
        user_id=event.user,
        how=how,
        reason=event.reason,
    )


class EndedSessions:
    """
    Puts into the outbox which sessions have ended, on one node at a time. ``run`` works until it is cancelled.

    It begins with what is committed after it was first started, and later where it left off. An event has the same id
    whenever it is put in, so that after a crash it is there once, or is sent again as the same.
    """

    def __init__(self, log: EventLog, objects: ObjectStore, outbox: Outbox, *, chore: Chore) -> None:
        self._log = log
        self._objects = objects
        self._outbox = outbox
        self._chore = chore
        self._positions: dict[int, int] = {}
        self._is_changed = False
        self._is_failing = False

    async def run(self) -> None:
        """Follow the event log whenever no other node does."""
        try:
            while True:
                try:
                    await self._chore.attempt(self._follow)
                except RoomkeyError as error:
                    self._fail(error)
                await asyncio.sleep(OTHERS_SECONDS)
        finally:
            await self._chore.release()

    async def _follow(self, _token: int) -> None:
        follower = EventFollower(self._log, self, name="webhooks", checkpoints=self)
        await follower.start()
        while True:
            try:
                await follower.follow()
                await self._note()
            except RoomkeyError as error:
                self._fail(error)
            else:
                self._is_failing = False
            await asyncio.sleep(ROUND_SECONDS)

    async def _note(self) -> None:
        if self._is_changed:
            await self._objects.commit(SPACE, {POSITIONS: _encode(self._positions)})
            self._is_changed = False

    def _fail(self, error: RoomkeyError) -> None:
        if not self._is_failing:
            _log.warning("ended_sessions_not_told", code=error.code, reason=str(error))
        self._is_failing = True

    # --- as a consumer, and as its checkpoints --------------------------------------------------------

    async def consume(self, partition: int, events: Sequence[LoggedEvent]) -> None:
        """See ``EventConsumer``."""
        for logged in events:
            ended = ending(logged.event)
            if ended is not None:
                self._outbox.tell(ended, id=id_of(f"{partition} {logged.sequence} {ended.session_id}"))
        await self._outbox.flush()

    async def gap(self, partition: int, first_missing: int, last_missing: int) -> None:
        """See ``EventConsumer``: which sessions ended there nobody can say any more."""

    async def load(self, consumer: str) -> Mapping[int, int]:  # noqa: ARG002  # there is one
        """See ``Checkpoints``."""
        stored = await self._objects.get(SPACE, POSITIONS)
        self._positions = dict(await self._log.heads()) if stored is None else _decode(stored.value)
        self._is_changed = stored is None
        await self._note()
        return dict(self._positions)

    async def save(self, consumer: str, partition: int, sequence: int) -> None:  # noqa: ARG002
        """See ``Checkpoints``; it is written down at the end of the round."""
        self._positions[partition] = sequence
        self._is_changed = True
