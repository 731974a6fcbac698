"""Who wrote what: kept for good, small, and told for every code point of a text."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pycrdt import Doc, Map, Text

from roomkey.documents.crdt.authorship import Authorship, BlameRange, blame
from roomkey.documents.crdt.updates import read_update
from roomkey.errors import Serialization
from roomkey.ports import Author, DocumentUpdate
from roomkey.wire.lib0 import number, text

ALICE = Author("user:alice", user="alice")
BOB = Author("user:bob", user="bob")

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


def typed(clock: int, length: int, *, client: int = 1, author: Author = ALICE, at: datetime = NOON) -> DocumentUpdate:
    content = text("x" * length)
    data = b"\x01\x01" + number(client) + number(clock) + b"\x04\x01" + text("content") + content + b"\x00"
    return DocumentUpdate(data, author, at)


def recorded(*updates: DocumentUpdate) -> Authorship:
    authorship = Authorship()
    for update in updates:
        authorship.record(update)
    return authorship


def authors(authorship: Authorship, *, client: int = 1, end: int = 100) -> list[tuple[int, int, str]]:
    return [(found.clock, found.end, found.author.actor) for found in authorship.contributions(client, 0, end)]


class Editors:
    """Two people who edit one document; whatever they do is recorded."""

    def __init__(self) -> None:
        self.authorship = Authorship()
        self.now = NOON
        self.docs: dict[Author, Doc[Any]] = {ALICE: Doc(client_id=1), BOB: Doc(client_id=2)}
        for author, doc in self.docs.items():
            self._listen(author, doc)

    def _listen(self, author: Author, doc: Doc[Any]) -> None:
        def note(event: Any) -> None:
            self.authorship.record(DocumentUpdate(event.update, author, self.now))

        doc.observe(note)

    def text(self, author: Author) -> Text:
        return self.docs[author].get("content", type=Text)

    def exchange(self) -> None:
        for doc in self.docs.values():
            for other in self.docs.values():
                doc.apply_update(other.get_update(doc.get_state()))

    def blame(self) -> list[BlameRange]:
        return blame(read_update(self.docs[ALICE].get_update()), "content", self.authorship)


def names(ranges: Iterable[BlameRange]) -> list[tuple[int, int, str | None]]:
    return [(found.start, found.end, found.author and found.author.user) for found in ranges]


# --- what is recorded ---------------------------------------------------------------------------------


def test_who_brings_it_first_is_the_author_for_good() -> None:
    authorship = recorded(typed(0, 5), typed(0, 5, author=BOB))

    assert authors(authorship) == [(0, 5, "user:alice")]


def test_of_what_is_partly_known_only_the_rest_is_new() -> None:
    authorship = recorded(typed(2, 2), typed(6, 2), typed(0, 10, author=BOB))

    expected = [(0, 2, "user:bob"), (2, 4, "user:alice"), (4, 6, "user:bob"), (6, 8, "user:alice"), (8, 10, "user:bob")]
    assert authors(authorship) == expected


def test_what_is_known_is_cut_to_what_is_asked_for() -> None:
    authorship = recorded(typed(0, 10), typed(10, 10, author=BOB))

    found = list(authorship.contributions(1, 5, 12))

    assert [(one.clock, one.end) for one in found] == [(5, 10), (10, 12)]


def test_clients_are_told_apart() -> None:
    authorship = recorded(typed(0, 5), typed(0, 5, client=2, author=BOB))

    assert authors(authorship, client=2) == [(0, 5, "user:bob")]
    assert authors(authorship, client=3) == []


def test_what_is_typed_without_a_pause_stays_small() -> None:
    authorship = recorded(*(typed(clock, 1, at=NOON + timedelta(milliseconds=clock)) for clock in range(10_000)))

    assert len(authorship) == 1
    assert len(authorship.pack()) < 100


def test_another_minute_is_another_contribution() -> None:
    authorship = recorded(typed(0, 5), typed(5, 5, at=NOON + timedelta(minutes=3, seconds=20)))

    assert [found.at for found in authorship.contributions(1, 0, 10)] == [NOON, NOON + timedelta(minutes=3)]


# --- as bytes -----------------------------------------------------------------------------------------


def test_what_was_packed_is_unpacked() -> None:
    authorship = recorded(
        typed(0, 5), typed(7, 2, author=BOB), typed(3, 9, client=2**53 - 1, at=NOON - timedelta(days=9))
    )

    unpacked = Authorship.unpack(authorship.pack())

    assert unpacked.pack() == authorship.pack()
    assert authors(unpacked) == authors(authorship)
    assert next(unpacked.contributions(2**53 - 1, 0, 99)).at == NOON - timedelta(days=9)


def test_recording_goes_on_after_unpacking() -> None:
    authorship = Authorship.unpack(recorded(typed(0, 5)).pack())

    authorship.record(typed(5, 5))

    assert authors(authorship) == [(0, 10, "user:alice")]


def test_nothing_is_unpacked_as_nothing() -> None:
    assert len(Authorship.unpack(None)) == 0


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\x02\x92\x90\x80",
        b"\x01",
        b"\x01\x92\x90\x81\x01\x94\x00\x01\x05\x00",
        b"\x01\x92\x91\x93\xa1a\xc0\xc0\x81\x01\x94\x00\x00\x00\x00",
        b"\x01\xff",
    ],
)
def test_what_is_damaged_is_reported(packed: bytes) -> None:
    with pytest.raises(Serialization):
        Authorship.unpack(packed)


# --- blame --------------------------------------------------------------------------------------------


def test_each_part_of_a_text_has_its_author() -> None:
    editors = Editors()
    editors.text(ALICE).insert(0, "hello world")
    editors.exchange()
    editors.text(BOB).insert(6, "brave ")
    editors.exchange()

    assert names(editors.blame()) == [(0, 6, "alice"), (6, 12, "bob"), (12, 17, "alice")]


def test_places_are_told_in_code_points() -> None:
    editors = Editors()
    editors.text(ALICE).insert(0, "é😀é😀")
    editors.exchange()
    editors.text(BOB).insert(len("é😀".encode()), "😀")
    editors.exchange()

    assert names(editors.blame()) == [(0, 2, "alice"), (2, 3, "bob"), (3, 5, "alice")]


def test_what_was_deleted_has_no_place() -> None:
    editors = Editors()
    editors.text(ALICE).insert(0, "hello world")
    editors.exchange()
    del editors.text(BOB)[2:8]
    editors.text(BOB).insert(2, "LLO")
    editors.exchange()

    assert names(editors.blame()) == [(0, 2, "alice"), (2, 5, "bob"), (5, 8, "alice")]


def test_what_was_deleted_has_no_place_even_where_it_is_kept() -> None:
    doc: Doc[Any] = Doc(client_id=1, skip_gc=True)
    doc.get("content", type=Text).insert(0, "hello")
    del doc["content"][1:4]

    assert blame(read_update(doc.get_update()), "content", Authorship()) == [BlameRange(0, 2, None, None)]


def test_formats_and_embedded_things_take_no_place() -> None:
    editors = Editors()
    editors.text(ALICE).insert(0, "hello")
    editors.text(ALICE).format(1, 4, {"bold": True})
    editors.text(ALICE).insert_embed(2, {"image": "x"})
    editors.exchange()
    editors.text(BOB).insert(0, "oh, ")
    editors.exchange()

    assert names(editors.blame()) == [(0, 4, "bob"), (4, 9, "alice")]


def test_who_wrote_it_survives_that_everything_becomes_one_update() -> None:
    editors = Editors()
    editors.text(ALICE).insert(0, "ab")
    editors.exchange()
    editors.text(BOB).insert(1, "X")
    editors.exchange()
    compacted: Doc[Any] = Doc()
    compacted.apply_update(editors.docs[ALICE].get_update())
    packed = editors.authorship.pack()

    ranges = blame(read_update(compacted.get_update()), "content", Authorship.unpack(packed))

    assert names(ranges) == [(0, 1, "alice"), (1, 2, "bob"), (2, 3, "alice")]


def test_times_are_told_by_the_minute() -> None:
    editors = Editors()
    editors.text(ALICE).insert(0, "ab")
    editors.now += timedelta(minutes=2, seconds=5)
    editors.text(ALICE).insert(2, "cd")

    assert [found.at for found in editors.blame()] == [NOON, NOON + timedelta(minutes=2)]


def test_other_roots_and_attributes_are_not_in_the_text() -> None:
    doc: Doc[Any] = Doc(client_id=1)
    doc.get("content", type=Text).insert(0, "ab")
    doc.get("other", type=Text).insert(0, "cd")
    doc.get("map", type=Map)["key"] = Text("ef")

    assert names(blame(read_update(doc.get_update()), "content", Authorship())) == [(0, 2, None)]
    assert blame(read_update(doc.get_update()), "nothing", Authorship()) == []
