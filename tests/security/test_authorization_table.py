"""The interface does what the published table says: every operation, asked by everyone, about everything."""

from pathlib import Path
from typing import Final

import pytest

from roomkey.api.access import table
from roomkey.api.app import EVERY_ROUTE, contracts
from roomkey.domain.access import Role
from roomkey.security.authorization import EVERY_KEY, RULES, Action
from roomkey.security.narrowing import Narrowing, Scope
from tests.support.authority import Promise, an_authority, promises
from tests.support.rest import Rest

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "security" / "authorization.md"


@pytest.mark.parametrize("promise", list(promises()), ids=lambda promise: promise.operation)
async def test_everyone_may_do_what_the_table_says_and_nothing_else(promise: Promise) -> None:
    async with an_authority() as authority:
        assert await authority.deviations(promise) == []


def test_every_operation_is_in_the_table() -> None:
    promised = {promise.operation for promise in promises()}

    assert promised == {
        f"{method} {path.replace(':path', '')}" for path, methods in EVERY_ROUTE.items() for method in methods
    }


def test_every_action_has_a_rule() -> None:
    assert set(RULES) == set(Action)


def test_what_keys_may_do_has_a_scope_unless_anyone_may() -> None:
    nameless = {action for action, rule in RULES.items() if rule.who & EVERY_KEY and rule.scope is None}

    assert nameless == {Action.SEE_PUBLIC, Action.SEE_HEALTH, Action.LOG_IN, Action.EXCHANGE_TOKEN}


def test_every_scope_is_needed_for_something() -> None:
    assert {rule.scope for rule in RULES.values()} == {None, *Scope}


def test_the_page_has_the_table_as_it_is() -> None:
    """If not: put there what `table(contracts())` of `roomkey.api` returns."""
    assert table(contracts()) in PAGE.read_text(encoding="utf-8")


async def test_figures_are_shown_to_those_who_watch_over_the_service() -> None:
    async with an_authority() as authority:
        rest = authority.rest
        shown = {
            role: await _sees_figures(rest, (await rest.keys.create(f"a-{role}", role, actor="test")).secret)
            for role in Role
        }
        narrowed = Narrowing(scopes=tuple(scope for scope in Scope if scope is not Scope.FIGURES_READ))
        only = Narrowing(scopes=(Scope.FIGURES_READ,))
        within = (await rest.keys.create("within", Role.ADMIN, only=only, actor="test")).secret
        without = (await rest.keys.create("without", Role.ADMIN, only=narrowed, actor="test")).secret
        session = await rest.session("alice")
        pending = await rest.session("alice", active=False)

        assert shown == {Role.ADMIN: True, Role.AUDITOR: True, Role.SERVICE: False, Role.SUPPORT: False}
        assert await _sees_figures(rest, within)
        assert not await _sees_figures(rest, without)
        assert not await _sees_figures(rest, session.token)
        assert not await _sees_figures(rest, pending.token)
        assert not await _sees_figures(rest, None)


async def _sees_figures(rest: Rest, token: str | None) -> bool:
    answer = await rest.call("GET", "/health", token=token)
    assert answer.status == 200
    return "sessions_count" in answer.json
