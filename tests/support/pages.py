"""What stands on a page of the documentation: its fenced blocks, and the commands in those of a terminal."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]

PAGES: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w+-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)``` *$", re.MULTILINE | re.DOTALL
)
_COMMENT = re.compile(r"\s{2,}#.*$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: ``language`` is the first word after the fence, ``line`` the one that the text begins on."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.language or 'no language'})"


class Command(NamedTuple):
    """What somebody types, without the comment beside it, and what the page shows as its answer, if it does."""

    text: str
    answer: str


def name_of(page: Path) -> str:
    """The path from the root of the repository; other pages have their own name."""
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in its order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(name_of(page), text.count("\n", 0, match.start("text")) + 1, match["language"], _outdented(match))
        for match in _FENCE.finditer(text)
    ]


def commands(block: Block) -> list[Command]:
    """
    The commands of a block. A script is one; in a ``console`` each begins with ``$ ``, and its answer follows.

    A command goes on in the next line after a backslash, and in lines that begin with ``> ``.
    """
    if block.language != "console":
        return [Command(block.text.strip(), "")]
    return list(_typed(block.text.splitlines()))


def _typed(lines: list[str]) -> Iterator[Command]:
    typed: list[str] = []
    answer: list[str] = []
    for line in lines:
        if line.startswith("$ "):
            if typed:
                yield _command(typed, answer)
            typed, answer = [line[2:]], []
        elif not answer and typed and (typed[-1].endswith("\\") or line.startswith("> ")):
            typed.append(line.removeprefix("> "))
        else:
            answer.append(line)
    if typed:
        yield _command(typed, answer)


def _command(typed: list[str], answer: list[str]) -> Command:
    return Command(_COMMENT.sub("", "\n".join(typed)).strip(), "\n".join(answer).strip())


def _outdented(match: re.Match[str]) -> str:
    return re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
