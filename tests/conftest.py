"""How tests run: coroutines on a fresh uvloop each, under a time limit that no honest test reaches."""

import asyncio
import inspect
import os
from collections.abc import Generator
from typing import Any

import pytest
import structlog
import uvloop
from hypothesis import settings

from tests.support.effort import PROFILE_VARIABLE, register_profiles

TIME_LIMIT_SECONDS = 180

STRICT_VARIABLE = "ROOMKEY_STRICT"
STRICT = os.environ.get(STRICT_VARIABLE) == "1"
"""In CI everything is there that a test needs: what would be skipped elsewhere fails."""

pytest_plugins = ["tests.support.store_servers.fixtures"]

# Tests start hundreds of processes, and without bytecode each of them compiles everything anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

register_profiles()
settings.load_profile(os.environ.get(PROFILE_VARIABLE) or "ci")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a skipped test fail where nothing may be skipped."""
    report = yield
    if STRICT and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but {STRICT_VARIABLE} is set: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for whole modules."""
    report = yield
    if STRICT and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, but {STRICT_VARIABLE} is set: {report.longrepr}"
    return report


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Let how a command has set up the log not reach the next test."""
    structlog.reset_defaults()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run ``async def`` tests to their end."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    async def limited() -> Any:
        async with asyncio.timeout(TIME_LIMIT_SECONDS):
            return await pyfuncitem.obj(**arguments)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(limited())
    return True
