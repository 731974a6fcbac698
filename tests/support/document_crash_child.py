"""
A process that is going to be killed: tasks write documents and report what was acknowledged.

``python -m tests.support.document_crash_child <directory> <life>``. A line is ``<document> <lineage> <number> <word>``
for an update that was appended, written to stdout before the task goes on. Each word is its update's data, and
a snapshot is the words that it contains, so nothing is missing that cannot be missed.
"""

import asyncio
import os
import sys
from itertools import count
from random import Random

import uvloop

from roomkey.backends.lmdb import FileSystemSettings
from roomkey.backends.lmdb.documents import FileSystemDocumentStore
from roomkey.errors import Conflict, NotFound
from roomkey.testing.documents.suite import NOON, update, version

WRITERS = 60
DOCUMENTS = 20


def report(*words: object) -> None:
    # One system call for each line: what was reported is in the pipe, even if the next thing is SIGKILL.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def append(store: FileSystemDocumentStore, name: str, words: list[str]) -> None:
    record = await store.create(name, words[0], NOON)
    last = await store.append(name, record.lineage, [update(f"{word} ".encode()) for word in words])
    for number, word in enumerate(words, last - len(words) + 1):
        report(name, record.lineage, number, word)


async def merge(store: FileSystemDocumentStore, name: str) -> None:
    document = await store.load(name)
    if document is not None:
        snapshot = (document.snapshot or b"") + b"".join(each.data for each in document.updates)
        lineage, upto = document.record.lineage, document.record.sequence
        await store.compact(name, lineage, snapshot=snapshot, upto=upto, authorship=bytes(upto))
        await store.keep_version(name, lineage, version(snapshot, sequence=upto))


async def delete(store: FileSystemDocumentStore, name: str) -> None:
    record = await store.find(name)
    if record is not None and await store.delete(name, record.lineage, NOON):
        report(name, record.lineage, 0, "deleted")


async def write_for_ever(store: FileSystemDocumentStore, task: str, random: Random) -> None:
    for turn in count():
        name = f"{'long' * 200}/{random.randrange(DOCUMENTS)}"
        try:
            match random.randrange(30):
                case 0 | 1:
                    await merge(store, name)
                case 2:
                    await delete(store, name)
                case length:
                    await append(store, name, [f"{task}.{turn}.{number}" for number in range(length)])
        except (Conflict, NotFound):
            pass  # another task deleted it in between


async def main(directory: str, life: int) -> None:
    random = Random(life)  # a test wants the same numbers each time
    # A small map: growing is part of what may be interrupted.
    settings = FileSystemSettings(map_size=256 * 1024)
    async with FileSystemDocumentStore(directory, settings) as store, asyncio.TaskGroup() as group:
        for task in range(WRITERS):
            group.create_task(write_for_ever(store, f"{life}.{task}", random))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
