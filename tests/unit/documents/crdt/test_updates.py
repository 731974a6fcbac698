"""Reading updates: what Yjs itself wrote, and what nobody honest writes."""

from typing import Any

import pytest
from pycrdt import Doc, Text

from roomkey.documents.crdt.nesting import MAX_NESTING, UNMEASURED_TYPES, Nesting, depth_of
from roomkey.documents.crdt.updates import (
    MAX_VALUE_DEPTH,
    Block,
    BlockKind,
    ClockRange,
    MalformedUpdate,
    Place,
    Places,
    SharedKind,
    clients_of,
    read_update,
    validate,
)
from roomkey.wire.lib0 import number, text

# Written by Yjs 13.6, by hand: client 1 formats, embeds and deletes; client 2 builds XML; client 3 a map with a
# subdocument, bytes, every kind of value, a nested text and a large integer; 4 and another one share an array.
FORMATTED = bytes.fromhex(
    "010a0100040101740162810100028401020164840103012084010406c3a9f09f988046010004626f6c640474727565c601030104"
    "04626f6c64046e756c6cc6010401050577696474680131c5010a01050d7b22696d616765223a2278227dc6010b01050577696474"
    "68046e756c6c0101010102"
)
XML = bytes.fromhex(
    "010702000701017803017007000200060400020101688402020169280002000161017701314602020169027b7dc6020202030169046e756c6c00"
)
MAP = bytes.fromhex(
    "010703002901016d01640373756276002301016d01620201022801016d016e0175087d017d457c3fc000007c538000007e7f78760101"
    "6b7701762701016d017901270003030174020400030402696e2801016d03626967017a01b69b4ba630f34e00"
)
ARRAY = bytes.fromhex("0202b3e6cc99b3e6cc0100c80400040101770178480400017d030204000101016c01880400027d027d030104010001")
TYPED = bytes.fromhex("01010501840500016200")
GAP = bytes.fromhex("0103060004010174036162630a038406050367686900")

CORPUS = (FORMATTED, XML, MAP, ARRAY, TYPED, GAP)

OTHER_CLIENT = 900_719_925_474_099


def one_block(*content: bytes, client: int = 1, clock: int = 0) -> bytes:
    return b"\x01\x01" + number(client) + number(clock) + b"".join(content) + b"\x00"


def value_in_lists(depth: int) -> bytes:
    return one_block(b"\x08\x01", text("a"), b"\x01", b"\x75\x01" * depth, b"\x7e")


def maps_in_one_another(first: int, count: int) -> bytes:
    """Blocks ``first`` and following of client 1, each a map in the one before it."""
    parents = [
        b"\x01" + text("a") if clock == 0 else b"\x00\x01" + number(clock - 1) for clock in range(first, first + count)
    ]
    blocks = b"".join(b"\x27" + parent + text("k") + b"\x01" for parent in parents)
    return b"\x01" + number(count) + b"\x01" + number(first) + blocks + b"\x00"


# --- what Yjs writes ----------------------------------------------------------------------------------


def test_a_text_with_formats_and_an_embedded_thing_is_read() -> None:
    structs = read_update(FORMATTED)

    kinds = [block.kind for block in structs.blocks]
    assert kinds[:5] == [BlockKind.STRING, BlockKind.DELETED, *[BlockKind.STRING] * 3]
    assert kinds[5:] == [*[BlockKind.FORMAT] * 3, BlockKind.EMBED, BlockKind.FORMAT]
    assert structs.deleted == {1: [(1, 3)]}


def test_texts_count_in_units_of_utf_16() -> None:
    block = read_update(FORMATTED).blocks[4]

    assert (block.text, block.clock, block.length) == ("é😀", 5, 3)


def test_nested_types_say_what_they_are_and_in_what_they_lie() -> None:
    blocks = read_update(XML).blocks

    assert (blocks[0].parent, blocks[0].shared) == ("x", SharedKind.XML_ELEMENT)
    assert (blocks[1].parent, blocks[1].shared) == ((2, 0), SharedKind.XML_TEXT)
    assert (blocks[4].parent, blocks[4].key) == ((2, 0), "a")


def test_everything_that_a_map_can_hold_is_read() -> None:
    kinds = [block.kind for block in read_update(MAP).blocks]

    expected = [BlockKind.DOC, BlockKind.BINARY, BlockKind.ANY, BlockKind.TYPE, BlockKind.TYPE, BlockKind.STRING]
    assert kinds == [*expected, BlockKind.ANY]


def test_a_block_without_a_parent_lies_where_its_neighbours_do() -> None:
    blocks = read_update(ARRAY).blocks
    places = Places(blocks)

    assert [block.parent for block in blocks] == [None, None, "l", None]
    assert {places.of(block) for block in blocks} == {Place("l", None)}


def test_a_block_is_found_by_each_of_its_units_and_by_no_other() -> None:
    blocks = read_update(FORMATTED).blocks
    places = Places(blocks)

    assert places.find((1, 5)) == places.find((1, 7)) == blocks[4]
    assert places.find((1, 99)) is None
    assert places.find((2, 0)) is None


def test_blocks_that_are_their_own_neighbours_lie_nowhere() -> None:
    one, other = Block(1, 0, 1, BlockKind.ANY, origin=(2, 0)), Block(2, 0, 1, BlockKind.ANY, origin=(1, 0))

    assert Places([one, other]).of(one) is None


# --- whose it is --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("update", "ranges"),
    [
        (TYPED, [ClockRange(5, 1, 2)]),
        (FORMATTED, [ClockRange(1, 0, 13)]),
        (ARRAY, [ClockRange(OTHER_CLIENT, 0, 2), ClockRange(4, 0, 3)]),
        (GAP, [ClockRange(6, 0, 3), ClockRange(6, 6, 9)]),
        (b"\x00\x00", []),
        (one_block(b"\x84\x01\x00", text("😀"), clock=1), [ClockRange(1, 1, 3)]),
        (one_block(b"\x84\x01\x00", text("ab"), clock=2**28), [ClockRange(1, 2**28, 2**28 + 2)]),
        (one_block(b"\xc4\x01\x00\x02\x05", text("ab"), client=2**53 - 1, clock=9), [ClockRange(2**53 - 1, 9, 11)]),
    ],
)
def test_an_update_tells_whose_units_it_brings(update: bytes, ranges: list[ClockRange]) -> None:
    assert clients_of(update) == ranges


# --- what nobody honest writes ------------------------------------------------------------------------


@pytest.mark.parametrize("update", CORPUS)
def test_what_yjs_writes_is_accepted(update: bytes) -> None:
    validate(update)


@pytest.mark.parametrize("update", CORPUS)
def test_every_truncation_is_malformed(update: bytes) -> None:
    for length in range(len(update)):
        with pytest.raises(MalformedUpdate):
            read_update(update[:length])


SECTION = b"\x01\x01\x00\x04\x01" + text("a") + text("x")

KILLERS = {
    "a client that is listed twice": b"\x02" + SECTION + SECTION + b"\x00",
    "a block without a length": b"\x01\x02\x01\x00" + b"\x00\x00" + b"\x04\x01" + text("a") + text("x") + b"\x00",
    "a text without a length": one_block(b"\x84\x01\x00\x00"),
    "a value that nests too deep": value_in_lists(MAX_VALUE_DEPTH + 1),
    "a value that overflows the stack": value_in_lists(100_000),
    "a clock beyond 32 bits": one_block(b"\x84\x01\x00", text("xyz"), clock=2**32 - 2),
    "more blocks than bytes": b"\x01" + number(2**32) + b"\x01\x00",
    "more clients than bytes": number(2**40),
    "more values than bytes": one_block(b"\x08\x01", text("a"), number(2**31), b"\x7e"),
    "more list items than bytes": one_block(b"\x08\x01", text("a"), b"\x01\x75", number(2**31)),
    "more deleted ranges than bytes": b"\x00\x01\x01" + number(2**31) + b"\x00\x01",
    "a deleted clock beyond 32 bits": b"\x00\x01\x01\x01" + number(2**32) + b"\x01",
    "a client beyond 53 bits": one_block(b"\x84\x01\x00", text("x"), client=2**53),
    "a kind of block that is none": one_block(b"\x0c\x01", text("a")),
    "a type that is none": one_block(b"\x07\x01", text("a"), b"\x09"),
    "a value that is none": one_block(b"\x08\x01", text("a"), b"\x01\x50"),
    "a collected block with neighbours": one_block(b"\x80\x01\x00\x01"),
    "a text that is not UTF-8": one_block(b"\x04\x01", text("a"), b"\x03\xed\xa0\x80"),
    "something behind the update": TYPED + b"\x00",
    "nothing at all": b"",
}


@pytest.mark.parametrize("name", KILLERS)
def test_what_does_harm_is_refused(name: str) -> None:
    with pytest.raises(MalformedUpdate):
        validate(KILLERS[name])


def test_values_may_nest_as_deep_as_is_said() -> None:
    validate(value_in_lists(MAX_VALUE_DEPTH))


# --- types within types -------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 777])
def test_the_depth_of_types_is_counted(depth: int) -> None:
    assert depth_of(read_update(maps_in_one_another(0, depth)).blocks) == (depth, set())


def test_types_that_hang_on_something_missing_count_as_if_they_lay_within_one_another() -> None:
    chain = read_update(maps_in_one_another(10, 5)).blocks
    shallow = read_update(maps_in_one_another(0, 2)).blocks

    deepest, astray = depth_of([*shallow, *chain])

    assert deepest == 2 + 5
    assert astray == {(1, clock) for clock in range(10, 15)}


def test_a_type_beside_something_missing_hangs_on_it() -> None:
    beside = Block(1, 0, 1, BlockKind.TYPE, origin=(2, 0), shared=SharedKind.MAP)

    assert depth_of([beside]) == (1, {(1, 0)})


def test_types_that_lie_within_themselves_are_no_trap() -> None:
    one, other = (
        Block(1, clock, 1, BlockKind.TYPE, parent=(1, 1 - clock), key="k", shared=SharedKind.MAP) for clock in (0, 1)
    )

    assert depth_of([one, other])[0] == 2


def test_chains_that_wait_for_what_joins_them_are_stopped() -> None:
    doc: Doc[Any] = Doc()
    nesting = Nesting()
    waiting = 0

    for first in range(10_000, 0, -100):
        update = maps_in_one_another(first, 100)
        try:
            nesting.admit(update, doc.get_update)
        except MalformedUpdate:
            break
        doc.apply_update(update)
        waiting += 100

    assert waiting <= MAX_NESTING + UNMEASURED_TYPES


def test_a_chain_of_types_is_stopped_however_small_its_updates_are() -> None:
    doc: Doc[Any] = Doc()
    nesting = Nesting()
    refused_at = 0

    for depth in range(0, 10_000, 50):
        update = maps_in_one_another(depth, 50)
        try:
            nesting.admit(update, doc.get_update)
        except MalformedUpdate:
            refused_at = depth
            break
        doc.apply_update(update)

    assert MAX_NESTING - 50 <= refused_at <= MAX_NESTING + UNMEASURED_TYPES


def test_a_stored_document_is_measured_when_the_first_type_comes_in() -> None:
    doc: Doc[Any] = Doc()
    doc.apply_update(maps_in_one_another(0, MAX_NESTING))

    with pytest.raises(MalformedUpdate):
        Nesting().admit(maps_in_one_another(MAX_NESTING, 1), doc.get_update)


def test_typing_never_makes_a_document_be_measured() -> None:
    doc: Doc[Any] = Doc()
    updates: list[bytes] = []
    doc.observe(lambda event: updates.append(event.update))
    for _ in range(100):
        doc.get("content", type=Text).insert(0, "going, gone")
    nesting = Nesting()

    def measured() -> bytes:
        raise AssertionError

    for update in updates:
        nesting.admit(update, measured)


@pytest.mark.parametrize(
    "update",
    [
        # One client with four blocks; two with two each; one block and three deletions.
        b"\x01\x04\x07\x00" + b"\x00\x01" * 4 + b"\x00",
        b"\x02\x02\x07\x00" + b"\x00\x01" * 2 + b"\x02\x08\x00" + b"\x00\x01" * 2 + b"\x00",
        b"\x01\x01\x07\x00\x00\x01" + b"\x01\x07\x03" + b"\x00\x01\x02\x01\x04\x01",
        b"\x00" + b"\x02\x07\x02\x00\x01\x02\x01" + b"\x08\x02\x00\x01\x02\x01",
    ],
)
def test_what_has_more_parts_than_it_may_is_not_read(update: bytes) -> None:
    read_update(update, 4)
    read_update(update)

    with pytest.raises(MalformedUpdate, match="too many"):
        read_update(update, 3)
    with pytest.raises(MalformedUpdate, match="too many"):
        validate(update, None, 3)
