"""Verifying a log: every kind of tampering is told from every other, and its place is named."""

import asyncio
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roomkey.audit import verification
from roomkey.audit.checkpoints import Checkpoint, checkpoint
from roomkey.audit.merkle import leaf_hash
from roomkey.audit.notes import Note, Signer
from roomkey.audit.sources import CHECKPOINT, DirectorySource
from roomkey.audit.tiles import bundle_of, entries_of
from roomkey.audit.verification import Expectation, Flaw, Report, verify
from roomkey.errors import Forbidden
from tests.support.audit import LOG_KEY, ORIGIN, Files, copied, entry, filled_log, key_of, naive_root
from tests.support.effort import examples

SIZE = 700
"""Two full tiles, and a partial one on each of two levels."""

EXPECTED = Expectation(keys=[LOG_KEY])
LAST = "tile/0/002.p/188"
ABOVE = "tile/1/000.p/2"


def head_of(entries: list[bytes]) -> Checkpoint:
    return Checkpoint(ORIGIN, len(entries), naive_root(entries))


def signed(head: Checkpoint, key: int = 1) -> bytes:
    return str(Note(head.text, [Signer(ORIGIN, key_of(key)).sign(head.text)])).encode()


def found(report: Report) -> list[tuple[Flaw, str]]:
    return [(finding.flaw, finding.place) for finding in report.findings]


async def verified(files: Files, expected: Expectation = EXPECTED) -> list[tuple[Flaw, str]]:
    return found(await verify(files, expected))


# --- what an attacker does who owns the disk -----------------------------------------------------------


def change(files: Files) -> None:
    edit(files, 1, lambda entries: entries.__setitem__(7, b"forged"))


def remove(files: Files) -> None:
    edit(files, 1, lambda entries: entries.__delitem__(7))


def remove_at_the_end(files: Files) -> None:
    edit(files, 1, lambda entries: entries.__delitem__(-1))


def insert(files: Files) -> None:
    edit(files, 1, lambda entries: entries.insert(7, b"forged"))


def reorder(files: Files) -> None:
    edit(files, 1, lambda entries: entries.__setitem__(slice(7, 9), [entries[8], entries[7]]))


def edit(files: Files, number: int, how: Callable[[list[bytes]], None], path: str | None = None) -> None:
    path = path or f"tile/entries/{number:03}"
    entries = entries_of(files.files[path])
    how(entries)
    files.files[path] = bundle_of(entries)


def cut_entries(files: Files) -> None:
    files.files["tile/entries/001"] = files.files["tile/entries/001"][:-1]


def lose_entries(files: Files) -> None:
    del files.files["tile/entries/001"]


def damage_tile(files: Files) -> None:
    flip(files, "tile/0/001")


def damage_last_tile(files: Files) -> None:
    flip(files, LAST)


def damage_tile_above(files: Files) -> None:
    flip(files, ABOVE)


def flip(files: Files, path: str) -> None:
    content = bytearray(files.files[path])
    content[40] ^= 1
    files.files[path] = bytes(content)


def lose_tile(files: Files) -> None:
    del files.files["tile/0/001"]


def lose_last_tile(files: Files) -> None:
    del files.files[LAST]


def shorten_tile(files: Files) -> None:
    files.files["tile/0/000"] = files.files["tile/0/000"][:-32]


def change_entry_and_its_hash(files: Files) -> None:
    change(files)
    tile = bytearray(files.files["tile/0/001"])
    tile[7 * 32 : 8 * 32] = leaf_hash(b"forged")
    files.files["tile/0/001"] = bytes(tile)


def sign_with_another_key(files: Files) -> None:
    files.files[CHECKPOINT] = signed(checkpoint_in(files), key=9)


def change_size(files: Files) -> None:
    files.files[CHECKPOINT] = files.files[CHECKPOINT].replace(b"\n700\n", b"\n699\n")


def lose_checkpoint(files: Files) -> None:
    del files.files[CHECKPOINT]


def garble_checkpoint(files: Files) -> None:
    files.files[CHECKPOINT] = b"<html>not found</html>"


def sign_other_tree(files: Files) -> None:
    files.files[CHECKPOINT] = signed(Checkpoint(ORIGIN, SIZE, leaf_hash(b"x")))


def checkpoint_in(files: Files) -> Checkpoint:
    return checkpoint(files.files[CHECKPOINT].decode().partition("\n\n")[0] + "\n")


TAMPERING: list[tuple[Callable[[Files], None], list[tuple[Flaw, str]]]] = [
    (change, [(Flaw.CHANGED, "entry 263")]),
    (remove, [(Flaw.REMOVED, "entry 263")]),
    (remove_at_the_end, [(Flaw.REMOVED, "entry 511")]),
    (insert, [(Flaw.INSERTED, "entry 263")]),
    (reorder, [(Flaw.REORDERED, "entry 263")]),
    (cut_entries, [(Flaw.MALFORMED_ENTRIES, "tile/entries/001")]),
    (lose_entries, [(Flaw.MISSING_ENTRIES, "tile/entries/001")]),
    (damage_tile, [(Flaw.DAMAGED_TILE, "tile/0/001")]),
    (damage_last_tile, [(Flaw.DAMAGED_TILE, LAST)]),
    (damage_tile_above, [(Flaw.DAMAGED_TILE, ABOVE)]),
    (lose_tile, [(Flaw.MISSING_TILE, "tile/0/001")]),
    (lose_last_tile, [(Flaw.MISSING_TILE, LAST)]),
    (shorten_tile, [(Flaw.MISSING_TILE, "tile/0/000")]),
    (change_entry_and_its_hash, [(Flaw.DAMAGED_TILE, "tile/0/001")]),
    (sign_with_another_key, [(Flaw.UNSIGNED, CHECKPOINT)]),
    (change_size, [(Flaw.FORGED_SIGNATURE, CHECKPOINT)]),
    (lose_checkpoint, [(Flaw.NO_CHECKPOINT, CHECKPOINT)]),
    (garble_checkpoint, [(Flaw.MALFORMED_CHECKPOINT, CHECKPOINT)]),
    (sign_other_tree, [(Flaw.OTHER_TREE, CHECKPOINT)]),
]


@pytest.mark.parametrize(("tamper", "expected"), [pytest.param(*each, id=each[0].__name__) for each in TAMPERING])
async def test_tampering_is_named_with_its_place(
    tamper: Callable[[Files], None], expected: list[tuple[Flaw, str]]
) -> None:
    files = await copied(await filled_log(SIZE))

    tamper(files)

    assert await verified(files) == expected


async def test_a_sound_log_is_verified_whole() -> None:
    report = await verify(await copied(await filled_log(SIZE)), EXPECTED)

    assert report.is_sound
    assert (report.entries, report.tiles, report.signed_by) == (SIZE, 4, [ORIGIN])
    assert report.head == head_of([entry(number) for number in range(SIZE)])


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512, 513])
async def test_logs_of_any_size_are_sound(size: int) -> None:
    report = await verify(await copied(await filled_log(size)), EXPECTED)

    assert report.is_sound
    assert report.entries == size


async def test_a_log_of_three_levels_is_sound_and_damage_deep_in_it_is_found() -> None:
    files = await copied(await filled_log(66_000))
    report = await verify(files, EXPECTED)
    assert (report.findings, report.entries, report.tiles) == ([], 66_000, 258 + 2 + 1)

    edit(files, 200, lambda entries: entries.__setitem__(3, b"forged"))
    flip(files, "tile/0/100")
    assert await verified(files) == [(Flaw.DAMAGED_TILE, "tile/0/100"), (Flaw.CHANGED, "entry 51203")]

    flip(files, "tile/1/000")
    assert (Flaw.DAMAGED_TILE, "tile/1/000") in await verified(files)


async def test_what_was_signed_earlier_is_continued() -> None:
    earlier = [head_of([entry(number) for number in range(size)]) for size in (0, 1, 300, 699, 700)]

    assert await verified(await copied(await filled_log(SIZE)), Expectation(keys=[LOG_KEY], earlier=earlier)) == []


async def test_a_log_that_was_cut_is_told_by_whoever_has_seen_more() -> None:
    seen = head_of([entry(number) for number in range(SIZE)])
    files = await copied(await filled_log(600))

    assert await verified(files) == []
    assert await verified(files, Expectation(keys=[LOG_KEY], earlier=[seen])) == [(Flaw.TRUNCATED, "entry 600")]


async def test_a_forked_head_is_told_by_whoever_has_seen_the_other() -> None:
    seen = head_of([b"what was there", *(entry(number) for number in range(1, 300))])
    files = await copied(await filled_log(SIZE))

    assert await verified(files) == []
    assert await verified(files, Expectation(keys=[LOG_KEY], earlier=[seen])) == [(Flaw.FORKED_HEAD, CHECKPOINT)]


async def test_a_head_that_too_few_witnesses_have_signed_is_told() -> None:
    files = await copied(await filled_log(3))

    assert await verified(files, Expectation(keys=[LOG_KEY], quorum=1)) == [(Flaw.UNWITNESSED, CHECKPOINT)]


async def test_without_the_right_to_read_entries_the_hashes_are_verified() -> None:
    files = await copied(await filled_log(SIZE))
    for path in [path for path in files.files if "entries" in path]:
        files.denied[path] = Forbidden("no")

    report = await verify(files, EXPECTED)

    assert (report.is_sound, report.entries, report.entries_denied, report.tiles) == (True, 0, True, 4)


async def test_a_full_tile_stands_for_a_partial_one_that_is_gone() -> None:
    log = await filled_log(SIZE)
    older, newer = await copied(log), await copied(await filled_log(768))
    for path in (LAST, "tile/entries/002.p/188"):
        del older.files[path]
        older.files[path.partition(".")[0]] = newer.files[path.partition(".")[0]]

    assert await verified(older) == []


async def test_findings_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "MOST_FINDINGS", 2)
    files = await copied(await filled_log(SIZE))
    for path in [path for path in files.files if "entries" in path]:
        del files.files[path]

    assert len(await verified(files)) == 2


async def test_a_copy_in_a_directory_is_verified(tmp_path: Path) -> None:
    files = await copied(await filled_log(SIZE))
    for path, content in files.files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)

    report = await verify(DirectorySource(tmp_path), EXPECTED)

    assert (report.findings, report.entries) == ([], SIZE)


@settings(max_examples=examples(40))
@given(st.data())
def test_no_byte_can_be_changed_unnoticed(data: st.DataObject) -> None:
    files = Files(dict(made_once()))
    path = data.draw(st.sampled_from(sorted(files.files)))
    content = bytearray(files.files[path])
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    files.files[path] = bytes(content)

    assert asyncio.run(verified(files)) != []


@cache
def made_once() -> dict[str, bytes]:
    async def made() -> dict[str, bytes]:
        return (await copied(await filled_log(SIZE))).files

    return asyncio.run(made())
