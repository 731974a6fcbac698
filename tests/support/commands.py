"""Many commands in little time, in surroundings that a test chooses; see ``forked_commands``."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest

FORKS: Final = Path(__file__).with_name("forked_commands.py")

SETPRIV: Final = shutil.which("setpriv")

AS_ANYBODY: Final = (
    [SETPRIV, "--inh-caps", "-dac_override,-dac_read_search", "--bounding-set", "-dac_override,-dac_read_search"]
    if SETPRIV and os.geteuid() == 0
    else []
)
"""What makes root mind the rights on files, as everybody else has to."""

needs_rights = pytest.mark.skipif(
    sys.platform == "win32" or (os.geteuid() == 0 and not SETPRIV), reason="needs setpriv, or not to be root"
)


class Ended(NamedTuple):
    """How a command has ended; a negative ``code`` is the signal that ended it."""

    code: int
    output: str
    errors: str


class Commands:
    """Runs one command after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        variables: Mapping[str, str],
        open_files: int | None = None,
        is_removed: bool = False,
    ) -> Ended:
        """Run ``roomkey`` in ``folder``, which does not exist any more if ``is_removed``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = {
            "arguments": arguments,
            "folder": str(folder),
            "variables": dict(variables),
            "open_files": open_files,
            "is_removed": is_removed,
        }
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


@contextmanager
def commands() -> Generator[Commands]:
    """A process that has loaded Roomkey, and is subject to the rights on files even as root."""
    with subprocess.Popen(
        [*AS_ANYBODY, sys.executable, str(FORKS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Commands(process)
        finally:
            process.kill()


def plain_environment(**variables: str) -> dict[str, str]:
    """This process's environment, without what it says about Roomkey."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ROOMKEY_", "SESSION_"))}
    return {**inherited, **variables}
