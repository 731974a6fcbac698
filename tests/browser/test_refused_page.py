"""What the code of a page sees in a real browser when its handshake is refused."""

from collections.abc import Generator

import pytest
from playwright.async_api import async_playwright

from tests.browser.windows import NEEDED, chromium
from tests.support.calls import calling
from tests.support.server import Server, lasting_server

pytestmark = NEEDED

KNOCK = """([url, token]) => new Promise(done => {
  const socket = new WebSocket(url, ["roomkey.v1", "roomkey.token." + token]);
  socket.onclose = ({ code, reason, wasClean }) => done([code, reason, wasClean]);
})"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    with chromium(tmp_path_factory.mktemp("profile")) as address:
        yield address


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with lasting_server() as server:
        yield server


@pytest.mark.parametrize("path", ["/ws", "/yjs/notes/today", "/hocuspocus"])
@pytest.mark.parametrize(
    ("command", "code", "reason"),
    [("invalidate", 4401, "session_invalidated: spam"), ("suspend", 4503, "session_suspended: spam")],
)
async def test_a_page_sees_why_it_is_not_let_in(
    command: str, code: int, reason: str, path: str, browser: str, server: Server
) -> None:
    async with calling(server) as operator, async_playwright() as playwright:
        id, token = await operator.session()
        await operator.put(id, command, "spam")
        connected = await playwright.chromium.connect_over_cdp(browser)
        context = await connected.new_context()
        page = await context.new_page()
        await page.goto(f"{server.url}/docs")

        seen = await page.evaluate(KNOCK, [server.url.replace("http", "ws", 1) + path, token])

        await context.close()
        await connected.close()
        assert seen == [4423 if (path, code) == ("/ws", 4503) else code, reason, True]
