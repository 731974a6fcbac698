"""What scripts of documents answer instead of doing what they were asked for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from roomkey.backends.redis.documents.layout import damaged
from roomkey.errors import Conflict, DocumentNotFound, LeaseLost, OutcomeUnknown, Overtaken

_REFUSALS: Final[Mapping[bytes, Callable[[], Exception]]] = {
    b"missing": lambda: DocumentNotFound("there is no such document"),
    b"another": lambda: Conflict("the document is another one"),
    b"grave": lambda: Conflict("this document was deleted"),
    b"overtaken": lambda: Overtaken("the document has changed"),
    b"late": lambda: LeaseLost("somebody else has the lease by now"),
    b"damaged": damaged,
    b"unknown": lambda: OutcomeUnknown("whether updates of a document were stored is not known"),
    # It is there for long enough, so a call that comes again was done the first time, and undone by somebody since.
    b"incomplete": lambda: OutcomeUnknown("a content is gone that was stored just now"),
}


def refusal(answer: Sequence[Any]) -> Exception:
    """Why a script did nothing."""
    return _REFUSALS[answer[0]]()


def accepted(answer: Sequence[Any]) -> list[Any]:
    """
    What a script answers after ``ok``.

    Raises:
        SessionError: Why it did nothing.
    """
    if answer[0] != b"ok":
        raise refusal(answer)
    return [*answer[1:]]
