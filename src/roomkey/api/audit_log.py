"""The audit log as files that outsiders can verify (C2SP tlog-tiles), and receipts for single entries."""

from typing import Final

from msgspec import Struct

from roomkey.api.http_messages import NO_STORE, Headers, Reply, json_reply
from roomkey.api.operations import Answer, Request, operation
from roomkey.audit import proofs
from roomkey.audit.tiles import file_at
from roomkey.errors import NotFound, NotPublished, NotRetained
from roomkey.security.authorization import Action

TEXT: Final = "text/plain"
BYTES: Final = "application/octet-stream"

NEVER_CHANGES: Final = "max-age=31536000, immutable"

INDEX_DIGITS: Final = 18
"""More than a log will ever have entries."""


class AuditKeysBody(Struct):
    """The keys that sign the checkpoints of the audit log, the current one first, as `name+id+key`."""

    origin: str
    keys: list[str]


@operation(
    "Checkpoint of the audit log",
    tag="Audit log",
    action=Action.READ_AUDIT_TREE,
    answers={200: Answer("The signed head.", media=(TEXT,))},
    errors=(NotFound, NotPublished),
)
async def get_checkpoint(request: Request) -> Reply:
    """How many entries the log has and the root of its tree, signed: a C2SP tlog-checkpoint."""
    return _text(str(await request.audit.checkpoint()))


@operation(
    "Hashes of the audit log",
    tag="Audit log",
    action=Action.READ_AUDIT_TREE,
    answers={200: Answer("The hashes.", media=(BYTES,))},
    errors=(NotFound,),
)
async def get_tile(request: Request) -> Reply:
    """Up to 256 hashes of one level of the tree, 32 bytes each. `file` is `<L>/<N>[.p/<W>]` of C2SP tlog-tiles."""
    file = file_at(f"tile/{request.path('file')}")
    if file is None or file.has_entries:
        raise NotFound("there is no such tile")
    content = await request.audit.tile(file.tile.level, file.tile.number, file.width)
    return Reply(200, content, _lasting("public" if request.rule.is_public else "private"))


@operation(
    "Entries of the audit log",
    tag="Audit log",
    action=Action.READ_AUDIT_ENTRIES,
    answers={200: Answer("The entries.", media=(BYTES,))},
    errors=(NotFound, NotRetained),
)
async def get_entries(request: Request) -> Reply:
    """Up to 256 entries, each behind its length in two bytes. `file` is `<N>[.p/<W>]` of C2SP tlog-tiles."""
    file = file_at(f"tile/entries/{request.path('file')}")
    if file is None:
        raise NotFound("there are no such entries")
    return Reply(200, await request.audit.bundle(file.tile.number, file.width), _lasting("private"))


@operation(
    "Receipt for an entry",
    tag="Audit log",
    action=Action.READ_AUDIT_ENTRIES,
    answers={200: Answer("The receipt.", media=(TEXT,))},
    errors=(NotFound, NotPublished),
)
async def get_receipt(request: Request) -> Reply:
    """
    A C2SP tlog-proof that the entry is in the log, which anybody can verify without asking us, with the entry in it.

    An entry that was recorded within the last second may have none yet: ask again.
    """
    index = request.path("index")
    if not (index.isascii() and index.isdecimal() and len(index) <= INDEX_DIGITS):
        raise NotFound("there is no such entry")
    return _text(str(await request.audit.receipt(int(index))))


@operation(
    "Keys of the audit log",
    tag="Audit log",
    action=Action.READ_AUDIT_TREE,
    answers={200: Answer("The keys.", AuditKeysBody)},
)
async def get_keys(request: Request) -> Reply:
    """The verifier keys of the log. Whoever is to be convinced by them gets them on another way, too."""
    keys = request.audit.keys
    return json_reply(AuditKeysBody(origin=keys[0].name, keys=[str(key) for key in keys]))


def _text(content: str) -> Reply:
    return Reply(200, content.encode(), [(b"content-type", proofs.MEDIA_TYPE.encode()), NO_STORE])


def _lasting(who: str) -> Headers:
    return [(b"content-type", BYTES.encode()), (b"cache-control", f"{who}, {NEVER_CHANGES}".encode())]
