"""The values: what they show, and what they keep to themselves."""

import copy
import pickle
from collections.abc import Callable

import msgspec
import pytest

from roomkey.domain.session import IssuedSession, check_user_id, partition_of, partition_of_id
from roomkey.errors import InvalidInput
from roomkey.security import tokens
from tests.support.sessions import ALICE, pending


def issued() -> IssuedSession:
    return IssuedSession(pending(), tokens.mint(ALICE))


def test_an_issued_session_reads_like_a_session_and_has_the_token() -> None:
    session = issued()

    assert (session.id, session.user_id, session.state) == (ALICE, "alice", "pending")
    assert tokens.session_of(session.token) == ALICE


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format])
def test_an_issued_session_is_shown_without_its_token(show: Callable[[object], str]) -> None:
    session = issued()

    assert session.token[29:] not in show(session)


@pytest.mark.parametrize("encode", [pickle.dumps, copy.copy, msgspec.json.encode, msgspec.msgpack.encode])
def test_an_issued_session_cannot_be_serialised(encode: Callable[[object], object]) -> None:
    with pytest.raises(TypeError):
        encode(issued())


@pytest.mark.parametrize("user_id", ["a", "ünïcode", "🙂" * 64, "x" * 256, "with space", "a/b"])
def test_a_user_may_be_called_what_people_are_called(user_id: str) -> None:
    assert check_user_id(user_id) == user_id


@pytest.mark.parametrize("user_id", ["", "x" * 257, "🙂" * 65, "a\x00", "a\nb", "\x1b[31m", "\u202e", "\ud800"])
def test_a_name_that_could_deceive_a_reader_is_refused(user_id: str) -> None:
    with pytest.raises(InvalidInput):
        check_user_id(user_id)


def test_an_id_alone_finds_the_partition_of_its_user() -> None:
    for number in range(500):
        partition = partition_of(f"user-{number}")
        assert partition_of_id(tokens.mint_id(partition)) == partition
