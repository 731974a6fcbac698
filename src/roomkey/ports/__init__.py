"""
Every seam to the outside, and the few values that exist only at a seam.

A port states its guarantees once; whoever implements it does not repeat them. Backends raise
``roomkey.errors`` and nothing else.
"""

from roomkey.ports.authentication import Authenticator
from roomkey.ports.rooms import (
    Broker,
    MessageKey,
    Position,
    Publication,
    Published,
    Receiver,
    Recovered,
)
from roomkey.ports.stores import (
    Author,
    Clock,
    DocumentPage,
    DocumentRecord,
    DocumentStore,
    DocumentTail,
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
    "Broker",
    "Clock",
    "DocumentPage",
    "DocumentRecord",
    "DocumentStore",
    "DocumentTail",
    "DocumentUpdate",
    "DocumentVersion",
    "EventLog",
    "LoggedEvent",
    "MessageKey",
    "NewSession",
    "NewVersion",
    "Page",
    "Position",
    "Publication",
    "Published",
    "Receiver",
    "Recovered",
    "Revocation",
    "Secret",
    "SessionPage",
    "SessionStorage",
    "StorageStatistics",
    "StoredDocument",
    "SystemClock",
    "VersionPage",
]
