"""A test that fails is tried once more, unless many do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.second_chance import FAILURES_VARIABLE, MAX_AGAIN, deserve_another

ROOT = Path(__file__).parents[3]
FAILS_ONCE = """
from pathlib import Path

def test_it() -> None:
    tried = Path(__file__).with_name("tried")
    if not tried.exists():
        tried.touch()
        raise AssertionError("too slow")
"""
MANY_FAIL = f"""
import pytest

@pytest.mark.parametrize("number", range({MAX_AGAIN + 1}))
def test_it(number: int) -> None:
    raise AssertionError("wrong")
"""
FAILS = "def test_it() -> None:\n    raise AssertionError('wrong')\n"


def test_many_failures_are_no_chance() -> None:
    assert deserve_another([f"tests/test_it.py::{number}" for number in range(MAX_AGAIN)])
    assert not deserve_another([f"tests/test_it.py::{number}" for number in range(MAX_AGAIN + 1)])
    assert not deserve_another([])


@pytest.mark.parametrize(
    ("source", "code", "told"),
    [
        (FAILS_ONCE, 0, "passed only alone: tests/test_it.py::test_it"),
        (FAILS, 1, "FAILED TWICE: tests/test_it.py::test_it"),
        (MANY_FAIL, 1, "FAILED tests/test_it.py::test_it[0]"),
        ("def broken(", 1, "FAILED tests/test_it.py"),
    ],
)
def test_the_exit_code_is_right_and_the_reason_is_told(tmp_path: Path, source: str, code: int, told: str) -> None:
    (tmp_path / "pytest.ini").touch()
    test = tmp_path / "tests" / "test_it.py"
    test.parent.mkdir(parents=True)
    test.write_text(source)
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    surroundings |= {"PYTHONPATH": str(ROOT), FAILURES_VARIABLE: str(tmp_path / "failures")}
    surroundings |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p xdist"}

    command = [sys.executable, "-m", "tests.support.second_chance", "--quiet", "-n", "1", "tests"]
    ended = subprocess.run(command, cwd=tmp_path, env=surroundings, check=False, capture_output=True, text=True)

    assert ended.returncode == code, ended.stdout + ended.stderr
    assert told in (tmp_path / "failures").read_text()
    assert told in ended.stdout
