"""Audit logs in tests: their parts in memory, copies of what they serve, and witnesses in the same process."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from msgspec.structs import replace

from roomkey.audit.log import AuditLog
from roomkey.audit.merkle import EMPTY_ROOT, leaf_hash, node_hash
from roomkey.audit.notes import SignatureType, Signer, VerifierKey
from roomkey.audit.opening import open_log
from roomkey.audit.settings import AuditSettings, WitnessSettings
from roomkey.audit.sources import CHECKPOINT, StoredSource
from roomkey.audit.tiles import WIDTH, Tile, TileFile, bundle
from roomkey.audit.witness import WitnessService
from roomkey.audit.witnessing import Answer
from roomkey.backends.memory.leases import MemoryLeases
from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.errors import NotRetained, Storage
from roomkey.ports import ObjectStore
from roomkey.testing.clock import ManualClock

ORIGIN = "rooms.example.com/audit/log"
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SETTINGS = AuditSettings(origin=ORIGIN)


def key_of(number: int) -> bytes:
    """The private key with this number."""
    return sha256(f"key {number}".encode()).digest()


def naive_root(entries: Sequence[bytes]) -> bytes:
    """RFC 6962, 2.1, word by word."""
    if len(entries) < 2:
        return leaf_hash(entries[0]) if entries else EMPTY_ROOT
    split = 1
    while split * 2 < len(entries):
        split *= 2
    return node_hash(naive_root(entries[:split]), naive_root(entries[split:]))


def new_log(
    objects: ObjectStore | None = None,
    *,
    settings: AuditSettings = SETTINGS,
    node: str = "node",
    clock: ManualClock | None = None,
    leases: MemoryLeases | None = None,
    **more: Any,
) -> AuditLog:
    """A log of one node."""
    clock = clock or ManualClock(NOON)
    return open_log(
        MemoryObjectStore() if objects is None else objects,
        MemoryLeases(clock) if leases is None else leases,
        key_of=key_of,
        node=node,
        clock=clock,
        settings=settings,
        **more,
    )


async def filled_log(count: int, objects: ObjectStore | None = None, **more: Any) -> AuditLog:
    """A log with published entries ``entry 0``, ``entry 1`` and so on."""
    log = new_log(objects, **more)
    for start in range(0, count, 10_000):
        await log.append([entry(number) for number in range(start, min(count, start + 10_000))])
    await log.integrate()
    return log


def entry(number: int) -> bytes:
    return f"entry {number}".encode()


# --- copies -------------------------------------------------------------------------------------------


class Files:
    """A copy of what a log serves, which tests may damage: a ``Source``."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.denied: dict[str, Exception] = {}

    async def read(self, path: str) -> bytes | None:
        if path in self.denied:
            raise self.denied[path]
        return self.files.get(path)


async def copied(log: AuditLog) -> Files:
    """Every file of the log as it is now."""
    source, size = StoredSource(log), (await log.status()).published
    paths = [CHECKPOINT, *paths_of(size)]
    files: dict[str, bytes] = {}
    for path in paths:
        with suppress(NotRetained):
            content = await source.read(path)
            assert content is not None, path
            files[path] = content
    return Files(files)


def paths_of(size: int) -> list[str]:
    """All files with hashes and entries of a log of this size."""
    files: list[TileFile] = []
    for level in range(8):
        hashes = size >> 8 * level
        files += [TileFile(Tile(level, at // WIDTH), min(WIDTH, hashes - at)) for at in range(0, hashes, WIDTH)]
    files += [bundle(file.tile.number, file.width) for file in files if file.tile.level == 0]
    return [file.path for file in files]


# --- witnesses ----------------------------------------------------------------------------------------


class WitnessInProcess:
    """A witness of a log, and what it is asked by; it may be away, or answer something else."""

    def __init__(self, name: str, keys: Sequence[VerifierKey], objects: ObjectStore | None = None) -> None:
        self.objects = MemoryObjectStore() if objects is None else objects
        self.clock = ManualClock(NOON)
        self.signer = Signer(name, sha256(name.encode()).digest(), SignatureType.COSIGNATURE)
        self.service = WitnessService(self.objects, {ORIGIN: keys}, self.signer, self.clock)
        self.settings = WitnessSettings(key=str(self.signer.key), url=f"https://{name}")
        self.is_away = False
        self.instead: Answer | None = None
        self.asked: list[bytes] = []


class WitnessesInProcess:
    """A ``Transport`` to witnesses."""

    def __init__(self, *witnesses: WitnessInProcess) -> None:
        self._witnesses: Mapping[str, WitnessInProcess] = {
            f"{witness.settings.url}/add-checkpoint": witness for witness in witnesses
        }

    async def post(self, url: str, body: bytes) -> Answer:
        witness = self._witnesses[url]
        witness.asked.append(body)
        if witness.is_away:
            raise Storage("it is away")
        if witness.instead is not None:
            return witness.instead
        decision = await witness.service.add(body)
        return Answer(decision.status, decision.text.encode())


def witnessed(*witnesses: WitnessInProcess, quorum: int = 0) -> AuditSettings:
    return replace(SETTINGS, witnesses=tuple(witness.settings for witness in witnesses), quorum=quorum)


LOG_KEY = Signer(ORIGIN, key_of(1)).key
