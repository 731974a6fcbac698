"""
Rich text of a megabyte: how long it takes to be read as ProseMirror JSON, and to be edited at an anchor, over REST.

    python -m benchmarks.rich_text

An edit is answered when it is stored, here in memory. ``stall`` is for how long the event loop did nothing else.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from statistics import median
from time import perf_counter
from typing import Any

import httpx

import roomkey

MEGABYTE = 1_000_000
ROUNDS = 20
PAGE = "/documents/page"
PROSEMIRROR = "application/vnd.roomkey.prosemirror+json"
ANCHORED = "application/vnd.roomkey.anchored-edits+json"


def document(size: int) -> dict[str, Any]:
    """A document of Tiptap whose JSON has so many bytes."""
    content: list[Any] = []
    length = 0
    while length < size:
        number = len(content)
        words = f"Paragraph {number} says something that takes about a line and a half on a page of a usual width. "
        marked = {"type": "text", "text": f"Mark {number}.", "marks": [{"type": "bold"}]}
        block = {"type": "paragraph", "content": [{"type": "text", "text": words}, marked]}
        content.append(block)
        length += len(json.dumps(block, separators=(",", ":")))
    return {"type": "doc", "content": content}


@asynccontextmanager
async def watched_loop(stalls: list[float]) -> AsyncGenerator[None]:
    """Note how late a task wakes that wants to wake every millisecond."""

    async def watch() -> None:
        while True:
            begun = perf_counter()
            await asyncio.sleep(0.001)
            stalls.append(perf_counter() - begun - 0.001)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()


async def measure(name: str, call: Callable[[int], Awaitable[httpx.Response]]) -> None:
    """Print how long calls take, one after the other."""
    times: list[float] = []
    stalls: list[float] = [0.0]
    for number in range(ROUNDS):
        async with watched_loop(stalls):
            begun = perf_counter()
            answer = await call(number)
            times.append(1000 * (perf_counter() - begun))
        assert answer.is_success, answer.text[:200]
    print(f"{name:<28} best {min(times):6.1f} ms   median {median(times):6.1f} ms   stall {1000 * max(stalls):5.1f} ms")


async def main() -> None:
    """Measure both."""
    rooms = roomkey.asgi(storage={"url": "memory"}, server={"dev": True}, log={"level": "error"})
    transport = httpx.ASGITransport(rooms)
    async with rooms.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://rooms") as http:
        (await http.put(PAGE, json=document(MEGABYTE), headers={"content-type": PROSEMIRROR})).raise_for_status()

        async def edit(number: int) -> httpx.Response:
            edits = [{"find": f"Mark {3_000 + number}.", "replace": f"Marked {number}."}]
            return await http.patch(PAGE, json={"edits": edits}, headers={"content-type": ANCHORED})

        async def edit_again(number: int) -> httpx.Response:
            return await edit(number + ROUNDS)

        await measure("read as ProseMirror JSON", lambda _: http.get(PAGE, headers={"accept": PROSEMIRROR}))
        await measure("the first edit, and others", edit)
        await measure("an edit at an anchor", edit_again)


if __name__ == "__main__":
    asyncio.run(main())
