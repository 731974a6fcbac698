"""The examples do what they say."""

import asyncio
import json
import os
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from websockets.asyncio.client import connect

from tests.support.server import running_server

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE_SECONDS = 30
RUNNING = re.compile(r"http://127\.0\.0\.1:\d+")


async def output_of(example: str, url: str) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLES / example)), stdout=PIPE, stderr=PIPE, env={**os.environ, "ROOMKEY_URL": url}
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode().splitlines()


async def test_two_editors_see_each_other_until_one_is_revoked() -> None:
    async with running_server() as server:
        lines = await output_of("two_editors.py", server.url)

    assert lines == [
        "grace sees ada write: Hello, Grace.",
        "ada sees grace write: Hello, Ada!",
        "grace was closed with 4401 session_invalidated",
    ]


async def test_a_message_type_of_ones_own_is_checked_against_its_schema() -> None:
    async with running_server("--config", str(EXAMPLES / "custom_message.toml")) as server:
        lines = await output_of("custom_message.py", server.url)

    assert lines[0] == "grace sees ada vote for tea"
    assert lines[1].startswith("ada is told: INVALID_MESSAGE")


@asynccontextmanager
async def uvicorn_with(application: str) -> AsyncGenerator[str]:
    """Somebody else's server with somebody else's application; yields its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", application, "--port", "0", "--no-use-colors"),
        stdout=DEVNULL,
        stderr=PIPE,
        cwd=EXAMPLES.parent,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (match := RUNNING.search(line := (await process.stderr.readline()).decode())) is None:
                assert line, "uvicorn did not start"
        yield match[0]
        process.terminate()
        async with asyncio.timeout(PATIENCE_SECONDS):
            remaining = (await process.stderr.read()).decode()
        assert "Traceback" not in remaining, remaining
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_inside_fastapi_sessions_guard_pages_and_open_sockets() -> None:
    async with uvicorn_with("examples.fastapi_app:app") as url, httpx.AsyncClient(base_url=url) as client:
        login = await client.post("/login", json={"name": "ada"})
        ada = {"Authorization": f"Bearer {login.json()['token']}"}

        stranger = await client.get("/members/profile")
        profile = await client.get("/members/profile", headers=ada)
        mine = await client.get("/rooms/sessions/me", headers=ada)
        async with connect(f"ws{url.removeprefix('http')}/rooms/ws", additional_headers=ada) as socket:
            greeting = json.loads(await socket.recv())
            await client.post("/members/logout", headers=ada)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await socket.wait_closed()
        afterwards = await client.get("/members/profile", headers=ada)

    assert stranger.status_code == 401
    assert profile.json()["user"] == "ada"
    assert mine.json()["id"] == profile.json()["session"]
    assert greeting["message_type"] == "session_connected"
    assert socket.close_code == 4401
    assert afterwards.status_code in (401, 410)
