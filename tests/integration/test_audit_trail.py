"""What operators and people do through a whole node is found in its audit log, and proven, by those who may see it."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from msgspec.structs import replace

from roomkey import config
from roomkey.audit import proofs
from roomkey.audit.settings import AuditSettings
from roomkey.config import SecuritySettings
from roomkey.domain.access import Role
from roomkey.node import Node
from roomkey.security import apikeys
from roomkey.settings import SourcedValue

SECONDS = 10


class Desk:
    """A node and its callers."""

    def __init__(self, node: Node, keys: Mapping[str, str]) -> None:
        self.node = node
        self._keys = keys
        address = httpx.ASGITransport(node.app, client=("192.0.2.7", 1234))
        self._http = httpx.AsyncClient(transport=address, base_url="http://node")

    async def ask(self, method: str, path: str, *, who: str = "ops", **request: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self._keys.get(who, who)}", **request.pop("headers", {})}
        return await self._http.request(method, path, headers=headers, **request)

    async def session(self, user: str) -> tuple[str, str]:
        grants = [{"documents": "**", "access": "admin"}]
        body = {"user_id": user, "activate": True, "grants": grants, "client": {"ip": "198.51.100.9"}}
        issued = (await self.ask("POST", "/sessions", who="backend", json=body)).json()
        return issued["session"]["id"], issued["token"]

    async def write(self, document: str, token: str) -> None:
        text = {"content-type": "text/plain"}
        answer = await self.ask("PUT", f"/documents/{document}?root=text", who=token, content=b"x", headers=text)
        assert answer.status_code == 201

    async def erase(self, user: str) -> None:
        """What erasing a person does to the log."""
        trail = self.node.audit.trail
        assert trail is not None
        await trail.forget(user)

    async def entries(self, **conditions: str | int) -> list[dict[str, Any]]:
        answer = await self.ask("GET", "/audit", params=conditions)
        assert answer.status_code == 200, answer.text
        return answer.json()["entries"]

    async def found(self, type: str, **conditions: str | int) -> dict[str, Any]:
        """The newest entry of a type, when it is there."""
        async with asyncio.timeout(SECONDS):
            while not (entries := await self.entries(type=type, **conditions)):  # noqa: ASYNC110  # recorded by others
                await asyncio.sleep(0.02)
        return entries[0]


@asynccontextmanager
async def desk(folder: Path, **settings: Any) -> AsyncGenerator[Desk]:
    roles = {"ops": Role.ADMIN, "backend": Role.SERVICE}
    minted = {name: apikeys.mint() for name in roles}
    keys = tuple(apikeys.ApiKey(name, roles[name], digest) for name, (_, digest) in minted.items())
    loaded = config.load(None, {"storage.url": SourcedValue(f"lmdb://{folder}", "test")}, {})
    audit = AuditSettings(**settings)
    node = Node(replace(loaded, security=SecuritySettings(api_keys=keys), audit=audit))
    async with node.running():
        yield Desk(node, {name: token for name, (token, _) in minted.items()})


async def test_who_did_what_to_whom_when_from_where_and_how_it_ended(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        id, token = await here.session("alice")
        await here.ask("PUT", f"/sessions/{id}/suspend", json={"reason": "asked for"}, headers={"x-request-id": "r1"})
        await here.ask("GET", "/sessions/me", who=token)

        suspended = await here.found("session.suspended", session=id)
        command = await here.found("command.suspend", session=id)
        refused = await here.found("security.session_auth")
        created = await here.found("session.created", user_id="alice")

    assert (suspended["actor"], suspended["user_id"], suspended["reason"]) == ("key:ops", "alice", "asked for")
    assert suspended["event"][0] == int(id[:2], 16)
    assert (command["actor"], command["address"], command["request"]) == ("key:ops", "192.0.2.7", "r1")
    assert (command["outcome"], command["user_id"], command["node"]) == ("done", "alice", here.node.id)
    assert (refused["outcome"], refused["reason"], refused["address"]) == ("refused", "session_suspended", "192.0.2.7")
    assert (created["actor"], created["client"], created["personal"]) == (
        "key:backend",
        {"ip": "198.51.100.9"},
        "shown",
    )


async def test_looks_of_operators_at_others_are_recorded_and_own_looks_are_not(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        id, token = await here.session("alice")
        await here.write("plan", token)
        await here.ask("GET", "/sessions/me", who=token)
        await here.ask("GET", "/documents/plan", who=token)
        await here.ask("GET", f"/sessions/{id}", who="backend")
        await here.ask("GET", f"/sessions/{id}")
        await here.ask("GET", "/documents/plan")
        await here.ask("GET", "/health")

        seen = await here.found("view.get_session", user_id="alice")
        await here.found("view.get_document")
        views = {(each["type"], each["actor"], each.get("object")) for each in await here.entries(type="view")}

    assert (seen["actor"], seen["session"]) == ("key:ops", id)
    assert views - {("view.search_audit", "key:ops", None)} == {
        ("view.get_session", "key:ops", None),
        ("view.get_document", "key:ops", "plan"),
    }


async def test_what_becomes_of_documents_is_recorded_whoever_does_it(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        _, token = await here.session("alice")
        await here.write("plan", token)
        kept = await here.ask("POST", "/documents/plan/versions", who=token, json={"label": "first"})
        await here.ask("POST", f"/documents/plan/versions/{kept.json()['number']}/restore", who=token)
        await here.ask("GET", "/documents/plan/export", who=token)
        await here.ask("DELETE", "/documents/plan", who=token)

        deleted = await here.found("document.deleted")
        documents = [(each["type"], each["object"]) for each in await here.entries(type="document", user_id="alice")]

    assert (deleted["actor"], deleted["address"]) == ("user:alice", "192.0.2.7")
    number = kept.json()["number"]
    assert documents == [
        ("document.deleted", "plan"),
        ("document.exported", "plan"),
        ("document.restored", f"plan@{number}"),
        ("document.version_kept", "plan"),
    ]


async def test_a_revocation_comes_with_its_receipt_if_that_is_asked_for(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        _, token = await here.session("alice")
        prefer = {"prefer": "audit-receipt"}

        revoked = await here.ask("DELETE", "/users/alice/sessions", who=token, headers=prefer)
        without = await here.ask("DELETE", "/users/bob/sessions")

        said = revoked.json()["audit"]
        receipt = proofs.receipt(said["receipt"].encode())
        proven = proofs.verify(receipt, keys=here.node.audit.log.keys)
        entry = (await here.ask("GET", f"/audit/{said['index']}")).json()
    assert revoked.headers["preference-applied"] == "audit-receipt"
    assert revoked.headers["audit-index"] == str(said["index"]) == str(proven.index)
    assert b'"command.revoke_user"' in proven.entry
    assert (entry["actor"], entry["user_id"]) == ("user:alice", "alice")
    assert "audit" not in without.json()


async def test_an_erased_person_is_not_shown_any_more_and_every_proof_holds(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        id, _ = await here.session("alice")
        before = await here.found("session.created", user_id="alice")

        await here.erase("alice")

        after = await here.found("session.created", session=id)
        await here.ask("DELETE", "/users/bob/sessions", headers={"prefer": "audit-receipt"})  # until that is published
        report = (await here.ask("GET", "/audit/verify")).json()
    assert (before["personal"], before["user_id"]) == ("shown", "alice")
    assert (after["personal"], after.get("user_id"), after.get("client")) == ("erased", None, None)
    assert (report["sound"], report["findings"]) == (True, [])
    assert report["entries"] >= 2


async def test_pages_follow_one_another_in_both_orders(tmp_path: Path) -> None:
    async with desk(tmp_path, service_views=True) as here:
        for _ in range(7):
            await here.ask("GET", "/documents", who="backend")
        async with asyncio.timeout(SECONDS):
            while len(await here.entries(actor="key:backend")) < 7:  # noqa: ASYNC110  # recorded by others
                await asyncio.sleep(0.02)

        newest: list[int] = []
        cursor: str | None = None
        while cursor is not None or not newest:
            wanted: dict[str, Any] = {"actor": "key:backend", "limit": 3, **({"cursor": cursor} if cursor else {})}
            page = (await here.ask("GET", "/audit", params=wanted)).json()
            newest += [each["index"] for each in page["entries"]]
            cursor = page["next_cursor"]
        oldest = await here.entries(actor="key:backend", order="oldest", limit=500)

    assert len(newest) == 7
    assert newest == [each["index"] for each in reversed(oldest)]


async def test_with_which_settings_a_server_ran_is_recorded_and_no_secret_of_theirs(tmp_path: Path) -> None:
    async with desk(tmp_path) as first:
        pass
    async with desk(tmp_path) as here:
        await here.ask("DELETE", "/users/bob/sessions", headers={"prefer": "audit-receipt"})  # until all is written
        stopped, started = await here.found("node.stopped"), await here.found("node.started")

    assert stopped["node"] == first.node.id
    assert started["node"] == here.node.id
    assert started["details"] == {"storage.url": f"lmdb://{tmp_path}"}


async def test_only_auditors_read(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        _, token = await here.session("alice")
        answers = [
            await here.ask("GET", path, who=who)
            for who in ("backend", token)
            for path in ("/audit", "/audit/0", "/audit/verify")
        ]

    assert {answer.status_code for answer in answers} == {403}


async def test_what_cannot_be_found_is_said(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        missing = [await here.ask("GET", f"/audit/{index}") for index in ("999", "x", "9" * 30, "-1")]
        cursor = await here.ask("GET", "/audit", params={"cursor": "abc"})

    assert [answer.status_code for answer in missing] == [404] * 4
    assert cursor.json()["code"] == "unknown_cursor"


async def test_a_storage_in_memory_has_no_trail_unless_it_is_asked_for() -> None:
    assert Node(config.load(None, {"storage.url": SourcedValue("memory", "test")}, {})).audit.trail is None
    asked = {"storage.url": SourcedValue("memory", "test"), "audit.record": SourcedValue("on", "test")}
    assert Node(config.load(None, asked, {})).audit.trail is not None


async def test_the_trail_can_be_switched_off(tmp_path: Path) -> None:
    async with desk(tmp_path, record="off") as here:
        answer = await here.ask("GET", "/audit")

    assert answer.status_code == 404
