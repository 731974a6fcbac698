"""A server of our own in a process of its own, as users have it."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO

START_SECONDS = 20
STOP_SECONDS = 20
LISTENING = "Roomkey listening on "


class Server:
    """A server that has said where it listens."""

    def __init__(self, url: str, errors: IO[bytes]) -> None:
        self.url = url
        self._errors = errors
        self._last_words = ""

    @property
    def websocket_url(self) -> str:
        return self.url.replace("http", "ws", 1) + "/ws"

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def errors(self) -> str:
        """What it has written to standard error so far."""
        if not self._errors.closed:
            self._last_words = os.pread(self._errors.fileno(), 1 << 20, 0).decode(errors="replace")
        return self._last_words


class RunningServer(Server):
    """A server of one test, which may stop it."""

    def __init__(self, process: Process, url: str, errors: IO[bytes]) -> None:
        super().__init__(url, errors)
        self.process = process

    async def says(self, text: str) -> None:
        """Return when ``text`` has been written to standard error."""
        async with asyncio.timeout(START_SECONDS):
            while text not in self.errors:  # noqa: ASYNC110  # a file of another process tells nobody
                await asyncio.sleep(0.01)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal, and return its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(STOP_SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def running_server(
    *arguments: str,
    storage: str = "memory",
    dev: bool = True,
    port: int = 0,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> AsyncGenerator[RunningServer]:
    """
    ``roomkey serve`` with further ``arguments``, from the listening line to a SIGTERM.

    Without ``dev`` it needs keys: in ``environment`` as ``ROOMKEY_API_KEYS``.
    """
    command = ("serve", "--port", str(port), "--storage", storage, *(["--dev"] if dev else []), *arguments)
    with tempfile.TemporaryFile() as errors:
        process = await spawn(*command, environment=environment, folder=folder, errors=errors)
        assert process.stdout is not None
        server = RunningServer(process, "", errors)
        try:
            async with asyncio.timeout(START_SECONDS):
                line = (await process.stdout.readline()).decode()
            if not line.startswith(LISTENING):
                await process.wait()
                raise AssertionError(f"the server did not start: {line}{server.errors}")
            server.url = line.removeprefix(LISTENING).strip()
            yield server
            await server.stop()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            assert "Traceback" not in server.errors, server.errors


@contextmanager
def lasting_server(
    storage: str = "memory", environment: Mapping[str, str] | None = None, *, arguments: Sequence[str] = ()
) -> Generator[Server]:
    """``roomkey serve --dev`` for all tests of a module, which must not mind one another's sessions and documents."""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [sys.executable, "-m", "roomkey", "serve", "--dev", "--port", "0", "--storage", storage, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**_environment(), **(environment or {})},
        ) as process,
    ):
        assert process.stdout is not None
        server = Server(process.stdout.readline().decode().removeprefix(LISTENING).strip(), errors)
        try:
            assert server.url, server.errors
            yield server
            process.terminate()
            assert process.wait(STOP_SECONDS) == 0
            assert "Traceback" not in server.errors, server.errors
        finally:
            process.kill()


async def spawn(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    errors: int | IO[bytes] = PIPE,
) -> Process:
    """Run the command line with a pipe for its output, without what this machine's environment says about Roomkey."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "roomkey"),
        *arguments,
        stdout=PIPE,
        stderr=errors,
        env={**_environment(), **(environment or {})},
        cwd=folder,
    )


async def outcome(
    *arguments: str, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> tuple[int, str, str]:
    """Run a command to its end: exit code, standard output, standard error."""
    process = await spawn(*arguments, environment=environment, folder=folder)
    async with asyncio.timeout(START_SECONDS):
        output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("ROOMKEY_", "SESSION_"))}
