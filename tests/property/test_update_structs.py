"""Whatever is in an update: it is read as the library reads it, or refused; and every character keeps its author."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from roomkey.documents.content.roots import Kind, root_kinds
from roomkey.documents.crdt.authorship import Authorship, blame
from roomkey.documents.crdt.integration_order import in_order
from roomkey.documents.crdt.updates import BlockKind, MalformedUpdate, Places, clients_of, read_update, validate
from roomkey.errors import Serialization
from roomkey.ports import Author, DocumentUpdate
from roomkey.wire.lib0 import number, read_state, text

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
AUTHORS = [Author(f"user:{name}", user=name) for name in ("alice", "bob", "carol")]

Step = tuple[int, int, int, str]

# Who, what, where, and a text.
steps = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 30), st.sampled_from(["a", "bc", "é😀", "uvuv"])),
    max_size=40,
)


def byte_place(text: Text, place: int) -> int:
    """A place between two characters, where the library wants it."""
    return len(str(text)[:place].encode())


def carry_out(docs: list[Doc[Any]], step: Step) -> None:  # noqa: C901  # a list of things to do
    who, what, place, word = step
    doc = docs[who]
    text = doc.get("text", type=Text)
    array = doc.get("array", type=Array)
    map = doc.get("map", type=Map)
    xml = doc.get("xml", type=XmlFragment)
    match what:
        case 0 | 1:
            text.insert(byte_place(text, place), word)
        case 2 if len(text):
            del text[byte_place(text, place) : byte_place(text, place + 3)]
        case 3:
            text.format(byte_place(text, place), byte_place(text, place + 4), {"bold": place % 2 == 0 or None})
        case 4:
            map[word] = [place, {"deep": [word]}] if place % 2 else Map({"inner": Text(word)})
        case 5:
            array.insert(min(place, len(array)), word if place % 2 else Array([place]))
        case 6 if len(array):
            del array[place % len(array)]
        case 7:
            xml.children.insert(0, XmlElement("p", {"class": word}, [XmlText(word)]))
        case 8 if len(xml.children):
            del xml.children[0]
        case 9:
            for other in docs:
                doc.apply_update(other.get_update(doc.get_state()))
        case _:
            pass


def document_after(what: list[Step]) -> bytes:
    docs: list[Doc[Any]] = [Doc(client_id=client + 1) for client in range(3)]
    for step in what:
        carry_out(docs, step)
    for other in docs:
        docs[0].apply_update(other.get_update(docs[0].get_state()))
    return docs[0].get_update()


@given(steps)
def test_the_ranges_of_a_whole_document_are_what_its_state_vector_says(what: list[Step]) -> None:
    update = document_after(what)
    doc: Doc[Any] = Doc()
    doc.apply_update(update)

    ranges = clients_of(update)

    assert {found.client: found.end for found in ranges} == read_state(doc.get_state())
    assert all(found.clock == 0 for found in ranges)


@given(steps)
def test_every_root_that_was_used_is_of_its_kind(what: list[Step]) -> None:
    structs = read_update(document_after(what))

    kinds = root_kinds(structs)

    expected = {"text": Kind.TEXT, "array": Kind.ARRAY, "map": Kind.MAP, "xml": Kind.XML}
    places = Places(structs.blocks)
    gone = {BlockKind.DELETED, BlockKind.GC}
    alive = {place.parent for block in structs.blocks if block.kind not in gone and (place := places.of(block))}
    assert kinds.keys() <= expected.keys()
    assert all(kind in (expected[name], Kind.EMPTY) for name, kind in kinds.items())
    assert all(kinds[name] is expected[name] for name in alive if isinstance(name, str))


@given(steps, st.data())
def test_a_damaged_update_is_read_or_malformed_and_never_hurts(what: list[Step], data: st.DataObject) -> None:
    update = bytearray(document_after(what))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(update) - 1))
        length = data.draw(st.integers(0, 3))
        update[place : place + length] = data.draw(st.binary(max_size=3))
        update = update or bytearray(1)

    with suppress(MalformedUpdate):
        read_update(bytes(update))
        clients_of(bytes(update))
        validate(bytes(update))
        # What is accepted makes the library say no, at worst.
        with suppress(ValueError, RuntimeError):
            Doc().apply_update(bytes(update))


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_malformed(update: bytes) -> None:
    for reader in (read_update, clients_of, validate):
        with suppress(MalformedUpdate):
            reader(update)


@given(steps)
def test_the_short_way_finds_what_the_long_way_finds(what: list[Step]) -> None:
    docs: list[Doc[Any]] = [Doc(client_id=client + 1) for client in range(3)]
    updates: list[bytes] = []
    for doc in docs:
        doc.observe(lambda event: updates.append(event.update))

    for step in what:
        carry_out(docs, step)

    for update in updates:
        validate(update)
        blocks = [block for block in read_update(update).blocks if block.kind is not BlockKind.SKIP]
        units = {(block.client, clock) for block in blocks for clock in range(block.clock, block.end)}
        assert units == {
            (found.client, clock) for found in clients_of(update) for clock in range(found.clock, found.end)
        }


# --- authorship ---------------------------------------------------------------------------------------

disjoint = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 5), st.sampled_from(AUTHORS), st.integers(0, 400)), max_size=30
)


def updates_of(pieces: list[tuple[int, int, Author, int]]) -> list[DocumentUpdate]:
    clocks = dict.fromkeys(range(1, 4), 0)
    updates: list[DocumentUpdate] = []
    for client, length, author, seconds in pieces:
        data = b"\x01\x01" + number(client) + number(clocks[client]) + b"\x04\x01" + text("t") + text("x" * length)
        updates.append(DocumentUpdate(data + b"\x00", author, NOON + timedelta(seconds=seconds)))
        clocks[client] += length
    return updates


def recorded(updates: list[DocumentUpdate]) -> Authorship:
    authorship = Authorship()
    for update in updates:
        authorship.record(update)
    return authorship


def everything(authorship: Authorship) -> list[Any]:
    return [list(authorship.contributions(client, 0, 10_000)) for client in range(1, 4)]


@given(disjoint)
def test_authorship_survives_its_bytes(pieces: list[tuple[int, int, Author, int]]) -> None:
    authorship = recorded(updates_of(pieces))

    assert everything(Authorship.unpack(authorship.pack())) == everything(authorship)


@given(disjoint, st.randoms(use_true_random=False))
def test_the_order_of_what_does_not_overlap_makes_no_difference(
    pieces: list[tuple[int, int, Author, int]], random: Any
) -> None:
    updates = updates_of(pieces)
    shuffled = random.sample(updates, len(updates))

    assert everything(recorded(shuffled)) == everything(recorded(updates))


@given(disjoint)
def test_each_unit_keeps_the_author_and_the_minute_in_which_it_came(pieces: list[tuple[int, int, Author, int]]) -> None:
    updates = updates_of(pieces)

    authorship = recorded([*updates, *(DocumentUpdate(one.data, AUTHORS[0], NOON) for one in updates)])

    for update in updates:
        (units,) = clients_of(update.data)
        for found in authorship.contributions(units.client, units.clock, units.end):
            assert found.author == update.author
            assert found.at == update.at.replace(second=0)


@given(st.binary(max_size=60))
def test_what_is_no_authorship_is_reported(packed: bytes) -> None:
    with suppress(Serialization):
        Authorship.unpack(b"\x01" + packed)


# --- order --------------------------------------------------------------------------------------------


@given(st.randoms(use_true_random=True))
def test_blocks_lie_in_the_order_in_which_the_library_has_them(random: Any) -> None:
    docs: list[Doc[Any]] = [Doc(client_id=client + 1) for client in range(4)]
    for turn in range(80):
        doc, peer = random.sample(docs, 2)
        content = doc.get("text", type=Text)
        place = random.randint(0, min(len(content), 6))
        if random.random() < 0.2:
            doc.apply_update(peer.get_update(doc.get_state()))
        elif random.random() < 0.1 and place < len(content):
            del content[place]
        else:
            content.insert(place, chr(97 + turn % 26) * random.randint(1, 3))
    for other in docs:
        docs[0].apply_update(other.get_update(docs[0].get_state()))

    runs = in_order(read_update(docs[0].get_update()).blocks)

    said = "".join(run.block.text[run.clock - run.block.clock : run.end - run.block.clock] for run in runs)
    assert said == str(docs[0].get("text", type=Text))


# --- blame --------------------------------------------------------------------------------------------

LETTERS = ("abcdefgh", "ABCDEFGH", "éßøλ😀🎉🌍🚀")
"""Everybody has an alphabet, so that a text tells itself who wrote what of it."""


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 30), st.integers(1, 3)), min_size=1, max_size=60
    )
)
def test_blame_knows_the_author_of_every_character(what: list[tuple[int, int, int, int]]) -> None:
    docs: list[Doc[Any]] = [Doc(client_id=7 - client) for client in range(3)]
    authorship = Authorship()

    def listen(author: Author, doc: Doc[Any]) -> None:
        doc.observe(lambda event: authorship.record(DocumentUpdate(event.update, author, NOON)))

    for author, doc in zip(AUTHORS, docs, strict=True):
        listen(author, doc)
    for who, kind, place, length in what:
        content = docs[who].get("text", type=Text)
        if kind <= 1:
            content.insert(byte_place(content, place), LETTERS[who][place % 4 : place % 4 + length])
        elif kind == 2:
            del content[byte_place(content, place) : byte_place(content, place + length)]
        elif kind == 3:
            content.format(
                byte_place(content, place), byte_place(content, place + length), {"i": place % 2 == 0 or None}
            )
        else:
            for other in docs:
                docs[who].apply_update(other.get_update(docs[who].get_state()))

    ranges = blame(read_update(docs[0].get_update()), "text", authorship)

    said = str(docs[0].get("text", type=Text))
    assert "".join(said[found.start : found.end] for found in ranges) == said
    for found in ranges:
        assert found.author is not None
        assert set(said[found.start : found.end]) <= set(LETTERS[AUTHORS.index(found.author)])
