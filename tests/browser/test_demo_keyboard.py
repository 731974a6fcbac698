"""The demo without a mouse: everything can be reached and done, and the focus is where one works."""

from playwright.async_api import Page, expect

from tests.browser.windows import NEEDED, demo
from tests.support.server import Server

pytestmark = NEEDED

WHERE = """() => {
    const focused = document.activeElement;
    return focused.ariaLabel || focused.labels?.[0]?.textContent || focused.textContent.trim() || focused.tagName;
}"""


async def tab_to(page: Page, name: str, key: str = "Tab") -> list[str]:
    """Press a key until the focus is on ``name``; the names of all on which it was."""
    passed: list[str] = []
    while name not in passed:
        await page.keyboard.press(key)
        passed.append(await page.evaluate(WHERE))
        assert len(passed) < 50, passed
    return passed


async def test_the_tab_key_leads_through_everything_and_out_of_the_editor(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada = await opened.window("Ada")
        await opened.window("Grace")
        await ada.write("Apples")
        await ada.shows("Apples")
        await ada.keep_version("first")
        await expect(ada.press("Suspend", "Grace")).to_be_visible()
        await ada.page.reload()
        await expect(ada.version("first")).to_be_visible()
        await expect(ada.press("Suspend", "Grace")).to_be_visible()

        await ada.page.evaluate("document.body.focus()")
        passed = await tab_to(ada.page, "first" + await ada.version("first").locator("small").inner_text())

        assert passed[:-1] == [
            "Open another window as someone else",
            "Undo",
            "Redo",
            "Raw document",
            "API",
            "The document",
            "Suspend Grace",
            "Revoke Grace",
            "Label of the version",
            "Save version",
        ]


async def test_everything_can_be_done_with_the_keyboard_alone(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada = await opened.window("Ada")
        grace = await opened.window("Grace")
        keys = ada.page.keyboard

        await tab_to(ada.page, "The document")
        await keys.type("Apples")
        await tab_to(ada.page, "Label of the version")
        await grace.shows("Apples")
        await keys.type("first")
        await keys.press("Enter")
        await expect(ada.version("first")).to_be_visible()
        await tab_to(ada.page, "The document", "Shift+Tab")
        await keys.press("Control+End")
        await keys.type(", pears")
        await grace.shows("Apples, pears")

        await tab_to(ada.page, "Save version")
        await keys.press("Tab")
        await keys.press("Enter")
        await expect(ada.page.get_by_role("button", name="Back to the editor")).to_be_focused()
        await keys.press("Shift+Tab")
        await keys.press("Enter")
        await expect(ada.text).to_be_focused()
        await grace.shows("Apples")
        await keys.press("Control+Z")
        await grace.shows("Apples, pears")


async def test_the_focus_stays_on_the_row_on_which_something_was_done(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada = await opened.window("Ada")
        grace = await opened.window("Grace")
        await opened.window("Alan")
        keys = ada.page.keyboard
        await expect(ada.press("Suspend", "Alan")).to_be_visible()
        await ada.press("Suspend", "Grace").focus()

        await keys.press("Enter")
        await expect(ada.press("Resume", "Grace")).to_be_focused()
        await expect(grace.banner).to_contain_text("suspended")
        await keys.press("Enter")
        await expect(ada.press("Suspend", "Grace")).to_be_focused()
        await expect(grace.banner).to_be_hidden()
        await keys.press("Tab")
        await keys.press("Enter")

        await expect(grace.banner).to_contain_text("revoked")
        await expect(ada.page.locator("#sessions li", has_text="Grace")).to_be_focused()
        await keys.press("Tab")
        await expect(ada.press("Suspend", "Alan")).to_be_focused()


async def test_the_rows_keep_their_order_whatever_is_done_with_them(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada = await opened.window("Ada")
        for user in ("Grace", "Alan", "Hedy"):
            await opened.window(user)
            await expect(ada.press("Suspend", user)).to_be_visible()
        names = ada.page.locator("#sessions .name")

        for user in ("Alan", "Grace"):
            await ada.press("Suspend", user).click()
            await expect(ada.press("Resume", user)).to_be_visible()
            await expect(names).to_have_text(["Ada", "Grace", "Alan", "Hedy"])
        await ada.press("Resume", "Alan").click()
        await expect(ada.press("Suspend", "Alan")).to_be_visible()
        await ada.press("Revoke", "Grace").click()
        await expect(ada.page.locator("#sessions .badge[data-kind=revoked]")).to_be_visible()

        await expect(names).to_have_text(["Ada", "Grace", "Alan", "Hedy"])


async def test_whoever_is_resumed_and_whoever_stayed_see_each_other_again(browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada = await opened.window("Ada")
        grace = await opened.window("Grace")
        await expect(ada.here).to_have_text(["AAda", "GGrace"])

        await ada.press("Suspend", "Grace").click()
        await expect(ada.here).to_have_text(["AAda"])
        await expect(grace.banner).to_contain_text("suspended")
        await ada.press("Resume", "Grace").click()

        for window in (ada, grace):
            await expect(window.here).to_have_text(["AAda", "GGrace"])
