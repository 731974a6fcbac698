"""
Another process on the same directory, which does what it is told line by line.

``python -m tests.support.neighbour <directory>``. ``create <user> <count>`` answers with the ids,
``state <id>`` with a state or ``none``, ``revoke <user>`` with the epoch.
"""

import asyncio
import sys

import uvloop

from roomkey.backends.lmdb import FileSystemSessionStorage, FileSystemSettings
from roomkey.domain.session import SessionId
from roomkey.testing.storage import issue
from roomkey.testing.storage.suite import NOON, ROOMY


async def obey(storage: FileSystemSessionStorage, command: list[str]) -> str:
    match command:
        case ["create", user, count]:
            new = [issue(user) for _ in range(int(count))]
            async with asyncio.TaskGroup() as group:
                for each in new:
                    group.create_task(storage.create([each], ROOMY, NOON))
            return " ".join(each.session.id for each in new)
        case ["state", id]:
            session = await storage.get(SessionId(id))
            return "none" if session is None else str(session.state)
        case ["revoke", user]:
            done = await storage.revoke_user(user, NOON, actor="system", reason=None, except_session=None)
            return str(done.epoch)
        case _:
            return "what?"


async def main(directory: str) -> None:
    async with FileSystemSessionStorage(directory, FileSystemSettings(map_size=128 * 1024, durable=False)) as storage:
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(await obey(storage, line.split()), flush=True)  # noqa: T201  # the answer


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
