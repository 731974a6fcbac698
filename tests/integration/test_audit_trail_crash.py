"""Servers that are killed leave an audit log in which every acknowledged change of a session is found, once."""

import asyncio
import signal
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from tests.support.calls import Caller, calling
from tests.support.server import RunningServer, running_server

SECONDS = 30
SESSIONS = 6


async def create_until_killed(caller: Caller, name: str, done: list[str]) -> None:
    """Create sessions; those that were acknowledged are in ``done``."""
    for number in range(SESSIONS):
        id, _ = await caller.session(f"{name}-{number}")
        done.append(id)


async def recorded(caller: Caller) -> list[tuple[str, str, tuple[int, int]]]:
    """Types, sessions and places in the event log of everything that was taken from there."""
    found: list[tuple[str, str, tuple[int, int]]] = []
    cursor = 0
    while True:
        wanted = {"type": "session", "order": "oldest", "cursor": cursor, "limit": 500}
        page = (await caller.http.get("/audit", params=wanted)).json()
        found += [(each["type"], each["session"], tuple(each["event"])) for each in page["entries"]]
        if int(page["next_cursor"]) == cursor:
            return found
        cursor = int(page["next_cursor"])


async def test_every_acknowledged_change_is_recorded_once_though_two_servers_on_one_directory_are_killed(
    tmp_path: Path,
) -> None:
    options = ("--data", str(tmp_path / "data"))
    acknowledged: list[str] = []
    async with AsyncExitStack() as stack:
        starting = [stack.enter_async_context(running_server(*options, storage="file")) for _ in range(2)]
        servers = await asyncio.gather(*starting)
        callers = [await stack.enter_async_context(calling(server)) for server in servers]
        await asyncio.gather(
            *(create_until_killed(caller, name, acknowledged) for caller, name in zip(callers, "ab", strict=True))
        )
        await asyncio.gather(*(kill(server) for server in servers))

    async with running_server(*options, storage="file") as server, calling(server) as caller:
        async with asyncio.timeout(SECONDS):
            while len(found := await recorded(caller)) < 2 * len(acknowledged):  # noqa: ASYNC110  # of others
                await asyncio.sleep(0.1)

    assert len(acknowledged) == 2 * SESSIONS
    created = {session for type, session, _ in found if type == "session.created"}
    assert created >= set(acknowledged)
    assert max(Counter(place for _, _, place in found).values()) == 1
    for partition in {place[0] for _, _, place in found}:
        sequences = [place[1] for _, _, place in found if place[0] == partition]
        assert sequences == [*range(1, len(sequences) + 1)]


async def kill(server: RunningServer) -> None:
    assert await server.stop(signal.SIGKILL) == -signal.SIGKILL
