"""API keys over REST: made, narrowed, rotated and revoked, and what is reported of it."""

from typing import Any

from roomkey.domain.access import Access, Grant, Role
from roomkey.security.events import SecurityEvent, SecurityEventType
from roomkey.security.narrowing import Narrowing, Scope
from tests.support.rest import Rest, documents_at_work


def watched(rest: Rest) -> list[SecurityEvent]:
    events: list[SecurityEvent] = []
    rest.events.listen(events.append)
    return events


async def key(rest: Rest, name: str = "worker", role: Role = Role.SERVICE, **only: Any) -> str:
    return (await rest.keys.create(name, role, only=Narrowing(**only), actor="test")).secret


async def test_a_key_is_made_used_rotated_and_revoked() -> None:
    rest = Rest()

    made = await rest.call("POST", "/keys", token=rest.admin, json={"name": "worker", "role": "service"})
    first = made.json["secret"]
    used = await rest.call("GET", "/sessions", token=first)
    rotated = await rest.call("POST", "/keys/worker/rotate", token=rest.admin, json={"overlap": 0})
    former = await rest.call("GET", "/sessions", token=first)
    current = await rest.call("GET", "/sessions", token=rotated.json["secret"])
    revoked = await rest.call("DELETE", "/keys/worker", token=rest.admin)
    after = await rest.call("GET", "/sessions", token=rotated.json["secret"])

    assert (made.status, made.header("location"), made.header("cache-control")) == (201, "/keys/worker", "no-store")
    assert rotated.header("cache-control") == "no-store"
    assert [answer.status for answer in (used, rotated, former, current, revoked, after)] == [
        200,
        200,
        401,
        200,
        204,
        401,
    ]
    assert (former.code, after.code) == ("invalid_token", "invalid_token")


async def test_lists_have_no_secret_and_say_what_stands_in_the_configuration() -> None:
    rest = Rest()
    made = (await rest.call("POST", "/keys", token=rest.admin, json={"name": "worker", "role": "auditor"})).json

    listed = await rest.call("GET", "/keys", token=rest.admin)
    one = await rest.call("GET", "/keys/worker", token=rest.admin)

    assert [(each["name"], each["is_configured"]) for each in listed.json["keys"]] == [
        ("backend", True),
        ("operator", True),
        ("worker", False),
    ]
    assert one.json == made["key"]
    assert made["secret"] not in (listed.body + one.body).decode()
    assert "digest" not in (listed.body + one.body).decode()


async def test_a_repeated_request_makes_one_key() -> None:
    rest = Rest()
    once = {"idempotency-key": "k1", "authorization": f"Bearer {rest.admin}"}

    first, second = [
        await rest.call("POST", "/keys", json={"name": "worker", "role": "service"}, headers=once) for _ in range(2)
    ]

    assert first.json == second.json
    assert second.header("idempotent-replayed") == "true"


async def test_keys_of_the_configuration_cannot_be_changed() -> None:
    rest = Rest()

    answers = [
        await rest.call("DELETE", "/keys/backend", token=rest.admin),
        await rest.call("POST", "/keys/backend/rotate", token=rest.admin),
        await rest.call("POST", "/keys", token=rest.admin, json={"name": "backend", "role": "admin"}),
    ]

    assert [(answer.status, answer.code) for answer in answers] == [
        (409, "key_configured"),
        (409, "key_configured"),
        (409, "key_exists"),
    ]


async def test_whoever_watches_is_told_of_every_change_and_every_refusal() -> None:
    rest = Rest()
    events = watched(rest)
    made = await rest.call(
        "POST", "/keys", token=rest.admin, json={"name": "worker", "role": "service", "lifetime": 60}
    )
    await rest.call("POST", "/keys/worker/rotate", token=rest.admin)
    rest.clock.advance(minutes=1)
    await rest.call("GET", "/sessions", token=made.json["secret"])
    await rest.call("GET", "/sessions", token="rkey_wrong")
    await rest.call("DELETE", "/keys/worker", token=rest.admin)
    session = await rest.session("alice")
    await rest.call("PUT", f"/sessions/{session.id}/grants", token=rest.admin, json={"grants": []})

    assert [(event.type, event.cause, event.actor) for event in events] == [
        (SecurityEventType.PRIVILEGE_CHANGE, "key_created", "key:operator"),
        (SecurityEventType.KEY_ROTATED, "key_rotated", "key:operator"),
        (SecurityEventType.UNAUTHORIZED_ACCESS, "key_refused", "anonymous"),
        (SecurityEventType.UNAUTHORIZED_ACCESS, "key_refused", "anonymous"),
        (SecurityEventType.PRIVILEGE_CHANGE, "key_revoked", "key:operator"),
        (SecurityEventType.PRIVILEGE_CHANGE, "grants_changed", "key:operator"),
    ]
    assert made.json["secret"] not in repr(events)


# --- keys that are narrowed ---------------------------------------------------------------------------


async def test_a_key_for_some_users_knows_nothing_of_the_others() -> None:
    rest = Rest()
    token = await key(rest, users=("tenant-1:",))
    mine, other = await rest.session("tenant-1:alice"), await rest.session("tenant-2:bob")
    missing = "00" + "a" * 26
    statuses: dict[str, list[int]] = {}
    for what, id in {"mine": mine.id, "other": other.id, "missing": missing}.items():
        commands = [("GET", ""), *(("PUT", f"/{name}") for name in ("suspend", "resume", "extend", "rotate", "expire"))]
        answers = [await rest.call(method, f"/sessions/{id}{path}", token=token) for method, path in commands]
        statuses[what] = [answer.status for answer in answers]
    batch = {"invalidate": [mine.id, other.id, missing]}
    found = (await rest.call("POST", "/sessions/batch", token=token, json=batch)).json["invalidated"]
    lists = [
        (await rest.call("GET", path, token=token)).status
        for path in ("/sessions", "/sessions?user_id=tenant-1:alice", "/sessions?user_id=tenant-2:bob")
    ]
    users = [
        (await rest.call("DELETE", f"/users/{user}/sessions", token=token)).status
        for user in ("tenant-1:x", "tenant-2:bob")
    ]
    created = [
        (await rest.call("POST", "/sessions", token=token, json={"user_id": user})).status
        for user in ("tenant-1:carol", "tenant-2:carol")
    ]

    assert statuses["mine"] == [200] * 6
    assert statuses["other"] == statuses["missing"] == [404] * 6
    assert [each["found"] for each in found] == [True, False, False]
    assert (lists, users, created) == ([403, 200, 403], [200, 404], [201, 403])
    assert (await rest.sessions.get_session(other.id)).state == "active"  # type: ignore[union-attr]


async def test_a_key_for_some_documents_sees_no_others_and_gives_no_others() -> None:
    async with documents_at_work() as rest:
        token = await key(rest, documents=("notes/**",))
        for name in ("notes%2Fa", "secret"):
            content = {"content-type": "application/json"}
            await rest.call("PUT", f"/documents/{name}", token=rest.admin, body=b"{}", headers=content)
        wide, narrow = (
            await rest.session("alice", Grant("**", Access.READ)),
            await rest.session("bob", Grant("notes/x", Access.ADMIN)),
        )

        reads = [
            (await rest.call("GET", f"/documents/{name}", token=token)).status
            for name in ("notes%2Fa", "secret", "none")
        ]
        listed = (await rest.call("GET", "/documents", token=token)).json
        issued = [
            (await rest.call("POST", "/sessions", token=token, json={"user_id": "u", "grants": grants})).status
            for grants in ([{"documents": "notes/*", "access": "admin"}], [{"documents": "**", "access": "read"}], [])
        ]
        changed = [
            (
                await rest.call(
                    "PUT",
                    f"/sessions/{narrow.id}/grants",
                    token=token,
                    json={"grants": [{"documents": each, "access": "read"}]},
                )
            ).status
            for each in ("notes/y", "secret")
        ]
        rotated = [
            (await rest.call("PUT", f"/sessions/{each.id}/rotate", token=token)).status for each in (narrow, wide)
        ]

        assert reads == [200, 404, 404]
        assert ([each["name"] for each in listed["documents"]], listed["next_cursor"]) == (["notes/a"], None)
        assert (issued, changed, rotated) == ([201, 403, 201], [200, 403], [200, 403])


async def test_sessions_that_are_granted_what_is_the_default_need_a_key_that_may_give_it() -> None:
    rest = Rest()
    rest.sessions.default_grants = (Grant("**", Access.WRITE),)
    token = await key(rest, documents=("notes/**",))

    answers = [
        await rest.call("POST", path, token=token, json=body)
        for path, body in (("/sessions", {"user_id": "u"}), ("/sessions/batch", {"create": [{"user_id": "u"}]}))
    ]

    assert [answer.status for answer in answers] == [403, 403]
    assert await rest.sessions.count_sessions() == 0


async def test_a_narrowed_operator_makes_renews_and_ends_no_key_that_can_do_more() -> None:
    rest = Rest()
    token = await key(rest, "helper", Role.ADMIN, scopes=(Scope.KEYS_WRITE, Scope.SESSIONS_READ))
    await key(rest, "wide")
    await key(rest, "narrow", scopes=(Scope.SESSIONS_READ,))

    made = [
        (await rest.call("POST", "/keys", token=token, json={"name": f"n{number}", "role": "admin", **only})).status
        for number, only in enumerate(
            ({}, {"only": {"scopes": ["sessions:read"]}}, {"only": {"scopes": ["sessions:issue"]}})
        )
    ]
    renewed = [(await rest.call("POST", f"/keys/{name}/rotate", token=token)).status for name in ("wide", "narrow")]
    ended = [(await rest.call("DELETE", f"/keys/{name}", token=token)).status for name in ("wide", "narrow")]

    assert (made, renewed, ended) == ([403, 201, 403], [403, 200], [403, 204])
