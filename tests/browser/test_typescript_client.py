"""A page with React and the packed client, in a browser: what its user is told, also after a sleep."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, cast

import pytest
from playwright.async_api import CDPSession, Page, async_playwright, expect

from tests.browser.windows import CHROMIUM
from tests.support.calls import Caller, calling
from tests.support.server import Server
from tests.support.typescript_client import FOLDER, NEEDED, pack, run_at_once

pytestmark = [NEEDED, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]

WAKING_SECONDS: Final = 5.0

ENTRY: Final = """
import { Session } from "@roomkey/client";
import { start } from "./react.tsx";

window.begin = (token, name) => {
  window.session = new Session({ url: location.origin, token, renew: (reason) => window.renew(reason) });
  start(window.session, name);
};
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    project = pack(tmp_path_factory.mktemp("package"))
    (project / "react.tsx").write_bytes((FOLDER / "examples" / "react.tsx").read_bytes())
    (project / "page.mjs").write_text(ENTRY)
    run_at_once("esbuild", "page.mjs", "--bundle", "--jsx=automatic", "--outfile=page.js", folder=project)
    return (project / "page.js").read_text()


class Shown(NamedTuple):
    """A page of a session in a document."""

    page: Page
    devtools: CDPSession
    caller: Caller
    id: str
    complaints: list[str]

    async def freeze(self) -> None:
        """As a browser does it when a laptop is closed: nothing of the page runs."""
        await self._become("frozen")

    async def thaw(self) -> float:
        """Let it run again; returns when that was."""
        await self._become("active")
        return time.monotonic()

    async def _become(self, state: str) -> None:
        # Playwright says less of the type than there is.
        send = cast("Callable[..., Awaitable[object]]", self.devtools.send)  # pyright: ignore[reportUnknownMemberType]
        await send("Page.setWebLifecycleState", {"state": state})

    async def says(self, **texts: str) -> None:
        """Wait until these are the texts of the elements with these ids."""
        for id, text in texts.items():
            await expect(self.page.locator(f"#{id}")).to_have_text(text)


@asynccontextmanager
async def shown(browser: str, server: Server, script: str) -> AsyncGenerator[Shown]:
    async with async_playwright() as playwright, calling(server) as caller:
        connected = await playwright.chromium.connect_over_cdp(browser)
        context = await connected.new_context(bypass_csp=True)
        page = await context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        # A page of the server's own origin, because browsers keep made-up ones away from this machine.
        await page.goto(f"{server.url}/health/live")
        await page.set_content('<div id="root"></div>')
        await page.evaluate(script)
        id, token = await caller.session("ada")
        await page.evaluate("([token, name]) => begin(token, name)", [token, f"notes/{id}"])
        there = Shown(page, await context.new_cdp_session(page), caller, id, complaints)
        await there.says(session="active", user="ada", document="active", chat="active", saved="saved")
        try:
            yield there
        finally:
            await context.close()
            await connected.close()


async def test_a_page_shows_how_its_session_its_document_and_its_room_are(
    browser: str, server: Server, script: str
) -> None:
    async with shown(browser, server, script) as ada:
        await ada.page.get_by_role("button", name="Write").click()
        await ada.says(text="!", saved="saved")

        await ada.caller.put(ada.id, "suspend", "lunch")
        await ada.says(document="Access is suspended: lunch", chat="Access is suspended: lunch")
        await expect(ada.page.get_by_role("button", name="Write")).to_be_disabled()
        await ada.caller.put(ada.id, "resume")
        await ada.says(session="active", document="active", chat="active")
        await ada.caller.put(ada.id, "invalidate", "spam")
        await ada.says(document="You were removed: spam", chat="You were removed: spam")

        assert ada.complaints == []


async def test_who_was_removed_while_the_page_was_frozen_is_told_within_five_seconds(
    browser: str, server: Server, script: str
) -> None:
    async with shown(browser, server, script) as ada:
        await ada.freeze()
        await ada.caller.put(ada.id, "invalidate", "spam")

        awake_at = await ada.thaw()
        await expect(ada.page.locator("#session")).to_contain_text("You were removed")
        awake_for = time.monotonic() - awake_at

        assert awake_for < WAKING_SECONDS


async def test_a_page_that_was_frozen_over_the_end_of_its_session_goes_on_with_a_new_token(
    browser: str, server: Server, script: str
) -> None:
    async with shown(browser, server, script) as ada:
        _, another = await ada.caller.session("ada")
        await ada.page.evaluate("token => { window.renew = async () => token }", another)
        await ada.freeze()
        await ada.caller.put(ada.id, "expire")

        await ada.thaw()
        await ada.says(session="active", document="active", chat="active")
        await ada.page.get_by_role("button", name="Write").click()
        await ada.says(text="!", saved="saved")

        assert ada.complaints == []
