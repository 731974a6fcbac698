"""
The examples in the documentation run.

A block that begins with ```` ```python run ```` is executed, with the blocks before it on the same page; ``await``
may stand at its top level. The working directory is empty and temporary.
"""

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RUNNABLE = re.compile(r"^```python run\n(.*?)^```$", re.MULTILINE | re.DOTALL)

MUST_SHOW = {"README.md", "docs/documents.md", "docs/sessions.md"}
"""Pages without which a newcomer would have to guess: each has an example."""


def blocks(page: Path) -> list[str]:
    return RUNNABLE.findall(page.read_text(encoding="utf-8"))


PAGES = {
    str(page.relative_to(ROOT)): page
    for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
    if blocks(page)
}
"""Those with an example."""


def test_the_pages_from_which_one_learns_have_examples() -> None:
    assert set(PAGES) >= MUST_SHOW


async def run(block: str, page: Path, names: dict[str, Any]) -> None:
    code = compile(block, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)
    if inspect.iscoroutine(result):
        await result


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())
async def test_the_python_on_the_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}

    for block in blocks(page):
        await run(block, page, names)


async def test_a_broken_example_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python run\nimport asyncio\nawait asyncio.sleep(0)\nassert False, 'broken'\n```\n")
    (block,) = blocks(page)

    with pytest.raises(AssertionError, match="broken"):
        await run(block, page, {})
