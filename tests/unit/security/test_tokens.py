"""The secrets that open sessions."""

import math
import re
from collections import Counter

import pytest

from roomkey.errors import InvalidToken
from roomkey.security import tokens

KEY = b"k" * 32


def test_a_token_names_its_session_and_adds_256_random_bits() -> None:
    id = tokens.mint_id(0x3A)

    token = tokens.mint(id)

    assert re.fullmatch(r"3a[a-z2-7]{26}", id)
    assert re.fullmatch(re.escape(id) + r"\.[A-Za-z0-9_-]{43}", token)
    assert tokens.session_of(token) == id


def test_ids_and_secrets_do_not_repeat_and_use_their_whole_alphabet() -> None:
    minted = [tokens.mint_both(number % 256)[1] for number in range(2000)]

    letters = Counter("".join(token[2:28] for token in minted))

    assert len({token[:28] for token in minted}) == len({token[29:] for token in minted}) == 2000
    # The first letter carries 3 of the 128 bits, every other one 5.
    entropy = -sum(count / 52_000 * math.log2(count / 52_000) for count in letters.values())
    assert entropy > 4.95


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "x" * 72,
        "3a" + "a" * 26,
        "3a" + "a" * 26 + "." + "A" * 42,
        "3a" + "a" * 26 + "." + "A" * 44,
        "3A" + "a" * 26 + "." + "A" * 43,
        "3a" + "a" * 26 + "." + "A" * 42 + "é",
        "3a" + "a" * 26 + "." + "A" * 42 + "\n",
        "g0" + "a" * 26 + "." + "A" * 43,
        "3a" + "1" * 26 + "." + "A" * 43,
        "\ud800" * 72,
    ],
)
def test_what_does_not_look_like_a_token_is_not_one(text: str) -> None:
    with pytest.raises(InvalidToken) as refusal:
        tokens.session_of(text)

    assert text not in str(refusal.value) or not text.strip(".")


def test_a_digest_opens_only_the_session_that_it_was_made_for() -> None:
    token = tokens.mint(tokens.mint_id(1))
    moved = tokens.mint_id(1) + token[28:]

    assert not tokens.same(tokens.digest(token), tokens.digest(moved))


def test_everyone_who_rotates_the_same_token_gets_the_same_successor() -> None:
    token = tokens.mint(tokens.mint_id(1))

    successors = {tokens.successor(KEY, token, 0) for _ in range(5)}

    assert len(successors) == 1
    assert tokens.session_of(successors.pop()) == tokens.session_of(token)


def test_a_successor_depends_on_the_key_and_the_generation() -> None:
    token = tokens.mint(tokens.mint_id(1))

    assert (
        len({tokens.successor(KEY, token, 0), tokens.successor(KEY, token, 1), tokens.successor(b"x", token, 0)}) == 3
    )


def test_a_former_token_can_be_told_from_a_made_up_one() -> None:
    first = tokens.mint(tokens.mint_id(1))
    second = tokens.successor(KEY, first, 0)
    third = tokens.successor(KEY, second, 1)
    made_up = tokens.mint(tokens.session_of(first))

    assert tokens.descends(KEY, first, tokens.digest(third), 2)
    assert tokens.descends(KEY, second, tokens.digest(third), 2)
    assert not tokens.descends(KEY, third, tokens.digest(third), 2)
    assert not tokens.descends(KEY, made_up, tokens.digest(third), 2)
    assert not tokens.descends(KEY, first, tokens.digest(first), 0)
