"""``roomkey doctor``: checks that the server can start and run well here, and says what to do if not."""

import asyncio
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
from roomkey.backends import open_documents
from roomkey.cli.outcome import Exit, print_json, print_table
from roomkey.cli.serve import Choices, Chosen
from roomkey.config import Config, StorageSettings, exposure
from roomkey.documents.crdt.injuries import Injury, injuries_of
from roomkey.documents.open_documents import assemble
from roomkey.errors import ConfigurationError, RoomkeyError
from roomkey.ports import Page
from roomkey.security import masterkey

MIN_FREE_BYTES = 256 * 1024 * 1024
"""Free space below which a disk is worth a warning."""

MAX_SEARCH_SECONDS = 20.0
"""Maximum time to look into documents."""

MAX_INJURED = 50
"""Maximum number of documents that are named."""

MIN_OPEN_FILES = 4096
"""Limit on open files below which it is worth a warning."""


class Verdict(StrEnum):
    """Result of a check. Only ``FAILED`` keeps the server from starting."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Finding(Struct, frozen=True):
    """One thing that was checked; ``advice`` says what to do if it is not ok."""

    subject: str
    verdict: Verdict
    observed: str
    advice: str = ""


def doctor(*, choices: Chosen = None, json: bool = False) -> Exit:
    """
    Check the configuration and this machine, and say what to do. Changes nothing; fails if the server cannot start.

    Args:
        json: Print JSON.
    """
    findings = list(examine(choices or Choices()))
    if json:
        print_json(findings)
    else:
        columns = ("result", "checked", "found", "what to do")
        print_table(columns, [(each.verdict, each.subject, each.observed, each.advice) for each in findings])
    return Exit.FAILED if any(each.verdict is Verdict.FAILED for each in findings) else Exit.DONE


def examine(choices: Choices) -> Iterator[Finding]:
    """All checks, in the order in which the server meets what they are about."""
    yield _libraries()
    yield _clock()
    yield _open_files()
    try:
        config = choices.load()
    except ConfigurationError as error:
        for problem in error.problems:
            yield Finding("configuration", Verdict.FAILED, problem, "correct it; `roomkey config` shows all settings")
        return
    yield Finding("configuration", Verdict.OK, "valid")
    yield _port(config)
    yield _api_keys(config)
    yield from _storages(config.storage)
    yield from _other_servers(config.storage.folder)
    yield _master_key(config)
    yield from _documents(config.storage)


def _libraries() -> Finding:
    missing = [name for name in ("uvloop", "picows", "httptools", "lmdb") if find_spec(name) is None]
    if not missing:
        return Finding("libraries", Verdict.OK, "uvloop, picows, httptools and lmdb are installed")
    # uvloop does not exist on Windows, and the server runs without it.
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
        "open files", Verdict.WARNING, f"up to {hard}", f"every socket needs one: `ulimit -Hn {MIN_OPEN_FILES}` or more"
    )


def _port(config: Config) -> Finding:
    from roomkey.server import listening  # noqa: PLC0415  # takes a while, and is not needed to complain

    where = f"{config.server.host}, port {config.server.port}"
    try:
        with listening(config.server):
            return Finding("port", Verdict.OK, f"{where} is free")
    except ConfigurationError as error:
        advice = "stop the server that runs already, or choose another port with --port"
        return Finding("port", Verdict.FAILED, str(error), advice)


def _api_keys(config: Config) -> Finding:
    advice = "`roomkey keys generate` makes a key"
    for problem in exposure(config):
        return Finding("API keys", Verdict.FAILED, problem, advice)
    if config.security.api_keys:
        return Finding("API keys", Verdict.OK, f"{len(config.security.api_keys)} configured")
    return Finding("API keys", Verdict.WARNING, "none: the server listens on this machine only", advice)


def _storages(storage: StorageSettings) -> Iterator[Finding]:
    if storage.documents_location == storage.location:
        yield from _storage("", storage.location, storage.folder, "sessions and documents", "--storage")
    else:
        yield from _storage("", storage.location, storage.folder, "sessions", "--storage")
        place = storage.documents_location, storage.documents_folder
        yield from _storage("documents: ", *place, "documents", "--documents")


def _storage(prefix: str, location: str, folder: Path | None, content: str, flag: str) -> Iterator[Finding]:
    if folder is None:
        observed = f"{location}: a restart loses all {content}"
        yield Finding(f"{prefix}storage", Verdict.WARNING, observed, f"{flag} file keeps them")
        return
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    subject = f"{prefix}data directory"
    if not existing.is_dir():
        advice = f"choose another one with --data or {flag}"
        yield Finding(subject, Verdict.FAILED, f"{existing} is not a directory", advice)
        return
    if not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
        advice = "give it to the user that runs the server"
        yield Finding(subject, Verdict.FAILED, f"{existing} cannot be read and written", advice)
        return
    state = "can be read and written" if existing == folder else "will be created"
    yield Finding(subject, Verdict.OK, f"{folder} {state}")
    free = shutil.disk_usage(existing).free
    room = f"{free // 2**20} MiB free"
    if free < MIN_FREE_BYTES:
        advice = f"free some space: on a full disk {content} can only be read"
        yield Finding(f"{prefix}disk", Verdict.WARNING, room, advice)
    else:
        yield Finding(f"{prefix}disk", Verdict.OK, room)


def _other_servers(folder: Path | None) -> Iterator[Finding]:
    if folder is None:
        return
    from roomkey.backends.lmdb.processes import Processes  # noqa: PLC0415  # loads LMDB's library

    others = Processes(folder).others()
    if others:
        advice = "rooms of /ws, presence and limits are of each process alone: send all clients of a document to one"
        yield Finding("other servers", Verdict.WARNING, f"on {folder}: {', '.join(others)}", advice)


def _master_key(config: Config) -> Finding:
    security, folder = config.security, config.storage.folder
    file = security.master_key_file or (folder / masterkey.FILE_NAME if folder else None)
    try:
        if security.master_key is not None:
            masterkey.check(security.master_key)
        elif file is None:
            return Finding("master key", Verdict.OK, "generated at each start, because sessions are in memory")
        elif not file.exists() and file != security.master_key_file:
            return Finding("master key", Verdict.OK, f"{file} will be created")
        else:
            masterkey.load(file)
    except ConfigurationError as error:
        return Finding("master key", Verdict.FAILED, str(error), "`roomkey keys generate --master` makes a new one")
    return Finding(
        "master key", Verdict.OK, "configured" if security.master_key else f"in {file}, readable by its owner only"
    )


# --- documents ----------------------------------------------------------------------------------------


def _documents(storage: StorageSettings) -> Iterator[Finding]:
    folder = storage.documents_folder
    if folder is None or not folder.is_dir():
        return
    try:
        found = asyncio.run(_Search(storage.documents_location).findings())
    except RoomkeyError as error:
        yield Finding("documents", Verdict.WARNING, f"they could not be looked at: {error}", "see the finding above")
    else:
        yield from found


class _Search:
    """Looks for documents in which somebody was silenced, or something waits for ever."""

    def __init__(self, location: str) -> None:
        self._store = open_documents(location)
        self._until = time.monotonic() + MAX_SEARCH_SECONDS
        self._injured: list[Finding] = []
        self._looked_at = 0

    async def findings(self) -> list[Finding]:
        """What there is to say about the documents."""
        async with self._store:
            is_complete = await self._look_at_all()
        looked = f"{self._looked_at} looked at, {len(self._injured)} findings"
        if not is_complete:
            advice = "documents beyond these were not looked at; see to what was found, and run it again"
            return [*self._injured, Finding("documents", Verdict.WARNING, looked, advice)]
        verdict = Verdict.WARNING if self._injured else Verdict.OK
        return [*self._injured, Finding("documents", verdict, looked, "see above" if self._injured else "")]

    async def _look_at_all(self) -> bool:
        page = Page(limit=100)
        while True:
            listed = await self._store.list("", page)
            for record in listed.documents:
                if time.monotonic() > self._until or len(self._injured) >= MAX_INJURED:
                    return False
                self._injured += await self._look_at(record.name)
                self._looked_at += 1
            if listed.next_cursor is None:
                return True
            page = Page(cursor=listed.next_cursor, limit=100)

    async def _look_at(self, name: str) -> list[Finding]:
        subject = f"document {name!r}"
        try:
            stored = await self._store.load(name)
            injuries = [] if stored is None else injuries_of(await assemble(stored))
        except RoomkeyError as error:
            return [Finding(subject, Verdict.WARNING, str(error), "restore the storage from a backup")]
        return [_injured(subject, injury) for injury in injuries]


def _injured(subject: str, injury: Injury) -> Finding:
    if injury.waits:
        observed = f"changes of client {injury.client} wait for what is missing before clock {injury.clock}"
        advice = "they appear when their author's page connects again; reload it, or restore a version, if it does not"
    else:
        observed = f"client {injury.client} is silenced from clock {injury.clock} on: all that it writes is dropped"
        advice = "reload the page that has this client id, so that it takes a new one; copy what it shows before"
    return Finding(subject, Verdict.WARNING, observed, advice)
