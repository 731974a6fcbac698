"""What narrows a key: laws of patterns, and of what may be handed on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkey.domain.access import Access, Grant, covers, literal_start, matches
from roomkey.security.narrowing import EVERYTHING, Narrowing, Scope

patterns = st.text(st.sampled_from("ab/*"), min_size=1, max_size=6)
names = st.text(st.sampled_from("ab/"), max_size=6)


@given(patterns, patterns, names)
def test_what_a_covered_pattern_matches_its_cover_matches_too(cover: str, pattern: str, name: str) -> None:
    if covers(cover, pattern) and matches(pattern, name):
        assert matches(cover, name)


@given(patterns)
def test_every_pattern_covers_itself_and_is_covered_by_everything(pattern: str) -> None:
    assert covers(pattern, pattern)
    assert covers("**", pattern)


@given(patterns, names)
def test_whatever_matches_begins_like_the_pattern(pattern: str, name: str) -> None:
    assert not matches(pattern, name) or name.startswith(literal_start(pattern))


@pytest.mark.parametrize(
    ("cover", "pattern", "is_covered"),
    [
        ("notes/**", "notes/*", True),
        ("notes/*", "notes/**", False),
        ("notes/**", "notes/a", True),
        ("notes/*", "*/a", False),
        ("a*b", "ab", True),
        ("a/*/b", "a**b", False),
        ("a*/*b", "a**b", False),
        ("notes/**", "**", False),
    ],
)
def test_patterns_are_compared_by_what_they_may_match(cover: str, pattern: str, *, is_covered: bool) -> None:
    assert covers(cover, pattern) is is_covered


def narrowings() -> st.SearchStrategy[Narrowing]:
    some = st.lists(patterns, min_size=1, max_size=2).map(tuple)
    scopes = st.lists(st.sampled_from(list(Scope)[:3]), min_size=1, max_size=3).map(tuple)
    return st.builds(Narrowing, scopes=st.none() | scopes, documents=st.none() | some, users=st.none() | some)


@given(narrowings(), narrowings(), names, st.sampled_from(list(Scope)))
def test_whoever_includes_another_can_do_all_that_it_can(
    one: Narrowing, other: Narrowing, name: str, scope: Scope
) -> None:
    if one.includes(other):
        assert one.has(scope) or not other.has(scope)
        assert one.sees_document(name) or not other.sees_document(name)
        assert one.sees_user(name) or not other.sees_user(name)


@given(narrowings())
def test_everything_includes_each_and_each_itself(one: Narrowing) -> None:
    assert EVERYTHING.includes(one)
    assert one.includes(one)
    assert one == EVERYTHING or not one.includes(EVERYTHING)


def test_a_key_gives_no_more_than_it_has() -> None:
    one = Narrowing(documents=("notes/**", "plan"))

    assert one.gives((Grant("notes/*", Access.ADMIN), Grant("plan", Access.READ)))
    assert one.gives(())
    assert not one.gives((Grant("notes/*", Access.READ), Grant("**", Access.READ)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"scopes": ()},
        {"documents": ()},
        {"users": ()},
        {"users": ("",)},
        {"documents": ("a\n",)},
        {"users": ("x",) * 33},
    ],
)
def test_what_would_narrow_to_nothing_or_to_nonsense_is_refused(wrong: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match=":"):
        Narrowing(**wrong)  # type: ignore[arg-type]
