"""Which of new things is made of which of old ones, so that as much as possible stays."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

MAX_PAIRS: Final = 10_000
"""Where more pairs are possible than this, the first is paired with the first, and so on."""

SIMILAR_CHARS: Final = 1_000
"""So much of two texts is looked at to see how similar they are."""

T = TypeVar("T")


def paired(old: Sequence[T], new: Sequence[T], likeness: Callable[[T, T], float]) -> Iterator[tuple[int, int]]:
    """
    Places in ``new`` and in ``old`` that belong together, both rising, of the greatest likeness in all.

    Those of no likeness (0) never do.
    """
    if len(old) * len(new) > MAX_PAIRS:
        yield from ((at, at) for at, (one, other) in enumerate(zip(old, new, strict=False)) if likeness(one, other))
        return
    alike = [[likeness(one, other) for other in new] for one in old]
    best = [[0.0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for at in range(len(old) - 1, -1, -1):
        for to in range(len(new) - 1, -1, -1):
            together = best[at + 1][to + 1] + alike[at][to] if alike[at][to] else 0.0
            best[at][to] = max(together, best[at + 1][to], best[at][to + 1])
    at = to = 0
    while at < len(old) and to < len(new):
        if alike[at][to] and best[at][to] == best[at + 1][to + 1] + alike[at][to]:
            yield to, at
            at, to = at + 1, to + 1
        elif best[at][to] == best[at + 1][to]:
            at += 1
        else:
            to += 1


def similarity(old: str, new: str) -> float:
    """How much two texts have in common at their beginnings and ends: from 0.5 to 1.5, so that it is never none."""
    old, new = old[:SIMILAR_CHARS], new[:SIMILAR_CHARS]
    longest, shortest = max(len(old), len(new)), min(len(old), len(new))
    if not longest:
        return 1.5
    before = next((at for at in range(shortest) if old[at] != new[at]), shortest)
    after = next((at for at in range(shortest - before) if old[-1 - at] != new[-1 - at]), shortest - before)
    return 0.5 + (before + after) / longest
