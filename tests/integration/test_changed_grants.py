"""Grants that an operator changes hold for open sockets before the operator is answered."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.calls import Caller, calling
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
