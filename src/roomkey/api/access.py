"""Who may do what, as outsiders read it: in the contract, and as the table of the documentation."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final

from roomkey.api.operations import Operation
from roomkey.security.authorization import EVERY_KEY, CallerKind, Reach, Rule


class Extent(StrEnum):
    """To what a kind of callers may do something."""

    NOTHING = "no"
    ALL = "yes"
    ITSELF = "itself"
    OWN_USER = "own user"
    READABLE = "read"
    WRITABLE = "write"
    ADMINISTERED = "admin"


IN_WORDS: Final[Mapping[Extent, str]] = {
    Extent.NOTHING: "no",
    Extent.ALL: "yes",
    Extent.ITSELF: "to itself",
    Extent.OWN_USER: "to those of its user",
    Extent.READABLE: "with a grant to read",
    Extent.WRITABLE: "with a grant to write",
    Extent.ADMINISTERED: "with a grant to administer",
}


def extents(rule: Rule) -> dict[CallerKind, Extent]:
    """To what each kind of callers may do it."""
    return {kind: _extent(kind, rule) for kind in CallerKind}


def _extent(kind: CallerKind, rule: Rule) -> Extent:
    if kind not in rule.who:
        return Extent.NOTHING
    if kind in EVERY_KEY or kind is CallerKind.STRANGER:
        return Extent.ALL
    if rule.access is not None:
        return Extent(rule.access.value)
    if rule.reach is Reach.NONE:
        return Extent.ALL
    return Extent.OWN_USER if rule.reach is Reach.ITS_USER and kind is CallerKind.SESSION else Extent.ITSELF


def in_words(rule: Rule) -> str:
    """Who may do it, in one sentence of Markdown."""
    if rule.is_public:
        return "Nobody is asked who they are."
    allowed = [_who(kind, extent) for kind, extent in extents(rule).items() if extent is not Extent.NOTHING]
    needs = "" if rule.scope is None else f" A key that is narrowed to scopes needs `{rule.scope}`."
    return f"Allowed: {', '.join(allowed)}.{needs}"


def _who(kind: CallerKind, extent: Extent) -> str:
    return f"`{kind}`" if extent is Extent.ALL else f"`{kind}` {IN_WORDS[extent]}"


def table(contracts: Mapping[str, Mapping[str, Operation]]) -> str:
    """Every operation and who may do it, as a table in Markdown."""
    return "\n".join(_rows(contracts)) + "\n"


def _rows(contracts: Mapping[str, Mapping[str, Operation]]) -> Iterator[str]:
    yield f"| operation | scope | {' | '.join(CallerKind)} |"
    yield "|---|---|" + "---|" * len(CallerKind)
    for path, methods in contracts.items():
        for method, operation in methods.items():
            rule = operation.rule
            cells = ["" if extent is Extent.NOTHING else str(extent) for extent in extents(rule).values()]
            scope = "" if rule.scope is None else f"`{rule.scope}`"
            yield f"| `{method} {path.replace(':path', '')}` | {scope} | {' | '.join(cells)} |"
