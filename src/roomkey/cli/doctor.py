"""``roomkey doctor``: what would keep the server from running well here, and what to do about it."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct

import roomkey
from roomkey.cli.outcome import Exit, print_json, print_table
from roomkey.cli.serve import Choices, Chosen
from roomkey.config import Config, exposure
from roomkey.errors import ConfigurationError
from roomkey.security import masterkey

MIN_FREE_BYTES = 256 * 1024 * 1024
MIN_OPEN_FILES = 4096


class Verdict(StrEnum):
    """How a check ended. Only ``FAILED`` keeps the server from starting."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Finding(Struct, frozen=True):
    """One thing that was looked at; ``advice`` says what to do if it is not ok."""

    subject: str
    verdict: Verdict
    observed: str
    advice: str = ""


def doctor(*, choices: Chosen = None, json: bool = False) -> Exit:
    """
    Check the configuration and this machine, and say what to do. Changes nothing; fails if something is wrong.

    Args:
        json: Print JSON.
    """
    findings = list(examine(choices or Choices()))
    if json:
        print_json(findings)
    else:
        columns = ("", "checked", "found", "what to do")
        print_table(columns, [(each.verdict, each.subject, each.observed, each.advice) for each in findings])
    return Exit.FAILED if any(each.verdict is Verdict.FAILED for each in findings) else Exit.DONE


def examine(choices: Choices) -> Iterator[Finding]:
    """Every check in the order of a start."""
    yield _libraries()
    yield _clock()
    yield _open_files()
    try:
        config = choices.load()
    except ConfigurationError as error:
        for problem in error.problems:
            yield Finding("configuration", Verdict.FAILED, problem, "correct it; `roomkey config` shows what holds")
        return
    yield Finding("configuration", Verdict.OK, "can be used")
    for warning in config.warnings:
        yield Finding("configuration", Verdict.WARNING, warning)
    yield _port(config)
    yield _api_keys(config)
    yield from _directory(config)
    yield _master_key(config)


def _libraries() -> Finding:
    missing = [name for name in ("uvloop", "picows", "httptools", "lmdb") if find_spec(name) is None]
    if not missing:
        return Finding("libraries", Verdict.OK, "uvloop, picows, httptools and lmdb are there")
    # uvloop does not exist there, and the server runs without it.
    expected = sys.platform == "win32" and missing == ["uvloop"]
    advice = "" if expected else "install Roomkey again with its dependencies"
    return Finding(
        "libraries", Verdict.WARNING if expected else Verdict.FAILED, f"missing: {', '.join(missing)}", advice
    )


def _clock() -> Finding:
    # The package was installed before now, unless the clock is wrong.
    installed = Path(roomkey.__file__ or __file__).stat().st_mtime
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if time.time() < installed - 1:
        return Finding("clock", Verdict.FAILED, f"{now} is before the installation", "set the clock; use NTP")
    return Finding("clock", Verdict.OK, now)


def _open_files() -> Finding:
    try:
        import resource  # noqa: PLC0415  # does not exist on Windows
    except ImportError:
        return Finding("open files", Verdict.OK, "not limited by the system")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= MIN_OPEN_FILES:
        return Finding("open files", Verdict.OK, "unlimited" if hard == resource.RLIM_INFINITY else f"up to {hard}")
    return Finding(
        "open files", Verdict.WARNING, f"up to {hard}", f"each socket is one: `ulimit -Hn {MIN_OPEN_FILES}` or more"
    )


def _port(config: Config) -> Finding:
    from roomkey.server import listening  # noqa: PLC0415  # takes a while, and is not needed to complain

    where = f"{config.server.host}, port {config.server.port}"
    try:
        with listening(config.server):
            return Finding("port", Verdict.OK, f"{where} is free")
    except ConfigurationError as error:
        advice = "is a server running already? --port chooses another one"
        return Finding("port", Verdict.FAILED, str(error), advice)


def _api_keys(config: Config) -> Finding:
    advice = "`roomkey keys generate` makes a key"
    for problem in exposure(config):
        return Finding("API keys", Verdict.FAILED, problem, advice)
    if config.security.api_keys:
        return Finding("API keys", Verdict.OK, f"{len(config.security.api_keys)} configured")
    return Finding("API keys", Verdict.WARNING, "none: for this machine only", advice)


def _directory(config: Config) -> Iterator[Finding]:
    folder = config.storage.folder
    if folder is None:
        advice = "--storage file keeps them"
        yield Finding("storage", Verdict.WARNING, f"{config.storage.location}: a restart forgets all sessions", advice)
        return
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        yield Finding("data directory", Verdict.FAILED, f"{existing} is not a directory", "choose another with --data")
        return
    if not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
        advice = "give it to the user that runs the server"
        yield Finding("data directory", Verdict.FAILED, f"{existing} cannot be read and written", advice)
        return
    what = "can be read and written" if existing == folder else "will be made"
    yield Finding("data directory", Verdict.OK, f"{folder} {what}")
    free = shutil.disk_usage(existing).free
    room = f"{free // 2**20} MiB free"
    if free < MIN_FREE_BYTES:
        yield Finding("disk", Verdict.WARNING, room, "make room: on a full disk sessions can only be read")
    else:
        yield Finding("disk", Verdict.OK, room)


def _master_key(config: Config) -> Finding:
    security, folder = config.security, config.storage.folder
    file = security.master_key_file or (folder / masterkey.FILE_NAME if folder else None)
    try:
        if security.master_key is not None:
            masterkey.check(security.master_key)
        elif file is None:
            return Finding("master key", Verdict.OK, "made at each start, like the storage")
        elif not file.exists() and file != security.master_key_file:
            return Finding("master key", Verdict.OK, f"{file} will be made")
        else:
            masterkey.load(file)
    except ConfigurationError as error:
        return Finding("master key", Verdict.FAILED, str(error), "`roomkey keys generate --master` makes one")
    return Finding("master key", Verdict.OK, "given" if security.master_key else f"in {file}, for its owner only")
