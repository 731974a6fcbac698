"""Coroutines that are begun at once, without a task: what does not have to wait is done in this turn of the loop."""

from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Waiting(Generic[T]):
    """What is left of a coroutine that has begun to wait. It must be awaited, in a task."""

    def __init__(self, work: Coroutine[Any, Any, T], first: Any) -> None:
        self._work = work
        self._first = first

    def __await__(self) -> Generator[Any, Any, T]:
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
            except StopIteration as end:
                return end.value


def begin(work: Coroutine[Any, Any, T]) -> "T | Waiting[T]":
    """
    What ``work`` returns, if it does not have to wait, or what is left of it.

    Until it waits it runs outside of a task. What it raises until then is raised here.
    """
    try:
        first = work.send(None)
    except StopIteration as end:
        return end.value
    return Waiting(work, first)
