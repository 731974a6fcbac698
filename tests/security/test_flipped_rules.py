"""Every entry of every rule is flipped, one at a time: the interface or its contract must show it."""

from collections.abc import Iterator, MutableMapping
from typing import Final, cast

import pytest
from msgspec.structs import replace

from roomkey.api.access import extents
from roomkey.api.app import contracts
from roomkey.domain.access import Access
from roomkey.security.authorization import RULES, Action, CallerKind, Reach, Rule
from roomkey.security.narrowing import Scope
from tests.security.test_authorization_table import (
    test_figures_are_shown_to_those_who_watch_over_the_service as see_figures,
)
from tests.support.authority import an_authority, promises

pytestmark = pytest.mark.slow

ALIKE: Final = {
    "SEE_FIGURES is_public",  # it is asked about a caller who is known already
}
"""What makes no difference, and why."""


def flipped(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """``rule`` with one thing changed, and what that is."""
    for kind in CallerKind:
        yield f"who {kind}", replace(rule, who=rule.who ^ {kind})
    for reach in set(Reach) - {rule.reach}:
        yield f"reach {reach.name}", replace(rule, reach=reach)
    for access in set(Access) - {rule.access} if rule.access else ():
        yield f"access {access}", replace(rule, access=access)
    for scope in {None, *Scope} - {rule.scope}:
        yield f"scope {scope}", replace(rule, scope=scope)
    yield "is_public", replace(rule, is_public=not rule.is_public)


def is_in_the_contract(original: Rule, other: Rule) -> bool:
    """Whether the published contract, which a test compares with the rules, would be another one."""
    return (extents(original), original.scope, original.is_public) != (extents(other), other.scope, other.is_public)


def is_said(action: Action) -> bool:
    return any(operation.action is action for methods in contracts().values() for operation in methods.values())


async def is_noticed(action: Action) -> bool:
    """Whether the exhaustive test, which knows only the published contract, fails."""
    if action is Action.SEE_FIGURES:
        try:
            await see_figures()
        except AssertionError:
            return True
    for promise in promises():
        method, _, path = promise.operation.partition(" ")
        routes = {route.replace(":path", ""): methods for route, methods in contracts().items()}
        if routes[path][method].action is action:
            async with an_authority() as authority:
                if await authority.deviations(promise):
                    return True
    return False


@pytest.mark.parametrize("action", list(Action), ids=lambda action: action.name)
async def test_no_flipped_rule_goes_unnoticed(action: Action) -> None:
    rules, original, survivors = cast("MutableMapping[Action, Rule]", RULES), RULES[action], set[str]()
    behaves = 0
    for what, mutant in flipped(original):
        rules[action] = mutant
        try:
            noticed = await is_noticed(action)
        finally:
            rules[action] = original
        behaves += noticed
        # Where nobody but sessions, or everybody, may do it, or it is about nothing, a flip changes only what is said.
        if not noticed and not (is_said(action) and is_in_the_contract(original, mutant)):
            survivors.add(f"{action.name} {what}")

    assert {each for each in survivors - ALIKE if not each.partition(" ")[2].startswith("reach")} == set()
    assert behaves or action is Action.SEE_PUBLIC
