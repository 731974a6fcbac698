"""Errors as RFC 9457 problems."""

from collections.abc import Iterator

import msgspec
import pytest

from roomkey import errors
from roomkey.api import problems
from roomkey.api.problems import Internal, MethodNotAllowed, SchemaViolation, flaw_in_body, flaw_in_query
from roomkey.documents.document import DocumentTooLarge, WritesRefused
from roomkey.errors import RoomkeyError
from roomkey.security import apikeys
from roomkey.security.tokens import mint, mint_id

NOT_FOR_CALLERS = {errors.ConfigurationError, errors.SessionError, SchemaViolation}


def descendants(kind: type[RoomkeyError]) -> Iterator[type[RoomkeyError]]:
    for child in kind.__subclasses__():
        if child.__module__ in ("roomkey.errors", "roomkey.api.problems"):
            yield child
            yield from descendants(child)


def test_every_error_stands_in_the_table() -> None:
    missing = set(descendants(RoomkeyError)) - set(problems.KINDS) - NOT_FOR_CALLERS

    assert not missing


def test_codes_are_unique_and_every_one_is_in_the_contract() -> None:
    codes = [kind.code for kind in problems.KINDS]

    assert len(codes) == len(set(codes))
    assert set(problems.CODES) == set(codes)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.InvalidToken("no"), 401, "invalid_token"),
        (errors.TokenReused("no"), 401, "token_reused"),
        (errors.Suspended("no"), 401, "session_suspended"),
        (errors.Forbidden("no"), 403, "forbidden"),
        (errors.NotFound("no"), 404, "not_found"),
        (errors.DocumentNotFound("no"), 404, "document_not_found"),
        (problems.NotAcceptable("no"), 406, "not_acceptable"),
        (errors.Conflict("no"), 409, "conflict"),
        (errors.InvalidState("no"), 409, "invalid_state"),
        (errors.CapReached("no"), 409, "cap_reached"),
        (errors.Expired("no"), 410, "session_expired"),
        (errors.Invalidated("no"), 410, "session_invalidated"),
        (errors.VersionMismatch("no"), 412, "version_mismatch"),
        (errors.InvalidInput("no"), 422, "invalid_input"),
        (DocumentTooLarge("no"), 413, "document_too_large"),
        (WritesRefused("no"), 503, "storage_behind"),
        (errors.Storage("no"), 503, "storage"),
        (errors.Serialization("no"), 500, "serialization"),
        (errors.ConfigurationError("no"), 500, "internal"),
        (ZeroDivisionError("no"), 500, "internal"),
    ],
)
def test_an_error_has_its_status_and_code(error: Exception, status: int, code: str) -> None:
    problem = problems.problem_of(error)

    assert (problem.status, problem.code) == (status, code)
    assert problem.type == f"urn:roomkey:problem:{code}"
    assert problem.detail


@pytest.mark.parametrize("error", [errors.Storage("/var/lib/secret"), errors.Serialization("row 7"), KeyError("x9")])
def test_the_details_of_our_own_failures_stay_here(error: Exception) -> None:
    body = problems.encode(problems.problem_of(error, instance="urn:uuid:1"))

    assert str(error).encode() not in body
    assert b"urn:uuid:1" in body


@pytest.mark.parametrize("kind", [errors.InvalidToken, problems.CredentialsMissing, errors.Suspended])
def test_who_is_not_known_is_challenged(kind: type[RoomkeyError]) -> None:
    headers = dict(problems.headers_of(kind("no")))

    assert headers[b"www-authenticate"].startswith(b'Bearer realm="roomkey"')


def test_a_request_without_credentials_learns_the_scheme_and_nothing_else() -> None:
    headers = dict(problems.headers_of(problems.CredentialsMissing("no")))

    assert headers[b"www-authenticate"] == b'Bearer realm="roomkey"'


def test_a_wrong_method_learns_the_right_ones() -> None:
    headers = dict(problems.headers_of(MethodNotAllowed("GET, PUT")))

    assert headers[b"allow"] == b"GET, PUT"


@pytest.mark.parametrize(
    ("message", "pointer", "detail"),
    [
        ("Expected `str`, got `int` - at `$.user_id`", "#/user_id", "Expected `str`, got `int`"),
        ("Expected `str` of length >= 1 - at `$.grants[3].documents`", "#/grants/3/documents", "Expected `str`"),
        ("Expected `str` of length <= 64 - at `key` in `$.metadata`", "#/metadata", "Expected `str`"),
        ("Object missing required field `user_id`", "#", "Object missing required field `user_id`"),
        ("Object contains unknown field `lifetme`", "#", "there is no `lifetme`"),
        ("ip: expected an address - at `$.client`", "#/client/ip", "expected an address"),
        ("Expected `int` - at `$[...]`", "#", "Expected `int`"),
    ],
)
def test_what_is_wrong_with_a_body_says_where(message: str, pointer: str, detail: str) -> None:
    flaw = flaw_in_body(message)

    assert flaw.pointer == pointer
    assert flaw.detail.startswith(detail)


def test_what_is_wrong_with_a_query_names_the_parameter() -> None:
    flaw = flaw_in_query("Expected `int` >= 1 - at `$.limit`")

    assert (flaw.parameter, flaw.detail) == ("limit", "Expected `int` >= 1")


@pytest.mark.parametrize("message", ["Invalid enum value '{}' - at `$.state`", "Object contains unknown field `{}`"])
def test_a_secret_in_the_wrong_place_is_not_repeated(message: str) -> None:
    for secret in (mint(mint_id(1)), apikeys.mint()[0]):
        flaw = flaw_in_body(message.format(secret))
        assert secret not in flaw.detail


def test_a_problem_says_nothing_that_it_does_not_know() -> None:
    problem = msgspec.json.decode(problems.encode(problems.problem_of(errors.NotFound("nothing"))))

    assert set(problem) == {"type", "title", "status", "detail", "code"}


def test_an_error_without_words_is_described_by_its_title() -> None:
    problem = problems.problem_of(errors.NotFound())

    assert problem.detail == problem.title
    assert problems.kind_of(RuntimeError()) is problems.KINDS[Internal]


def test_whoever_is_refused_because_storage_is_behind_learns_why_and_when_to_come_back() -> None:
    refused = WritesRefused("storage does not keep up; the change was not taken")

    assert problems.problem_of(refused).detail == str(refused)
    assert (b"retry-after", b"1") in problems.headers_of(refused)
