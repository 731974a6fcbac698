"""
Everything on the pages of the documentation runs, and the files that they name exist.

A page is read by ``tests.support.reader``: its commands, its Python and JavaScript run, in its order and against one
server; its settings are loaded. What a test cannot do is named here, with the reason.
"""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
from cyclopts import CycloptsError, MissingArgumentError

from roomkey.cli import app
from tests.support.pages import PAGES, ROOT, Block, blocks, commands, name_of
from tests.support.reader import RUN, TERMINAL, needs, needs_a_terminal, needs_redis, reading

NOT_RUN: Final[Mapping[str, str]] = {
    "script/server": "the reader's server is one already",
    "script/test": "it would run this test",
    ".venv/bin/pip install websockets": "tests fetch nothing, and have it",
    "mermaid": "tests/architecture/test_house.py compares it with the table of states",
    "text": "a drawing",
    "ts": "tests/integration/test_typescript_client.py compiles it against the package, or tests/browser builds it",
    "tsx": "tests/browser builds it, and uses what was built",
    "html": "the same",
    "css": "the same",
    "py": "tests/browser/test_guide.py runs it",
    "nginx": "tests/integration/test_behind_proxies.py has it in front of an application",
    "caddy": "the same",
    "yaml": "the configuration of a program of somebody else",
    "conf": "the configuration of a Redis; tests/integration/test_backups.py takes the rights from it",
    "shell": "what its reader has no server for; tests/integration: test_backups.py, test_compose.py for the nodes, "
    "and test_generated_clients.py for generators",
}
"""Commands and languages that are not run, and why."""

WITHOUT_EXAMPLE: Final = {
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/README.md",
    "docs/benchmarks.md",
    "docs/editors.md",  # tests/browser/test_editors.py builds and uses all of it
    "docs/scaling.md",
    "docs/security/README.md",
    "docs/security/asvs.md",
    "docs/security/threat-model.md",
}
"""Pages that are not about how Roomkey is used, or need a browser."""

MENTIONED = re.compile(r"[\w./-]+\.(?:py|toml|ts|json|md)\b")
FUTURE = re.compile(r"\*`[^`]+`\*")
"""A file that a change would add, in italics."""

INDEX: Final = ROOT / "docs" / "README.md"

LINK = re.compile(r"\]\(([^)\s#:]*)(?:#([^)\s]*))?\)")
"""A link to a page of ours, and to a heading on it."""

HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)

IN_PROSE = re.compile(r"`(roomkey [a-z][^`]*)`", re.DOTALL)
"""A command line in the middle of a sentence, or in what the program says."""


def examples(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language not in NOT_RUN]


def test_every_page_about_use_has_an_example_that_runs() -> None:
    without = {name_of(page) for page in PAGES if not examples(page)}

    assert without == WITHOUT_EXAMPLE


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=needs(page), id=name_of(page)) for page in PAGES if examples(page)]
)
async def test_everything_on_the_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    redis: str | None = request.getfixturevalue("redis_url") if needs_redis(page) else None

    async with reading(tmp_path, redis=redis) as reader:
        for block in examples(page):
            await reader.try_out(block, except_for=NOT_RUN)


def test_every_block_is_run_or_named() -> None:
    unknown = [str(block) for page in PAGES for block in examples(page) if block.language not in RUN]

    assert unknown == []


def test_whatever_is_named_as_not_run_is_on_a_page() -> None:
    everything = [block for page in PAGES for block in blocks(page)]
    written = {command.text for block in everything if block.language in TERMINAL for command in commands(block)}

    assert NOT_RUN.keys() - written - {block.language for block in everything} == set()


def command_lines() -> list[tuple[str, str]]:
    """Every command line in prose and in the program's own words, with the file that it is in."""
    sources = [*PAGES, *(ROOT / "src" / "roomkey").rglob("*.py"), *(ROOT / "examples").glob("*.py")]
    return [
        (name_of(file), alternative)
        for file in sources
        for line in IN_PROSE.findall(file.read_text("utf-8"))
        for alternative in alternatives(line)
        if alternative not in NOT_RUN
    ]


def alternatives(line: str) -> list[str]:
    """``roomkey sessions list | show`` is two commands; ``roomkey sessions …`` is the group."""
    first, *others = " ".join(line.replace("…", "").split()).split(" | ")
    return [first, *(f"{first.rpartition(' ')[0]} {other}" for other in others)]


def test_every_command_line_in_prose_is_understood() -> None:
    wrong = [f"{file}: {line}" for file, line in command_lines() if not is_understood(line)]

    assert wrong == []


def is_understood(line: str) -> bool:
    """Whether there is such a command with these options, and it takes this much or more."""
    _, *tokens = shlex.split(line)
    try:
        app.parse_args(tokens, exit_on_error=False, print_error=False)
    except MissingArgumentError:
        return True  # what it is about stands in the sentence
    except CycloptsError:
        return False
    return True


def exists(mentioned: str) -> bool:
    """Whether it is a path from the root, or the end of one in the package."""
    return (ROOT / mentioned).is_file() or any((ROOT / "src" / "roomkey").rglob(mentioned))


def links(page: Path) -> list[tuple[Path, str]]:
    """The files that a page leads to, and the headings on them."""
    found = LINK.findall(page.read_text(encoding="utf-8"))
    return [((page.parent / file).resolve() if file else page, heading) for file, heading in found]


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links, as GitHub makes it."""
    headings = HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_to_a_page_and_to_a_heading_on_it() -> None:
    lost = [
        f"{name_of(page)}: {name_of(file)}#{heading}"
        for page in PAGES
        for file, heading in links(page)
        if not file.exists() or (heading and heading not in anchors(file))
    ]

    assert lost == []


def test_every_page_is_in_the_index() -> None:
    listed = {file for file, _ in links(INDEX)}

    assert {name_of(page) for page in (ROOT / "docs").glob("*.md") if page not in listed} == {name_of(INDEX)}


@pytest.mark.parametrize("word", ["kick", "disconnect", "log out", "sign out", "ban"])
def test_what_is_called_otherwise_elsewhere_is_found(word: str) -> None:
    """In the index, and by the filter of the page at ``/docs``, which looks at what operations say of themselves."""
    contract = json.loads((ROOT / "spec" / "openapi.json").read_text(encoding="utf-8"))
    said = [f"{each['summary']} {each['description']}" for path in contract["paths"].values() for each in path.values()]

    assert any(re.search(rf"^\|.*\b{word}\b.*\]\(", line) for line in INDEX.read_text("utf-8").splitlines())
    assert any(all(part in text.lower().split() for part in word.split()) for text in said)


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_file_that_the_map_names_is_there(page: str) -> None:
    text = FUTURE.sub("", (ROOT / page).read_text(encoding="utf-8"))

    missing = [name for name in MENTIONED.findall(text) if not exists(name)]

    assert missing == []


@needs_a_terminal
async def test_a_page_that_is_wrong_is_noticed(tmp_path: Path, subtests: pytest.Subtests) -> None:
    async with reading(tmp_path) as reader:
        for language, text, complaint in WRONG:
            page = tmp_path / "wrong.md"
            page.write_text(f"# Wrong\n\n```{language}\n{text}\n```\n", encoding="utf-8")
            (block,) = blocks(page)

            with subtests.test(text), pytest.raises(Exception, match=complaint):
                await reader.try_out(block)


WRONG: Final = (
    ("python", "import asyncio\nawait asyncio.sleep(0)\nassert False, 'broken'", "broken"),
    ("console", "$ roomkey fly", "exit code 2"),
    ("console", "$ roomkey serve --port many", "exit code 2"),
    ("console", "$ curl localhost:3000/nowhere", "exit code 22"),
    ("console", "$ FRUIT=pear\n$ echo an $FRUIT     # not it\nan apple", "an pear\nand not\nan apple"),
    ("sh", "true\nfalse", "exit code 1"),
    ("toml", "[sessions]\ncapp = 3", "did you mean cap"),
    ("json", '{"id": }', "Expecting value"),
)
"""Blocks that nobody could follow, and what is said about them."""
