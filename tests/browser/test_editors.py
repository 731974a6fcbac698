"""Each editor of the recipes: two people write in it at once, and one of them loses the right to."""

import asyncio
import re
import shutil
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple
from urllib.parse import quote, urlencode

import pytest
from playwright.async_api import Locator, Page, async_playwright, expect

from tests.browser.windows import CHROMIUM
from tests.support.calls import Caller, calling
from tests.support.pages import ROOT, blocks
from tests.support.server import Server, lasting_server
from tests.support.static_files import served
from tests.support.typescript_client import NEEDED, pack, run_at_once

FOLDER: Final = ROOT / "examples" / "editors"
PACKAGES: Final = FOLDER / "node_modules"
PAGE: Final = ROOT / "docs" / "editors.md"
EDITORS: Final = ("blocknote", "codemirror", "lexical", "monaco", "prosemirror", "quill", "tiptap")
PATIENCE_SECONDS: Final = 20

pytestmark = [
    NEEDED,
    pytest.mark.skipif(
        CHROMIUM is None or not (PACKAGES / "vite").exists(), reason="needs Chromium, and `npm ci` in examples/editors"
    ),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """Where there is what Vite builds of the recipes, whose types are right."""
    project = pack(tmp_path_factory.mktemp("editors"), PACKAGES)
    shutil.copytree(FOLDER / "src", project / "src")
    for name in ("index.html", "package.json", "tsconfig.json", "vite.config.ts"):
        shutil.copy(FOLDER / name, project / name)
    run_at_once("npm", "run", "check", folder=project)
    run_at_once("npm", "run", "build", "--", "--logLevel=error", folder=project)
    with served(project / "dist") as origin:
        yield origin


@pytest.fixture(scope="module")
def server(pages: str) -> Generator[Server]:
    """A server of another origin, which knows the pages."""
    with lasting_server(arguments=("--set", f"security.allowed_origins={pages}")) as server:
        yield server


class Writer(NamedTuple):
    """Somebody with a window, and what went wrong in it."""

    id: str
    page: Page
    complaints: list[str]

    @property
    def editor(self) -> Locator:
        return self.page.locator("#editor")

    async def write(self, text: str) -> None:
        """Type at the end."""
        await self.editor.locator(".view-lines, [contenteditable=true]").first.click()
        await self.page.keyboard.press("Control+End")
        await self.page.keyboard.type(text)


class Table(NamedTuple):
    """A document in which people write with one editor, and somebody who may do everything."""

    editor: str
    name: str
    caller: Caller
    writers: list[Writer]

    async def in_document(self, number: int) -> None:
        """Wait until so many are there."""
        path = f"/documents/{quote(self.name, safe='')}/sessions"
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len((await self.caller.http.get(path)).json().get("sessions", ())) < number:  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # it tells nobody


@asynccontextmanager
async def table(editor: str, browser: str, server: Server, pages: str) -> AsyncGenerator[Table]:
    async with async_playwright() as playwright, calling(server) as caller:
        connected = await playwright.chromium.connect_over_cdp(browser)
        place = Table(editor, f"notes/{editor}", caller, [])
        for number, user in enumerate(("Ada", "Grace"), 1):
            id, token = await caller.session(user)
            page = await (await connected.new_context()).new_page()
            complaints: list[str] = []
            page.on("pageerror", lambda error, complaints=complaints: complaints.append(str(error)))
            query = urlencode({"editor": editor, "name": place.name, "user": user, "url": server.url})
            await page.goto(f"{pages}/?{query}#{token}")
            await place.in_document(number)
            place.writers.append(Writer(id, page, complaints))
        try:
            yield place
        finally:
            for context in connected.contexts:
                await context.close()
            await connected.close()


def test_the_page_has_each_recipe_as_it_is_here() -> None:
    written = {block.text for block in blocks(PAGE)}

    recipes = {file.read_text(encoding="utf-8") for file in (FOLDER / "src").iterdir() if file.name != "main.tsx"}
    assert recipes - written == set()
    assert {file.stem for file in (FOLDER / "src").iterdir()} == {*EDITORS, "main", "writer"}


@pytest.mark.parametrize("editor", EDITORS)
async def test_two_people_write_at_once_and_who_may_not_write_cannot(
    editor: str, browser: str, server: Server, pages: str
) -> None:
    async with table(editor, browser, server, pages) as place:
        ada, grace = place.writers

        await ada.write("Tea")
        await expect(grace.editor).to_contain_text("Tea")
        await grace.write("AtFour")
        for writer in place.writers:
            await expect(writer.editor).to_contain_text(re.compile("Tea.*AtFour", re.DOTALL))
        caret = ada.page.locator(".yRemoteSelectionHead") if editor == "monaco" else ada.page.get_by_text("Grace")
        await expect(caret.first).to_be_attached()

        await place.caller.http.put(
            f"/sessions/{grace.id}/grants", json={"grants": [{"documents": "**", "access": "read"}]}
        )
        await expect(grace.editor.locator("[contenteditable=true]:not(.ql-clipboard)")).to_have_count(0)
        await ada.write("Sharp")
        await expect(grace.editor).to_contain_text("Sharp")
        assert [*ada.complaints, *grace.complaints] == []
