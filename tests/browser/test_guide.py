"""The guide, from log-in to removed: its page is what is built, served and used here."""

import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from playwright.async_api import Page

from tests.browser.windows import CHROMIUM, DESKTOP, PHONE, Scheme
from tests.support.guide import (
    FOLDER,
    PACKAGES,
    PICTURES,
    STATES,
    built,
    files,
    follow,
    from_log_in_to_removed,
    log_in,
    site,
    tells,
    vite,
)
from tests.support.pages import ROOT, blocks
from tests.support.proxies import RECIPES
from tests.support.typescript_client import NEEDED

pytestmark = [
    NEEDED,
    pytest.mark.skipif(
        CHROMIUM is None or not (PACKAGES / "vite").exists(), reason="needs Chromium, and `npm ci` in examples/guide"
    ),
]

MAX_SECONDS: Final = 600
MAX_PICTURE_BYTES: Final = 60 * 1024
"""Somebody on a phone reads the page, too."""


def test_the_files_of_the_page_are_those_of_the_example() -> None:
    written = files()

    assert {name: text for name, text in written.items() if (FOLDER / name).read_text(encoding="utf-8") != text} == {}
    assert {"app.py", "package.json", "src/main.tsx", "src/Note.tsx"} <= written.keys()


def test_the_application_has_the_tests_that_the_recipes_show(tmp_path: Path) -> None:
    (written,) = (block.text for block in blocks(RECIPES) if block.language == "py")
    (tmp_path / "test_app.py").write_text(written, encoding="utf-8")
    (tmp_path / "app.py").write_text(files()["app.py"], encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert "2 passed" in done.stdout, done.stdout
    assert (FOLDER / "test_app.py").read_text(encoding="utf-8") == written


@pytest.mark.parametrize("name", [*STATES, "administrator"])
def test_there_is_a_small_picture_of_each_state(name: str) -> None:
    picture = (PICTURES / f"{name}.png").read_bytes()

    width, height = struct.unpack(">II", picture[16:24])
    assert len(picture) <= MAX_PICTURE_BYTES
    assert width >= 390
    assert height >= 300
    assert f"guide/{name}.png" in (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")


class Looks:
    """Looks at the page in each state, also as it is on a phone at night."""

    _SIZES: Final[Sequence[tuple[tuple[int, int], Scheme]]] = ((PHONE, "dark"), (DESKTOP, "light"))

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def at(self, state: str, page: Page) -> None:
        size = page.viewport_size
        assert size is not None
        for (width, height), scheme in self._SIZES:
            await page.set_viewport_size({"width": width, "height": height})
            await page.emulate_media(color_scheme=scheme)
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, state
        await page.set_viewport_size(size)
        self.seen.append(state)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("guide"))


async def test_whoever_follows_the_guide_sees_every_state_from_log_in_to_removed(project: Path, browser: str) -> None:
    looks = Looks()

    async with site(project, browser) as opened:
        await from_log_in_to_removed(opened, looks.at)

    assert sorted(looks.seen) == sorted([*STATES, "administrator"])


async def test_while_the_pages_are_changed_vite_serves_them_and_passes_on_the_rest(project: Path, browser: str) -> None:
    async with site(project, browser) as opened, vite(project, opened.url) as url:
        page = await opened.page()
        await page.goto(url)
        await log_in(page, "ada", "engine")
        await tells(page, "You are connected.")


class Followed(NamedTuple):
    """The project of somebody who has followed the guide, and when they began."""

    project: Path
    begun_at: float


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    begun_at = time.monotonic()
    return Followed(follow(tmp_path), begun_at)


@pytest.mark.slow
async def test_where_nothing_is_installed_the_guide_takes_less_than_ten_minutes(
    followed: Followed, browser: str
) -> None:
    looks = Looks()

    async with site(followed.project, browser, str(followed.project / ".venv" / "bin" / "python")) as opened:
        await from_log_in_to_removed(opened, looks.at)

    assert time.monotonic() - followed.begun_at < MAX_SECONDS
    assert {*STATES} < {*looks.seen}
