"""The page at ``/docs`` in a browser: a reader tries an operation, and the key stays where it was written."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
import pytest
from playwright.async_api import Locator, Page, async_playwright, expect

from tests.browser.windows import DESKTOP, NEEDED, PHONE, Scheme, Window
from tests.support.server import Server

pytestmark = NEEDED

EVERYWHERE = "JSON.stringify([location.href, document.cookie, {...localStorage}, {...sessionStorage}, history.state])"


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    return httpx.post(f"{server.url}/keys", json={"name": "reader", "role": "service"}).json()["secret"]


class Docs:
    """The page, as somebody reads it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.window = Window(page)
        self.key = page.get_by_label("API key or token")

    async def open(self, operation: str) -> Locator:
        """The card of an operation, opened."""
        card = self.page.locator(f"details#{operation}")
        await card.locator("summary").first.click()
        return card

    @staticmethod
    def status(card: Locator) -> Locator:
        """What is said about the last answer."""
        return card.get_by_role("status")

    @staticmethod
    def answer(card: Locator) -> Locator:
        """The body of the last answer."""
        return card.get_by_role("group", name="Answer", exact=True)

    @staticmethod
    def line(card: Locator) -> Locator:
        """The same request for a terminal."""
        return card.get_by_role("group", name="For a terminal")


@asynccontextmanager
async def docs(
    browser: str, server: Server, *, size: tuple[int, int] = DESKTOP, scheme: Scheme = "light"
) -> AsyncGenerator[Docs]:
    """The page in a browser profile of its own; nothing has gone wrong in it, and nobody else was asked."""
    async with async_playwright() as playwright:
        connected = await playwright.chromium.connect_over_cdp(browser)
        width, height = size
        context = await connected.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        read = Docs(await context.new_page())
        await read.page.goto(f"{server.url}/docs")
        await expect(read.page.get_by_role("heading", name="Roomkey API")).to_be_visible()
        yield read
        assert read.window.hosts == {server.url.partition("//")[2]}
        await context.close()
        await connected.close()


async def test_a_reader_creates_a_session_and_goes_on_as_that_session(browser: str, server: Server, key: str) -> None:
    async with docs(browser, server) as read:
        await read.key.fill(key)
        creating = await read.open("create_session")
        await creating.get_by_label("Body").fill(json.dumps({"user_id": "reader", "activate": True}))
        await creating.get_by_role("button", name="Send POST").click()
        await expect(read.status(creating)).to_contain_text("201")
        issued = json.loads(await read.answer(creating).inner_text())
        line = await read.line(creating).inner_text()
        await creating.get_by_role("button", name="Use it as the key from now on").click()
        asking = await read.open("get_mine")
        await asking.get_by_role("button", name="Send GET").click()
        await expect(read.status(asking)).to_contain_text("200")
        mine = json.loads(await read.answer(asking).inner_text())
        kept = await read.page.evaluate(EVERYWHERE)

        assert mine["id"] == issued["session"]["id"]
        assert f"-X POST '{server.url}/sessions'" in line
        assert '-H "Authorization: Bearer $ROOMKEY_KEY"' in line
        assert """--data-binary '{"user_id": "reader", "activate": true}'""" in line
        assert not {secret for secret in (key, issued["token"]) if secret in line + kept}
        assert read.window.complaints == []


async def test_no_number_of_an_answer_is_rounded(browser: str, server: Server, key: str) -> None:
    async with docs(browser, server) as read:
        await read.key.fill(key)
        creating = await read.open("create_session")
        await creating.get_by_label("Body").fill('{"user_id": "reader", "metadata": {"number": 9007199254740993}}')
        await creating.get_by_role("button", name="Send POST").click()

        await expect(read.answer(creating)).to_contain_text("9007199254740993")


async def test_what_is_written_in_the_form_is_what_is_sent_and_shown_as_a_line(
    browser: str, server: Server, key: str
) -> None:
    async with docs(browser, server) as read:
        await read.key.fill(key)
        putting = await read.open("put_document")
        await putting.get_by_label("name").fill("docs/plan 1")
        await putting.get_by_label("Content-Type").select_option("text/plain")
        await putting.get_by_label("root").fill("content")
        await putting.get_by_label("Body").fill("It's here")
        line = await read.line(putting).inner_text()
        await putting.get_by_role("button", name="Send PUT").click()
        await expect(read.status(putting)).to_contain_text("201")
        getting = await read.open("get_document")
        await getting.get_by_label("name").fill("docs/plan 1")
        await getting.get_by_label("Accept").select_option("text/plain")
        await getting.get_by_role("button", name="Send GET").click()
        await expect(read.answer(getting)).to_have_text("It's here")
        await getting.get_by_label("Accept").select_option("application/x-yjs-update")
        await getting.get_by_role("button", name="Send GET").click()
        await expect(getting.get_by_role("link", name="Download")).to_be_visible()
        await getting.get_by_label("name").fill("docs/nothing")
        await getting.get_by_role("button", name="Send GET").click()
        await expect(read.status(getting)).to_contain_text("404")

        assert f"{server.url}/documents/docs%2Fplan%201?root=content" in line
        assert "-H 'Content-Type: text/plain'" in line
        assert """--data-binary 'It'\\''s here'""" in line
        await expect(read.answer(getting)).to_contain_text("document_not_found")


async def test_everything_can_be_done_with_the_keyboard_on_a_telephone(browser: str, server: Server, key: str) -> None:
    async with docs(browser, server, size=PHONE, scheme="dark") as read:
        press, write = read.page.keyboard.press, read.page.keyboard.type
        await read.page.get_by_label("Filter the operations").focus()
        await write("list sessions")
        await read.key.focus()
        await write(key)
        await read.page.locator("details#list_sessions > summary").focus()
        await press("Enter")
        form = read.page.get_by_role("form", name="Try it: List sessions")
        await form.get_by_role("textbox").first.focus()
        await press("Enter")
        status = read.status(read.page.locator("details#list_sessions"))
        await expect(status).to_contain_text("200")
        width = await read.page.evaluate("document.documentElement.scrollWidth")

        assert width == PHONE[0]
        assert read.window.complaints == []


async def test_a_request_that_lacks_what_it_needs_is_not_sent(browser: str, server: Server) -> None:
    async with docs(browser, server) as read:
        asked: list[str] = []
        card = await read.open("get_session")
        read.page.on("request", lambda request: asked.append(request.url))
        await card.get_by_role("button", name="Send GET").click()
        await expect(card.get_by_label("id")).to_be_focused()

        assert asked == []
