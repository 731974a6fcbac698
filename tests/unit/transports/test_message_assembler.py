"""Assembling messages: what fails, how early, and what an unfinished message can cost."""

import tracemalloc

import pytest

from roomkey.transports.messages import BINARY, CONTINUATION, TEXT, MessageAssembler, check_utf8, close_code
from roomkey.wire.close import Violation, close_payload


def feed(
    assembler: MessageAssembler, opcode: int, payload: bytes = b"", *, final: bool = False, rsv1: bool = False
) -> bytes | None:
    return assembler.receive(opcode, payload, final=final, rsv1=rsv1)


def violation(
    assembler: MessageAssembler, opcode: int, payload: bytes = b"", *, final: bool = False, rsv1: bool = False
) -> int:
    with pytest.raises(Violation) as caught:
        feed(assembler, opcode, payload, final=final, rsv1=rsv1)
    return caught.value.code


@pytest.mark.parametrize(
    ("accepted", "fatal"),
    [
        (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5", b"\xf4\x90"),  # above U+10FFFF, seen at the second byte
        (b"\xce", b"\x20"),
        (b"x\xed\xa0", b"\x80"),  # a surrogate
        (b"", b"\xc0"),
        (b"\xe0", b"\x9f"),  # overlong
    ],
)
def test_a_text_fails_with_the_first_fragment_that_makes_it_invalid(accepted: bytes, fatal: bytes) -> None:
    assembler = MessageAssembler(1000, compression=False)

    feed(assembler, TEXT, accepted)

    assert violation(assembler, CONTINUATION, fatal) == 1007


def test_binary_fragments_are_anything() -> None:
    assembler = MessageAssembler(1000, compression=False)

    feed(assembler, BINARY, b"\xff")

    assert feed(assembler, CONTINUATION, b"\xed\xa0", final=True) == b"\xff\xed\xa0"
    assert assembler.binary


def test_a_message_fails_as_soon_as_it_is_too_long() -> None:
    assembler = MessageAssembler(10, compression=False)

    feed(assembler, BINARY, bytes(10))

    assert violation(assembler, CONTINUATION, b"x") == 1009


def test_any_number_of_empty_fragments_costs_nothing() -> None:
    assembler = MessageAssembler(10, compression=False)
    feed(assembler, TEXT)
    tracemalloc.start()

    for _ in range(10_000):
        feed(assembler, CONTINUATION)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000
    assert feed(assembler, CONTINUATION, b"x", final=True) == b"x"


def test_the_order_of_frames_is_kept_to() -> None:
    assert violation(MessageAssembler(10, compression=False), CONTINUATION, final=True) == 1002
    assert violation(MessageAssembler(10, compression=False), TEXT, rsv1=True) == 1002
    begun = MessageAssembler(10, compression=True)
    feed(begun, TEXT, b"x")
    assert violation(begun, TEXT, b"y", final=True) == 1002
    assert violation(begun, CONTINUATION, b"y", rsv1=True) == 1002


def test_a_finished_message_leaves_nothing_behind() -> None:
    assembler = MessageAssembler(10, compression=True)

    assert feed(assembler, TEXT, b"one", final=False) is None
    assert feed(assembler, CONTINUATION, b"", final=True) == b"one"

    assert feed(assembler, BINARY, b"\xff", final=True) == b"\xff"
    assert violation(assembler, CONTINUATION, final=True) == 1002


def test_long_texts_are_checked_across_the_seams_of_the_check() -> None:
    text = ("x" + "κ" * 100_000).encode()  # every seam falls inside a character

    check_utf8(text)
    for broken in (text[:-1], text[:70_000] + b"\xff" + text[70_000:]):
        with pytest.raises(Violation):
            check_utf8(broken)


def test_only_codes_that_may_be_sent_are_close_codes() -> None:
    def accepts(code: int) -> bool:
        try:
            return close_code(code.to_bytes(2, "big")) == code
        except Violation as error:
            return error.code != 1002

    assert [code for code in range(65536) if accepts(code)] == [
        *range(1000, 1004),
        *range(1007, 1015),
        *range(3000, 5000),
    ]


def test_a_close_reason_is_cut_between_characters() -> None:
    payload = close_payload(1000, "κ" * 100)

    assert len(payload) == 124
    assert payload[2:].decode() == "κ" * 61
