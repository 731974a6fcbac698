"""What the documentation tells pages to do after a rotation works with the stock providers."""

import asyncio
import json
import re
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.calls import Caller, calling
from tests.support.providers import CLIENTS, NODE, PATIENCE_SECONDS, needs_providers
from tests.support.server import running_server

pytestmark = needs_providers

PAGE = Path(__file__).parents[2] / "docs" / "realtime.md"
SECTION = r"^## {}\n(.*?)(?=^## )"
BLOCK = re.compile(r"^```js\n(.*?)^```$", re.MULTILINE | re.DOTALL)

BEFORE = """
import ws from "ws";
import * as Y from "yjs";
globalThis.WebSocket = ws;
const say = (what) => console.log(JSON.stringify(what));
console.warn = console.error = () => {};
let [sessionId, token] = process.argv.slice(-2);
const doc = new Y.Doc();
"""
AFTER = {
    "y-websocket": """
provider.once("sync", async () => {
  if (process.env.ROTATES) await rotate();
  say("ready");
  provider.on("connection-error", ({ message }) => say(message));
  provider.on("sync", (isSynced) => isSynced && say("synced again"));
  process.stdin.once("data", () => provider.ws.terminate());
});
""",
    "Hocuspocus": """
let synced = false;
provider.on("synced", () => {
  if (synced) say("synced again"); else say("ready");
  synced = true;
});
provider.on("authenticationFailed", ({ reason }) => say(reason));
process.stdin.once("data", (line) => {
  if (process.env.ROTATES) token = line.toString().trim();
  socket.webSocket.terminate();
});
""",
}


class Tab:
    """A page of which the script is the documentation's."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def says(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            return json.loads(await self._process.stdout.readline())

    def cut(self, token: str) -> None:
        """Cut its connection, once it has been told of the newest token."""
        assert self._process.stdin is not None
        self._process.stdin.write(token.encode() + b"\n")


@asynccontextmanager
async def tab(kind: str, url: str, session: tuple[str, str], *, rotates: bool) -> AsyncGenerator[Tab]:
    section = re.search(SECTION.format(kind), PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert section is not None
    assert NODE is not None
    script = BEFORE + "\n".join(BLOCK.findall(section[1])) + AFTER[kind]
    script = script.replace("wss://rooms.example.com", url.replace("http", "ws", 1))
    script = script.replace("https://rooms.example.com", url)
    process = await asyncio.create_subprocess_exec(
        *(NODE, "--input-type=module", "-e", script, "--", *session),
        cwd=CLIENTS,
        env={"ROTATES": "1" if rotates else ""},
        stdin=PIPE,
        stdout=PIPE,
    )
    try:
        yield Tab(process)
    finally:
        process.kill()
        await process.wait()


async def state(caller: Caller, id: str) -> str:
    return (await caller.show(id))["state"]


async def test_a_page_that_hands_the_new_token_to_y_websocket_comes_back() -> None:
    async with running_server("--set", "sessions.rotation_grace=0s") as server, calling(server) as caller:
        id, token = await caller.session()
        async with tab("y-websocket", server.url, (id, token), rotates=True) as page:
            assert await page.says() == "ready"

            page.cut("")

            assert await page.says() == "synced again"
        assert await state(caller, id) == "active"


async def test_a_second_tab_with_the_replaced_token_is_kept_out_and_ends_nothing() -> None:
    async with running_server("--set", "sessions.rotation_grace=0s") as server, calling(server) as caller:
        id, token = await caller.session()
        async with tab("y-websocket", server.url, (id, token), rotates=False) as second:
            assert await second.says() == "ready"
            async with tab("y-websocket", server.url, (id, token), rotates=True) as first:
                assert await first.says() == "ready"

                second.cut("")
                refusals = [await second.says() for _ in range(2)]
                first.cut("")

                assert refusals == ["Unexpected server response: 401"] * 2
                assert await first.says() == "synced again"
        assert await state(caller, id) == "active"


@pytest.mark.parametrize(("knows", "comes_of_it"), [(True, "synced again"), (False, "token_rotated")])
async def test_hocuspocus_asks_for_the_newest_token_and_is_told_if_it_is_not(*, knows: bool, comes_of_it: str) -> None:
    async with running_server("--set", "sessions.rotation_grace=0s") as server, calling(server) as caller:
        id, token = await caller.session()
        async with tab("Hocuspocus", server.url, (id, token), rotates=knows) as page:
            assert await page.says() == "ready"
            headers = {"authorization": f"Bearer {token}"}
            rotated = (await caller.http.put(f"/sessions/{id}/rotate", headers=headers)).json()

            page.cut(rotated["token"])

            assert await page.says() == comes_of_it
        assert await state(caller, id) == "active"
