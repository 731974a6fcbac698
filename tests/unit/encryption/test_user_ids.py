"""A storage sees names for users: equal for equal ones, in the same partition, and readable with the key alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkey.domain.session import MAX_USER_ID_BYTES, partition_of
from roomkey.encryption.user_ids import KEY_BYTES, MAX_CACHED, MAX_HIDDEN_BYTES, UserIds
from roomkey.errors import InvalidInput, Serialization


def user_ids(key: bytes = bytes(range(KEY_BYTES))) -> UserIds:
    made = UserIds()
    made.use(key)
    return made


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_names_are_those_of_one_user_in_its_partition_and_can_be_read_again(one: str, other: str) -> None:
    ids, elsewhere = user_ids(), user_ids()

    name = ids.hide(one)

    assert elsewhere.hide(one) == name
    assert elsewhere.show(name) == user_ids().show(name) == one
    assert (ids.hide(other) == name) == (one == other)
    assert partition_of(name) == partition_of(one)


@given(st.text(min_size=1, max_size=MAX_USER_ID_BYTES))
def test_every_user_whose_id_is_not_refused_has_a_name_that_storages_take(user_id: str) -> None:
    ids = user_ids()
    try:
        ids.check(user_id)
    except InvalidInput:
        assert len(user_id.encode()) > MAX_HIDDEN_BYTES
    else:
        assert len(ids.hide(user_id)) <= MAX_USER_ID_BYTES
        assert user_id not in ids.hide(user_id) or len(user_id) < 4


def test_the_longest_id_is_hidden_and_a_longer_one_refused() -> None:
    ids = user_ids()
    ids.check("x" * MAX_HIDDEN_BYTES)
    assert len(ids.hide("x" * MAX_HIDDEN_BYTES)) <= MAX_USER_ID_BYTES < len(ids.hide("x" * (MAX_HIDDEN_BYTES + 1)))

    with pytest.raises(InvalidInput, match="at most 159 bytes"):
        ids.check("é" * (MAX_HIDDEN_BYTES // 2 + 1))


def test_text_that_can_be_nobodys_id_can_be_looked_for() -> None:
    ids = user_ids()
    for text in ("\ud800", "x" * 10_000, "", "a\0b\x80"):
        assert ids.show(ids.hide(text)) == text


def test_the_length_of_a_name_says_only_in_sixteens_how_long_the_id_is() -> None:
    lengths = {len(user_ids().hide("x" * length)) for length in range(1, 16)}
    assert len(lengths) == 1


def test_without_a_key_ids_stay_as_they_are() -> None:
    ids = UserIds()
    assert not ids.are_hidden
    assert ids.hide("ada") == ids.show("ada") == "ada"
    ids.check("x" * MAX_USER_ID_BYTES)


def test_with_another_key_or_altered_a_name_is_nobodys() -> None:
    name = user_ids().hide("ada")
    for ids, wrong in (
        (user_ids(b"k" * KEY_BYTES), name),
        (user_ids(), "A" + name[1:] if name[0] != "A" else "B" + name[1:]),
        (user_ids(), "ada"),
        (user_ids(), ""),
        (user_ids(), "€uro" + name),
    ):
        with pytest.raises(Serialization):
            ids.show(wrong)


def test_a_user_more_than_are_remembered_makes_no_difference() -> None:
    ids = user_ids()
    first = ids.hide("0")
    ids._names |= {f"filled {number}": "" for number in range(MAX_CACHED)}  # pyright: ignore[reportPrivateUsage]

    assert ids.show(ids.hide("1")) == "1"
    assert len(ids._names) < 10  # pyright: ignore[reportPrivateUsage]
    assert ids.hide("0") == first
