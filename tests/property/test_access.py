"""Patterns agree with the regular expression that one would write for them."""

import re

from hypothesis import given
from hypothesis import strategies as st

from roomkey.domain.access import Access, Grant, allows

PIECES = st.lists(st.sampled_from(["a", "b", "/", "*", "**"]), min_size=1, max_size=6)


def expression(pattern: str) -> str:
    parts = re.split(r"(\*+)", pattern)
    return "".join("[^/]*" if part == "*" else ".*" if part.startswith("*") else re.escape(part) for part in parts)


@given(PIECES.map("".join), st.text("ab/", max_size=8))
def test_a_pattern_matches_what_its_expression_matches(pattern: str, document: str) -> None:
    expected = re.fullmatch(expression(pattern), document) is not None

    assert allows([Grant(pattern, Access.READ)], document, Access.READ) is expected
