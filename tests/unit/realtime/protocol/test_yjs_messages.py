"""The bytes of the two Yjs protocols, one by one, and frames that the real clients have written."""

import json
import tracemalloc
from typing import Any

import pytest

from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.protocol.yjs_messages import AddressedMessage
from roomkey.wire import lib0
from roomkey.wire.lib0 import AwarenessEntry, Malformed

CLIENT = 4503599627370497
"""Of 53 bits, as new clients choose them; all frames below were written by this one."""

UPDATE = bytes.fromhex("0101818080808080800800040107636f6e74656e740a77c3b6726c64f09f988000")
EVERYTHING = bytes.fromhex(
    "0103818080808080800800010107636f6e74656e74018481808080808080080009c3b6726c64f09f98802801036d6170016b01"
    "7601016175057d017c402000007e78770178018180808080808008010001"
)
SHOWN = '{"user":{"name":"Zoë 😀","color":"#ff0000"},"cursor":null}'.encode()
ADDRESS = "notes/zoë\0s1"


@pytest.mark.parametrize("size", [0x7E, 0x7F, 0x80, 0x81])
def test_a_length_takes_two_bytes_from_128_on(size: int) -> None:
    update = bytes(size)

    assert yjs.decode(yjs.update(update)) == yjs.Update(update)


def test_a_length_that_goes_on_is_not_taken_for_a_short_one() -> None:
    with pytest.raises(Malformed):
        yjs.decode(b"\x00\x02\x80" + b"\x01" * 0x80)


# yjs 13.6.33 and y-protocols 1.0.7
FROM_Y_WEBSOCKET = {
    "00000a01818080808080800808": yjs.SyncStep1(bytes.fromhex("01818080808080800808")),
    "00000100": yjs.SyncStep1(lib0.EMPTY_STATE),
    "000151" + EVERYTHING.hex(): yjs.SyncStep2(EVERYTHING),
    "0001020000": yjs.SyncStep2(lib0.EMPTY_UPDATE),
    "000221" + UPDATE.hex(): yjs.Update(UPDATE),
    "00020d00018180808080808008010001": yjs.Update(bytes.fromhex("00018180808080808008010001")),
    "014801818080808080800801" + "3d" + SHOWN.hex(): yjs.AwarenessUpdate([AwarenessEntry(CLIENT, 1, SHOWN)]),
    "010f01818080808080800802046e756c6c": yjs.AwarenessUpdate([AwarenessEntry(CLIENT, 2, b"null")]),
    "03": yjs.QueryAwareness(),
}

# @hocuspocus/provider 4.8.0; without a version: 2 and 3
FROM_HOCUSPOCUS = {
    "0d6e6f7465732f7a6fc3ab00733102000774c3b66b2e656e05342e382e30": yjs.Token("tök.en", "4.8.0"),
    "0d6e6f7465732f7a6fc3ab007331020003746f6b": yjs.Token("tok"),
    "0d6e6f7465732f7a6fc3ab00733100000a01818080808080800808": yjs.SyncStep1(bytes.fromhex("01818080808080800808")),
    "0d6e6f7465732f7a6fc3ab0073310002" + "21" + UPDATE.hex(): yjs.Update(UPDATE),
    "0d6e6f7465732f7a6fc3ab0073310401" + "51" + EVERYTHING.hex(): yjs.SyncStep2(EVERYTHING),
    "0d6e6f7465732f7a6fc3ab00733103": yjs.QueryAwareness(),
    "0d6e6f7465732f7a6fc3ab007331050468c3a46c": yjs.Stateless("häl"),
    "0d6e6f7465732f7a6fc3ab00733107": yjs.Detach(),
}


# --- what clients say -----------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", FROM_Y_WEBSOCKET)
def test_frames_of_real_y_websocket_clients_are_understood(frame: str) -> None:
    message = yjs.decode(bytes.fromhex(frame))

    assert message == FROM_Y_WEBSOCKET[frame]


@pytest.mark.parametrize("frame", FROM_HOCUSPOCUS)
def test_frames_of_real_hocuspocus_clients_are_understood(frame: str) -> None:
    addressed = yjs.decode_addressed(bytes.fromhex(frame))

    assert addressed == AddressedMessage(ADDRESS, "notes/zoë", FROM_HOCUSPOCUS[frame])


def test_what_a_client_shows_may_have_half_a_character_in_it() -> None:
    # What y-protocols makes of a name that was cut in the middle of an emoji: JSON of JavaScript.
    frame = bytes.fromhex("011c01818080808080800803117b226e616d65223a225c7564383364227d")

    message = yjs.decode(frame)

    assert message == yjs.AwarenessUpdate([AwarenessEntry(CLIENT, 3, rb'{"name":"\ud83d"}')])


@pytest.mark.parametrize("sign", [b"\x09", b"\x0a"])
def test_signs_of_life_are_one_byte_without_an_address(sign: bytes) -> None:
    assert yjs.decode_addressed(sign) == AddressedMessage("", "", yjs.Sign(sign == b"\x09"))


def test_a_document_name_of_nine_bytes_is_no_ping() -> None:
    addressed = yjs.decode_addressed(b"\x09" + b"n" * 9 + b"\x03")

    assert addressed == AddressedMessage("n" * 9, "n" * 9, yjs.QueryAwareness())


def test_a_client_may_say_why_it_closes() -> None:
    assert yjs.decode_addressed(b"\x01d\x07\x03bye").message == yjs.Detach()


def test_tokens_do_not_show_in_what_is_printed() -> None:
    assert "geheim" not in repr(yjs.Token("geheim", "4"))
    assert "geheim" not in repr(yjs.decode_addressed(b"\x01d\x02\x00\x06geheim"))


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x02\x00\x03tok", id="a token: only Hocuspocus has them"),
        pytest.param(b"\x04\x01\x02\x00\x00", id="a reply: only Hocuspocus has them"),
        pytest.param(b"\x05\x01x", id="stateless: only Hocuspocus has it"),
        pytest.param(b"\x08\x01", id="a status: only servers send it"),
        pytest.param(b"\x09", id="a ping: only Hocuspocus has it"),
        pytest.param(b"\x63", id="an unknown message"),
        pytest.param(b"\x00\x03\x00", id="an unknown step"),
        pytest.param(b"\x03\x03", id="two messages in one frame"),
        pytest.param(b"\x00\x01\x02\x00\x00\x00", id="something behind the update"),
        pytest.param(b"\x00\x01\x03\x00\x00", id="an update that is cut off"),
        pytest.param(b"\x00\x00\x02\x01\x05", id="a state vector that is cut off"),
        pytest.param(b"\x00\x00\x02\x00\x05", id="something behind the state vector"),
        pytest.param(b"\x01\x02\x00\x00", id="something behind the awareness entries"),
        pytest.param(b"\x01\x04\x01\x01\x01\x00", id="an awareness state without JSON"),
        pytest.param(b"\x01\x06\x01\x01\x01\x02{]", id="an awareness state that is not JSON"),
        pytest.param(b"\x01\x08\x01\x01\x01\x03" + b'"\xff"', id="an awareness state that is not UTF-8"),
    ],
)
def test_what_y_websocket_clients_do_not_say_is_malformed(frame: bytes) -> None:
    with pytest.raises(Malformed):
        yjs.decode(frame)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x01d", id="an address and nothing else"),
        pytest.param(b"\x02d\x03", id="an address with fewer bytes than announced"),
        pytest.param(b"\x01\xff\x03", id="an address that is not UTF-8"),
        pytest.param(b"\x01d\x02\x02\x08readonly", id="a client that says what it may do"),
        pytest.param(b"\x01d\x02\x01\x02no", id="a client that denies"),
        pytest.param(b"\x01d\x02\x00\x03tok\x014x", id="something behind the version"),
        pytest.param(b"\x01d\x06\x01x", id="a broadcast: only servers send it"),
        pytest.param(b"\x01d\x08\x01", id="a status: only servers send it"),
        pytest.param(b"\x01d\x09", id="a ping with an address"),
        pytest.param(b"\x09\x09", id="two pings"),
    ],
)
def test_what_hocuspocus_clients_do_not_say_is_malformed(frame: bytes) -> None:
    with pytest.raises(Malformed):
        yjs.decode_addressed(frame)


# --- numbers and lengths --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (16383, "ff7f"),
        (16384, "808001"),
        (2**32, "8080808010"),
        (CLIENT, "8180808080808008"),
        (2**53 - 1, "ffffffffffffff0f"),
    ],
)
def test_numbers_are_little_endian_in_base_128(value: int, encoded: str) -> None:
    assert yjs.number(value).hex() == encoded
    assert yjs.read_number(bytes.fromhex(encoded) + b"rest", 0) == (value, len(encoded) // 2)


@pytest.mark.parametrize("encoded", ["", "80", "ffffffffffffff10", "ffffffffffffff8f01", "ff" * 100])
def test_numbers_beyond_53_bits_and_those_that_are_cut_off_are_malformed(encoded: str) -> None:
    with pytest.raises(Malformed):
        yjs.read_number(bytes.fromhex(encoded), 0)


def test_the_length_of_a_text_counts_bytes() -> None:
    assert yjs.text("zoë😀") == b"\x08zo\xc3\xab\xf0\x9f\x98\x80"
    assert yjs.read_text(b"\x08zo\xc3\xab\xf0\x9f\x98\x80", 0) == ("zoë😀", 9)


def test_the_bytes_of_a_field_end_with_the_frame() -> None:
    assert yjs.read_bytes(b"\x03abc", 0) == (b"abc", 4)
    with pytest.raises(Malformed):
        yjs.read_bytes(b"\x04abc", 0)


# --- what the server says -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (yjs.sync_step1(lib0.EMPTY_STATE), "00000100"),
        (yjs.sync_step2(lib0.EMPTY_UPDATE), "0001020000"),
        (yjs.sync_step2(EVERYTHING), "000151" + EVERYTHING.hex()),
        (yjs.update(UPDATE), "000221" + UPDATE.hex()),
        (yjs.awareness([AwarenessEntry(CLIENT, 2, b"null")]), "010f01818080808080800802046e756c6c"),
        (yjs.awareness([AwarenessEntry(CLIENT, 1, SHOWN)]), "0148018180808080808008013d" + SHOWN.hex()),
        (yjs.denied("read-only"), "02000972656164" + "2d6f6e6c79"),
        (yjs.saved(300), "08ac02"),
        (yjs.address(ADDRESS), "0d6e6f7465732f7a6fc3ab007331"),
        (yjs.authenticated("read-write"), "02020a726561642d7772697465"),
        (yjs.authenticated("readonly"), "020208726561646f6e6c79"),
        (yjs.permission_denied("nö"), "0201036ec3b6"),
        (yjs.token_wanted(), "0200"),
        (yjs.sync_status(applied=True), "0801"),
        (yjs.sync_status(applied=False), "0800"),
        (yjs.closed("bye"), "0703627965"),
        (yjs.PING, "09"),
        (yjs.PONG, "0a"),
    ],
)
def test_the_server_says_things_in_the_bytes_of_the_protocols(frame: bytes, expected: str) -> None:
    assert frame.hex() == expected


# --- what is announced costs nothing --------------------------------------------------------------------

MANY = yjs.number(2**50)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"\x00\x00" + yjs.sized(MANY + b"\x01\x01" * 5), id="clients of a state vector"),
        pytest.param(b"\x01" + yjs.sized(MANY + b"\x01\x01\x01\x30" * 2), id="awareness entries"),
        pytest.param(b"\x00\x02" + MANY + b"\x00\x00", id="bytes of an update"),
        pytest.param(b"\x01" + MANY + b"\x00", id="bytes of an awareness update"),
    ],
)
def test_a_small_frame_that_announces_much_costs_little(frame: bytes) -> None:
    tracemalloc.start()

    with pytest.raises(Malformed):
        yjs.decode(frame)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(frame) < 30
    assert peak < 100_000


@pytest.mark.parametrize("count", [2, 3, 10_000])
def test_more_entries_than_there_are_bytes_for_are_refused_before_the_first_is_read(count: int) -> None:
    with pytest.raises(Malformed, match="announced"):
        yjs.read_awareness(yjs.number(count) + b"\x01\x01\x02no")


def test_more_entries_than_anybody_needs_are_refused_too() -> None:
    with pytest.raises(Malformed, match="too many"):
        yjs.read_awareness(yjs.number(10_001) + b"\x01\x01\x02no")


def test_more_clients_than_there_are_bytes_for_are_refused_before_the_first_is_read() -> None:
    with pytest.raises(Malformed, match="announced"):
        lib0.read_state(b"\x02\x01\x01\x01")


def test_more_clients_than_any_document_has_are_refused_unread() -> None:
    with pytest.raises(Malformed, match="too many"):
        lib0.check_state(lib0.number(lib0.MAX_CLIENTS + 1))
    lib0.check_state(b"\x01\x01\x01")


# --- what is shown --------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_what_is_shown_may_nest_to_a_depth_that_every_client_bears() -> None:
    entry = AwarenessEntry(CLIENT, 1, nested(yjs.MAX_AWARENESS_DEPTH))

    assert yjs.read_awareness(b"\x01" + yjs.number(CLIENT) + b"\x01" + yjs.sized(entry.state)) == [entry]


@pytest.mark.parametrize("depth", [yjs.MAX_AWARENESS_DEPTH + 1, 1_000, 100_000])
def test_what_nests_deeper_is_malformed(depth: int) -> None:
    with pytest.raises(Malformed):
        yjs.decode(yjs.awareness([AwarenessEntry(CLIENT, 1, nested(depth))]))


def test_an_entry_is_gone_only_if_it_is_null() -> None:
    states = (b"null", b"{}", b'"null"', b"0")

    assert [AwarenessEntry(1, 1, state).is_gone for state in states] == [True, False, False, False]


def test_every_value_of_json_can_be_shown() -> None:
    values: list[Any] = [None, True, 0, -1.5e300, 2**80, "ö\x00", [], {"": {}}]
    states = [json.dumps(value).encode() for value in values]
    entries = [AwarenessEntry(number, number, state) for number, state in enumerate(states)]

    assert yjs.decode(yjs.awareness(entries)) == yjs.AwarenessUpdate(entries)


def test_a_state_vector_is_read_as_clocks() -> None:
    state = b"\x02" + yjs.number(CLIENT) + b"\x08\x07" + yjs.number(300)

    assert lib0.read_state(state) == {CLIENT: 8, 7: 300}
