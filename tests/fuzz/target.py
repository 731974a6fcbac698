"""What a target of the fuzzers is."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from msgspec import Struct

Parse = Callable[[bytes], object]


class Target(Struct, frozen=True):
    """A parser: what it may raise, and examples of what it accepts."""

    parse: Parse
    allowed: tuple[type[Exception], ...]
    seeds: Sequence[bytes]


def text(parse: Callable[[str], object]) -> Parse:
    """A parser of text, which comes as UTF-8."""
    return lambda data: parse(data.decode("utf-8", "replace"))


def header(parse: Callable[[str], object]) -> Parse:
    """A parser of a header, which comes as Latin-1."""
    return lambda data: parse(data.decode("latin-1"))


def now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")
