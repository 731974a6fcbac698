"""``roomkey doctor``: checks that the server can start and run well here, and says what to do if not."""

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from functools import partial
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Final

import roomkey
from roomkey.backends import Stores, urls
from roomkey.backends.lmdb.file import DATA_FILE
from roomkey.backends.lmdb.file import check as check_data_file
from roomkey.cli.encryption import COUNTING_SECONDS, HIDING_USERS, READABLE_USERS, in_words
from roomkey.cli.outcome import Exit, print_json, print_table
from roomkey.cli.serve import Choices, Chosen
from roomkey.config import Config, exposure, secrets_apart
from roomkey.documents.crdt.injuries import Injury, injuries_of
from roomkey.documents.loading import assemble
from roomkey.encrypted_stores import OpenStores, open_records, open_stores
from roomkey.encryption.data_keys import DataKeys, Users
from roomkey.encryption.rotation import Outdated, count_outdated
from roomkey.errors import ConfigurationError, RoomkeyError, Serialization, Storage, explain
from roomkey.observability.logs import configure_events
from roomkey.observability.settings import LogLevel, LogSettings
from roomkey.ports import DamagedRecord, DocumentStore, Page, Repairable, SessionStorage
from roomkey.production import RULES, Finding, Verdict, unsafe_settings
from roomkey.security import masterkey
from roomkey.security.injection import EXTRA, Inspector, load_detector
from roomkey.storage_settings import shared_and_not

MIN_FREE_BYTES = 256 * 1024 * 1024
"""Free space below which a disk is worth a warning."""

MAX_SEARCH_SECONDS = 20.0
"""Maximum time to look into documents."""

MAX_INJURED = 50
"""Maximum number of documents that are named."""

MAX_DAMAGED = 50
"""Maximum number of damaged records that are named."""

MIN_OPEN_FILES = 4096
"""Limit on open files below which it is worth a warning."""


def doctor(*, choices: Chosen = None, json: bool = False, set_aside: bool = False, production: bool = False) -> Exit:
    """
    Check the configuration and this machine, and say what to do. Fails if the server cannot start.

    Changes nothing, unless told to set damaged records aside.

    Args:
        json: Print JSON.
        set_aside: Move damaged records to where nothing reads them, and put indexes and counters right.
        production: Name all settings that are not safe where others depend on it, and fail if one must not be so.
    """
    # What is wrong is said by the findings.
    configure_events(LogSettings(level=LogLevel.ERROR), StringIO())
    findings = list(examine(choices or Choices(), set_aside=set_aside, production=production))
    if json:
        print_json(findings)
    else:
        columns = ("result", "checked", "found", "what to do")
        print_table(columns, [(each.verdict, each.subject, each.observed, each.advice) for each in findings])
    return Exit.FAILED if any(each.verdict is Verdict.FAILED for each in findings) else Exit.DONE


def examine(choices: Choices, *, set_aside: bool = False, production: bool = False) -> Iterator[Finding]:
    """All checks, in the order in which the server meets what they are about; none stops the others."""
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
    checks = {**CHECKS, "records": partial(_records, set_aside=set_aside), "documents": _documents}
    if production:
        checks |= {"production": _production}
    for subject, examination in checks.items():
        try:
            yield from examination(config)
        except OSError as error:
            reason, _, advice = explain(error).partition("; ")
            yield Finding(subject, Verdict.FAILED, f"{error.filename or 'the system'}: {reason}", advice)


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
    from roomkey.listening import RESERVED_FILES  # noqa: PLC0415  # takes a while, and is not needed to complain

    try:
        import resource  # noqa: PLC0415  # does not exist on Windows
    except ImportError:
        return Finding("open files", Verdict.OK, "not limited by the system")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        return Finding("open files", Verdict.OK, "unlimited")
    if hard >= MIN_OPEN_FILES:
        return Finding("open files", Verdict.OK, f"up to {hard}")
    verdict = Verdict.WARNING if hard > RESERVED_FILES else Verdict.FAILED
    advice = f"every socket needs one: `ulimit -n {MIN_OPEN_FILES}` or more"
    return Finding("open files", verdict, f"up to {hard}", advice)


def _port(config: Config) -> Iterator[Finding]:
    from roomkey.listening import listening  # noqa: PLC0415  # as above

    try:
        with listening(config.server):
            yield Finding("port", Verdict.OK, f"{config.server.host}, port {config.server.port} is free")
    except ConfigurationError as error:
        advice = "stop the server that runs already, or choose another port with --port"
        yield Finding("port", Verdict.FAILED, str(error), advice)


def _tls(config: Config) -> Iterator[Finding]:
    from roomkey.tls import tls_context  # noqa: PLC0415  # as above

    try:
        tls_context(config.server)
    except ConfigurationError as error:
        yield Finding("TLS", Verdict.FAILED, str(error), "name files in PEM that the user may read who runs the server")
        return
    if config.server.tls_cert is not None:
        yield Finding("TLS", Verdict.OK, f"{config.server.tls_cert} and its key can be read")


def _api_keys(config: Config) -> Iterator[Finding]:
    advice = "`roomkey keys generate` makes a key"
    if problems := list(exposure(config)):
        yield Finding("API keys", Verdict.FAILED, problems[0], advice)
    elif config.security.api_keys:
        yield Finding("API keys", Verdict.OK, f"{len(config.security.api_keys)} configured")
    elif config.security.issuers:
        yield Finding("API keys", Verdict.WARNING, "none: nobody can end sessions of others", advice)
    else:
        yield Finding("API keys", Verdict.WARNING, "none: the server listens on this machine only", advice)


def _storages(config: Config) -> Iterator[Finding]:
    storage = config.storage
    stores = Stores(storage.options)
    location = storage.location
    sessions = stores.sessions(location)
    if storage.documents_location == location:
        yield from _storage("", location, storage.folder, "sessions and documents", "--storage", sessions)
    else:
        yield from _storage("", location, storage.folder, "sessions", "--storage", sessions)
        place = storage.documents_location, storage.documents_folder
        documents = stores.documents(storage.documents_location)
        yield from _storage("documents: ", *place, "documents", "--documents", documents)


def _storage(
    prefix: str, location: str, folder: Path | None, content: str, flag: str, store: SessionStorage | DocumentStore
) -> Iterator[Finding]:
    if location.startswith("memory:"):
        observed = f"{location}: a restart loses all {content}"
        yield Finding(f"{prefix}storage", Verdict.WARNING, observed, f"{flag} file keeps them")
        return
    if folder is None:
        file = urls.database_file_of(location)
        if file is not None and not file.exists():
            yield Finding(f"{prefix}storage", Verdict.OK, f"{file} will be created")
        else:
            yield from _server(f"{prefix}storage", urls.shown(location), store)
        return
    subject = f"{prefix}data directory"
    existing = _nearest(folder)
    if problem := _problem_of(existing, flag):
        yield Finding(subject, Verdict.FAILED, *problem)
        return
    try:
        check_data_file(folder)
    except Storage as error:
        yield Finding(subject, Verdict.FAILED, str(error), f"bring back a backup, or choose another one with {flag}")
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


def _server(subject: str, name: str, store: SessionStorage | DocumentStore) -> Iterator[Finding]:
    """Open the store as the server would, which looks at version and settings of what it is in."""
    try:
        degradations = asyncio.run(_knock(store))
    except ConfigurationError as error:
        yield Finding(subject, Verdict.FAILED, f"{name}: {error}", "correct it, and look again")
    except RoomkeyError as error:
        yield Finding(subject, Verdict.FAILED, str(error), "start it, or choose another one with --storage")
    else:
        yield Finding(subject, Verdict.OK, f"{name} answers, and can be written to")
        for part, reason in degradations.items():
            yield Finding(subject, Verdict.WARNING, f"{part}: {reason}", "see docs/storage.md")


async def _knock(store: SessionStorage | DocumentStore) -> Mapping[str, str]:
    async with store:
        await store.ping()
        return store.degradations()


def _nodes(config: Config) -> Iterator[Finding]:
    """What several nodes on a server would share."""
    location = config.storage.location
    if not urls.is_remote(location):
        return
    if problems := [*secrets_apart(config)]:
        yield Finding("nodes", Verdict.FAILED, problems[0], "set it to the same value on all nodes")
    elif config.security.master_key is None and config.security.master_key_file is None:
        observed = "without a master key each has secrets of its own: tickets, idempotency keys, replaced tokens"
        yield Finding("nodes", Verdict.WARNING, observed, "set security.master_key to the same value on all nodes")
    else:
        broker = "" if config.broker.url == "none" else config.broker.location_beside(config.storage)
        joined, alone = shared_and_not(
            by_broker=urls.joins_nodes(broker), by_keys=True, by_counters=urls.counts_for_nodes(location)
        )
        observed = f"with the same master key they have in common: {joined}; each has alone: {alone}"
        yield Finding("nodes", Verdict.OK, observed)


def _other_servers(config: Config) -> Iterator[Finding]:
    folder = config.storage.folder
    if folder is None or not _can_be_read(folder):
        return
    from roomkey.backends.lmdb.processes import Processes  # noqa: PLC0415  # loads LMDB's library

    others = Processes(folder).others()
    if others:
        advice = "rooms of /ws, presence and limits are of each process alone: send all clients of a document to one"
        yield Finding("other servers", Verdict.WARNING, f"on {folder}: {', '.join(others)}", advice)


def _nearest(folder: Path) -> Path:
    """The directory, or the first one above it that exists. Raises ``OSError`` if it cannot be looked at."""
    for path in (folder, *folder.parents):
        with suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
            return path
    return folder


def _problem_of(folder: Path, flag: str) -> tuple[str, str] | None:
    """What keeps the server from using a directory and the files in it, and what to do about it."""
    if not os.path.isdir(folder):  # noqa: PTH112  # never raises
        return f"{folder} is not a directory", f"choose another one with --data or {flag}"
    if os.access(folder, os.R_OK | os.X_OK) and not os.access(folder, os.W_OK) and _is_read_only(folder):
        return f"{folder} is on a read-only file system", f"choose another one with --data or {flag}"
    advice = "give it to the user that runs the server"
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return f"{folder} cannot be read and written", advice
    for file in folder.glob("*.mdb"):
        if not os.access(file, os.R_OK | os.W_OK):
            return f"{file} cannot be read and written", advice
    return None


def _can_be_read(folder: Path) -> bool:
    """Whether there is something to look into; if not, that was said before."""
    return os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK)  # noqa: PTH112  # never raises


def _is_read_only(folder: Path) -> bool:
    # Windows has no statvfs.
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def _master_key(config: Config) -> Iterator[Finding]:
    security = config.security
    file = security.master_key_file or config.storage.key_file
    try:
        if security.master_key is not None:
            masterkey.check(security.master_key)
            found = "configured"
        elif file is None:
            place = "on a server" if urls.is_remote(config.storage.location) else "in memory"
            found = f"generated at each start, because sessions are {place}"
        elif file != security.master_key_file and not os.path.exists(file):  # noqa: PTH110  # never raises
            found = f"{file} will be created"
        else:
            masterkey.load(file)
            found = f"in {file}, readable by its owner only"
    except ConfigurationError as error:
        yield Finding("master key", Verdict.FAILED, str(error), "`roomkey keys generate --master` makes a new one")
    else:
        yield Finding("master key", Verdict.OK, found)


def _encryption(config: Config) -> Iterator[Finding]:
    storage = config.storage
    if storage.location.startswith("memory:") or not _has_data(storage.location, storage.folder):
        return
    try:
        keys, outdated = asyncio.run(_data_keys(config))
    except (ConfigurationError, Serialization) as error:
        yield Finding("encryption", Verdict.FAILED, str(error), "see docs/security/encryption.md")
    except RoomkeyError as error:
        yield Finding(
            "encryption", Verdict.WARNING, f"the data keys could not be read: {error}", "see the findings above"
        )
    else:
        yield _encrypted(keys)
        if outdated is not None and outdated.outdated:
            advice = "`roomkey encryption rotate` writes them anew while servers run"
            yield Finding("data keys", Verdict.WARNING, in_words(outdated), advice)


async def _data_keys(config: Config) -> tuple[DataKeys | None, Outdated | None]:
    async with open_stores(config) as opened:
        keys = opened.encryption.keys
        if keys is None:
            return None, None
        async with open_records(config, opened) as stores:
            return keys, await count_outdated(stores.values(), COUNTING_SECONDS)


def _encrypted(keys: DataKeys | None) -> Finding:
    if keys is None:
        advice = "a server makes data keys if encryption.mode is on, or auto and all is kept on this machine"
        return Finding("encryption", Verdict.WARNING, "records are not encrypted", advice)
    newest = keys.ring.keys[-1]
    named = f"{len(keys.keys)} data keys, the newest {newest.id.hex()} of {newest.created_at:%Y-%m-%d}"
    if keys.ring.reads_unsealed:
        advice = "`roomkey encryption rotate` encrypts what is there already"
        return Finding("encryption", Verdict.WARNING, f"{named}; records that are not encrypted are read", advice)
    if keys.ring.users is Users.READABLE:
        return Finding("encryption", Verdict.WARNING, f"{named}; {READABLE_USERS}", HIDING_USERS)
    return Finding("encryption", Verdict.OK, f"{named}; ids of sessions and names of documents are not encrypted")


def _production(config: Config) -> Iterator[Finding]:
    """What is not safe where others depend on it."""
    unsafe = [*unsafe_settings(config)]
    if Inspector(config.inspection, load_detector()).is_missing:
        observed = "libinjection is not installed: SQL and active HTML in what comes from outside are not noticed"
        advice = f"`pip install 'roomkey[{EXTRA}]'`, or a filter in front of the server"
        unsafe.append(Finding("inspection", Verdict.WARNING, observed, advice))
    yield from unsafe or [Finding("production", Verdict.OK, f"none of {len(RULES)} rules is broken")]


# --- records ------------------------------------------------------------------------------------------

Opening = Callable[[OpenStores], AbstractAsyncContextManager[object]]
"""What opens one of the stores."""


def _records(config: Config, *, set_aside: bool) -> Iterator[Finding]:
    storage = config.storage
    documents = storage.documents_location
    places: list[tuple[str, str, Path | None, Opening]] = [
        ("sessions", storage.location, storage.folder, lambda opened: opened.stores.sessions(storage.location)),
        ("documents", documents, storage.documents_folder, lambda opened: opened.stores.documents(documents)),
        ("objects", storage.location, storage.objects_folder, lambda opened: nullcontext(opened.objects)),
    ]
    for content, location, folder, open_store in places:
        if location.startswith("memory:") or not _has_data(location, folder):
            continue
        try:
            yield from asyncio.run(_look_for_damage(config, open_store, content, set_aside=set_aside))
        except RoomkeyError as error:
            yield Finding(
                f"records of {content}",
                Verdict.WARNING,
                f"they could not be looked at: {error}",
                "see the findings above",
            )


def _has_data(location: str, folder: Path | None) -> bool:
    """Whether there is something that can be opened without making it."""
    if folder is None:
        file = urls.database_file_of(location)
        return file is None or file.exists()
    return _can_be_read(folder) and os.access(folder / DATA_FILE, os.R_OK | os.W_OK)


async def _look_for_damage(config: Config, opening: Opening, content: str, *, set_aside: bool) -> list[Finding]:
    async with open_stores(config) as opened, opening(opened) as store:
        if not isinstance(store, Repairable):
            return []
        return await _damage_of(store, f"records of {content}", set_aside=set_aside)


async def _damage_of(store: Repairable, subject: str, *, set_aside: bool) -> list[Finding]:
    damaged = await store.damaged()
    findings = [_damaged(record) for record in damaged[:MAX_DAMAGED]]
    if not await store.has_checksums():
        advice = "a copy in another directory has them: `roomkey storage copy`"
        observed = "they carry no checksums: of damage only what makes a record unreadable is found"
        findings.append(Finding(subject, Verdict.WARNING, observed, advice))
    if set_aside and damaged:
        done = await store.set_aside(damaged)
        observed = f"{done} of {len(damaged)} damaged ones are set aside"
        advice = "" if done == len(damaged) else "what is left: restore it from a backup, or delete it"
        return [*findings, Finding(subject, Verdict.OK if not advice else Verdict.WARNING, observed, advice)]
    verdict = Verdict.WARNING if damaged else Verdict.OK
    advice = "bring back a backup, or set them aside with `roomkey doctor --set-aside`" if damaged else ""
    return [*findings, Finding(subject, verdict, f"{len(damaged)} damaged", advice)]


def _damaged(record: DamagedRecord) -> Finding:
    advice = "start the newer Roomkey that wrote it" if record.is_newer else "see below"
    return Finding(f"{record.kind} {record.key!r}", Verdict.WARNING, record.reason, advice)


# --- documents ----------------------------------------------------------------------------------------


def _documents(config: Config) -> Iterator[Finding]:
    storage = config.storage
    folder = storage.documents_folder
    if folder is None or not _can_be_read(folder):
        return
    try:
        found = asyncio.run(_search(config))
    except RoomkeyError as error:
        yield Finding("documents", Verdict.WARNING, f"they could not be looked at: {error}", "see the finding above")
    else:
        yield from found


async def _search(config: Config) -> list[Finding]:
    async with open_stores(config) as opened:
        return await _Search(opened.stores.documents(config.storage.documents_location)).findings()


class _Search:
    """Looks for documents in which somebody was silenced, or something waits for ever."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store
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
        lost = [_torn(subject, stored.lost)] if stored is not None and stored.lost else []
        return [*lost, *(_injured(subject, injury) for injury in injuries)]


def _torn(subject: str, lost: int) -> Finding:
    advice = "pages that still have them bring them back when they connect; otherwise look at its versions"
    return Finding(subject, Verdict.WARNING, f"{lost} changes cannot be read any more", advice)


def _injured(subject: str, injury: Injury) -> Finding:
    if injury.waits:
        observed = f"changes of client {injury.client} wait for what is missing before clock {injury.clock}"
        advice = "they appear when their author's page connects again; reload it, or restore a version, if it does not"
    else:
        observed = f"client {injury.client} is silenced from clock {injury.clock} on: all that it writes is dropped"
        advice = "reload the page that has this client id, so that it takes a new one; copy what it shows before"
    return Finding(subject, Verdict.WARNING, observed, advice)


CHECKS: Final[Mapping[str, Callable[[Config], Iterator[Finding]]]] = {
    "port": _port,
    "TLS": _tls,
    "API keys": _api_keys,
    "data directory": _storages,
    "other servers": _other_servers,
    "nodes": _nodes,
    "master key": _master_key,
    "encryption": _encryption,
}
"""What is looked at, in this order, with a valid configuration. None of them keeps the others from being made."""
