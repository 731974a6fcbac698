"""Errors as outsiders see them."""

from collections.abc import Iterator
from http import HTTPStatus

import msgspec
import pytest

from roomkey import errors, problems
from roomkey.errors import Internal, MethodNotAllowed, RoomkeyError, SchemaViolation, WritesRefused
from roomkey.realtime.protocol.json_messages import ErrorCode

NOT_FOR_CALLERS = {
    *(errors.ConfigurationError, errors.SessionError, errors.SessionStopped, SchemaViolation),
    errors.LeaseLost,  # only chores write under leases
    errors.KeyRefused,  # shown as the invalid token that it is
}


def descendants(kind: type[RoomkeyError]) -> Iterator[type[RoomkeyError]]:
    for child in kind.__subclasses__():
        if child.__module__ == "roomkey.errors":
            yield child
            yield from descendants(child)


def test_every_error_stands_in_the_table() -> None:
    missing = set(descendants(RoomkeyError)) - set(problems.PRESENTATIONS) - NOT_FOR_CALLERS

    assert not missing


def test_codes_are_unique_and_every_one_is_in_the_contract() -> None:
    codes = [kind.code for kind in problems.PRESENTATIONS]

    assert len(codes) == len(set(codes))
    assert set(problems.CODES) == set(codes)


# --- over HTTP ----------------------------------------------------------------------------------------

REJECTED = {"www-authenticate": 'Bearer realm="roomkey", error="invalid_token"'}
SOON = {"retry-after": "1"}
HIDDEN = "Something failed here, not at your end. The cause is in the log of the server."

ANSWERS: list[tuple[BaseException, int, str, str, dict[str, str]]] = [
    (errors.MalformedRequest("no"), 400, "malformed_request", "Malformed request", {}),
    (
        errors.CredentialsMissing("no"),
        401,
        "credentials_missing",
        "A credential is needed",
        {"www-authenticate": 'Bearer realm="roomkey"'},
    ),
    (errors.InvalidToken("no"), 401, "invalid_token", "The credential is not valid", REJECTED),
    (errors.TokenRotated("no"), 401, "token_rotated", "The token was replaced by a newer one", REJECTED),
    (errors.TokenReused("no"), 401, "token_reused", "The token was stolen, and its session has been ended", REJECTED),
    (errors.Suspended("no"), 401, "session_suspended", "The session is suspended", REJECTED),
    (errors.Forbidden("no"), 403, "forbidden", "Not allowed", {}),
    (errors.SecurityViolation("no"), 403, "security_violation", "Not allowed", {}),
    (errors.OriginRejected("no"), 403, "origin_rejected", "The request came from a foreign origin", {}),
    (errors.SessionPending("no"), 403, "session_pending", "The session is not active yet", {}),
    (errors.NotFound("no"), 404, "not_found", "Not found", {}),
    (errors.DocumentNotFound("no"), 404, "document_not_found", "There is no such document", {}),
    (errors.UnknownCursor("no"), 404, "unknown_cursor", "There is no such page", {}),
    (errors.NotAcceptable("no"), 406, "not_acceptable", "Not in such a form", {}),
    (errors.RequestTimeout("no"), 408, "request_timeout", "The request took too long", {"connection": "close"}),
    (errors.Conflict("no"), 409, "conflict", "Someone else was faster", {}),
    (errors.InvalidState("no"), 409, "invalid_state", "The session's state does not allow this", {}),
    (errors.CapReached("no"), 409, "cap_reached", "The user has too many sessions", {}),
    (errors.RequestInProgress("no"), 409, "request_in_progress", "The first request is still being answered", SOON),
    (errors.Expired("no"), 410, "session_expired", "The session's time is over", {}),
    (errors.Invalidated("no"), 410, "session_invalidated", "The session was ended", {}),
    (errors.VersionMismatch("no"), 412, "version_mismatch", "It has changed", {}),
    (errors.BodyTooLarge("no"), 413, "too_large", "The body is too large", {"connection": "close"}),
    (errors.DocumentTooLarge("no"), 413, "document_too_large", "The document is too large", {}),
    (
        errors.UnsupportedMediaType("no", ["a/b", "c/d"]),
        415,
        "unsupported_media_type",
        "Unsupported media type",
        {"accept": "a/b, c/d"},
    ),
    (errors.InvalidInput("no"), 422, "invalid_input", "The input is not valid", {}),
    (
        errors.IdempotencyKeyReused("no"),
        422,
        "idempotency_key_reused",
        "The idempotency key belongs to another request",
        {},
    ),
    (errors.RateLimited("no", wait=2.1), 429, "rate_limited", "Too many requests", {"retry-after": "3"}),
    (errors.Overloaded("no"), 503, "overloaded", "The server has too much to do", SOON),
    (errors.WritesRefused("no"), 503, "storage_behind", "The storage does not keep up", SOON),
    (errors.Draining("no"), 503, "draining", "The server is about to stop", SOON),
    (errors.Internal("no"), 500, "internal", "Internal error", {}),
    (errors.ConfigurationError("no"), 500, "internal", "Internal error", {}),
    (ZeroDivisionError("no"), 500, "internal", "Internal error", {}),
    (errors.Serialization("no"), 500, "serialization", "A stored record cannot be read", {}),
    (errors.Storage("no"), 503, "storage", "The storage is not available", SOON),
]
OURS_TO_KNOW = {"internal", "serialization", "storage"}


@pytest.mark.parametrize(("error", "status", "code", "title", "headers"), ANSWERS)
def test_an_error_has_one_answer_to_the_byte(
    error: BaseException, status: int, code: str, title: str, headers: dict[str, str]
) -> None:
    problem = problems.problem_of(error)

    detail = HIDDEN if code in OURS_TO_KNOW else "no"
    assert problem.status == status
    assert dict(problems.headers_of(error)) == headers
    assert problems.encode(problem).decode() == (
        f'{{"type":"urn:roomkey:problem:{code}","title":"{title}","status":{status},'
        f'"detail":"{detail}","code":"{code}"}}'
    )


def test_who_expects_another_revision_is_told_what_the_document_says_now() -> None:
    current = errors.CurrentRevision(revision="l.2", format="text/plain", content="now")

    problem = problems.problem_of(errors.RevisionMismatch("no", current))

    assert (problem.status, problem.code, problem.title) == (412, "revision_mismatch", "The document has changed")
    assert problems.encode(problem).endswith(
        b'"current":{"revision":"l.2","format":"text/plain","content":"now"}}',
    )


def test_a_wrong_method_learns_the_right_ones() -> None:
    error = MethodNotAllowed("GET, PUT")

    assert problems.headers_of(error) == (("allow", "GET, PUT"),)
    assert problems.encode(problems.problem_of(error)) == (
        b'{"type":"urn:roomkey:problem:method_not_allowed","title":"Method not allowed","status":405,'
        b'"detail":"this resource allows GET, PUT","code":"method_not_allowed"}'
    )


def test_what_does_not_match_its_schema_is_told_where() -> None:
    error = SchemaViolation(errors.Flaw(detail="too long", pointer="#/user_id"))

    assert problems.encode(problems.problem_of(error)) == (
        b'{"type":"urn:roomkey:problem:invalid_input","title":"The input is not valid","status":422,'
        b'"detail":"the request does not match its schema","code":"invalid_input",'
        b'"errors":[{"detail":"too long","pointer":"#/user_id"}]}'
    )


def test_the_nearest_class_in_the_table_wins_and_the_code_stays_its_own() -> None:
    class BranchMissing(errors.DocumentNotFound):
        code = "branch_missing"

    problem = problems.problem_of(BranchMissing("no"))

    assert (problem.title, problem.code) == ("There is no such document", "branch_missing")


@pytest.mark.parametrize("error", [errors.Storage("/var/lib/secret"), errors.Serialization("row 7"), KeyError("x9")])
def test_the_details_of_our_own_failures_stay_here(error: Exception) -> None:
    body = problems.encode(problems.problem_of(error, instance="urn:uuid:1"))

    assert str(error).encode() not in body
    assert b"urn:uuid:1" in body


def test_a_problem_says_nothing_that_it_does_not_know() -> None:
    problem = msgspec.json.decode(problems.encode(problems.problem_of(errors.NotFound("nothing"))))

    assert set(problem) == {"type", "title", "status", "detail", "code"}


def test_an_error_without_words_is_described_by_its_title() -> None:
    problem = problems.problem_of(errors.NotFound())

    assert problem.detail == problem.title
    assert problems.presentation_of(RuntimeError()) is problems.PRESENTATIONS[Internal]


def test_whoever_is_refused_because_storage_is_behind_learns_why_and_when_to_come_back() -> None:
    refused = WritesRefused("storage does not keep up; the change was not taken")

    assert problems.problem_of(refused).detail == str(refused)
    assert ("retry-after", "1") in problems.headers_of(refused)


# --- at handshakes and on sockets ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "title", "headers"),
    [
        (errors.InvalidToken("no"), 401, "The credential is not valid", REJECTED),
        (errors.TokenRotated("no"), 401, "The token was replaced by a newer one", REJECTED),
        (errors.TokenReused("no"), 401, "The token was stolen, and its session has been ended", REJECTED),
        (errors.Suspended("no"), 401, "The session is suspended", REJECTED),
        (
            errors.CredentialsMissing("no"),
            401,
            "A credential is needed",
            {"www-authenticate": 'Bearer realm="roomkey"'},
        ),
        (errors.Forbidden("no"), 403, "Not allowed", {}),
        (errors.OriginRejected("no"), 403, "The request came from a foreign origin", {}),
        (errors.SessionPending("no"), 403, "The session is not active yet", {}),
        (errors.Expired("no"), 410, "The session's time is over", {}),
        (errors.Invalidated("no"), 410, "The session was ended", {}),
    ],
)
def test_a_handshake_is_told_what_is_wrong_with_its_session_to_the_byte(
    error: RoomkeyError, status: int, title: str, headers: dict[str, str]
) -> None:
    problem, sent, _ = problems.at_handshake(error)

    assert (problem.status, dict(sent)) == (status, headers)
    assert problems.encode(problem).decode() == (
        f'{{"type":"urn:roomkey:problem:{error.code}","title":"{title}","status":{status},'
        f'"detail":"no","code":"{error.code}"}}'
    )


def test_a_type_has_the_same_title_wherever_it_is_told() -> None:
    """RFC 9457, 3.1.3."""
    table = problems.PRESENTATIONS

    told = [problems.plain_problem(HTTPStatus(shown.status), kind.code, "no") for kind, shown in table.items()]

    assert [each.title for each in told] == [shown.title for shown in table.values()]
    assert problems.plain_problem(HTTPStatus.TOO_MANY_REQUESTS, "too_many", "no").title == "Too Many Requests"


@pytest.mark.parametrize(
    "kind", [errors.Storage, errors.Serialization, errors.Conflict, errors.NotFound, errors.InvalidInput, RoomkeyError]
)
def test_a_handshake_that_cannot_be_checked_is_told_to_come_back_and_nothing_else(kind: type[RoomkeyError]) -> None:
    problem, sent, reason = problems.at_handshake(kind("no"))

    title = "The storage is not available" if kind is errors.Storage else "Service Unavailable"
    assert (dict(sent), reason) == (SOON, None)
    assert problems.encode(problem).decode() == (
        f'{{"type":"urn:roomkey:problem:{kind.code}","title":"{title}","status":503,'
        f'"detail":"This cannot be checked now.","code":"{kind.code}"}}'
    )


def test_sockets_are_closed_as_unauthenticated_unless_the_error_has_a_code_of_its_own() -> None:
    codes = {kind: shown.close_code for kind, shown in problems.PRESENTATIONS.items() if shown.close_code != 4401}

    assert codes == {
        errors.Suspended: 4423,
        errors.SessionPending: 4423,
        errors.Forbidden: 4403,
        errors.Storage: 1013,
        errors.OutcomeUnknown: 1013,
        errors.StorageLost: 1013,
        errors.WritesRefused: 1013,
        errors.AuditBehind: 1013,
        errors.AccessUnknown: 1013,
    }


def test_a_close_reason_is_the_code_of_its_error() -> None:
    own = {kind for kind, shown in problems.PRESENTATIONS.items() if shown.status in {401, 403, 410}}

    # Sockets of those who have to prove something are told that their token is none; REST and handshakes say more.
    unproven = {errors.InvalidProof, errors.NonceNeeded, errors.HolderUnproven, errors.ReauthenticationNeeded}
    for kind in own - unproven - {errors.SecurityViolation, errors.OriginRejected}:
        assert problems.PRESENTATIONS[kind].close_reason == kind.code


def test_a_new_token_on_a_socket_is_refused_for_what_it_opens() -> None:
    faults = {kind: shown.refresh_fault for kind, shown in problems.PRESENTATIONS.items()}

    assert {kind: fault for kind, fault in faults.items() if fault != "SERVER_ERROR"} == {
        errors.SecurityViolation: "UNAUTHORIZED",
        errors.InvalidToken: "UNAUTHORIZED",
        errors.InvalidProof: "UNAUTHORIZED",
        errors.NonceNeeded: "UNAUTHORIZED",
        errors.HolderUnproven: "UNAUTHORIZED",
        errors.TokenRotated: "UNAUTHORIZED",
        errors.TokenReused: "UNAUTHORIZED",
        errors.Suspended: "INVALID_SESSION",
        errors.Expired: "INVALID_SESSION",
        errors.Invalidated: "INVALID_SESSION",
        errors.RateLimited: "RATE_LIMITED",
    }
    assert set(faults.values()) <= set(ErrorCode)
