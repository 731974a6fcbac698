"""The timer wheel: nobody early, nobody forgotten, one timer for all."""

import asyncio

from roomkey.transports.timers import TimerWheel
from tests.support.rawsocket import until


class Waiting:
    def __init__(self, wheel: TimerWheel | None = None, again: float = 0) -> None:
        self.slot = -1
        self.fired: list[float] = []
        self._wheel = wheel
        self._again = again

    def due(self) -> None:
        self.fired.append(asyncio.get_running_loop().time())
        if self._wheel is not None and len(self.fired) < 3:
            self._wheel.start(self, self._again)


async def test_nobody_is_called_early_and_everybody_soon() -> None:
    wheel = TimerWheel(tick=0.01, horizon=1)
    delays = [0, 0.005, 0.01, 0.02, 0.035, 0.1]
    waiting = [Waiting() for _ in delays]
    begin = asyncio.get_running_loop().time()

    for item, delay in zip(waiting, delays, strict=True):
        wheel.start(item, delay)
    await until(lambda: all(item.fired for item in waiting))

    for item, delay in zip(waiting, delays, strict=True):
        assert len(item.fired) == 1
        assert item.fired[0] - begin >= delay - 0.002  # the resolution of the loop's clock


async def test_who_comes_in_the_middle_of_a_tick_is_not_called_early_either() -> None:
    now = asyncio.get_running_loop().time
    wheel = TimerWheel(tick=0.05, horizon=1)
    first, second = Waiting(), Waiting()
    wheel.start(first, 1)
    begin = now()
    await until(lambda: now() > begin + 0.03)

    begin = now()
    wheel.start(second, 0.05)
    await until(lambda: second.fired)

    assert second.fired[0] - begin >= 0.048
    wheel.stop(first)


async def test_who_stops_is_not_called_and_who_starts_again_is_called_once() -> None:
    wheel = TimerWheel(tick=0.01, horizon=1)
    stopped, restarted, last = Waiting(), Waiting(), Waiting()
    wheel.start(stopped, 0.01)
    wheel.start(restarted, 0.01)
    wheel.start(restarted, 0.02)
    wheel.start(last, 0.08)

    wheel.stop(stopped)
    wheel.stop(stopped)
    await until(lambda: last.fired)

    assert not stopped.fired
    assert len(restarted.fired) == 1


async def test_one_may_wait_again_when_called_and_one_that_fails_delays_nobody() -> None:
    class Failing(Waiting):
        def due(self) -> None:
            super().due()
            raise ZeroDivisionError

    wheel = TimerWheel(tick=0.01, horizon=0.1)
    failing = Failing()
    again = Waiting(wheel, again=0.1)

    wheel.start(failing, 0)
    wheel.start(again, 0.1)
    await until(lambda: len(again.fired) == 3)

    assert len(failing.fired) == 1
    assert again.fired[1] - again.fired[0] >= 0.098


async def test_while_nobody_waits_nothing_ticks() -> None:
    wheel = TimerWheel(tick=0.01, horizon=0.1)
    item = Waiting()

    wheel.start(item, 0)
    await until(lambda: item.fired)

    assert wheel.idle


def test_a_wheel_serves_one_loop_after_another() -> None:
    wheel = TimerWheel(tick=0.01, horizon=0.1)

    async def leave_someone_waiting() -> None:
        wheel.start(Waiting(), 0.1)

    async def wait() -> Waiting:
        item = Waiting()
        wheel.start(item, 0)
        await until(lambda: item.fired)
        return item

    asyncio.run(leave_someone_waiting())

    assert len(asyncio.run(wait()).fired) == 1
