"""API keys."""

import re

import pytest

from roomkey.domain.access import Role
from roomkey.security.apikeys import ApiKey, ApiKeys, digest, mint


def test_a_key_is_found_by_what_was_minted_and_by_nothing_else() -> None:
    token, hashed = mint()
    keys = ApiKeys([ApiKey("backend", Role.SERVICE, hashed)])

    found = keys.find(token)

    assert found is not None
    assert (found.name, found.role, found.actor) == ("backend", Role.SERVICE, "key:backend")
    for wrong in (token[:-1], token + "x", token.upper(), hashed, "", "rkey_", "\ud800"):
        assert keys.find(wrong) is None


def test_a_key_has_256_random_bits_and_can_be_told_by_its_prefix() -> None:
    tokens = {mint()[0] for _ in range(100)}

    assert len(tokens) == 100
    assert all(re.fullmatch(r"rkey_[A-Za-z0-9_-]{43}", token) for token in tokens)


def test_the_configuration_holds_nothing_that_opens() -> None:
    token, hashed = mint()

    assert token not in repr(ApiKey("backend", Role.SERVICE, hashed))
    assert hashed == digest(token)


@pytest.mark.parametrize("wrong", ["", "ab", "g" * 64, "A" * 64, "a" * 65])
def test_a_digest_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="digest"):
        ApiKey("backend", Role.SERVICE, wrong)


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb"])
def test_a_name_must_be_fit_for_logs(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        ApiKey(name, Role.SERVICE, digest("x"))


def test_names_and_digests_are_given_once() -> None:
    with pytest.raises(ValueError, match="two API keys"):
        ApiKeys([ApiKey("a", Role.SERVICE, digest("x")), ApiKey("a", Role.ADMIN, digest("y"))])
    with pytest.raises(ValueError, match="same"):
        ApiKeys([ApiKey("a", Role.SERVICE, digest("x")), ApiKey("b", Role.ADMIN, digest("x"))])
