"""
Runs pytest, and a test that failed once more and alone: ``python -m tests.support.second_chance …``.

Most tests wait for something: another process, a disk, a thread. Their limits may be missed on a machine that is busy
with all the others. What passes alone is named, for somebody should look at its limits; what fails again has failed.
When many fail it is not chance: these fail at once.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

import pytest

FAILURES_VARIABLE: Final = "TEST_FAILURES"
"""The file to which tracebacks and names are appended, so that a script can show them at its end."""

MAX_AGAIN: Final = 8
"""Tests that are tried again; more than these do not fail by chance."""


class Failures:
    """A plugin that remembers which tests have failed, and their tracebacks; also which files could not be read."""

    def __init__(self) -> None:
        self.tracebacks: dict[str, str] = {}
        self.unread: dict[str, str] = {}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.unread[report.nodeid] = report.longreprtext

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.tracebacks[report.nodeid] = f"{self.tracebacks.get(report.nodeid, '')}{report.longreprtext}\n"


def deserve_another(failed: Collection[str]) -> bool:
    """Whether these may have failed by chance."""
    return 0 < len(failed) <= MAX_AGAIN


def fail_again(failed: Collection[str], passes: Callable[[str], bool]) -> list[str]:
    """Which of these fail when they are tried one after the other."""
    return [test for test in failed if not passes(test)]


def main(arguments: Sequence[str]) -> int:
    """Run pytest with these arguments; its exit code, or 0 if what failed passes alone."""
    failures = Failures()
    code = int(pytest.main([*arguments, "--tb=short"], plugins=[failures]))
    failed = failures.tracebacks
    if code == pytest.ExitCode.OK:
        return code
    if code != pytest.ExitCode.TESTS_FAILED or failures.unread or not deserve_another(failed):
        _tell(*(f"FAILED {test}\n{traceback}" for test, traceback in (failures.unread | failed).items()))
        _tell(f"pytest ended with {code}")
        return code

    again = fail_again(failed, lambda test: _passes_alone(test, _markers(arguments)))
    for test, traceback in failed.items():
        verdict = "FAILED TWICE" if test in again else "passed only alone"
        _tell(f"{verdict}: {test}\n{traceback}")
    return code if again else 0


def _passes_alone(test: str, markers: Sequence[str]) -> bool:
    print(f"── once more, alone: {test}", flush=True)  # noqa: T201
    # No report of its own: it would replace that of the whole run.
    command = [sys.executable, "-m", "pytest", "--quiet", "-n", "0", "--tb=short", "--junit-xml=", *markers, test]
    return subprocess.run(command, check=False).returncode == 0


def _markers(arguments: Sequence[str]) -> Sequence[str]:
    """The ``-m`` of the run, without which pytest would not select the test."""
    if "-m" not in arguments:
        return ()
    at = arguments.index("-m")
    return arguments[at : at + 2]


def _tell(*lines: str) -> None:
    text = "\n".join(lines) + "\n"
    print(f"\n{text}", flush=True)  # noqa: T201
    path = os.environ.get(FAILURES_VARIABLE)
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
