"""Tests that only some backends can take: for the others they do not exist, so nothing is skipped."""

from collections.abc import Callable
from typing import Any, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])

_NEEDED = "needed_hook"


def needs(hook: str) -> Callable[[Test], Test]:
    """The test is for suites of ``Selective`` that define ``hook`` themselves, otherwise than the suite does."""

    def mark(test: Test) -> Test:
        setattr(test, _NEEDED, hook)
        return test

    return mark


class Selective:
    """A suite of tests; a subclass has those whose needs it meets."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        inherited = [name for name in dir(cls) if name not in vars(cls)]
        for name in inherited:
            test = _first(cls, name)
            hook = getattr(test, _NEEDED, None)
            if hook is not None:
                # pytest does not collect None. A subclass may define the hook after all.
                setattr(cls, name, test if _is_defined(cls, hook) else None)


def _first(cls: type, name: str) -> Any:
    """The definition of ``name`` that is nearest to ``cls``, unless it was taken away."""
    return next((vars(each)[name] for each in cls.__mro__ if vars(each).get(name) is not None), None)


def _is_defined(cls: type, hook: str) -> bool:
    default = next(vars(each)[hook] for each in reversed(cls.__mro__) if hook in vars(each))
    return getattr(cls, hook) is not default
