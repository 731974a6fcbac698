"""The peer in Python: installed as locked, in an environment of its own, for it needs other versions than we do."""

import shutil
import subprocess
import sys
import venv
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from benchmarks.node import FOLDER, INSTALL_SECONDS, Missing
from benchmarks.processes import Started, running

LOCK: Final = FOLDER / "pycrdt-websocket.txt"
ENVIRONMENT: Final = FOLDER / ".venv"


@contextmanager
def peer(script: str) -> Generator[Started | Missing]:
    """The server in ``script``, running; or the reason why it is not."""
    missing = install()
    if missing is not None:
        yield missing
        return
    with running([str(ENVIRONMENT / "bin" / "python"), str(FOLDER / script)]) as started:
        yield started


@cache
def install() -> Missing | None:
    """Install what is locked, unless that has been done; returns what is in the way."""
    stamp = ENVIRONMENT / ".installed"
    if stamp.exists() and stamp.read_bytes() == LOCK.read_bytes():
        return None
    if sys.platform == "win32":
        return Missing("it is not installed on Windows")
    command = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(LOCK)]
    try:
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
        subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_SECONDS)
    except (subprocess.SubprocessError, OSError) as error:
        return Missing(f"pip install failed: {type(error).__name__}")
    shutil.copyfile(LOCK, stamp)
    return None


def version_of(package: str) -> str:
    """Which version of a package is locked."""
    locked = dict(line.split("==") for line in Path(LOCK).read_text().splitlines())
    return locked[package]
