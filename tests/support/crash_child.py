"""
A process that is going to be killed: 200 tasks change sessions and report what was acknowledged.

``python -m tests.support.crash_child <directory> <seed>``. A line is ``<id> <version> <state>`` for a
command that returned, written to stdout before the task goes on, with version 0 for a deletion;
``<user> revoked`` is a revocation.
"""

import asyncio
import os
import sys
from random import Random

import uvloop

from roomkey.backends.lmdb import FileSystemSessionStorage, FileSystemSettings
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import Session
from roomkey.errors import SessionError
from roomkey.sessions.manager import SessionManager

WRITERS = 200
USERS = 40


def report(*words: object) -> None:
    # One system call for each line: what was reported is in the pipe, even if the next thing is SIGKILL.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def write(sessions: SessionManager, random: Random) -> None:
    """One life of a session, or an end of several."""
    user = f"user-{random.randrange(USERS)}"
    issued = await sessions.create_session(user, metadata={"seed": random.random()})
    report_session(issued.session)
    session = await sessions.activate_session(issued.id)
    report_session(session)
    await sessions.touch(session.id)
    match random.randrange(8):
        case 0:
            report_session(await sessions.suspend_session(session.id))
        case 1:
            report_session(await sessions.invalidate_session(session.id))
        case 2:
            rotated = await sessions.rotate_token(session.id)
            report_session(rotated.session)
        case 3 if await sessions.delete_session(session.id):
            report(session.id, 0, "deleted")
        case 4:
            await sessions.revoke_user(user)
            report(user, "revoked")
        case _:
            pass


def report_session(session: Session) -> None:
    report(session.id, session.version, session.state)


async def write_for_ever(sessions: SessionManager, random: Random) -> None:
    while True:
        try:
            await write(sessions, random)
        except SessionError as error:
            # Another task evicted, revoked or changed the session in between.
            if error.code in {"storage", "serialization"}:
                raise


async def main(directory: str, seed: int) -> None:
    random = Random(seed)  # a test wants the same numbers each time
    # A small map and a log slot that fills quickly: growing is part of what may be interrupted.
    async with FileSystemSessionStorage(directory, FileSystemSettings(map_size=256 * 1024)) as storage:
        sessions = SessionManager(storage, policy=SessionPolicy(cap=5))
        async with asyncio.TaskGroup() as group:
            for _ in range(WRITERS):
                group.create_task(write_for_ever(sessions, random))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
