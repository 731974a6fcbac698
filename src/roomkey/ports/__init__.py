"""
Every seam to the outside, and the few values that exist only at a seam.

A port states its guarantees once; whoever implements it does not repeat them. Backends raise
``roomkey.errors`` and nothing else.
"""

from roomkey.ports.authentication import Authenticator
from roomkey.ports.following import Checkpoints, EventConsumer
from roomkey.ports.shared import Counters, Leases, OneTime, OneTimeLimits, Rate
from roomkey.ports.stores import (
    Author,
    Clock,
    DocumentPage,
    DocumentRecord,
    DocumentStore,
    DocumentUpdate,
    DocumentVersion,
    EventLog,
    LoggedEvent,
    NewSession,
    NewVersion,
    Page,
    Revocation,
    Secret,
    SessionPage,
    SessionStorage,
    StorageStatistics,
    StoredDocument,
    SystemClock,
    VersionPage,
)

__all__ = [
    "Authenticator",
    "Author",
    "Checkpoints",
    "Clock",
    "Counters",
    "DocumentPage",
    "DocumentRecord",
    "DocumentStore",
    "DocumentUpdate",
    "DocumentVersion",
    "EventConsumer",
    "EventLog",
    "Leases",
    "LoggedEvent",
    "NewSession",
    "NewVersion",
    "OneTime",
    "OneTimeLimits",
    "Page",
    "Rate",
    "Revocation",
    "Secret",
    "SessionPage",
    "SessionStorage",
    "StorageStatistics",
    "StoredDocument",
    "SystemClock",
    "VersionPage",
]
