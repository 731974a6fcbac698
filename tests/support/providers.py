"""The providers that editors really use, each in a Node.js process of its own, steered by a test."""

import asyncio
import json
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

CLIENTS = Path(__file__).parents[1] / "clients"
NODE = shutil.which("node")
KINDS = ("ywebsocket", "hocuspocus")
PATIENCE_SECONDS = 20

needs_providers = pytest.mark.skipif(
    NODE is None or not (CLIENTS / "node_modules" / "y-websocket").exists(),
    reason="needs Node.js, and `npm ci` in tests/clients",
)

State = dict[str, Any]


class Provider:
    """A provider in one document. ``state`` is how it was when it last said so, ``events`` what has happened to it."""

    def __init__(self, process: Process) -> None:
        self.state: State = {}
        self.events: list[State] = []
        self._process = process

    def do(self, command: str, *arguments: str | int) -> None:
        """See ``tests/clients/driver.mjs`` for what can be done."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([command, *arguments]).encode() + b"\n")

    async def until(self, condition: Callable[[State], Any]) -> State:
        """Wait for a state that it says of itself."""
        while not (self.state and condition(self.state)):
            await self._listen()
        return self.state

    async def event(self, name: str) -> State:
        """The next event of this name; earlier ones are forgotten."""
        while True:
            while self.events:
                if (event := self.events.pop(0))["event"] == name:
                    return event
            await self._listen()

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise AssertionError(f"nothing more happened: {self.state} {self.events}") from None
        assert line, f"the client ended: {self.state} {self.events}"
        said = json.loads(line)
        if "event" in said:
            self.events.append(said)
        else:
            self.state = said


@asynccontextmanager
async def provider(
    kind: str, base: str, token: str, document: str = "plan", *, origin: str | None = None
) -> AsyncGenerator[Provider]:
    """
    A provider of a kind, from its start until it has gone; ``base`` is like ``ws://127.0.0.1:3000``.

    With an ``origin`` it is as a page has it, with the delays of its makers; without, it loses no time.
    """
    assert NODE is not None
    page = () if origin is None else (origin,)
    process = await asyncio.create_subprocess_exec(
        NODE, str(CLIENTS / f"{kind}.mjs"), base, token, document, *page, stdin=PIPE, stdout=PIPE
    )
    try:
        yield Provider(process)
    finally:
        process.kill()
        await process.wait()
