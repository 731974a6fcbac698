"""The contract: what is described is what is there."""

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import jsonschema_rs
import msgspec

from roomkey.api.app import EVERY_ROUTE, contracts, document
from roomkey.api.openapi import describe, publication
from roomkey.domain.policy import SessionPolicy
from tests.support.references import dangling, references

KEPT = Path(__file__).parents[3] / "spec" / "openapi.json"


def operations() -> Iterator[tuple[str, str, Any]]:
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_the_contract_that_is_kept_is_the_one_that_is_served() -> None:
    """If this fails on purpose: ``roomkey openapi > spec/openapi.json``."""
    assert json.loads(KEPT.read_text(encoding="utf-8")) == json.loads(json.dumps(document()))


def test_every_route_is_described() -> None:
    described = {(method, path) for method, path, _ in operations()}

    routes = {(method, path.replace(":path", "")) for path, methods in EVERY_ROUTE.items() for method in methods}
    assert described == routes


def test_every_reference_leads_somewhere() -> None:
    whole = document()

    assert [*references(whole)]
    assert dangling(whole) == []


def test_every_name_is_used_once() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]

    assert len(names) == len(set(names))


def test_every_operation_stands_under_a_heading_that_is_described() -> None:
    headings = [tag["name"] for tag in document()["tags"]]

    used = {tag for _, _, operation in operations() for tag in operation["tags"]}
    assert used == set(headings)


def test_every_error_is_a_problem() -> None:
    for _, path, operation in operations():
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                assert "application/problem+json" in answer["content"], (path, status)


def test_whoever_has_to_say_who_they_are_can_be_refused() -> None:
    for _, _, operation in operations():
        if operation["security"] and {} not in operation["security"]:
            assert {"401", "403"} <= set(operation["responses"])
            assert operation["responses"]["401"]["headers"]["WWW-Authenticate"]["required"]


def test_the_examples_are_right() -> None:
    whole = document()

    for _, path, operation in operations():
        media = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        if "example" in media:
            schema = {**media["schema"], "components": whole["components"]}
            assert jsonschema_rs.is_valid(schema, media["example"]), path


def test_input_is_strict_and_output_is_complete() -> None:
    schemas = document()["components"]["schemas"]

    for name in ("NewSession", "NewGrant", "NewClient", "Batch", "Reason", "Extension"):
        assert schemas[name]["additionalProperties"] is False
    for name in ("Session", "IssuedSession", "SessionPage", "Revocation"):
        assert set(schemas[name]["required"]) == set(schemas[name]["properties"])


def test_limits_are_those_of_the_policy() -> None:
    policy = SessionPolicy(lifetime=timedelta(hours=8))

    schemas = describe(contracts(), policy)["components"]["schemas"]

    for name in ("NewSession", "Extension"):
        lifetime = schemas[name]["properties"]["lifetime"]["anyOf"][0]
        assert (lifetime["type"], lifetime["minimum"], lifetime["maximum"]) == ("integer", 1, 8 * 3600)


def test_a_server_for_development_says_that_nobody_needs_a_key() -> None:
    open_to_all = describe(contracts(), SessionPolicy(), dev=True)["paths"]

    assert {} in open_to_all["/sessions"]["post"]["security"]
    assert {} not in open_to_all["/sessions/me"]["get"]["security"]


def test_patterns_are_those_of_json_schema() -> None:
    schemas = document()["components"]["schemas"]
    user_id = {"type": "string", **schemas["NewSession"]["properties"]["user_id"]}

    for good in ("alice", "a b", "é" * 64, "x" * 256, "用户", "a/b@c"):
        assert jsonschema_rs.is_valid(user_id, good), good
    for bad in ("", "a\nb", "x" * 257, "\u202eabc", "a\u0000"):
        assert not jsonschema_rs.is_valid(user_id, bad), bad


def test_the_page_asks_nobody_else() -> None:
    page = publication(document(), {}).page.decode()

    assert not re.search(r"""(?:src|href|url\()\s*=?\s*["']?(?:https?:)?//""", page)
    assert "innerHTML" not in page
    assert "eval(" not in page
    assert not re.search(r"""<\w+[^>]*\s(?:on\w+|style)=""", page)


def test_the_policy_of_the_page_allows_its_own_scripts_and_styles_only() -> None:
    shown = publication(document(), {})
    page = shown.page.decode()

    (script,) = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    assert f"script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in shown.page_policy
    assert "default-src 'none'" in shown.page_policy
    assert "unsafe" not in shown.page_policy
    assert "'sha256-" in shown.page_policy.partition("style-src")[2]
    assert page.count("<script") == page.count("<style") == 1


def test_what_is_served_is_valid_json() -> None:
    shown = publication(document(), {})

    assert msgspec.json.decode(shown.openapi.content)["openapi"] == "3.1.0"
    assert re.fullmatch(rb'"[0-9a-f]{32}"', shown.openapi.tag)


def every_schema(value: Any) -> Iterator[dict[str, Any]]:
    """Every schema in a part of the document, nested ones included."""
    if isinstance(value, dict):
        schema = cast("dict[str, Any]", value)
        yield schema
        for item in schema.values():
            yield from every_schema(item)
    elif isinstance(value, list):
        for item in cast("list[Any]", value):
            yield from every_schema(item)


def test_generators_of_clients_are_told_the_type_of_everything_that_may_be_text() -> None:
    untyped = [
        choice
        for schema in every_schema(document())
        for choice in schema.get("anyOf", ())
        if not {"type", "$ref", "const", "enum"} & choice.keys()
    ]

    assert untyped == []


def test_generators_of_clients_are_told_what_they_do_not_find_out() -> None:
    for schema in every_schema(document()):
        if "pattern" in schema and schema.keys() != {"pattern"}:  # as in `not`
            assert "type" in schema, schema
        if schema.get("type") == "object":
            assert {"properties", "additionalProperties"} & schema.keys(), schema
        assert not ("enum" in schema and "type" not in schema), schema
        assert schema.get("items") is not False, schema


def test_what_a_request_may_say_of_earlier_ones_is_a_parameter_that_may_be_left_out() -> None:
    paths, kept = document()["paths"], document()["components"]["parameters"]

    assert {"$ref": "#/components/parameters/IfMatch"} in paths["/documents/{name}"]["put"]["parameters"]
    assert {"$ref": "#/components/parameters/IdempotencyKey"} in paths["/sessions"]["post"]["parameters"]
    assert not any(parameter.get("required") for parameter in kept.values())


def test_outsiders_know_nothing_by_the_names_that_we_have_for_what_goes_over_the_wire() -> None:
    assert [name for name in document()["components"]["schemas"] if name.endswith(("Body", "Input"))] == []


def test_what_may_be_left_out_of_a_body_has_no_default_that_would_make_it_demanded() -> None:
    described = document()["components"]["schemas"]

    assert described["NewSession"]["required"] == ["user_id"]
    assert [
        (name, field)
        for name, schema in described.items()
        for field, about in schema.get("properties", {}).items()
        if "default" in about
    ] == []


def test_a_pattern_is_a_regular_expression_of_python_too() -> None:
    patterns = [schema["pattern"] for schema in every_schema(document()) if isinstance(schema.get("pattern"), str)]

    assert len(patterns) > 10
    for pattern in patterns:
        re.compile(pattern)


def test_what_is_promised_to_be_printable_is() -> None:
    (_, promised) = document()["components"]["schemas"]["NewSession"]["properties"]["user_id"]["anyOf"]

    characters = [chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000]
    matching = [each for each in characters if re.fullmatch(promised["pattern"], each)]

    assert {"a", "é", "あ", "字", "한", "א", "€"} <= set(matching)
    assert [each for each in matching if not each.isprintable()] == []


def test_every_array_says_of_what() -> None:
    arrays = [schema for schema in every_schema(document()) if schema.get("type") == "array"]

    assert len(arrays) > 10
    assert [schema for schema in arrays if not {"items", "prefixItems"} & schema.keys()] == []
