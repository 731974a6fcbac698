"""The fuzzers: every parser for a moment with fixed seeds, and whether they would find anything."""

from random import Random

import pytest

from tests.fuzz.running import fuzz
from tests.fuzz.target import Parse, Target
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_answers_with_a_value_or_an_error_of_its_own(name: str) -> None:
    outcome = fuzz(TARGETS[name], Random(name), lambda tried: tried < (20 if name == "settings" else 150))

    assert outcome.finding is None


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_accepts_something_that_is_made_of_its_seeds(name: str) -> None:
    outcome = fuzz(TARGETS[name], Random(name), lambda tried: tried < len(TARGETS[name].seeds))

    assert outcome.accepted


def stumble(data: bytes) -> None:
    assert data[99]


def hang(data: bytes) -> None:
    while data:
        pass


def swell(data: bytes) -> None:
    assert data * (50 * 1024 * 1024)


@pytest.mark.parametrize(
    ("parse", "what"),
    [(stumble, "IndexError"), (hang, "hangs"), (swell, "memory grows")],
    ids=["another error", "a hang", "memory"],
)
def test_what_is_not_allowed_is_found(parse: Parse, what: str) -> None:
    target = Target(parse, (ValueError,), (b"seed",))

    outcome = fuzz(target, Random(1), lambda tried: tried < 5)

    assert outcome.finding is not None
    assert what in outcome.finding.what
