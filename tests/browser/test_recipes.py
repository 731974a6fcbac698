"""The recipe of a log-in with a cookie, in a browser; the other recipes are run where what they need is."""

from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import async_playwright, expect

from tests.browser.windows import CHROMIUM
from tests.support.applications import uvicorn_with
from tests.support.pages import blocks
from tests.support.proxies import RECIPES
from tests.support.typescript_client import NEEDED, pack, run_at_once

pytestmark = [NEEDED, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]

ENTRY: Final = """
import { openDocument } from "@roomkey/client/y-websocket";
import { logIn, logOut, session } from "./recipe.ts";

const show = (own) => openDocument(own, "notes/plan").status.subscribe(({ state }) => (document.title = state));
window.enter = async () => show(await logIn("ada", "engine"));
window.comeBack = () => void show(session());
window.leave = logOut;
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = pack(tmp_path_factory.mktemp("recipe"))
    (text,) = (block.text for block in blocks(RECIPES) if block.language == "ts")
    (project / "recipe.ts").write_text(text, encoding="utf-8")
    (project / "page.mjs").write_text(ENTRY, encoding="utf-8")
    settings = "--strict --module esnext --moduleResolution bundler --target es2023 --lib es2023,dom --noEmit"
    run_at_once("tsc", *settings.split(), "--skipLibCheck", "recipe.ts", folder=project)
    run_at_once("esbuild", "page.mjs", "--bundle", "--outfile=page.js", folder=project)
    application = next(block.text for block in blocks(RECIPES) if block.language == "python")
    (project / "app.py").write_text(application, encoding="utf-8")
    return project


async def test_the_cookie_of_the_recipe_opens_documents_until_the_log_out(project: Path, browser: str) -> None:
    async with uvicorn_with("app:app", project) as url, async_playwright() as playwright:
        connected = await playwright.chromium.connect_over_cdp(browser)
        context = await connected.new_context(bypass_csp=True)
        page = await context.new_page()
        await page.goto(f"{url}/rooms/health/live")
        await page.evaluate((project / "page.js").read_text())
        await page.evaluate("enter()")
        await expect(page).to_have_title("active")
        seen_by_scripts = await page.evaluate("document.cookie")
        mine = await page.evaluate("fetch('/members/me').then((answer) => answer.json())")

        await page.reload()
        await page.evaluate((project / "page.js").read_text())
        await page.evaluate("comeBack()")
        await expect(page).to_have_title("active")
        await page.evaluate("leave()")
        await expect(page).to_have_title("removed")

        stranger = await page.evaluate("fetch('/members/me').then(({ status }) => status)")
        await page.evaluate("comeBack()")
        await expect(page).to_have_title("expired")
        await context.close()
        await connected.close()

    assert "__Host-roomkey=" not in seen_by_scripts
    assert mine == {"user": "ada"}
    assert stranger == 401
