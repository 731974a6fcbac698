"""What axe-core finds in the pages: nothing, in whatever state they are, light and dark, wide and narrow."""

from typing import Any, get_args

import pytest
from playwright.async_api import Page, async_playwright, expect

from tests.browser.windows import DESKTOP, NARROWEST, NEEDED, PHONE, Scheme, demo
from tests.support.providers import CLIENTS
from tests.support.server import Server

AXE = CLIENTS / "node_modules" / "axe-core" / "axe.min.js"

pytestmark = [
    NEEDED,
    pytest.mark.skipif(not AXE.is_file(), reason="needs `npm ci` in tests/clients"),
]

SIZES = {"desktop": DESKTOP, "phone": PHONE, "narrowest": NARROWEST}
IN_GATE = {("desktop", "light"), ("phone", "dark"), ("narrowest", "light")}
"""Colours depend on the scheme and the layout on the size, but neither on both."""

schemes = pytest.mark.parametrize("scheme", get_args(Scheme))
sizes_and_schemes = pytest.mark.parametrize(
    ("size", "scheme"),
    [
        pytest.param(size, scheme, id=f"{name}-{scheme}", marks=() if (name, scheme) in IN_GATE else pytest.mark.slow)
        for name, size in SIZES.items()
        for scheme in get_args(Scheme)
    ],
)
Size = tuple[int, int]


async def violations(page: Page) -> list[str]:
    """What is wrong with the page as it is now: rules, with the elements that break them."""
    await page.evaluate(AXE.read_text(encoding="utf-8"))
    found: dict[str, Any] = await page.evaluate("axe.run({ resultTypes: ['violations'] })")
    return [
        f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


@sizes_and_schemes
async def test_the_demo_has_no_barriers_in_any_of_its_states(
    size: Size, scheme: Scheme, browser: str, server: Server
) -> None:
    async with demo(browser, server) as (opened, _):
        ada = await opened.window("Ada", size=size, scheme=scheme)
        grace = await opened.window("Grace")
        found = {"empty": await violations(ada.page)}

        await ada.write("# Apples\n\n**and** *pears*, `code` > [link](https://example.com)\n\n> plums")
        await expect(ada.saved).to_have_text("All saved")
        await ada.keep_version("first")
        found["written"] = await violations(ada.page)
        await ada.version("first").click()
        await expect(ada.page.locator("#preview")).to_be_visible()
        found["preview"] = await violations(ada.page)
        await grace.write(" too")
        await expect(grace.saved).to_have_text("All saved")
        await ada.page.get_by_role("button", name="Restore this version").click()
        await expect(ada.page.locator("#restored")).to_be_visible()
        found["restored"] = await violations(ada.page)
        await ada.press("Suspend", "Grace").click()
        await expect(ada.press("Resume", "Grace")).to_be_visible()
        found["someone suspended"] = await violations(ada.page)
        await ada.press("Resume", "Grace").click()
        await expect(grace.banner).to_be_hidden()
        await grace.press("Suspend", "Ada").click()
        await expect(ada.banner).to_contain_text("suspended")
        found["suspended"] = await violations(ada.page)
        await grace.press("Revoke", "Ada").click()
        await expect(ada.banner).to_contain_text("revoked")
        found["over"] = await violations(ada.page)

        assert {state: wrong for state, wrong in found.items() if wrong} == {}


@schemes
async def test_the_demo_has_no_barriers_while_it_is_offline(scheme: Scheme, browser: str, server: Server) -> None:
    async with demo(browser, server) as (opened, _):
        ada = await opened.window("Ada", scheme=scheme)
        await ada.page.context.set_offline(True)
        await expect(ada.banner).to_contain_text("You are offline")

        assert await violations(ada.page) == []


@sizes_and_schemes
async def test_the_page_of_the_interface_has_no_barriers(
    size: Size, scheme: Scheme, browser: str, server: Server
) -> None:
    async with async_playwright() as playwright:
        connected = await playwright.chromium.connect_over_cdp(browser)
        width, height = size
        page = await connected.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        await page.goto(f"{server.url}/docs")
        await expect(page.get_by_role("heading", name="Roomkey API")).to_be_visible()
        found = await violations(page)
        for number in range(0, await page.locator("details.operation").count(), 5):
            await page.locator("details.operation > summary").nth(number).click()
        asking = page.locator("details#health")
        await asking.evaluate("card => { card.open = true }")
        await asking.get_by_role("button", name="Send GET").click()
        await expect(asking.get_by_role("status")).to_contain_text("200")
        found += await violations(page)
        width_now = await page.evaluate("document.documentElement.scrollWidth")
        await page.close()

        assert found == []
        assert width_now == width
