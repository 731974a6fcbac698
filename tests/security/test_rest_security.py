"""Attacks on the REST interface that must fail."""

import json
from datetime import timedelta
from typing import Any

import pytest
import structlog

from roomkey.api.operations import ApiSettings
from roomkey.domain.access import MAX_GRANTS, Access, Grant
from roomkey.domain.policy import SessionPolicy
from roomkey.security.tokens import mint, mint_id
from tests.support.rest import Answer, Rest, call

ORIGIN = "https://app.example.com"


# --- fixation -----------------------------------------------------------------------------------------


async def test_a_token_that_we_did_not_issue_is_never_adopted() -> None:
    rest = Rest()
    planted = mint(mint_id(7))

    carried: list[dict[str, str]] = [
        {"authorization": f"Bearer {planted}"},
        {"x-session-id": planted},
        {"cookie": f"__Host-roomkey={planted}"},
    ]
    for headers in carried:
        for path in ("/sessions/me", "/sessions", "/health"):
            answer = await rest.call("GET", path, headers=headers)
            assert (answer.status, answer.code) == (401, "invalid_token")
    created = await rest.call("POST", "/sessions", token=rest.service, json={"user_id": "victim"}, headers=carried[1])

    assert created.status == 201
    assert planted.partition(".")[0] not in created.body.decode()
    assert await rest.sessions.count_sessions() == 1


async def test_a_new_session_does_not_take_the_id_that_the_caller_wishes() -> None:
    rest = Rest()
    wish = {"user_id": "victim", "id": "00" + "a" * 26}

    answer = await rest.call("POST", "/sessions", token=rest.service, json=wish)

    assert answer.status == 422
    assert await rest.sessions.count_sessions() == 0


async def test_the_id_of_a_session_is_not_its_token() -> None:
    rest = Rest()
    issued = await rest.session()
    id, _, secret = issued.token.partition(".")

    for guess in (id, f"{id}.", f"{id}.{'A' * 43}", f"{mint_id(3)}.{secret}", issued.token + "=", issued.token[:-1]):
        answer = await rest.call("GET", "/sessions/me", token=guess)
        assert (answer.status, answer.code) == (401, "invalid_token")


# --- enumeration --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_what_belongs_to_others_looks_like_what_does_not_exist(method: str) -> None:
    rest = Rest()
    mine, other = await rest.session("alice"), await rest.session("bob")
    missing = mint_id(int(other.id[:2], 16))

    answers = [await rest.call(method, f"/sessions/{id}", token=mine.token) for id in (other.id, missing)]

    assert answers[0].status == 404
    assert answers[0].told == answers[1].told


@pytest.mark.parametrize("verb", ["activate", "suspend", "resume", "expire", "invalidate", "extend", "rotate"])
async def test_changing_what_belongs_to_others_tells_nothing(verb: str) -> None:
    rest = Rest()
    mine, other = await rest.session("alice"), await rest.session("bob")

    answers = [
        await rest.call("PUT", f"/sessions/{id}/{verb}", token=mine.token, headers={"if-match": '"9"'})
        for id in (other.id, mint_id(5))
    ]

    assert (answers[0].status, answers[0].body) == (answers[1].status, answers[1].body)
    assert answers[0].status in (403, 404)


async def test_users_cannot_be_enumerated() -> None:
    rest = Rest()
    mine = await rest.session("alice")
    await rest.session("bob")

    for method in ("GET", "DELETE"):
        known, unknown = [
            await rest.call(method, f"/users/{user}/sessions", token=mine.token) for user in ("bob", "nobody")
        ]
        assert (known.status, known.body) == (unknown.status, unknown.body)
        assert known.code == "not_found"


# --- header smuggling ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["authorization", "x-session-id", "host", "idempotency-key", "if-match", "origin"])
async def test_a_header_that_stands_twice_is_refused(name: str) -> None:
    rest = Rest()
    token = (await rest.session()).token
    value = f"Bearer {token}" if name == "authorization" else token
    headers = [(name, value), (name, value)]

    answer = await call(rest.app, "GET", "/sessions/me", headers=headers)

    assert (answer.status, answer.code) == (400, "malformed_request")


async def test_a_second_credential_in_the_same_header_opens_nothing() -> None:
    rest = Rest()
    token = (await rest.session()).token

    for value in (f"Bearer {token}, Bearer {rest.admin}", f"Bearer {token} {token}", f"Bearer {rest.admin},{token}"):
        answer = await rest.call("GET", "/sessions", headers={"authorization": value})
        assert (answer.status, answer.code) == (401, "invalid_token")


async def test_a_session_beside_a_key_does_not_lend_it_rights() -> None:
    rest = Rest()
    token = (await rest.session()).token

    answer = await rest.call(
        "POST",
        "/sessions",
        headers={"authorization": f"Bearer {token}", "x-session-id": rest.admin},
        json={"user_id": "mallory"},
    )

    assert (answer.status, answer.code) == (403, "forbidden")


async def test_an_authorization_for_somebody_else_is_left_to_them() -> None:
    rest = Rest()
    token = (await rest.session()).token

    statuses = [
        (await rest.call("GET", "/sessions/me", headers={"x-session-id": token, "authorization": value})).status
        for value in ("Basic YTpi", "", "Bearer", "bearer  ", "Bearer forged")
    ]

    assert statuses == [200, 401, 401, 401, 401]


async def test_a_key_counts_only_as_a_bearer_token() -> None:
    rest = Rest()

    for headers in ({"x-session-id": rest.admin}, {"cookie": f"__Host-roomkey={rest.admin}"}):
        answer = await rest.call("GET", "/sessions", headers=headers)
        assert (answer.status, answer.code) == (401, "invalid_token")


async def test_methods_cannot_be_overridden() -> None:
    rest = Rest()
    issued = await rest.session()

    await rest.call(
        "GET", f"/sessions/{issued.id}?_method=DELETE", token=rest.admin, headers={"x-http-method-override": "DELETE"}
    )

    assert await rest.sessions.validate_session(issued.id)


# --- cross-site requests ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 403),
        ("null", 403),
        ("https://evil.example.com", 403),
        (ORIGIN + ".evil.com", 403),
        ("http://app.example.com", 403),
        (ORIGIN, 204),
        ("http://rooms.example.com", 204),
    ],
)
async def test_a_cookie_logs_out_only_from_our_own_pages(origin: str | None, status: int) -> None:
    rest = Rest(settings=ApiSettings(allowed_origins=(ORIGIN,)))
    issued = await rest.session()
    headers = {"cookie": f"theme=dark; __Host-roomkey={issued.token}"} | ({"origin": origin} if origin else {})

    answer = await rest.call("DELETE", "/sessions/me", headers=headers)

    assert answer.status == status
    assert await rest.sessions.validate_session(issued.id) == (status == 403)
    if status == 403:
        assert answer.code == "origin_rejected"


async def test_reading_with_a_cookie_needs_no_origin() -> None:
    rest = Rest()
    token = (await rest.session()).token

    answer = await rest.call("GET", "/sessions/me", headers={"cookie": f"__Host-roomkey={token}"})

    assert answer.status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_what_a_foreign_page_may_send_unasked_is_not_read(kind: str) -> None:
    rest = Rest(dev=True)

    answer = await rest.call("POST", "/sessions", body=b'{"user_id":"mallory"}', headers={"content-type": kind})

    assert (answer.status, answer.code) == (415, "unsupported_media_type")
    assert await rest.sessions.count_sessions() == 0


# --- secrets ------------------------------------------------------------------------------------------


async def _mistakes(rest: Rest, token: str, id: str) -> list[Answer]:
    """Requests that go wrong, with ``token`` in every place where somebody may put it by mistake."""
    return [
        await rest.call("GET", f"/sessions/{token}", token=rest.service),
        await rest.call("GET", f"/nothing/{token}", token=token),
        await rest.call("GET", f"/sessions?cursor={token}&state={token}", token=rest.service),
        await rest.call("GET", f"/sessions?{token}=1", token=rest.service),
        await rest.call("GET", f"/sessions?token={token}"),
        await rest.call("DELETE", f"/users/{token}/sessions"),
        await rest.call("PUT", f"/sessions/{id}/suspend", token=token),
        await rest.call("PUT", f"/sessions/{id}/activate", token=token, headers={"if-match": token}),
        await rest.call("POST", "/sessions", token=rest.service, json={"user_id": "a", token: 1}),
        await rest.call(
            "POST",
            "/sessions",
            token=rest.service,
            json={"user_id": "a", "grants": [{"documents": "x", "access": token}]},
        ),
        await rest.call("POST", "/sessions", token=rest.service, body=token.encode()),
        await rest.call(
            "POST", "/sessions", token=rest.service, json={"user_id": "a"}, headers={"idempotency-key": token + " "}
        ),
        await rest.call("POST", "/sessions", token=rest.service, json={"user_id": "a"}, headers={"host": f"h/{token}"}),
        await rest.call("POST", "/sessions", token=token[:-1] + "x", json={"user_id": "a"}),
        await rest.call(token, "/sessions", token=rest.service),
    ]


async def test_errors_and_logs_do_not_repeat_secrets() -> None:
    rest = Rest()
    issued = await rest.session()
    ended = await rest.session("bob")
    await rest.sessions.invalidate_session(ended.id)

    with structlog.testing.capture_logs() as logs:
        answers = await _mistakes(rest, issued.token, issued.id)
        answers += await _mistakes(rest, ended.token, ended.id)
        answers += await _mistakes(rest, rest.admin, issued.id)

    secrets = [issued.token.partition(".")[2], ended.token.partition(".")[2], rest.admin]
    for answer in answers:
        assert answer.status < 500, answer
        assert not any(secret in answer.body.decode() for secret in secrets), answer
        assert not any(secret in str(answer.headers) for secret in secrets), answer
    assert not any(secret in str(logs) for secret in secrets)
    assert logs == []


async def test_a_token_is_shown_where_it_is_made_and_nowhere_else() -> None:
    rest = Rest()
    made = await rest.call("POST", "/sessions", token=rest.service, json={"user_id": "alice", "activate": True})
    id, token = made.json["session"]["id"], made.json["token"]
    secret = token.partition(".")[2]

    later = [
        await rest.call("GET", f"/sessions/{id}", token=rest.admin),
        await rest.call("GET", "/sessions", token=rest.admin),
        await rest.call("GET", "/sessions/me", token=token),
        await rest.call("POST", "/sessions/me/tickets", token=token),
        await rest.call("PUT", f"/sessions/{id}/extend", token=rest.admin),
    ]

    assert secret not in str(made.headers)
    assert secret not in made.json["websocket_url"]
    for answer in later:
        assert answer.status == 200
        assert secret not in answer.body.decode() + str(answer.headers)


async def test_nobody_on_the_way_keeps_what_is_about_sessions() -> None:
    rest = Rest()
    issued = await rest.session()

    for path in ("/sessions", "/sessions/me", f"/sessions/{issued.id}", "/users/alice/sessions", "/nothing"):
        answer = await rest.call("GET", path, token=issued.token)
        assert answer.header("cache-control") == "no-store"


# --- sessions that are over ---------------------------------------------------------------------------


async def test_an_overdue_session_opens_nothing() -> None:
    rest = Rest(policy=SessionPolicy(lifetime=timedelta(hours=8), idle_timeout=None))
    token = (await rest.session()).token
    rest.clock.advance(timedelta(hours=8))

    answer = await rest.call("GET", "/sessions/me", token=token)

    assert (answer.status, answer.code) == (410, "session_expired")


async def test_a_suspended_session_opens_nothing_until_it_is_resumed() -> None:
    rest = Rest()
    issued = await rest.session()
    await rest.call("PUT", f"/sessions/{issued.id}/suspend", token=rest.service)

    suspended = await rest.call("GET", "/sessions/me", token=issued.token)
    itself = await rest.call("PUT", f"/sessions/{issued.id}/resume", token=issued.token)
    await rest.call("PUT", f"/sessions/{issued.id}/resume", token=rest.service)
    resumed = await rest.call("GET", "/sessions/me", token=issued.token)

    assert (suspended.status, suspended.code) == (401, "session_suspended")
    assert itself.status == 401
    assert resumed.status == 200


# --- hostile input ------------------------------------------------------------------------------------

HOSTILE: list[Any] = [
    "' OR 1=1 --",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "%2e%2e%2f",
    "${jndi:ldap://x}",
    "a" * 256,
    "\U0001f600",
]


@pytest.mark.parametrize("text", HOSTILE)
async def test_text_is_data_and_nothing_else(text: str) -> None:
    rest = Rest()

    made = await rest.call("POST", "/sessions", token=rest.service, json={"user_id": text, "metadata": {"note": text}})
    found = await rest.call("GET", f"/sessions/{made.json['session']['id']}", token=rest.service)

    assert made.status == 201
    assert (found.json["user_id"], found.json["metadata"]) == (text, {"note": text})
    assert found.header("content-type") == "application/json"
    assert found.header("x-content-type-options") == "nosniff"


@pytest.mark.parametrize("user_id", ["a\x00b", "a\r\nSet-Cookie: x=1", "\u202etxt", "a\u2028b", "\x1b[31m", "é" * 129])
async def test_what_could_forge_lines_names_nobody(user_id: str) -> None:
    rest = Rest()

    answers = [
        await rest.call("POST", "/sessions", token=rest.service, json={"user_id": user_id}),
        await rest.call("POST", "/sessions", token=rest.service, json={"user_id": "a", "grants": _grant(user_id * 8)}),
    ]

    assert [answer.status for answer in answers] == [422, 422]
    assert await rest.sessions.count_sessions() == 0


def _grant(documents: str) -> list[dict[str, str]]:
    return [{"documents": documents, "access": "admin"}]


# --- grants -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("active", [True, False], ids=["active", "pending"])
async def test_no_session_gives_itself_or_its_sibling_other_grants(*, active: bool) -> None:
    rest = Rest()
    issued, sibling = await rest.session(active=active), await rest.session()

    answers = [
        await rest.call("PUT", f"/sessions/{id}/grants", token=issued.token, json={"grants": _grant("**")})
        for id in (issued.id, sibling.id, "me")
    ]

    assert [(answer.status, answer.code) for answer in answers] == [(403, "forbidden")] * 3
    for id in (issued.id, sibling.id):
        stored = await rest.sessions.get_session(id)
        assert stored is not None
        assert stored.grants == ()


@pytest.mark.parametrize(
    "body",
    [
        {"grants": [{"documents": "a", "access": "read"}] * (MAX_GRANTS + 1)},
        {"grants": [{"documents": "a" * 1025, "access": "read"}]},
        {"grants": [{"documents": "é" * 513, "access": "read"}]},
        {"grants": [{"documents": "", "access": "read"}]},
        {"grants": [{"documents": "a\x00", "access": "read"}]},
        {"grants": [{"documents": "a", "access": "owner"}]},
        {"grants": [{"documents": "a", "access": "read", "until": "monday"}]},
        {"grants": None},
        {"grants": [], "user_id": "mallory"},
        {},
    ],
    ids=lambda body: str(body)[:40],
)
async def test_grants_beyond_their_limits_change_nothing(body: dict[str, Any]) -> None:
    rest = Rest()
    id = (await rest.session()).id
    before = await rest.sessions.change_grants(id, [Grant("kept", Access.READ)])

    answer = await rest.call("PUT", f"/sessions/{id}/grants", token=rest.admin, json=body)

    assert (answer.status, answer.code) == (422, "invalid_input")
    assert await rest.sessions.get_session(id) == before


async def test_a_deep_body_does_not_reach_the_stack() -> None:
    rest = Rest()
    deep = '{"user_id":"a","metadata":{"x":' + "[" * 30_000 + "]" * 30_000 + "}}"

    answer = await rest.call("POST", "/sessions", token=rest.service, body=deep.encode())

    assert (answer.status, answer.code) == (400, "malformed_request")


async def test_a_large_body_is_refused_before_it_is_read() -> None:
    rest = Rest()
    body = json.dumps({"user_id": "a", "metadata": {"x": "y" * 70_000}}).encode()

    answer = await rest.call("POST", "/sessions", token=rest.service, body=body)
    stranger = await rest.call("POST", "/sessions", body=body)

    assert (answer.status, answer.code) == (413, "too_large")
    assert stranger.status == 401
