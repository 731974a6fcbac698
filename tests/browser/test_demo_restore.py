"""A version that is restored in the demo: whoever did it can undo it, and everybody learns who it was."""

import re

import pytest
from playwright.async_api import expect

from tests.browser.windows import NEEDED, Window, demo
from tests.support.server import Server

pytestmark = NEEDED


async def drafts(ada: Window, grace: Window) -> None:
    """A version that Ada kept, and what both of them wrote since then."""
    await ada.write("Apples")
    await ada.shows("Apples")
    await ada.keep_version("before lunch")
    await ada.write(", pears")
    await grace.shows("Apples, pears")
    await grace.write(", plums")
    await ada.shows("Apples, pears, plums")


@pytest.mark.parametrize("way", ["keys", "button", "notice"])
async def test_whoever_restored_a_version_can_undo_that_and_nothing_else(
    way: str, browser: str, server: Server
) -> None:
    async with demo(browser, server) as (opened, _):
        ada, grace = await opened.window("Ada"), await opened.window("Grace")
        await drafts(ada, grace)
        await ada.restore_version("before lunch")
        await grace.shows("Apples")

        match way:
            case "keys":
                await ada.page.keyboard.press("Control+Z")
            case "button":
                await ada.page.get_by_role("button", name="Undo", exact=True).click()
            case _:
                await ada.page.get_by_role("button", name="Undo the restore").click()

        await ada.shows("Apples, pears, plums")
        await grace.shows("Apples, pears, plums")

        await ada.page.get_by_role("button", name="Redo", exact=True).click()

        await ada.shows("Apples")
        await grace.shows("Apples")


async def test_what_others_write_after_a_version_was_restored_stays_when_that_is_undone(
    browser: str, server: Server
) -> None:
    async with demo(browser, server) as (opened, _):
        ada, grace = await opened.window("Ada"), await opened.window("Grace")
        await drafts(ada, grace)
        await ada.restore_version("before lunch")
        await grace.shows("Apples")
        await grace.text.press("Control+Home")
        await grace.page.keyboard.type("Cherries, ")
        await ada.shows("Cherries, Apples")

        await ada.page.keyboard.press("Control+Z")

        await ada.shows("Cherries, Apples, pears, plums")
        await grace.shows("Cherries, Apples, pears, plums")


async def test_a_version_that_somebody_else_restored_is_not_a_step_of_ones_own(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada, grace = await opened.window("Ada"), await opened.window("Grace")
        await drafts(ada, grace)
        await ada.restore_version("before lunch")
        await grace.shows("Apples")

        await grace.text.press("Control+Z")

        await grace.shows("Apples")
        await expect(grace.page.locator("#undo-restore")).to_be_hidden()


async def test_everybody_learns_who_restored_which_version_and_when(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada, grace = await opened.window("Ada"), await opened.window("Grace")
        await drafts(ada, grace)

        await ada.restore_version("before lunch")

        await expect(ada.page.locator("#restored-text")).to_contain_text("You restored “before lunch” at ")
        await expect(grace.page.locator("#restored-text")).to_contain_text("Ada restored “before lunch” at ")
        moment = grace.page.locator("#restored-text time")
        await expect(moment).to_have_attribute("datetime", re.compile(r"^\d{4}-\d\d-\d\dT.*Z$"))
        await grace.version("Before Ada restored “before lunch”").click()
        await expect(grace.page.locator("#preview-text")).to_have_text("Apples, pears, plums")


async def test_a_session_that_may_not_write_undoes_nothing(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada, grace = await opened.window("Ada"), await opened.window("Grace")
        await ada.write("Apples")
        await grace.shows("Apples")
        await grace.press("Suspend", "Ada").click()
        await expect(ada.banner).to_contain_text("suspended")

        await ada.text.press("Control+Z")
        await ada.page.get_by_role("button", name="Undo", exact=True).dispatch_event("click")

        await expect(ada.text).to_have_text("Apples")


async def test_escape_leads_from_a_version_back_into_the_text(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada = await opened.window("Ada")
        await ada.write("Apples")
        await ada.shows("Apples")
        await ada.keep_version("first")
        await ada.version("first").click()
        await expect(ada.page.locator("#preview")).to_be_visible()

        await ada.page.keyboard.press("Escape")

        await expect(ada.page.locator("#preview")).to_be_hidden()
        await expect(ada.text).to_be_focused()
        await ada.page.keyboard.press("Control+End")
        await ada.page.keyboard.type("!")
        await ada.shows("Apples!")
