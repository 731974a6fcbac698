"""Coroutines that are begun at once, without a task: what does not have to wait is done in this turn of the loop."""

from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any


class _Rest(Awaitable[None]):
    """What is left of a coroutine that has begun to wait for ``first``."""

    def __init__(self, work: Coroutine[Any, Any, None], first: Any) -> None:
        self._work = work
        self._first = first

    def __await__(self) -> Generator[Any, Any, None]:
        wanted = self._first
        while True:
            try:
                answer = yield wanted
            except BaseException as error:  # noqa: BLE001  # whatever it is, it belongs to the coroutine
                step, value = self._work.throw, error
            else:
                step, value = self._work.send, answer
            try:
                wanted = step(value)
            except StopIteration:
                return


async def _finish(rest: _Rest) -> None:
    await rest


def run_eagerly(work: Coroutine[Any, Any, None], spawn: Callable[[Coroutine[Any, Any, None]], object]) -> bool:
    """
    Do ``work`` as far as it does not wait; ``spawn`` gets the rest, if there is one. Whether it is done.

    Until it waits it runs outside of a task. What it raises until then is raised here.
    """
    try:
        first = work.send(None)
    except StopIteration:
        return True
    spawn(_finish(_Rest(work, first)))
    return False
