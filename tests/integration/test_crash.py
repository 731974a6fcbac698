"""Killed at any moment, the storage has everything that it acknowledged, and nothing by halves."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from roomkey.backends.lmdb import FileSystemSessionStorage
from roomkey.domain.lifecycle import apply, begin
from roomkey.domain.session import Created, Deleted, Session, SessionId, UserRevoked
from roomkey.ports import SessionStorage
from roomkey.testing.storage import disagreements
from roomkey.testing.storage.suite import whole_log
from tests.support.effort import repeats
from tests.support.lmdb_file import index_faults

KILLS = repeats(3, nightly=8)


class Acknowledged(NamedTuple):
    """What a command returned to the child before it died; a deletion has version 0 and the state ``deleted``."""

    id: SessionId
    version: int
    state: str


async def test_nothing_acknowledged_is_lost_however_often_the_process_is_killed(tmp_path: Path) -> None:
    random = Random()  # another moment each time the test is run
    reports: list[Acknowledged] = []
    revocations = 0

    for seed in range(KILLS):
        # So many reports, and then the process dies in the middle of what it is doing.
        lines = killed_after(tmp_path, seed, random.randrange(1, 1500))
        reports += [Acknowledged(SessionId(words[0]), int(words[1]), words[2]) for words in lines if len(words) == 3]
        revocations += sum(len(words) == 2 for words in lines)

        assert index_faults(tmp_path) == []
        async with FileSystemSessionStorage(tmp_path) as storage:
            assert await disagreements(storage) == []
            assert await lost(storage, reports) == []
            assert sum(isinstance(event, UserRevoked) for event in await whole_log(storage)) >= revocations


def killed_after(directory: Path, seed: int, lines: int) -> list[list[str]]:
    """What a child reported until it was killed, which is at once after that many lines."""
    command = [sys.executable, "-m", "tests.support.crash_child", str(directory), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as child:
        assert child.stdout is not None
        reported = [child.stdout.readline() for _ in range(lines)]
        os.kill(child.pid, signal.SIGKILL)
        reported += child.stdout.readlines()
        assert child.wait() == -signal.SIGKILL
    # The last line may be cut in the middle.
    return [line.decode().split() for line in reported if line.endswith(b"\n")]


async def lost(storage: SessionStorage, reports: Sequence[Acknowledged]) -> list[Acknowledged]:
    """What was acknowledged and is not in the history, or was forgotten by the session itself."""
    states = await states_in_history(storage)
    sessions = await storage.get_many([report.id for report in reports])
    return [
        report
        for report, session in zip(reports, sessions, strict=True)
        if states.get((report.id, report.version)) != report.state
        or (session is None) != ((report.id, 0) in states)
        or (session is not None and session.version < report.version)
    ]


async def states_in_history(storage: SessionStorage) -> dict[tuple[SessionId, int], str]:
    """The state of every session after each of its events; a deletion stands at version 0."""
    states: dict[tuple[SessionId, int], str] = {}
    current: dict[SessionId, Session] = {}
    for event in await whole_log(storage):
        if isinstance(event, UserRevoked):
            continue
        if isinstance(event, Created):
            current[event.session] = begin(event)
        elif isinstance(event, Deleted):
            states[event.session, 0] = "deleted"
            continue
        else:
            current[event.session] = apply(current[event.session], event)
        states[event.session, event.version] = current[event.session].state
    return states
