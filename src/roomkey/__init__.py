"""
Session management for real-time collaborative editing: a library, a server and a command line.

The public names. Each is loaded when it is first used, so that importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roomkey import errors as errors
    from roomkey.api.current_session import current_session as current_session
    from roomkey.api.current_session import provide_current_session as provide_current_session
    from roomkey.api.document_schemas import AnchoredEdit as AnchoredEdit
    from roomkey.api.document_schemas import TextEdit as TextEdit
    from roomkey.api.in_process import DocumentContent as DocumentContent
    from roomkey.api.in_process import RichContent as RichContent
    from roomkey.api.in_process import RoomDocuments as RoomDocuments
    from roomkey.api.middleware import SecurityConfig as SecurityConfig
    from roomkey.api.middleware import SessionSecurityMiddleware as SessionSecurityMiddleware
    from roomkey.backends import open_documents as open_documents
    from roomkey.backends import open_storage as open_storage
    from roomkey.backends.lmdb import FileSystemSessionStorage as FileSystemSessionStorage
    from roomkey.backends.lmdb.documents import FileSystemDocumentStore as FileSystemDocumentStore
    from roomkey.backends.memory import MemorySessionStorage as MemorySessionStorage
    from roomkey.backends.memory.documents import MemoryDocumentStore as MemoryDocumentStore
    from roomkey.domain.access import Access as Access
    from roomkey.domain.access import Grant as Grant
    from roomkey.domain.policy import SessionPolicy as SessionPolicy
    from roomkey.domain.session import Client as Client
    from roomkey.domain.session import IssuedSession as IssuedSession
    from roomkey.domain.session import Session as Session
    from roomkey.domain.session import SessionFilter as SessionFilter
    from roomkey.domain.session import SessionId as SessionId
    from roomkey.domain.session import SessionState as SessionState
    from roomkey.hooks.events import DocumentChanged as DocumentChanged
    from roomkey.hooks.events import DocumentCreated as DocumentCreated
    from roomkey.hooks.events import DocumentDeleted as DocumentDeleted
    from roomkey.hooks.events import DocumentEntered as DocumentEntered
    from roomkey.hooks.events import DocumentEvent as DocumentEvent
    from roomkey.hooks.events import DocumentLeft as DocumentLeft
    from roomkey.hooks.events import DocumentSaved as DocumentSaved
    from roomkey.hooks.events import HookEvent as HookEvent
    from roomkey.hooks.events import SessionEnded as SessionEnded
    from roomkey.hooks.events import VersionKept as VersionKept
    from roomkey.mount import RoomkeyApp as RoomkeyApp
    from roomkey.mount import asgi as asgi
    from roomkey.ports import DocumentStore as DocumentStore
    from roomkey.ports import Page as Page
    from roomkey.ports import SessionPage as SessionPage
    from roomkey.ports import SessionStorage as SessionStorage
    from roomkey.realtime.endpoint import SessionWebSocketHandler as SessionWebSocketHandler
    from roomkey.realtime.protocol.json_messages import WebSocketMessage as WebSocketMessage
    from roomkey.sessions.manager import SessionManager as SessionManager
    from roomkey.sessions.queries import HealthStatus as HealthStatus
    from roomkey.sessions.queries import SessionMetrics as SessionMetrics

    __version__: str

_HOMES = {
    "roomkey.api.current_session": ("current_session", "provide_current_session"),
    "roomkey.api.document_schemas": ("AnchoredEdit", "TextEdit"),
    "roomkey.api.in_process": ("DocumentContent", "RichContent", "RoomDocuments"),
    "roomkey.api.middleware": ("SecurityConfig", "SessionSecurityMiddleware"),
    "roomkey.backends": ("open_documents", "open_storage"),
    "roomkey.backends.lmdb": ("FileSystemSessionStorage",),
    "roomkey.backends.lmdb.documents": ("FileSystemDocumentStore",),
    "roomkey.backends.memory": ("MemorySessionStorage",),
    "roomkey.backends.memory.documents": ("MemoryDocumentStore",),
    "roomkey.domain.access": ("Access", "Grant"),
    "roomkey.domain.policy": ("SessionPolicy",),
    "roomkey.domain.session": ("Client", "IssuedSession", "Session", "SessionFilter", "SessionId", "SessionState"),
    "roomkey.hooks.events": (
        "DocumentChanged",
        "DocumentCreated",
        "DocumentDeleted",
        "DocumentEntered",
        "DocumentEvent",
        "DocumentLeft",
        "DocumentSaved",
        "HookEvent",
        "SessionEnded",
        "VersionKept",
    ),
    "roomkey.mount": ("RoomkeyApp", "asgi"),
    "roomkey.ports": ("DocumentStore", "Page", "SessionPage", "SessionStorage"),
    "roomkey.realtime.protocol.json_messages": ("WebSocketMessage",),
    "roomkey.realtime.endpoint": ("SessionWebSocketHandler",),
    "roomkey.sessions.manager": ("SessionManager",),
    "roomkey.sessions.queries": ("HealthStatus", "SessionMetrics"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]  # each name is loaded when it is asked for
    "Access",
    "Client",
    "DocumentChanged",
    "DocumentContent",
    "DocumentCreated",
    "DocumentDeleted",
    "DocumentEntered",
    "DocumentEvent",
    "DocumentLeft",
    "DocumentSaved",
    "DocumentStore",
    "FileSystemDocumentStore",
    "FileSystemSessionStorage",
    "Grant",
    "HealthStatus",
    "HookEvent",
    "IssuedSession",
    "MemoryDocumentStore",
    "MemorySessionStorage",
    "Page",
    "RichContent",
    "RoomDocuments",
    "RoomkeyApp",
    "SecurityConfig",
    "Session",
    "SessionEnded",
    "SessionFilter",
    "SessionId",
    "SessionManager",
    "SessionMetrics",
    "SessionPage",
    "SessionPolicy",
    "SessionSecurityMiddleware",
    "SessionState",
    "SessionStorage",
    "SessionWebSocketHandler",
    "TextEdit",
    "VersionKept",
    "WebSocketMessage",
    "__version__",
    "asgi",
    "current_session",
    "errors",
    "open_documents",
    "open_storage",
    "provide_current_session",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        value = getattr(import_module(_HOME_OF[name]), name)
    elif name == "errors":
        value = import_module("roomkey.errors")
    elif name == "__version__":
        value = import_module("importlib.metadata").version("roomkey")
    else:
        raise AttributeError(f"module 'roomkey' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
