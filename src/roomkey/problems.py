"""
Every error as outsiders see it: one table from errors to statuses and close codes, and RFC 9457 bodies.

REST, handshakes and sockets read the same table. An error that is not listed is shown as its nearest ancestor.
"""

from collections.abc import Sequence
from http import HTTPStatus
from math import ceil
from typing import Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from roomkey import errors
from roomkey.errors import CurrentRevision, Flaw, RoomkeyError
from roomkey.wire.close import CLOSE_CODES, CloseCode, CloseReason

MEDIA_TYPE: Final = "application/problem+json"

Headers = tuple[tuple[str, str], ...]

CHALLENGE: Final[Headers] = (("www-authenticate", 'Bearer realm="roomkey"'),)
"""RFC 6750, section 3: a request without credentials learns the scheme and nothing else."""

_REJECTED: Final[Headers] = (("www-authenticate", 'Bearer realm="roomkey", error="invalid_token"'),)
_ALGORITHMS: Final = f'algs="{" ".join(errors.InvalidProof.ALGORITHMS)}"'  # RFC 9449, 7.1
_UNPROVEN: Final[Headers] = (("www-authenticate", f'DPoP realm="roomkey", error="invalid_token", {_ALGORITHMS}'),)
_BAD_PROOF: Final[Headers] = (("www-authenticate", f'DPoP realm="roomkey", error="invalid_dpop_proof", {_ALGORITHMS}'),)
_NONCE: Final[Headers] = (("www-authenticate", 'DPoP realm="roomkey", error="use_dpop_nonce"'),)
_STEP_UP: Final[Headers] = (("www-authenticate", 'Bearer realm="roomkey", error="insufficient_user_authentication"'),)
_SOON: Final[Headers] = (("retry-after", "1"),)
_LAST: Final[Headers] = (("connection", "close"),)


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What went wrong, as RFC 9457 says it.

    Go by `code`: it never changes its meaning. `detail` is for people. `current` is what a document says now whose
    revision was not the expected one. `instance` stands in the log of the
    server beside the cause of an internal error.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str | UnsetType = UNSET
    errors: Sequence[Flaw] | UnsetType = UNSET
    current: CurrentRevision | UnsetType = UNSET


class Presentation(Struct, frozen=True):
    """
    How an error is shown. The details of our own failures stay in the log.

    ``close_reason`` is what a socket is told that is closed because of it. ``refresh_fault`` is what a socket is told
    whose new token is refused because of it, as an error code of ``/ws``.
    """

    status: int
    title: str
    headers: Headers = ()
    hides_detail: bool = False
    close_reason: CloseReason | None = None
    refresh_fault: str = "SERVER_ERROR"

    @property
    def close_code(self) -> CloseCode:
        """The code with which a socket is closed because of it."""
        return CloseCode.UNAUTHENTICATED if self.close_reason is None else CLOSE_CODES[self.close_reason]


PRESENTATIONS: Final[dict[type[RoomkeyError], Presentation]] = {
    errors.MalformedRequest: Presentation(400, "Malformed request"),
    errors.CredentialsMissing: Presentation(
        401, "A credential is needed", CHALLENGE, close_reason=CloseReason.CREDENTIALS_MISSING
    ),
    errors.InvalidToken: Presentation(
        401,
        "The credential is not valid",
        _REJECTED,
        close_reason=CloseReason.INVALID_TOKEN,
        refresh_fault="UNAUTHORIZED",
    ),
    errors.InvalidProof: Presentation(
        401,
        "The proof of possession is not valid",
        _BAD_PROOF,
        close_reason=CloseReason.INVALID_TOKEN,
        refresh_fault="UNAUTHORIZED",
    ),
    errors.NonceNeeded: Presentation(
        401,
        "The proof of possession needs the nonce of the server",
        _NONCE,
        close_reason=CloseReason.INVALID_TOKEN,
        refresh_fault="UNAUTHORIZED",
    ),
    errors.HolderUnproven: Presentation(
        401,
        "The session is bound to a key",
        _UNPROVEN,
        close_reason=CloseReason.INVALID_TOKEN,
        refresh_fault="UNAUTHORIZED",
    ),
    errors.ReauthenticationNeeded: Presentation(401, "The user must prove again who they are", _STEP_UP),
    errors.TokenRotated: Presentation(
        401,
        "The token was replaced by a newer one",
        _REJECTED,
        close_reason=CloseReason.TOKEN_ROTATED,
        refresh_fault="UNAUTHORIZED",
    ),
    errors.TokenReused: Presentation(
        401,
        "The token was stolen, and its session has been ended",
        _REJECTED,
        close_reason=CloseReason.TOKEN_REUSED,
        refresh_fault="UNAUTHORIZED",
    ),
    errors.Suspended: Presentation(
        401,
        "The session is suspended",
        _REJECTED,
        close_reason=CloseReason.SESSION_SUSPENDED,
        refresh_fault="INVALID_SESSION",
    ),
    errors.Forbidden: Presentation(403, "Not allowed", close_reason=CloseReason.FORBIDDEN),
    errors.SecurityViolation: Presentation(403, "Not allowed", refresh_fault="UNAUTHORIZED"),
    errors.OriginRejected: Presentation(403, "The request came from a foreign origin"),
    errors.SessionPending: Presentation(403, "The session is not active yet", close_reason=CloseReason.SESSION_PENDING),
    errors.NotFound: Presentation(404, "Not found"),
    errors.DocumentNotFound: Presentation(404, "There is no such document"),
    errors.NotPublished: Presentation(404, "Not published yet", _SOON),
    errors.NotRetained: Presentation(404, "Not shown any more"),
    errors.UnknownCursor: Presentation(404, "There is no such page"),
    errors.WebhookNotFound: Presentation(404, "There is no such webhook"),
    errors.DeliveryNotFound: Presentation(404, "There is no such delivery"),
    errors.KeyNotFound: Presentation(404, "There is no such API key"),
    errors.GroupNotFound: Presentation(404, "There is no such group"),
    errors.MethodNotAllowed: Presentation(405, "Method not allowed"),
    errors.NotAcceptable: Presentation(406, "Not in such a form"),
    errors.RequestTimeout: Presentation(408, "The request took too long", _LAST),
    errors.Conflict: Presentation(409, "Someone else was faster"),
    errors.Overtaken: Presentation(409, "Others change the document all the time", _SOON),
    errors.InvalidState: Presentation(409, "The session's state does not allow this"),
    errors.CapReached: Presentation(409, "The user has too many sessions"),
    errors.KeyExists: Presentation(409, "There is such an API key"),
    errors.KeyConfigured: Presentation(409, "The API key stands in the configuration"),
    errors.TooManyKeys: Presentation(409, "There are too many API keys"),
    errors.TooManyGroups: Presentation(409, "There are too many groups"),
    errors.RequestInProgress: Presentation(409, "The first request is still being answered", _SOON),
    errors.Expired: Presentation(
        410, "The session's time is over", close_reason=CloseReason.SESSION_EXPIRED, refresh_fault="INVALID_SESSION"
    ),
    errors.Invalidated: Presentation(
        410, "The session was ended", close_reason=CloseReason.SESSION_INVALIDATED, refresh_fault="INVALID_SESSION"
    ),
    errors.VersionMismatch: Presentation(412, "It has changed"),
    errors.RevisionMismatch: Presentation(412, "The document has changed"),
    errors.BodyTooLarge: Presentation(413, "The body is too large", _LAST),
    errors.DocumentTooLarge: Presentation(413, "The document is too large"),
    errors.UnsupportedMediaType: Presentation(415, "Unsupported media type"),
    errors.InvalidInput: Presentation(422, "The input is not valid"),
    errors.NotProven: Presentation(422, "Nothing is proven"),
    errors.SuspiciousInput: Presentation(422, "The input looks like an attack"),
    errors.ForgedUpdate: Presentation(422, "The update speaks for somebody else"),
    errors.IdempotencyKeyReused: Presentation(422, "The idempotency key belongs to another request"),
    errors.RateLimited: Presentation(429, "Too many requests", refresh_fault="RATE_LIMITED"),
    errors.Internal: Presentation(500, "Internal error", hides_detail=True),
    errors.Serialization: Presentation(500, "A stored record cannot be read", hides_detail=True),
    errors.AuditLogDamaged: Presentation(500, "The audit log is damaged", hides_detail=True),
    errors.ContradictingHead: Presentation(503, "The audit log would contradict itself", hides_detail=True),
    errors.Storage: Presentation(
        503, "The storage is not available", _SOON, hides_detail=True, close_reason=CloseReason.UNAVAILABLE
    ),
    errors.OutcomeUnknown: Presentation(
        503, "Whether it was done is not known", hides_detail=True, close_reason=CloseReason.UNAVAILABLE
    ),
    errors.StorageLost: Presentation(
        503, "The storage has lost the document", _SOON, close_reason=CloseReason.STORAGE_LOST
    ),
    errors.WritesRefused: Presentation(503, "The storage does not keep up", _SOON, close_reason=CloseReason.OVERLOADED),
    errors.Overloaded: Presentation(503, "The server has too much to do", _SOON),
    errors.AuditBehind: Presentation(
        503, "The audit log does not keep up", _SOON, close_reason=CloseReason.UNAVAILABLE
    ),
    errors.IssuerAway: Presentation(503, "The issuer of the token does not answer", _SOON, hides_detail=True),
    errors.AccessUnknown: Presentation(
        503, "The application does not say who may do what", _SOON, close_reason=CloseReason.UNAVAILABLE
    ),
    errors.Draining: Presentation(503, "The server is about to stop", _SOON),
}
"""The only place where an error becomes a status."""

CODES: Final = tuple(sorted({error.code for error in PRESENTATIONS}))
"""Every ``code`` that a problem of the REST interface can have."""

_TITLES: Final = {(error.code, shown.status): shown.title for error, shown in PRESENTATIONS.items()}

_TYPE_PREFIX: Final = "urn:roomkey:problem:"
_HIDDEN: Final = "Something failed here, not at your end. The cause is in the log of the server."
_UNCHECKED: Final = "This cannot be checked now."

_TOLD_AT_HANDSHAKES: Final = frozenset(
    {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.GONE, HTTPStatus.TOO_MANY_REQUESTS}
)


def presentation_of(error: BaseException) -> Presentation:
    """How ``error`` is shown."""
    return PRESENTATIONS[_listed(error)]


def problem_of(error: BaseException, *, instance: str | None = None) -> Problem:
    """What the caller learns about ``error``."""
    listed = _listed(error)
    shown = PRESENTATIONS[listed]
    # An error below a listed one keeps its own code; what is not listed at all is nobody's business.
    code = error.code if isinstance(error, listed) else listed.code
    return Problem(
        type=_TYPE_PREFIX + code,
        title=shown.title,
        status=shown.status,
        detail=_HIDDEN if shown.hides_detail else str(error) or shown.title,
        code=code,
        instance=UNSET if instance is None else instance,
        errors=error.flaws if isinstance(error, errors.SchemaViolation) else UNSET,
        current=error.current if isinstance(error, errors.RevisionMismatch) else UNSET,
    )


def headers_of(error: BaseException) -> Headers:
    """The headers that ``error`` brings besides those of every problem."""
    headers = presentation_of(error).headers
    if isinstance(error, errors.NonceNeeded):
        return (*headers, ("dpop-nonce", error.nonce))
    if isinstance(error, errors.MethodNotAllowed):
        return (*headers, ("allow", error.allow))
    if isinstance(error, errors.UnsupportedMediaType):
        return (*headers, ("accept", ", ".join(error.accept)))
    if isinstance(error, errors.RateLimited):
        return (*headers, retry_after(error.wait))
    return headers


def retry_after(wait: float) -> tuple[str, str]:
    """The header that says in how many seconds a caller may come back."""
    return "retry-after", str(max(1, ceil(wait)))


def plain_problem(status: HTTPStatus, code: str, detail: str) -> Problem:
    """
    A problem with a detail of its own.

    Its title is that of the table, so that a type has one title everywhere (RFC 9457, 3.1.3); what is not in the
    table has HTTP's name of the status.
    """
    title = _TITLES.get((code, status.value), status.phrase)
    return Problem(type=_TYPE_PREFIX + code, title=title, status=status.value, detail=detail, code=code)


def at_handshake(error: RoomkeyError) -> tuple[Problem, Headers, CloseReason | None]:
    """
    What the client of a refused WebSocket handshake learns about ``error``, the headers, and the close reason.

    It is told what is wrong with its credential, session or rights. Everything else means that this cannot be found
    out now, and has no close reason.
    """
    shown = presentation_of(error)
    status = HTTPStatus(shown.status)
    if status in _TOLD_AT_HANDSHAKES:
        return plain_problem(status, error.code, str(error)), headers_of(error), shown.close_reason
    return plain_problem(HTTPStatus.SERVICE_UNAVAILABLE, error.code, _UNCHECKED), _SOON, None


def example(error: type[RoomkeyError]) -> Problem:
    """The problem that errors of this kind are, as the contract shows it."""
    shown = PRESENTATIONS[error]
    return Problem(
        type=_TYPE_PREFIX + error.code, title=shown.title, status=shown.status, detail=shown.title, code=error.code
    )


def encode(problem: Problem) -> bytes:
    """The body of the response."""
    return _encoder.encode(problem)


_encoder: Final = msgspec.json.Encoder()


def _listed(error: BaseException) -> type[RoomkeyError]:
    """The most specific class in the table."""
    for kind in type(error).__mro__:
        if issubclass(kind, RoomkeyError) and kind in PRESENTATIONS:
            return kind
    return errors.Internal
