"""
Merkle trees over entries: hashes, and proofs that one entry is in a tree or that one tree begins another.

The tree is that of RFC 6962, 2.1 (RFC 9162, 2.1). A proof is a list of hashes of ranges of leaves: the ``path``
functions say which ranges, in order, and whoever has tiles or leaves computes the hashes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

HASH_BYTES: Final = 32

EMPTY_ROOT: Final = sha256(b"").digest()

MOST_HASHES: Final = 64
"""Hashes in the longest proof of a tree whose size has 63 bits."""


class Range(NamedTuple):
    """The leaves from ``start`` up to, but not, ``end``: one node of the tree stands for all of them."""

    start: int
    end: int


class Subtree(NamedTuple):
    """A node with 2 ** ``height`` leaves below it, the first of which is leaf ``number`` * 2 ** ``height``."""

    height: int
    number: int


def leaf_hash(entry: bytes) -> bytes:
    """The hash of one entry."""
    return sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node by those of the two below it."""
    return sha256(b"\1" + left + right).digest()


def full_root(hashes: Sequence[bytes]) -> bytes:
    """The hash of the node over 2 ** n ``hashes``."""
    while len(hashes) > 1:
        pairs = iter(hashes)
        hashes = [sha256(b"\1" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
    return hashes[0]


def folded(hashes: Iterable[bytes]) -> bytes:
    """The hash over perfect subtrees of decreasing size, from left to right; without any, that of the empty tree."""
    remaining = [*hashes]
    if not remaining:
        return EMPTY_ROOT
    root = remaining.pop()
    while remaining:
        root = node_hash(remaining.pop(), root)
    return root


def subtrees(leaves: Range) -> Iterator[Subtree]:
    """
    The perfect subtrees that ``leaves`` are made of, from left to right.

    ``leaves`` is a range that a node stands for: it begins where a subtree of the size of its largest begins.
    """
    position = leaves.start
    for height in range((leaves.end - leaves.start).bit_length() - 1, -1, -1):
        if (leaves.end - leaves.start) >> height & 1:
            yield Subtree(height, position >> height)
            position += 1 << height


def inclusion_path(index: int, size: int) -> Sequence[Range]:
    """
    What proves that leaf ``index`` is in the tree of the first ``size`` leaves, from the leaf to the root.

    RFC 6962, 2.1.1. ``index`` must be less than ``size``.
    """
    path: list[Range] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(Range(middle, end))
            end = middle
        else:
            path.append(Range(start, middle))
            start = middle
    return path[::-1]


def consistency_path(old: int, new: int) -> Sequence[Range]:
    """
    What proves that the tree of the first ``old`` leaves begins that of the first ``new``.

    RFC 6962, 2.1.2. Nothing, if ``old`` is none or all of them.
    """
    if not 0 < old < new:
        return ()
    path: list[Range] = []
    start, end = 0, new
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(Range(middle, end))
            end = middle
        else:
            path.append(Range(start, middle))
            start = middle
    if start:  # otherwise it is the old tree itself, whose root the verifier has
        path.append(Range(start, end))
    return path[::-1]


def proves_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether ``proof`` shows that ``leaf``, a hash, is number ``index`` of the ``size`` leaves below ``root``."""
    return 0 <= index < size and root_by_inclusion(leaf, index, size, proof) == root


def root_by_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes | None:
    """The root that ``proof`` leads to from ``leaf``; ``None`` if it has the wrong length."""
    path = inclusion_path(index, size)
    if len(path) != len(proof):
        return None
    found = leaf
    for sibling, beside in zip(proof, path, strict=True):
        found = node_hash(sibling, found) if beside.start < index else node_hash(found, sibling)
    return found


def proves_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether ``proof`` shows that the tree of ``new`` leaves begins with the tree of ``old``."""
    if not 0 <= old <= new:
        return False
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    if old == new:
        return not proof and old_root == new_root
    path = consistency_path(old, new)
    if len(path) != len(proof):
        return False
    known = [*zip(path, proof, strict=True)]
    # The old root is left out of the proof if it is a node of the new tree.
    first = known.pop(0) if path[0].end == old else (Range(0, old), old_root)
    in_old = in_new = first[1]
    for beside, hash in known:
        if beside.start < first[0].start:
            in_old = node_hash(hash, in_old)
            in_new = node_hash(hash, in_new)
        else:
            in_new = node_hash(in_new, hash)
    return in_old == old_root and in_new == new_root


def proof_of(path: Iterable[Range], hash_of: Callable[[Subtree], bytes]) -> list[bytes]:
    """The hashes of the ranges, from those of perfect subtrees."""
    return [folded(hash_of(subtree) for subtree in subtrees(leaves)) for leaves in path]


def _split(count: int) -> int:
    """The largest power of two that is less than ``count``."""
    return 1 << (count - 1).bit_length() - 1
