"""What msgspec says, shown to whoever sent the request."""

import pytest

from roomkey.api.flaws import flaw_in_body, flaw_in_query
from roomkey.security import apikeys
from roomkey.security.tokens import mint, mint_id


@pytest.mark.parametrize(
    ("message", "pointer", "detail"),
    [
        ("Expected `str`, got `int` - at `$.user_id`", "#/user_id", "Expected `str`, got `int`"),
        ("Expected `str` of length >= 1 - at `$.grants[3].documents`", "#/grants/3/documents", "Expected `str`"),
        ("Expected `str` of length <= 64 - at `key` in `$.metadata`", "#/metadata", "Expected `str`"),
        ("Object missing required field `user_id`", "#", "Object missing required field `user_id`"),
        ("Object contains unknown field `lifetme`", "#", "there is no `lifetme`"),
        ("ip: expected an address - at `$.client`", "#/client/ip", "expected an address"),
        ("Expected `int` - at `$[...]`", "#", "Expected `int`"),
    ],
)
def test_what_is_wrong_with_a_body_says_where(message: str, pointer: str, detail: str) -> None:
    flaw = flaw_in_body(message)

    assert flaw.pointer == pointer
    assert flaw.detail.startswith(detail)


def test_what_is_wrong_with_a_query_names_the_parameter() -> None:
    flaw = flaw_in_query("Expected `int` >= 1 - at `$.limit`")

    assert (flaw.parameter, flaw.detail) == ("limit", "Expected `int` >= 1")


@pytest.mark.parametrize("message", ["Invalid enum value '{}' - at `$.state`", "Object contains unknown field `{}`"])
def test_a_secret_in_the_wrong_place_is_not_repeated(message: str) -> None:
    for secret in (mint(mint_id(1)), apikeys.mint()[0]):
        flaw = flaw_in_body(message.format(secret))
        assert secret not in flaw.detail
