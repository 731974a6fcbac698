"""The examples do what they say."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
from websockets.asyncio.client import connect

from tests.support.applications import uvicorn_with
from tests.support.documents import UPDATE, YClient, edit, text_of
from tests.support.server import running_server

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE_SECONDS = 60


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


async def test_a_search_index_of_ones_own_is_kept_up_to_date() -> None:
    lines = await output_of("search_index.py", "")

    assert lines == [
        "notes/engine: The engine (user:ada)",
        "notes/moth: The moth (user:grace)",
        "relay: notes/moth",
    ]


async def test_a_message_type_of_ones_own_is_checked_against_its_schema() -> None:
    async with running_server("--config", str(EXAMPLES / "custom_message.toml")) as server:
        lines = await output_of("custom_message.py", server.url)

    assert lines[0] == "grace sees ada vote for tea"
    assert lines[1].startswith("ada is told: INVALID_MESSAGE")


def fastapi_app(data: Path, *, workers: int = 1) -> AbstractAsyncContextManager[str]:
    """The example, whose data is in ``data``; gives its address."""
    environment = {"ROOMKEY_STORAGE_DIRECTORY": str(data)}
    return uvicorn_with("examples.fastapi_app:app", EXAMPLES.parent, workers=workers, environment=environment)


async def test_inside_fastapi_sessions_guard_pages_and_open_sockets(tmp_path: Path) -> None:
    async with fastapi_app(tmp_path) as url, httpx.AsyncClient(base_url=url) as client:
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


async def worker_of(client: httpx.AsyncClient) -> str:
    """The worker that this client's connection, which stays open, leads to."""
    return (await client.get("/rooms/health/live")).headers["roomkey-node"]


@asynccontextmanager
async def client_of_each_worker(url: str) -> AsyncGenerator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """The system gives a connection to either worker, so connect until there is one to each."""
    found: dict[str, httpx.AsyncClient] = {}
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE_SECONDS):
        while len(found) < 2:
            client = await stack.enter_async_context(httpx.AsyncClient(base_url=url))
            found.setdefault(await worker_of(client), client)
        first, second = found.values()
        yield first, second


@asynccontextmanager
async def editor_on(worker: str, base: str, ticket: Callable[[], Awaitable[str]]) -> AsyncGenerator[YClient]:
    """An editor of ``notes/plan`` who came to this worker, with a ticket, of which some are used up until then."""
    while True:
        address = f"{base}/rooms/yjs/notes/plan?ticket={await ticket()}"
        async with connect(address, proxy=None) as socket:
            assert socket.response is not None
            if socket.response.headers["roomkey-node"] == worker:
                yield YClient(socket)
                return


async def test_inside_fastapi_two_workers_share_sessions_tickets_documents_and_revocations(tmp_path: Path) -> None:
    async with (
        fastapi_app(tmp_path, workers=2) as url,
        client_of_each_worker(url) as (one, other),
    ):
        login = await one.post("/login", json={"name": "ada"})
        ada = {"Authorization": f"Bearer {login.json()['token']}"}
        profile = await other.get("/members/profile", headers=ada)
        await one.put("/rooms/documents/notes%2Fplan", json={"content": "one"}, headers=ada)
        before = await other.get("/rooms/documents/notes%2Fplan", headers=ada)
        await one.put("/rooms/documents/notes%2Fplan", json={"content": "two"}, headers=ada)
        after = await other.get("/rooms/documents/notes%2Fplan", headers=ada)

        async def ticket() -> str:
            return (await one.post("/rooms/sessions/me/tickets", headers=ada)).json()["ticket"]

        base = url.replace("http", "ws", 1)
        async with (
            editor_on(await worker_of(one), base, ticket) as here,
            editor_on(await worker_of(other), base, ticket) as there,
            asyncio.timeout(PATIENCE_SECONDS),
        ):
            for writer, words in ((here, "typed by one, "), (there, "typed by the other, ")):
                await writer.send(edit(words))
                for reader in (here, there):
                    await reader.next(UPDATE)
            contents = [await here.missing(), await there.missing()]
            await one.post("/members/logout", headers=ada)
            await there.socket.wait_closed()

    assert profile.json()["user"] == "ada"
    assert [answer.json()["content"] for answer in (before, after)] == ["one", "two"]
    assert text_of(contents[0]) == text_of(contents[1])
    assert sorted(text_of(contents[0])) == sorted("twotyped by one, typed by the other, ")
    assert there.socket.close_code == 4401
