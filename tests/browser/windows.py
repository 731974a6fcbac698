"""Windows of a browser that show the demo, each as somebody else."""

import re
import shutil
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Final, Literal, NamedTuple
from urllib.parse import urlencode, urlsplit

import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, async_playwright, expect

from roomkey.api.pages import BUILT
from tests.support.calls import Caller, calling
from tests.support.server import Server

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

NEEDED: Final = pytest.mark.skipif(
    CHROMIUM is None or not (BUILT / "demo" / "index.html").is_file(),
    reason="needs Chromium, and the front end built (python hatch_build.py)",
)

FLAGS: Final = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--mute-audio",
    "--password-store=basic",
)

LISTENING: Final = "DevTools listening on "

DESKTOP: Final = (1280, 800)
PHONE: Final = (390, 844)
NARROWEST: Final = (320, 640)
"""As narrow as a page has to work: WCAG 2.2, 1.4.10."""

CARETS: Final = r"(?:\u2060+\w+\u2060)*"
"""Where others are: their names stand in the text, too, between word joiners."""

expect.set_options(timeout=15_000)


class Window:
    """One window, in a browser profile of its own. What went wrong in it is in ``complaints``."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.text = page.get_by_label("The document")
        self.saved = page.locator("#saved")
        self.banner = page.locator("#banner")
        self.here = page.get_by_label("In this document").get_by_role("listitem")
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        page.on("websocket", lambda socket: self.hosts.add(urlsplit(socket.url).netloc))

    def press(self, command: str, user: str) -> Locator:
        """The button that does something to somebody else's session."""
        return self.page.get_by_role("button", name=f"{command} {user}", exact=True)

    def fact(self, term: str) -> Locator:
        """What the window says about its own session."""
        return self.page.locator("#facts dt", has_text=term).locator("+ dd")

    def version(self, name: str) -> Locator:
        """The button that shows a version."""
        return self.page.locator("#versions").get_by_role("button", name=name)

    async def keep_version(self, label: str) -> None:
        """Keep the document as it is now."""
        await self.page.get_by_label("Label of the version").fill(label)
        await self.page.get_by_role("button", name="Save version").click()
        await expect(self.version(label)).to_be_visible()

    async def restore_version(self, label: str) -> None:
        """Look at a version, and restore it."""
        await self.version(label).first.click()
        await self.page.get_by_role("button", name="Restore this version").click()
        await expect(self.text).to_be_focused()

    async def write(self, text: str) -> None:
        """Type at the end of the text."""
        await self.text.press("Control+End")
        await self.page.keyboard.type(text)

    async def shows(self, text: str) -> None:
        """Return when the text is this one, and all of it is saved."""
        letters = CARETS.join(["", *map(re.escape, text), ""])
        await expect(self.text).to_have_text(re.compile(f"^{letters}$"))
        await expect(self.saved).to_have_text("All saved")

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)


NUMBERS: Final = count()

Scheme = Literal["light", "dark"]


class Windows:
    """Where windows of one document are opened, of which no other test knows."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.document = f"notes/{next(NUMBERS)}"
        self._browser = browser
        self._url = url

    async def window(self, user: str, *, size: tuple[int, int] = DESKTOP, scheme: Scheme = "light") -> Window:
        """A window in which ``user`` has just opened the document."""
        width, height = size
        context: BrowserContext = await self._browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, locale="en-GB"
        )
        window = Window(await context.new_page())
        query = urlencode({"user": user, "document": self.document})
        await window.page.goto(f"{self._url}/demo?{query}")
        await expect(window.saved).to_have_text("All saved")
        return window


@contextmanager
def chromium(profile: Path) -> Generator[str]:
    """A browser without windows; yields the address at which it is steered."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = next((line for line in process.stderr if line.startswith(LISTENING)), "")
            assert line, "the browser did not start"
            Thread(target=process.stderr.read, daemon=True).start()  # or what it says would fill the pipe
            yield line.removeprefix(LISTENING).strip()
        finally:
            process.kill()


@asynccontextmanager
async def windows(browser: str, url: str) -> AsyncGenerator[Windows]:
    """Windows in the browser that is steered at ``browser``, for the server at ``url``; closed in the end."""
    async with async_playwright() as playwright:
        connected = await playwright.chromium.connect_over_cdp(browser)
        try:
            yield Windows(connected, url)
        finally:
            for context in connected.contexts:
                await context.close()
            await connected.close()


class Demo(NamedTuple):
    """A browser at the demo of the module's server, on which nobody else has a session."""

    windows: Windows
    caller: Caller


@asynccontextmanager
async def demo(browser: str, server: Server) -> AsyncGenerator[Demo]:
    async with windows(browser, server.url) as opened, calling(server) as caller:
        yield Demo(opened, caller)
        for session in (await caller.http.get("/sessions")).json()["sessions"]:
            await caller.http.delete(f"/sessions/{session['id']}")
