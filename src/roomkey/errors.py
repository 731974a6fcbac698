"""Every error that Roomkey raises: whose fault it is, a stable code, and whether trying again can help."""

import errno
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from msgspec import UNSET, Struct, UnsetType


class RoomkeyError(Exception):
    """
    The root of the tree.

    ``code`` is part of the public contract: it stands in HTTP problems, in ``error`` messages on
    sockets and in close reasons, and never changes its meaning. ``retry`` says whether the same call
    may succeed later without anyone changing it. Messages never contain a secret.
    """

    code: ClassVar[str] = "error"
    retry: ClassVar[bool] = False


class ConfigurationError(RoomkeyError):
    """The operator asked for something that cannot be; ``problems`` lists everything that is wrong."""

    code = "configuration"

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class SessionError(RoomkeyError):
    """Something about a session, or about what keeps it."""

    code = "session_error"


class NotFound(SessionError):
    """There is no such session, or the caller may not know that there is."""

    code = "not_found"


class InvalidState(SessionError):
    """The session's state does not allow this; nothing was changed."""

    code = "invalid_state"


class InvalidInput(SessionError):
    """The caller's value is malformed or beyond a limit; the message says which and why."""

    code = "invalid_input"


class Conflict(SessionError):
    """Someone else changed it first. Load again, decide again, commit again."""

    code = "conflict"
    retry = True


class CurrentRevision(Struct, frozen=True, kw_only=True):
    """A document as it is now: its revision, as its `ETag` has it, and what it says in `format`, a media type."""

    revision: str
    format: str
    content: Any


class VersionMismatch(Conflict):
    """The caller named the version that it had seen, and the session has moved on (RFC 9110, If-Match)."""

    code = "version_mismatch"
    retry = False


class RevisionMismatch(VersionMismatch):
    """The caller has named the revision of a document that it has read, and there is another: ``current``."""

    code = "revision_mismatch"

    def __init__(self, detail: str, current: CurrentRevision) -> None:
        super().__init__(detail)
        self.current = current


class LeaseLost(Conflict):
    """Somebody else has the lease under which this was to be written; nothing was changed."""

    code = "lease_lost"
    retry = False


class CapReached(SessionError):
    """The user has as many live sessions as the policy allows, and the policy is to refuse."""

    code = "cap_reached"


class SessionStopped(SessionError):
    """The session is not usable, now or ever again; ``reason`` says why, in a word that may be shown to its user."""

    def __init__(self, message: str = "", *, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason


class Expired(SessionStopped):
    """The session's time is over; a new one is needed."""

    code = "session_expired"


class Invalidated(SessionStopped):
    """The session was revoked: logged out, evicted, or ended by an operator. It never comes back."""

    code = "session_invalidated"


class Suspended(SessionStopped):
    """The session is suspended; it may be resumed until its absolute deadline (NIST SP 800-63B-4)."""

    code = "session_suspended"


class Storage(SessionError):
    """What keeps the sessions failed or is away. Nothing that was acknowledged is lost."""

    code = "storage"
    retry = True


class OutcomeUnknown(Storage):
    """The connection to the storage broke before it answered: the write was done whole, or not at all. Look first."""

    code = "outcome_unknown"
    retry = False


class Serialization(SessionError):
    """A stored record cannot be read. It is reported, never replaced by an empty one."""

    code = "serialization"


class SecurityViolation(SessionError):
    """The caller did something that an honest client does not do."""

    code = "security_violation"


class InvalidToken(SecurityViolation):
    """No session of ours answers to this token: malformed, forged, or of a deleted session."""

    code = "invalid_token"


class TokenRotated(SecurityViolation):
    """The token has been replaced by a newer one, and opens nothing any more; the session goes on."""

    code = "token_rotated"


class TokenReused(SecurityViolation):
    """A replaced token is used beside the current one by someone else: a theft. The session has been ended."""

    code = "token_reused"


class InvalidProof(InvalidToken):
    """What should prove that the caller has a key does not (RFC 9449, 4.3)."""

    code = "invalid_dpop_proof"

    ALGORITHMS: ClassVar = ("ES256", "EdDSA", "Ed25519")
    """How a proof may be signed. The second and the third are the same for us (RFC 9864)."""


class NonceNeeded(InvalidProof):
    """The proof must be made anew, with ``nonce`` in it (RFC 9449, 8)."""

    code = "use_dpop_nonce"

    def __init__(self, nonce: str) -> None:
        super().__init__("the proof needs the nonce of the server")
        self.nonce = nonce


class HolderUnproven(InvalidToken):
    """The session is bound to a key, and whoever presented its token did not prove to have that."""

    code = "holder_unproven"


class ReauthenticationNeeded(SessionError):
    """This needs a user who proved a short while ago who they are (RFC 9470)."""

    code = "reauthentication_needed"


class KeyRefused(InvalidToken):
    """No API key answers to this token, or not any more: ``key`` is the one that did."""

    def __init__(self, *, key: str | None = None) -> None:
        super().__init__("no API key answers to this token")
        self.key = key


class Forbidden(SessionError):
    """The caller is known and may not do this."""

    code = "forbidden"


class OriginRejected(Forbidden):
    """A cookie came from a page of an origin that is not ours (ASVS 3.5.1)."""

    code = "origin_rejected"


class SessionPending(Forbidden):
    """The session was not activated yet; until then it can do little."""

    code = "session_pending"


class CredentialsMissing(RoomkeyError):
    """This needs a credential, and there was none."""

    code = "credentials_missing"


class IssuerAway(RoomkeyError):
    """The keys of an issuer of tokens cannot be had, so nobody can tell whose tokens are good."""

    code = "issuer_away"
    retry = True


class AccessUnknown(RoomkeyError):
    """The application does not say what a session may do, so nobody is let in whom it has not let in before."""

    code = "access_unknown"
    retry = True


# --- documents ----------------------------------------------------------------------------------------


class DocumentNotFound(NotFound):
    """There is no such document, or no such version of it."""

    code = "document_not_found"


class Overtaken(Conflict):
    """Others have appended to the document first. Read what they wrote, decide again, append again."""

    code = "overtaken"


class DocumentTooLarge(InvalidInput):
    """The document has as many bytes as a document may have."""

    code = "document_too_large"


class SuspiciousInput(InvalidInput):
    """A name or a text looks like an attack on what lies behind: SQL, or active HTML."""

    code = "suspicious_input"


class ForgedUpdate(InvalidInput):
    """An update speaks for a Yjs client that belongs to somebody else."""

    code = "forged_update"


class StorageLost(Storage):
    """Storage has lost a document that is still open here, or is another one: an operator has to decide."""

    code = "storage_lost"


class WritesRefused(Storage):
    """Storage has not answered for so long that no more changes are taken; they would be lost in a crash."""

    code = "storage_behind"


# --- webhooks -----------------------------------------------------------------------------------------


class WebhookNotFound(NotFound):
    """There is no webhook of this name in the configuration."""

    code = "webhook_not_found"


class DeliveryNotFound(NotFound):
    """There is no such delivery, or it is not kept any more."""

    code = "delivery_not_found"


# --- API keys -----------------------------------------------------------------------------------------


class KeyNotFound(NotFound):
    """There is no API key of this name."""

    code = "key_not_found"


class KeyExists(Conflict):
    """There is an API key of this name."""

    code = "key_exists"
    retry = False


class KeyConfigured(Conflict):
    """The API key stands in the configuration, and can be changed only there."""

    code = "key_configured"
    retry = False


class TooManyKeys(Conflict):
    """There are as many API keys as can be stored."""

    code = "too_many_keys"
    retry = False


class GroupNotFound(NotFound):
    """There is no group of this name."""

    code = "group_not_found"


class TooManyGroups(Conflict):
    """There are as many groups as there can be."""

    code = "too_many_groups"
    retry = False


# --- the audit log ------------------------------------------------------------------------------------


class NotPublished(NotFound):
    """The audit log has no checkpoint yet that covers this entry; it will within seconds, if there is such an entry."""

    code = "not_published"
    retry = True


class NotRetained(NotFound):
    """The entry is below what the audit log still shows; its hash stays, and so do receipts."""

    code = "not_retained"

    def __init__(self, message: str, *, first: int = 0) -> None:
        """``first`` is the number of the first entry that is shown, as far as it is known."""
        super().__init__(message)
        self.first = first


class NotProven(SecurityViolation):
    """A signature, a proof or a hash of an audit log does not show what it should."""

    code = "not_proven"


class AuditLogDamaged(Serialization):
    """What the audit log has stored contradicts itself; the message names what, and nothing is signed."""

    code = "audit_log_damaged"


class ContradictingHead(Storage):
    """A head of the audit log would contradict one that was signed before; the message says what to do."""

    code = "contradicting_head"
    retry = False


class AuditBehind(Storage):
    """What has to be recorded cannot be: the audit log is away or full, or does not keep up. Nothing was done."""

    code = "audit_behind"


# --- requests -----------------------------------------------------------------------------------------


class MalformedRequest(RoomkeyError):
    """What arrived is not HTTP, JSON or a header value as their standards have it."""

    code = "malformed_request"


class Flaw(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is wrong with the input: where it is (RFC 6901 pointer, or parameter), and what it is."""

    detail: str
    pointer: str | UnsetType = UNSET
    parameter: str | UnsetType = UNSET


class SchemaViolation(InvalidInput):
    """The input is well formed and not what the contract says; ``flaws`` says where."""

    def __init__(self, *flaws: Flaw) -> None:
        super().__init__("the request does not match its schema")
        self.flaws = flaws


class UnknownCursor(NotFound):
    """There is no such page: the cursor was not issued for this list."""

    code = "unknown_cursor"


class MethodNotAllowed(RoomkeyError):
    """The resource exists and does not do this. ``allow`` says what it does."""

    code = "method_not_allowed"

    def __init__(self, allow: str) -> None:
        super().__init__(f"this resource allows {allow}")
        self.allow = allow


class RequestTimeout(RoomkeyError):
    """The body did not arrive in time."""

    code = "request_timeout"
    retry = True


class BodyTooLarge(RoomkeyError):
    """The body is longer than is accepted here; it was not read to its end."""

    code = "too_large"


class UnsupportedMediaType(RoomkeyError):
    """The body is not of a type that is understood here; ``accept`` lists those that are."""

    code = "unsupported_media_type"

    def __init__(self, message: str, accept: Sequence[str] = ("application/json",)) -> None:
        super().__init__(message)
        self.accept = accept


class NotAcceptable(RoomkeyError):
    """What was asked for does not come in any form that the caller wants."""

    code = "not_acceptable"


class IdempotencyKeyReused(RoomkeyError):
    """An Idempotency-Key came a second time, with another request."""

    code = "idempotency_key_reused"


class RequestInProgress(RoomkeyError):
    """The request with this Idempotency-Key has not been answered yet."""

    code = "request_in_progress"
    retry = True


class RateLimited(RoomkeyError):
    """The caller asks too often; there is room again in ``wait`` seconds."""

    code = "rate_limited"
    retry = True

    def __init__(self, message: str = "", *, wait: float = 1.0) -> None:
        super().__init__(message)
        self.wait = wait


class Overloaded(RoomkeyError):
    """The server has as much to do, or to hold, as it may."""

    code = "overloaded"
    retry = True


class Draining(RoomkeyError):
    """The server is about to stop."""

    code = "draining"
    retry = True


class Internal(RoomkeyError):
    """A mistake of ours."""

    code = "internal"


def explain(error: OSError) -> str:
    """What the system refused, in a few words, and what the operator can do about it."""
    # Where a directory is needed, something else exists.
    number = errno.ENOTDIR if error.errno == errno.EEXIST else error.errno
    return os.strerror(number).lower() + advice_on(number) if number else str(error)


def advice_on(number: int) -> str:
    """What the operator can do about an ``errno``, to be added to what it means; empty if that is not known."""
    return f"; {_ADVICE[number]}" if number in _ADVICE else ""


_ADVICE: Final[Mapping[int, str]] = {
    errno.EACCES: "give it to the user that runs Roomkey",
    errno.EPERM: "give it to the user that runs Roomkey",
    errno.EROFS: "choose a place that can be written",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EMFILE: "raise the limit, as in `ulimit -n 4096`",
    errno.ENOTDIR: "choose another place",
    errno.ELOOP: "choose another place",
    errno.ENAMETOOLONG: "choose another place",
    errno.EISDIR: "choose a file",
}
