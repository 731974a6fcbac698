"""Somebody else's server with somebody else's application, in which Roomkey is mounted."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

PATIENCE_SECONDS: Final = 60
STARTED: Final = "Application startup complete"
RUNNING: Final = re.compile(r"http://127\.0\.0\.1:\d+")


@asynccontextmanager
async def uvicorn_with(
    application: str,
    folder: Path,
    *,
    workers: int = 1,
    environment: Mapping[str, str] | None = None,
    python: str = sys.executable,
) -> AsyncGenerator[str]:
    """An application that is found from ``folder``, with further variables in its environment; yields its address."""
    process = await asyncio.create_subprocess_exec(
        *(python, "-m", "uvicorn", application, "--port", "0", "--no-use-colors"),
        *("--workers", str(workers), "--timeout-keep-alive", str(PATIENCE_SECONDS)),
        stdout=DEVNULL,
        stderr=PIPE,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        start_new_session=True,  # so that it can be killed together with its workers
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (match := RUNNING.search(line := (await process.stderr.readline()).decode())) is None:
                assert line, "uvicorn did not start"
            for _ in range(workers):  # they listen when they have started, which is later than what was said
                while workers > 1 and STARTED not in (line := (await process.stderr.readline()).decode()):
                    assert line, "a worker did not start"
        yield match[0]
        process.terminate()
        async with asyncio.timeout(PATIENCE_SECONDS):
            remaining = (await process.stderr.read()).decode()
        assert "Traceback" not in remaining, remaining
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):  # it ends just now
                os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
