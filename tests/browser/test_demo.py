"""The demo in real windows: people write together, and a session that is taken away is taken away at once."""

import re
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from playwright.async_api import expect

from tests.browser.windows import NARROWEST, NEEDED, PHONE, demo, windows
from tests.support.server import Server, running_server

pytestmark = NEEDED


async def test_two_people_see_each_other_write(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada = await opened.window("Ada")
        grace = await opened.window("Grace")

        await ada.write("Apples")
        await grace.shows("Apples")
        await grace.write(", pears")

        await ada.shows("Apples, pears")
        await expect(ada.page.locator(".cm-ySelectionInfo")).to_have_text("Grace")
        await expect(ada.here).to_have_text(["AAda", "GGrace"])


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
        await expect(ada.saved).to_have_text("Read only")
        await expect(ada.fact("Access")).to_have_text("read only")
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


async def test_at_the_narrowest_nothing_is_cut_off_that_cannot_be_read_elsewhere(browser: str, server: Server) -> None:
    name = "Bartholomäus von Hohenzollern-Sigmaringen"
    async with demo(browser, server) as (opened, _):
        grace = await opened.window("Grace")
        await grace.write("x" * 200)
        await grace.keep_version("Donaudampfschifffahrtsgesellschaft" * 2)
        ada = await opened.window(name, size=NARROWEST)
        await expect(ada.here).to_have_count(2)
        await grace.restore_version("Donau")
        await expect(ada.page.locator("#restored")).to_be_visible()

        width = await ada.page.evaluate("document.documentElement.scrollWidth")
        titles = await ada.page.evaluate(
            """[...document.querySelectorAll("body *")]
                .filter((each) => getComputedStyle(each).textOverflow === "ellipsis")
                .filter((each) => each.scrollWidth > each.clientWidth)
                .filter((each) => each.closest(".cm-editor") === null && each.title !== each.textContent)
                .map((each) => each.outerHTML)"""
        )

        assert width == NARROWEST[0]
        assert titles == []
        await expect(ada.page.get_by_title(name).first).to_be_visible()


async def test_a_window_without_a_network_says_so_and_that_it_is_back(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada = await opened.window("Ada")
        grace = await opened.window("Grace")
        await ada.write("Apples")
        await grace.shows("Apples")

        await ada.page.context.set_offline(True)

        await expect(ada.banner).to_contain_text("You are offline")
        await ada.write(", pears")
        await expect(ada.saved).to_have_text("Not saved yet")

        await ada.page.context.set_offline(False)

        await expect(ada.banner).to_contain_text("Connected again.")
        await grace.shows("Apples, pears")
        await expect(grace.here).to_have_text(["AAda", "GGrace"])
        await expect(ada.here).to_have_text(["AAda", "GGrace"])
        await expect(ada.banner).to_be_hidden()


async def test_a_browser_without_a_network_still_reaches_a_server_on_its_machine(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada = await opened.window("Ada")

        async with ada.page.expect_response("**/sessions/me"):
            await ada.page.evaluate(
                """Object.defineProperty(navigator, "onLine", { value: false }); dispatchEvent(new Event("offline"))"""
            )

        await ada.write("Apples")
        await ada.shows("Apples")
        await expect(ada.banner).to_be_hidden()


async def test_the_interface_and_the_document_as_it_answers_it_are_one_click_away(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada = await opened.window("Ada")
        await ada.write("Apples")
        await ada.shows("Apples")

        async with ada.page.context.expect_page() as documents:
            await ada.page.get_by_role("link", name="Raw document").click()
        async with ada.page.context.expect_page() as interfaces:
            await ada.page.get_by_role("link", name="API").click()

        await expect((await documents.value).locator("body")).to_contain_text('{"content":"Apples"}')
        await expect((await interfaces.value).get_by_role("heading", name="Roomkey API")).to_be_visible()


async def test_a_moment_of_another_day_is_shown_with_its_day(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada = await opened.window("Ada")
        await ada.write("Apples")
        await ada.shows("Apples")
        await ada.keep_version("first")
        moment = ada.version("first").locator("time")
        at = await moment.get_attribute("datetime") or ""
        await expect(moment).to_have_text(re.compile(r"^\d\d:\d\d$"))

        await ada.page.clock.set_fixed_time(datetime.fromisoformat(at) + timedelta(days=2))
        await ada.page.reload()

        await expect(moment).to_have_text(re.compile(r"^\d+ \w+ \d{4}, \d\d:\d\d$"))
        await expect(moment).to_have_attribute("title", re.compile(r"^\w+ \d+ \w+ \d{4} at \d\d:\d\d:\d\d$|, "))
        await expect(moment).to_have_attribute("datetime", at)
