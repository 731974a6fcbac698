"""What names and payloads may look like."""

from typing import Any

import pytest

from roomkey.errors import InvalidInput
from roomkey.security.inspection import check_document_name, is_deeper


@pytest.mark.parametrize(
    "name", ["d", "docs/2026/plan", "räume/ß", "日本語", "a b", "*", "v1.2", "..a/.b", "x" * 1024, "é" * 512]
)
def test_names_of_documents_are_printable_text(name: str) -> None:
    assert check_document_name(name) == name


@pytest.mark.parametrize("name", ["", "a\x00b", "a\nb", "\u202e", "a/..", "./a", "x" * 1025, "é" * 513, "\ud800"])
def test_other_names_are_refused_without_being_repeated(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_document_name(name)

    assert not name or name not in str(caught.value)


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value, "b": 2}
    return value


@pytest.mark.parametrize("depth", [0, 1, 2, 32])
def test_depth_counts_objects_and_arrays(depth: int) -> None:
    assert not is_deeper(nested(depth), depth)
    assert not is_deeper(nested(depth), depth + 2)
    assert is_deeper(nested(depth + 1), depth)


def test_depth_itself_does_no_harm() -> None:
    assert is_deeper(nested(100_000), 32)
