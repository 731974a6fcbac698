"""The house rules that no linter knows."""

import ast
from pathlib import Path
from types import ModuleType
from typing import Any

import importlinter.cli
import pytest

import roomkey
from roomkey.domain.lifecycle import diagram
from roomkey.ports import DocumentStore, MovableDocuments, MovableSessions, Repairable, Resealable, SessionStorage

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
SHOWN = sorted(
    path
    for folder in ("src", "benchmarks", "examples")
    for path in (ROOT / folder).rglob("*.py")
    if not {".venv", "node_modules"} & set(path.parts)
)

MAX_LINES = 600
SAYS_NOTHING = {"utils", "helpers", "common", "base", "misc", "core", "models", "types"}


def test_modules_import_only_what_stands_below_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)

    result = importlinter.cli.lint_imports(no_cache=True)

    assert result == importlinter.cli.EXIT_STATUS_SUCCESS


def test_every_module_says_in_a_docstring_what_is_in_it() -> None:
    silent = [path.relative_to(ROOT) for path in SOURCES if ast.get_docstring(ast.parse(path.read_text())) is None]

    assert silent == []


def test_no_file_is_longer_than_one_can_read() -> None:
    long = [path.relative_to(ROOT) for path in SHOWN if len(path.read_text().splitlines()) > MAX_LINES]

    assert long == []


def test_modules_are_named_after_what_is_in_them() -> None:
    vague = [path.relative_to(ROOT) for path in SOURCES if {path.stem, path.parent.name} & SAYS_NOTHING]

    assert vague == []


def test_the_documented_state_diagram_is_the_one_of_the_table() -> None:
    page = (ROOT / "docs" / "sessions.md").read_text(encoding="utf-8")

    assert f"```mermaid\n{diagram()}```\n" in page


def public_names() -> list[str]:
    ours = [name for name in dir(roomkey) if name[0] != "_" and name not in {"Any", "TYPE_CHECKING", "import_module"}]
    return [name for name in ours if not isinstance(getattr(roomkey, name), ModuleType)]


def members(name: str) -> dict[str, Any]:
    value: Any = getattr(roomkey, name)
    return dict(value.__dict__)


def test_every_public_name_can_be_imported_and_says_what_it_is() -> None:
    silent = [name for name in public_names() if not (getattr(roomkey, name).__doc__ or "").strip()]

    assert silent == []


def test_every_public_method_says_what_it_does_here_or_in_the_port_that_it_implements() -> None:
    ports = (SessionStorage, DocumentStore, MovableSessions, MovableDocuments, Repairable, Resealable)
    said_by_the_port = {name for port in ports for name in dir(port)}

    silent = [
        f"{name}.{attribute}"
        for name in public_names()
        for attribute, value in members(name).items()
        if attribute[0] != "_"
        and callable(value)
        and not isinstance(value, type)
        and not value.__doc__
        and attribute not in said_by_the_port
    ]

    assert silent == []
