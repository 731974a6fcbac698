"""
Every seam to the outside, and the few values that exist only at a seam.

A port states its guarantees once; whoever implements it does not repeat them. Backends raise
``roomkey.errors`` and nothing else.
"""

from roomkey.ports.authentication import Authenticator
from roomkey.ports.documents import (
    Append,
    Author,
    DocumentHead,
    DocumentPage,
    DocumentRecord,
    DocumentStore,
    DocumentTail,
    DocumentUpdate,
    DocumentVersion,
    NewVersion,
    StoredDocument,
    VersionPage,
)
from roomkey.ports.following import Checkpoints, EventConsumer
from roomkey.ports.repair import DamagedRecord, Repairable
from roomkey.ports.rooms import (
    Broker,
    MessageKey,
    Position,
    Publication,
    Published,
    Receiver,
    Recovered,
)
from roomkey.ports.shared import Counters, Leases, OneTime, OneTimeLimits, Rate, SharedState
from roomkey.ports.stores import (
    CHECKSUMMED_RECORDS,
    PLAIN_RECORDS,
    ChecksummedRecords,
    Clock,
    EventLog,
    LoggedEvent,
    NewSession,
    Page,
    PlainRecords,
    RecordCodec,
    RecordKind,
    Revocation,
    Secret,
    SessionPage,
    SessionStorage,
    StorageStatistics,
    SystemClock,
)

__all__ = [
    "CHECKSUMMED_RECORDS",
    "PLAIN_RECORDS",
    "Append",
    "Authenticator",
    "Author",
    "Broker",
    "Checkpoints",
    "ChecksummedRecords",
    "Clock",
    "Counters",
    "DamagedRecord",
    "DocumentHead",
    "DocumentPage",
    "DocumentRecord",
    "DocumentStore",
    "DocumentTail",
    "DocumentUpdate",
    "DocumentVersion",
    "EventConsumer",
    "EventLog",
    "Leases",
    "LoggedEvent",
    "MessageKey",
    "NewSession",
    "NewVersion",
    "OneTime",
    "OneTimeLimits",
    "Page",
    "PlainRecords",
    "Position",
    "Publication",
    "Published",
    "Rate",
    "Receiver",
    "RecordCodec",
    "RecordKind",
    "Recovered",
    "Repairable",
    "Revocation",
    "Secret",
    "SessionPage",
    "SessionStorage",
    "SharedState",
    "StorageStatistics",
    "StoredDocument",
    "SystemClock",
    "VersionPage",
]
