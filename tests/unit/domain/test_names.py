"""What may name something: in general, by kind, and in every script."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkey.domain.names import MAX_MARKS, RULES, check_name, check_text, without_tricks
from roomkey.errors import InvalidInput

NAMES = [
    "Ada Lovelace",
    "O'Brien",
    "Zoë",
    "Nguyễn Thị Minh Khai",
    "Đặng Thị Ngọc Thịnh",
    "Владимир",
    "Ελένη",
    "محمد بن سلمان",
    "مى‌خواهم",  # Persian: a joiner keeps its letters apart
    "שָׁלוֹם",
    "हिन्दी",
    "க்‍ஷ",
    "日本 太郎",
    "김민수",
    "ไทย",
    "Þór",
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿",  # England: a flag and its tags
    "Straße 5",
    "Владимир (Vladimir)",
    "Ada \u200eשלום\u200e",  # noqa: RUF001
    "\u00b5m",
]
"""Names of honest people and things."""

TRICKS = {
    "an override": "user\u202egnp.exe",
    "an isolate": "a\u2066b\u2069",
    "a space without width": "ad\u200bmin",
    "a byte order mark": "\ufeffadmin",
    "a soft hyphen": "ad\u00admin",
    "a word joiner": "ad\u2060min",
    "a filler of Hangul": "\u3164",
    "empty Braille": "\u2800",
    "a line separator": "a\u2028b",
    "a bell": "a\x07b",
    "an escape sequence": "\x1b[31madmin",
    "C1": "a\x9bb",
    "hidden tags": "admin\U000e0061\U000e0062",
    "a pile of marks": "a" + "\u0300" * 12,
}


def test_a_letter_has_as_many_marks_as_any_script_needs_and_no_more() -> None:
    assert check_name("label", "a label", "x" + "\u0301" * MAX_MARKS)
    assert MAX_MARKS == 8
    with pytest.raises(InvalidInput, match="at most 8 marks"):
        check_name("label", "a label", "x" + "\u0301" * (MAX_MARKS + 1))


def test_the_message_says_what_is_wrong() -> None:
    with pytest.raises(InvalidInput, match="a status has 1 to 3 bytes"):
        check_text("a status", "online", max_bytes=3)


@pytest.mark.parametrize("text", ["é", "a", "日"])
def test_sizes_are_bytes_and_the_limit_may_be_reached(text: str) -> None:
    size = len(text.encode())

    assert check_text("a name", text, max_bytes=size) == text
    with pytest.raises(InvalidInput):
        check_text("a name", text * 2, max_bytes=2 * size - 1)


@pytest.mark.parametrize("name", NAMES)
def test_people_may_be_called_what_they_are_called(name: str) -> None:
    assert check_name("name", "a name", name) == name
    assert check_name("label", "a label", name) == name
    assert without_tricks(name) == name


@pytest.mark.parametrize(
    "id", ["alice", "a--b", "ada@example.com", "https://id.example/5", "owner|5", "ноль", "名前", "Nguyễn"]
)
def test_an_identity_may_be_in_any_script(id: str) -> None:
    assert check_name("user_id", "a user id", unicodedata.normalize("NFC", id))


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("text", TRICKS.values(), ids=TRICKS.keys())
def test_what_a_reader_would_not_see_is_refused_everywhere(text: str, kind: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_name(kind, "it", text)

    assert text not in str(caught.value)


@pytest.mark.parametrize("joiner", ["\u200c", "\u200d", "\u200e", "\u200f", "\u061c", "\ufe0f"])
def test_two_identities_do_not_differ_in_what_joins_letters(joiner: str) -> None:
    assert check_name("name", "a name", f"a{joiner}b")
    with pytest.raises(InvalidInput):
        check_name("user_id", "an id", f"a{joiner}b")


def test_an_identity_has_one_spelling() -> None:
    assert check_name("user_id", "a user id", "Zo\u00eb")
    with pytest.raises(InvalidInput, match="normal form C"):
        check_name("user_id", "a user id", "Zoe\u0308")
    assert check_name("document", "a document", "Zoe\u0308")


@pytest.mark.parametrize(
    "text",
    ["\u0430dmin", "p\u0430ypal", "\u0391lice", "\uff41dmin", "\U0001d44edmin", "Ro\u03bfmkey"],
    ids=ascii,
)
def test_a_word_of_two_alphabets_is_somebody_else_s_name(text: str) -> None:
    for kind in ("user_id", "name"):
        with pytest.raises(InvalidInput, match="alphabets"):
            check_name(kind, "it", text)
    assert check_name("label", "a label", text) == text


@given(st.text().filter(lambda text: "\u0300" not in text))
def test_what_is_left_after_the_tricks_has_none(text: str) -> None:
    left = without_tricks(text)

    assert without_tricks(left) == left
    assert check_name("label", "a label", left) == left
