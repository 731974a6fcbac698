"""How tests run: coroutines on a fresh uvloop each, under a time limit that no honest test reaches."""

import asyncio
import inspect
import os
from typing import Any

import pytest
import uvloop
from hypothesis import settings

from tests.support.effort import PROFILE_VARIABLE, register_profiles

TIME_LIMIT_SECONDS = 60

STRICT = os.environ.get("ROOMKEY_STRICT") == "1"
"""In CI everything is there that a test needs: what would be skipped elsewhere fails."""

register_profiles()
settings.load_profile(os.environ.get(PROFILE_VARIABLE) or "ci")


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
