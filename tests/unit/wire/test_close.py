"""What a client is told when it is closed: one word that never changes, and the operator's own behind it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkey.wire.close import CLOSE_CODES, STOCK_CLOSE_CODES, CloseCode, CloseReason, close_payload, close_text

FINAL_TO_STOCK_CLIENTS = range(4400, 4500)


@pytest.mark.parametrize("reason", [CloseReason.SESSION_INVALIDATED, CloseReason.SESSION_SUSPENDED])
def test_the_reason_of_an_operator_stands_behind_the_code(reason: CloseReason) -> None:
    assert close_text(reason, "spam, twice") == f"{reason}: spam, twice"
    assert close_text(reason, None) == close_text(reason, " \n ") == reason


def test_what_nobody_did_on_purpose_has_no_reason_but_the_code() -> None:
    assert close_text(CloseReason.SESSION_EXPIRED, "idle") == "session_expired"
    assert close_text("unheard_of", "x") == "unheard_of"


@given(st.text())
def test_whatever_an_operator_writes_is_printable_and_fits_into_a_close_frame(cause: str) -> None:
    text = close_text(CloseReason.SESSION_INVALIDATED, cause)

    assert text.isprintable()
    assert text.partition(":")[0] == "session_invalidated"
    assert len(text.encode()) <= 123
    assert close_payload(4401, text)[2:].decode() == text


def test_lines_and_invisible_characters_become_spaces() -> None:
    assert close_text(CloseReason.SESSION_INVALIDATED, "a\r\nb\u202ec\x00d  e") == "session_invalidated: a b c d e"


def test_stock_clients_take_nothing_as_final_that_may_pass() -> None:
    for_now = {reason for reason, code in CLOSE_CODES.items() if code is CloseCode.SUSPENDED}

    assert for_now == {CloseReason.SESSION_SUSPENDED, CloseReason.SESSION_PENDING}
    assert not any(STOCK_CLOSE_CODES[reason] in FINAL_TO_STOCK_CLIENTS for reason in for_now)
    assert {reason for reason in CloseReason if STOCK_CLOSE_CODES[reason] != CLOSE_CODES[reason]} == for_now
