"""A test on real servers that fails is tried once more, and no other test is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.second_chance import FAILURES_VARIABLE, MAX_AGAIN, deserve_another, talks_to_servers

ROOT = Path(__file__).parents[3]
FAILS_ONCE = """
from pathlib import Path

def test_it() -> None:
    tried = Path(__file__).with_name("tried")
    if not tried.exists():
        tried.touch()
        raise AssertionError("too slow")
"""
FAILS = "def test_it() -> None:\n    raise AssertionError('wrong')\n"


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("tests/integration/test_crash.py::test_it", True),
        ("tests/browser/test_demo.py::test_it[chromium]", True),
        ("tests/conformance/test_storage_redis.py::TestRedis::test_it", True),
        ("tests/conformance/test_broker.py::test_it[postgresql]", True),
        ("tests/conformance/test_storage.py::TestMemory::test_it", False),
        ("tests/unit/encryption/test_rotation_on_servers.py::test_it[mariadb]", True),
        ("tests/unit/backends/test_records.py::test_it", False),
        ("tests/property/test_recovery.py::test_it", False),
    ],
)
def test_only_what_waits_for_other_processes_is_tried_again(test: str, *, expected: bool) -> None:
    assert talks_to_servers(test) is expected


def test_nothing_is_tried_again_beside_a_failed_unit_test() -> None:
    assert deserve_another(["tests/faults/test_it.py::a"])
    assert not deserve_another(["tests/faults/test_it.py::a", "tests/unit/test_it.py::b"])


def test_many_failures_are_no_chance() -> None:
    assert deserve_another([f"tests/faults/test_it.py::{number}" for number in range(MAX_AGAIN)])
    assert not deserve_another([f"tests/faults/test_it.py::{number}" for number in range(MAX_AGAIN + 1)])
    assert not deserve_another([])


@pytest.mark.parametrize(
    ("folder", "source", "code", "told"),
    [
        ("faults", FAILS_ONCE, 0, "passed only alone: tests/faults/test_it.py::test_it"),
        ("faults", FAILS, 1, "FAILED TWICE: tests/faults/test_it.py::test_it"),
        ("unit", FAILS_ONCE, 1, "FAILED tests/unit/test_it.py::test_it"),
        ("faults", "def broken(", 1, "FAILED tests/faults/test_it.py"),
    ],
)
def test_the_exit_code_is_right_and_the_reason_is_told(
    tmp_path: Path, folder: str, source: str, code: int, told: str
) -> None:
    (tmp_path / "pytest.ini").touch()
    test = tmp_path / "tests" / folder / "test_it.py"
    test.parent.mkdir(parents=True)
    test.write_text(source)
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    surroundings |= {"PYTHONPATH": str(ROOT), FAILURES_VARIABLE: str(tmp_path / "failures")}
    surroundings |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p xdist"}

    command = [sys.executable, "-m", "tests.support.second_chance", "--quiet", "-n", "1", f"tests/{folder}"]
    ended = subprocess.run(command, cwd=tmp_path, env=surroundings, check=False, capture_output=True, text=True)

    assert ended.returncode == code, ended.stdout + ended.stderr
    assert told in (tmp_path / "failures").read_text()
    assert told in ended.stdout
