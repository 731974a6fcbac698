"""Which operations are recorded in the audit log, of whom, and which are refused while it cannot be written."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct, to_builtins

from roomkey.api.authentication import address_of
from roomkey.api.http_messages import Reply
from roomkey.audit.records import AuditRecord, Outcome
from roomkey.audit.trail import AuditTrail
from roomkey.security.authorization import STRANGER, Action, Caller, CallerKind
from roomkey.security.csrf import SAFE_METHODS

if TYPE_CHECKING:
    from roomkey.api.operations import Operation, Request

OF_EVERYBODY: Final[Mapping[str, str]] = {
    "delete_document": "document.deleted",
    "restore_version": "document.restored",
    "export_document": "document.exported",
    "import_document": "document.imported",
    "keep_version": "document.version_kept",
    "disconnect_from_document": "document.session_disconnected",
    "disconnect_everybody": "document.everybody_disconnected",
}
"""Operations that are recorded whoever asks for them, and as what."""

NOT_RECORDED: Final = frozenset({"create_session", "exchange_token", "put_document", "patch_document", "create_ticket"})
"""
Commands that are not recorded. A new session is a fact of the event log, which is recorded, with its device; edits
are in the history of the document.
"""

FILES_OF_LOG: Final = frozenset({"get_tile", "get_checkpoint", "get_keys", "get_entries"})
"""Reads of the audit log as it is stored: persons are sealed in it, and whoever verifies it makes thousands of them."""

NEW_SESSIONS: Final = frozenset({"create_session", "exchange_token", "batch", "login"})
"""What is refused although it is recorded from the event log only."""

_DISCONNECTIONS: Final = ("disconnect_session", "disconnect_from_document", "disconnect_everybody")

ENDINGS: Final = frozenset({"suspend", "expire", "invalidate", "delete_session", "revoke_user", *_DISCONNECTIONS})
"""What takes access away."""

NO_VIEWS: Final = frozenset({Action.SEE_PUBLIC, Action.SEE_HEALTH, Action.SEE_FIGURES})
"""Reads of what belongs to nobody."""

SEARCH: Final = "search_audit"
ONE_SEARCH: Final = timedelta(minutes=1)
"""How often it is recorded that somebody searches the log for the same."""

MAX_SEARCHES: Final = 1_000

PREFERENCE: Final = "audit-receipt"
"""Who says that it prefers this (RFC 7240) gets the proof that the command is in the audit log with its answer."""

MAX_REQUEST_ID: Final = 128
MAX_AGENT: Final = 512


class ReceiptBody(Struct, frozen=True):
    """
    Where the command is in the audit log.

    `receipt` is a C2SP tlog-proof: whoever has the log's public key can verify it without asking us. It is null if the
    log was not published in time: auditors find it later. So is `index` if nothing could be written in time.
    """

    index: int | None
    receipt: str | None


class Auditing:
    """What the interface does for the audit log around each operation."""

    def __init__(self, trail: AuditTrail) -> None:
        self.trail = trail
        self._reading: dict[tuple[object, ...], datetime] = {}
        """Who searches the log for what, and when that was recorded last."""

    def check(self, request: "Request", operation: "Operation") -> None:
        """
        Raise if the operation has to be recorded and cannot be.

        Raises:
            AuditBehind: If so.
        """
        if operation.name in NEW_SESSIONS or self._obligatory(request, operation) is not None:
            if operation.name in ENDINGS and self.trail.settings.end_sessions_when_behind:
                return
            self.trail.check()

    async def performed(self, request: "Request", operation: "Operation", reply: Reply) -> Reply:
        """Record what was done, if it is recorded; the reply with its receipt, if that was asked for."""
        type = self._type(request, operation)
        if type is None or _is_repeated(reply):
            return reply
        record = _record(request, type, reply)
        if operation.name == SEARCH and self._reads_on(record):
            return reply
        if not _wants_receipt(request):
            self.trail.record(record)
            return reply
        return _with_receipt(reply, ReceiptBody(*await self.trail.proven(record)))

    def unknown(self, request: "Request", operation: "Operation") -> None:
        """Record that it is not known whether it was done."""
        type = self._type(request, operation)
        if type is not None:
            self.trail.record(_record(request, type, None, Outcome.UNKNOWN))

    def _reads_on(self, record: AuditRecord) -> bool:
        """Whether it is the next page of a search that was recorded: otherwise whoever follows the log lengthens it."""
        conditions = {name: value for name, value in (record.details or {}).items() if name != "limit"}
        search = (record.actor, record.address, repr(conditions))
        recorded = self._reading.get(search)
        if recorded is not None and record.at - recorded < ONE_SEARCH:
            return True
        if len(self._reading) >= MAX_SEARCHES:
            self._reading.clear()
        self._reading[search] = record.at
        return False

    def _type(self, request: "Request", operation: "Operation") -> str | None:
        """As what the operation is recorded; ``None`` if it is not."""
        obligatory = self._obligatory(request, operation)
        if obligatory is not None or not _wants_receipt(request) or request.scope["method"] in SAFE_METHODS:
            return obligatory
        return None if operation.name in NOT_RECORDED else f"command.{operation.name}"

    def _obligatory(self, request: "Request", operation: "Operation") -> str | None:
        """As what it must be recorded, whether or not anybody wants a receipt."""
        if (recorded := OF_EVERYBODY.get(operation.name)) is not None:
            return recorded
        caller = request.caller
        if not _is_operator(caller, operation) or operation.name in NOT_RECORDED | FILES_OF_LOG:
            return None
        if request.scope["method"] not in SAFE_METHODS:
            return f"command.{operation.name}"
        views = self.trail.settings.service_views or caller.kind is not CallerKind.SERVICE
        return f"view.{operation.name}" if views else None


def _is_operator(caller: Caller, operation: "Operation") -> bool:
    """Whether the caller has an API key, and does something with it that concerns others."""
    return caller.session is None and caller is not STRANGER and operation.action not in NO_VIEWS


def _is_repeated(reply: Reply) -> bool:
    """Whether it is the answer to an earlier request with the same idempotency key: nothing was done."""
    return any(name == b"idempotent-replayed" for name, _ in reply.headers)


def _wants_receipt(request: "Request") -> bool:
    preferences = request.headers.get("prefer")
    return preferences is not None and any(each.strip().lower() == PREFERENCE for each in preferences.split(","))


class _Named(Struct):
    """What an answer says about whom it is about."""

    user_id: str | None = None


_named: Final = msgspec.json.Decoder(_Named)


def _record(request: "Request", type: str, reply: Reply | None, outcome: Outcome = Outcome.DONE) -> AuditRecord:
    path: Mapping[str, str] = request.scope["path_params"]
    caller, own = request.caller, request.caller.session
    document = path.get("name")
    number = path.get("number")
    return AuditRecord(
        type=type,
        at=request.sessions.clock.now(),
        actor=caller.actor,
        outcome=outcome,
        user=path.get("user_id") or _user(request, reply) or (None if own is None else own.user_id),
        session=path.get("id") or (None if own is None else own.id),
        address=address_of(request.scope),
        agent=request.headers.get("user-agent", "")[:MAX_AGENT] or None,
        object=document if number is None else f"{document}@{number}",
        request=request.headers.get("x-request-id", "")[:MAX_REQUEST_ID] or None,
        details=_asked_for(request),
    )


def _user(request: "Request", reply: Reply | None) -> str | None:
    """Whom the query or the answer names."""
    asked = getattr(request.query, "user_id", None)
    if asked is not None or reply is None or not reply.body.startswith(b"{"):
        return asked
    try:
        return _named.decode(reply.body).user_id
    except msgspec.DecodeError:
        return None


def _asked_for(request: "Request") -> Mapping[str, Any] | None:
    if request.query is None:
        return None
    query: Mapping[str, Any] = to_builtins(request.query)
    return {name: value for name, value in query.items() if value is not None and name != "cursor"} or None


def _with_receipt(reply: Reply, receipt: ReceiptBody) -> Reply:
    headers = [*reply.headers, (b"preference-applied", PREFERENCE.encode())]
    if receipt.index is not None:
        headers.append((b"audit-index", str(receipt.index).encode()))
    if not reply.body.startswith(b"{"):
        return Reply(reply.status, reply.body, headers)
    body = msgspec.json.decode(reply.body, type=dict[str, msgspec.Raw])
    return Reply(reply.status, msgspec.json.encode({**body, "audit": receipt}), headers)
