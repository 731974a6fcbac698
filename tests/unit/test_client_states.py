"""What the end of a connection means to a client."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkey.client.calls import LONGEST_PAUSE_SECONDS, error_of, pause
from roomkey.client.states import Ending, State, ending_of
from roomkey.errors import Expired, InvalidInput, NotFound, RoomkeyError, Storage
from roomkey.problems import PRESENTATIONS, encode, example
from roomkey.wire.close import CLOSE_CODES, STOCK_CLOSE_CODES, CloseReason

PASSING = {
    CloseReason.LIMITS_IGNORED,
    CloseReason.TOO_SLOW,
    CloseReason.OVERLOADED,
    CloseReason.UNAVAILABLE,
    CloseReason.DRAINING,
    CloseReason.NO_HEARTBEAT,
    CloseReason.NOT_OPENED,
    CloseReason.TEXT_ONLY,
    CloseReason.BINARY_ONLY,
    CloseReason.TOO_FAST,
    CloseReason.NOT_AUTHENTICATED,
    CloseReason.STORAGE_LOST,
}
"""After which a client comes back by itself."""

OF_TOKENS = {
    CloseReason.SESSION_EXPIRED,
    CloseReason.TOKEN_ROTATED,
    CloseReason.TOKEN_REUSED,
    CloseReason.INVALID_TOKEN,
    CloseReason.CREDENTIALS_MISSING,
}
"""After which another token is asked for."""

OF_HOCUSPOCUS = {CloseReason.BAD_TOKENS, CloseReason.QUEUE_FULL}


@pytest.mark.parametrize("reason", [reason for reason in CloseReason if reason not in OF_HOCUSPOCUS])
def test_every_reason_that_a_server_has_means_one_thing_whatever_the_code(reason: CloseReason) -> None:
    endings = {ending_of(code, reason) for code in (CLOSE_CODES[reason], STOCK_CLOSE_CODES[reason], 0)}

    (ending,) = endings
    assert (ending.state is State.OFFLINE) == (reason in PASSING)
    assert ending.renews == (reason in OF_TOKENS)
    assert ending.code == reason


def test_what_an_operator_wrote_is_told_apart() -> None:
    assert ending_of(4401, "session_invalidated: spam: again") == Ending(
        State.REMOVED, "session_invalidated", "spam: again"
    )


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (4401, State.EXPIRED),
        (4403, State.REMOVED),
        (4503, State.SUSPENDED),
        (1006, State.OFFLINE),
        (4999, State.OFFLINE),
    ],
)
def test_a_reason_of_a_newer_server_is_judged_by_its_code(code: int, state: State) -> None:
    assert ending_of(code, "something_new").state is state


@given(st.integers(1, 10_000))
def test_pauses_are_never_longer_than_is_said(attempt: int) -> None:
    assert 0 <= pause(attempt) <= LONGEST_PAUSE_SECONDS


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (
            b'{"type":"t","title":"t","status":404,"detail":"no such thing","code":"not_found"}',
            NotFound,
            "no such thing",
        ),
        (b'{"type":"t","title":"t","status":410,"detail":"over","code":"session_expired"}', Expired, "over"),
        (b'{"type":"t","title":"t","status":422,"detail":"too long","code":"invalid_input"}', InvalidInput, "too long"),
        (b'{"type":"t","title":"t","status":418,"detail":"a teapot","code":"teapot"}', RoomkeyError, "a teapot"),
        (b"<html>", Storage, "the server, or something in front of it, answered 502"),
        (b"\xff", Storage, "the server, or something in front of it, answered 502"),
    ],
)
def test_what_a_server_says_is_the_error_that_it_is_there(
    content: bytes, kind: type[RoomkeyError], message: str
) -> None:
    error = error_of(502, content)
    assert type(error) is kind
    assert str(error) == message


@pytest.mark.parametrize("kind", PRESENTATIONS, ids=lambda kind: kind.__name__)
def test_whoever_catches_an_error_of_the_library_catches_it_from_a_server_too(kind: type[RoomkeyError]) -> None:
    problem = example(kind)

    made = error_of(problem.status, encode(problem))

    assert isinstance(made, kind) or issubclass(kind, type(made))
    assert str(made) == problem.detail
