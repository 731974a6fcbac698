"""Copying objects: space by space, by digests of what is there."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from roomkey.backends.moving import digests
from roomkey.backends.moving.copying import Foreign, Progress, Report
from roomkey.backends.moving.digests import Fingerprint
from roomkey.ports import NamedObject, ObjectStore, Repairable
from roomkey.ports.objects import MAX_COMMIT_BYTES, SPACES

MOVED: Final = tuple(space for space in SPACES if space != "keys")
"""What is copied. Keys that encrypt a storage belong to it, and are taken over before it is opened."""

BATCH: Final = 200

MARK_SPACE: Final = "settings"
MARK: Final = "copy"
"""
Stands in the target of a copy: what its objects were when the copy ended, or ``RUNNING`` until then.

Objects come and go, so what the target has and the source has not may be of the source all the same. That is so if
nobody has touched the target since.
"""

RUNNING: Final = b"running"


class ObjectsCopy:
    """Copies a store of objects. ``bring`` and then ``compare``; ``check`` before both."""

    def __init__(self, source: ObjectStore, target: ObjectStore, report: Report, progress: Progress) -> None:
        self._source = source
        self._target = target
        self._report = report
        self._progress = progress
        self._copied: Fingerprint | None = None

    async def check(self) -> None:
        """
        Return if the target has nothing but what may come from the source.

        Raises:
            Foreign: If it has anything else.
        """
        theirs = await _digests(self._target)
        mark = await self._target.get(MARK_SPACE, MARK)
        if not theirs or (mark is not None and mark.value in (RUNNING, _print_of(theirs).hash.encode())):
            return
        mine = await _digests(self._source)
        if any(mine.get(name) != digest for name, digest in theirs.items()):
            raise Foreign(
                "the target is neither empty nor a copy of this source that was begun: it has objects of its own"
            )

    async def bring(self) -> None:
        """Write what the target lacks, and take out what is not in the source any more."""
        await self._target.commit(MARK_SPACE, {MARK: RUNNING})
        if isinstance(self._source, Repairable):
            for record in await self._source.damaged():
                self._report.cannot_be_read(f"{record.kind} {record.key}")
        self._copied = Fingerprint()
        for number, space in enumerate(MOVED):
            self._progress("copying objects", number, len(MOVED))
            await self._bring(space, self._copied)
        self._progress("copying objects", len(MOVED), len(MOVED))

    async def _bring(self, space: str, copied: Fingerprint) -> None:
        held = {item.name: digests.of_object(space, item) async for item in _objects(self._target, space)}
        missing: dict[str, bytes | None] = {}
        size = 0
        async for item in _objects(self._source, space):
            digest = digests.of_object(space, item)
            copied.add(digest)
            if held.pop(item.name, None) == digest:
                continue
            if len(missing) == BATCH or size + len(item.value) > MAX_COMMIT_BYTES:
                await self._write(space, missing)
                missing, size = {}, 0
            missing[item.name] = item.value
            size += len(item.value)
        await self._write(space, missing)
        gone = [*held]
        for start in range(0, len(gone), BATCH):
            await self._write(space, dict.fromkeys(gone[start : start + BATCH]))

    async def _write(self, space: str, changes: Mapping[str, bytes | None]) -> None:
        if changes:
            await self._target.commit(space, changes)
            self._report.section("objects").written += len(changes)

    async def compare(self) -> None:
        """Read both sides and report every difference."""
        mine, theirs = await _digests(self._source), await _digests(self._target)
        self._report.compare("objects", mine, theirs)
        if self._copied is not None and _print_of(mine) != self._copied:
            self._report.changed = True
        await self._target.commit(MARK_SPACE, {MARK: _print_of(theirs).hash.encode()})


async def _objects(store: ObjectStore, space: str) -> AsyncIterator[NamedObject]:
    after = ""
    while batch := await store.list(space, after=after, limit=BATCH):
        for item in _without_mark(space, batch):
            yield item
        after = batch[-1].name


def _without_mark(space: str, batch: Sequence[NamedObject]) -> Sequence[NamedObject]:
    return batch if space != MARK_SPACE else [item for item in batch if item.name != MARK]


async def _digests(store: ObjectStore) -> dict[str, bytes]:
    return {
        f"object {space}/{item.name}": digests.of_object(space, item)
        for space in MOVED
        async for item in _objects(store, space)
    }


def _print_of(found: Mapping[str, bytes]) -> Fingerprint:
    fingerprint = Fingerprint()
    for digest in found.values():
        fingerprint.add(digest)
    return fingerprint
