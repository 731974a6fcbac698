"""Who may do what: every operation, asked by everyone."""

from collections.abc import Mapping
from typing import Any, Final

import pytest

from roomkey.api.app import ROUTES
from tests.support.rest import Rest

WHO: Final = ("nobody", "service", "admin", "own", "pending", "sibling", "stranger")
"""
Who asks: a session about itself, active and pending; another one of the same user; one of another user.
"""

# A row names the operation, and for everyone in WHO the status. The path is about the session `own`, or for
# `pending` about itself; `/sessions/me` is about whoever asks.
TABLE: Final = {
    "GET /sessions": (401, 200, 200, 200, 403, 200, 200),
    "POST /sessions": (401, 201, 201, 403, 403, 403, 403),
    "POST /sessions/batch": (401, 200, 200, 403, 403, 403, 403),
    "GET /sessions/me": (401, 403, 403, 200, 200, 200, 200),
    "DELETE /sessions/me": (401, 403, 403, 204, 204, 204, 204),
    "POST /sessions/me/tickets": (401, 403, 403, 200, 403, 200, 200),
    "GET /sessions/{id}": (401, 200, 200, 200, 200, 200, 404),
    "GET /sessions/{id}/events": (401, 200, 200, 403, 403, 403, 403),
    "DELETE /sessions/{id}": (401, 204, 204, 204, 204, 204, 404),
    "PUT /sessions/{id}/activate": (401, 200, 200, 200, 200, 403, 404),
    "PUT /sessions/{id}/suspend": (401, 200, 200, 403, 403, 403, 403),
    "PUT /sessions/{id}/resume": (401, 200, 200, 403, 403, 403, 403),
    "PUT /sessions/{id}/expire": (401, 200, 200, 403, 403, 403, 403),
    "PUT /sessions/{id}/invalidate": (401, 200, 200, 200, 200, 403, 404),
    "PUT /sessions/{id}/extend": (401, 200, 200, 403, 403, 403, 403),
    "PUT /sessions/{id}/grants": (401, 200, 200, 403, 403, 403, 403),
    "PUT /sessions/{id}/recheck": (401, 200, 200, 403, 403, 403, 403),
    "PUT /sessions/{id}/rotate": (401, 200, 200, 200, 200, 403, 404),
    "PUT /sessions/{id}/reauthenticate": (401, 200, 200, 403, 403, 403, 403),
    "GET /users/{user_id:path}/sessions": (401, 200, 200, 200, 403, 200, 404),
    "DELETE /users/{user_id:path}/sessions": (401, 200, 200, 200, 403, 200, 404),
    "GET /groups": (401, 200, 200, 403, 403, 403, 403),
    "GET /groups/{group}": (401, 404, 404, 403, 403, 403, 403),
    "PUT /groups/{group}": (401, 201, 201, 403, 403, 403, 403),
    "DELETE /groups/{group}": (401, 404, 404, 403, 403, 403, 403),
    "GET /keys": (401, 403, 200, 403, 403, 403, 403),
    "POST /keys": (401, 403, 201, 403, 403, 403, 403),
    "GET /keys/{key_name}": (401, 403, 404, 403, 403, 403, 403),
    "DELETE /keys/{key_name}": (401, 403, 404, 403, 403, 403, 403),
    "POST /keys/{key_name}/rotate": (401, 403, 404, 403, 403, 403, 403),
    "GET /health": (200, 200, 200, 200, 200, 200, 200),
    "GET /health/live": (200, 200, 200, 200, 200, 200, 200),
    "GET /health/ready": (200, 200, 200, 200, 200, 200, 200),
    "GET /openapi.json": (200, 200, 200, 200, 200, 200, 200),
    "GET /asyncapi.json": (200, 200, 200, 200, 200, 200, 200),
    "GET /docs": (200, 200, 200, 200, 200, 200, 200),
}

BODIES: Final[Mapping[str, Any]] = {
    "POST /sessions": {"user_id": "carol"},
    "POST /sessions/batch": {"create": [{"user_id": "carol"}]},
    "POST /keys": {"name": "worker", "role": "service"},
    "PUT /groups/{group}": {"grants": []},
    "PUT /sessions/{id}/grants": {"grants": [{"documents": "**", "access": "admin"}]},
}

REFUSALS: Final = {
    *("credentials_missing", "forbidden", "session_pending"),
    *("not_found", "key_not_found", "group_not_found"),
}

CELLS: Final = [
    (operation, who, status) for operation, row in TABLE.items() for who, status in zip(WHO, row, strict=True)
]


def test_the_table_knows_every_operation() -> None:
    operations = {f"{method} {path}" for path, methods in ROUTES.items() for method in methods}

    # Those find out themselves who is calling.
    assert set(TABLE) == operations - {"POST /login", "POST /logout", "POST /sessions/exchange"}


@pytest.mark.parametrize(("operation", "who", "status"), CELLS)
async def test_everyone_may_do_what_the_table_says(operation: str, who: str, status: int) -> None:
    rest = Rest()
    own, sibling = await rest.session("alice"), await rest.session("alice")
    pending, stranger = await rest.session("alice", active=False), await rest.session("bob")
    about = pending if who == "pending" else own
    tokens = {
        "nobody": None,
        "service": rest.service,
        "admin": rest.admin,
        "own": own.token,
        "pending": pending.token,
        "sibling": sibling.token,
        "stranger": stranger.token,
    }
    method, _, path = operation.partition(" ")
    path = path.replace("{id}", about.id).replace("{user_id:path}", "alice").replace("{group}", "team-7")

    answer = await rest.call(method, path, token=tokens[who], json=BODIES.get(operation))

    assert answer.status == status
    if status >= 400:
        assert answer.code in REFUSALS
        assert ("www-authenticate" in dict(answer.headers)) == (status == 401)


@pytest.mark.parametrize(("operation", "who", "status"), [cell for cell in CELLS if cell[2] in (401, 403, 404)])
async def test_who_may_not_changes_nothing(operation: str, who: str, status: int) -> None:
    rest = Rest()
    sessions = {
        "own": await rest.session("alice"),
        "sibling": await rest.session("alice"),
        "pending": await rest.session("alice", active=False),
        "stranger": await rest.session("bob"),
    }
    tokens = {name: issued.token for name, issued in sessions.items()} | {
        "service": rest.service,
        "admin": rest.admin,
    }
    about = sessions["pending" if who == "pending" else "own"]
    method, _, path = operation.partition(" ")
    path = path.replace("{id}", about.id).replace("{user_id:path}", "alice").replace("{group}", "team-7")
    before = await rest.sessions.get_sessions([issued.id for issued in sessions.values()])

    answer = await rest.call(method, path, token=tokens.get(who), json=BODIES.get(operation))

    assert answer.status == status
    assert await rest.sessions.get_sessions([issued.id for issued in sessions.values()]) == before
    assert await rest.sessions.count_sessions() == len(sessions)


async def test_a_pending_session_sees_nothing_but_itself() -> None:
    rest = Rest()
    pending, sibling = await rest.session("alice", active=False), await rest.session("alice")

    for method in ("GET", "DELETE"):
        for id in (sibling.id, "00" + "a" * 26):
            answer = await rest.call(method, f"/sessions/{id}", token=pending.token)
            assert (answer.status, answer.code) == (403, "session_pending")


async def test_a_session_lists_its_own_user_and_no_other() -> None:
    rest = Rest()
    alice, _ = await rest.session("alice"), await rest.session("bob")

    own = await rest.call("GET", "/sessions", token=alice.token)
    named = await rest.call("GET", "/sessions?user_id=alice", token=alice.token)
    other = await rest.call("GET", "/sessions?user_id=bob", token=alice.token)
    nobody = await rest.call("GET", "/sessions?user_id=nobody", token=alice.token)

    assert own.json == named.json
    assert [session["id"] for session in own.json["sessions"]] == [alice.id]
    assert (other.status, other.body) == (nobody.status, nobody.body)
    assert other.code == "forbidden"


# --- development --------------------------------------------------------------------------------------


async def test_in_development_anyone_may_do_what_a_key_may() -> None:
    rest = Rest(dev=True)

    created = await rest.call("POST", "/sessions", json={"user_id": "alice"})
    id = created.json["session"]["id"]
    statuses = [
        (await rest.call("PUT", f"/sessions/{id}/activate")).status,
        (await rest.call("GET", "/sessions")).status,
        (await rest.call("DELETE", "/users/alice/sessions")).status,
    ]
    health = await rest.call("GET", "/health")

    assert (created.status, statuses) == (201, [200, 200, 200])
    assert "sessions_count" in health.json


async def test_in_development_nobody_is_a_session_who_has_none() -> None:
    rest = Rest(dev=True)

    answer = await rest.call("GET", "/sessions/me")

    assert (answer.status, answer.code) == (401, "credentials_missing")


async def test_in_development_a_bad_credential_is_still_bad() -> None:
    rest = Rest(dev=True)

    for headers in (
        {"authorization": "Bearer rkey_forged"},
        {"authorization": "Bearer forged"},
        {"authorization": "Bearer"},
        {"authorization": "Basic YTpi"},
        {"x-session-id": "forged"},
        {"x-session-id": ""},
        {"cookie": "__Host-roomkey=forged"},
    ):
        answer = await rest.call("GET", "/sessions", headers=headers)
        assert (answer.status, answer.code) == (401, "invalid_token"), headers


async def test_in_development_a_session_stays_a_session() -> None:
    rest = Rest(dev=True)
    token = (await rest.session()).token

    answer = await rest.call("POST", "/sessions", token=token, json={"user_id": "mallory"})

    assert (answer.status, answer.code) == (403, "forbidden")
