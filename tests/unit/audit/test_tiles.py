"""Tiles and bundles: their names, and what is in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkey.audit.tiles import (
    MAX_ENTRY_BYTES,
    MalformedBundle,
    Tile,
    TileFile,
    bundle,
    bundle_of,
    entries_of,
    file_at,
    last_tiles,
    width_of,
)


@pytest.mark.parametrize(
    ("file", "path"),
    [
        (TileFile(Tile(0, 0), 256), "tile/0/000"),
        (TileFile(Tile(0, 1_234_067), 256), "tile/0/x001/x234/067"),
        (TileFile(Tile(2, 1_000), 17), "tile/2/x001/000.p/17"),
        (bundle(273, 112), "tile/entries/273.p/112"),
        (bundle(999_999_999), "tile/entries/x999/x999/999"),
    ],
)
def test_a_file_has_one_path(file: TileFile, path: str) -> None:
    assert file.path == path
    assert file_at(path) == file


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/00/000",
        "tile/8/000",
        "tile/64/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/001/002",
        "tile/0/x001",
        "tile/0/../000",
        "tile/0/000/",
        "tile/data/000",
        "tile/entries/000\n",
        "/tile/0/000",
        "tile/0/\u0660\u0660\u0660",
        "tile/0/" + "x001/" * 60 + "000",
        "",
    ],
)
def test_nothing_else_is_a_path(path: str) -> None:
    assert file_at(path) is None


@given(st.integers(0, 10**15), st.integers(1, 256), st.integers(-1, 7))
def test_every_name_leads_back(number: int, width: int, level: int) -> None:
    file = TileFile(Tile(level, number), width)

    assert file_at(file.path) == file


def test_a_tree_of_70_000_has_the_tiles_of_the_specification() -> None:
    assert last_tiles(70_000) == [Tile(0, 273), Tile(1, 1), Tile(2, 0)]
    assert [width_of(tile, 70_000) for tile in last_tiles(70_000)] == [112, 17, 1]
    assert width_of(Tile(0, 272), 70_000) == 256
    assert width_of(Tile(0, 274), 70_000) == 0
    assert last_tiles(256) == [Tile(1, 0)]


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_entries_come_out_of_a_bundle_as_they_went_in(entries: list[bytes]) -> None:
    assert entries_of(bundle_of(entries)) == entries


def test_the_longest_entry_fits_and_no_longer_one() -> None:
    assert entries_of(bundle_of([bytes(MAX_ENTRY_BYTES)])) == [bytes(MAX_ENTRY_BYTES)]
    with pytest.raises(OverflowError):
        bundle_of([bytes(MAX_ENTRY_BYTES + 1)])


@given(st.binary(max_size=60))
def test_whatever_is_no_bundle_is_refused(content: bytes) -> None:
    try:
        entries = entries_of(content)
    except MalformedBundle:
        return
    assert bundle_of(entries) == content


@pytest.mark.parametrize("content", [b"\0", b"\0\1", b"\0\2a", b"\0\1ab"])
def test_a_bundle_that_was_cut_is_refused(content: bytes) -> None:
    with pytest.raises(MalformedBundle):
        entries_of(content)
