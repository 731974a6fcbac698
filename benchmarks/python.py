"""The peers in Python: installed as locked, in an environment of their own, for they need other versions than we do."""

import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import Final

from benchmarks.node import FOLDER, INSTALL_SECONDS, Missing, output_of
from benchmarks.processes import Started, running

LOCK: Final = FOLDER / "requirements.txt"
ENVIRONMENT: Final = FOLDER / ".venv"

_PINNED: Final = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)


@contextmanager
def peer(script: str, *arguments: str) -> Generator[Started | Missing]:
    """The server in ``script``, running; or the reason why it is not."""
    missing = install()
    if missing is not None:
        yield missing
        return
    with running([str(ENVIRONMENT / "bin" / "python"), str(FOLDER / script), *arguments]) as started:
        yield started


def run(script: str, *arguments: str) -> bytes | Missing:
    """What ``script`` prints, which ends by itself; or the reason why it was not run."""
    missing = install()
    return missing or output_of([str(ENVIRONMENT / "bin" / "python"), str(FOLDER / script), *arguments])


@cache
def install() -> Missing | None:
    """Install what is locked, unless that has been done; returns what is in the way."""
    stamp = ENVIRONMENT / ".installed"
    if stamp.exists() and stamp.read_bytes() == LOCK.read_bytes():
        return None
    if sys.platform == "win32":
        return Missing("it is not installed on Windows")
    pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
        command = [*pip, "--require-hashes", "--no-deps", "-r", str(LOCK)]
        subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_SECONDS)
    except (subprocess.SubprocessError, OSError) as error:
        return Missing(f"pip install failed: {type(error).__name__}")
    shutil.copyfile(LOCK, stamp)
    return None


def version_of(package: str) -> str:
    """Which version of a package is locked."""
    return dict(_PINNED.findall(LOCK.read_text()))[package]
