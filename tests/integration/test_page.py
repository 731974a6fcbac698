"""The page in the documentation, run by Node.js: what it shows while its session is suspended, resumed and ended."""

import asyncio
import re
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.calls import Caller, calling
from tests.support.providers import CLIENTS, NODE, Provider, needs_providers
from tests.support.server import Server, lasting_server

pytestmark = needs_providers

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "realtime.md"
EXAMPLE = re.compile(r"^```js run\n(.*?)^```$", re.MULTILINE | re.DOTALL)

Shown = tuple[str, str]


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with lasting_server() as server:
        yield server


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The functions of the page, in a file."""
    (example,) = EXAMPLE.findall(DOCUMENTATION.read_text(encoding="utf-8"))
    file = tmp_path_factory.mktemp("page") / "page.mjs"
    file.write_text(example, encoding="utf-8")
    return str(file)


class Page:
    """The page of one user, and the operator who watches over its session."""

    def __init__(self, provider: Provider, operator: Caller, id: str) -> None:
        self.operator = operator
        self.id = id
        self._provider = provider

    async def shows(self) -> Shown:
        """What it shows next, and what it was told."""
        event = await self._provider.event("shown")
        return event["state"], event["told"]

    async def next(self, other_than: Shown) -> Shown:
        """What it shows instead: while it waits, it is told the same again and again."""
        while (shown := await self.shows()) == other_than:
            pass
        return shown


@asynccontextmanager
async def page_on(server: Server, module: str, *, after: str | None = None) -> AsyncGenerator[Page]:
    """The page of a session, to which ``after`` has happened before."""
    assert NODE is not None
    async with calling(server) as operator:
        id, token = await operator.session()
        if after is not None:
            await operator.put(id, after, "spam")
        process = await asyncio.create_subprocess_exec(
            NODE, str(CLIENTS / "page.mjs"), module, server.websocket_url, token, server.url, stdin=PIPE, stdout=PIPE
        )
        try:
            yield Page(Provider(process), operator, id)
        finally:
            process.kill()
            await process.wait()


WAITING = ("suspended, waiting", "under review")


async def test_the_page_waits_while_its_session_is_suspended_and_says_when_it_is_removed(
    server: Server, module: str
) -> None:
    async with page_on(server, module) as page:
        began = await page.shows()
        await page.operator.put(page.id, "suspend", "under review")
        suspended, still = await page.shows(), await page.shows()
        await page.operator.put(page.id, "resume")
        resumed = await page.next(other_than=WAITING)
        await page.operator.put(page.id, "invalidate", "spam")
        removed = await page.shows()

    assert (began, resumed) == (("connected", ""), ("connected", ""))
    assert suspended == still == WAITING
    assert removed == ("you were removed", "spam")


async def test_the_page_learns_while_it_waits_that_it_was_removed(server: Server, module: str) -> None:
    async with page_on(server, module, after="suspend") as page:
        waiting = await page.shows()
        await page.operator.put(page.id, "invalidate")

        assert waiting == ("suspended, waiting", "spam")
        assert await page.next(other_than=waiting) == ("you were removed", "")


@pytest.mark.parametrize(
    ("command", "shown"),
    [("invalidate", ("you were removed", "spam")), ("expire", ("log in again", ""))],
)
async def test_the_page_says_what_happened_before_it_was_opened(
    command: str, shown: Shown, server: Server, module: str
) -> None:
    async with page_on(server, module, after=command) as page:
        assert await page.shows() == shown
