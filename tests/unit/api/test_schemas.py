"""What comes in is checked strictly; what goes out has every field."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from roomkey.api.schemas import (
    MAX_METADATA_DEPTH,
    Batch,
    Extension,
    Listing,
    NewSession,
    ReasonBody,
    RevocationQuery,
    is_address,
    parse_query,
    session_body,
)
from roomkey.domain.access import Access, Grant
from roomkey.domain.session import Client, SessionState
from roomkey.errors import SchemaViolation
from tests.support.sessions import Desk


def read(kind: type[Any], **fields: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(fields), type=kind)


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth else {}


def test_a_request_becomes_what_the_domain_calls_it() -> None:
    body = read(
        NewSession,
        user_id="alice",
        client={"ip": "2001:db8::1", "user_agent": "Firefox", "device": "laptop"},
        grants=[{"documents": "notes/*", "access": "write"}],
        lifetime=3600,
        metadata={"theme": "dark"},
    )

    request = body.request()

    assert request.client == Client(ip="2001:db8::1", user_agent="Firefox", device="laptop")
    assert request.grants == (Grant("notes/*", Access.WRITE),)
    assert request.lifetime == timedelta(hours=1)
    assert request.metadata == {"theme": "dark"}


def test_what_is_left_out_is_left_to_the_policy() -> None:
    request = read(NewSession, user_id="alice", grants=None, client=None).request()

    assert (request.client, request.grants, request.lifetime, request.metadata) == (None, None, None, None)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "a" * 257}, "user_id"),
        ({"user_id": "é" * 129}, "user_id"),
        ({"user_id": "a\nb"}, "user_id"),
        ({"user_id": 7}, "user_id"),
        ({"user_id": None}, "user_id"),
        ({"user_id": "a", "userid": "b"}, "userid"),
        ({"user_id": "a", "lifetime": 0}, "lifetime"),
        ({"user_id": "a", "lifetime": -1}, "lifetime"),
        ({"user_id": "a", "lifetime": 1.5}, "lifetime"),
        ({"user_id": "a", "lifetime": "60"}, "lifetime"),
        ({"user_id": "a", "lifetime": True}, "lifetime"),
        ({"user_id": "a", "lifetime": 10**12}, "lifetime"),
        ({"user_id": "a", "grants": {}}, "grants"),
        ({"user_id": "a", "grants": [{"documents": "x", "access": "rule"}]}, "access"),
        ({"user_id": "a", "grants": [{"documents": "", "access": "read"}]}, "documents"),
        ({"user_id": "a", "grants": [{"documents": "x\x00", "access": "read"}]}, "documents"),
        ({"user_id": "a", "grants": [{"documents": "x", "access": "read", "more": 1}]}, "more"),
        ({"user_id": "a", "grants": [{"documents": "x", "access": "read"}] * 257}, "grants"),
        ({"user_id": "a", "client": {"ip": "1.2.3"}}, "ip"),
        ({"user_id": "a", "client": {"ip": "fe80::1%eth0"}}, "ip"),
        ({"user_id": "a", "client": {"device": "a\x1b[31m"}}, "device"),
        ({"user_id": "a", "client": {"user_agent": "x" * 513}}, "user_agent"),
        ({"user_id": "a", "client": {"port": 80}}, "port"),
        ({"user_id": "a", "metadata": []}, "metadata"),
        ({"user_id": "a", "metadata": {"k" * 65: 1}}, "metadata"),
        ({"user_id": "a", "metadata": {str(number): 1 for number in range(65)}}, "metadata"),
        ({"user_id": "a", "activate": 1}, "activate"),
    ],
)
def test_what_the_contract_does_not_know_is_refused(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=path):
        read(NewSession, **fields)


def test_a_whole_number_of_seconds_may_be_written_as_a_float() -> None:
    assert read(Extension, lifetime=60.0).lifetime == 60


def test_metadata_may_be_nested_so_deep_and_no_deeper() -> None:
    deepest = read(NewSession, user_id="a", metadata=nested(MAX_METADATA_DEPTH - 1))
    deeper = read(NewSession, user_id="a", metadata=nested(MAX_METADATA_DEPTH))

    assert deepest.request().metadata == nested(MAX_METADATA_DEPTH - 1)
    with pytest.raises(SchemaViolation):
        deeper.request()


def test_integers_that_no_storage_keeps_become_doubles() -> None:
    body = read(NewSession, user_id="a", metadata={"big": [2**63, -(2**63) - 1], "small": -(2**63)})

    assert body.request().metadata == {"big": [float(2**63), float(-(2**63) - 1)], "small": -(2**63)}


def test_integers_that_no_double_holds_are_refused() -> None:
    body = read(NewSession, user_id="a", metadata={"huge": 10**400})

    with pytest.raises(SchemaViolation):
        body.request()


def test_a_batch_may_be_empty_and_has_bounds() -> None:
    assert read(Batch) == Batch()
    with pytest.raises(msgspec.ValidationError, match="create"):
        read(Batch, create=[{"user_id": "a"}] * 101)
    with pytest.raises(msgspec.ValidationError, match="invalidate"):
        read(Batch, invalidate=["../../etc/passwd"])


def test_a_reason_cannot_forge_lines() -> None:
    with pytest.raises(msgspec.ValidationError, match="reason"):
        read(ReasonBody, reason="bye\u2028admin: hello")


def test_a_query_is_read_like_a_schema() -> None:
    listing = parse_query(b"user_id=a%2Fb&state=active&limit=7&created_after=2026-01-01T01:00:00%2B01:00", Listing)

    assert (listing.user_id, listing.state, listing.limit) == ("a/b", SessionState.ACTIVE, 7)
    assert listing.filter().created_after == datetime(2026, 1, 1, tzinfo=UTC)


def test_users_with_numbers_for_names_are_users() -> None:
    assert parse_query(b"user_id=42", Listing).user_id == "42"


@pytest.mark.parametrize(
    "query",
    [
        b"user=a",
        b"limit=0",
        b"limit=501",
        b"limit=ten",
        b"limit=1e1",
        b"limit=" + b"9" * 5000,
        b"limit=",
        b"state=gone",
        b"state=ACTIVE",
        b"user_id=",
        b"user_id=a%00",
        b"user_id=a&user_id=b",
        b"user_id=%ff",
        b"cursor=a%20b",
        b"created_after=yesterday",
        b"created_after=2026-01-01T00:00:00",
        b"created_after=1767225600",
        b"&".join(b"p%d=1" % number for number in range(40)),
    ],
)
def test_a_query_that_the_contract_does_not_know_is_refused(query: bytes) -> None:
    with pytest.raises(SchemaViolation):
        parse_query(query, Listing)


def test_a_misspelt_exception_never_means_everybody() -> None:
    assert parse_query(b"except=current", RevocationQuery).spare == "current"
    for query in (b"exept=current", b"except=", b"except=mine"):
        with pytest.raises(SchemaViolation):
            parse_query(query, RevocationQuery)


def test_times_beyond_the_calendar_stay_at_its_edge() -> None:
    listing = parse_query(
        b"created_after=0001-01-01T00:00:00%2B10:00&created_before=9999-12-31T23:59:59-10:00", Listing
    )

    conditions = listing.filter()

    assert conditions.created_after == datetime.min.replace(tzinfo=UTC)
    assert conditions.created_before == datetime.max.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "answer"),
    [("127.0.0.1", True), ("::1", True), ("127.1", False), ("01.2.3.4", False), ("::1%lo", False), ("", False)],
)
def test_addresses_are_told_from_other_text(text: str, answer: bool) -> None:  # noqa: FBT001  # a row of the table
    assert is_address(text) is answer


async def test_a_session_goes_out_with_every_field_and_no_secret() -> None:
    desk = Desk()
    issued = await desk.sessions.create_session("alice", metadata={"a": 1})

    body = msgspec.json.decode(msgspec.json.encode(session_body(issued.session)))

    assert list(body) == [
        "id",
        "state",
        "user_id",
        "created_at",
        "expires_at",
        "idle_expires_at",
        "last_seen_at",
        "version",
        "client",
        "grants",
        "metadata",
        "authenticated_at",
        "bound_to",
    ]
    assert body["created_at"].endswith("Z")
    assert issued.token.partition(".")[2] not in str(body)
