"""What one may not see is answered like what does not exist: status, body, headers, and what storage is asked for."""

from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, cast

import httpx
import pytest
from websockets.asyncio.client import connect

from roomkey.domain.access import Access, Grant, Role
from roomkey.domain.session import IssuedSession, SessionId
from tests.support.authority import BODIES, KINDS, MISSING_SESSION
from tests.support.documents import REFUSED, Site, a_site, hocuspocus_client, reason_of, token_message
from tests.support.editor import editing
from tests.support.rest import Answer, Rest, documents_at_work

MALFORMED: Final = ("x", "0" * 300, "00" + "A" * 26, "%00", "%F0%9F%94%91", "%FF")


class Counted:
    """What stands in front of a storage, and counts what it is asked for."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self.asked: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._storage, name)
        if callable(found):
            self.asked[name] += 1
        return found

    def since(self, before: Counter[str]) -> Counter[str]:
        """What it was asked for since then."""
        return self.asked - before


def whole(answer: Answer) -> tuple[int, list[tuple[str, str]], bytes]:
    """Everything that an answer says."""
    return answer.told


# --- sessions and users -------------------------------------------------------------------------------

ON_A_SESSION: Final = [
    ("GET", ""),
    ("DELETE", ""),
    *(
        ("PUT", f"/{command}")
        for command in ("activate", "suspend", "resume", "expire", "invalidate", "extend", "grants", "rotate")
    ),
]


@pytest.mark.parametrize(("method", "command"), ON_A_SESSION)
async def test_another_users_session_is_like_one_that_does_not_exist(method: str, command: str) -> None:
    rest = Rest()
    alice, bob = await rest.session("alice"), await rest.session("bob")
    suspended, ended = await rest.session("bob"), await rest.session("bob")
    await rest.sessions.suspend_session(suspended.id)
    await rest.sessions.invalidate_session(ended.id)
    storage = Counted(rest.storage)
    rest.sessions.storage = cast("Any", storage)
    ids = (bob.id, suspended.id, ended.id, MISSING_SESSION, MISSING_SESSION.replace("00", "ff"))
    body = BODIES["PUT /sessions/{id}/grants"] if command == "/grants" else None
    conditions: Sequence[Mapping[str, str]] = (
        {},
        {"if-match": '"2"'},
        {"if-match": '"2", "3"'},
        {"if-none-match": '"2"'},
    )
    for headers in conditions:
        answers = list[Any]()
        for id in (*ids, *MALFORMED):
            before = storage.asked.copy()
            bearer = {"authorization": f"Bearer {alice.token}", **headers}
            answer = await rest.call(method, f"/sessions/{id}{command}", json=body, headers=bearer)
            # What has not even the form of an id is known to be none by whoever asks.
            answers.append((whole(answer), storage.since(before) if id in ids else None))

        assert len({repr(told) for told, _ in answers}) == 1, headers
        assert len({repr(asked) for _, asked in answers[: len(ids)]}) == 1, headers


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_another_user_is_like_one_who_does_not_exist(method: str) -> None:
    rest = Rest()
    alice, _ = await rest.session("alice"), await rest.session("bob")
    storage = Counted(rest.storage)
    rest.sessions.storage = cast("Any", storage)

    told = list[Any]()
    for user in ("bob", "nobody"):
        before = storage.asked.copy()
        answers = [
            await rest.call(method, f"/users/{user}/sessions{query}", token=alice.token)
            for query in ("", "?limit=1", "?except=current")
        ]
        listed = await rest.call("GET", f"/sessions?user_id={user}", token=alice.token)
        told.append(([whole(answer) for answer in (*answers, listed)], storage.since(before)))

    assert told[0] == told[1]


async def test_a_wrong_secret_says_nothing_of_the_session_that_it_is_for() -> None:
    rest = Rest()
    states = {
        "active": await rest.session(),
        "pending": await rest.session(active=False),
        "suspended": await rest.session(),
        "ended": await rest.session(),
        "rotated": await rest.session(),
    }
    await rest.sessions.suspend_session(states["suspended"].id)
    await rest.sessions.invalidate_session(states["ended"].id)
    await rest.sessions.rotate_token(states["rotated"].id, states["rotated"].token)
    storage = Counted(rest.storage)
    rest.sessions.storage = cast("Any", storage)

    told = list[str]()
    for id in (*(issued.id for issued in states.values()), SessionId(MISSING_SESSION)):
        before = storage.asked.copy()
        answer = await rest.call("GET", "/sessions/me", token=f"{id}.{'A' * 43}")
        told.append(repr((whole(answer), storage.since(before))))

    assert len(set(told)) == 1


async def test_keys_are_nothing_to_those_who_may_not_see_them() -> None:
    rest = Rest()
    alice = await rest.session("alice")
    auditor = (await rest.keys.create("auditor", Role.AUDITOR, actor="test")).secret

    for token in (alice.token, auditor, rest.service, None):
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/rotate")):
            there, configured, missing = [
                whole(await rest.call(method, f"/keys/{name}{path}", token=token))
                for name in ("auditor", "backend", "none")
            ]
            assert there == configured == missing


async def test_every_wrong_key_is_like_every_other() -> None:
    rest = Rest()
    ended = (await rest.keys.create("ended", Role.ADMIN, lifetime=timedelta(seconds=1), actor="test")).secret
    revoked = (await rest.keys.create("revoked", Role.ADMIN, actor="test")).secret
    rotated = (await rest.keys.create("rotated", Role.ADMIN, actor="test")).secret
    await rest.keys.revoke("revoked")
    await rest.keys.rotate("rotated", overlap=timedelta(), actor="test")
    rest.clock.advance(seconds=1)

    answers = [whole(await rest.call("GET", "/keys", token=token)) for token in (ended, revoked, rotated, "rkey_x")]

    assert answers == [answers[0]] * 4
    assert answers[0][0] == 401


async def test_what_became_of_a_ticket_is_not_said() -> None:
    async with a_site() as site, httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.port}") as http:
        id, token = await site.session()
        tickets = list[str]()
        for _ in range(2):
            issued = await http.post("/sessions/me/tickets", headers={"authorization": f"Bearer {token}"})
            tickets.append(issued.json()["ticket"])
        async with connect(f"{site.address('/ws')}?ticket={tickets[0]}", proxy=None):
            used = await refused(http, "/ws", ticket=tickets[0])
        await site.caller.http.delete(f"/sessions/{id}")

        unknown = await refused(http, "/ws", ticket="A" * 43)
        gone = await refused(http, "/ws", ticket=tickets[1])

        assert unknown == gone == used
        assert unknown[0] == 401


UPGRADE: Final = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


async def refused(http: httpx.AsyncClient, path: str, token: str = "", **query: str) -> tuple[Any, ...]:
    """Everything that is said to a handshake that is refused, without the date and what may still be asked for."""
    bearer = {"authorization": f"Bearer {token}"} if token else {}
    answer = await http.get(path, params=query, headers={**UPGRADE, **bearer})
    headers = [(name, value) for name, value in answer.headers.multi_items() if name not in ("date", "ratelimit")]
    return answer.status_code, answer.content, headers


# --- documents ----------------------------------------------------------------------------------------

ON_A_DOCUMENT: Final = (
    "GET ",
    "PUT ",
    "PATCH ",
    "DELETE ",
    "GET /versions",
    "POST /versions",
    "GET /versions/1",
    "GET /versions/1/diff",
    "POST /versions/1/restore",
    "GET /blame",
    "GET /export",
    "POST /import",
)


@asynccontextmanager
async def a_library() -> AsyncGenerator[tuple[Rest, IssuedSession, bytes]]:
    """A hidden document with a version, a session that may not see it, and an export."""
    async with documents_at_work() as rest:
        content = {"content-type": "application/json"}
        for name in ("hidden", "mine%2Fa", "mine%2Fb"):
            await rest.call("PUT", f"/documents/{name}", token=rest.admin, body=b'{"content":"x"}', headers=content)
        await rest.call("POST", "/documents/hidden/versions", token=rest.admin)
        exported = (await rest.call("GET", "/documents/hidden/export", token=rest.admin)).body
        yield rest, await rest.session("alice", Grant("mine/**", Access.ADMIN)), exported


@pytest.mark.parametrize("operation", ON_A_DOCUMENT)
async def test_a_hidden_document_is_like_one_that_does_not_exist(operation: str) -> None:
    async with a_library() as (rest, alice, exported):
        assert rest.open_documents is not None
        store = Counted(rest.open_documents.store)
        rest.open_documents.store = cast("Any", store)
        method, path = operation.split(" ")
        conditions: Sequence[Mapping[str, str]] = (
            {},
            {"if-match": "*"},
            {"if-none-match": "*"},
            {"accept": "image/png"},
        )
        bodies = {"/import": exported, "": b'{"content":"y"}' if method in ("PUT", "PATCH") else b""}
        kind = KINDS.get(f"{method} /documents/{{name}}{path}", "application/json")
        for condition in conditions:
            told = list[Any]()
            for name in ("hidden", "missing"):
                before = store.asked.copy()
                headers = {"content-type": kind, **condition}
                answer = await rest.call(
                    method, f"/documents/{name}{path}", token=alice.token, body=bodies.get(path, b""), headers=headers
                )
                told.append((whole(answer), store.since(before)))

            assert told[0] == told[1]
            assert told[0][0][0] == 404


async def test_a_list_is_the_same_whether_or_not_there_are_hidden_documents() -> None:
    told = list[Any]()
    for hidden in ((), ("mine0", "mine%2Fx%2Fdeep", "a", "minf", "z", "mine%2Faa%2Fb")):
        async with documents_at_work() as rest:
            content = {"content-type": "application/json"}
            for name in (*hidden, "mine%2Fa", "mine%2Fb", "mine%2Fc", "other"):
                await rest.call("PUT", f"/documents/{name}", token=rest.admin, body=b"{}", headers=content)
            alice = await rest.session("alice", Grant("mine/*", Access.READ), Grant("other", Access.READ))
            pages = list[Any]()
            for prefix in ("", "m", "mine/", "mine/x", "mine/aa/", "z", "mine0", "oth"):
                for limit in (1, 2, 50):
                    cursor = ""
                    while cursor is not None:
                        path = f"/documents?limit={limit}&prefix={prefix}{cursor}"
                        page = (await rest.call("GET", path, token=alice.token)).json
                        pages.append(([each["name"] for each in page["documents"]], page["next_cursor"]))
                        cursor = None if page["next_cursor"] is None else f"&cursor={page['next_cursor']}"
            told.append(pages)

    assert told[0] == told[1]
    assert (["mine/a", "mine/b", "mine/c", "other"], None) in told[0]


async def test_a_list_that_would_take_too_long_is_refused_and_names_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roomkey.api.document_lists.MAX_LOOKED_AT", 4)
    monkeypatch.setattr("roomkey.api.document_lists.STEP", 2)
    async with documents_at_work() as rest:
        content = {"content-type": "application/json"}
        for number in range(6):
            await rest.call("PUT", f"/documents/d%2F{number}%2Fx", token=rest.admin, body=b"{}", headers=content)
        alice = await rest.session("alice", Grant("d/*", Access.READ))

        answer = await rest.call("GET", "/documents", token=alice.token)
        narrower = await rest.call("GET", "/documents?prefix=d/5", token=alice.token)

        assert (answer.status, answer.code) == (422, "invalid_input")
        assert (narrower.status, narrower.json["documents"]) == (200, [])


async def test_over_sockets_a_hidden_document_is_like_one_that_does_not_exist() -> None:
    async with a_site() as site, httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.port}") as http:
        content = {"content-type": "application/json"}
        assert (await http.put("/documents/hidden", content=b'{"content":"x"}', headers=content)).status_code == 201
        token = await site.token("alice", ("mine", "write"))

        handshakes = [await refused(http, f"/yjs/{name}", token) for name in ("hidden", "missing")]
        shown = [await _hocuspocus(site, token, name) for name in ("hidden", "missing")]
        async with editing(site.address("/ws"), token) as editor:
            asked = [await editor.ask("subscribe", {"document": name}) for name in ("hidden", "missing")]
            edits = [await editor.edit(name, text="x") for name in ("hidden", "missing")]

        assert handshakes[0] == handshakes[1]
        assert handshakes[0][0] == 403
        assert shown[0] == shown[1] == ["forbidden"]
        for first, second in (asked, edits):
            assert _without_names(first) == _without_names(second)
            assert "FORBIDDEN" in repr(first)


async def _hocuspocus(site: Site, token: str, name: str) -> list[str]:
    async with hocuspocus_client(site) as client:
        await client.say(name, token_message(token))
        return [reason_of(await client.hear(name, REFUSED))]


def _without_names(message: Any) -> Any:
    """A message without what the client has said itself, and without the time."""
    if isinstance(message, dict):
        entries = cast("dict[str, Any]", message)
        return {
            name: _without_names(value) for name, value in entries.items() if name not in ("id", "timestamp", "ref")
        }
    return str(message).replace("hidden", "?").replace("missing", "?")
