"""Every error as HTTP says it: one table from errors to statuses, and RFC 9457 bodies."""

import re
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from roomkey import errors
from roomkey.documents.document import DocumentTooLarge, WritesRefused
from roomkey.errors import InvalidInput, RoomkeyError

MEDIA_TYPE: Final = "application/problem+json"

BEARER_CHALLENGE: Final = 'Bearer realm="roomkey"'
"""RFC 6750, section 3: a request without credentials learns the scheme and nothing else."""


class MalformedRequest(RoomkeyError):
    """What arrived is not HTTP, JSON or a header value as their standards have it."""

    code = "malformed_request"


class CredentialsMissing(RoomkeyError):
    """This needs a credential, and there was none."""

    code = "credentials_missing"


class OriginRejected(errors.Forbidden):
    """A cookie came from a page of an origin that is not ours (ASVS 3.5.1)."""

    code = "origin_rejected"


class UnknownCursor(errors.NotFound):
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


class KeyReused(RoomkeyError):
    """An Idempotency-Key came a second time, with another request."""

    code = "idempotency_key_reused"


class InProgress(RoomkeyError):
    """The request with this Idempotency-Key has not been answered yet."""

    code = "request_in_progress"
    retry = True


class Draining(RoomkeyError):
    """The server is about to stop."""

    code = "draining"
    retry = True


class Internal(RoomkeyError):
    """A mistake of ours."""

    code = "internal"


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


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What went wrong, as RFC 9457 says it.

    Go by `code`: it never changes its meaning. `detail` is for people. `instance` stands in the log of the
    server beside the cause of an internal error.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str | UnsetType = UNSET
    errors: Sequence[Flaw] | UnsetType = UNSET


class Kind(Struct, frozen=True):
    """How an error is shown. The details of our own failures stay in the log."""

    status: int
    title: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    hides_detail: bool = False


def _challenge(error: str) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"www-authenticate", f'{BEARER_CHALLENGE}, error="{error}"'.encode()),)


_SOON: Final = ((b"retry-after", b"1"),)

KINDS: Final[dict[type[RoomkeyError], Kind]] = {
    MalformedRequest: Kind(400, "Malformed request"),
    CredentialsMissing: Kind(
        401, "A credential is needed", headers=((b"www-authenticate", BEARER_CHALLENGE.encode()),)
    ),
    errors.InvalidToken: Kind(401, "The credential is not valid", _challenge("invalid_token")),
    errors.TokenReused: Kind(401, "The token was replaced by a newer one", _challenge("invalid_token")),
    errors.Suspended: Kind(401, "The session is suspended", _challenge("invalid_token")),
    errors.Forbidden: Kind(403, "Not allowed"),
    errors.SecurityViolation: Kind(403, "Not allowed"),
    OriginRejected: Kind(403, "The request came from a foreign origin"),
    errors.SessionPending: Kind(403, "The session is not active yet"),
    errors.NotFound: Kind(404, "Not found"),
    errors.DocumentNotFound: Kind(404, "There is no such document"),
    UnknownCursor: Kind(404, "There is no such page"),
    MethodNotAllowed: Kind(405, "Method not allowed"),
    NotAcceptable: Kind(406, "Not in such a form"),
    RequestTimeout: Kind(408, "The request took too long", headers=((b"connection", b"close"),)),
    errors.Conflict: Kind(409, "Someone else was faster"),
    errors.InvalidState: Kind(409, "The session's state does not allow this"),
    errors.CapReached: Kind(409, "The user has too many sessions"),
    InProgress: Kind(409, "The first request is still being answered", headers=_SOON),
    errors.Expired: Kind(410, "The session's time is over"),
    errors.Invalidated: Kind(410, "The session was ended"),
    errors.VersionMismatch: Kind(412, "It has changed"),
    BodyTooLarge: Kind(413, "The body is too large", headers=((b"connection", b"close"),)),
    DocumentTooLarge: Kind(413, "The document is too large"),
    UnsupportedMediaType: Kind(415, "Unsupported media type"),
    errors.InvalidInput: Kind(422, "The input is not valid"),
    KeyReused: Kind(422, "The idempotency key belongs to another request"),
    Internal: Kind(500, "Internal error", hides_detail=True),
    errors.Serialization: Kind(500, "A stored record cannot be read", hides_detail=True),
    errors.Storage: Kind(503, "The storage is not available", headers=_SOON, hides_detail=True),
    WritesRefused: Kind(503, "The storage does not keep up", headers=_SOON),
    Draining: Kind(503, "The server is about to stop", headers=_SOON),
}
"""The only place where an error becomes a status. An error that is not listed is shown as its nearest ancestor."""

TYPE_PREFIX: Final = "urn:roomkey:problem:"

CODES: Final = tuple(sorted({error.code for error in KINDS}))
"""Every ``code`` that a problem of the REST interface can have."""

_HIDDEN: Final = "Something failed here, not at your end. The cause is in the log of the server."


def kind_of(error: BaseException) -> Kind:
    """How ``error`` is shown."""
    return KINDS[_listed(error)]


def problem_of(error: BaseException, *, instance: str | None = None) -> Problem:
    """What the caller learns about ``error``."""
    listed = _listed(error)
    kind = KINDS[listed]
    # An error below a listed one keeps its own code; what is not listed at all is nobody's business.
    code = error.code if isinstance(error, listed) else listed.code
    return Problem(
        type=TYPE_PREFIX + code,
        title=kind.title,
        status=kind.status,
        detail=_HIDDEN if kind.hides_detail else str(error) or kind.title,
        code=code,
        instance=UNSET if instance is None else instance,
        errors=error.flaws if isinstance(error, SchemaViolation) else UNSET,
    )


def example(error: type[RoomkeyError]) -> Problem:
    """The problem that errors of this kind are, as the contract shows it."""
    kind = KINDS[error]
    return Problem(
        type=TYPE_PREFIX + error.code, title=kind.title, status=kind.status, detail=kind.title, code=error.code
    )


def _listed(error: BaseException) -> type[RoomkeyError]:
    return next((kind for kind in type(error).__mro__ if issubclass(kind, RoomkeyError) and kind in KINDS), Internal)


def headers_of(error: BaseException) -> list[tuple[bytes, bytes]]:
    """The headers that ``error`` brings besides those of every problem."""
    headers = list(kind_of(error).headers)
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allow.encode()))
    elif isinstance(error, UnsupportedMediaType):
        headers.append((b"accept", ", ".join(error.accept).encode()))
    return headers


def encode(problem: Problem) -> bytes:
    """The body of the response."""
    return _encoder.encode(problem)


_encoder = msgspec.json.Encoder()

_AT: Final = re.compile(r"^(?P<what>.*?)(?: - at (?:`key` in )?`(?P<path>\$[^`]*)`)?$", re.DOTALL)
_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_ECHO: Final = re.compile(r"(Invalid enum value) .*", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_HARMLESS: Final = re.compile(r"[a-z_]{1,32}")
"""What a misspelt name looks like, and no secret does."""
_FIELD: Final = re.compile(r"([a-z_]+): (.*)", re.DOTALL)


def flaw_in_body(message: str) -> Flaw:
    """
    What msgspec's ``message`` says about a body, with an RFC 6901 pointer to where.

    Nothing of what the caller sent is repeated, because it may be a secret in the wrong place.
    """
    what, steps = _read(message)
    return Flaw(detail=what, pointer="#" + "".join("/" + step for step in steps))


def flaw_in_query(message: str) -> Flaw:
    """What msgspec's ``message`` says about the parameters of a query."""
    what, steps = _read(message)
    return Flaw(detail=what, parameter=steps[0]) if steps else Flaw(detail=what)


def _read(message: str) -> tuple[str, list[str]]:
    match = _AT.match(message)
    what, path = (match["what"], match["path"] or "$") if match else (message, "$")
    # A path into a map has no name for the entry: `$.metadata[...]`.
    steps = [name or number for name, number in _STEP.findall(path) if number != "..."]
    if field := _FIELD.fullmatch(what):
        steps.append(field[1])
        what = field[2]
    elif unknown := _UNKNOWN.fullmatch(what):
        name = unknown[1]
        what = f"there is no `{name}`" if _HARMLESS.fullmatch(name) else "an unknown name"
    return _ECHO.sub(r"\1", what), steps
