"""What is said about documents in JSON."""

from datetime import UTC, datetime
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from roomkey.api import document_schemas
from roomkey.api.document_schemas import (
    DifferenceQuery,
    DocumentListing,
    DocumentName,
    JsonPatch,
    MergePatch,
    NewVersionLabel,
    ReadingQuery,
    Roots,
    TextEdits,
    document_body,
    range_body,
    version_body,
)
from roomkey.api.schemas import parse_query
from roomkey.documents.crdt.authorship import BlameRange
from roomkey.domain.session import SessionId
from roomkey.errors import SchemaViolation
from roomkey.ports import Author, DocumentRecord, DocumentVersion
from roomkey.security.inspection import check_document_name

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALICE = Author("user:alice", SessionId("3a" + "b" * 26), "alice")


def as_json(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def test_a_document_is_shown_with_the_size_that_it_has_in_storage() -> None:
    record = DocumentRecord(
        name="a/b",
        lineage="l1",
        sequence=7,
        created_at=AT,
        updated_at=AT,
        log_updates=2,
        log_bytes=20,
        snapshot_bytes=300,
    )

    assert as_json(document_body(record)) == {
        "name": "a/b",
        "lineage": "l1",
        "sequence": 7,
        "created_at": "2026-03-01T12:00:00Z",
        "updated_at": "2026-03-01T12:00:00Z",
        "bytes": 320,
    }


def test_a_version_is_shown_with_its_author() -> None:
    version = DocumentVersion(number=3, at=AT, author=ALICE, label=None, sequence=9, size=100, restored=2)

    assert as_json(version_body(version)) == {
        "number": 3,
        "at": "2026-03-01T12:00:00Z",
        "label": None,
        "author": {"actor": "user:alice", "session_id": ALICE.session, "user_id": "alice"},
        "sequence": 9,
        "bytes": 100,
        "restored": 2,
    }


def test_a_range_is_shown_with_its_author_or_as_nobodys() -> None:
    known, unknown = BlameRange(0, 5, ALICE, AT), BlameRange(5, 6, None, None)

    assert as_json([range_body(known), range_body(unknown)]) == [
        {
            "start": 0,
            "path": None,
            "end": 5,
            "actor": "user:alice",
            "session_id": ALICE.session,
            "user_id": "alice",
            "at": "2026-03-01T12:00:00Z",
        },
        {"start": 5, "end": 6, "actor": None, "session_id": None, "user_id": None, "at": None, "path": None},
    ]


@pytest.mark.parametrize(
    ("kind", "good"),
    [
        (Roots, b'{"a":"x","b":[1],"c":{"d":null},"":""}'),
        (MergePatch, b'{"a":null,"b":{"c":1}}'),
        (JsonPatch, b'[{"op":"add","path":"/a","value":null,"more":1},{"op":"move","from":"","path":"/a~1b"}]'),
        (TextEdits, b'{"edits":[{"root":"a","index":0},{"root":"a","index":3,"delete":1,"insert":"x"}]}'),
        (NewVersionLabel, b'{"label":"before lunch"}'),
        (NewVersionLabel, b"{}"),
    ],
)
def test_what_is_right_is_understood(kind: Any, good: bytes) -> None:
    assert msgspec.json.decode(good, type=kind) is not None


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        (Roots, b'{"a":1}'),
        (Roots, b'{"a":null}'),
        (Roots, b'{"' + b"x" * 257 + b'":""}'),
        (MergePatch, b"[]"),
        (MergePatch, b"null"),
        (JsonPatch, b'[{"op":"fly","path":"/a"}]'),
        (JsonPatch, b'[{"path":"/a"}]'),
        (JsonPatch, b'[{"op":"remove"}]'),
        (JsonPatch, b'[{"op":"remove","path":"a"}]'),
        (JsonPatch, b"[" + b",".join([b'{"op":"remove","path":"/a"}'] * 1_001) + b"]"),
        (TextEdits, b"[]"),
        (TextEdits, b'{"edits":[{"root":"a","index":-1}]}'),
        (TextEdits, b'{"edits":[{"root":"a","index":1.5}]}'),
        (TextEdits, b'{"edits":[{"index":0}]}'),
        (TextEdits, b'{"edits":[{"root":"a","index":0,"remove":1}]}'),
        (TextEdits, b'{"edits":[' + b",".join([b'{"root":"a","index":0}'] * 1_001) + b"]}"),
        (NewVersionLabel, b'{"label":"a\\u0000"}'),
        (NewVersionLabel, b'{"label":"' + b"x" * 201 + b'"}'),
        (NewVersionLabel, b'{"name":"x"}'),
    ],
)
def test_what_is_wrong_is_refused(kind: Any, bad: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(bad, type=kind)


def test_a_patch_keeps_null_apart_from_nothing() -> None:
    decoded = msgspec.json.decode(
        b'[{"op":"add","path":"/a","value":null},{"op":"remove","path":"/b"}]', type=JsonPatch
    )

    assert msgspec.to_builtins(decoded) == [
        {"op": "add", "path": "/a", "value": None},
        {"op": "remove", "path": "/b"},
    ]


def test_the_source_of_a_patch_operation_is_called_from() -> None:
    decoded = msgspec.json.decode(b'[{"op":"copy","from":"/a","path":"/b"}]', type=JsonPatch)

    assert msgspec.to_builtins(decoded) == [{"op": "copy", "from": "/a", "path": "/b"}]


def test_queries_are_read() -> None:
    listing = parse_query(b"prefix=notes%2F&limit=3", DocumentListing)

    assert (listing.prefix, listing.cursor, listing.limit) == ("notes/", None, 3)
    assert parse_query(b"since=AQ-_&root=", ReadingQuery) == ReadingQuery(root="", since="AQ-_")
    assert parse_query(b"", DifferenceQuery).against == "current"
    assert parse_query(b"against=12", DifferenceQuery).against == "12"


@pytest.mark.parametrize(
    ("kind", "query"),
    [
        (DocumentListing, b"limit=501"),
        (DocumentListing, b"prefix=" + b"x" * 1025),
        (ReadingQuery, b"since=a+b"),
        (ReadingQuery, b"since=" + b"A" * 32_769),
        (ReadingQuery, b"root=" + b"x" * 257),
        (DifferenceQuery, b"against=0"),
        (DifferenceQuery, b"against=now"),
        (DifferenceQuery, b"against=1234567890123456"),
    ],
)
def test_queries_that_are_wrong_are_refused(kind: Any, query: bytes) -> None:
    with pytest.raises(SchemaViolation):
        parse_query(query, kind)


@pytest.mark.parametrize("name", ["a", "notes/today", "...", ".a", "a b", "~", "x" * 1024])
def test_a_name_of_the_contract_is_a_name(name: str) -> None:
    assert jsonschema_rs.is_valid(msgspec.json.schema(DocumentName), name)
    assert check_document_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/../b", "a/.", "./a", "a\n", "x" * 1025])
def test_no_bad_name_is_in_the_contract(name: str) -> None:
    assert not jsonschema_rs.is_valid(msgspec.json.schema(DocumentName), name)


def test_what_comes_out_is_complete() -> None:
    for name in ("DocumentBody", "DocumentPageBody", "VersionBody", "VersionPageBody", "AuthorBody", "RangeBody"):
        schema = msgspec.json.schema(getattr(document_schemas, name))
        definition = schema["$defs"][name]
        assert set(definition["required"]) == set(definition["properties"]), name
