"""
Lists of documents for callers who may not know of all of them.

What is listed, where pages end and what their cursors say depends on nothing but the documents that the caller may know
of: otherwise whoever asks for one name at a time would learn which others there are.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from typing import Final

from roomkey.backends.document_keys import name_cursor
from roomkey.documents.interface import DocumentService
from roomkey.domain.access import literal_start, matches
from roomkey.errors import InvalidInput
from roomkey.ports import DocumentPage, DocumentRecord, Page

STEP: Final = 500
"""Documents that are asked for at a time."""

ASKED_AT_A_TIME: Final = 32
"""Documents about which the application is asked at a time."""

MAX_ASKED: Final = 1_000
"""Documents about which it is asked for one page."""

MAX_LOOKED_AT: Final = 10_000
"""Documents that are looked at for one page."""


Seeing = Callable[[Sequence[str]], Awaitable[Sequence[bool]]]
"""Which of the documents of these names the caller may see."""


async def visible_page(  # each narrows the page
    documents: DocumentService,
    patterns: Sequence[str],
    prefix: str,
    *,
    after: str | None,
    limit: int,
    seen: Seeing,
) -> DocumentPage:
    """
    The page of those documents that one of ``patterns`` matches and whose names begin with ``prefix``.

    Of those, the ones that ``seen`` says the caller may see. The page begins behind the name ``after``: its cursor is
    the name at which it ends.

    Raises:
        InvalidInput: If too many others would have to be looked at.
    """
    found, possible, left = list[DocumentRecord](), list[DocumentRecord](), MAX_ASKED
    async for record in _records(documents, _starts(patterns, prefix), after):
        if not _matches_any(patterns, record.name):
            continue
        possible.append(record)
        if len(found) + len(possible) > limit or len(possible) == ASKED_AT_A_TIME:
            found += await _among(possible, seen)
            left -= len(possible)
            possible.clear()
            if len(found) > limit:
                return DocumentPage(found[:limit], found[limit - 1].name)
            if left <= 0:
                raise InvalidInput("too many documents begin like this: ask with a longer prefix")
    found += await _among(possible, seen)
    return DocumentPage(found[:limit], found[limit - 1].name if len(found) > limit else None)


async def _among(records: Sequence[DocumentRecord], seen: Seeing) -> list[DocumentRecord]:
    may_see = await seen([record.name for record in records])
    return [record for record, is_seen in zip(records, may_see, strict=True) if is_seen]


def _matches_any(patterns: Sequence[str], name: str) -> bool:
    # Most patterns are decided by how names begin, which costs a hundredth of matching them.
    possible = (pattern for pattern in patterns if name.startswith(literal_start(pattern)))
    return any(pattern == f"{literal_start(pattern)}**" or matches(pattern, name) for pattern in possible)


def _starts(patterns: Iterable[str], prefix: str) -> list[str]:
    """With what the names begin that may match, in their order; none is the beginning of another."""
    starts = [literal_start(pattern) for pattern in patterns]
    reached = [max(start, prefix, key=len) for start in starts if start.startswith(prefix) or prefix.startswith(start)]
    distinct = list[str]()
    for start in sorted(reached):
        if not distinct or not start.startswith(distinct[-1]):
            distinct.append(start)
    return distinct


async def _records(
    documents: DocumentService, starts: Iterable[str], after: str | None
) -> AsyncGenerator[DocumentRecord]:
    """What begins with one of ``starts``, behind ``after``."""
    left = MAX_LOOKED_AT
    for start in starts:
        if after is not None and after > start and not after.startswith(start):
            continue
        cursor = name_cursor(after) if after is not None and after.startswith(start) else None
        while True:
            found = await documents.list(start, Page(cursor=cursor, limit=STEP))
            for record in found.documents:
                yield record
            left -= len(found.documents)
            cursor = found.next_cursor
            if cursor is None:
                break
            if left <= 0:
                raise InvalidInput("too many documents begin like this: ask with a longer prefix")
