"""Budgets of many callers: asked at once in this process, and counted once for all nodes as long as that answers."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Final

import structlog
from msgspec import Struct

from roomkey.errors import RoomkeyError
from roomkey.ports import Counters, Rate
from roomkey.security.ratelimit import spend

PATIENCE: Final = timedelta(milliseconds=250)
"""Maximum time to wait for a shared budget."""

REST: Final = timedelta(seconds=5)
"""How long each node counts for itself after that."""

_log = structlog.get_logger("roomkey.limits")


class SharedBudgets:
    """
    ``Counters`` over all nodes, behind this node's ``own``.

    The own ones are asked first, so that a flood is stopped where it arrives. While the shared ones do not answer, the
    own ones are all there is: nobody is kept out for that, and a flood has as many budgets as there are nodes.
    """

    def __init__(self, shared: Counters, own: Counters, *, now: Callable[[], float] = monotonic) -> None:
        """``now`` is in seconds, on a clock that is never set."""
        self._shared = shared
        self._own = own
        self._now = now
        self._alone_until: float | None = None

    async def take(self, key: str, rate: Rate, cost: float = 1.0) -> float:
        """As the port says; never raises."""
        if wait := await self._own.take(key, rate, cost):
            return wait
        if self._alone_until is not None and self._now() < self._alone_until:
            return 0.0
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                wait = await self._shared.take(key, rate, cost)
        except (RoomkeyError, TimeoutError) as error:
            if self._alone_until is None:
                _log.warning("limits_of_each_node_alone", error=str(error) or "no answer in time")
            self._alone_until = self._now() + REST.total_seconds()
            return 0.0
        self._alone_until = None
        return wait


# --- budgets that nobody waits for --------------------------------------------------------------------

CAPACITY: Final = 50_000
"""Callers that are remembered; about 10 MB. Who was heard of least recently is forgotten first."""

SLICE: Final = 0.05
"""Part of a burst that a node grants by itself before it tells the others."""

_ROUNDING: Final = 0.01
"""What a budget may lack for a whole request because of the steps of floating point."""

AT_A_TIME: Final = 256
"""Budgets that are settled at the same time."""


class Standing(Struct, frozen=True, gc=False):
    """How a budget of ``rate`` stands: seconds to wait, 0 if there was enough; in how many seconds it is full."""

    rate: Rate
    wait: float
    full_in: float

    @property
    def remaining(self) -> int:
        """What is left of it; nothing if there was not enough."""
        if self.wait:
            return 0
        return max(int(self.rate.burst - self.full_in * self.rate.per_second + _ROUNDING), 0)


class _Unsettled:
    """What this node has granted and not told yet, and since when."""

    __slots__ = ("in_debt", "rate", "rests_until", "since", "spent")

    def __init__(self, rate: Rate, since: float) -> None:
        self.rate = rate
        self.since = since
        self.spent = 0.0
        self.in_debt = False
        """Whether the others had no room for it: nothing is granted before they have."""
        self.rests_until = 0.0


class Budgets:
    """
    A budget for each of many keys, asked without waiting.

    With ``shared`` counters a node tells the others what it has granted once that is ``SLICE`` of a burst, while
    ``run`` runs, and grants nothing while they say that the budget is empty. So no request waits for another machine,
    and N nodes together exceed a budget by at most N times what each grants in a slice and one round trip. While the
    shared ones do not answer, each node counts for itself.
    """

    def __init__(
        self, *, shared: Counters | None = None, capacity: int = CAPACITY, now: Callable[[], float] = monotonic
    ) -> None:
        """``now`` is in seconds, on a clock that is never set."""
        self._shared = shared
        self._capacity = capacity
        self._now = now
        # Ordered: to find the first key of a dict takes the longer the more were removed before it.
        self._until: OrderedDict[str, float] = OrderedDict()
        self._unsettled: dict[str, _Unsettled] = {}
        self._due: dict[str, _Unsettled] = {}
        self._wake = asyncio.Event()
        self._alone_until = 0.0

    def __len__(self) -> int:
        return len(self._until)

    def spend(self, key: str, rate: Rate, cost: float = 1.0) -> Standing:
        """Spend ``cost`` of the budget of ``key``, as ``Counters.take``. A key always comes with the same rate."""
        now, known = self._now(), self._until
        until = known.get(key, 0.0)
        wait = self._debt(key, now) if self._unsettled else 0.0
        if not wait:
            until, wait = spend(rate, until, cost, now)
        known[key] = until
        known.move_to_end(key)
        if len(known) > self._capacity:
            self._unsettled.pop(known.popitem(last=False)[0], None)
        if self._shared is not None and not wait:
            self._note(key, rate, cost, now)
        return Standing(rate, wait, until - now if until > now else 0.0)

    async def run(self) -> None:
        """Settle what was granted, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            due, self._due = self._due, {}
            waiting = list(due.items())
            for first in range(0, len(waiting), AT_A_TIME):
                async with asyncio.TaskGroup() as group:
                    for key, entry in waiting[first : first + AT_A_TIME]:
                        group.create_task(self._settle(key, entry))

    def _debt(self, key: str, now: float) -> float:
        """Seconds to wait because the others have no room for what was granted; asks them again when that is over."""
        entry = self._unsettled.get(key)
        if entry is None or not entry.in_debt:
            return 0.0
        if now < entry.rests_until:
            return entry.rests_until - now
        self._have_settled(key, entry)
        return PATIENCE.total_seconds()

    def _note(self, key: str, rate: Rate, cost: float, now: float) -> None:
        entry = self._unsettled.get(key)
        if entry is None:
            entry = self._unsettled[key] = _Unsettled(rate, now)
        if now - entry.since > rate.burst / rate.per_second:
            # So little in so long a time is no part of what empties a budget.
            entry.since, entry.spent = now, 0.0
        entry.spent += cost
        if entry.spent >= rate.burst * SLICE and now >= self._alone_until:
            self._have_settled(key, entry)

    def _have_settled(self, key: str, entry: _Unsettled) -> None:
        self._due[key] = entry
        self._wake.set()

    async def _settle(self, key: str, entry: _Unsettled) -> None:
        shared, spent = self._shared, entry.spent
        if shared is None or not spent:
            return
        entry.spent = 0.0
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                wait = await shared.take(key, entry.rate, spent)
        except (RoomkeyError, TimeoutError) as error:
            if not self._alone_until:
                _log.warning("limits_of_each_node_alone", error=str(error) or "no answer in time")
            self._alone_until = self._now() + REST.total_seconds()
            entry.in_debt = False
            return
        self._alone_until = 0.0
        entry.since = self._now()
        entry.in_debt = wait > 0
        if entry.in_debt:  # whoever is refused is charged nothing, and told once more
            entry.spent += spent
            entry.rests_until = entry.since + wait
