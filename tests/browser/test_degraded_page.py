"""While the nodes of a deployment do not hear each other, the demo says so quietly, and for as long."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from playwright.async_api import async_playwright, expect

from roomkey.config import load
from roomkey.node import Node
from roomkey.settings import SourcedValue
from tests.browser.windows import NEEDED, Windows
from tests.support.rawsocket import serving

pytestmark = NEEDED

LATER: Final = "Changes reach others later. You can go on writing."


@asynccontextmanager
async def a_server(troubles: dict[str, str]) -> AsyncGenerator[str]:
    """A server that is as well as ``troubles`` say."""
    given = {"storage.url": SourcedValue("memory", "test"), "server.dev": SourcedValue(True, "test")}
    node = Node(load(None, given, environment={}))
    async with node.running():
        node.watch_for_troubles(lambda: troubles)
        async with serving("picows", node, node.config.websocket, app=node.app) as port:
            yield f"http://127.0.0.1:{port}"


async def test_a_window_says_that_changes_reach_others_later_and_when_they_do_not_any_more(browser: str) -> None:
    troubles: dict[str, str] = {}
    async with a_server(troubles) as url, async_playwright() as playwright:
        connected = await playwright.chromium.connect_over_cdp(browser)
        windows = Windows(connected, url)
        ada = await windows.window("ada")
        await ada.write("Hello")

        troubles["broker"] = "it does not answer"
        await expect(ada.banner).to_contain_text(LATER)
        await ada.write(" there")
        grace = await windows.window("grace")
        await grace.shows("Hello there")
        late = await grace.banner.inner_text()
        troubles.clear()
        await expect(ada.banner).to_contain_text("Changes reach everyone again.")
        await expect(ada.banner).to_be_hidden()
        await expect(grace.banner).to_be_hidden()

        assert late == LATER
        assert ada.complaints == grace.complaints == []
        await connected.close()
