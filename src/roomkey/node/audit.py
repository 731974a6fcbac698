"""The audit log of a node, and what is recorded in it."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from secrets import token_bytes
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from roomkey.audit.log import AuditLog
from roomkey.audit.opening import open_log
from roomkey.audit.records import AuditRecord
from roomkey.audit.remembered import REMEMBERED_HEAD
from roomkey.audit.trail import AuditTrail
from roomkey.backends import Stores
from roomkey.config import Config, describe
from roomkey.encryption.subjects import SubjectKeys
from roomkey.ports import Clock, EventLog, Leases, ObjectStore
from roomkey.security import masterkey
from roomkey.security.events import SecurityEvents, SecurityEventType

if TYPE_CHECKING:
    from roomkey.backends.lmdb.leases import FileSystemLeases

LEASES_FOLDER: Final = "leases"
"""Where in the directory of a storage on this machine its processes agree who does what must be done once."""


class NodeAudit:
    """The log that outsiders can check, and the trail: what is recorded in it, ``None`` where nothing is."""

    def __init__(  # noqa: PLR0913  # what a node has already, each a part of its own
        self,
        config: Config,
        stores: Stores,
        *,
        master: bytes | None,
        objects: ObjectStore,
        leases: Leases,
        sessions: EventLog,
        naming: Callable[[str], str],
        events: SecurityEvents,
        clock: Clock,
        node: str,
    ) -> None:
        """
        Args:
            master: What signs is derived from it; without it the key ends with the process.
            objects: Where the log is, unless the configuration says otherwise, and the keys of persons.
            sessions: The events that are recorded.
            naming: How users are called where they must be found, see ``encryption``.
        """
        url = config.audit.url
        self._config = config
        self._clock = clock
        self._events = events
        self._main = objects
        self._objects = objects if url == "same" else stores.objects(config.storage.location_of(url))
        self._own_leases = self._of_folder()
        self.log = self._open_log(master, leases, node)
        self.trail = None
        if self._is_recorded:
            self.trail = AuditTrail(
                self.log,
                self._objects,
                SubjectKeys(objects, clock, str),
                naming=naming,
                settings=config.audit,
                events=sessions,
                leases=self._own_leases or leases,
                clock=clock,
                node=node,
            )

    @property
    def _is_recorded(self) -> bool:
        record = self._config.audit.record
        return record != "off" and not (record == "auto" and self._config.storage.is_volatile)

    def _of_folder(self) -> "FileSystemLeases | None":
        """Of processes on one directory one records the events of sessions, too."""
        folder = self._config.storage.folder
        if folder is None or not self._is_recorded:
            return None
        from roomkey.backends.lmdb.leases import FileSystemLeases  # noqa: PLC0415  # nobody else needs the driver

        return FileSystemLeases(folder / LEASES_FOLDER, clock=self._clock)

    def _open_log(self, master: bytes | None, leases: Leases, node: str) -> AuditLog:
        secret, settings, folder = master or token_bytes(32), self._config.audit, self._config.storage.folder
        if settings.remembered_head is None and folder is not None:
            settings = replace(settings, remembered_head=folder / REMEMBERED_HEAD)
        return open_log(
            self._objects,
            leases,
            key_of=lambda number: masterkey.derive(secret, f"audit log {number}"),
            node=node,
            clock=self._clock,
            settings=settings,
            alarm=lambda code, details: self._events.report(SecurityEventType.AUDIT_GAP, code, details=details),
        )

    @property
    def is_behind(self) -> bool:
        """Whether what has to be recorded cannot be."""
        return self.trail is not None and self.trail.is_behind

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        """What is done is recorded until this is left."""
        async with AsyncExitStack() as stack:
            if self._objects is not self._main:
                await stack.enter_async_context(self._objects)
            if self._own_leases is not None:
                await stack.enter_async_context(self._own_leases)
            if self.trail is not None:
                await stack.enter_async_context(self.trail.at_work(self._events))
            yield

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """It is recorded that the node starts, with which settings, and that it stops."""
        self._record("node.started", _configured(self._config))
        yield
        self._record("node.stopped")

    def _record(self, type: str, details: Mapping[str, str] | None = None) -> None:
        if self.trail is not None:
            self.trail.record(AuditRecord(type=type, at=self._clock.now(), details=details))


def _configured(config: Config) -> Mapping[str, str]:
    """The settings that are not the defaults, as they may be shown."""
    return {setting.name: setting.value for setting in describe(config) if setting.source != "default"}
