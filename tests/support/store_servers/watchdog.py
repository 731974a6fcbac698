"""
Ends the servers of a test process that ended without ending them, as by a kill.

A process of its own, which is told of every server and reads until the pipe breaks. Not ``PR_SET_PDEATHSIG``: that
signal comes when the *thread* ends which started the server.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import cache


class Watchdog:
    """The pipe to the process that watches."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt from the keyboard is not for it
        )

    def watch(self, pid: int) -> None:
        """End the process and its group when this one ends."""
        self._tell(f"+{pid}\n")

    def forget(self, pid: int) -> None:
        """It has ended."""
        self._tell(f"-{pid}\n")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()


@cache
def watchdog() -> Watchdog:
    """The one of this process."""
    return Watchdog()


def main() -> None:
    """Watch until the other end of the pipe is gone."""
    watched: set[int] = set()
    for line in sys.stdin:
        change = watched.add if line[0] == "+" else watched.discard
        change(int(line[1:]))
    for pid in watched:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
