"""What grants allow."""

import pytest

from roomkey.domain.access import Access, Grant, allows, check_grants, reaches
from roomkey.errors import InvalidInput

READ, WRITE, ADMIN = Access.READ, Access.WRITE, Access.ADMIN


@pytest.mark.parametrize(
    ("pattern", "document", "matches"),
    [
        ("notes", "notes", True),
        ("notes", "Notes", False),
        ("notes", "notes/today", False),
        ("team/*", "team/plan", True),
        ("team/*", "team/", True),
        ("team/*", "team/plan/draft", False),
        ("team/**", "team/plan/draft", True),
        ("**", "anything/at all\u2028", True),
        ("*/plan", "team/plan", True),
        ("*/plan", "a/b/plan", False),
        ("a.c", "abc", False),
        ("[ab]", "a", False),
        ("täm/*", "täm/plän", True),
        ("a***", "a/b", True),
    ],
)
def test_a_star_stays_in_its_segment_and_two_do_not(pattern: str, document: str, matches: bool) -> None:  # noqa: FBT001
    assert allows([Grant(pattern, READ)], document, READ) is matches


@pytest.mark.parametrize(("given", "reach"), [(READ, {READ}), (WRITE, {READ, WRITE}), (ADMIN, {READ, WRITE, ADMIN})])
def test_each_level_includes_the_ones_before(given: Access, reach: set[Access]) -> None:
    assert {wanted for wanted in Access if allows([Grant("*", given)], "x", wanted)} == reach


def test_the_first_grant_that_matches_wins() -> None:
    grants = [Grant("team/secret", READ), Grant("team/*", WRITE)]

    assert not allows(grants, "team/secret", WRITE)
    assert allows(grants, "team/plan", WRITE)


def test_what_no_grant_mentions_is_closed() -> None:
    assert not allows([], "x", READ)
    assert not allows([Grant("y", ADMIN)], "x", READ)


@pytest.mark.parametrize("pattern", ["", "a\x00b", "line\nbreak", "x" * 1025, "é" * 513])
def test_a_pattern_that_cannot_be_a_name_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput):
        check_grants([Grant(pattern, READ)])


def test_too_many_grants_are_refused() -> None:
    with pytest.raises(InvalidInput):
        check_grants([Grant("*", READ)] * 257)


def test_many_stars_do_not_make_a_check_slow() -> None:
    hostile = "*a" * 500 + "b"  # backtracking over this would take longer than the universe is old

    assert not allows([Grant(hostile, READ)], "a" * 1024, READ)


@pytest.mark.parametrize(
    ("given", "included"), [(None, []), (READ, [READ]), (WRITE, [READ, WRITE]), (ADMIN, [READ, WRITE, ADMIN])]
)
def test_each_access_includes_the_ones_before_it(given: Access | None, included: list[Access]) -> None:
    assert [wanted for wanted in Access if reaches(given, wanted)] == included
