"""``@roomkey/client``: its own tests against a server of ours, its package, and a laptop that sleeps with it."""

import gzip
import json
import re
import signal
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from roomkey.wire.close import CLOSE_CODES, STOCK_CLOSE_CODES
from tests.support.calls import Caller, calling
from tests.support.cutting_proxy import CuttingProxy, cutting_proxy
from tests.support.pages import ROOT, blocks
from tests.support.providers import NODE, Provider
from tests.support.server import Server, lasting_server
from tests.support.typescript_client import FOLDER, NEEDED, files_of, pack, run

pytestmark = NEEDED

MAX_BUNDLE_BYTES: Final = 8 * 1024
PAGE: Final = ROOT / "docs" / "client.md"
KINDS: Final = ("rooms", "y-websocket", "hocuspocus")
FRAMEWORKS: Final = ROOT / "examples" / "editors" / "node_modules"
WAKING_SECONDS: Final = 5.0
AN_HOUR_MS: Final = 3_600_000


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with lasting_server() as server:
        yield server


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = pack(tmp_path_factory.mktemp("package"))
    (folder / "consumer.mjs").write_bytes((FOLDER / "tests" / "package" / "consumer.mjs").read_bytes())
    return folder


async def test_its_own_tests_pass(server: Server) -> None:
    code, output = await run("vitest", "run", "--sequence.concurrent", url=server.url)

    assert code == 0, output


async def test_the_types_of_the_package_say_what_can_be_done_with_it(project: Path) -> None:
    for path in ("tests/package/types.ts", "tests/package/tsconfig.json", "examples/react.tsx"):
        (project / Path(path).name).write_bytes((FOLDER / path).read_bytes())
    (project / "package.json").write_text('{"type": "module"}')
    written = [block for block in blocks(PAGE) if block.language == "ts"]
    for block in written:
        (project / f"written-{block.line}.ts").write_text(block.text)

    code, output = await run("tsc", "-p", "tsconfig.json", folder=project)

    assert written
    assert code == 0, output


@pytest.mark.skipif(not (FRAMEWORKS / "svelte-check").exists(), reason="needs `npm ci` in examples/editors")
async def test_the_examples_for_vue_and_svelte_compile_against_the_package(tmp_path: Path) -> None:
    examples = pack(tmp_path, FRAMEWORKS)
    for example in (FOLDER / "examples").iterdir():
        if example.suffix in {".vue", ".svelte"} or example.name == "vue.ts":
            (examples / example.name).write_bytes(example.read_bytes())
    settings = json.loads((FRAMEWORKS.parent / "tsconfig.json").read_text())
    (examples / "tsconfig.json").write_text(json.dumps({**settings, "include": ["."]}))
    checkers = examples / "node_modules" / ".bin"

    vue = await run(str(checkers / "vue-tsc"), "--noEmit", "--project", ".", folder=examples)
    svelte = await run(str(checkers / "svelte-check"), "--tsconfig", "./tsconfig.json", folder=examples)

    assert vue == (0, "")
    assert svelte[0] == 0, svelte[1]


def test_its_page_says_what_each_close_reason_means() -> None:
    """Whether it is true, ``tests/unit/documented.test.ts`` of the client knows."""
    rows = [row for line in PAGE.read_text().splitlines() if (row := re.match(r"\| ([\d, ]+) \|(.*?)\|", line))]

    said = {(code, reason) for row in rows for code in row[1].split(", ") for reason in re.findall(r"`(\w+)`", row[2])}

    given = {(str(int(code)), str(reason)) for reason, code in (*CLOSE_CODES.items(), *STOCK_CLOSE_CODES.items())}
    assert said == given


async def test_the_package_has_modules_and_types_and_nothing_else(project: Path) -> None:
    files = files_of(project)
    packed = json.loads((project / "node_modules" / "@roomkey" / "client" / "package.json").read_text())

    assert {"package.json", "README.md", "LICENSE", "dist/index.js", "dist/index.d.ts", "dist/react.js"} <= files
    assert not [file for file in files if file.startswith(("src/", "tests/"))]
    assert (packed["license"], packed.get("dependencies")) == ("Apache-2.0", None)
    assert packed["sideEffects"] is False


async def bundle(project: Path, source: str) -> bytes:
    """What a page gets that has this source, without the providers and without React."""
    (project / "bundled.mjs").write_text(source)
    outside = [f"--external:{name}" for name in ("yjs", "y-websocket", "@hocuspocus/provider", "react")]
    code, output = await run(
        "esbuild",
        *("bundled.mjs", "--bundle", "--minify", "--format=esm", "--target=es2022", "--outfile=out.mjs", *outside),
        folder=project,
    )
    assert code == 0, output
    return (project / "out.mjs").read_bytes()


@pytest.mark.parametrize("more", ["", "y-websocket", "hocuspocus", "react"])
async def test_a_bundle_is_small(project: Path, more: str) -> None:
    source = "export * from '@roomkey/client';" + (f"export * from '@roomkey/client/{more}';" if more else "")

    bundled = await bundle(project, source)

    assert len(gzip.compress(bundled, 9)) <= MAX_BUNDLE_BYTES


async def test_what_is_not_used_is_not_in_the_bundle(project: Path) -> None:
    bundled = await bundle(project, "export { Session } from '@roomkey/client';")

    assert b"session_expiring" in bundled
    assert b"realtime_edit" not in bundled
    assert b"useSyncExternalStore" not in bundled


# --- a laptop that sleeps ---------------------------------------------------------------------------------------------


class Laptop:
    """A program that uses the package, and sleeps for an hour; meanwhile its connections die without a word."""

    def __init__(self, process: Process, proxy: CuttingProxy, caller: Caller, id: str) -> None:
        self.program = Provider(process)
        self.proxy = proxy
        self.id = id
        self._process = process
        self._caller = caller

    async def order(self, command: str, reason: str | None = None) -> None:
        """Do something with its session."""
        await self._caller.put(self.id, command, reason)

    async def another_token(self) -> str:
        """The token of another session of its user."""
        user = (await self._caller.show(self.id))["user_id"]
        return (await self._caller.session(user))[1]

    async def in_state(self, *states: str) -> dict[str, Any]:
        """Wait until it says that it is in one of these states."""
        return await self.program.until(lambda state: state["state"] in states)

    async def writes_and_saves(self) -> None:
        """Wait until it is in its document again, and what it writes is saved."""
        self.program.do("write", "good morning")
        await self.program.until(lambda state: state["state"] == "active" and state["saved"]["state"] == "saved")

    def sleep(self) -> None:
        self._process.send_signal(signal.SIGSTOP)
        self.proxy.stop_reading()

    def wake(self) -> None:
        self.program.state = {}
        self.program.do("wake", AN_HOUR_MS)
        self._process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def laptop(server: Server, project: Path, kind: str) -> AsyncGenerator[Laptop]:
    async with cutting_proxy(server.port) as proxy, calling(server) as caller:
        id, token = await caller.session(f"sleeper with {kind}")
        command = ("consumer.mjs", proxy.through(server.url), token, kind, f"beds/{id}")
        process = await create_subprocess_exec(str(NODE), *command, cwd=project, stdin=PIPE, stdout=PIPE)
        try:
            yield Laptop(process, proxy, caller, id)
        finally:
            process.kill()
            await process.wait()


@asynccontextmanager
async def asleep(server: Server, project: Path) -> AsyncGenerator[list[Laptop]]:
    """One that is in a room, and two that are in documents; they do not run before they wake."""
    async with AsyncExitStack() as stack:
        sleepers = [await stack.enter_async_context(laptop(server, project, kind)) for kind in KINDS]
        for sleeper in sleepers:
            await sleeper.in_state("active")
            sleeper.sleep()
        yield sleepers


async def test_who_was_suspended_asleep_is_told_on_waking_and_goes_on_later(server: Server, project: Path) -> None:
    async with asleep(server, project) as laptops:
        for sleeper in laptops:
            await sleeper.order("suspend")
            sleeper.wake()

        for sleeper in laptops:
            state = await sleeper.in_state("suspended")
            assert state["awake"] < WAKING_SECONDS
            assert state["session"] == "suspended"
            await sleeper.order("resume")
        for sleeper in laptops:
            await sleeper.writes_and_saves()


async def test_who_was_removed_asleep_is_told_on_waking(server: Server, project: Path) -> None:
    async with asleep(server, project) as laptops:
        for sleeper in laptops:
            await sleeper.order("invalidate", "spam")
            sleeper.wake()

        for sleeper in laptops:
            state = await sleeper.in_state("removed")
            assert state["awake"] < WAKING_SECONDS
            assert state["code"] == "session_invalidated"


@pytest.mark.parametrize(("command", "reason"), [("expire", "session_expired"), ("reauthenticate", "token_rotated")])
async def test_who_slept_over_the_end_of_a_token_gets_a_new_one(
    server: Server, project: Path, command: str, reason: str
) -> None:
    async with asleep(server, project) as laptops:
        for sleeper in laptops:
            await sleeper.order(command)
            sleeper.wake()

        for sleeper in laptops:
            renewal = await sleeper.program.event("renewal")
            assert renewal["awake"] < WAKING_SECONDS
            assert renewal["code"] == reason
            sleeper.program.do("token", await sleeper.another_token())
        for sleeper in laptops:
            await sleeper.writes_and_saves()


async def test_who_wakes_without_a_network_is_told_that_and_goes_on_when_there_is_one(
    server: Server, project: Path
) -> None:
    async with asleep(server, project) as laptops:
        for sleeper in laptops:
            sleeper.proxy.stall()
            sleeper.wake()

        for sleeper in laptops:
            state = await sleeper.program.until(lambda state: state["state"] == state["session"] == "offline")
            assert state["awake"] < WAKING_SECONDS
            assert state["unsaved"] == 0
        for sleeper in laptops:
            sleeper.proxy.cut_all()
            sleeper.proxy.resume()
            await sleeper.in_state("active")
