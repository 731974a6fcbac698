"""
The guide as its readers have it: the files of its page in a folder, built, served, and shown in a browser.

``python -m tests.support.guide`` takes the pictures of the page anew.
"""

import asyncio
import os
import re
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal, NamedTuple

import httpx
from playwright.async_api import Browser, Page, Route, async_playwright, expect

from roomkey.security import apikeys
from tests.browser.windows import chromium
from tests.support.applications import uvicorn_with
from tests.support.cutting_proxy import CuttingProxy, cutting_proxy
from tests.support.pages import ROOT, blocks
from tests.support.typescript_client import pack, run_at_once

PAGE: Final = ROOT / "docs" / "guide.md"
PICTURES: Final = ROOT / "docs" / "guide"
FOLDER: Final = ROOT / "examples" / "guide"
PACKAGES: Final = FOLDER / "node_modules"

VITE_SECONDS: Final = 30
_VITE: Final = re.compile(r"http://127\.0\.0\.1:\d+")

STATES: Final = ("connecting", "active", "readonly", "suspended", "expired", "removed", "offline")

PICTURE: Final = (760, 400)
"""Width and height of a picture."""

_FILE: Final = re.compile(r"^`([\w./-]+)`:?\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A file on the page: its name in a line of its own, and then its text."""


def files() -> dict[str, str]:
    """The files that the page has its reader write, by their names."""
    return dict(_FILE.findall(PAGE.read_text(encoding="utf-8")))


def write_files(folder: Path) -> None:
    """Do what the page says."""
    for name, text in files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def built(folder: Path) -> Path:
    """The project in ``folder``, with the packages that are installed here and the client as it is packed."""
    project = pack(folder, PACKAGES)
    write_files(project)
    run_at_once("npm", "run", "check", folder=project)
    run_at_once("npm", "run", "build", "--", "--logLevel=warn", folder=project)
    return project


def follow(home: Path) -> Path:
    """
    Do all that the page says on a machine that has Python, Node.js and a checkout, but has never installed anything.

    Returns the project, which has been built. What is installed comes over the network.
    """
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(home / "roomkey")], check=True)
    beginning, end = [block.text for block in blocks(PAGE) if block.language == "shell"]
    _type(beginning, home, home)
    write_files(home / "notes")
    to_the_build, _, server = end.rstrip().rpartition("\n")
    assert server == ".venv/bin/uvicorn app:app"
    _type(to_the_build, home / "notes", home)
    return home / "notes"


def _type(script: str, folder: Path, home: Path) -> None:
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert done.returncode == 0, f"{script}\n{done.stdout.decode()}\n{done.stderr.decode()}"


class Site(NamedTuple):
    """The application of the guide behind a proxy that can be cut, a browser, and somebody with an API key."""

    browser: Browser
    proxy: CuttingProxy
    url: str
    operator: httpx.AsyncClient

    async def page(self, size: tuple[int, int] = PICTURE, scheme: Literal["light", "dark"] = "light") -> Page:
        """A window in which nobody has logged in."""
        width, height = size
        context = await self.browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        page = await context.new_page()
        await page.goto(self.url)
        return page

    async def expire(self, user: str) -> None:
        """End the time of somebody's sessions."""
        for session in (await self.operator.get("/sessions", params={"user_id": user})).json()["sessions"]:
            (await self.operator.put(f"/sessions/{session['id']}/expire")).raise_for_status()


@asynccontextmanager
async def site(project: Path, browser: str, python: str = sys.executable) -> AsyncGenerator[Site]:
    """The project served by uvicorn, as the page says."""
    token, digest = apikeys.mint()
    environment = {"ROOMKEY_API_KEYS": f"operator:admin:{digest}"}
    async with (
        uvicorn_with("app:app", project, environment=environment, python=python) as url,
        cutting_proxy(int(url.rpartition(":")[2])) as proxy,
        httpx.AsyncClient(base_url=f"{url}/rooms", headers={"authorization": f"Bearer {token}"}) as operator,
        async_playwright() as playwright,
    ):
        connected = await playwright.chromium.connect_over_cdp(browser)
        try:
            yield Site(connected, proxy, proxy.through(url), operator)
        finally:
            for context in connected.contexts:
                await context.close()
            await connected.close()


@asynccontextmanager
async def vite(project: Path, application: str) -> AsyncGenerator[str]:
    """``npm run dev`` beside the application; yields its address."""
    settings = project / "vite.config.ts"
    text = settings.read_text(encoding="utf-8")
    settings.write_text(text.replace("http://127.0.0.1:8000", application), encoding="utf-8")
    # Not npm, which does not pass on the end.
    command = ("node_modules/.bin/vite", "--port", "0", "--host", "127.0.0.1")
    process = await asyncio.create_subprocess_exec(
        *command, cwd=project, env={**os.environ, "NO_COLOR": "1"}, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(VITE_SECONDS):
            while (match := _VITE.search(line := (await process.stdout.readline()).decode())) is None:
                assert line, "Vite did not start"
        yield match[0]
    finally:
        process.terminate()
        await process.wait()


async def log_in(page: Page, user: str, password: str) -> None:
    """Fill the form."""
    await page.get_by_label("Name").fill(user)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Log in").click()


async def tells(page: Page, text: str) -> None:
    """Wait until this is what the page says about its state."""
    await expect(page.get_by_role("status")).to_have_text(text)


Look = Callable[[str, Page], Awaitable[None]]
"""Called when the page is in this state."""


async def from_log_in_to_removed(site: Site, look: Look) -> None:
    """What happens in the guide: Grace is in each state once, because of Ada, the network, or the clock."""
    ada = await site.page((760, 800))
    await log_in(ada, "ada", "engine")
    await tells(ada, "You are connected.")
    grace = await site.page()
    await _enters(grace, look)
    await _write_together(ada, grace)
    await look("active", grace)

    await _is_restricted(ada, grace, look)
    await _goes_offline(site, grace, look)
    await expect(ada.get_by_label("The note")).to_contain_text(re.compile("Cake, too..*Written on a train."))
    await _comes_back_after_the_end(site, grace, look)
    await _logs_out_elsewhere(site, grace)

    await ada.get_by_label("Reason").fill("the plan is secret now")
    await ada.get_by_role("button", name="Remove grace").click()
    await tells(grace, "You were removed: the plan is secret now.")
    await expect(grace.get_by_label("The note")).to_have_count(0)
    await look("removed", grace)
    await grace.reload()
    await tells(grace, "You were removed: you are no member of this note.")


async def _is_restricted(ada: Page, grace: Page, look: Look) -> None:
    await ada.get_by_label("What grace may do").select_option("may read")
    await tells(grace, "You may read this note.")
    await look("readonly", grace)
    await ada.get_by_label("What grace may do").select_option("may write")
    await tells(grace, "You are connected.")

    await ada.get_by_label("Reason").fill("we look into something")
    await look("administrator", ada)
    await ada.get_by_role("button", name="Suspend grace").click()
    await tells(grace, "Your access is suspended: we look into something. Wait here: it goes on by itself.")
    await look("suspended", grace)
    await ada.get_by_role("button", name="Resume grace").click()
    await tells(grace, "You are connected.")


async def _enters(page: Page, look: Look) -> None:
    gate = asyncio.Event()

    async def wait(route: Route) -> None:
        await gate.wait()
        await route.continue_()

    await page.route("**/rooms/**", wait)
    await log_in(page, "grace", "compiler")
    await tells(page, "Connecting …")
    await look("connecting", page)
    gate.set()
    await tells(page, "You are connected.")
    await page.unroute_all(behavior="wait")


async def _write_together(ada: Page, grace: Page) -> None:
    notes = [page.get_by_label("The note") for page in (ada, grace)]
    await notes[0].press_sequentially("## Plan")
    await notes[0].press("Enter")
    await notes[0].press_sequentially("Tea at four. ")
    await expect(notes[1]).to_contain_text("Tea at four.")
    await _new_line_after("Tea at four.", grace)
    await notes[1].press_sequentially("Cake, too.")
    await expect(notes[0]).to_contain_text("Cake, too.")
    await expect(grace.get_by_text("Saved", exact=True)).to_be_visible()


async def _new_line_after(text: str, page: Page) -> None:
    await page.get_by_text(text).click()
    await page.keyboard.press("End")
    # The editor hears of the new place later.
    await page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")
    await page.keyboard.press("Enter")


async def _goes_offline(site: Site, page: Page, look: Look) -> None:
    site.proxy.refuses = True
    site.proxy.cut_all()
    await expect(page.get_by_role("status")).to_contain_text("You are offline.")
    await _new_line_after("Cake, too.", page)
    await page.keyboard.insert_text("Written on a train.")
    await expect(page.get_by_role("status")).to_contain_text("Changes that are only here:")
    await look("offline", page)
    site.proxy.refuses = False
    await tells(page, "You are connected.")
    await expect(page.get_by_text("Saved", exact=True)).to_be_visible()


async def _comes_back_after_the_end(site: Site, page: Page, look: Look) -> None:
    await page.context.clear_cookies()
    await site.expire("grace")
    await tells(page, "Your log-in is over. What you wrote is still here.")
    await look("expired", page)
    await log_in(page, "grace", "compiler")
    await tells(page, "You are connected.")
    await expect(page.get_by_label("The note")).to_contain_text("Written on a train.")


async def _logs_out_elsewhere(site: Site, page: Page) -> None:
    other = await page.context.new_page()
    await other.goto(site.url)
    await other.get_by_role("button", name="Log Grace out").click()
    await tells(page, "Your session has ended: logged out.")
    await other.close()
    await log_in(page, "grace", "compiler")
    await tells(page, "You are connected.")


async def _take_pictures() -> None:
    PICTURES.mkdir(exist_ok=True)

    async def look(state: str, page: Page) -> None:
        await page.screenshot(path=PICTURES / f"{state}.png", animations="disabled")

    with TemporaryDirectory() as folder, chromium(Path(folder) / "profile") as browser:
        async with site(built(Path(folder)), browser) as opened:
            await from_log_in_to_removed(opened, look)


if __name__ == "__main__":
    asyncio.run(_take_pictures())
