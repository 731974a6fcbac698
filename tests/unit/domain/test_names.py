"""What may name something, in general."""

import pytest

from roomkey.domain.names import check_text
from roomkey.errors import InvalidInput


def test_the_message_says_what_is_wrong() -> None:
    with pytest.raises(InvalidInput, match="a status has 1 to 3 bytes"):
        check_text("a status", "online", max_bytes=3)


@pytest.mark.parametrize("text", ["é", "a", "日"])
def test_sizes_are_bytes_and_the_limit_may_be_reached(text: str) -> None:
    size = len(text.encode())

    assert check_text("a name", text, max_bytes=size) == text
    with pytest.raises(InvalidInput):
        check_text("a name", text * 2, max_bytes=2 * size - 1)
