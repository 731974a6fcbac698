"""Merkle trees: the roots and proofs of RFC 6962, against its definition read word by word."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roomkey.audit.merkle import (
    EMPTY_ROOT,
    Range,
    consistency_path,
    inclusion_path,
    leaf_hash,
    proof_of,
    proves_consistency,
    proves_inclusion,
    subtrees,
)
from roomkey.audit.tiles import Tile, grown, hashes_in, last_tiles, root_of, tiles_for
from tests.support.audit import entry, naive_root
from tests.support.effort import examples

REFERENCE = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")] + [
    bytes(range(0x60, 0x70))
]
REFERENCE_ROOT = bytes.fromhex("5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328")

SMALL = 70
LARGE = 5_000
ENTRIES = [entry(number) for number in range(LARGE)]


def tiles_over(entries: list[bytes]) -> dict[Tile, bytes]:
    return dict(grown(0, {}, [leaf_hash(each) for each in entries]))


ALL = tiles_over(ENTRIES)
HASH_OF = hashes_in(ALL)


def test_the_reference_tree_has_the_reference_root() -> None:
    assert naive_root(REFERENCE) == REFERENCE_ROOT
    assert root_of(8, tiles_over(REFERENCE)) == REFERENCE_ROOT


def test_the_root_of_nothing_is_the_hash_of_nothing() -> None:
    assert root_of(0, {}) == EMPTY_ROOT
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_root_of_every_small_tree_is_that_of_the_definition() -> None:
    assert [root_of(size, ALL) for size in range(SMALL)] == [naive_root(ENTRIES[:size]) for size in range(SMALL)]


def test_every_entry_of_every_small_tree_is_proven_and_no_other() -> None:
    for size in range(1, SMALL):
        root = root_of(size, ALL)
        for index in range(size):
            proof = proof_of(inclusion_path(index, size), HASH_OF)
            leaf = leaf_hash(ENTRIES[index])
            assert proves_inclusion(leaf, index, size, proof, root)
            assert not proves_inclusion(leaf_hash(b"another"), index, size, proof, root)
            assert not proves_inclusion(leaf, index, size, [*proof, leaf], root)
            assert not proves_inclusion(leaf, size, size, proof, root)
            for other in {(index + 1) % size, index - 1} - {index}:
                assert not proves_inclusion(leaf, other, size, proof, root)


def test_every_small_tree_is_proven_to_begin_every_larger_one() -> None:
    for new in range(SMALL):
        for old in range(new + 1):
            proof = proof_of(consistency_path(old, new), HASH_OF)
            roots = root_of(old, ALL), root_of(new, ALL)
            assert proves_consistency(old, roots[0], new, roots[1], proof)
            assert not proves_consistency(old, leaf_hash(b"x"), new, roots[1], proof)
            assert not proves_consistency(old, roots[0], new, roots[1], [*proof, roots[0]])
            if old:
                assert not proves_consistency(old, roots[0], new, leaf_hash(b"x"), proof)
            if proof:
                assert not proves_consistency(old, roots[0], new, roots[1], proof[:-1])


def test_a_larger_tree_begins_no_smaller_one() -> None:
    assert not proves_consistency(2, root_of(2, ALL), 1, root_of(1, ALL), [])
    assert not proves_consistency(-1, EMPTY_ROOT, 1, root_of(1, ALL), [])


@settings(max_examples=examples(30), deadline=None)
@given(st.integers(1, LARGE), st.data())
def test_trees_of_any_size_have_the_root_of_the_definition_and_proofs_that_hold(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(0, size))
    root = root_of(size, ALL)

    assert root == naive_root(ENTRIES[:size])
    inclusion = proof_of(inclusion_path(index, size), HASH_OF)
    assert proves_inclusion(leaf_hash(ENTRIES[index]), index, size, inclusion, root)
    consistency = proof_of(consistency_path(old, size), HASH_OF)
    assert proves_consistency(old, root_of(old, ALL), size, root, consistency)
    for proof in (inclusion, consistency):
        for at in range(len(proof)):
            damaged = [*proof]
            damaged[at] = leaf_hash(damaged[at])
            if proof is inclusion:
                assert not proves_inclusion(leaf_hash(ENTRIES[index]), index, size, damaged, root)
            else:
                assert not proves_consistency(old, root_of(old, ALL), size, root, damaged)


@settings(max_examples=examples(20), deadline=None)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=8))
def test_a_tree_that_grows_in_steps_is_the_one_that_grew_at_once(steps: list[int]) -> None:
    tiles: dict[Tile, bytes] = {}
    size = 0
    for step in steps:
        leaves = [leaf_hash(each) for each in ENTRIES[size : size + step]]
        last = {tile: tiles[tile] for tile in last_tiles(size)}
        tiles |= grown(size, last, leaves)
        size += len(leaves)

    assert tiles == tiles_over(ENTRIES[:size])


@settings(max_examples=examples(30), deadline=None)
@given(st.integers(1, LARGE), st.data())
def test_the_tiles_that_are_asked_for_are_enough(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    path = inclusion_path(index, size)

    needed = tiles_for(path)

    assert proof_of(path, hashes_in({tile: ALL[tile] for tile in needed})) == proof_of(path, HASH_OF)
    for tile in needed:
        with pytest.raises(LookupError):
            proof_of(path, hashes_in({each: ALL[each] for each in needed - {tile}}))


def test_ranges_are_cut_into_subtrees_from_left_to_right() -> None:
    assert [(each.height, each.number) for each in subtrees(Range(8, 15))] == [(2, 2), (1, 6), (0, 14)]
