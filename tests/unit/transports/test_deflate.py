"""What is agreed on for permessage-deflate, and how little a sender can make us allocate."""

import tracemalloc
import zlib

import pytest

from roomkey.transports.deflate import Inflater, negotiate
from roomkey.wire.close import Violation
from roomkey.wire.frame import Frame

PLAIN = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

AGREED = {
    "permessage-deflate": (PLAIN, 15),
    "permessage-deflate; client_max_window_bits": (PLAIN, 15),
    "permessage-deflate; client_max_window_bits=8": (PLAIN, 15),
    'permessage-deflate; client_max_window_bits="15"': (PLAIN, 15),
    "permessage-deflate;server_no_context_takeover;client_no_context_takeover": (PLAIN, 15),
    "permessage-deflate; server_max_window_bits=15": (f"{PLAIN}; server_max_window_bits=15", 15),
    "permessage-deflate; server_max_window_bits=9": (f"{PLAIN}; server_max_window_bits=9", 9),
    'permessage-deflate ; server_max_window_bits = "10"': (f"{PLAIN}; server_max_window_bits=10", 10),
    "x-webkit-deflate-frame, permessage-deflate": (PLAIN, 15),
    "permessage-bzip2; level=9, permessage-deflate; client_max_window_bits": (PLAIN, 15),
    "permessage-deflate; server_max_window_bits=8, permessage-deflate": (PLAIN, 15),
    "permessage-deflate; mystery, permessage-deflate; server_max_window_bits=12": (
        f"{PLAIN}; server_max_window_bits=12",
        12,
    ),
    "Permessage-Deflate, permessage-deflate; server_max_window_bits=12": (PLAIN, 15),
    ", ,permessage-deflate,": (PLAIN, 15),
}

DECLINED = [
    "",
    "permessage-bzip2",
    "permessage-deflate; mystery",
    "permessage-deflate; server_max_window_bits",
    "permessage-deflate; server_max_window_bits=8",  # zlib cannot keep that promise
    "permessage-deflate; server_max_window_bits=7",
    "permessage-deflate; server_max_window_bits=16",
    "permessage-deflate; server_max_window_bits=09",
    "permessage-deflate; server_max_window_bits=-9",
    "permessage-deflate; client_max_window_bits=7",
    "permessage-deflate; client_max_window_bits=16",
    'permessage-deflate; client_max_window_bits=""',
    "permessage-deflate; server_no_context_takeover=1",
    "permessage-deflate; client_no_context_takeover=true",
    "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
    "permessage-deflate; server_max_window_bits=9; server_max_window_bits=10",
    "permessage-deflate;",
    "permessage-deflate; =9",
    "permessage deflate",
    "; permessage-deflate",
]


@pytest.mark.parametrize("offers", AGREED)
def test_the_first_offer_that_can_be_kept_is_agreed_to(offers: str) -> None:
    agreement = negotiate(offers)

    assert agreement is not None
    assert (agreement.response, agreement.window_bits) == AGREED[offers]


@pytest.mark.parametrize("offers", DECLINED)
def test_what_cannot_be_kept_or_understood_is_declined(offers: str) -> None:
    assert negotiate(offers) is None


def test_hostile_offers_cost_no_more_than_their_length() -> None:
    for hostile in (
        "permessage-deflate" + "; a" * 20_000 + "!(",
        "a;" * 30_000,
        " " * 60_000 + "x y",
        "a" * 60_000 + "(",
    ):
        assert negotiate(hostile) is None


def deflate(message: bytes, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    data = compressor.compress(message) + compressor.flush(flush)
    return data.removesuffix(b"\x00\x00\xff\xff")


def test_a_message_of_exactly_the_room_there_is_fits() -> None:
    for size in (0, 1, 1000, 100_000):
        assert Inflater().inflate(deflate(b"x" * size), room=size, final=True) == b"x" * size


def test_one_byte_more_does_not() -> None:
    with pytest.raises(Violation) as caught:
        Inflater().inflate(deflate(b"x" * 1001), room=1000, final=True)

    assert caught.value.code == 1009


def test_a_bomb_takes_no_memory_beyond_the_room() -> None:
    bomb = deflate(bytes(50_000_000))

    tracemalloc.start()
    with pytest.raises(Violation):
        Inflater().inflate(bomb, room=10_000, final=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 200_000


@pytest.mark.parametrize("tail", [b"", b"\x00"])
def test_a_sender_may_end_the_stream_with_a_final_block(tail: bytes) -> None:
    ended = deflate(b"Hello", zlib.Z_FINISH) + tail  # RFC 7692, 7.2.3.5

    assert Inflater().inflate(ended, room=5, final=True) == b"Hello"


@pytest.mark.parametrize(
    "data", [b"\xff" * 10, deflate(b"Hello", zlib.Z_FINISH) + deflate(b"more"), b"\x03\x00" * 1000], ids=repr
)
def test_what_is_no_single_stream_is_refused(data: bytes) -> None:
    with pytest.raises(Violation) as caught:
        Inflater().inflate(data, room=10_000, final=True)

    assert caught.value.code == 1007


def test_everyone_with_the_same_window_shares_one_compressed_frame() -> None:
    frame = Frame(b"a word and " * 1000)

    assert frame.deflated() is frame.deflated(15)
    assert frame.deflated(9) is frame.deflated(9)
    assert frame.deflated(9) != frame.deflated(15)


def test_a_short_message_is_never_compressed() -> None:
    frame = Frame(b"x" * 1023)

    assert frame.deflated() is frame.plain
