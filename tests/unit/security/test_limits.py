"""Whose budget a request is charged to, and what its sender is told of it."""

import pytest

from roomkey.ports import Rate
from roomkey.security.budgets import Budgets
from roomkey.security.limits import LimitSettings, Policy, RequestLimits


def limits() -> RequestLimits:
    settings = LimitSettings(
        exempt_networks=("10.0.0.0/8",),
        exempt_keys=("backend",),
        address_request_burst=2,
        session_request_burst=3,
        key_request_burst=4,
    )
    return RequestLimits(settings, Budgets(now=lambda: 1_000.0))


@pytest.mark.parametrize("address", [None, "10.1.2.3", "::ffff:10.1.2.3"])
def test_who_has_no_address_or_is_exempt_is_not_counted(address: str | None) -> None:
    assert limits().of_address(address) is None


def test_a_network_has_one_budget() -> None:
    counted = limits()

    for address in ("2001:db8::1", "2001:db8::2", "2001:db8::3"):
        spent = counted.of_address(address)
    other = counted.of_address("2001:db8:0:1::1")

    assert spent is not None
    assert other is not None
    assert spent.standing.wait > 0
    assert other.standing.wait == 0


@pytest.mark.parametrize(
    ("actor", "session", "quota"),
    [("key:shop", None, 4), ("user:alice", "s1", 3), ("key:backend", "s1", 3)],
)
def test_a_request_is_charged_to_its_session_or_else_to_its_key(actor: str, session: str | None, quota: int) -> None:
    counted = limits()

    spent = counted.of_caller(actor, session)

    assert spent is not None
    assert spent.standing.remaining == quota - 1


@pytest.mark.parametrize("actor", ["key:backend", "anonymous", "user:alice"])
def test_an_exempt_key_and_who_is_nobody_are_charged_nothing(actor: str) -> None:
    assert limits().of_caller(actor, None) is None


@pytest.mark.parametrize(
    ("rate", "field"),
    [(Rate(10, 100), b'"key";q=100;w=10'), (Rate(100, 10), b'"key";q=10;w=1'), (Rate(2, 3), b'"key";q=3;w=2')],
)
def test_a_policy_says_its_quota_and_its_window(rate: Rate, field: bytes) -> None:
    assert Policy("key", rate).field == (b"ratelimit-policy", field)
