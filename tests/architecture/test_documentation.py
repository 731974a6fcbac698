"""
The examples in the documentation run, and the files that it names exist.

A block that begins with ```` ```python run ```` is executed, with the blocks before it on the same page; ``await``
may stand at its top level. The working directory is empty and temporary. Blocks that mention ``server_url`` have a
server of their own, started as ``roomkey serve --dev``.
"""

import ast
import inspect
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import running_server

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RUNNABLE = re.compile(r"^```python run\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NEEDS_SERVER = re.compile(r"\bserver_url\b")

MENTIONED = re.compile(r"[\w./-]+\.(?:py|toml|ts|json|md)\b")
FUTURE = re.compile(r"\*`[^`]+`\*")
"""A file that a change would add, in italics."""

WITHOUT_EXAMPLE = {"ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/benchmarks.md"}
"""Pages that are not about how Roomkey is used."""


def blocks(page: Path) -> list[str]:
    return RUNNABLE.findall(page.read_text(encoding="utf-8"))


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


async def run(block: str, page: Path, names: dict[str, Any]) -> None:
    code = compile(block, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)
    if inspect.iscoroutine(result):
        await result


def test_every_page_about_use_has_an_example_that_runs() -> None:
    without = {name_of(page) for page in PAGES if not blocks(page)}

    assert without == WITHOUT_EXAMPLE


def exists(mentioned: str) -> bool:
    """Whether it is a path from the root, or the end of one in the package."""
    return (ROOT / mentioned).is_file() or any((ROOT / "src" / "roomkey").rglob(mentioned))


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_file_that_the_map_names_is_there(page: str) -> None:
    text = FUTURE.sub("", (ROOT / page).read_text(encoding="utf-8"))

    missing = [name for name in MENTIONED.findall(text) if not exists(name)]

    assert missing == []


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name_of)
async def test_the_python_on_the_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}

    async with AsyncExitStack() as stack:
        if any(NEEDS_SERVER.search(block) for block in blocks(page)):
            server = await stack.enter_async_context(running_server())
            names["server_url"] = server.url
        for block in blocks(page):
            await run(block, page, names)


async def test_a_broken_example_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python run\nimport asyncio\nawait asyncio.sleep(0)\nassert False, 'broken'\n```\n")
    (block,) = blocks(page)

    with pytest.raises(AssertionError, match="broken"):
        await run(block, page, {})
