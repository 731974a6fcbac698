"""The client in TypeScript: its checks, and the package that its users get."""

import asyncio
import os
import shutil
import subprocess
import tarfile
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Final

import pytest

from tests.support.providers import NODE

FOLDER: Final = Path(__file__).parents[2] / "clients" / "typescript"
PACKAGES: Final = FOLDER / "node_modules"
PATIENCE_SECONDS: Final = 120
NEEDED: Final = pytest.mark.skipif(
    NODE is None or not (PACKAGES / "vitest").exists(), reason="needs Node.js, and `npm ci` in clients/typescript"
)


async def run(*command: str, folder: Path = FOLDER, url: str = "") -> tuple[int, str]:
    """Run a command of the packages that are installed: its exit code, and everything that it said."""
    name, *arguments = command
    environment = {**os.environ, "ROOMKEY_URL": url, "NO_COLOR": "1", "PATH": _path()}
    process = await asyncio.create_subprocess_exec(
        name, *arguments, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=PIPE, stderr=STDOUT
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


def run_at_once(*command: str, folder: Path) -> None:
    """Run a command that has to succeed, before there is a loop."""
    environment = {**os.environ, "PATH": _path()}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=PATIENCE_SECONDS)


def _path() -> str:
    return os.pathsep.join([str(PACKAGES / ".bin"), os.environ.get("PATH", "")])


def pack(folder: Path, packages: Path = PACKAGES) -> Path:
    """
    Make a project in ``folder`` that has the package installed as ``npm pack`` made it, and return the project.

    The other ``packages`` are there, too, as if they had been installed beside it.
    """
    sources, project = folder / "sources", folder / "project"
    shutil.copytree(FOLDER, sources, ignore=shutil.ignore_patterns("node_modules", "dist", "tests"))
    (sources / "node_modules").symlink_to(PACKAGES)
    run_at_once("npm", "pack", "--silent", "--offline", f"--pack-destination={folder}", folder=sources)
    (archive,) = folder.glob("*.tgz")
    installed = project / "node_modules" / "@roomkey"
    installed.mkdir(parents=True)
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "unpacked", filter="data")
    (folder / "unpacked" / "package").rename(installed / "client")
    for package in packages.iterdir():
        if package.name == ".bin" or not package.name.startswith("."):
            (project / "node_modules" / package.name).symlink_to(package)
    return project


def files_of(project: Path) -> set[str]:
    """The files of the package, without those that belong to a module."""
    client = project / "node_modules" / "@roomkey" / "client"
    return {path.relative_to(client).as_posix() for path in client.rglob("*") if path.is_file()}
