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
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RUNNABLE = re.compile(r"^```python run\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[str]:
    return RUNNABLE.findall(page.read_text(encoding="utf-8"))


async def run(block: str, page: Path, names: dict[str, Any]) -> None:
    code = compile(block, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)
    if inspect.iscoroutine(result):
        await result


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
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
