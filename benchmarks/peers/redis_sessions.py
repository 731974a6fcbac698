"""
The stores of starsessions and Litestar on Redis, as their middlewares call them, by so many callers at once.

``redis_sessions.py LIBRARY URL CASE CALLERS SECONDS`` prints how often and how long, as JSON.
"""

# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
# It runs in an environment of its own, where other things are installed.

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop
from litestar.stores.redis import RedisStore as LitestarStore
from redis.asyncio import Redis
from starsessions.serializers import JsonSerializer
from starsessions.stores.redis import RedisStore as StarsessionsStore

LIFETIME_SECONDS = 24 * 3600
READERS = 1000
"""So many sessions are read in turns."""

Call = Callable[[str], Awaitable[object]]


def starsessions(client: Redis) -> tuple[Call, Call, Call]:
    """Create, get, and a request: its middleware reads the session, and writes it back with the answer."""
    store, serializer = StarsessionsStore(connection=client), JsonSerializer()

    async def create(id: str) -> None:
        now = time.time()
        metadata = {"lifetime": LIFETIME_SECONDS, "created": now, "last_access": now}
        await write(id, {"user_id": id, "__metadata__": metadata})

    async def write(id: str, session: dict[str, object]) -> None:
        await store.write(id, serializer.serialize(session), LIFETIME_SECONDS, LIFETIME_SECONDS)

    async def get(id: str) -> dict[str, object]:
        found = serializer.deserialize(await store.read(id, LIFETIME_SECONDS))
        assert found["user_id"] == id
        return found

    async def request(id: str) -> None:
        await write(id, await get(id))

    return create, get, request


def litestar(client: Redis) -> tuple[Call, Call, Call]:
    """Create, get, and a request: its middleware reads the session, and writes it back with the answer."""
    store = LitestarStore(client)

    async def write(id: str, session: dict[str, object]) -> None:
        await store.set(id, json.dumps(session), expires_in=LIFETIME_SECONDS)

    async def create(id: str) -> None:
        await write(id, {"user_id": id})

    async def get(id: str) -> dict[str, object]:
        found = json.loads(await store.get(id) or b"{}")
        assert found["user_id"] == id
        return found

    async def request(id: str) -> None:
        await write(id, await get(id))

    return create, get, request


async def measure(library: str, url: str, case: str, callers: int, seconds: float) -> dict[str, object]:
    """Call again and again until the time is over."""
    client = Redis.from_url(url, max_connections=callers)
    create, get, request = {"starsessions": starsessions, "litestar": litestar}[library](client)
    ids = [secrets.token_hex(16) for _ in range(READERS)]
    for first in range(0, READERS, callers):  # their connections are open when the clock starts
        await asyncio.gather(*(create(id) for id in ids[first : first + callers]))
    durations: list[float] = []
    clock = time.perf_counter
    begun, used = clock(), time.process_time()
    end = begun + seconds

    async def again_and_again(number: int) -> None:
        while (sent := clock()) < end:
            number += 1
            match case:
                case "create":
                    await create(secrets.token_hex(16))
                case "get":
                    await get(ids[number % READERS])
                case _:
                    await request(ids[number % READERS])
            durations.append(clock() - sent)

    async with asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(again_and_again(number))
    elapsed, used = clock() - begun, time.process_time() - used
    await client.aclose()
    durations.sort()
    return {
        "operations": len(durations) / elapsed,
        "cpu_seconds": used / len(durations),
        "p50": durations[len(durations) // 2],
        "p99": durations[len(durations) * 99 // 100],
    }


if __name__ == "__main__":
    library, url, case, callers, seconds = sys.argv[1:]
    print(json.dumps(uvloop.run(measure(library, url, case, int(callers), float(seconds)))))
