"""Every message survives its journey in both framings, and whatever else arrives is a message or malformed."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from pycrdt import Doc, Map, Text

from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.protocol.yjs_messages import AddressedMessage, Message
from roomkey.wire import lib0
from roomkey.wire.lib0 import AwarenessEntry, Malformed

NUMBERS = st.integers(0, lib0.MAX_NUMBER) | st.integers(0, 300)
TEXTS = st.text(max_size=20)
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXTS, values, max_size=3),
    max_leaves=8,
)
ENTRIES = st.lists(
    st.builds(
        AwarenessEntry,
        NUMBERS,
        NUMBERS,
        JSON.map(lambda value: json.dumps(value).encode())
        | JSON.map(lambda value: json.dumps(value, ensure_ascii=False).encode()),
    ),
    max_size=5,
)
STATES = st.dictionaries(NUMBERS, NUMBERS, max_size=5).map(
    lambda clocks: (
        lib0.number(len(clocks))
        + b"".join(lib0.number(client) + lib0.number(clock) for client, clock in clocks.items())
    )
)
UPDATES = st.binary(max_size=300)

Frames = st.SearchStrategy[tuple[Message, bytes]]


def spoken(made: Callable[..., Message], written: Callable[[Any], bytes], values: st.SearchStrategy[Any]) -> Frames:
    return values.map(lambda value: (made(value), written(value)))


COMMON: Frames = st.one_of(
    spoken(yjs.SyncStep1, yjs.sync_step1, STATES),
    spoken(yjs.SyncStep2, yjs.sync_step2, UPDATES),
    spoken(yjs.Update, yjs.update, UPDATES),
    spoken(yjs.AwarenessUpdate, yjs.awareness, ENTRIES),
    st.just((yjs.QueryAwareness(), b"\x03")),
)
HOCUSPOCUS: Frames = st.one_of(
    COMMON,
    spoken(yjs.Stateless, lambda payload: b"\x05" + lib0.text(payload), TEXTS),
    spoken(yjs.Token, lambda token: b"\x02\x00" + lib0.text(token), TEXTS),
    st.tuples(TEXTS, TEXTS).map(lambda both: (yjs.Token(*both), b"\x02\x00" + lib0.text(both[0]) + lib0.text(both[1]))),
    st.sampled_from([(yjs.Detach(), b"\x07"), (yjs.Detach(), b"\x07\x03bye")]),
)


@given(NUMBERS, st.binary(max_size=3), st.binary(max_size=3))
def test_numbers_survive(value: int, before: bytes, behind: bytes) -> None:
    encoded = lib0.number(value)

    assert lib0.read_number(before + encoded + behind, len(before)) == (value, len(before) + len(encoded))
    assert len(encoded) == max(1, (value.bit_length() + 6) // 7)


@given(st.text())
@example("\0")
@example("zoë😀")
def test_texts_survive_and_count_their_bytes(value: str) -> None:
    encoded = lib0.text(value)

    assert lib0.read_text(encoded, 0) == (value, len(encoded))
    assert lib0.read_number(encoded, 0)[0] == len(value.encode())


@given(COMMON)
def test_messages_survive_in_a_frame_of_y_websocket(spoken: tuple[Message, bytes]) -> None:
    message, frame = spoken

    assert yjs.decode(frame) == message


@given(NAMES, st.none() | TEXTS, HOCUSPOCUS)
def test_messages_survive_in_a_frame_of_hocuspocus(
    document: str, session: str | None, spoken: tuple[Message, bytes]
) -> None:
    message, frame = spoken
    address = document if session is None else f"{document}\0{session}"

    addressed = yjs.decode_addressed(yjs.address(address) + frame)

    assert addressed == AddressedMessage(address, document, message)


@given(HOCUSPOCUS, NAMES, st.data())
def test_a_frame_that_is_cut_off_is_never_taken_for_a_whole_one(
    spoken: tuple[Message, bytes], document: str, data: st.DataObject
) -> None:
    whole = yjs.address(document) + spoken[1]
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]

    understood = outcome(yjs.decode_addressed, cut)

    # A token without its version, and a farewell without its reason, are whole as well. And what is left of an
    # address may look like a sign of life.
    optional = isinstance(spoken[0], yjs.Token | yjs.Detach)
    assert understood is None or optional or len(cut) == 1


@given(COMMON, st.data())
def test_what_became_of_a_frame_on_its_way_is_a_message_or_malformed(
    spoken: tuple[Message, bytes], data: st.DataObject
) -> None:
    frame = bytearray(spoken[1])
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))

    outcome(yjs.decode, bytes(frame))
    outcome(yjs.decode_addressed, bytes(frame))


@given(st.binary(max_size=200))
def test_whatever_arrives_is_a_message_or_malformed(frame: bytes) -> None:
    outcome(yjs.decode, frame)
    outcome(yjs.decode_addressed, frame)


@given(STATES)
def test_what_is_understood_says_the_same_when_it_is_written_again(state: bytes) -> None:
    clocks = lib0.read_state(state)

    assert yjs.decode(yjs.sync_step1(state)) == yjs.SyncStep1(state)
    assert state == lib0.number(len(clocks)) + b"".join(lib0.number(c) + lib0.number(n) for c, n in clocks.items())


@given(st.lists(st.tuples(st.sampled_from(["text", "key"]), TEXTS), max_size=20))
def test_state_vectors_of_the_native_library_are_read_as_what_they_say(edits: list[tuple[str, str]]) -> None:
    doc: Doc[Any] = Doc()
    text, keys = doc.get("text", type=Text), doc.get("keys", type=Map)
    for kind, value in edits:
        if kind == "text":
            text += value
        else:
            keys[value] = value

    clocks = lib0.read_state(doc.get_state())

    typed = sum(len(value.encode("utf-16-le")) // 2 for kind, value in edits if kind == "text")
    assert sum(clocks.values()) == typed + sum(kind == "key" for kind, _ in edits)
    assert set(clocks) <= {doc.client_id}


def outcome(decode: Callable[[bytes], object], frame: bytes) -> object | None:
    """What it is taken for; ``None`` if it is malformed. Anything else that is raised fails the test."""
    try:
        return decode(frame)
    except Malformed:
        return None
