"""The ways between nodes and what they share: they delay, are cut, and lose answers, as far as the ports allow."""

import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from msgspec import Struct

from roomkey.errors import OutcomeUnknown, Storage
from roomkey.testing.simulation.virtual_time import VirtualLoop

PATIENCE_SECONDS: Final = 2.0
"""Time after which a caller gives up that hears nothing. What it asked for may still be done then."""

REFUSED_AFTER_SECONDS: Final = 0.002

TINY_SECONDS: Final = 1e-6
"""What lies between two messages that must not overtake each other."""


class Weather(Struct, frozen=True):
    """How a network behaves that works: seconds for one way, and how often it does worse than that."""

    shortest: float = 0.0001
    longest: float = 0.002
    late: float = 0.01
    """Share of messages that take up to ``latest`` seconds."""
    latest: float = 0.3
    lost: float = 0.002
    """Share of answers that are lost."""


class Way:
    """How long messages take between two places, and whether any arrive."""

    def __init__(self, loop: VirtualLoop, chance: random.Random, weather: Weather) -> None:
        self.loop = loop
        self.chance = chance
        self.weather = weather
        self.is_cut = False
        self.slowness = 0.0
        """Seconds that every message takes besides."""

    def delay(self) -> float:
        """Seconds that the next message takes."""
        weather, draw = self.weather, self.chance.random
        longest = weather.latest if draw() < weather.late else weather.longest
        return self.slowness + weather.shortest + draw() * (longest - weather.shortest)


class Link(Way):
    """
    The way of one node to one store and back.

    What is asked for is done at once at the store, in one step, whatever becomes of the node or of the answer. With
    ``in_order`` it is done in the order in which it was asked for.
    """

    def __init__(self, loop: VirtualLoop, chance: random.Random, weather: Weather, *, in_order: bool = False) -> None:
        super().__init__(loop, chance, weather)
        self.is_dead = False
        """Whether the node is no more."""
        self._in_order = in_order
        self._last_arrival = 0.0

    async def call(self, work: Callable[[], Coroutine[Any, Any, Any]], *, is_read: bool = False) -> Any:
        """
        Have ``work`` done at the other end, and return its answer.

        Raises:
            Storage: If it was not done, or is a read.
            OutcomeUnknown: If nobody here knows whether it was done.
        """
        if self.is_dead:
            raise Storage("the node is no more")
        loop = self.loop
        answer: Any = loop.create_future()
        if self.is_cut:
            # Either somebody refuses, or nobody answers.
            wait = REFUSED_AFTER_SECONDS if self.chance.random() < 0.7 else PATIENCE_SECONDS
            loop.call_later(wait, _give, answer, None, Storage("the store is away"))
            return await answer
        unknown = Storage("no answer") if is_read else OutcomeUnknown("no answer; whether it was done is not known")
        there, back = self.delay(), self.delay()
        if there + back > PATIENCE_SECONDS or self.chance.random() < self.weather.lost:
            back = PATIENCE_SECONDS + 1
            loop.call_later(PATIENCE_SECONDS, _give, answer, None, unknown)
        arrival = loop.time() + there
        if self._in_order:
            arrival = self._last_arrival = max(arrival, self._last_arrival + TINY_SECONDS)
        loop.ring(arrival, self._arrive, answer, work, back, unknown)
        return await answer

    def _arrive(self, answer: Any, work: Callable[[], Coroutine[Any, Any, Any]], back: float, unknown: Storage) -> None:
        if self.is_cut:
            self.loop.call_later(PATIENCE_SECONDS, _give, answer, None, unknown)
            return
        try:
            outcome, error = at_once(work()), None
        except Exception as raised:  # noqa: BLE001  # what the store answers with
            outcome, error = None, raised
        self.loop.ring(self.loop.time() + back, self._return, answer, outcome, error, unknown)

    def _return(self, answer: Any, outcome: Any, error: Exception | None, unknown: Storage) -> None:
        if self.is_cut:
            self.loop.call_later(PATIENCE_SECONDS, _give, answer, None, unknown)
        else:
            _give(answer, outcome, error)


class Remote:
    """
    A port as a node has it: what is really done by ``store``, at the other end of a link.

    ``reads`` are the methods that change nothing, ``plain`` those that ask nobody. It stands for any port, so it is
    to be cast to that one.
    """

    shared = True

    def __init__(self, store: Any, link: Link, *, reads: frozenset[str], plain: frozenset[str] = frozenset()) -> None:
        self.store = store
        self._link = link
        self._reads = reads
        self._plain = plain

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *raised: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name in self._plain:
            return getattr(self.store, name)
        return partial(self._ask, name)

    async def _ask(self, name: str, *arguments: Any, **named: Any) -> Any:
        # The method is looked up when the question arrives: the store may be another one by then.
        return await self._link.call(
            lambda: getattr(self.store, name)(*arguments, **named), is_read=name in self._reads
        )


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """What ``work`` returns or raises, which never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a store in memory never waits")


def _give(answer: Any, outcome: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(outcome)
    else:
        answer.set_exception(error)
