"""The folder of a test run, in which servers have their files, and what is made in it once for all its processes."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

RUN_FOLDER_VARIABLE: Final = "ROOMKEY_TEST_SERVERS"
"""Names the folder of the run to the processes among which tests are distributed."""

_PREFIX: Final = "roomkey-servers-"


def begin_run() -> None:
    """Make the folder of this run, and remove those of runs that were killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = left.name.removeprefix(_PREFIX)
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.gettempdir()) / f"{_PREFIX}{os.getpid()}"
    folder.mkdir(exist_ok=True)
    os.environ[RUN_FOLDER_VARIABLE] = str(folder)


def end_run() -> None:
    """Remove the folder if it is of this process."""
    folder = Path(os.environ.get(RUN_FOLDER_VARIABLE, ""))
    if folder.name == f"{_PREFIX}{os.getpid()}":
        del os.environ[RUN_FOLDER_VARIABLE]
        shutil.rmtree(folder, ignore_errors=True)


def run_folder() -> Path:
    """The folder of this run."""
    return Path(os.environ[RUN_FOLDER_VARIABLE])


def copy_template(name: str, target: Path, make: Callable[[Path], None]) -> None:
    """Make ``target`` a copy of what ``make`` makes once in a run, in the first process that needs it."""
    if RUN_FOLDER_VARIABLE not in os.environ:
        target.mkdir()
        make(target)
        return
    template = run_folder() / f"template-{name}"
    with template.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            partial = template.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            make(partial)
            partial.rename(template)
    subprocess.run(["cp", "-a", "--reflink=auto", "--sparse=auto", str(template), str(target)], check=True)
