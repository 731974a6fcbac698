"""Disks of a test's own: small ones, full ones, and such that may only be read."""

import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def small_disk(path: Path, size: str) -> Generator[None]:
    """A disk of its own at ``path``; skips the test where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


@contextmanager
def full_disk(path: Path) -> Generator[None]:
    """A small disk on which nothing is free."""
    with small_disk(path, "64k"):
        fill(path / "ballast")
        yield


@contextmanager
def read_only_disk(path: Path) -> Generator[None]:
    """A disk on which nothing can be written."""
    with small_disk(path, "64k"):
        subprocess.run(["mount", "-o", "remount,ro", str(path)], check=True)
        yield


def fill(ballast: Path) -> None:
    """Write a file until nothing is free on its disk."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
