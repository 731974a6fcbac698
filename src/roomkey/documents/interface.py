"""What interfaces to documents import, from here and nowhere else."""

from roomkey.documents.content import roots
from roomkey.documents.content.json_patch import MAX_OPERATIONS
from roomkey.documents.content.rich import anchors as rich_edits
from roomkey.documents.content.rich import forms as rich
from roomkey.documents.content.roots import MAX_EDITS
from roomkey.documents.content.roots import Kind as RootKind
from roomkey.documents.crdt.authorship import BlameRange
from roomkey.documents.crdt.updates import MAX_VALUE_DEPTH, MalformedUpdate, read_update
from roomkey.documents.service import Condition, DocumentRevision, DocumentService, Written, existing

__all__ = [
    "MAX_EDITS",
    "MAX_OPERATIONS",
    "MAX_VALUE_DEPTH",
    "BlameRange",
    "Condition",
    "DocumentRevision",
    "DocumentService",
    "MalformedUpdate",
    "RootKind",
    "Written",
    "existing",
    "read_update",
    "rich",
    "rich_edits",
    "roots",
]
