"""
Which users were ended lately, and when: a token from before that must not bring them back.

Their sessions are ended by one commit that no session survives; but whoever still has a token of the issuer could
exchange it for a new one. The event log, which is written in the same commit, says when users were ended, and is asked
each time: not a hint that may come late.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct, field

from roomkey.domain.session import UserRevoked, partition_of
from roomkey.ports import EventLog

PAGE: Final = 1000

CLOCKS: Final = timedelta(minutes=5)
"""By how much the clocks of nodes may differ, so that events that follow one another may seem not to."""

_NEVER: Final = datetime.min.replace(tzinfo=UTC)


class _Followed(Struct):
    """What one partition of the log says, up to ``sequence``. What lies before ``since`` is not known."""

    sequence: int
    since: datetime
    ended: dict[str, datetime] = field(default_factory=dict[str, datetime])


class EndedUsers:
    """
    The users that were ended within ``window``, read from the log of events as far as it is asked for.

    What the log has forgotten must be older than that, or have something behind it, as in the ring of a memory store.
    """

    def __init__(self, log: EventLog, now: Callable[[], datetime], window: timedelta) -> None:
        self._log = log
        self._now = now
        self._window = window
        self._partitions: dict[int, _Followed] = {}

    async def not_before(self, user_id: str) -> datetime:
        """
        The moment after which tokens of the user are good. It is the end of what the log has forgotten, at least.

        Raises:
            Storage: If the log cannot be read now.
        """
        partition, horizon = partition_of(user_id), self._now() - self._window
        followed = self._partitions.get(partition)
        if followed is None:
            followed = await self._begin(partition, horizon - CLOCKS)
            followed = self._partitions.setdefault(partition, followed)
        await self._catch_up(partition, followed)
        followed.ended = {user: at for user, at in followed.ended.items() if at >= horizon}
        return max(followed.since, followed.ended.get(user_id, _NEVER))

    async def _catch_up(self, partition: int, followed: _Followed) -> None:
        after = followed.sequence  # one's own: others may be reading, too
        while found := await self._log.events(partition, after, PAGE):
            if found[0].sequence > after + 1:  # what was between has been forgotten, or cannot be read
                followed.since = max(followed.since, found[0].event.at)
            for each in found:
                if isinstance(each.event, UserRevoked):
                    user, at = each.event.user, each.event.at
                    # The latest of all: clocks of nodes differ, and another reader may be further on.
                    followed.ended[user] = max(at, followed.ended.get(user, _NEVER))
            after = found[-1].sequence
        followed.sequence = max(followed.sequence, after)

    async def _begin(self, partition: int, horizon: datetime) -> _Followed:
        """Where in the log that begins which matters: found by halving, for the log may be long."""
        first = await self._log.events(partition, 0, 1)
        if not first or first[0].event.at >= horizon:
            return _Followed(0, _NEVER)
        low, high = first[0].sequence, (await self._log.heads()).get(partition, first[0].sequence)
        while low < high:  # the event `low` is before the horizon; what is behind `high` is not looked at
            middle = (low + high + 1) // 2
            found = await self._log.events(partition, middle - 1, 1)
            if found and found[0].event.at < horizon:
                low = middle
            else:
                high = middle - 1
        return _Followed(low, _NEVER)
