"""The REST interface from outside: what can be done with sessions over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from roomkey.api.operations import ApiSettings
from roomkey.domain.access import Access, Grant
from roomkey.domain.policy import OnCap, SessionPolicy
from roomkey.transports import BODY_DEADLINE
from tests.support.loops import in_no_time
from tests.support.rest import Rest, call, served

HOUR = timedelta(hours=1)
NESTED = b'{"user_id":"a","metadata":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001


async def test_a_session_lives_from_creation_to_revocation() -> None:
    rest = Rest()

    created = await rest.call("POST", "/sessions", token=rest.service, json={"user_id": "alice"})
    id, token = created.json["session"]["id"], created.json["token"]
    early = await rest.call("POST", "/sessions/me/tickets", token=token)
    activated = await rest.call("PUT", f"/sessions/{id}/activate", token=token)
    mine = await rest.call("GET", "/sessions/me", token=token)
    revoked = await rest.call("PUT", f"/sessions/{id}/invalidate", token=rest.admin, json={"reason": "left"})
    late = await rest.call("GET", "/sessions/me", token=token)

    assert (created.status, created.header("location")) == (201, f"/sessions/{id}")
    assert created.json["websocket_url"] == "ws://rooms.example.com/ws"
    assert (early.status, early.code) == (403, "session_pending")
    assert [answer.json["state"] for answer in (activated, mine, revoked)] == ["active", "active", "invalidated"]
    assert (late.status, late.code) == (410, "session_invalidated")


async def test_every_transition_has_its_place() -> None:
    rest = Rest()
    id = (await rest.session(active=False)).id

    states: list[str] = []
    for verb in ("activate", "suspend", "resume", "extend", "rotate", "expire", "invalidate"):
        answer = await rest.call("PUT", f"/sessions/{id}/{verb}", token=rest.service)
        assert answer.status == 200, verb
        assert answer.header("cache-control") == "no-store"
        states.append(answer.json["session"]["state"] if verb == "rotate" else answer.json["state"])

    assert states == ["active", "suspended", "active", "active", "active", "expired", "invalidated"]


async def test_what_a_state_does_not_allow_changes_nothing_and_names_both() -> None:
    rest = Rest()
    id = (await rest.session(active=False)).id

    refused = await rest.call("PUT", f"/sessions/{id}/suspend", token=rest.service)

    assert (refused.status, refused.code) == (409, "invalid_state")
    assert "pending" in refused.json["detail"]
    assert "suspended" in refused.json["detail"]
    assert (await rest.call("GET", f"/sessions/{id}", token=rest.service)).json["version"] == 1


async def test_asking_again_for_what_holds_changes_nothing() -> None:
    rest = Rest()
    id = (await rest.session()).id

    again = await rest.call("PUT", f"/sessions/{id}/activate", token=rest.service)

    assert (again.status, again.header("etag")) == (200, '"2"')


async def test_a_session_is_made_as_it_was_asked_for() -> None:
    rest = Rest()
    wish = {
        "user_id": "alice",
        "client": {"ip": "203.0.113.7", "user_agent": None, "device": "laptop"},
        "grants": [{"documents": "notes/**", "access": "write"}],
        "lifetime": 3600,
        "metadata": {"theme": "dark", "nested": {"list": [1, 2.5, None, True]}},
        "activate": True,
    }

    session = (await rest.call("POST", "/sessions", token=rest.service, json=wish)).json["session"]

    assert {name: session[name] for name in ("user_id", "client", "grants", "metadata")} == {
        name: wish[name] for name in ("user_id", "client", "grants", "metadata")
    }
    assert (session["state"], session["version"]) == ("active", 2)
    assert session["created_at"] == "2026-03-01T12:00:00Z"
    assert session["expires_at"] == "2026-03-01T13:00:00Z"
    assert session == (await rest.call("GET", f"/sessions/{session['id']}", token=rest.service)).json


async def test_a_lifetime_beyond_the_policy_is_refused() -> None:
    rest = Rest(policy=SessionPolicy(lifetime=HOUR))
    id = (await rest.session()).id

    answers = [
        await rest.call("POST", "/sessions", token=rest.service, json={"user_id": "a", "lifetime": 3601}),
        await rest.call("PUT", f"/sessions/{id}/extend", token=rest.service, json={"lifetime": 3601}),
    ]

    assert [(answer.status, answer.code) for answer in answers] == [(422, "invalid_input")] * 2


async def test_a_session_is_extended_from_now_on() -> None:
    rest = Rest()
    issued = await rest.session()
    rest.clock.advance(timedelta(minutes=30))

    answer = await rest.call("PUT", f"/sessions/{issued.id}/extend", token=rest.service, json={"lifetime": 86400})

    assert answer.json["expires_at"] == "2026-03-02T12:30:00Z"


async def test_grants_are_replaced_and_the_same_ones_change_nothing() -> None:
    rest = Rest()
    id = (await rest.session()).id
    wish = {"grants": [{"documents": "notes/**", "access": "read"}]}

    first = await rest.call("PUT", f"/sessions/{id}/grants", token=rest.service, json=wish)
    second = await rest.call("PUT", f"/sessions/{id}/grants", token=rest.service, json=wish)
    found = await rest.call("GET", f"/sessions/{id}", token=rest.service)

    assert (first.status, first.header("etag")) == (200, '"3"')
    assert first.json["grants"] == wish["grants"]
    assert first.json == second.json == found.json


async def test_grants_are_changed_only_if_the_version_matches() -> None:
    rest = Rest()
    id = (await rest.session()).id
    wish = {"grants": [{"documents": "**", "access": "read"}]}

    refused = await rest.call(
        "PUT", f"/sessions/{id}/grants", token=rest.service, json=wish, headers={"if-match": '"1"'}
    )
    done = await rest.call("PUT", f"/sessions/{id}/grants", token=rest.service, json=wish, headers={"if-match": '"2"'})

    assert (refused.status, refused.code) == (412, "version_mismatch")
    assert (done.status, done.header("etag")) == (200, '"3"')


async def test_an_ended_session_gets_no_other_grants() -> None:
    rest = Rest()
    id = (await rest.session()).id
    await rest.sessions.invalidate_session(id)

    refused = await rest.call("PUT", f"/sessions/{id}/grants", token=rest.service, json={"grants": []})

    assert (refused.status, refused.code) == (409, "invalid_state")


async def test_one_too_many_is_refused_if_the_policy_says_so() -> None:
    rest = Rest(policy=SessionPolicy(cap=1, on_cap=OnCap.REFUSE))
    await rest.session("alice")

    refused = await rest.call("POST", "/sessions", token=rest.service, json={"user_id": "alice"})

    assert (refused.status, refused.code) == (409, "cap_reached")


# --- who asks for itself, and where -------------------------------------------------------------------


async def test_the_device_is_whoever_asks_for_itself_and_not_a_backend() -> None:
    development, production = Rest(dev=True), Rest()
    asked: dict[str, Any] = {"json": {"user_id": "a"}, "headers": {"user-agent": "Firefox"}}

    own = await development.call("POST", "/sessions", **asked)
    others = await production.call("POST", "/sessions", token=production.service, **asked)

    assert own.json["session"]["client"] == {"ip": "198.51.100.1", "user_agent": "Firefox", "device": None}
    assert others.json["session"]["client"] is None


async def test_sockets_are_opened_where_the_operator_says() -> None:
    rest = Rest(settings=ApiSettings(public_url="https://rooms.example.org/live/"))

    created = await rest.call("POST", "/sessions", token=rest.service, json={"user_id": "a"})

    assert created.json["websocket_url"] == "wss://rooms.example.org/live/ws"


@pytest.mark.parametrize(
    ("public_url", "expected"),
    [
        ("https://rooms.example.org", "wss://rooms.example.org/mounted/ws"),
        ("https://rooms.example.org/", "wss://rooms.example.org/ws"),
        ("https://rooms.example.org/live", "wss://rooms.example.org/live/ws"),
    ],
)
async def test_an_origin_of_the_operator_is_completed_by_the_mount_and_a_whole_address_is_not(
    public_url: str, expected: str
) -> None:
    rest = Rest(settings=ApiSettings(public_url=public_url))

    created = await rest.call("POST", "/sessions", token=rest.service, json={"user_id": "a"}, root="/mounted")
    contract = await rest.call("GET", "/openapi.json", root="/mounted")

    assert created.json["websocket_url"] == expected
    assert contract.json["servers"] == [{"url": expected.replace("wss:", "https:").removesuffix("/ws")}]


async def test_over_tls_sockets_are_opened_over_tls() -> None:
    rest = Rest()

    created = await rest.call("POST", "/sessions", token=rest.service, json={"user_id": "a"}, scheme="https")

    assert created.json["websocket_url"] == "wss://rooms.example.com/ws"


async def test_a_host_that_is_none_gets_no_session() -> None:
    rest = Rest()
    asked: dict[str, Any] = {"json": {"user_id": "a"}, "headers": {"host": "evil.example/path?"}}

    refused = await rest.call("POST", "/sessions", token=rest.service, **asked)

    assert (refused.status, refused.code) == (400, "malformed_request")
    assert await rest.sessions.count_sessions() == 0


async def test_the_interface_may_be_mounted_anywhere() -> None:
    rest = Rest()
    host = Starlette(routes=[Mount("/rooms", rest.app)])
    headers = [("authorization", f"Bearer {rest.service}"), ("content-type", "application/json")]

    created = await call(host, "POST", "/rooms/sessions", headers=headers, body=b'{"user_id":"a"}')
    found = await call(host, "GET", created.header("location"), headers=headers[:1])
    contract = await call(host, "GET", "/rooms/openapi.json")
    missing = await call(host, "GET", "/rooms/nothing")

    assert created.json["websocket_url"] == "ws://rooms.example.com/rooms/ws"
    assert created.header("location") == f"/rooms/sessions/{created.json['session']['id']}"
    assert found.status == 200
    assert contract.json["servers"] == [{"url": "/rooms"}]
    assert missing.code == "not_found"


# --- lists --------------------------------------------------------------------------------------------


async def test_following_the_cursors_meets_everybody_once() -> None:
    rest = Rest()
    expected = {(await rest.session(f"user{number}")).id for number in range(25)}

    met: list[str] = []
    path = "/sessions?limit=4"
    while path:
        page = (await rest.call("GET", path, token=rest.service)).json
        assert len(page["sessions"]) <= 4
        met += [session["id"] for session in page["sessions"]]
        path = f"/sessions?limit=4&cursor={page['next_cursor']}" if page["next_cursor"] else ""

    assert len(met) == 25
    assert set(met) == expected


async def test_a_user_is_listed_oldest_first_page_by_page() -> None:
    rest = Rest()
    ids: list[str] = []
    for _ in range(5):
        ids.append((await rest.session("alice")).id)
        rest.clock.advance(timedelta(seconds=1))
    await rest.session("bob")

    first = (await rest.call("GET", "/users/alice/sessions?limit=3", token=rest.service)).json
    second = (
        await rest.call("GET", f"/users/alice/sessions?limit=3&cursor={first['next_cursor']}", token=rest.service)
    ).json

    assert [session["id"] for session in first["sessions"] + second["sessions"]] == ids
    assert second["next_cursor"] is None


async def test_conditions_are_combined() -> None:
    rest = Rest()
    early = await rest.session("alice")
    rest.clock.advance(HOUR / 2)
    await rest.session("alice", active=False)
    late = await rest.session("alice")
    await rest.session("bob")

    async def ids(query: str) -> list[str]:
        answer = await rest.call("GET", f"/sessions?{query}", token=rest.service)
        return [session["id"] for session in answer.json["sessions"]]

    assert await ids("user_id=alice&state=active") == [early.id, late.id]
    assert await ids("user_id=alice&state=active&created_after=2026-03-01T12:00:00Z") == [late.id]
    assert await ids("user_id=alice&state=active&created_before=2026-03-01T12:30:00Z") == [early.id]
    assert await ids("user_id=nobody") == []


@pytest.mark.parametrize(
    "path", ["/sessions?cursor=zz", "/sessions?user_id=a&cursor=zz", "/users/a/sessions?cursor=zz"]
)
async def test_a_cursor_that_is_none_of_ours_leads_nowhere(path: str) -> None:
    rest = Rest()

    answer = await rest.call("GET", path, token=rest.service)

    assert (answer.status, answer.code) == (404, "unknown_cursor")


async def test_users_may_have_slashes_in_their_names() -> None:
    rest = Rest()
    await rest.session("https://id.example.com/alice")

    async with httpx.AsyncClient(transport=httpx.ASGITransport(rest.app), base_url="http://rooms") as client:
        answer = await client.get(
            "/users/https%3A%2F%2Fid.example.com%2Falice/sessions",
            headers={"authorization": f"Bearer {rest.service}"},
        )

    assert [session["user_id"] for session in answer.json()["sessions"]] == ["https://id.example.com/alice"]


# --- batches ------------------------------------------------------------------------------------------


async def test_a_batch_creates_and_invalidates() -> None:
    rest = Rest()
    old = [(await rest.session("alice")).id, (await rest.session("bob")).id]
    unknown = "00" + "a" * 26

    answer = await rest.call(
        "POST",
        "/sessions/batch",
        token=rest.service,
        json={
            "invalidate": [*old, unknown],
            "reason": "new term",
            "create": [{"user_id": "carol"}, {"user_id": "dave", "activate": True}],
        },
    )

    assert answer.status == 200
    assert [entry["found"] for entry in answer.json["invalidated"]] == [True, True, False]
    created = answer.json["created"]
    assert [(each["session"]["user_id"], each["session"]["state"]) for each in created] == [
        ("carol", "pending"),
        ("dave", "active"),
    ]
    assert (await rest.sessions.authenticate(created[1]["token"])).user_id == "dave"
    assert not await rest.sessions.validate_session(old[0])


@pytest.mark.parametrize("wrong", [{"lifetime": -1}, {"lifetime": 10**6}, {"metadata": {"x": "y" * 5000}}])
async def test_a_batch_that_is_wrong_somewhere_does_nothing(wrong: dict[str, Any]) -> None:
    rest = Rest()
    id = (await rest.session()).id

    answer = await rest.call(
        "POST",
        "/sessions/batch",
        token=rest.service,
        json={"invalidate": [id], "create": [{"user_id": "a"}, {"user_id": "b", **wrong}]},
    )

    assert (answer.status, answer.code) == (422, "invalid_input")
    assert await rest.sessions.validate_session(id)
    assert await rest.sessions.count_sessions() == 1


async def test_a_batch_beyond_the_cap_creates_nothing() -> None:
    rest = Rest(policy=SessionPolicy(cap=2))

    answer = await rest.call(
        "POST", "/sessions/batch", token=rest.service, json={"create": [{"user_id": "b"}] + [{"user_id": "a"}] * 3}
    )

    assert (answer.status, answer.code) == (409, "cap_reached")
    assert await rest.sessions.count_sessions() == 0


# --- my session and my user ---------------------------------------------------------------------------


async def test_logging_out_ends_the_session_and_clears_the_cookie() -> None:
    rest = Rest()
    token = (await rest.session()).token

    out = await rest.call("DELETE", "/sessions/me", token=token)

    assert (out.status, out.body) == (204, b"")
    assert out.header("set-cookie").startswith("__Host-roomkey=; Max-Age=0")
    assert (await rest.call("GET", "/sessions/me", token=token)).status == 410


async def test_a_ticket_opens_one_handshake() -> None:
    rest = Rest()
    issued = await rest.session()

    answer = await rest.call("POST", "/sessions/me/tickets", token=issued.token)

    assert (answer.status, answer.json["expires_in"]) == (200, 30)
    redeemed = [await rest.tickets.redeem(answer.json["ticket"]) for _ in range(2)]
    assert redeemed == [issued.id, None]


async def test_rotating_replaces_the_token_after_its_grace() -> None:
    rest = Rest()
    issued = await rest.session()

    rotated = await rest.call("PUT", f"/sessions/{issued.id}/rotate", token=issued.token)
    racer = await rest.call("PUT", f"/sessions/{issued.id}/rotate", token=issued.token)
    rest.clock.advance(timedelta(seconds=31))
    late = await rest.call("GET", "/sessions/me", token=issued.token)
    after = await rest.call("GET", "/sessions/me", token=rotated.json["token"])

    assert set(rotated.json) == {"session", "token"}
    assert racer.json["token"] == rotated.json["token"] != issued.token
    assert (late.status, late.code) == (401, "token_rotated")
    assert after.status == 200  # a second tab ends nothing


async def test_a_token_that_two_parties_use_ends_the_session_for_both() -> None:
    rest = Rest()
    issued = await rest.session()
    victim, thief = [("user-agent", "Firefox/140.0 Linux")], [("user-agent", "curl/8.0")]

    rotated = await rest.call("PUT", f"/sessions/{issued.id}/rotate", token=issued.token, headers=thief)
    rest.clock.advance(timedelta(seconds=31))
    refused = await rest.call("GET", "/sessions/me", token=issued.token, headers=victim)
    after = await rest.call("GET", "/sessions/me", token=rotated.json["token"], headers=thief)

    assert (refused.status, refused.code) == (401, "token_reused")
    assert (after.status, after.code) == (410, "session_invalidated")


async def test_logging_out_everywhere_else() -> None:
    rest = Rest()
    mine, other = await rest.session("alice"), await rest.session("alice")
    bob = await rest.session("bob")

    answer = await rest.call("DELETE", "/users/alice/sessions?except=current", token=mine.token)

    assert (answer.status, answer.json) == (200, {"epoch": 1, "revoked": 1})
    assert [await rest.sessions.validate_session(each.id) for each in (mine, other, bob)] == [True, False, True]


async def test_revoking_a_user_ends_every_session() -> None:
    rest = Rest()
    sessions = [await rest.session("alice") for _ in range(3)]

    answer = await rest.call("DELETE", "/users/alice/sessions", token=rest.service)

    assert answer.json["revoked"] == 3
    for each in sessions:
        assert (await rest.call("GET", "/sessions/me", token=each.token)).status == 410


async def test_only_a_session_has_a_current_one() -> None:
    rest = Rest()
    issued = await rest.session("alice")

    answer = await rest.call("DELETE", "/users/alice/sessions?except=current", token=rest.service)

    assert (answer.status, answer.code) == (403, "forbidden")
    assert await rest.sessions.validate_session(issued.id)


async def test_a_deleted_session_is_gone() -> None:
    rest = Rest()
    issued = await rest.session()

    answers = [await rest.call("DELETE", f"/sessions/{issued.id}", token=rest.service) for _ in range(2)]

    assert [answer.status for answer in answers] == [204, 404]
    assert (await rest.call("GET", f"/sessions/{issued.id}", token=rest.service)).code == "not_found"
    assert (await rest.call("GET", "/sessions/me", token=issued.token)).code == "invalid_token"


# --- conditions ---------------------------------------------------------------------------------------


async def test_what_has_not_changed_is_not_sent_again() -> None:
    rest = Rest()
    issued = await rest.session()
    for path in (f"/sessions/{issued.id}", "/sessions/me"):
        first = await rest.call("GET", path, token=issued.token)

        again = await rest.call("GET", path, token=issued.token, headers={"if-none-match": first.header("etag")})

        assert (again.status, again.body, again.header("etag")) == (304, b"", '"2"')


async def test_a_change_happens_only_to_the_version_that_was_seen() -> None:
    rest = Rest()
    issued = await rest.session()
    path = f"/sessions/{issued.id}"

    late = await rest.call("PUT", f"{path}/suspend", token=rest.service, headers={"if-match": '"1"'})
    either = await rest.call("PUT", f"{path}/suspend", token=rest.service, headers={"if-match": '"1", "2"'})
    weak = await rest.call("PUT", f"{path}/resume", token=rest.service, headers={"if-match": 'W/"3"'})
    any = await rest.call("PUT", f"{path}/resume", token=rest.service, headers={"if-match": "*"})
    deleted = await rest.call("DELETE", path, token=rest.service, headers={"if-match": '"3"'})

    assert (late.status, late.code) == (412, "version_mismatch")
    assert (either.status, either.json["state"]) == (200, "suspended")
    assert weak.status == 412
    assert (any.status, any.header("etag")) == (200, '"4"')
    assert deleted.status == 412
    assert await rest.sessions.validate_session(issued.id)


@pytest.mark.parametrize("condition", ["2", '"2', "abc"])
async def test_a_malformed_condition_changes_nothing(condition: str) -> None:
    rest = Rest()
    id = (await rest.session()).id

    refused = await rest.call("DELETE", f"/sessions/{id}", token=rest.service, headers={"if-match": condition})

    assert (refused.status, refused.code) == (400, "malformed_request")
    assert await rest.sessions.validate_session(id)


async def test_what_does_not_exist_has_no_version() -> None:
    rest = Rest()
    path = "/sessions/" + "00" + "a" * 26

    for condition in ('"1"', '"1", "2"', "*"):
        answer = await rest.call("PUT", f"{path}/suspend", token=rest.service, headers={"if-match": condition})
        assert answer.status == 404


# --- requests that are sent again ---------------------------------------------------------------------


async def test_a_request_that_is_sent_again_creates_one_session() -> None:
    rest = Rest()
    asked: dict[str, Any] = {"json": {"user_id": "alice"}, "headers": {"idempotency-key": "8e03978e"}}

    first = await rest.call("POST", "/sessions", token=rest.service, **asked)
    again = await rest.call("POST", "/sessions", token=rest.service, **asked)
    other_caller = await rest.call("POST", "/sessions", token=rest.admin, **asked)

    assert (again.status, again.json) == (201, first.json)
    assert (first.header("idempotent-replayed"), again.header("idempotent-replayed")) == ("", "true")
    assert again.header("location") == first.header("location")
    assert other_caller.json["session"]["id"] != first.json["session"]["id"]
    assert await rest.sessions.count_sessions() == 2


async def test_a_key_belongs_to_one_body_and_one_operation() -> None:
    rest = Rest()
    key = {"idempotency-key": "k"}
    await rest.call("POST", "/sessions", token=rest.service, json={"user_id": "alice"}, headers=key)

    refused = [
        await rest.call("POST", "/sessions", token=rest.service, json={"user_id": "bob"}, headers=key),
        await rest.call("POST", "/sessions/batch", token=rest.service, json={}, headers=key),
    ]

    assert [(answer.status, answer.code) for answer in refused] == [(422, "idempotency_key_reused")] * 2
    assert await rest.sessions.count_sessions() == 1


async def test_a_request_that_failed_may_be_corrected() -> None:
    rest = Rest(policy=SessionPolicy(cap=1, on_cap=OnCap.REFUSE))
    first = await rest.session("alice")
    asked: dict[str, Any] = {"json": {"user_id": "alice"}, "headers": {"idempotency-key": "k"}}

    refused = await rest.call("POST", "/sessions", token=rest.service, **asked)
    await rest.sessions.invalidate_session(first.id)
    done = await rest.call("POST", "/sessions", token=rest.service, **asked)

    assert (refused.status, done.status) == (409, 201)


async def test_a_ticket_that_is_asked_for_again_is_the_same() -> None:
    rest = Rest()
    token = (await rest.session()).token

    tickets = [
        (await rest.call("POST", "/sessions/me/tickets", token=token, headers={"idempotency-key": "k"})).json["ticket"]
        for _ in range(2)
    ]

    assert tickets[0] == tickets[1]


async def test_a_key_that_is_none_is_refused() -> None:
    rest = Rest()

    answer = await rest.call(
        "POST", "/sessions", token=rest.service, json={"user_id": "a"}, headers={"idempotency-key": "a b"}
    )

    assert (answer.status, answer.code) == (400, "malformed_request")


# --- bodies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"nope", b'{"user_id":"\\ud800"}', NESTED])
async def test_what_is_not_json_is_malformed(body: bytes) -> None:
    rest = Rest()

    answer = await rest.call(
        "POST", "/sessions", token=rest.service, body=body, headers={"content-type": "application/json"}
    )

    assert (answer.status, answer.code) == (400, "malformed_request")


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b'{"user_id":"a","metadata":{"x":1e999}}'])
async def test_json_that_is_something_else_fails_the_schema(body: bytes) -> None:
    rest = Rest()

    answer = await rest.call("POST", "/sessions", token=rest.service, body=body)

    assert (answer.status, answer.code) == (422, "invalid_input")
    assert answer.json["errors"]


async def test_metadata_has_a_bound_in_bytes() -> None:
    rest = Rest()

    answer = await rest.call(
        "POST", "/sessions", token=rest.service, json={"user_id": "a", "metadata": {"x": "y" * 4096}}
    )

    assert (answer.status, answer.code) == (422, "invalid_input")


async def test_a_body_in_parts_is_refused_as_soon_as_it_is_too_large() -> None:
    rest = Rest()
    headers = {"content-type": "application/json", "transfer-encoding": "chunked"}

    small = await rest.call(
        "POST", "/sessions", token=rest.service, body=[b'{"user', b'_id":', b'"a"}'], headers=headers
    )
    large = await rest.call("POST", "/sessions", token=rest.service, body=[b" " * 40_000] * 2, headers=headers)

    assert small.status == 201
    assert (large.status, large.code) == (413, "too_large")
    assert large.header("connection") == "close"


async def test_a_body_without_a_type_is_not_guessed_at() -> None:
    rest = Rest()
    headers = [("authorization", f"Bearer {rest.service}")]

    answer = await call(rest.app, "POST", "/sessions", headers=headers, body=[b'{"user_id":"a"}'])

    assert (answer.status, answer.code) == (415, "unsupported_media_type")


async def test_a_body_that_may_be_left_out_is_checked_when_it_is_there() -> None:
    rest = Rest()
    id = (await rest.session()).id

    answer = await rest.call("PUT", f"/sessions/{id}/suspend", token=rest.service, json={"reson": "typo"})

    assert (answer.status, answer.json["errors"][0]["detail"]) == (422, "there is no `reson`")
    assert await rest.sessions.validate_session(id)


# --- paths and methods --------------------------------------------------------------------------------


async def test_what_is_not_there_is_a_problem_too() -> None:
    rest = Rest()

    for path in ("/", "/sessions/", "/session", "/sessions/a/b/c", "/users//sessions/x"):
        answer = await rest.call("GET", path, token=rest.admin)
        assert (answer.status, answer.code) == (404, "not_found"), path


async def test_a_wrong_method_learns_every_right_one() -> None:
    rest = Rest()

    answer = await rest.call("PATCH", "/sessions", token=rest.admin)
    options = await rest.call("OPTIONS", "/sessions")

    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert answer.header("allow") == options.header("allow") == "GET, HEAD, OPTIONS, POST"
    assert options.status == 204


async def test_a_head_says_what_a_get_would() -> None:
    rest = Rest()
    issued = await rest.session()

    get = await rest.call("GET", "/sessions/me", token=issued.token)
    head = await rest.call("HEAD", "/sessions/me", token=issued.token)

    assert head.told == (*get.told[:2], b"")


# --- the service itself -------------------------------------------------------------------------------


async def test_health_is_told_to_anyone_and_figures_to_operators() -> None:
    rest = Rest()
    await rest.session()

    answers = [await rest.call("GET", "/health", token=token) for token in (None, rest.service, rest.admin)]

    assert [set(answer.json) for answer in answers[:2]] == [{"status", "timestamp"}] * 2
    assert answers[2].json["sessions_count"] == 1
    assert answers[2].json["checks"]["storage"] == "ok"
    assert answers[2].json["memory_usage"] > 0


async def test_a_bad_credential_is_refused_even_where_none_is_needed() -> None:
    rest = Rest()

    answer = await rest.call("GET", "/health", token="rkey_forged")

    assert (answer.status, answer.code) == (401, "invalid_token")


async def test_probes_tell_alive_from_ready() -> None:
    rest = Rest()
    ready = await rest.call("GET", "/health/ready")
    rest.draining = True

    draining = await rest.call("GET", "/health/ready")
    alive = await rest.call("GET", "/health/live")

    assert (ready.status, ready.json) == (200, {"status": "ready"})
    assert (draining.status, draining.code) == (503, "draining")
    assert (alive.status, alive.json) == (200, {"status": "alive"})


async def test_the_contract_and_its_page_are_there_for_anyone() -> None:
    rest = Rest()

    contract = await rest.call("GET", "/openapi.json")
    again = await rest.call("GET", "/openapi.json", headers={"if-none-match": contract.header("etag")})
    sockets = await rest.call("GET", "/asyncapi.json")
    page = await rest.call("GET", "/docs")

    assert (contract.json["openapi"], sockets.json["asyncapi"]) == ("3.1.0", "3.0.0")
    assert contract.json["servers"] == [{"url": "/"}]
    assert (again.status, again.body) == (304, b"")
    assert page.header("content-type") == "text/html; charset=utf-8"
    policy = [value for name, value in page.headers if name == "content-security-policy"]
    assert len(policy) == 1
    assert "'sha256-" in policy[0]


async def test_a_real_server_answers_as_many_as_come_at_once() -> None:
    rest = Rest(policy=SessionPolicy(cap=100))

    with served(rest.app) as url:
        async with (
            httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {rest.service}"}) as client,
            asyncio.timeout(20),
        ):
            answers = await asyncio.gather(
                *(client.post("/sessions", json={"user_id": f"user{number % 7}"}) for number in range(50))
            )
            chunked = await client.post(
                "/sessions", content=_in_parts(b'{"user_id":', b'"a"}'), headers={"content-type": "application/json"}
            )

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["token"] for answer in answers}) == 50
    assert chunked.status_code == 201


async def _in_parts(*parts: bytes) -> AsyncIterator[bytes]:
    for each in parts:
        yield each


# --- bodies that are late -----------------------------------------------------------------------------


async def create_slowly(rest: Rest, seconds: float, **scope: Any) -> int:
    """The status that a session gets whose body comes after ``seconds``."""
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(seconds)
        return {"type": "http.request", "body": b'{"user_id":"a"}'}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = {"host": "x", "content-type": "application/json", "authorization": f"Bearer {rest.service}"}
    request = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": "/sessions",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await rest.app({**request, **scope}, receive, send)
    return sent[0]["status"]


@in_no_time
async def test_a_body_has_a_deadline_here_unless_the_server_has_one() -> None:
    rest = Rest(settings=ApiSettings(body_timeout=timedelta(seconds=20)))

    assert await create_slowly(rest, 19) == 201
    assert await create_slowly(rest, 21) == 408
    assert await create_slowly(rest, 21, extensions={"tls": {}}) == 408
    assert await create_slowly(rest, 21, extensions={BODY_DEADLINE: {}}) == 201


# --- history --------------------------------------------------------------------------------------------


async def test_the_history_of_a_session_has_actor_reason_and_time() -> None:
    rest = Rest()
    issued = await rest.session("alice", Grant("notes/**", Access.WRITE))
    await rest.call("PUT", f"/sessions/{issued.id}/suspend", token=rest.admin, json={"reason": "under review"})

    answer = await rest.call("GET", f"/sessions/{issued.id}/events", token=rest.service)
    first = await rest.call("GET", f"/sessions/{issued.id}/events?limit=1", token=rest.service)
    cursor = first.json["next_cursor"]
    second = await rest.call("GET", f"/sessions/{issued.id}/events?limit=1&cursor={cursor}", token=rest.service)
    wrong = await rest.call("GET", f"/sessions/{issued.id}/events?cursor=abc", token=rest.service)

    events = answer.json["events"]
    assert [(each["type"], each["actor"], each["reason"], each["version"]) for each in events] == [
        ("created", "system", None, 1),
        ("activated", "system", None, 2),
        ("suspended", "key:operator", "under review", 3),
    ]
    assert events[0]["grants"] == [{"documents": "notes/**", "access": "write"}]
    assert "grants" not in events[2]
    assert [each["type"] for each in first.json["events"] + second.json["events"]] == ["created", "activated"]
    assert (wrong.status, wrong.code) == (404, "unknown_cursor")
