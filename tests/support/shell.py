"""A shell that stays open between commands, as a reader of the documentation has one."""

import asyncio
import os
import secrets
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

PATIENCE_SECONDS: Final = 30

START: Final = Path(__file__).with_name("shell.bash")
"""What it has read before the first command: ``roomkey``, ``python`` and ``curl`` as they are here."""


class Shell:
    """Variables, functions and the working directory last from one command to the next."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._mark = f"--- {secrets.token_hex(8)} "

    async def run(self, command: str) -> tuple[int, str]:
        """Exit code and output, of standard output and standard error together."""
        assert self._process.stdin is not None
        # In braces it runs in this very shell. It gets no input: that would be the next command.
        line = f"{{ {command}\n}} </dev/null\nprintf '\\n{self._mark}%d\\n' $?\n"
        self._process.stdin.write(line.encode())
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._answer()

    async def _answer(self) -> tuple[int, str]:
        assert self._process.stdout is not None
        output = ""
        while line := (await self._process.stdout.readline()).decode():
            if line.startswith(self._mark):
                return int(line.removeprefix(self._mark)), output.strip()
            output += line
        raise AssertionError(f"the shell ended: {output}")


@asynccontextmanager
async def open_shell(folder: Path, environment: Mapping[str, str]) -> AsyncGenerator[Shell]:
    """A shell in ``folder``, without what this machine's environment says about Roomkey."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ROOMKEY_", "SESSION_"))}
    process = await asyncio.create_subprocess_exec(
        *("bash", "--noprofile", "--norc"),
        stdin=PIPE,
        stdout=PIPE,
        stderr=STDOUT,
        cwd=folder,
        env={**inherited, **environment, "PYTHON": sys.executable},
    )
    try:
        shell = Shell(process)
        code, output = await shell.run(START.read_text(encoding="utf-8"))
        assert code == 0, output
        yield shell
    finally:
        process.kill()
        await process.wait()
