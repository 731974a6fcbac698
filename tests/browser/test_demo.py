"""The demo in real windows: people write together, and a session that is taken away is taken away at once."""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
from playwright.async_api import expect

from tests.browser.windows import NEEDED, PHONE, Windows, chromium, windows
from tests.support.calls import Caller, calling
from tests.support.server import Server, lasting_server, running_server

pytestmark = NEEDED


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    with chromium(tmp_path_factory.mktemp("profile")) as address:
        yield address


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with lasting_server() as server:
        yield server


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


async def test_two_people_see_each_other_write(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada = await opened.window("Ada")
        grace = await opened.window("Grace")

        await ada.write("Apples")
        await grace.shows("Apples")
        await grace.write(", pears")

        await ada.shows("Apples, pears")
        await expect(ada.page.locator(".cm-ySelectionInfo")).to_have_text("Grace")
        await expect(ada.page.get_by_label("In this document").get_by_label("Grace")).to_be_visible()


async def test_what_was_written_while_the_server_was_away_is_merged_when_it_is_back(
    browser: str, tmp_path: Path
) -> None:
    data = ("--data", str(tmp_path))
    async with running_server(*data, storage="file") as first, windows(browser, first.url) as opened:
        ada = await opened.window("Ada")
        grace = await opened.window("Grace")
        await ada.write("Apples")
        await grace.shows("Apples")

        await first.stop()
        await ada.write(" pears")
        await expect(ada.saved).to_have_text("Not saved yet")
        await grace.text.press("Control+Home")
        await grace.page.keyboard.type("Plums ")
        await expect(grace.saved).to_have_text("Not saved yet")
        async with running_server(*data, storage="file", port=first.port):
            await ada.shows("Plums Apples pears")
            await grace.shows("Plums Apples pears")


async def test_a_suspended_session_can_read_but_not_write_until_it_is_resumed(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada = await opened.window("Ada")
        grace = await opened.window("Grace")
        await ada.write("Apples")
        await grace.shows("Apples")

        await ada.press("Suspend", "Grace").click()

        await expect(grace.banner).to_contain_text("suspended")
        await expect(grace.text).to_have_attribute("contenteditable", "false")
        await expect(grace.text).to_have_text("Apples")

        await ada.press("Resume", "Grace").click()

        await expect(grace.banner).to_be_hidden()
        await grace.write(", pears")
        await ada.shows("Apples, pears")


async def test_a_revoked_session_is_over_and_only_a_new_one_writes_again(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada = await opened.window("Ada")
        grace = await opened.window("Grace")
        await ada.write("Apples")
        await grace.shows("Apples")

        await ada.press("Revoke", "Grace").click()

        await expect(grace.banner).to_contain_text("revoked")
        await expect(grace.text).to_have_attribute("contenteditable", "false")

        await grace.page.get_by_role("button", name="Start a new session").click()

        await expect(grace.banner).to_be_hidden()
        await grace.write(", pears")
        await ada.shows("Apples, pears")


async def test_a_session_that_may_only_read_for_a_while_is_told_so_and_writes_again_afterwards(
    browser: str, server: Server
) -> None:
    async with demo(browser, server) as (opened, caller):
        ada = await opened.window("Ada")
        grace = await opened.window("Grace")
        await ada.write("Apples")
        await ada.shows("Apples")
        id = await ada.page.locator("#facts .code").text_content()

        await caller.http.put(f"/sessions/{id}/grants", json={"grants": [{"documents": "**", "access": "read"}]})

        await expect(ada.banner).to_contain_text("may read this document, but not write")
        await expect(ada.text).to_have_attribute("contenteditable", "false")

        await caller.http.put(f"/sessions/{id}/grants", json={"grants": [{"documents": "**", "access": "write"}]})

        await expect(ada.banner).to_be_hidden()
        await ada.write(", pears")
        await ada.shows("Apples, pears")
        await grace.shows("Apples, pears")


async def test_a_reload_keeps_the_session(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada = await opened.window("Ada")
        session = ada.page.locator("#facts .code")
        before = await session.text_content()

        await ada.page.reload()

        await expect(session).to_have_text(before or "")
        await expect(ada.saved).to_have_text("All saved")


async def test_a_version_is_kept_looked_at_and_restored(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada = await opened.window("Ada")
        grace = await opened.window("Grace")
        await ada.write("Apples")
        await ada.shows("Apples")
        await ada.page.get_by_label("Label of the version").fill("before lunch")
        await ada.page.get_by_role("button", name="Save version").click()
        version = ada.page.get_by_role("button", name="before lunch")
        await expect(version).to_contain_text("by Ada")
        await ada.write(", pears")
        await grace.shows("Apples, pears")

        await version.click()

        await expect(ada.page.locator("#preview-text")).to_have_text("Apples")
        await grace.shows("Apples, pears")

        await ada.page.get_by_role("button", name="Restore this version").click()

        await ada.shows("Apples")
        await grace.shows("Apples")


async def test_a_document_that_was_deleted_begins_anew_in_every_window(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, caller):
        ada = await opened.window("Ada")
        grace = await opened.window("Grace")
        await ada.write("Apples")
        await grace.shows("Apples")

        deleted = await caller.http.delete(f"/documents/{quote(opened.document, safe='')}")

        assert deleted.status_code == 204
        for window in (ada, grace):
            await expect(window.page.locator("#notice")).to_contain_text("deleted")
        await ada.write("Pears")
        await grace.shows("Pears")
        await ada.shows("Pears")


async def test_nothing_is_wider_than_a_phone(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada = await opened.window("Ada", size=PHONE)
        grace = await opened.window("Grace")
        await grace.write("A line that is longer than any phone is wide " * 3 + "x" * 200)
        await grace.press("Suspend", "Ada").click()
        await expect(ada.banner).to_be_visible()

        width = await ada.page.evaluate("document.documentElement.scrollWidth")

        assert width == PHONE[0]


async def test_the_page_complains_of_nothing_and_asks_nobody_else(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada = await opened.window("Ada")
        grace = await opened.window("Grace")

        await ada.write("# Apples")
        await grace.shows("# Apples")
        await ada.page.get_by_role("button", name="Save version").click()
        await ada.page.get_by_role("button", name="Version 1").click()
        await ada.page.get_by_role("button", name="Back to the editor").click()
        await ada.press("Suspend", "Grace").click()
        await expect(grace.banner).to_be_visible()

        assert [*ada.complaints, *grace.complaints] == []
        assert ada.hosts | grace.hosts == {server.url.removeprefix("http://")}
