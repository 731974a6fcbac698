"""
The map of requirements, ``docs/security/asvs.md``, is whole and leads somewhere.

Every requirement stands in it once, in its order; every test that it names exists, and so does every setting; and what
has no test is listed at its end.
"""

import ast
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from roomkey.config import Config, describe

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "security" / "asvs.md"

REQUIREMENTS: Final = {
    "ASVS 5.0": (
        *("3.3.1", "3.3.2", "3.3.3", "3.3.4", "3.3.5", "3.5.1", "3.5.2", "3.5.3"),
        *("4.3.1", "4.3.2", "4.4.1", "4.4.2", "4.4.3", "4.4.4"),
        *("7.1.2", "7.2.1", "7.2.2", "7.2.3", "7.2.4", "7.3.1", "7.3.2"),
        *("7.4.1", "7.4.2", "7.4.3", "7.4.5", "7.5.1", "7.5.2"),
        *("10.4.5", "11.5.1", "15.4.2", "16.2.5", "16.4.2", "16.5.3"),
    ),
    "NIST SP 800-63B-4, section 5": (
        "a secret of at least 64 bits, issued at authentication",
        "either deadline terminates",
        "activity resets only the idle deadline",
        "AAL2 24 h and 1 h, AAL3 12 h and 15 min",
        "suspended may resume with one factor before the absolute deadline",
    ),
    "Threats": (
        "fixation",
        "hijacking",
        "replayed ticket",
        "stolen old token",
        "CSRF and cross-origin socket",
        "slowloris and half-open handshakes",
        "oversized, fragmented and compressed bombs",
        "deeply nested JSON",
        "garbage on every protocol",
        "timing of token comparison",
        "log and error redaction",
        "audit tampering, truncation and reordering",
        "key rotation under load",
        "header smuggling through proxies",
        "enumeration of ids and users",
        "path traversal in document names",
        "GraphQL depth and aliases",
        "revoked but still connected",
        "two nodes racing",
        "memory of unauthenticated peers",
    ),
}
"""What must stand in each section: of ASVS the numbers, of the others the lines."""

NO_TEST: Final = "no test yet"
NO_SETTING: Final = "none"
NUMBER = re.compile(r"\d+(\.\d+)+")
CODE_LIST = re.compile(r"`[^`]+`(, `[^`]+`)*")


class Line(NamedTuple):
    """A line of a table of the map."""

    requirement: str
    what_is_done: str
    settings: str
    tests: str


def rows(section: str) -> Sequence[Sequence[str]]:
    """The cells of the one table in the section, without its head."""
    _, _, after = PAGE.read_text("utf-8").partition(f"\n## {section}\n")
    _head, _rule, *table = [row for row in after.partition("\n## ")[0].splitlines() if row.startswith("|")]
    return [[cell.strip() for cell in row[1:-1].split("|")] for row in table]


def lines(section: str) -> list[Line]:
    return [Line(*cells) for cells in rows(section)]


EVERY_LINE: Final = [line for section in REQUIREMENTS for line in lines(section)]


def name_of(line: Line) -> str:
    number = NUMBER.match(line.requirement)
    return number[0] if number else line.requirement


def named(cell: str) -> list[str]:
    """What a cell names; it must consist of nothing else."""
    assert CODE_LIST.fullmatch(cell), f"not a list of names: {cell}"
    return re.findall(r"`([^`]+)`", cell)


@cache
def functions_of(file: Path) -> frozenset[str]:
    """The functions of a file, and the methods of its classes as ``Class::method``."""
    found: set[str] = set()
    for node in ast.parse(file.read_text("utf-8")).body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found.add(node.name)
            case ast.ClassDef():
                inside = (each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
                found.update(f"{node.name}::{each.name}" for each in inside)
            case _:
                pass
    return frozenset(found)


def is_a_test(name: str) -> bool:
    file, _, function = name.partition("::")
    path = ROOT / file
    is_named_as_pytest_wants = path.name.startswith("test_") and function.rpartition("::")[2].startswith("test_")
    return is_named_as_pytest_wants and path.is_file() and function in functions_of(path)


@pytest.mark.parametrize("section", REQUIREMENTS)
def test_every_requirement_stands_in_the_map_once(section: str) -> None:
    assert tuple(name_of(line) for line in lines(section)) == REQUIREMENTS[section]


@pytest.mark.parametrize("line", EVERY_LINE, ids=name_of)
def test_every_line_says_what_is_done_and_names_tests_that_exist(line: Line) -> None:
    assert line.what_is_done
    missing = [] if line.tests == NO_TEST else [name for name in named(line.tests) if not is_a_test(name)]

    assert missing == []


def test_every_setting_of_the_map_exists() -> None:
    known = {setting.name for setting in describe(Config())}
    mentioned = {name for line in EVERY_LINE if line.settings != NO_SETTING for name in named(line.settings)}

    assert mentioned - known == set()


def test_what_has_no_test_is_listed_as_not_covered() -> None:
    without = sorted(line.requirement for line in EVERY_LINE if line.tests == NO_TEST)

    assert sorted(requirement for requirement, _ in rows("Not covered")) == without
