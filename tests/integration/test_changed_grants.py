"""Grants that an operator changes hold for open sockets before the operator is answered."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self, cast

import pytest

from roomkey.ports import DocumentStore
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.wire import lib0
from tests.support.calls import Caller, calling
from tests.support.documents import (
    APPLIED,
    AWARENESS,
    DENIED,
    NOT_APPLIED,
    REFUSED,
    SCOPE,
    STEP1,
    UPDATE,
    a_site,
    content_of,
    edit,
    entries_of,
    hocuspocus_client,
    reason_of,
    shown,
    text_of,
    token_message,
    y_client,
)
from tests.support.editor import JsonEditor, editing
from tests.support.server import running_server


@asynccontextmanager
async def a_desk(storage: str) -> AsyncGenerator[tuple[Caller, JsonEditor, JsonEditor, str]]:
    """An operator, two editors in the document ``plan``, alice's and bob's, and the id of alice's session."""
    async with running_server(storage=storage) as server, calling(server) as operator:
        id, token = await operator.session("alice")
        _, bobs = await operator.session("bob")
        async with editing(server.websocket_url, token) as alice, editing(server.websocket_url, bobs) as bob:
            await alice.subscribe("plan")
            await bob.subscribe("plan")
            yield operator, alice, bob, id


async def grant(operator: Caller, id: str, *grants: tuple[str, str]) -> None:
    body = {"grants": [{"documents": documents, "access": access} for documents, access in grants]}
    answer = await operator.http.put(f"/sessions/{id}/grants", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["grants"] == body["grants"]


@pytest.mark.parametrize("storage", ["memory", "lmdb"])
async def test_the_edit_after_the_answer_is_refused_and_reading_goes_on(storage: str, tmp_path: Path) -> None:
    address = "memory" if storage == "memory" else f"lmdb://{tmp_path / 'store'}"
    async with a_desk(address) as (operator, alice, bob, id):
        before = (await alice.edit("plan", text="before"))["position"]

        await grant(operator, id, ("plan", "read"))
        refused = await alice.edit("plan", text="after")
        from_bob = (await bob.edit("plan", text="from bob"))["position"]

        assert refused["code"] == "FORBIDDEN"
        assert (await alice.next("realtime_edit"))["text"] == "from bob"
        assert from_bob["offset"] == before["offset"] + 1


async def test_a_socket_is_put_out_of_a_document_before_the_answer_and_let_in_again_after_another() -> None:
    async with a_desk("memory") as (operator, alice, bob, id):
        await grant(operator, id, ("elsewhere", "write"))
        await bob.edit("plan", text="secret")
        out = await alice.next("unsubscribed")
        closed = (await alice.ask("subscribe", {"document": "plan"}))["payload"]

        await grant(operator, id, ("plan", "write"))
        position = (await alice.subscribe("plan"))["position"]
        await alice.edit("plan", text="back")

        assert (out["document"], out["error"]["code"]) == ("plan", "FORBIDDEN")
        assert closed["code"] == "FORBIDDEN"
        assert position["offset"] == 1
        assert (await bob.next("realtime_edit"))["text"] == "back"


async def test_whoever_writes_without_a_pause_gets_nothing_in_after_the_answer() -> None:
    async with a_desk("memory") as (operator, alice, bob, id):
        for number in range(50):
            await alice.send("realtime_edit", {"document": "plan", "text": str(number)})

        await grant(operator, id, ("plan", "read"))
        last = (await bob.edit("plan", text="mark"))["position"]
        refused = [await alice.edit("plan", text="late") for _ in range(3)]
        after = (await bob.edit("plan", text="mark"))["position"]

        assert [answer["code"] for answer in refused] == ["FORBIDDEN"] * 3
        assert after["offset"] == last["offset"] + 1


# --- documents that merge -----------------------------------------------------------------------------


class HeldStore:
    """A store of documents that answers a ``load`` when it is let."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def __aenter__(self) -> Self:
        await self._store.__aenter__()
        return self

    async def __aexit__(self, *details: object) -> None:
        await self._store.__aexit__(None, None, None)

    async def load(self, name: str) -> Any:
        self.asked.set()
        await self.may_answer.wait()
        return await self._store.load(name)


ANA: Final = 7
"""A Yjs client of alice's."""

FORBIDDEN: Final = REFUSED + lib0.text("forbidden")


async def test_of_many_documents_on_one_socket_those_that_are_lost_fall_silent_and_the_others_go_on() -> None:
    async with a_site() as site, hocuspocus_client(site) as alice, y_client(site, await site.token("bob")) as bob:
        id, token = await site.session("alice", ("**", "write"))
        for address in ("plan", "plan\0more", "mine"):
            await alice.show(address, token)
        await bob.next(STEP1)

        await site.change_grants(id, ("mine", "write"))
        heard = await alice.heard()
        await bob.send(edit("secret"), shown((9, 1, b"{}")))
        await bob.heard()
        await alice.say("plan", edit("late"), shown((ANA, 1, b"{}")))
        await alice.say("mine", edit("mine"))
        await alice.hear("mine", APPLIED)
        after = await alice.heard()

        assert [frame for frame in heard if FORBIDDEN in frame] == [
            yjs.address(address) + FORBIDDEN for address in ("plan", "plan\0more")
        ]
        assert [frame for frame in after if b"plan" in frame] == []
        assert text_of(await bob.missing()) == "secret"


async def test_whoever_loses_a_document_is_not_shown_in_it_any_more() -> None:
    async with a_site() as site, y_client(site, await site.token("bob")) as bob:
        id, token = await site.session("alice", ("plan", "write"))
        async with y_client(site, token) as alice, hocuspocus_client(site) as other:
            await alice.send(shown((ANA, 1, b'{"cursor":1}')))
            await other.show("plan", token)
            await other.say("plan", shown((ANA + 1, 1, b'{"cursor":2}')))
            seen = [entries_of(await bob.next(AWARENESS))[0][0] for _ in range(2)]

            await site.change_grants(id)
            gone = [entries_of(await bob.next(AWARENESS)) for _ in range(2)]

            assert set(seen) == {ANA, ANA + 1}
            assert {(client, state) for entries in gone for client, _, state in entries} == {
                (ANA, b"null"),
                (ANA + 1, b"null"),
            }
            assert await alice.end() == (4403, "forbidden")


async def test_whoever_may_only_read_now_is_still_shown_and_still_hears() -> None:
    async with a_site() as site, y_client(site, await site.token("bob")) as bob:
        id, token = await site.session("alice", ("plan", "write"))
        async with y_client(site, token) as alice:
            await alice.next(STEP1)
            await site.change_grants(id, ("plan", "read"))
            await alice.send(edit("refused"), shown((ANA, 1, b"{}")))
            await bob.send(edit("heard"))

            assert entries_of(await bob.next(AWARENESS))[0][0] == ANA
            assert text_of(content_of(await alice.next(UPDATE))) == "heard"
            assert text_of(await bob.missing()) == "heard"


@pytest.mark.parametrize(("access", "scope"), [("read", "readonly"), (None, None)])
async def test_what_waits_for_a_document_that_is_being_opened_is_judged_by_the_grants_of_then(
    access: str | None, scope: str | None
) -> None:
    async with a_site(store=HeldStore) as site, hocuspocus_client(site) as alice:
        held = cast("HeldStore", site.node.documents.store)
        id, token = await site.session("alice", ("plan", "write"))
        await alice.say("plan", token_message(token), edit("late"))
        await held.asked.wait()

        await site.change_grants(id, *([("plan", access)] if access else []))
        held.may_answer.set()
        if scope is None:
            assert reason_of(await alice.hear("plan", REFUSED)) == "forbidden"
        else:
            assert reason_of(await alice.hear("plan", SCOPE)) == scope
            await alice.hear("plan", NOT_APPLIED)

        async with y_client(site, await site.token("bob")) as bob:
            assert await bob.missing() == lib0.EMPTY_UPDATE


@pytest.mark.parametrize("access", ["read", None])
async def test_grants_that_change_during_a_handshake_hold_for_its_socket(access: str | None) -> None:
    async with a_site(store=HeldStore) as site:
        held = cast("HeldStore", site.node.documents.store)
        id, token = await site.session("alice", ("plan", "write"))

        async def connect() -> tuple[int, str] | str:
            async with y_client(site, token) as alice:
                return await alice.end() if access is None else reason_of(await alice.next(DENIED))

        async with asyncio.TaskGroup() as group:
            connecting = group.create_task(connect())
            await held.asked.wait()
            await site.change_grants(id, *([("plan", access)] if access else []))
            held.may_answer.set()

        assert connecting.result() == ("read-only" if access else (4403, "forbidden"))


# --- presence and requests ----------------------------------------------------------------------------


async def test_others_see_at_once_that_somebody_was_put_out() -> None:
    async with a_desk("memory") as (operator, alice, bob, id):
        await alice.send("user_presence", {"document": "plan", "status": "typing"})
        while (await bob.next("user_presence"))["status"] != "typing":
            pass

        await grant(operator, id)
        left = await bob.next("user_presence")

        assert (left["session_info"]["user_id"], left["status"]) == ("alice", "offline")


@pytest.mark.parametrize(("grants", "status"), [([("plan", "read")], 403), ([], 404), ([("plan", "write")], 201)])
async def test_a_request_whose_body_takes_its_time_is_judged_by_the_grants_at_its_end(
    grants: list[tuple[str, str]], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roomkey.api.operations.LINGERING_SECONDS", 0.0)
    async with a_site() as site:
        id, token = await site.session("alice", ("plan", "write"))

        async def body() -> AsyncGenerator[bytes]:
            yield b'{"content":'
            await site.change_grants(id, *grants)
            yield b'"late"}'

        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        answer = await site.caller.http.put("/documents/plan", content=body(), headers=headers)
        after = await site.caller.http.get("/documents/plan")

        assert answer.status_code == status
        assert after.status_code == (200 if status == 201 else 404)
